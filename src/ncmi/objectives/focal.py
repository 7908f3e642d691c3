"""Focal loss: cross-entropy with less weight on what is easy."""

import torch
from torch import Tensor

from ncmi.objectives.interface import LossObjective, expectation, on_rows
from ncmi.objectives.options import FocalOptions


@on_rows
def focal_loss(logits: Tensor, labels: Tensor, gamma: float = FocalOptions.gamma) -> Tensor:
    """Mean of ``−(1 − p_y)^γ log p_y``, p the softmax of the logits; a scalar in nats, ≥ 0.

    Args:
        logits, labels: ``[B, C]`` and ``[B]`` or soft ``[B, C]``; these and the errors: see :mod:`ncmi.objectives`.
        gamma: focusing parameter γ ≥ 0; 0 is cross-entropy.

    Source: Lin et al. 2017, "Focal loss for dense object detection", Eq. 4, over several classes.

    Example:
        >>> focal_loss(torch.zeros(1, 2), torch.tensor([0]), gamma=1.0)  # ½ log 2
        tensor(0.3466)
    """
    log_p = torch.log_softmax(logits, dim=-1)
    # the floor keeps the derivative of x^γ, γ < 1, finite where p rounds to 1
    doubt = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)
    return expectation(-(doubt**gamma) * log_p, labels)


class FocalObjective(LossObjective):
    """:func:`focal_loss` of the logits of a linear head."""

    options_type = FocalOptions
    function = staticmethod(focal_loss)
