"""AntiClass: cross-entropy, and one-cold cross-entropy that levels the wrong classes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ncmi.objectives.interface import LossObjective, as_distribution, on_rows
from ncmi.objectives.options import AntiClassOptions


@on_rows
def one_cold_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of ``−(1/(C − 1)) Σ_{j≠y} log[(C − 1) softmax(−z)_j]`` (OCCE), z the logits.

    Zero where the opposite logits give every wrong class 1/(C − 1) and the right one nothing.
    """
    num_classes = logits.shape[1]
    wrong = 1 - as_distribution(labels, num_classes, logits.dtype)
    log_opposite = torch.log_softmax(-logits, dim=-1)
    return -(wrong * log_opposite).sum(-1).mean() / (num_classes - 1) - math.log(num_classes - 1)


@on_rows
def anticlass_loss(logits: Tensor, labels: Tensor, gamma: float = AntiClassOptions.gamma) -> Tensor:
    """``CE + γ·OCCE``, see :func:`one_cold_cross_entropy`; a scalar in nats, ≥ 0 for class indices.

    Args:
        logits, labels: ``[B, C]`` and ``[B]`` or soft ``[B, C]``; these and the errors: see :mod:`ncmi.objectives`.
        gamma: weight γ ≥ 0 of the one-cold term; 0 is cross-entropy.

    Source: Katsikas, Passalis & Tefas 2025, "Inducing neural collapse via anticlasses and one-cold
    cross-entropy loss", IEEE TNNLS.

    Example:
        >>> anticlass_loss(torch.zeros(1, 2), torch.tensor([0]))  # 2 log 2
        tensor(1.3863)
    """
    return F.cross_entropy(logits, labels) + gamma * one_cold_cross_entropy(logits, labels)


class AntiClassObjective(LossObjective):
    """:func:`anticlass_loss` of the logits of a linear head."""

    options_type = AntiClassOptions
    function = staticmethod(anticlass_loss)
