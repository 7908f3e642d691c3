"""What the paper printed for CIFAR-100, to stand beside what was measured here and never to be mixed with it.

Source: arXiv 2601.02543, Table I (networks × methods) and Table V (ResNet-18, the output map and the centring), test
accuracy in percent, without a spread. There the rows of Squentropy and SquareLoss are the same for three networks.
"""

from __future__ import annotations

from typing import Any

SOURCE = "arXiv 2601.02543, Tables I and V"
NETWORKS = ("resnet18", "resnet34", "resnet50", "resnet101")

_TABLE_1: dict[tuple[str, str], tuple[float, float, float, float]] = {
    ("cross_entropy", "head"): (75.44, 76.42, 76.96, 77.39),
    ("label_smoothing", "head"): (75.92, 76.77, 77.06, 77.37),
    ("anticlass", "head"): (76.28, 76.31, 76.30, 76.69),
    ("squentropy", "head"): (75.71, 76.62, 77.15, 77.74),
    ("square", "head"): (75.10, 76.62, 77.15, 77.74),
    ("poly", "head"): (75.59, 76.87, 76.46, 77.77),
    ("supcon", "lp"): (73.00, 74.53, 74.88, 75.77),
    ("focal", "head"): (76.34, 76.62, 77.32, 77.76),
    ("ncmi", "cc"): (76.45, 76.97, 77.50, 77.81),
    ("ncmi", "lp"): (76.94, 77.34, 77.76, 78.23),
}
# of ResNet-18 by centroid comparison: (output map, whether features are centred)
_TABLE_5 = {("nsf", True): 76.45, ("nsf", False): 74.9, ("softmax", True): 1.72, ("softmax", False): 5.64}


def published(network: str, objective: dict[str, Any], readout: str) -> float | None:
    """The paper's test accuracy in percent, or None where it printed none.

    Args:
        network: name of the backbone.
        objective: the objective's options as in a recipe. NCMI counts as the paper's only with p = 1: the paper knows
            no other power of the separation.
        readout: how it decides.

    >>> published("resnet18", {"name": "focal"}, "head"), published("resnet18", {"name": "opl"}, "head")
    (76.34, None)
    """
    name = str(objective.get("name"))
    if network not in NETWORKS:
        return None
    if name == "ncmi":
        if objective.get("separation_power") != 1.0:
            return None
        cell = (str(objective.get("distribution")), objective.get("centre") != "none")
        if cell != ("nsf", True):
            return _TABLE_5.get(cell) if network == "resnet18" and readout == "cc" else None
    row = _TABLE_1.get((name, readout))
    return None if row is None else row[NETWORKS.index(network)]
