"""The interface that every training objective has.

An objective owns whatever stands between the backbone's feature and the decision: a linear head, a projection
head, centroids. The trainer knows this interface and nothing else. Objectives are made by name in
:mod:`ncmi.options`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn


class Objective(nn.Module, ABC):
    """A training objective: ``loss`` for training, ``scores`` for deciding.

    Args:
        num_classes: C, at least 2.
        feature_dim: D, the width of the backbone's feature.

    Attributes:
        views: how many differently augmented views of each sample a step needs. With ``views == 1`` the features
            are ``[B, D]``; otherwise ``[B, views, D]``.
        couples_samples: whether the mean loss of a batch is anything but the mean of its samples' own losses. Where it
            does, gradient accumulation over 4×16 samples is not the same as one batch of 64.
        readouts: how the objective is judged when it is compared: ``"head"`` (its own scores), ``"cc"`` (centroid
            comparison), ``"lp"`` (linear probe).

    Raises:
        ValueError: if ``num_classes < 2`` or ``feature_dim < 1``.
    """

    views: ClassVar[int] = 1
    readouts: tuple[str, ...] = ("head",)
    couples_samples: bool = False

    def __init__(self, num_classes: int, feature_dim: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes={num_classes}: a classifier needs at least 2 classes")
        if feature_dim < 1:
            raise ValueError(f"feature_dim={feature_dim}: the backbone's feature needs at least 1 component")
        self.num_classes = num_classes
        self.feature_dim = feature_dim

    @abstractmethod
    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of a batch: ``features [B, D]`` (``[B, views, D]``), ``labels [B]`` → scalar float32."""

    @abstractmethod
    def scores(self, features: Tensor) -> Tensor:
        """Decision scores, the higher the likelier: ``[B, D] → [B, C]`` float32."""

    def log_distribution(self, features: Tensor) -> Tensor:
        """Output log-distribution whose CMI, Γ and NCMI are reported: ``[B, D] → [B, K]``; by default over classes."""
        return torch.log_softmax(self.scores(features).float(), dim=-1)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return self.loss(features, labels)

    def network_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that are trained together with the backbone: by default, all."""
        return self.parameters()

    def centroid_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that have an optimiser of their own (learned centroids): by default, none."""
        return iter(())

    def observe(self, features: Tensor, labels: Tensor) -> None:
        """Add a micro-batch's sums and counts to the statistics that :meth:`update` will use. Default: nothing."""

    def update(self) -> None:
        """Bring centre, class means and the like up to date; once per optimiser step. Default: nothing."""

    def set_class_counts(self, counts: Tensor) -> None:
        """Tell the objective how many training samples each class has, ``[C]``. Default: not used."""


class LinearHeadObjective(Objective):
    """An objective on the logits of a linear head. Subclasses give :meth:`criterion`."""

    def __init__(self, num_classes: int, feature_dim: int) -> None:
        super().__init__(num_classes, feature_dim)
        self.head = nn.Linear(feature_dim, num_classes)

    @abstractmethod
    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of ``logits [B, C]`` float32 and ``labels [B]``."""

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        return self.criterion(self.scores(features), labels)

    def scores(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        # losses are sums of logarithms: float32 also where autocast ran the head in half precision
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
