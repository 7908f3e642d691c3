"""Runs, comparisons and reproductions as a report sees them: their folders, read through the schema of training.

Runs that are not finished are listed, not fatal. Recipes stay plain values beside the few that are looked at, so that
the report of an objective of the user's own does not need the module that registers it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from ncmi.readouts.metrics import scores_in_order
from ncmi.readouts.scores import ClassScores
from ncmi.recipes import DATA, Kind
from ncmi.recipes.names import network_label, objective_label
from ncmi.training import schema
from ncmi.training.run_folder import Outputs, RunFolder, RunFolderError

SCALES = {
    "paper": "recipe as published",
    "released": "recipe as in the authors' script",
    "short": "a public recipe of few epochs",
    "small": "a small setting for CPUs, whose levels do not compare with the published ones",
}
"""What the scales of a reproduction are."""
JUDGED: dict[Kind, tuple[str, ...]] = {
    "table": ("accuracy",),
    "image": ("accuracy",),
    "bags": ("macro_f1", "macro_auc"),
}
"""The scores that entries are compared by, by kind of data, the first one first."""
JUDGED_UNEQUAL = ("macro_f1", "accuracy")
"""Those of tables and images whose classes are unequal."""
_EXPERIMENTS = ("table1", "table2", "table3", "table5", "figure2", "figure3", "figure4", "figure5")


class ReportError(ValueError):
    """A report cannot be made: a file is missing, damaged or of another kind; the message names file and cure."""


@contextmanager
def _faults(cure: str = "") -> Iterator[None]:
    """Faults of files as faults of a report."""
    try:
        yield
    except (schema.SchemaError, RunFolderError) as error:
        raise ReportError(f"{error}{cure}") from None


class _Data(msgspec.Struct):
    kind: Kind
    data: str = msgspec.field(name="name")
    split_seed: int | None = None
    folds: int = 0
    fold: int = 0


class _Training(msgspec.Struct):
    seed: int
    epochs: int = 0
    batch_size: int = 0


class _Named(msgspec.Struct):
    name: str


class _Essentials(schema.Record, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What a report looks at in a recipe."""

    data: _Data
    network: _Named
    objective: _Named
    training: _Training


@dataclass(frozen=True, eq=False)
class Run:
    """One run folder, finished or not.

    Attributes:
        recipe: its sections as plain values; the fields below are taken from it.
        data: the title of the data.
        split_seed: where it is not the training's.
        folds: of cross-validation; 0 for none.
        about: which data it was begun with; None of runs that have not begun.
        metrics: :class:`ncmi.training.schema.EpochMetrics` by epoch, which is the index; NaN where there is none.
        results: None while unfinished.
        tuning: how its learning rate was chosen; None where it was given.
        state: "finished", or how far it came.
    """

    folder: Path
    recipe: dict[str, Any]
    kind: Kind
    data: str
    network: str
    objective: str
    seed: int
    epochs: int
    batch_size: int
    split_seed: int | None
    fold: int
    folds: int
    environment: dict[str, Any]
    about: schema.DataRecord | None
    metrics: pd.DataFrame
    results: schema.Results | None
    tuning: schema.TuningRecord | None
    state: str

    @property
    def label(self) -> str:
        return objective_label(self.objective)

    @property
    def network_label(self) -> str:
        return network_label(self.network)

    @property
    def finished(self) -> schema.Results:
        """Its results; ReportError if it has none."""
        if self.results is None:
            raise ReportError(f"{self.folder}: the run has not finished: finish it before counting on its results")
        return self.results

    @property
    def unequal(self) -> tuple[ClassScores, ClassScores] | None:
        """The largest and the smallest class of the test part, where they are called unequal."""
        readouts = self.results.readouts.values() if self.results else ()
        return next((readout.test.unequal for readout in readouts), None)

    @property
    def judged(self) -> tuple[str, ...]:
        """The scores that it is judged by, the first one first."""
        return JUDGED_UNEQUAL if self.kind != "bags" and self.unequal else JUDGED[self.kind]

    @property
    def scores(self) -> tuple[str, ...]:
        """All scores, in the order of tables."""
        return scores_in_order(unequal=self.kind != "bags" and self.unequal is not None)

    @_faults()
    def outputs(self) -> Outputs:
        """Outputs on the test part; ReportError if the file is missing or damaged."""
        return RunFolder(self.folder).outputs()

    def ood(self) -> list[schema.OutOfDistribution]:
        """What ``ncmi evaluate --ood`` has left; ReportError if a file is damaged."""
        with _faults(f", here by `ncmi evaluate {self.folder} --ood …`, or remove this file"):
            return RunFolder(self.folder).ood()


@dataclass(frozen=True)
class UnfinishedRun:
    """A run without results, and how far it came."""

    folder: Path
    state: str


@dataclass(frozen=True, eq=False)
class EntryRuns:
    """One entry of a comparison: an objective on a network, with its finished runs by seed and fold, and the others.

    Tables call it by its label, with several networks after the network's name.
    """

    label: str
    network: str
    objective: str
    runs: tuple[Run, ...]
    unfinished: tuple[UnfinishedRun, ...]

    @property
    def network_label(self) -> str:
        return network_label(self.network)

    @property
    def objective_label(self) -> str:
        """Its label without the network's name."""
        return self.label.removeprefix(f"{self.network_label}, ")


@dataclass(frozen=True, eq=False)
class Comparison:
    """A comparison folder: entries × seeds, or × seeds × folds, on data of one kind.

    What stands in its :class:`ncmi.training.schema.ComparisonRecord`, with the runs of each entry. The baseline is
    empty for none; it is a simulation where a run is one.
    """

    folder: Path
    title: str
    kind: Kind
    data: str
    seeds: tuple[int, ...]
    folds: int
    entries: tuple[EntryRuns, ...]
    baseline: str
    simulation: bool
    command: str | None
    total_seconds: float
    machine: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(run for entry in self.entries for run in entry.runs)

    @property
    def unfinished(self) -> tuple[UnfinishedRun, ...]:
        return tuple(run for entry in self.entries for run in entry.unfinished)

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of its networks, in the order of the entries."""
        return tuple(dict.fromkeys(entry.network for entry in self.entries))

    @cached_property
    def unequal(self) -> tuple[ClassScores, ClassScores] | None:
        """The largest and the smallest class of a test part, where they are called unequal."""
        return next((run.unequal for run in self.runs if run.unequal), None)

    @property
    def judged(self) -> tuple[str, ...]:
        """The scores that entries are compared by, the first one first."""
        return JUDGED_UNEQUAL if self.kind != "bags" and self.unequal else JUDGED[self.kind]

    @property
    def class_names(self) -> list[str]:
        return self.runs[0].finished.class_names if self.runs else []

    @property
    def baseline_label(self) -> str:
        labels = (entry.objective_label for entry in self.entries if entry.objective == self.baseline)
        return next(labels, objective_label(self.baseline))

    @property
    def machines(self) -> list[dict[str, Any]]:
        """What it says of its machine, or else what its runs say."""
        return [self.machine] if self.machine else [run.environment for run in self.runs]


@dataclass(frozen=True, eq=False)
class Reproduction:
    """The folder of a reproduced table or figure: a list of comparisons."""

    folder: Path
    experiment: str
    title: str
    scale: str
    groups: tuple[Comparison, ...]

    @property
    def measured(self) -> tuple[Comparison, ...]:
        return tuple(group for group in self.groups if group.runs)

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(run for group in self.groups for run in group.runs)

    @property
    def unfinished(self) -> tuple[UnfinishedRun, ...]:
        return tuple(run for group in self.groups for run in group.unfinished)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted({seed for group in self.groups for seed in group.seeds}))

    @property
    def machines(self) -> list[dict[str, Any]]:
        """What the groups or their runs say of their machine."""
        return [machine for group in self.groups for machine in group.machines]


Record = Run | Comparison | Reproduction


@_faults()
def read_run(folder: Path | str) -> Run:
    """Read a run folder, finished or not.

    Raises:
        ReportError: if the folder is no run folder or a file in it is damaged; names the file and the cure.
    """
    run = RunFolder(_holding(folder, "recipe.json"))
    essentials = schema.read_record(run.path / "recipe.json", _Essentials)
    data, training = msgspec.structs.asdict(essentials.data), msgspec.structs.asdict(essentials.training)
    results, rows = run.results() if run.finished else None, run.metrics()
    fields = schema.EpochMetrics.__struct_fields__
    values = np.array([msgspec.structs.astuple(row) for row in rows], dtype=float).reshape(-1, len(fields))
    metrics = pd.DataFrame(values, columns=fields).astype({"epoch": int}).set_index("epoch")
    return Run(
        folder=run.path,
        recipe=run.read("recipe.json"),
        network=essentials.network.name,
        objective=essentials.objective.name,
        environment=run.environment(),
        about=run.data_record(),
        metrics=metrics,
        results=results,
        tuning=run.tuning(),
        state="finished" if results else f"stopped after epoch {rows[-1].epoch if rows else 0} of {training['epochs']}",
        **data | {"data": results.data if results else DATA[data["kind"]](name=data["data"]).title},
        **training,
    )


@_faults()
def read_comparison(folder: Path | str, *, may_be_unfinished: bool = False) -> Comparison:
    """Read a comparison folder and all its runs; those without results are listed in ``unfinished``.

    Raises:
        ReportError: if there is no ``comparison.json``, a file is damaged, two entries have one label, an entry has a
            seed and fold twice, finished runs differ in their classes, or none has finished unless it
            ``may_be_unfinished``.
    """
    folder = _holding(folder, "comparison.json")
    record = schema.read_record(folder / "comparison.json", schema.ComparisonRecord)
    labels = [(entry.network, entry.label) for entry in record.entries]
    if repeated := [label for network, label in labels if labels.count((network, label)) > 1]:
        raise ReportError(
            f"{folder / 'comparison.json'}: two entries are labeled {repeated[0]!r}: give each a label of its own"
        )
    absent = "its learning rate is not chosen yet" if record.tuned else "not started"
    entries = tuple(_entry(folder, entry, absent) for entry in record.entries)
    runs = [run for entry in entries for run in entry.runs]
    if not runs and not may_be_unfinished:
        raise ReportError(
            f"{folder}: none of its {sum(len(entry.unfinished) for entry in entries)} runs has finished: continue the "
            "comparison first"
        )
    for run in runs:
        if (classes := run.finished.class_names) != runs[0].finished.class_names:
            raise ReportError(
                f"{run.folder / 'results.json'}: has the classes {', '.join(classes)}, other runs have "
                f"{', '.join(runs[0].finished.class_names)}: compare runs on the same classes"
            )
    values = msgspec.structs.asdict(record) | {"folder": folder, "seeds": tuple(record.seeds), "entries": entries}
    values["simulation"] = record.simulation or any(run.finished.simulation for run in runs)
    return Comparison(**{name: values[name] for name in Comparison.__dataclass_fields__})


@_faults()
def read_reproduction(folder: Path | str) -> Reproduction:
    """Read the folder of a reproduced table or figure with all its comparisons.

    Raises:
        ReportError: if there is no ``reproduction.json``, a file is damaged, or not one run has finished.
    """
    folder = _holding(folder, "reproduction.json")
    path = folder / "reproduction.json"
    record = schema.read_record(path, schema.ReproductionRecord)
    for kind, value, known in (("experiment", record.experiment, _EXPERIMENTS), ("scale", record.scale, SCALES)):
        if value not in known:
            raise ReportError(f"{path}: unknown {kind} {value!r}: use the ncmi that wrote it")
    groups = []
    for group in record.groups:
        place = folder / group.name
        if Path(group.name).name != group.name:
            raise ReportError(f"{path}: group {group.name!r} is no name of a folder: reproduce it again into another")
        if not (place / "comparison.json").is_file():
            raise ReportError(f"{place}: no comparison.json: reproduce it again, which keeps finished runs")
        comparison = replace(read_comparison(place, may_be_unfinished=True), title=group.title)
        if not comparison.entries:
            raise ReportError(f"{place}: compares nothing: reproduce it again with at least one entry")
        # one objective on many networks: none of them is what the others are compared with
        groups.append(replace(comparison, baseline="") if record.experiment == "figure2" else comparison)
    reproduction = Reproduction(folder, record.experiment, record.title, record.scale, tuple(groups))
    if not reproduction.runs:
        raise ReportError(
            f"{folder}: none of its {len(reproduction.unfinished)} runs has finished: continue the reproduction first"
        )
    return reproduction


def read_folder(folder: Path | str | Record) -> Record:
    """A run, a comparison or a reproduction, whichever the folder holds; what was read already is given back.

    Raises:
        ReportError: if it holds none of them, or a file is damaged.
    """
    if isinstance(folder, Run | Comparison | Reproduction):
        return folder
    if (Path(folder) / "reproduction.json").is_file():
        return read_reproduction(folder)
    return read_comparison(folder) if (Path(folder) / "comparison.json").is_file() else read_run(folder)


def _holding(folder: Path | str, name: str) -> Path:
    """The folder, which must hold a file of this name."""
    if not (Path(folder) / name).is_file():
        raise ReportError(
            f"{folder}: no {name} here: give the folder that `ncmi train`, `ncmi compare` or `ncmi reproduce` wrote"
        )
    return Path(folder)


def _entry(folder: Path, record: schema.EntryRecord, absent: str) -> EntryRuns:
    """An entry with its runs; ``absent``: what is said of a run that has no folder."""
    finished: dict[tuple[int, int, int | None], Run] = {}
    unfinished: list[UnfinishedRun] = []
    for name in record.runs:
        # runs may lie beside the comparison, as "../../runs/…": named by where they are, not by the way there
        path = Path(os.path.normpath(folder / name))
        run = read_run(path) if (path / "recipe.json").is_file() else None
        if run is None or run.results is None:
            unfinished.append(UnfinishedRun(path, run.state if run else absent))
            continue
        key = (run.seed, run.fold, run.split_seed)
        if key in finished:
            fold = f", fold {run.fold}" if run.folds else ""
            raise ReportError(f"{path}: {record.label} has seed {run.seed}{fold} twice: remove one of the two runs")
        finished[key] = run
    runs = tuple(sorted(finished.values(), key=lambda run: (run.seed, run.fold)))
    return EntryRuns(record.label, record.network, record.objective, runs, tuple(unfinished))
