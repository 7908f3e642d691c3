"""AntiClass: cross-entropy, and one-cold cross-entropy that levels the wrong classes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ncmi.baselines._inputs import as_distribution, prepare
from ncmi.objective import LinearHeadObjective


def one_cold_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of ``−(1/(C − 1)) Σ_{j≠y} log[(C − 1) softmax(−z)_j]`` (OCCE).

    Zero where the opposite logits give every wrong class 1/(C − 1) and the right one nothing. Shapes, errors
    and source as :func:`anticlass_loss`.
    """
    logits, labels = prepare(logits, labels)
    num_classes = logits.shape[1]
    wrong = 1 - as_distribution(labels, num_classes, logits.dtype)
    log_opposite = torch.log_softmax(-logits, dim=-1)
    return -(wrong * log_opposite).sum(-1).mean() / (num_classes - 1) - math.log(num_classes - 1)


def anticlass_loss(logits: Tensor, labels: Tensor, gamma: float = 1.0) -> Tensor:
    """``CE + γ·OCCE``; see :func:`one_cold_cross_entropy`.

    Args:
        logits: z, ``[B, C]``, C at least 2; half precision is computed in float32.
        labels: ``[B]`` class indices, or soft targets ``[B, C]``.
        gamma: weight γ ≥ 0 of the one-cold term; 0 is cross-entropy.

    Returns:
        Scalar in nats, ≥ 0 for class indices.

    Raises:
        ValueError: for labels out of range or of another shape, or an empty batch.

    Source: Katsikas, Passalis & Tefas 2025, "Inducing neural collapse via anticlasses and one-cold
    cross-entropy loss", IEEE TNNLS.

    Example:
        >>> anticlass_loss(torch.zeros(1, 2), torch.tensor([0]))  # 2 log 2
        tensor(1.3863)
    """
    logits, labels = prepare(logits, labels)
    return F.cross_entropy(logits, labels) + gamma * one_cold_cross_entropy(logits, labels)


class AntiClassObjective(LinearHeadObjective):
    """AntiClass on the logits of a linear head; see :func:`anticlass_loss`.

    Raises:
        ValueError: if ``gamma`` is negative.
    """

    def __init__(self, num_classes: int, feature_dim: int, *, gamma: float = 1.0) -> None:
        super().__init__(num_classes, feature_dim)
        if not gamma >= 0:
            raise ValueError(f"gamma={gamma}: AntiClass needs gamma ≥ 0, usually 1")
        self.gamma = gamma

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        return anticlass_loss(logits, labels, self.gamma)
