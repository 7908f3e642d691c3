"""What run folders and comparison folders of slide classifiers hold, as typed records."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ncmi.reports.records import UnfinishedRun

NETWORKS = {
    "abmil": "ABMIL",
    "transmil": "TransMIL",
    "aem": "AEM",
    "asmil": "ASMIL",
    "mean": "Mean pooling",
    "max": "Max pooling",
}
PARTS = ("train", "validation", "test")
_FEATURES = ("features", "feats", "h5_files", "pt_files", "bags")


@dataclass(frozen=True)
class Measure:
    """A score in 0..1 with its interval over patients; NaN where one is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Metrics:
    """How one read-out does on one part; see :func:`ncmi.slides.metrics.slide_metrics`."""

    scores: dict[str, Measure]
    recall: dict[str, Measure]
    confusion: NDArray[np.int64]
    patients: int
    slides: int
    bootstrap: int
    confidence: float
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SlideResults:
    """Results of a finished run. ``validation`` is empty without a validation part. CMI and Γ in nats, on test data."""

    data: str
    epochs: int
    best_epoch: int | None
    selection: str
    primary_readouts: tuple[str, ...]
    class_names: tuple[str, ...]
    test: dict[str, Metrics]
    validation: dict[str, Metrics]
    information: dict[str, float]
    epoch_seconds: float
    total_seconds: float
    peak_memory_mb: float
    skipped: tuple[tuple[str, str], ...]
    simulation: bool


@dataclass(frozen=True, eq=False)
class SlideTable:
    """Slides of some part, one place a slide: names, patients, labels ``[n]``, and what each read-out makes of them."""

    slides: tuple[str, ...]
    patients: tuple[str, ...]
    parts: tuple[str, ...]
    labels: NDArray[np.int64]
    instances: NDArray[np.int64]
    probabilities: dict[str, NDArray[np.float64]]

    def part(self, name: str) -> SlideTable:
        """The slides of one part."""
        return self.take([index for index, part in enumerate(self.parts) if part == name])

    def take(self, places: list[int]) -> SlideTable:
        """The slides at these places, in this order."""
        return SlideTable(
            slides=tuple(self.slides[place] for place in places),
            patients=tuple(self.patients[place] for place in places),
            parts=tuple(self.parts[place] for place in places),
            labels=self.labels[places],
            instances=self.instances[places],
            probabilities={name: values[places] for name, values in self.probabilities.items()},
        )


@dataclass(frozen=True, eq=False)
class SlideRun:
    """One run folder. ``metrics`` has one row per epoch (the index); ``results`` is None while unfinished."""

    folder: Path
    recipe: dict[str, Any]
    environment: dict[str, Any]
    metrics: pd.DataFrame
    results: SlideResults | None

    @property
    def network(self) -> str:
        """Name of the network as it reads in a sentence."""
        return network_name(str(self.recipe["network"]["name"]))

    @property
    def objective(self) -> str:
        """Name of the objective."""
        return str(self.recipe["objective"]["name"])

    @property
    def label(self) -> str:
        """The objective's name as it reads in a sentence."""
        return "NCMI" if self.objective == "ncmi" else self.objective.replace("_", "-")

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return int(self.recipe["training"]["seed"])

    @property
    def split_seed(self) -> object:
        """Seed of the split, where it is not the training's."""
        return self.recipe["data"].get("split_seed")

    @property
    def folds(self) -> int:
        """Number of folds; 0 without."""
        return int(self.recipe["data"].get("folds") or 0)

    @property
    def fold(self) -> int:
        """Which fold is tested on."""
        return int(self.recipe["data"].get("fold") or 0)

    @property
    def data(self) -> str:
        """Name of the cohort: of its features, or of the folder around them where they are called just features."""
        path = Path(str(self.recipe["data"]["features"]))
        name = self.results.data if self.results else path.name
        return path.parent.name or name if name in _FEATURES else name

    @property
    def state(self) -> str:
        """``"finished"``, or how far the run came."""
        if self.results is not None:
            return "finished"
        planned = self.recipe["training"].get("epochs", "?")
        done = int(self.metrics.index[-1]) if len(self.metrics) else 0
        return f"stopped after epoch {done} of {planned}"


@dataclass(frozen=True, eq=False)
class SlideEntry:
    """One network with one objective: its finished runs by seed and fold, and those without results."""

    label: str
    network: str
    objective: str
    runs: tuple[SlideRun, ...]
    unfinished: tuple[UnfinishedRun, ...]


@dataclass(frozen=True, eq=False)
class SlideComparison:
    """A comparison folder: networks × objectives × seeds, or × seeds × folds.

    ``baseline`` names the objective that others are compared with, ``folds`` is 0 without folds. ``simulation`` says
    that no slide of it is real.
    """

    folder: Path
    title: str
    entries: tuple[SlideEntry, ...]
    baseline: str
    seeds: tuple[int, ...]
    folds: int
    simulation: bool
    command: str | None = None
    total_seconds: float = float("nan")
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def runs(self) -> tuple[SlideRun, ...]:
        """All finished runs."""
        return tuple(run for entry in self.entries for run in entry.runs)

    @property
    def unfinished(self) -> tuple[UnfinishedRun, ...]:
        """All runs without results."""
        return tuple(run for entry in self.entries for run in entry.unfinished)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, the same for all runs."""
        return next((run.results.class_names for run in self.runs if run.results), ())

    @property
    def data(self) -> str:
        """Name of the cohort."""
        return self.runs[0].data if self.runs else "slides"


def network_name(name: str) -> str:
    """A network as it reads in a sentence.

    >>> network_name("abmil"), network_name("mine")
    ('ABMIL', 'mine')
    """
    return NETWORKS.get(name, name)
