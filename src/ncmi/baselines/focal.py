"""Focal loss: cross-entropy with less weight on what is easy."""

from __future__ import annotations

import torch
from torch import Tensor

from ncmi.baselines._inputs import expectation, prepare
from ncmi.objective import LinearHeadObjective


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean of ``−(1 − p_y)^γ log p_y``, p the softmax of the logits.

    Args:
        logits: ``[B, C]``; half precision is computed in float32.
        labels: ``[B]`` class indices, or soft targets ``[B, C]``.
        gamma: focusing parameter γ ≥ 0; 0 is cross-entropy.

    Returns:
        Scalar in nats, ≥ 0.

    Raises:
        ValueError: for labels out of range or of another shape, or an empty batch.

    Source: Lin et al. 2017, "Focal loss for dense object detection", Eq. 4, over several classes.

    Example:
        >>> import torch
        >>> focal_loss(torch.zeros(1, 2), torch.tensor([0]), gamma=1.0)  # ½ log 2
        tensor(0.3466)
    """
    logits, labels = prepare(logits, labels)
    log_p = torch.log_softmax(logits, dim=-1)
    # the floor keeps the derivative of x^γ, γ < 1, finite where p rounds to 1
    doubt = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)
    return expectation(-(doubt**gamma) * log_p, labels)


class FocalObjective(LinearHeadObjective):
    """Focal loss on the logits of a linear head; see :func:`focal_loss`.

    Raises:
        ValueError: if ``gamma`` is negative.
    """

    def __init__(self, num_classes: int, feature_dim: int, *, gamma: float = 2.0) -> None:
        super().__init__(num_classes, feature_dim)
        if not gamma >= 0:
            raise ValueError(f"gamma={gamma}: the focal loss needs gamma ≥ 0, usually 2")
        self.gamma = gamma

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        return focal_loss(logits, labels, self.gamma)
