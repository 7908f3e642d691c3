"""Read run folders and comparison folders. Unfinished runs are listed, not fatal."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from ncmi.reports.files import JsonObject, ReportError, read_json, read_json_lines
from ncmi.reports.records import ComparisonRecord, EntryRecord, Readout, Results, RunRecord, UnfinishedRun
from ncmi.reports.reliability import read_reliability

METRICS = (
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "validation_accuracy",
    "validation_cmi",
    "validation_separation",
    "validation_ncmi",
    "seconds",
    "peak_memory_mb",
)


def _read_results(path: Path) -> Results | None:
    if not path.exists():
        return None
    file = read_json(path)
    if file.text("status") != "finished":
        return None
    readouts = file.child("readouts")
    information = file.child("information")
    results = Results(
        data=file.text("data"),
        objective=file.text("objective"),
        seed=file.integer("seed"),
        epochs=file.integer("epochs"),
        readouts={name: _readout(readouts.child(name)) for name in readouts.content},
        primary_readouts=tuple(str(name) for name in file.items("primary_readouts")),
        cmi=information.number("cmi"),
        separation=information.number("separation"),
        ncmi=information.number("ncmi"),
        cross_entropy_separation=_optional(information, "cross_entropy_separation"),
        cross_entropy_ncmi=_optional(information, "cross_entropy_ncmi"),
        epoch_seconds=file.number("epoch_seconds"),
        total_seconds=file.number("total_seconds"),
        peak_memory_mb=file.number("peak_memory_mb"),
        num_train=file.integer("num_train"),
        num_validation=file.integer("num_validation"),
        num_test=file.integer("num_test"),
        class_names=tuple(str(name) for name in file.items("class_names")),
        reliability=read_reliability(file),
    )
    absent = [name for name in results.primary_readouts if name not in results.readouts]
    if absent or not results.primary_readouts:
        raise ReportError(f"{path}: 'primary_readouts' {absent} have no entry in 'readouts': run it again")
    return results


def _readout(found: JsonObject) -> Readout:
    return Readout(
        found.number("test_accuracy"),
        _optional(found, "validation_accuracy"),
        nll=_optional(found, "test_nll"),
        brier=_optional(found, "test_brier"),
        calibration_error=_optional(found, "test_calibration_error"),
        temperature=_optional(found, "temperature_scale"),
        calibrated_nll=_optional(found, "test_calibrated_nll"),
        calibrated_error=_optional(found, "test_calibrated_error"),
    )


def _optional(file: JsonObject, key: str) -> float:
    """A number that not every run has: without a validation part there is none, and older runs measured less."""
    return file.number(key) if key in file.content else float("nan")


def _metrics_frame(rows: list[JsonObject]) -> pd.DataFrame:
    # a resumed run may have written an epoch twice: the later row is the one that was trained on
    by_epoch = {row.integer("epoch"): row for row in rows}
    epochs = sorted(by_epoch)
    columns = {name: [_optional(by_epoch[e], name) for e in epochs] for name in METRICS}
    return pd.DataFrame(columns, index=pd.Index(epochs, name="epoch"), dtype=float)


def read_run(folder: Path | str) -> RunRecord:
    """Read a run folder, finished or not.

    Args:
        folder: what the trainer wrote: ``recipe.json``, ``metrics.jsonl`` and, at the end, ``results.json``.

    Raises:
        ReportError: if the folder is no run folder or a file in it is damaged; names the file and the cure.
    """
    folder = Path(folder)
    if not (folder / "recipe.json").is_file():
        raise ReportError(f"{folder}: not a run folder (no recipe.json): give the folder that training wrote")
    recipe = read_json(folder / "recipe.json")
    recipe.child("data").text("name")
    recipe.child("objective").text("name")
    recipe.child("training").integer("seed")
    environment_file = folder / "environment.json"
    environment = read_json(environment_file, versioned=False).content if environment_file.exists() else {}
    results = _read_results(folder / "results.json")
    metrics_file = folder / "metrics.jsonl"
    rows: list[JsonObject] = []
    if results is not None or metrics_file.exists():
        rows = read_json_lines(metrics_file, may_be_cut=results is None)
    return RunRecord(folder, recipe.content, environment, _metrics_frame(rows), results)


def _read_entry(folder: Path, entry: JsonObject) -> EntryRecord:
    finished: list[RunRecord] = []
    unfinished: list[UnfinishedRun] = []
    for name in entry.items("runs"):
        # runs may lie beside the comparison, as "../../runs/…": named by where they are, not by the way there
        path = Path(os.path.normpath(folder / str(name)))
        if not (path / "recipe.json").is_file():
            unfinished.append(UnfinishedRun(path, "not started"))
            continue
        run = read_run(path)
        if run.results is None:
            unfinished.append(UnfinishedRun(path, run.state))
        else:
            finished.append(run)
    finished.sort(key=lambda run: run.seed)
    recipe = entry.child("recipe").content if "recipe" in entry.content else {}
    return EntryRecord(entry.text("label"), entry.text("objective"), tuple(finished), tuple(unfinished), recipe)


def read_comparison(folder: Path | str, *, may_be_unfinished: bool = False) -> ComparisonRecord:
    """Read a comparison folder and all its runs; those without results are listed in ``unfinished``.

    Args:
        folder: the folder with ``comparison.json``.
        may_be_unfinished: whether a comparison without any finished run is read as well.

    Raises:
        ReportError: if there is no ``comparison.json``, a file is damaged, two entries have one label, or not one run
            has finished.
    """
    folder = Path(folder)
    path = folder / "comparison.json"
    if not path.is_file():
        raise ReportError(f"{folder}: not a comparison folder (no comparison.json): give the folder of a comparison")
    file = read_json(path)
    entries = []
    for number, content in enumerate(file.items("entries")):
        if not isinstance(content, dict):
            raise ReportError(f"{path}: 'entries[{number}]' is not an object: restore the file or run it again")
        entries.append(_read_entry(folder, JsonObject(path, content, f"entries[{number}].")))
    labels = [entry.label for entry in entries]
    repeated = [label for label in labels if labels.count(label) > 1]
    if repeated:
        raise ReportError(f"{path}: two entries are labelled {repeated[0]!r}: give each a label of its own")
    record = ComparisonRecord(
        folder=folder,
        data=file.text("data"),
        seeds=tuple(int(seed) for seed in file.items("seeds")),
        entries=tuple(entries),
        baseline=file.text("baseline"),
        total_seconds=file.number("total_seconds") if "total_seconds" in file.content else float("nan"),
        machine=file.child("machine").content if file.content.get("machine") else {},
        command=file.text("command") if file.content.get("command") else None,
    )
    if not record.runs and not may_be_unfinished:
        raise ReportError(
            f"{folder}: none of its {len(record.unfinished)} runs has finished: continue the comparison first"
        )
    return record
