"""ncmi: classifiers trained and judged by normalized conditional mutual information.

A network's feature becomes a point P of the simplex; class c has a centroid Q_c there. With the label y of a sample,

    NCMI = mean KL(P‖Q_y) / mean (1/C) Σ_{c≠y} KL(Q_c‖P)

is how close samples are to their own class over how far from the others (arXiv 2601.02543, Eq. 8–10);
:class:`NCMILoss` trains with it, by default with the likelihood ``π_c ∝ KL(P‖Q_c)^{−γ}`` of the same divergences, and
:func:`measure` gives CMI, Γ and NCMI of any classifier's outputs. All of it in plain sums: ``ncmi.loss.equation``.

Importing the package is light: torch is imported with the first name that needs it.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ncmi.api.experiments import ComparisonResults, compare, train
    from ncmi.api.trained import Evaluated, TrainedRun, load
    from ncmi.integrations.sklearn import NCMIClassifier
    from ncmi.loss.alternating import AlternatingOptimizer, Alternation
    from ncmi.loss.centroids import CentroidClassifier, anchor_directions
    from ncmi.loss.functional import ncmi_loss
    from ncmi.loss.information import Information, InformationAccumulator, measure
    from ncmi.loss.module import NCMIHead, NCMILoss
    from ncmi.loss.simplex import log_nsf, to_log_distribution
    from ncmi.objectives.interface import LinearHeadObjective, Objective
    from ncmi.objectives.options import (
        ObjectiveOptions,
        make_objective,
        objective_names,
        objective_options,
        register_objective,
    )
    from ncmi.readouts.calibration import apply_temperature, fit_temperature
    from ncmi.readouts.linear_probe import LinearProbe
    from ncmi.readouts.neighbors import NearestNeighbors

__version__ = "0.2.0"

_HOME = {
    "Alternation": "ncmi.loss.alternating",
    "AlternatingOptimizer": "ncmi.loss.alternating",
    "CentroidClassifier": "ncmi.loss.centroids",
    "ComparisonResults": "ncmi.api.experiments",
    "Evaluated": "ncmi.api.trained",
    "Information": "ncmi.loss.information",
    "InformationAccumulator": "ncmi.loss.information",
    "LinearHeadObjective": "ncmi.objectives.interface",
    "LinearProbe": "ncmi.readouts.linear_probe",
    "NCMIClassifier": "ncmi.integrations.sklearn",
    "NCMIHead": "ncmi.loss.module",
    "NCMILoss": "ncmi.loss.module",
    "NearestNeighbors": "ncmi.readouts.neighbors",
    "Objective": "ncmi.objectives.interface",
    "ObjectiveOptions": "ncmi.objectives.options",
    "TrainedRun": "ncmi.api.trained",
    "anchor_directions": "ncmi.loss.centroids",
    "apply_temperature": "ncmi.readouts.calibration",
    "compare": "ncmi.api.experiments",
    "fit_temperature": "ncmi.readouts.calibration",
    "load": "ncmi.api.trained",
    "log_nsf": "ncmi.loss.simplex",
    "make_objective": "ncmi.objectives.options",
    "measure": "ncmi.loss.information",
    "ncmi_loss": "ncmi.loss.functional",
    "objective_names": "ncmi.objectives.options",
    "objective_options": "ncmi.objectives.options",
    "register_objective": "ncmi.objectives.options",
    "to_log_distribution": "ncmi.loss.simplex",
    "train": "ncmi.api.experiments",
}

# modules behind the names that need more than torch
_NEED_APP = (
    "ncmi.api.experiments",
    "ncmi.api.trained",
    "ncmi.integrations.sklearn",
    "ncmi.readouts.calibration",
)

__all__ = [
    "AlternatingOptimizer",
    "Alternation",
    "CentroidClassifier",
    "ComparisonResults",
    "Evaluated",
    "Information",
    "InformationAccumulator",
    "LinearHeadObjective",
    "LinearProbe",
    "NCMIClassifier",
    "NCMIHead",
    "NCMILoss",
    "NearestNeighbors",
    "Objective",
    "ObjectiveOptions",
    "TrainedRun",
    "anchor_directions",
    "apply_temperature",
    "compare",
    "fit_temperature",
    "load",
    "log_nsf",
    "make_objective",
    "measure",
    "ncmi_loss",
    "objective_names",
    "objective_options",
    "register_objective",
    "to_log_distribution",
    "train",
]


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # hidden from this process
        return False


# from ncmi import * gives what works with torch alone where the rest is not installed
if not (_is_installed("sklearn") and _is_installed("msgspec")):
    for _name in [name for name in __all__ if _HOME[name] in _NEED_APP]:
        __all__.remove(_name)

if not TYPE_CHECKING:  # or a misspelled name would be Any to a type checker

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module 'ncmi' has no attribute {name!r}")
        try:
            value = getattr(import_module(_HOME[name]), name)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing in ("", "ncmi", "torch"):
                raise
            message = f"ncmi.{name} needs {missing}, which is not installed: pip install ncmi[app]"
            raise ModuleNotFoundError(message, name=error.name) from error
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
