"""ncmi: classifiers trained and judged by normalised conditional mutual information.

Importing the package is light: torch is imported with the first name that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ncmi.adapters.sklearn import NCMIClassifier
    from ncmi.alternating import AlternatingOptimiser
    from ncmi.calibration import apply_temperature, fit_temperature
    from ncmi.centroids import CentroidClassifier, anchor_directions
    from ncmi.functional import ncmi_loss
    from ncmi.information import Information, InformationAccumulator, measure
    from ncmi.loss import NCMILoss
    from ncmi.neighbours import NearestNeighbours
    from ncmi.objective import LinearHeadObjective, Objective
    from ncmi.options import (
        Alternation,
        ObjectiveOptions,
        make_objective,
        objective_names,
        objective_options,
        register_objective,
    )
    from ncmi.probe import LinearProbe
    from ncmi.simplex import log_nsf, to_log_distribution

__version__ = "0.1.0"

_HOME = {
    "Alternation": "ncmi.options",
    "AlternatingOptimiser": "ncmi.alternating",
    "CentroidClassifier": "ncmi.centroids",
    "Information": "ncmi.information",
    "InformationAccumulator": "ncmi.information",
    "LinearHeadObjective": "ncmi.objective",
    "LinearProbe": "ncmi.probe",
    "NCMIClassifier": "ncmi.adapters.sklearn",
    "NCMILoss": "ncmi.loss",
    "NearestNeighbours": "ncmi.neighbours",
    "Objective": "ncmi.objective",
    "ObjectiveOptions": "ncmi.options",
    "anchor_directions": "ncmi.centroids",
    "apply_temperature": "ncmi.calibration",
    "fit_temperature": "ncmi.calibration",
    "log_nsf": "ncmi.simplex",
    "make_objective": "ncmi.options",
    "measure": "ncmi.information",
    "ncmi_loss": "ncmi.functional",
    "objective_names": "ncmi.options",
    "objective_options": "ncmi.options",
    "register_objective": "ncmi.options",
    "to_log_distribution": "ncmi.simplex",
}

__all__ = [
    "AlternatingOptimiser",
    "Alternation",
    "CentroidClassifier",
    "Information",
    "InformationAccumulator",
    "LinearHeadObjective",
    "LinearProbe",
    "NCMIClassifier",
    "NCMILoss",
    "NearestNeighbours",
    "Objective",
    "ObjectiveOptions",
    "anchor_directions",
    "apply_temperature",
    "fit_temperature",
    "log_nsf",
    "make_objective",
    "measure",
    "ncmi_loss",
    "objective_names",
    "objective_options",
    "register_objective",
    "to_log_distribution",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ncmi' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
