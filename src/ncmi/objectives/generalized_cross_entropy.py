"""Generalized cross-entropy: from cross-entropy, which is quick, to absolute error, which bears wrong labels."""

import torch
from torch import Tensor

from ncmi.objectives.interface import LossObjective, expectation, on_rows
from ncmi.objectives.options import GeneralizedCrossEntropyOptions


@on_rows
def generalized_cross_entropy_loss(
    logits: Tensor, labels: Tensor, q: float = GeneralizedCrossEntropyOptions.q
) -> Tensor:
    """Mean of ``(1 − p_y^q) / q``, p the softmax of the logits; a scalar in 0 … 1/q.

    Args:
        logits, labels: ``[B, C]`` and ``[B]`` or soft ``[B, C]``; these and the errors: see :mod:`ncmi.objectives`.
        q: in (0, 1]. Towards 0 it is cross-entropy; 1 is ``1 − p_y``, half the mean absolute error.

    Source: Zhang & Sabuncu 2018, "Generalized cross entropy loss for training deep neural networks with noisy
        labels", arXiv 1805.07836: L_q; not its truncated form, which prunes samples during training.

    Example:
        >>> generalized_cross_entropy_loss(torch.zeros(1, 4), torch.tensor([2]), q=0.5)  # 2·(1 − ½)
        tensor(1.)
    """
    # as 1 − p^q it would lose its digits where q is small
    return expectation(-torch.expm1(q * torch.log_softmax(logits, dim=-1)) / q, labels)


class GeneralizedCrossEntropyObjective(LossObjective):
    """:func:`generalized_cross_entropy_loss` of the logits of a linear head."""

    options_type = GeneralizedCrossEntropyOptions
    function = staticmethod(generalized_cross_entropy_loss)
