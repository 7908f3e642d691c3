"""Parts that a table of slides or a splits file gives, and patients that stand in two of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ncmi.data.dataset import listing
from ncmi.recipes.slides import SlideData
from ncmi.slides.cohort import Cohort
from ncmi.slides.labels import LabelError, read_text_frame, slide_name

NONE, TRAIN, VALIDATION, TEST = -1, 0, 1, 2
PART_NAMES = ("training", "validation", "test")
_WORDS = {
    **dict.fromkeys(("train", "training", "tr"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev", "tune"), VALIDATION),
    **dict.fromkeys(("test", "testing", "te"), TEST),
}
Parts = npt.NDArray[Any]


def given_parts(cohort: Cohort, data: SlideData) -> tuple[Parts, dict[int, str]]:
    """Part of each slide, and why those in no part are left out: by held-out values, split column or splits file.

    Raises:
        ValueError: for columns, values or slides that are not there, or no slides to train or test on.
    """
    if data.holdout_column is not None:
        where, parts = f"column {data.holdout_column!r}", _held_out(cohort, data.holdout_column, data.holdout)
    elif data.split_column is not None and data.splits is not None:
        raise ValueError("split_column and splits both say what the parts are: give one of them")
    elif data.split_column is not None:
        where, parts = f"column {data.split_column!r}", _from_column(cohort, data.split_column)
    else:
        where, parts = str(data.splits), _from_file(cohort, Path(str(data.splits)), data.bad == "skip")
    for part in (TRAIN, TEST):
        if not (parts == part).any():
            raise LabelError(f"{where} gives no slides for the {PART_NAMES[part]} part: give some, or leave it out")
    return parts, {int(index): f"in no part by {where}" for index in np.flatnonzero(parts == NONE)}


def resolve_overlap(cohort: Cohort, parts: Parts, left_out: dict[int, str], *, drop: bool) -> None:
    """Refuse patients on two sides, or take their slides out of training, and of validation for those under test.

    Raises:
        ValueError: naming the patients.
    """
    sides: dict[str, set[int]] = {}
    for patient, part in zip(cohort.patients, parts.tolist(), strict=True):
        if part != NONE:
            sides.setdefault(patient, set()).add(part)
    doubled = {patient: max(found) for patient, found in sorted(sides.items()) if len(found) > 1}
    if doubled and not drop:
        where = ", ".join(f"{name!r} in {_parts_of(sides[name])}" for name in list(doubled)[:5])
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


def _parts_of(parts: set[int]) -> str:
    return " and ".join(PART_NAMES[part] for part in sorted(parts))


def _held_out(cohort: Cohort, column: str, values: tuple[str, ...]) -> Parts:
    found = _column(cohort, column, "holdout")
    if missing := sorted(set(values) - set(found)):
        raise LabelError(
            f"column {column!r} never holds {listing(missing)} (--data.holdout), but {listing(sorted(set(found)))}"
        )
    return np.where([value in values for value in found], TEST, TRAIN)


def _from_column(cohort: Cohort, column: str) -> Parts:
    words = _column(cohort, column, "split")
    if unknown := sorted({word for word in words if word and word.lower() not in _WORDS}):
        raise LabelError(
            f"column {column!r} holds {listing(unknown)}: only train, val, test or nothing may stand there"
        )
    return np.array([_WORDS.get(word.lower(), NONE) for word in words])


def _column(cohort: Cohort, column: str, option: str) -> list[str]:
    if not all(column in slide.values for slide in cohort.slides):
        there = sorted({name for slide in cohort.slides for name in slide.values})
        raise LabelError(
            f"no column {column!r} (--data.{option}-column); there is {listing(there) or 'none'} in the labels"
        )
    return [slide.values[column] for slide in cohort.slides]


def _from_file(cohort: Cohort, path: Path, skip: bool) -> Parts:
    """CLAM's splits: columns train, val, test with slides in them; or one row a slide with True in one of them."""
    frame = read_text_frame(path)
    columns = {name: _WORDS[name.lower()] for name in frame.columns if name.lower() in _WORDS}
    if not {TRAIN, TEST} <= set(columns.values()):
        raise LabelError(f"{path}: columns {listing(list(frame.columns))}: need train and test, and may have val")
    # spreadsheets write TRUE
    flags = frame[list(columns)].map(str.lower)
    marked = set(np.unique(flags)) <= {"true", "false", ""}
    numbers = {name: index for index, name in enumerate(cohort.names)}
    known = numbers.keys() | {name for name, _ in cohort.skipped}
    parts = np.full(len(cohort.slides), NONE)
    strangers = []
    for column, part in columns.items():
        texts = frame.iloc[:, 0][flags[column] == "true"] if marked else frame[column]
        for name in (slide_name(text) for text in texts if text):
            if name not in known:
                strangers.append(name)
            elif name in numbers:
                if parts[numbers[name]] not in (NONE, part):
                    raise LabelError(f"{path}: slide {name!r} stands in two columns: leave it in one")
                parts[numbers[name]] = part
    if strangers and not skip:
        raise LabelError(
            f"{path}: {len(strangers)} slides that the cohort does not have ({listing(strangers, 5)}): add them to the "
            "labels, take them out, or go on without them (--data.bad skip)"
        )
    return parts
