"""Orthogonal projection loss: same-label features aligned, different-label features orthogonal."""

import torch
from torch import Tensor

from ncmi.loss.simplex import unit_vector
from ncmi.objectives.cross_entropy import cross_entropy_loss
from ncmi.objectives.interface import LinearHeadObjective, check_hard_labels, no_autocast
from ncmi.objectives.options import OPLOptions


def opl_loss(features: Tensor, labels: Tensor, gamma: float = OPLOptions.gamma) -> Tensor:
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
    """Cross-entropy on a linear head plus ``opl_weight`` times :func:`opl_loss` on the features.

    Usual values: weight 1 and γ 0.5 (CIFAR), weight 0.1 and γ 2 (ImageNet).
    """

    couples_samples = True
    options_type = OPLOptions
    options: OPLOptions

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        check_hard_labels(labels, features.shape[0], self.num_classes, "OPL")
        return super().loss(features, labels) + self.options.opl_weight * opl_loss(features, labels, self.options.gamma)

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The cross-entropy part; the rest needs the features."""
        return cross_entropy_loss(logits, labels)
