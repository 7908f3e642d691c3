"""Training, validation and test parts of a data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ncmi.data.damage import long_tail
from ncmi.data.dataset import Dataset

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Indices of the three parts: int64, sorted, disjoint; together the whole data set unless training is limited."""

    train: Tensor
    validation: Tensor
    test: Tensor


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
    sample in every part. Where the data set has an official test set, that is the test part as it stands,
    ``test_fraction`` is not used, and ``validation_fraction`` is of the other samples.

    Args:
        validation_fraction: share of samples for selection, in (0, 1).
        test_fraction: share of samples that are read once, at the end, in (0, 1).
        train_per_class: keep so many training samples of each class, drawn at random; the parts are then not the
            whole data set.
        train_on_all: the training part takes the validation part's samples in as well, which is then empty.
        imbalance: make the training part, after all this, a long tail of this ratio, drawn at random; see
            :func:`ncmi.data.long_tail`. Validation and test stay as they are.
        seed: 0 or larger.

    Raises:
        ValueError: for a class with fewer samples than there are parts to draw, fractions that leave nothing
            to train on, a class with fewer training samples than ``train_per_class``, an imbalance below 1, or a
            negative seed.

    Example:
        >>> from ncmi.data import load_dataset
        >>> split = split_dataset(load_dataset("iris"), seed=1)
        >>> len(split.train), len(split.validation), len(split.test)
        (98, 22, 30)
    """
    fixed = dataset.fixed_test
    fractions = {"validation_fraction": validation_fraction} | (
        {} if fixed is not None else {"test_fraction": test_fraction}
    )
    for name, fraction in fractions.items():
        if not 0 < fraction < 1:
            raise ValueError(f"{name}={fraction}: choose a fraction between 0 and 1")
    if sum(fractions.values()) >= 1:
        raise ValueError(f"{fractions} leave nothing to train on: choose fractions whose sum is below 1")
    if seed < 0:
        raise ValueError(f"seed={seed}: choose 0 or larger")

    pool = np.arange(len(dataset))
    if fixed is not None:
        pool = np.setdiff1d(pool, fixed.numpy())
    labels = dataset.labels.numpy()[pool]
    counts = np.bincount(labels, minlength=dataset.num_classes)
    _check_counts(dataset, counts, parts=len(fractions) + 1)
    tests = np.zeros_like(counts) if fixed is not None else _allocate(counts, test_fraction, counts - 2)
    validations = _allocate(counts, validation_fraction, counts - tests - 1)

    # sorted by class and at random within it; raw bits, because only their stream is promised never to change
    order = np.lexsort((np.random.PCG64(seed).random_raw(len(pool)), labels))
    rank = np.arange(len(pool)) - np.repeat(np.cumsum(counts) - counts, counts)
    in_test = rank < np.repeat(tests, counts)
    if train_on_all:
        validations = np.zeros_like(validations)
    ends = tests + validations
    in_validation = ~in_test & (rank < np.repeat(ends, counts))
    in_train = ~in_test & ~in_validation
    kept = counts - ends
    if train_per_class is not None:
        _check_train(dataset, kept, train_per_class)
        kept = np.full_like(kept, train_per_class)
    in_train &= rank < np.repeat(ends + long_tail(kept, imbalance), counts)

    def indices(chosen: npt.NDArray[np.bool_]) -> Tensor:
        return torch.from_numpy(np.sort(pool[order[chosen]]))

    return Split(
        train=indices(in_train),
        validation=indices(in_validation),
        test=indices(in_test) if fixed is None else fixed.sort().values,
    )


def _allocate(counts: Counts, fraction: float, limit: Counts) -> Counts:
    """How many samples of each class go to a part, 1…limit; rounded cumulatively, so the total is right."""
    ends = np.round(np.cumsum(counts * fraction)).astype(np.int64)
    return np.minimum(np.maximum(np.diff(ends, prepend=0), 1), limit)


def _check_train(dataset: Dataset, left: Counts, train_per_class: int) -> None:
    least = int(left.argmin())
    if not 1 <= train_per_class <= left[least]:
        raise ValueError(
            f"train_per_class={train_per_class}: {dataset.name!r} leaves {left[least]} training samples of class "
            f"{dataset.class_names[least]!r}: choose 1…{left[least]}, or leave it out"
        )


def _check_counts(dataset: Dataset, counts: Counts, parts: int) -> None:
    few = np.flatnonzero(counts < parts)
    if len(few) == 0:
        return
    name, count = dataset.class_names[few[0]], counts[few[0]]
    samples = "1 sample" if count == 1 else f"{count} samples"
    where = " outside its official test set" if dataset.fixed_test is not None else ""
    others = f" ({len(few)} classes have too few)" if len(few) > 1 else ""
    raise ValueError(
        f"class {name!r} of {dataset.name!r} has {samples}{where}, but needs one in each of {parts} parts"
        f"{others}: add samples, merge the class with another or remove it"
    )
