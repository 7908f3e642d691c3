"""Training, validation and test parts of a data set; and training data damaged on purpose, to study robustness."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ncmi.data.columns import PART_NAMES, TEST, TRAIN, VALIDATION
from ncmi.data.dataset import Dataset

Counts = npt.NDArray[np.int64]
NoiseKind = Literal["symmetric", "pair"]


@dataclass(frozen=True, eq=False)
class Split:
    """Indices of the three parts: int64, sorted, disjoint; together the whole data set unless training is limited."""

    train: Tensor
    validation: Tensor
    test: Tensor

    @property
    def parts(self) -> dict[str, Tensor]:
        """The parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def split_dataset(
    dataset: Dataset,
    *,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.2,
    train_per_class: int | None = None,
    train_on_all: bool = False,
    imbalance: float = 1.0,
    seed: int = 0,
) -> Split:
    """Stratified random split, the same for the same seed on every platform and with every NumPy.

    In validation and in test each class has its fraction to within one sample, as long as that leaves it one
    sample in every part. A test or validation part that the data set has itself stands as it is, and its fraction is
    not used; a validation part that is drawn is a fraction of the samples that are in no given part.

    Args:
        validation_fraction: share of samples for selection, in (0, 1).
        test_fraction: share of samples that are read once, at the end, in (0, 1).
        train_per_class: keep so many training samples of each class, drawn at random; the parts are then not the
            whole data set.
        train_on_all: the training part takes the validation part's samples in as well, which is then empty.
        imbalance: make the training part, after all this, a long tail of this ratio, drawn at random; see
            :func:`long_tail`. Validation and test stay as they are.
        seed: 0 or larger.

    Raises:
        ValueError: for a class with fewer samples than there are parts to draw, fractions that leave nothing to train
            on, a class with fewer training samples than ``train_per_class``, an imbalance below 1, or a negative seed.

    Example:
        >>> from ncmi.data.load import load_dataset
        >>> split = split_dataset(load_dataset("iris"), seed=1)
        >>> len(split.train), len(split.validation), len(split.test)
        (98, 22, 30)
    """
    parts = np.zeros(len(dataset), np.int8) if dataset.parts is None else dataset.parts
    given = {part: np.flatnonzero(parts == part) for part in (VALIDATION, TEST) if (parts == part).any()}
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    for part, name in ((VALIDATION, "validation_fraction"), (TEST, "test_fraction")):
        if part in given:
            del fractions[name]
    for name, fraction in fractions.items():
        if not 0 < fraction < 1:
            raise ValueError(f"{name}={fraction}: choose a fraction between 0 and 1")
    if sum(fractions.values()) >= 1:
        raise ValueError(f"{fractions} leave nothing to train on: choose fractions whose sum is below 1")
    if seed < 0:
        raise ValueError(f"seed={seed}: choose 0 or larger")

    if train_on_all and VALIDATION in given:
        parts = np.where(parts == VALIDATION, TRAIN, parts)
        given[VALIDATION] = given[VALIDATION][:0]
    pool = np.flatnonzero(parts == TRAIN)
    labels = dataset.labels.numpy()[pool]
    counts = np.bincount(labels, minlength=dataset.num_classes)
    if len(few := np.flatnonzero(counts <= len(fractions))):
        samples = "1 sample" if counts[few[0]] == 1 else f"{counts[few[0]]} samples"
        names = " and ".join(PART_NAMES[part] for part in given)
        where = f" outside its own {names} part" if given else ""
        others = f" ({len(few)} classes have too few)" if len(few) > 1 else ""
        needs = f"one in each of {len(fractions) + 1} parts" if fractions else "at least one to train on"
        raise ValueError(
            f"class {dataset.class_names[few[0]]!r} of {dataset.name!r} has {samples}{where}, but needs {needs}"
            f"{others}: add samples, merge the class with another or remove it"
        )
    tests, validations = np.zeros_like(counts), np.zeros_like(counts)
    if TEST not in given:
        tests = _allocate(counts, test_fraction, counts - len(fractions))
    if VALIDATION not in given:
        validations = _allocate(counts, validation_fraction, counts - tests - 1)

    # sorted by class and at random within it; raw bits, because only their stream is promised never to change
    order = np.lexsort((np.random.PCG64(seed).random_raw(len(pool)), labels))
    rank = np.arange(len(pool)) - np.repeat(np.cumsum(counts) - counts, counts)
    in_test = rank < np.repeat(tests, counts)
    ends = tests if train_on_all else tests + validations
    in_validation = ~in_test & (rank < np.repeat(ends, counts))
    in_train = ~in_test & ~in_validation
    kept = counts - ends
    if train_per_class is not None:
        least = int(kept.argmin())
        if not 1 <= train_per_class <= kept[least]:
            raise ValueError(
                f"train_per_class={train_per_class}: {dataset.name!r} leaves {kept[least]} training samples of class "
                f"{dataset.class_names[least]!r}: choose 1…{kept[least]}, or leave it out"
            )
        kept = np.full_like(kept, train_per_class)
    in_train &= rank < np.repeat(ends + long_tail(kept, imbalance), counts)

    drawn = {TRAIN: in_train, VALIDATION: in_validation, TEST: in_test}

    def indices(part: int) -> Tensor:
        return torch.from_numpy(given[part] if part in given else np.sort(pool[order[drawn[part]]]))

    return Split(train=indices(TRAIN), validation=indices(VALIDATION), test=indices(TEST))


def _allocate(counts: Counts, fraction: float, limit: Counts) -> Counts:
    """How many samples of each class go to a part, 1…limit; rounded cumulatively, so the total is right."""
    ends = np.round(np.cumsum(counts * fraction)).astype(np.int64)
    return np.minimum(np.maximum(np.diff(ends, prepend=0), 1), limit)


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


def long_tail(counts: Counts, imbalance: float) -> Counts:
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
    return np.asarray(np.minimum(counts, np.maximum(allowed, 1)))
