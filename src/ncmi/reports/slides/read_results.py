"""Results of a run on slides: ``results.json`` with its metrics, and ``slides.csv`` with every slide."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from ncmi.reports.files import JsonObject, ReportError, read_json
from ncmi.reports.slides.records import PARTS, Measure, Metrics, SlideResults, SlideRun, SlideTable
from ncmi.slides.weighted_scores import SCORES


def read_results(path: Path) -> SlideResults | None:
    """Read ``results.json``; None where the run has none yet.

    Raises:
        ReportError: if it is damaged.
    """
    if not path.exists():
        return None
    file = read_json(path)
    if file.text("status") != "finished":
        return None
    names = tuple(str(name) for name in file.items("class_names"))
    readouts, information = file.child("readouts"), file.child("information")
    parts: dict[str, dict[str, Metrics]] = {"test": {}, "validation": {}}
    for name in readouts.content:
        readout = readouts.child(name)
        for part, found in parts.items():
            if part == "test" or readout.content.get(part):
                found[name] = _metrics(readout.child(part), names)
    primary = tuple(str(name) for name in file.items("primary_readouts"))
    absent = [name for name in primary if name not in parts["test"]]
    if absent or not primary:
        raise ReportError(f"{path}: 'primary_readouts' {absent} have no entry in 'readouts': run it again")
    return SlideResults(
        data=file.text("data"),
        epochs=file.integer("epochs"),
        best_epoch=file.integer("best_epoch") if file.content.get("best_epoch") is not None else None,
        selection=file.text("selection"),
        primary_readouts=primary,
        class_names=names,
        test=parts["test"],
        validation=parts["validation"],
        information={key: information.number(key) for key in ("cmi", "separation", "ncmi")},
        epoch_seconds=file.number("epoch_seconds"),
        total_seconds=file.number("total_seconds"),
        peak_memory_mb=file.number("peak_memory_mb"),
        skipped=_skipped(file),
        simulation=file.content.get("simulation") is True,
    )


def optional(file: JsonObject, key: str) -> float:
    """A number that not every file has; NaN where it is missing."""
    return file.number(key) if key in file.content else math.nan


def _metrics(file: JsonObject, class_names: tuple[str, ...]) -> Metrics:
    recall, counts = file.child("recall"), file.items("confusion")
    try:
        confusion = np.array(counts, dtype=np.int64)
    except (TypeError, ValueError):
        confusion = np.empty(0, dtype=np.int64)
    if confusion.shape != (len(class_names), len(class_names)) or (confusion < 0).any():
        raise ReportError(
            f"{file.path}: '{file.place}confusion' is no table of counts of {len(class_names)} classes: run it again"
        )
    return Metrics(
        scores={name: _measure(file.child(name)) for name in SCORES},
        recall={name: _measure(recall.child(name)) for name in class_names},
        confusion=confusion,
        patients=file.integer("patients"),
        slides=file.integer("slides"),
        bootstrap=file.integer("bootstrap"),
        confidence=file.number("confidence") if "confidence" in file.content else 0.95,
        notes=tuple(str(note) for note in file.items("notes")) if "notes" in file.content else (),
    )


def _measure(file: JsonObject) -> Measure:
    return Measure(*(file.number(key) for key in ("value", "low", "high")))


def _skipped(file: JsonObject) -> tuple[tuple[str, str], ...]:
    if "skipped" not in file.content:
        return ()
    rows = [
        JsonObject(file.path, row, f"skipped[{number}].") if isinstance(row, dict) else None
        for number, row in enumerate(file.items("skipped"))
    ]
    if any(row is None for row in rows):
        raise ReportError(f"{file.path}: 'skipped' is no list of slides with reasons: restore the file")
    return tuple((row.text("slide"), row.text("reason")) for row in rows if row is not None)


def read_slide_table(run: SlideRun) -> SlideTable:
    """Read ``slides.csv`` of a finished run: every slide of every part, with the probabilities of each read-out.

    Raises:
        ReportError: if it is missing, damaged, lacks a column, or names a part, a class or a slide that cannot be.
    """
    path = run.folder / "slides.csv"
    if run.results is None:
        raise ReportError(f"{run.folder}: the run has not finished: finish it before counting on its results")
    names = run.results.class_names
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except OSError as error:
        raise ReportError(f"{path}: cannot be read ({error.strerror}): run it again into an empty folder") from None
    except ValueError as error:
        raise ReportError(f"{path}: damaged, not CSV ({error}): restore the file or run it again") from None
    wanted = [f"{readout}:{name}" for readout in run.results.test for name in names]
    missing = [column for column in ("slide", "patient", "part", "label", "instances", *wanted) if column not in frame]
    if missing:
        raise ReportError(f"{path}: lacks the column {missing[0]!r}: restore the file or run it again")
    for column, allowed in (("part", PARTS), ("label", names)):
        wrong = ~frame[column].isin(allowed)
        if wrong.any():
            line, value = int(wrong.argmax()) + 2, frame[column][wrong].iloc[0]
            raise ReportError(f"{path}, line {line}: {column} is {value!r}, none of {', '.join(allowed)}: restore it")
    if frame["slide"].duplicated().any():
        twice = frame["slide"][frame["slide"].duplicated()].iloc[0]
        raise ReportError(f"{path}: the slide {twice} occurs twice: restore the file or run it again")
    numbers = frame[["instances", *wanted]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    wrong_rows = ~np.isfinite(numbers).all(axis=1)
    if wrong_rows.any():
        line = int(wrong_rows.argmax()) + 2
        raise ReportError(f"{path}, line {line}: holds something else than numbers: restore the file or run it again")
    of = {
        readout: numbers[:, 1 + index * len(names) : 1 + (index + 1) * len(names)]
        for index, readout in enumerate(run.results.test)
    }
    return SlideTable(
        slides=tuple(frame["slide"]),
        patients=tuple(frame["patient"]),
        parts=tuple(frame["part"]),
        labels=np.array([names.index(label) for label in frame["label"]], dtype=np.int64),
        instances=numbers[:, 0].astype(np.int64),
        probabilities=of,
    )
