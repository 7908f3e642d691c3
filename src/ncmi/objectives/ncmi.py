"""NCMI as an objective: :class:`ncmi.NCMILoss` with what training asks of every objective."""

from typing import Any

from ncmi.loss.module import NCMILoss
from ncmi.objectives.interface import Objective


class NCMIObjective(NCMILoss, Objective):
    """:class:`ncmi.NCMILoss`, whose arguments it takes, as an :class:`~ncmi.Objective`."""

    sets_centroids = True

    def __init__(self, num_classes: int, feature_dim: int, **form: Any) -> None:
        super().__init__(num_classes, feature_dim, **form)
        # trained centroids decide for themselves; anchors and class means by way of the true class means
        self.readouts = ("head", "cc", "lp") if self.centroid_mode == "learned" else ("cc", "lp")
