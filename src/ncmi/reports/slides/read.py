"""Read run folders and comparison folders of slide classifiers. Unfinished runs are listed, not fatal."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from ncmi.reports.files import JsonObject, ReportError, read_json, read_json_lines
from ncmi.reports.records import UnfinishedRun
from ncmi.reports.slides.read_results import optional, read_results
from ncmi.reports.slides.records import SlideComparison, SlideEntry, SlideRun

KIND = "slides"
_METRICS = (
    "learning_rate",
    "train_loss",
    "train_penalty",
    "validation_loss",
    "validation_macro_f1",
    "validation_auc",
    "validation_accuracy",
    "seconds",
    "peak_memory_mb",
)


def is_slides_folder(folder: Path | str) -> bool:
    """Whether a folder holds a run or a comparison of slide classifiers; damaged files are none."""
    for name in ("comparison.json", "recipe.json"):
        path = Path(folder) / name
        if path.is_file():
            try:
                return read_json(path).content.get("kind") == KIND
            except ReportError:
                return False
    return False


def read_slide_run(folder: Path | str) -> SlideRun:
    """Read a run folder, finished or not.

    Args:
        folder: with ``recipe.json``, ``metrics.jsonl`` and, at the end, ``results.json`` and ``slides.csv``.

    Raises:
        ReportError: if the folder is no run folder of slides or a file in it is damaged; names the file and the cure.
    """
    folder = Path(folder)
    path = folder / "recipe.json"
    if not path.is_file():
        raise ReportError(f"{folder}: not a run folder (no recipe.json): give the folder that training wrote")
    recipe = read_json(path)
    if recipe.content.get("kind") != KIND:
        raise ReportError(f"{path}: no run on slides: use `ncmi report` for this folder")
    data, training = recipe.child("data"), recipe.child("training")
    data.text("features")
    training.integer("seed")
    for section in ("network", "objective"):
        recipe.child(section).text("name")
    for key in ("folds", "fold"):
        if key in data.content:
            data.integer(key)
    environment_file = folder / "environment.json"
    environment = read_json(environment_file, versioned=False).content if environment_file.exists() else {}
    results = read_results(folder / "results.json")
    rows: list[JsonObject] = []
    if results is not None or (folder / "metrics.jsonl").exists():
        rows = read_json_lines(folder / "metrics.jsonl", may_be_cut=results is None)
    return SlideRun(folder, recipe.content, environment, _frame(rows), results)


def read_slide_comparison(folder: Path | str) -> SlideComparison:
    """Read a comparison folder and all its runs; those without results are listed in ``unfinished``.

    Raises:
        ReportError: if there is no ``comparison.json`` of slides, a file is damaged, two entries have one label and
            network, finished runs differ in their classes or have seed and fold twice, or not one run has finished.
    """
    folder = Path(folder)
    path = folder / "comparison.json"
    if not path.is_file():
        raise ReportError(f"{folder}: not a comparison folder (no comparison.json): give the folder of a comparison")
    file = read_json(path)
    if file.content.get("kind") != KIND:
        raise ReportError(f"{path}: no comparison on slides: use `ncmi report` for this folder")
    entries = []
    for number, content in enumerate(file.items("entries")):
        if not isinstance(content, dict):
            raise ReportError(f"{path}: 'entries[{number}]' is not an object: restore the file or run it again")
        entries.append(_entry(folder, JsonObject(path, content, f"entries[{number}].")))
    named = [(entry.network, entry.label) for entry in entries]
    repeated = [name for name in named if named.count(name) > 1]
    if repeated:
        raise ReportError(f"{path}: two entries of {repeated[0][0]} are labelled {repeated[0][1]!r}: name them apart")
    finished = [run for entry in entries for run in entry.runs]
    simulation = file.content.get("simulation") is True or any(
        run.results and run.results.simulation for run in finished
    )
    record = SlideComparison(
        folder=folder,
        title=file.text("title") if file.content.get("title") else "",
        entries=tuple(entries),
        baseline=file.text("baseline"),
        seeds=tuple(int(seed) for seed in file.items("seeds")),
        folds=file.integer("folds") if file.content.get("folds") else max((run.folds for run in finished), default=0),
        simulation=simulation,
        command=file.text("command") if file.content.get("command") else None,
        total_seconds=optional(file, "total_seconds"),
        machine=file.child("machine").content if file.content.get("machine") else {},
    )
    if not finished:
        raise ReportError(
            f"{folder}: none of its {len(record.unfinished)} runs has finished: continue the comparison first"
        )
    for run in finished:
        if run.results and run.results.class_names != record.class_names:
            raise ReportError(
                f"{run.folder / 'results.json'}: has the classes {', '.join(run.results.class_names)}, other runs have "
                f"{', '.join(record.class_names)}: compare runs on the same classes"
            )
    return record


def _entry(folder: Path, entry: JsonObject) -> SlideEntry:
    finished: dict[tuple[int, object, int], SlideRun] = {}
    unfinished: list[UnfinishedRun] = []
    for name in entry.items("runs"):
        path = Path(os.path.normpath(folder / str(name)))
        if not (path / "recipe.json").is_file():
            unfinished.append(UnfinishedRun(path, "not started"))
            continue
        run = read_slide_run(path)
        if run.results is None:
            unfinished.append(UnfinishedRun(path, run.state))
            continue
        key = (run.seed, run.split_seed, run.fold)
        if key in finished:
            raise ReportError(
                f"{path}: {entry.text('label')} has seed {run.seed}, fold {run.fold} twice: remove one of the two runs"
            )
        finished[key] = run
    runs = sorted(finished.values(), key=lambda run: (run.seed, run.fold))
    return SlideEntry(
        entry.text("label"), entry.text("network"), entry.text("objective"), tuple(runs), tuple(unfinished)
    )


def _frame(rows: list[JsonObject]) -> pd.DataFrame:
    # a resumed run may have written an epoch twice: the later row is the one that was trained on
    by_epoch = {row.integer("epoch"): row for row in rows}
    epochs = sorted(by_epoch)
    columns = {name: [optional(by_epoch[epoch], name) for epoch in epochs] for name in _METRICS}
    return pd.DataFrame(columns, index=pd.Index(epochs, name="epoch"), dtype=float)
