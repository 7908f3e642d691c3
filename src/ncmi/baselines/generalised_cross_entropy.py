"""Generalised cross-entropy: from cross-entropy, which is quick, to absolute error, which bears wrong labels."""

from __future__ import annotations

import torch
from torch import Tensor

from ncmi.baselines._inputs import expectation, prepare
from ncmi.objective import LinearHeadObjective


def generalised_cross_entropy_loss(logits: Tensor, labels: Tensor, q: float = 0.7) -> Tensor:
    """Mean of ``(1 − p_y^q) / q``, p the softmax of the logits.

    Args:
        logits: ``[B, C]``; half precision is computed in float32.
        labels: ``[B]`` class indices, or soft targets ``[B, C]``.
        q: in (0, 1]. Towards 0 it is cross-entropy; 1 is ``1 − p_y``, half the mean absolute error.

    Returns:
        Scalar, 0 … 1/q.

    Raises:
        ValueError: for labels out of range or of another shape, or an empty batch.

    Source: Zhang & Sabuncu 2018, "Generalized cross entropy loss for training deep neural networks with noisy
        labels", arXiv 1805.07836: L_q; not its truncated form, which prunes samples during training.

    Example:
        >>> import torch
        >>> generalised_cross_entropy_loss(torch.zeros(1, 4), torch.tensor([2]), q=0.5)  # 2·(1 − ½)
        tensor(1.)
    """
    logits, labels = prepare(logits, labels)
    # as 1 − p^q it would lose its digits where q is small
    return expectation(-torch.expm1(q * torch.log_softmax(logits, dim=-1)) / q, labels)


class GeneralisedCrossEntropyObjective(LinearHeadObjective):
    """Generalised cross-entropy on the logits of a linear head; see :func:`generalised_cross_entropy_loss`.

    Raises:
        ValueError: if ``q`` is outside (0, 1].
    """

    def __init__(self, num_classes: int, feature_dim: int, *, q: float = 0.7) -> None:
        super().__init__(num_classes, feature_dim)
        if not 0 < q <= 1:
            raise ValueError(f"q={q}: generalised cross-entropy needs 0 < q ≤ 1, usually 0.7")
        self.q = q

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        return generalised_cross_entropy_loss(logits, labels, self.q)
