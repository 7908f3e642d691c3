"""What the reports of all parts share: outcomes by set and method, Markdown tables, the file of figures."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from _study_jobs import Record, Setting
from _study_search import Study
from _study_statistics import paired
from ncmi.reports.statistics import Difference
from ncmi.reports.text import MISSING, fixed, interval, mean_sd, ranges, signed
from ncmi.training.environment import describe_environment

SECONDS = "processor_seconds"
READOUTS = ("head", "cc", "lp", "knn")
SPLITS_NOTE = (
    "Intervals are 95 % t-intervals of differences paired by seed; the seeds' splits overlap, so they are somewhat too "
    "narrow (Nadeau & Bengio 2003)."
)


@dataclass
class Report:
    """What a part prints and keeps: sections of Markdown, figures for the JSON file, pictures by name (PNG)."""

    sections: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The final runs of one setting on one set."""

    setting: Setting
    records: Mapping[int, Record]
    readout: str

    @classmethod
    def of(cls, study: Study, name: str, setting: Setting) -> Outcome:
        """Of what is known."""
        return cls(setting, study.records(name, setting), study.judged_by(setting.objective))

    def scores(self, measure: str = "test_accuracy", readout: str | None = None) -> dict[int, float]:
        """By seed, in percent."""
        return {seed: record.score(readout or self.readout, measure) for seed, record in self.records.items()}

    def mean(self, measure: str = "test_accuracy", readout: str | None = None) -> float:
        """Mean over seeds, NaN without any."""
        values = list(self.scores(measure, readout).values())
        return statistics.fmean(values) if values else math.nan

    def cell(self, measure: str = "test_accuracy", readout: str | None = None) -> str:
        """Mean ± sd."""
        return spread(list(self.scores(measure, readout).values()))

    def minus(self, other: Outcome | None, measure: str = "test_accuracy") -> Difference | None:
        """Paired difference."""
        return None if other is None else paired(self.scores(measure), other.scores(measure))

    def figures(self) -> dict[str, Any]:
        """For the JSON file: measures as in results.json, in the order of the seeds."""
        first = next(iter(self.records.values()), None)
        if first is None:
            return {"seeds": []}
        judged = first.readout(self.readout)
        kept = {name: ["test_accuracy"] for name in READOUTS}
        kept[judged] = [name for name in first.content["readouts"][judged] if _is_kept(name)]
        return {
            "options": dict(self.setting.options),
            "training": dict(self.setting.training),
            "data": dict(self.setting.data),
            "seeds": list(self.records),
            "readout": judged,
            "measures": {
                name: {
                    measure: [_short(record.content["readouts"][name][measure]) for record in self.records.values()]
                    for measure in measures
                }
                for name, measures in kept.items()
            },
            "processor_seconds": round(
                statistics.median(record.content["processor_seconds"] for record in self.records.values()), 1
            ),
        }


def _is_kept(measure: str) -> bool:
    return measure in ("validation_accuracy", "test_balanced_accuracy") or (
        measure.startswith("test_") and any(part in measure for part in ("test_accuracy", "nll", "calibrat"))
    )


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


Outcomes = dict[str, dict[str, Outcome]]
"""By set and method."""


def spread(values: Sequence[float]) -> str:
    """Mean ± sample sd, the mean alone of one value, a dash of none."""
    if not values:
        return MISSING
    return mean_sd(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan)


def difference(found: Difference | None) -> str:
    """Mean with its interval, in bold where that leaves zero out."""
    if found is None:
        return MISSING
    text = f"{signed(found.mean)} ({interval(found.interval)})"
    return f"**{text}**" if found.sign else text


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, the first column left and the others right.

    >>> print(markdown(["a", "b"], [["x", "1"]]))
    | a | b |
    |---|---:|
    | x | 1 |
    """
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def seeds_told(outcomes: Iterable[Outcome]) -> str:
    """The seeds that stand behind a row: one count, or the range where methods have different ones."""
    counts = sorted({len(outcome.records) for outcome in outcomes})
    return ranges(tuple(counts)) if counts else MISSING


def wins(differences: Iterable[Difference | None]) -> str:
    """Wins, ties and losses, by the sign of the mean and by intervals that leave zero out."""
    found = [one for one in differences if one is not None]
    signs = Counter((one.mean > 1e-9) - (one.mean < -1e-9) for one in found)
    sure = Counter(one.sign for one in found)
    return f"{signs[1]}/{signs[0]}/{signs[-1]} ({sure[1]}/{sure[0]}/{sure[-1]})"


def percent(value: float) -> str:
    """Two decimals."""
    return fixed(value)


def provenance(study: Study) -> dict[str, Any]:
    """Where the figures come from: this machine and its versions, and the code that made the runs."""
    code = Counter(
        (record.content["environment"]["commit"], record.content["environment"]["source"])
        for record in study.store.asked()
    )
    machine = describe_environment(torch.device("cpu"))
    machine.pop("threads")
    return {
        "machine": machine,
        "code": [{"commit": commit, "source": source, "runs": runs} for (commit, source), runs in code.most_common()],
        "processor_seconds": round(sum(record.content[SECONDS] for record in study.store.asked())),
        "threads_a_run": 1,
        "broke_down": [
            {"set": record.content["set"], "changes": record.content["changes"], "seed": record.content["seed"]}
            for record in study.store.asked()
            if record.diverged
        ],
    }
