"""Symmetric cross-entropy: cross-entropy plus a reverse one, which wrong labels cannot pull hard."""

import torch
from torch import Tensor

from ncmi.objectives.interface import LossObjective, expectation, on_rows
from ncmi.objectives.options import SymmetricCrossEntropyOptions as Options


@on_rows
def symmetric_cross_entropy_loss(
    logits: Tensor,
    labels: Tensor,
    alpha: float = Options.alpha,
    beta: float = Options.beta,
    log_zero: float = Options.log_zero,
) -> Tensor:
    """``α·CE + β·RCE``: mean of ``−α log p_y − β A (1 − p_y)``, p the softmax of the logits; a scalar in nats, ≥ 0.

    The reverse cross-entropy is ``RCE = −Σ_k p_k log onehot_k`` with ``log 0 := A``, hence ``−A (1 − p_y)``.

    Args:
        logits, labels: ``[B, C]`` and ``[B]`` or soft ``[B, C]``; these and the errors: see :mod:`ncmi.objectives`.
        alpha, beta: ≥ 0, weights of cross-entropy and reverse cross-entropy.
        log_zero: A < 0; at −2 the reverse cross-entropy is the mean absolute error.

    Source: Wang et al. 2019, "Symmetric cross entropy for robust learning with noisy labels", arXiv 1908.06112.

    Example:
        >>> symmetric_cross_entropy_loss(torch.zeros(1, 4), torch.tensor([2]), alpha=0.0)  # 4 · ¾
        tensor(3.)
    """
    log_p = torch.log_softmax(logits, dim=-1)
    return expectation(-alpha * log_p + beta * log_zero * torch.expm1(log_p), labels)


class SymmetricCrossEntropyObjective(LossObjective):
    """:func:`symmetric_cross_entropy_loss` of the logits of a linear head.

    The defaults are those published for CIFAR-10; with many classes α=6, β=0.1 (CIFAR-100) learn faster.
    """

    options_type = Options
    function = staticmethod(symmetric_cross_entropy_loss)
