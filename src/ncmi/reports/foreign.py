"""What ``ncmi evaluate --ood`` has left in a run folder: how well foreign data is told from the test part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ncmi.reports.files import JsonObject, ReportError, read_json


@dataclass(frozen=True)
class Told:
    """AUROC and FPR at 95 % TPR of one score, in 0..1, and the threshold at which 95 % of the test part pass."""

    auroc: float
    fpr95: float
    threshold: float


@dataclass(frozen=True)
class Foreign:
    """One foreign data set against a run's test part; ``edges`` has one more than ``inside`` and ``outside``."""

    data: str
    in_distribution: str
    num_in: int
    num_out: int
    readout: str
    scores: dict[str, Told]
    edges: tuple[float, ...]
    inside: tuple[int, ...]
    outside: tuple[int, ...]

    @property
    def name(self) -> str:
        """The data set's name, of a path the last part."""
        return Path(self.data).name or self.data


def read_foreign(folder: Path) -> tuple[Foreign, ...]:
    """All ``ood-*.json`` of a run folder, in order of their names.

    Raises:
        ReportError: if one is damaged; names the file and the cure.
    """
    found = []
    for path in sorted(folder.glob("ood-*.json")):
        try:
            found.append(_foreign(read_json(path)))
        except ReportError as error:
            raise ReportError(f"{error}, here by `ncmi evaluate {folder} --ood …`, or remove this file") from None
    return tuple(found)


def _foreign(file: JsonObject) -> Foreign:
    scores, distances = file.child("scores"), file.child("distances")
    edges, inside, outside = (distances.items(key) for key in ("edges", "in", "out"))
    numbers = all(isinstance(one, int | float) and one > 0 for one in edges)
    counts = all(isinstance(one, int) and one >= 0 for one in inside + outside)
    lengths = len(edges) - 1 == len(inside) == len(outside) > 0
    if not (numbers and counts and lengths and edges == sorted(edges) and edges[0] < edges[-1]):
        raise ReportError(f"{file.path}: 'distances' is no histogram: run it again")
    if "distance" not in scores.content:
        raise ReportError(f"{file.path}: 'scores' lacks 'distance': run it again")
    return Foreign(
        data=file.text("data"),
        in_distribution=file.text("in_distribution"),
        num_in=file.integer("num_in"),
        num_out=file.integer("num_out"),
        readout=file.text("readout"),
        scores={
            name: Told(*(scores.child(name).number(key) for key in ("auroc", "fpr95", "threshold")))
            for name in scores.content
        },
        edges=tuple(map(float, edges)),
        inside=tuple(inside),
        outside=tuple(outside),
    )
