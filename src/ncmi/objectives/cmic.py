"""CMIC-DL: cross-entropy with the conditional mutual information of the class probabilities constrained."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ncmi.objectives.class_means import ClassMeans
from ncmi.objectives.interface import LinearHeadObjective, as_distribution, no_autocast, on_rows, rows_of
from ncmi.objectives.options import CMICOptions


def batch_concentration(log_p: Tensor, labels: Tensor, centroids: Tensor) -> Tensor:
    """Mean of ``KL(P ‖ Q_y)``: ``log_p [B, C]``, labels ``[B]`` or soft ``[B, C]``, ``centroids [C, C]``.

    A row of zeros in ``centroids`` stands for a class that has none yet; its samples contribute 0.
    """
    known = (centroids.sum(-1, keepdim=True) > 0).to(log_p.dtype)
    # a class mean of probabilities may underflow to 0, where the logarithm has no value
    log_q = known * centroids.to(log_p.dtype).clamp(min=torch.finfo(log_p.dtype).tiny).log()
    with no_autocast(log_p):
        return (log_p.exp() * (rows_of(known, labels) * log_p - rows_of(log_q, labels))).sum(-1).mean()


def batch_separation(log_p: Tensor, labels: Tensor) -> Tensor:
    """``Γ = E[1{Y≠V} H(P_X, P_U)]`` with (X, Y), (U, V) drawn independently from the batch, ``log_p [B, C]``.

    One product gives all cross-entropies ``H(p, q) = −Σ p log q``, ``[B, B]``. Under soft targets ``[B, C]``,
    Y and V are independent draws from them.
    """
    targets = as_distribution(labels, log_p.shape[1], log_p.dtype)
    with no_autocast(log_p):
        cross_entropies = -(log_p.exp() @ log_p.T)
        differ = 1 - targets @ targets.T
    return (differ * cross_entropies).mean()


@on_rows
def cmic_loss(
    logits: Tensor,
    labels: Tensor,
    centroids: Tensor,
    concentration_weight: float = CMICOptions.concentration_weight,
    separation_weight: float = CMICOptions.separation_weight,
) -> Tensor:
    """``CE + λ·mean KL(P ‖ Q_y) − β·Γ``, P the softmax of the logits; for Γ see :func:`batch_separation`. In nats.

    Args:
        logits, labels: ``[B, C]`` and ``[B]`` or soft ``[B, C]``; these and the errors: see :mod:`ncmi.objectives`.
        centroids: Q, ``[C, C]``: row c is the mean distribution of class c, or zeros where there is none yet.
            It is not trained through this loss: pass it without gradient.
        concentration_weight: λ ≥ 0.
        separation_weight: β ≥ 0. Γ has no upper bound: a large β lets it outrun the rest.

    Source: Yang et al. 2023, "Conditional mutual information constrained deep learning", arXiv 2309.09123.

    Example:
        >>> logits, labels = torch.zeros(2, 2), torch.tensor([0, 1])
        >>> cmic_loss(logits, labels, torch.full((2, 2), 0.5), separation_weight=1.0)  # log 2 + 0 − ½ log 2
        tensor(0.3466)
    """
    log_p = torch.log_softmax(logits, dim=-1)
    concentration = batch_concentration(log_p, labels, centroids)
    separation = batch_separation(log_p, labels)
    return F.cross_entropy(logits, labels) + concentration_weight * concentration - separation_weight * separation


class CMICObjective(LinearHeadObjective):
    """CMIC-DL on the logits of a linear head; see :func:`cmic_loss`.

    The centroids Q are running class means of P (:class:`~ncmi.objectives.class_means.ClassMeans`), free of
    bias towards their start: after a class's first step its Q is that step's mean. Before, the class adds
    nothing to the concentration.
    """

    couples_samples = True
    options_type = CMICOptions
    options: CMICOptions

    def __init__(self, num_classes: int, feature_dim: int, **options: Any) -> None:
        super().__init__(num_classes, feature_dim, **options)
        self.centroids = ClassMeans(num_classes, num_classes, self.options.centroid_decay)

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        weights = self.options.concentration_weight, self.options.separation_weight
        return cmic_loss(logits, labels, self.centroids.means(), *weights)

    @torch.no_grad()
    def observe(self, features: Tensor, labels: Tensor, synchronize: bool = False) -> None:
        self.centroids.observe(torch.softmax(self.scores(features), dim=-1), labels)

    def update(self) -> None:
        self.centroids.update()
