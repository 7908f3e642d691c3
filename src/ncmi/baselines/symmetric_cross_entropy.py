"""Symmetric cross-entropy: cross-entropy plus a reverse one, which wrong labels cannot pull hard."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ncmi.baselines._inputs import expectation, prepare
from ncmi.objective import LinearHeadObjective


def symmetric_cross_entropy_loss(
    logits: Tensor, labels: Tensor, alpha: float = 0.1, beta: float = 1.0, log_zero: float = -4.0
) -> Tensor:
    """``α·CE + β·RCE``: mean of ``−α log p_y − β A (1 − p_y)``, p the softmax of the logits.

    The reverse cross-entropy is ``RCE = −Σ_k p_k log onehot_k`` with ``log 0 := A``, hence ``−A (1 − p_y)``.

    Args:
        logits: ``[B, C]``; half precision is computed in float32.
        labels: ``[B]`` class indices, or soft targets ``[B, C]``: the expectation over labels drawn from them.
        alpha: α ≥ 0, weight of the cross-entropy. Published: 0.1 for CIFAR-10, 6 for CIFAR-100.
        beta: β ≥ 0, weight of the reverse cross-entropy. Published: 1 for CIFAR-10, 0.1 for CIFAR-100.
        log_zero: A < 0; at −2 the reverse cross-entropy is the mean absolute error.

    Returns:
        Scalar in nats, ≥ 0.

    Raises:
        ValueError: for labels out of range or of another shape, or an empty batch.

    Source: Wang et al. 2019, "Symmetric cross entropy for robust learning with noisy labels", arXiv 1908.06112.

    Example:
        >>> import torch
        >>> symmetric_cross_entropy_loss(torch.zeros(1, 4), torch.tensor([2]), alpha=0.0)  # 4 · ¾
        tensor(3.)
    """
    logits, labels = prepare(logits, labels)
    log_p = torch.log_softmax(logits, dim=-1)
    return expectation(-alpha * log_p + beta * log_zero * torch.expm1(log_p), labels)


class SymmetricCrossEntropyObjective(LinearHeadObjective):
    """Symmetric cross-entropy on the logits of a linear head; see :func:`symmetric_cross_entropy_loss`.

    The defaults are those published for CIFAR-10; with many classes α=6, β=0.1 (CIFAR-100) learn faster.

    Raises:
        ValueError: if a weight is negative, both are 0, or ``log_zero`` is not a number below 0.
    """

    def __init__(
        self, num_classes: int, feature_dim: int, *, alpha: float = 0.1, beta: float = 1.0, log_zero: float = -4.0
    ) -> None:
        super().__init__(num_classes, feature_dim)
        if not (alpha >= 0 and beta >= 0 and alpha + beta > 0):
            raise ValueError(
                f"alpha={alpha}, beta={beta}: symmetric cross-entropy needs both ≥ 0 and one above, e.g. 0.1 and 1"
            )
        if not -math.inf < log_zero < 0:
            raise ValueError(f"log_zero={log_zero}: what stands for log 0 must be finite and below 0, usually -4")
        self.alpha = alpha
        self.beta = beta
        self.log_zero = log_zero

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        return symmetric_cross_entropy_loss(logits, labels, self.alpha, self.beta, self.log_zero)
