"""Patients drawn at random so that each class has its share: parts and folds."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_TRIES = 32


def draw_patients(patients: Array, labels: Array, fraction: float, seed: tuple[int, ...]) -> Array:
    """Which samples are drawn, ``[n]`` bool: whole patients, about ``fraction`` of each class, at least one sample.

    Patients are looked at in random order, and taken if that brings the number of samples, and that of each class,
    nearer to their shares (sum of squared relative deviations); of 32 such draws the nearest is kept. The last patient
    of a class is never taken. The same for the same seed on every platform.

    Args:
        patients: ``[n]`` whole numbers.
        labels: ``[n]`` classes from 0 on.
        fraction: in [0, 1).
        seed: whole numbers, 0 or larger.
    """
    if fraction == 0 or len(labels) == 0:
        return np.zeros(len(labels), bool)
    groups, samples = _table(patients, labels)
    count = len(samples)
    # one column more, of all classes together: the part's size counts as well
    rows = np.concatenate([samples, samples.sum(axis=1, keepdims=True)], axis=1).astype(np.float64)
    totals = rows.sum(axis=0)
    wanted = np.maximum(totals * fraction, 1)
    weights = np.where(totals > 0, 1 / wanted**2, 0)
    has = samples > 0
    # raw bits, because of NumPy's generators only their stream is promised never to change
    random = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(_TRIES * count).reshape(_TRIES, count)
    orders = np.argsort(random, axis=1, kind="stable")
    missing = np.tile(wanted, (_TRIES, 1))
    left = np.tile(has.sum(axis=0), (_TRIES, 1))
    taken = np.zeros((_TRIES, count), bool)
    for patient in orders.T:
        row = rows[patient]
        nearer = _sum(weights * row * (row - 2 * missing)) < 0
        chosen = nearer & ((left > 1) | ~has[patient]).all(axis=1)
        taken[np.arange(_TRIES), patient] = chosen
        missing -= row * chosen[:, None]
        left -= has[patient] & chosen[:, None]
    drawn: Array = taken[int(_sum(weights * missing**2).argmin())][groups]
    return drawn


def fold_of_patients(patients: Array, labels: Array, folds: int, seed: int) -> Array:
    """Number of each sample's fold, ``[n]``: whole patients, stratified; the same for the same seed anywhere.

    Raises:
        ValueError: for fewer patients than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    groups, samples = _table(patients, labels)
    if len(samples) < folds:
        raise ValueError(f"folds={folds}: there are {len(samples)} patients: choose no more folds than patients")
    # ties go by the groups' order: shuffled here, as the library's own shuffling has changed between its versions
    random = np.random.PCG64(np.random.SeedSequence((seed, 0))).random_raw(len(samples))
    shuffled = np.argsort(np.argsort(random, kind="stable"), kind="stable")[groups]
    result = np.zeros(len(labels), np.int64)
    with warnings.catch_warnings():
        # of a class with fewer samples than folds; that it is in the training part is checked later
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        try:
            for number, (_, test) in enumerate(StratifiedGroupKFold(folds).split(labels, labels, shuffled)):
                result[test] = number
        except ValueError as error:
            largest = int(samples.sum(axis=0).max())
            raise ValueError(
                f"folds={folds}: no class has so many slides, the largest {largest}: choose fewer folds"
            ) from error
    return result


def _table(patients: Array, labels: Array) -> tuple[Array, Array]:
    """Each sample's patient counted from 0 on without gaps, and how many samples each has of each class."""
    groups = np.unique(patients, return_inverse=True)[1].reshape(-1)
    samples = np.zeros((int(groups.max()) + 1, int(labels.max()) + 1), np.int64)
    np.add.at(samples, (groups, labels), 1)
    return groups, samples


def _sum(columns: Array) -> Array:
    """Sum of each row in the columns' order: NumPy's own order may differ between machines."""
    total = columns[:, 0].copy()
    for column in columns.T[1:]:
        total += column
    return total
