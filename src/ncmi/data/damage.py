"""Training data damaged on purpose, to study robustness: wrong labels, and classes of very different size."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

NoiseKind = Literal["symmetric", "pair"]


def noisy_labels(labels: Tensor, num_classes: int, rate: float, kind: NoiseKind = "symmetric", seed: int = 0) -> Tensor:
    """Labels of which each is wrong with probability ``rate``, independently of the others.

    The same on every platform and with every NumPy. What happens to a label depends on seed, length and its own
    position alone, and labels that are wrong at one rate are wrong, in the same way, at every higher one.

    Args:
        labels: ``[N]`` int64, in ``0…C−1``; left as they are.
        num_classes: C, at least 2.
        rate: η in [0, 1), the expected share of wrong labels.
        kind: ``"symmetric"``: a wrong label is drawn uniformly from the *other* C − 1 classes. (Where the literature
            draws from all C, its rate r means η = r·(C − 1)/C.) ``"pair"``: class c becomes c + 1, and the last class
            becomes 0, the usual class-dependent noise.
        seed: 0 or larger.

    Returns:
        ``[N]`` int64.

    Raises:
        ValueError: for another kind, a rate outside [0, 1), fewer than two classes, or a negative seed.

    Example:
        >>> noisy_labels(torch.tensor([0, 0, 0, 1, 1, 2, 2, 2]), 3, 0.5, "pair")
        tensor([0, 1, 0, 2, 2, 2, 0, 2])
    """
    if kind not in ("symmetric", "pair"):
        raise ValueError(f"unknown noise_kind {kind!r}: use 'symmetric' or 'pair'")
    if not 0 <= rate < 1:
        raise ValueError(f"label_noise={rate}: give a share of at least 0 and below 1, such as 0.4")
    if num_classes < 2 or seed < 0:
        raise ValueError(f"num_classes={num_classes}, seed={seed}: give at least 2 classes and a seed of 0 or larger")
    # raw bits, because only their stream is promised never to change; the key sets it apart from the split's own stream
    raw = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(0,))).random_raw(2 * len(labels)).reshape(2, -1)
    is_wrong = torch.from_numpy((raw[0] >> np.uint64(11)) * 2.0**-53 < rate).to(labels.device)
    if kind == "pair":
        step = torch.ones_like(labels)
    else:
        step = torch.from_numpy(1 + (raw[1] % np.uint64(num_classes - 1)).astype(np.int64)).to(labels.device)
    return torch.where(is_wrong, (labels + step) % num_classes, labels)


def long_tail(counts: npt.NDArray[np.int64], imbalance: float) -> npt.NDArray[np.int64]:
    """How many samples of each class a long tail keeps: ``n_max · imbalance^(−c/(C−1))`` of class c, rounded down.

    Args:
        counts: ``[C]``, how many there are, C at least 2; n_max is the largest of them. A class that has fewer than its
            place in the tail allows keeps all; none loses its last one.
        imbalance: ratio of the first class's number to the last one's, at least 1; 1 keeps everything.

    Raises:
        ValueError: for an imbalance below 1.

    Source: Cui et al. 2019, "Class-balanced loss based on effective number of samples", section 5.1; Cao et al. 2019,
        "Learning imbalanced datasets with label-distribution-aware margin loss", section 4.2.

    Example:
        >>> long_tail(np.array([500, 500, 500]), 100).tolist()
        [500, 50, 5]
    """
    if not 1 <= imbalance < np.inf:
        raise ValueError(
            f"imbalance={imbalance}: the ratio of the largest class to the smallest is at least 1, such as 100"
        )
    place = np.arange(len(counts)) / (len(counts) - 1)
    # a whole number that a platform's power function just misses must not lose a sample
    allowed = np.floor(counts.max() * float(imbalance) ** -place + 1e-6).astype(np.int64)
    kept: npt.NDArray[np.int64] = np.minimum(counts, np.maximum(allowed, 1))
    return kept
