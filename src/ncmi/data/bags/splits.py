"""Training, validation and test parts of a cohort: by patient, always; given or drawn."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ncmi.data.bags.cohort import Cohort
from ncmi.data.bags.labels import LabelError, plain_name, read_text_frame, slide_name
from ncmi.data.columns import NONE, PART_NAMES, PART_WORDS, TEST, TRAIN, VALIDATION
from ncmi.data.splits import Split, draw_groups, fold_of_groups
from ncmi.errors import listing, reason
from ncmi.recipes import BagData

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class CohortSplit(Split):
    """Indices of a cohort's slides in three parts, int64, sorted, disjoint; no patient stands in two of them.

    Attributes:
        left_out: (slide, reason) of the slides in no part.
    """

    left_out: tuple[tuple[str, str], ...] = ()


def split_cohort(cohort: Cohort, data: BagData, seed: int) -> CohortSplit:
    """Split a cohort as its recipe says; the same for the same seed on every platform.

    The test part is fold ``data.fold`` of ``data.folds``: drawn, or published, which is the splits file of that number,
    or the slides whose ``data.split_column`` holds it (counted from 0 or 1). Without folds it is the slides whose
    ``data.holdout_column`` holds one of ``data.holdout``, or else what ``data.split_column`` or ``data.splits`` say, or
    else a random part. Where the validation part is not given, it is drawn by patient from what is left. Random parts
    have each class in its share as nearly as whole patients allow, and leave one patient of each class to train on.

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
    if data.folds and (data.splits is not None or data.split_column is not None):
        parts, left_out = _published_fold(cohort, data)
        _resolve_overlap(cohort, parts, left_out, drop=data.patient_overlap == "drop")
        draw_validation = not (parts == VALIDATION).any()
    elif data.folds:
        parts[fold_of_groups(patients, labels, data.folds, seed) == data.fold] = TEST
    elif data.holdout_column is not None or data.split_column is not None or data.splits is not None:
        parts, left_out = _given_parts(cohort, data)
        _resolve_overlap(cohort, parts, left_out, drop=data.patient_overlap == "drop")
        draw_validation = not (parts == VALIDATION).any()
    else:
        parts[draw_groups(patients, labels, data.test_fraction, (seed, 1))] = TEST
    if draw_validation:
        pool = np.flatnonzero(parts == TRAIN)
        stream = (seed, 2, data.fold) if data.folds else (seed, 2)
        chosen = draw_groups(patients[pool], labels[pool], data.validation_fraction, stream)
        parts[pool[chosen]] = VALIDATION
    _check_classes(cohort, parts)
    if not (parts == TEST).any() and (data.folds or data.test_fraction):
        cure = "choose fewer folds" if data.folds else "a larger --data.test-fraction, or a split with a test part"
        count, labeled = len(set(cohort.patients)), set(zip(cohort.patients, labels.tolist(), strict=True))
        if 2 < len(labeled) == len(cohort.class_names):
            cure += f"; or other labels (--data.label-column): each of these {len(labeled)} classes has one patient"
        raise ValueError(f"no slide in the test part of {count} patients: give more, or {cure}")

    def indices(part: int) -> Tensor:
        return torch.from_numpy(np.flatnonzero(parts == part).astype(np.int64))

    names = cohort.names
    return CohortSplit(
        train=indices(TRAIN),
        validation=indices(VALIDATION),
        test=indices(TEST),
        left_out=tuple((names[index], left_out[index]) for index in sorted(left_out)),
    )


def _check_classes(cohort: Cohort, parts: Array) -> None:
    labels = cohort.labels.numpy()
    present = set(labels[parts == TRAIN].tolist())
    missing = [name for index, name in enumerate(cohort.class_names) if index not in present]
    if not missing:
        return
    elsewhere = int((labels == cohort.class_names.index(missing[0])).sum())
    skipped = "; ".join(f"{name}: {reason}" for name, reason in cohort.skipped[:3]) if elsewhere == 0 else ""
    skipped = f"; left out: {skipped}" if skipped else ""
    raise ValueError(
        f"no slide of class {listing(missing)} in the training part ({elsewhere} of {missing[0]!r} in the others"
        f"{skipped}): give slides of it, split otherwise, merge it with another class, or take it out of labels and "
        "--data.classes"
    )


def describe_cohort(cohort: Cohort, split: CohortSplit) -> dict[str, Any]:
    """What a run is trained on, as plain values: width of the features, classes, and each slide's patient, class, part.

    A run keeps it, so that a stopped one goes on with the same slides in the same parts, or not: see
    :func:`cohort_changes`.
    """
    names = {index: part for part, indices in split.parts.items() for index in indices.tolist()}
    slides = {
        slide.name: [
            slide.patient,
            None if slide.label is None else cohort.class_names[slide.label],
            names.get(index),
            *(part.name for part in slide.slides),
        ]
        for index, slide in enumerate(cohort.slides)
    }
    return {"feature_dim": cohort.feature_dim, "class_names": list(cohort.class_names), "slides": slides}


def cohort_changes(earlier: Mapping[str, Any], cohort: Cohort, split: CohortSplit) -> list[str]:
    """How a cohort and its split differ from what :func:`describe_cohort` said earlier; empty where they do not."""
    now = describe_cohort(cohort, split)
    changes = [
        f"{what} {earlier.get(name)}, now {now[name]}"
        for name, what in (("feature_dim", "features were as wide as"), ("class_names", "classes were"))
        if earlier.get(name) != now[name]
    ]
    before, after = earlier.get("slides", {}), now["slides"]
    groups = {
        "gone": before.keys() - after.keys(),
        "new": after.keys() - before.keys(),
        "of another patient, class or part": {n for n in after.keys() & before.keys() if before[n] != after[n]},
    }
    return changes + [
        f"{len(names)} slides are {how} ({listing(sorted(names), 3)})" for how, names in groups.items() if names
    ]


def _given_parts(cohort: Cohort, data: BagData) -> tuple[Array, dict[int, str]]:
    """Part of each slide, and why those in no part are left out: by held-out values, split column or splits file."""
    if (column := data.holdout_column) is not None:
        where, texts = f"column {column!r}", _column(cohort, column, "holdout")
        if missing := sorted(set(data.holdout) - set(texts)):
            raise LabelError(
                f"{where} never holds {listing(missing)} (--data.holdout), but {listing(sorted(set(texts)))}"
            )
        parts = np.where([text in data.holdout for text in texts], TEST, TRAIN)
    elif data.split_column is not None and data.splits is not None:
        raise ValueError("split_column and splits both say what the parts are: give one of them")
    elif data.split_column is not None:
        where, words = f"column {data.split_column!r}", _column(cohort, data.split_column, "split")
        if others := sorted({word for word in words if word and word.lower() not in PART_WORDS}):
            raise LabelError(f"{where} holds {listing(others)}: only train, val, test or nothing may stand there")
        parts = np.array([PART_WORDS.get(word.lower(), NONE) for word in words])
    else:
        given = Path(str(data.splits))
        if given.suffix.lower() == ".json" or given.is_dir() or "{fold}" in str(given):
            raise LabelError(f"{given}: means several folds: say how many (--data.folds), or give one CSV")
        where, parts = str(given), _from_file(cohort, given, data.bad == "skip")
    for part in (TRAIN, TEST):
        if not (parts == part).any():
            raise LabelError(f"{where} gives no slides for the {PART_NAMES[part]} part: give some, or leave it out")
    return parts, {int(index): f"in no part by {where}" for index in np.flatnonzero(parts == NONE)}


def _published_fold(cohort: Cohort, data: BagData) -> tuple[Array, dict[int, str]]:
    """The parts of one of a study's own folds: of the splits file of its number, of STAMP's, or by a column."""
    if data.splits is not None and Path(data.splits).suffix.lower() == ".json":
        return _stamp_fold(cohort, data)
    if data.splits is not None:
        file = splits_file(data.splits, data.fold)
        return _given_parts(cohort, replace(data, splits=file, split_column=None, holdout_column=None, holdout=()))
    texts = _column(cohort, str(data.split_column), "split")
    there = sorted({text for text in texts if text}, key=lambda text: (len(text), text))
    for first in (0, 1):
        if there == [str(number) for number in range(first, first + data.folds)]:
            parts = np.array([TEST if text == str(data.fold + first) else TRAIN if text else NONE for text in texts])
            return parts, {int(i): f"in no fold by column {data.split_column!r}" for i in np.flatnonzero(parts == NONE)}
    raise LabelError(
        f"column {data.split_column!r} holds {listing(there)}, which are not the numbers of {data.folds} folds: give "
        "their number (--data.folds), or another column"
    )


def _stamp_fold(cohort: Cohort, data: BagData) -> tuple[Array, dict[int, str]]:
    """STAMP's splits.json: of each fold the names of the patients to train and to test on."""
    path = Path(str(data.splits))
    try:
        folds = [
            (_names_in(fold["train_patients"]), _names_in(fold["test_patients"]))
            for fold in json.loads(path.read_text(encoding="utf-8"))["splits"]
        ]
    except OSError as error:
        raise LabelError(f"{path}: cannot be read ({reason(error)}): check the path") from None
    except (ValueError, KeyError, TypeError) as error:
        raise LabelError(
            f"{path}: no splits.json as STAMP writes it, with train_patients and test_patients of each fold "
            f"({reason(error)}): give one, or CSV files as CLAM writes them"
        ) from None
    if len(folds) != data.folds:
        raise LabelError(f"{path}: holds {len(folds)} folds: give --data.folds {len(folds)}")
    train, test = folds[data.fold]
    if (unlisted := sorted((train | test) - set(cohort.patients))) and data.bad != "skip":
        raise LabelError(
            f"{path}: {len(unlisted)} patients that the cohort does not have ({listing(unlisted, 5)}): add them to the "
            "labels, take them out, or go on without them (--data.bad skip)"
        )
    if both := sorted(train & test):
        raise LabelError(f"{path}: patient {both[0]!r} is on both sides of fold {data.fold}: leave it on one")
    parts = np.array([TEST if name in test else TRAIN if name in train else NONE for name in cohort.patients])
    return parts, {int(index): f"in no part by {path}" for index in np.flatnonzero(parts == NONE)}


def _names_in(value: object) -> set[str]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return {plain_name(str(name)) for name in value}


def splits_file(splits: str, fold: int) -> str:
    """The file of a fold: of a path with ``{fold}`` in it, or splits_FOLD.csv in a folder, as CLAM writes them.

    >>> splits_file("study/fold{fold}.csv", 3)
    'study/fold3.csv'
    """
    if "{fold}" in splits:
        return splits.replace("{fold}", str(fold))
    path = Path(splits)
    if not path.is_dir():
        raise LabelError(
            f"{splits}: one file for several folds: give the folder of splits_0.csv, splits_1.csv …, a path with "
            "{fold} in it or STAMP's splits.json, or leave --data.folds out"
        )
    return str(path / f"splits_{fold}.csv")


def _resolve_overlap(cohort: Cohort, parts: Array, left_out: dict[int, str], *, drop: bool) -> None:
    """Refuse patients on two sides, or take their slides out of training, and of validation for those under test."""
    sides: dict[str, set[int]] = {}
    for patient, part in zip(cohort.patients, parts.tolist(), strict=True):
        if part != NONE:
            sides.setdefault(patient, set()).add(part)
    doubled = {patient: max(on) for patient, on in sorted(sides.items()) if len(on) > 1}
    if doubled and not drop:
        names = {name: " and ".join(PART_NAMES[part] for part in sorted(sides[name])) for name in list(doubled)[:5]}
        where = ", ".join(f"{name!r} in {parts_of}" for name, parts_of in names.items())
        more = f" and {len(doubled) - 5} more" if len(doubled) > 5 else ""
        count = "a patient stands" if len(doubled) == 1 else f"{len(doubled)} patients stand"
        raise LabelError(
            f"{count} on two sides: {where}{more}: "
            "correct the split, or take their slides out of training (--data.patient-overlap drop)"
        )
    for index, patient in enumerate(cohort.patients):
        if patient in doubled and NONE < parts[index] < doubled[patient]:
            left_out[index] = f"patient {patient!r} also stands in the {PART_NAMES[doubled[patient]]} part"
            parts[index] = NONE


def _column(cohort: Cohort, column: str, option: str) -> list[str]:
    for patient in cohort.slides:
        texts = sorted({slide.values.get(column, "") for slide in patient.slides})
        if len(texts) > 1:
            raise LabelError(
                f"patient {patient.name!r} has slides with {listing(texts)} in column {column!r} "
                f"(--data.{option}-column), and is one bag: correct the column, or split slides (--data.unit slide)"
            )
    if not all(column in slide.values for slide in cohort.slides):
        there = sorted({name for slide in cohort.slides for name in slide.values})
        raise LabelError(
            f"no column {column!r} (--data.{option}-column); there is {listing(there) or 'none'} in the labels"
        )
    return [slide.values[column] for slide in cohort.slides]


def _from_file(cohort: Cohort, path: Path, skip: bool) -> Array:
    """CLAM's splits: columns train, val, test with slides in them; or one row a slide with True in one of them."""
    frame = read_text_frame(path)
    columns = {name: PART_WORDS[name.lower()] for name in frame.columns if name.lower() in PART_WORDS}
    if not {TRAIN, TEST} <= set(columns.values()):
        raise LabelError(f"{path}: columns {listing(list(frame.columns))}: need train and test, and may have val")
    # spreadsheets write TRUE
    flags = frame[list(columns)].map(str.lower)
    marked = set(np.unique(flags)) <= {"true", "false", ""}
    # of a patient's slides any one says where the patient is
    numbers = {name: index for index, slide in enumerate(cohort.slides) for name in (*slide.names, slide.name)}
    known = numbers.keys() | {name for name, _ in cohort.skipped}
    parts = np.full(len(cohort.slides), NONE)
    unlisted: list[str] = []
    for column, part in columns.items():
        texts = frame.iloc[:, 0][flags[column] == "true"] if marked else frame[column]
        names = [slide_name(text) for text in texts if text]
        unlisted += [name for name in names if name not in known]
        for name in (name for name in names if name in numbers):
            if parts[numbers[name]] not in (NONE, part):
                of_patient = cohort.slides[numbers[name]].slides
                what = (
                    f"patient {cohort.names[numbers[name]]!r}, by slide {name!r}," if of_patient else f"slide {name!r}"
                )
                raise LabelError(f"{path}: {what} stands in two columns: leave it in one")
            parts[numbers[name]] = part
    if unlisted and not skip:
        raise LabelError(
            f"{path}: {len(unlisted)} slides that the cohort does not have ({listing(unlisted, 5)}): add them to the "
            "labels, take them out, or go on without them (--data.bad skip)"
        )
    return parts
