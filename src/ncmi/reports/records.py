"""What run folders and comparison folders hold, as typed records."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ncmi.reports.files import ReportError, read_arrays
from ncmi.reports.foreign import Foreign, read_foreign
from ncmi.reports.reliability import Bins


@dataclass(frozen=True)
class Readout:
    """What one way of deciding (head, cc, lp, knn) achieved; accuracies in 0..1, NaN without a validation part.

    What follows is on test data, as trained and ``calibrated`` by the temperature τ: NaN in runs that did not measure
    it, and for τ and what it makes of the test data also without a validation part. NLL in nats.
    """

    test_accuracy: float
    validation_accuracy: float
    nll: float = math.nan
    brier: float = math.nan
    calibration_error: float = math.nan
    temperature: float = math.nan
    calibrated_nll: float = math.nan
    calibrated_error: float = math.nan


@dataclass(frozen=True)
class Results:
    """Final results of a finished run. CMI and Γ in nats, times in seconds, memory in MB.

    Γ is by centroid KL; ``cross_entropy_separation`` is Γ by cross-entropy, NaN in runs that did not measure it.
    """

    data: str
    objective: str
    seed: int
    epochs: int
    readouts: dict[str, Readout]
    primary_readouts: tuple[str, ...]
    cmi: float
    separation: float
    ncmi: float
    epoch_seconds: float
    total_seconds: float
    peak_memory_mb: float
    num_train: int
    num_validation: int
    num_test: int
    class_names: tuple[str, ...]
    cross_entropy_separation: float = math.nan
    cross_entropy_ncmi: float = math.nan
    reliability: dict[str, dict[str, Bins]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Outputs:
    """Outputs on the test set: ``labels [N]``, ``predictions[readout] [N]``, ``features [N, D]``."""

    labels: NDArray[np.int64]
    predictions: dict[str, NDArray[np.int64]]
    features: NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class RunRecord:
    """One run folder. ``metrics`` has one row per epoch (the index); ``results`` is None while unfinished."""

    folder: Path
    recipe: dict[str, Any]
    environment: dict[str, Any]
    metrics: pd.DataFrame
    results: Results | None

    @property
    def objective(self) -> str:
        """Name of the objective."""
        return str(self.recipe["objective"]["name"])

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return int(self.recipe["training"]["seed"])

    @property
    def label(self) -> str:
        """The objective's name as it reads in a sentence."""
        return "NCMI" if self.objective == "ncmi" else self.objective.replace("_", " ")

    @property
    def data(self) -> str:
        """Name of the data set."""
        return str(self.recipe["data"]["name"])

    @property
    def state(self) -> str:
        """``"finished"``, or how far the run came."""
        if self.results is not None:
            return "finished"
        planned = self.recipe["training"].get("epochs", "?")
        done = int(self.metrics.index[-1]) if len(self.metrics) else 0
        return f"stopped after epoch {done} of {planned}"

    def foreign(self) -> tuple[Foreign, ...]:
        """Foreign data that the run was evaluated with, if any: see :func:`read_foreign`."""
        return read_foreign(self.folder)

    def outputs(self) -> Outputs:
        """Read the outputs on the test set (``test_outputs.npz``).

        Raises:
            ReportError: if the file is missing or damaged, or its arrays do not belong together.
        """
        path = self.folder / "test_outputs.npz"
        arrays = read_arrays(path)
        missing = {"labels", "features"} - arrays.keys()
        if missing:
            raise ReportError(f"{path}: lacks {', '.join(sorted(missing))}: run it again into an empty folder")
        labels, features = arrays["labels"], arrays["features"]
        predictions = {
            name.removeprefix("prediction_"): array for name, array in arrays.items() if name.startswith("prediction_")
        }
        if features.ndim != 2 or any(array.shape != (len(features),) for array in (labels, *predictions.values())):
            raise ReportError(f"{path}: labels, predictions and features differ in length: run it again")
        if self.results is not None:
            classes = len(self.results.class_names)
            for name, array in (("labels", labels), *predictions.items()):
                if len(array) and not 0 <= array.min() <= array.max() < classes:
                    raise ReportError(f"{path}: {name} run outside 0..{classes - 1}: run it again")
        return Outputs(labels, predictions, features)


@dataclass(frozen=True)
class UnfinishedRun:
    """A run of a comparison that has no results, and how far it came."""

    folder: Path
    state: str


@dataclass(frozen=True, eq=False)
class EntryRecord:
    """One line of a comparison: a labelled objective with its finished runs, in order of their seeds.

    ``recipe`` is what all its runs share, empty where the comparison did not write it down.
    """

    label: str
    objective: str
    runs: tuple[RunRecord, ...]
    unfinished: tuple[UnfinishedRun, ...]
    recipe: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ComparisonRecord:
    """A comparison folder: entries × seeds on one data set.

    ``baseline`` names an objective; where it is empty, entries are not compared with one of them.
    """

    folder: Path
    data: str
    seeds: tuple[int, ...]
    entries: tuple[EntryRecord, ...]
    baseline: str
    total_seconds: float
    machine: dict[str, Any]
    command: str | None = None

    @property
    def unfinished(self) -> tuple[UnfinishedRun, ...]:
        """All runs without results."""
        return tuple(run for entry in self.entries for run in entry.unfinished)

    @property
    def runs(self) -> tuple[RunRecord, ...]:
        """All finished runs."""
        return tuple(run for entry in self.entries for run in entry.runs)
