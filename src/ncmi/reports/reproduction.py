"""The folder of a reproduced table or figure: its groups of runs, as records."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ncmi.reports.figures.palette import Style, styles
from ncmi.reports.files import JsonObject, ReportError, read_json
from ncmi.reports.published import published
from ncmi.reports.read import read_comparison
from ncmi.reports.records import ComparisonRecord, EntryRecord, RunRecord, UnfinishedRun
from ncmi.reports.statistics import Row, baseline_entry, comparison_rows

FILE = "reproduction.json"
EXPERIMENTS = ("table1", "table5", "figure2", "figure3", "figure4", "figure5")
SCALES = {
    "paper": "recipe as published",
    "released": "recipe as in the authors' script",
    "small": "a small setting for CPUs, whose levels do not compare with the published ones",
}


@dataclass(frozen=True, eq=False)
class GroupRecord:
    """Entries that are compared with each other; ``rows`` are in the order of the entries, as the paper has them."""

    name: str
    title: str
    record: ComparisonRecord
    rows: tuple[Row, ...]

    @property
    def recipe(self) -> dict[str, Any]:
        """A recipe of the group: its network and batch size are the same in all of them."""
        first = self.record.entries[0]
        return first.recipe or (first.runs[0].recipe if first.runs else {})

    @property
    def network(self) -> str:
        """Name of the backbone."""
        return str(self.recipe.get("backbone", {}).get("name", self.title))

    @property
    def batch_size(self) -> int:
        """Samples of a step; 0 if unknown."""
        return int(self.recipe.get("training", {}).get("batch_size", 0))

    @property
    def baseline(self) -> str:
        """The baseline's label."""
        entry = baseline_entry(self.record)
        return entry.label if entry else self.record.baseline

    def entry(self, row: Row) -> EntryRecord:
        """The entry of a row."""
        return next(entry for entry in self.record.entries if entry.label == row.label)


@dataclass(frozen=True, eq=False)
class ReproductionRecord:
    """The folder of a table or figure."""

    folder: Path
    experiment: str
    title: str
    scale: str
    groups: tuple[GroupRecord, ...]

    @property
    def measured(self) -> tuple[GroupRecord, ...]:
        """The groups with finished runs."""
        return tuple(group for group in self.groups if group.rows)

    @property
    def runs(self) -> tuple[RunRecord, ...]:
        """All finished runs."""
        return tuple(run for group in self.groups for run in group.record.runs)

    @property
    def unfinished(self) -> tuple[UnfinishedRun, ...]:
        """All runs without results."""
        return tuple(run for group in self.groups for run in group.record.unfinished)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of all groups."""
        return tuple(sorted({seed for group in self.groups for seed in group.record.seeds}))

    @property
    def columns(self) -> tuple[str, ...]:
        """Titles of the groups, without what all of them begin with: "resnet18, batch 64" is "batch 64"."""
        titles = [group.title for group in self.groups]
        starts = {title.partition(", ")[0] for title in titles}
        if len(titles) > 1 and len(starts) == 1 and all(", " in title for title in titles):
            return tuple(title.partition(", ")[2] for title in titles)
        return tuple(titles)

    @property
    def looks(self) -> dict[str, Style]:
        """A style for each label, the same in all groups."""
        return styles(
            dict.fromkeys((entry.label, entry.objective) for group in self.groups for entry in group.record.entries)
        )

    @property
    def machines(self) -> list[dict[str, Any]]:
        """What the groups say of their machine, or else the runs."""
        told = [group.record.machine for group in self.groups if group.record.machine]
        return told or [run.environment for run in self.runs]

    def published(self, group: GroupRecord, row: Row) -> float | None:
        """The paper's figure for a cell of Table I or V; None elsewhere, and where other data were trained on."""
        if self.experiment not in ("table1", "table5") or self.scale == "small":
            return None
        entry = group.entry(row)
        return published(group.network, entry.recipe.get("objective") or entry.runs[0].recipe["objective"], row.readout)


def read_reproduction(folder: Path | str) -> ReproductionRecord:
    """Read the folder of a reproduced table or figure with all its groups and runs.

    Args:
        folder: the folder with ``reproduction.json``.

    Raises:
        ReportError: if there is no ``reproduction.json``, a file is damaged, or not one run has finished.
    """
    folder = Path(folder)
    path = folder / FILE
    if not path.is_file():
        raise ReportError(f"{folder}: no reproduced table or figure (no {FILE}): give the folder that it was made into")
    file = read_json(path)
    experiment, scale = file.text("experiment"), file.text("scale")
    if experiment not in EXPERIMENTS:
        raise ReportError(f"{path}: unknown experiment {experiment!r}: use the ncmi that wrote it")
    if scale not in SCALES:
        raise ReportError(f"{path}: unknown scale {scale!r}: use the ncmi that wrote it")
    groups = []
    for number, content in enumerate(file.items("groups")):
        if not isinstance(content, dict):
            raise ReportError(f"{path}: 'groups[{number}]' is not an object: reproduce it again to restore the file")
        groups.append(_read_group(folder, experiment, JsonObject(path, content, f"groups[{number}].")))
    record = ReproductionRecord(folder, experiment, file.text("title"), scale, tuple(groups))
    if not record.runs:
        raise ReportError(
            f"{folder}: none of its {len(record.unfinished)} runs has finished: continue the reproduction first"
        )
    return record


def _read_group(folder: Path, experiment: str, content: JsonObject) -> GroupRecord:
    name, title = content.text("name"), content.text("title")
    if Path(name).name != name:
        raise ReportError(f"{content.path}: group {name!r} is no name of a folder: reproduce it again into another one")
    if not (folder / name / "comparison.json").is_file():
        raise ReportError(f"{folder / name}: no comparison.json: reproduce it again, which keeps finished runs")
    record = read_comparison(folder / name, may_be_unfinished=True)
    if not record.entries:
        raise ReportError(f"{folder / name}: compares nothing: reproduce it again with at least one entry")
    if experiment == "figure2":
        # one objective, many networks: none of them is what the others are compared with
        record = replace(record, baseline="")
    order = [entry.label for entry in record.entries]
    rows = sorted(comparison_rows(record), key=lambda row: order.index(row.label))
    return GroupRecord(name, title, record, tuple(rows))
