"""Orthogonal projection loss: same-label features aligned, different-label features orthogonal."""

from __future__ import annotations

import torch
from torch import Tensor

from ncmi.baselines._inputs import check_hard_labels, no_autocast
from ncmi.baselines.cross_entropy import cross_entropy_loss
from ncmi.objective import LinearHeadObjective
from ncmi.simplex import unit_vector


def opl_loss(features: Tensor, labels: Tensor, gamma: float = 0.5) -> Tensor:
    """``(1 − s) + γ d``: s the mean cosine of same-label pairs, d the mean |cosine| of different-label pairs.

    The cross-entropy that the paper adds is not part of it. A term without a pair in the batch is 0.

    Args:
        features: ``[B, D]``; half precision is computed in float32, also inside autocast. A zero feature has
            cosine 0 with every other.
        labels: ``[B]`` class indices; no soft targets, since pairs are made by label.
        gamma: weight γ ≥ 0 of the orthogonality of different labels.

    Returns:
        Scalar in [0, 2 + γ].

    Raises:
        ValueError: for soft targets, negative labels or labels of another shape, or an empty batch.

    Source: Ranasinghe et al. 2021, "Orthogonal projection loss", arXiv 2103.14021; with the absolute
    value, as in the paper.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
        >>> opl_loss(features, torch.tensor([0, 0, 1]))
        tensor(0.)
    """
    check_hard_labels(labels, features.shape[0], None, "OPL")
    directions = unit_vector(features)
    with no_autocast(directions):
        cosines = directions @ directions.T
    same_label = labels[:, None] == labels[None, :]
    same = (same_label & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)).to(cosines.dtype)
    different = (~same_label).to(cosines.dtype)
    same_pairs, different_pairs = same.sum(), different.sum()
    s = (same * cosines).sum() / same_pairs.clamp(min=1)
    d = (different * cosines.abs()).sum() / different_pairs.clamp(min=1)
    return torch.where(same_pairs > 0, 1 - s, torch.zeros_like(s)) + gamma * d


class OPLObjective(LinearHeadObjective):
    """Cross-entropy on a linear head plus ``weight`` times :func:`opl_loss` on the features.

    Usual values: weight 1 and γ 0.5 (CIFAR), weight 0.1 and γ 2 (ImageNet).

    Raises:
        ValueError: if ``weight`` or ``gamma`` is negative.
    """

    couples_samples = True

    def __init__(self, num_classes: int, feature_dim: int, *, weight: float = 1.0, gamma: float = 0.5) -> None:
        super().__init__(num_classes, feature_dim)
        if not (weight >= 0 and gamma >= 0):
            raise ValueError(f"weight={weight}, gamma={gamma}: OPL needs both ≥ 0, usually 1 and 0.5")
        self.weight = weight
        self.gamma = gamma

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        check_hard_labels(labels, features.shape[0], self.num_classes, "OPL")
        return super().loss(features, labels) + self.weight * opl_loss(features, labels, self.gamma)

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The cross-entropy part; the rest needs the features."""
        return cross_entropy_loss(logits, labels)
