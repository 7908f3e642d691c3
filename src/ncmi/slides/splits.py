"""Training, validation and test parts of a cohort: by patient, always."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ncmi.data.dataset import listing
from ncmi.data.splits import Split
from ncmi.recipes.slides import SlideData
from ncmi.slides.cohort import Cohort
from ncmi.slides.given_splits import TEST, TRAIN, VALIDATION, given_parts, resolve_overlap
from ncmi.slides.patient_draw import draw_patients, fold_of_patients


@dataclass(frozen=True, eq=False)
class CohortSplit(Split):
    """Indices of a cohort's slides in three parts, int64, sorted, disjoint; no patient stands in two of them.

    Attributes:
        left_out: (slide, reason) of the slides in no part.
    """

    left_out: tuple[tuple[str, str], ...] = ()


def split_cohort(cohort: Cohort, data: SlideData, seed: int) -> CohortSplit:
    """Split a cohort as its recipe says; the same for the same seed on every platform.

    The test part is fold ``data.fold`` of ``data.folds``, or else the slides whose ``data.holdout_column`` holds one of
    ``data.holdout``, or else what ``data.split_column`` or ``data.splits`` say, or else a random part. Where the
    validation part is not given, it is drawn by patient from what is left. Random parts have each class in its share
    as nearly as whole patients allow, and leave one patient of each class to train on.

    Args:
        seed: of folds and random parts, where ``data.split_seed`` is None; 0 or larger.

    Raises:
        ValueError: for a patient on two sides (unless they are to be dropped), a class that the training part lacks,
            slides without label, columns or values that are not there, fewer patients than folds.
    """
    labels = cohort.labels.numpy()
    if (labels < 0).any():
        raise ValueError(f"slide {cohort.names[int((labels < 0).argmax())]!r} has no label: label the slides to split")
    seed = seed if data.split_seed is None else data.split_seed
    if seed < 0:
        raise ValueError(f"seed={seed}: choose 0 or larger")
    patients = np.unique(np.array(cohort.patients), return_inverse=True)[1].reshape(-1)
    parts = np.full(len(labels), TRAIN)
    left_out: dict[int, str] = {}
    draw_validation = True
    if data.folds:
        parts[fold_of_patients(patients, labels, data.folds, seed) == data.fold] = TEST
    elif data.holdout_column is not None or data.split_column is not None or data.splits is not None:
        parts, left_out = given_parts(cohort, data)
        resolve_overlap(cohort, parts, left_out, drop=data.patient_overlap == "drop")
        draw_validation = not (parts == VALIDATION).any()
    else:
        parts[draw_patients(patients, labels, data.test_fraction, (seed, 1))] = TEST
    if draw_validation:
        pool = np.flatnonzero(parts == TRAIN)
        stream = (seed, 2, data.fold) if data.folds else (seed, 2)
        drawn = draw_patients(patients[pool], labels[pool], data.validation_fraction, stream)
        parts[pool[drawn]] = VALIDATION
    _check_classes(cohort, parts)
    if not (parts == TEST).any() and (data.folds or data.test_fraction):
        cure = "choose fewer folds" if data.folds else "a larger --data.test-fraction, or a split with a test part"
        raise ValueError(f"no slide in the test part of {len(set(cohort.patients))} patients: give more, or {cure}")

    def indices(part: int) -> Tensor:
        return torch.from_numpy(np.flatnonzero(parts == part).astype(np.int64))

    names = cohort.names
    return CohortSplit(
        train=indices(TRAIN),
        validation=indices(VALIDATION),
        test=indices(TEST),
        left_out=tuple((names[index], left_out[index]) for index in sorted(left_out)),
    )


def _check_classes(cohort: Cohort, parts: np.ndarray) -> None:
    labels = cohort.labels.numpy()
    counts = np.bincount(labels[parts == TRAIN], minlength=len(cohort.class_names))
    if (counts > 0).all():
        return
    missing = [name for name, count in zip(cohort.class_names, counts, strict=True) if count == 0]
    index = cohort.class_names.index(missing[0])
    elsewhere = int((labels == index).sum())
    skipped = "; ".join(f"{name}: {reason}" for name, reason in cohort.skipped[:3]) if elsewhere == 0 else ""
    skipped = f"; left out: {skipped}" if skipped else ""
    raise ValueError(
        f"no slide of class {listing(missing)} in the training part ({elsewhere} of {missing[0]!r} in the others"
        f"{skipped}): give slides of it, split otherwise, merge it with another class, or take it out of labels and "
        "--data.classes"
    )
