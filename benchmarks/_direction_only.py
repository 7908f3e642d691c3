"""Cross-entropy that sees the direction of a feature alone: what the length is worth, without anything of NCMI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from ncmi.objectives.interface import LinearHeadObjective
from ncmi.objectives.options import ObjectiveOptions, register_objective


class DirectionOnly(LinearHeadObjective):
    """Cross-entropy on the logits of a linear head, with bias, of the feature at length ``scale``."""

    def __init__(self, num_classes: int, feature_dim: int, *, scale: float = 10.0) -> None:
        super().__init__(num_classes, feature_dim)
        self.scale = scale

    def scores(self, features: Tensor) -> Tensor:
        return super().scores(self.scale * F.normalize(features, dim=-1))

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels)


@register_objective("direction_only", label="Cross-entropy on directions")
@dataclass(frozen=True)
class DirectionOnlyOptions(ObjectiveOptions):
    """Options of :class:`DirectionOnly`."""

    scale: float = 10.0
    target: ClassVar[str] = "_direction_only:DirectionOnly"
