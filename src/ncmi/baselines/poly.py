"""PolyLoss: cross-entropy with the first term of its Taylor series at p = 1 reweighed."""

from __future__ import annotations

import torch
from torch import Tensor

from ncmi.baselines._inputs import expectation, prepare
from ncmi.objective import LinearHeadObjective


def poly_loss(logits: Tensor, labels: Tensor, epsilon: float = 1.0) -> Tensor:
    """Mean of ``−log p_y + ε₁ (1 − p_y)``, p the softmax of the logits (Poly-1).

    Args:
        logits: ``[B, C]``; half precision is computed in float32.
        labels: ``[B]`` class indices, or soft targets ``[B, C]``.
        epsilon: ε₁ ≥ −1; 0 is cross-entropy, −1 drops the leading term.

    Returns:
        Scalar, ≥ 0.

    Raises:
        ValueError: for labels out of range or of another shape, or an empty batch.

    Source: Leng et al. 2022, "PolyLoss", arXiv 2204.12511, Poly-1.

    Example:
        >>> import torch
        >>> poly_loss(torch.zeros(1, 2), torch.tensor([0]))  # log 2 + ½
        tensor(1.1931)
    """
    logits, labels = prepare(logits, labels)
    log_p = torch.log_softmax(logits, dim=-1)
    return expectation(-log_p - epsilon * torch.expm1(log_p), labels)


class PolyObjective(LinearHeadObjective):
    """Poly-1 on the logits of a linear head; see :func:`poly_loss`.

    Raises:
        ValueError: if ``epsilon`` is below −1, where a wrong answer would be rewarded.
    """

    def __init__(self, num_classes: int, feature_dim: int, *, epsilon: float = 1.0) -> None:
        super().__init__(num_classes, feature_dim)
        if not epsilon >= -1:
            raise ValueError(f"epsilon={epsilon}: PolyLoss needs epsilon ≥ -1, usually 1")
        self.epsilon = epsilon

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        return poly_loss(logits, labels, self.epsilon)
