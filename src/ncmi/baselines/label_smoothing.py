"""Label smoothing."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ncmi.baselines._inputs import prepare
from ncmi.objective import LinearHeadObjective


def label_smoothing_loss(logits: Tensor, labels: Tensor, epsilon: float = 0.1) -> Tensor:
    """Cross-entropy against ``(1 − ε)·onehot + ε/C``.

    Args:
        logits: ``[B, C]``; half precision is computed in float32.
        labels: ``[B]`` class indices, or soft targets ``[B, C]``, which are smoothed in the same way.
        epsilon: ε in [0, 1]; 0 is cross-entropy.

    Returns:
        Scalar in nats, ≥ 0.

    Raises:
        ValueError: for labels out of range or of another shape, or an empty batch.

    Source: Szegedy et al. 2016, "Rethinking the Inception architecture", section 7.

    Example:
        >>> import torch
        >>> label_smoothing_loss(torch.zeros(1, 4), torch.tensor([2]), epsilon=0.3)  # log 4 whatever ε
        tensor(1.3863)
    """
    logits, labels = prepare(logits, labels)
    return F.cross_entropy(logits, labels, label_smoothing=epsilon)


class LabelSmoothingObjective(LinearHeadObjective):
    """Label smoothing on the logits of a linear head; see :func:`label_smoothing_loss`.

    Raises:
        ValueError: if ``epsilon`` is outside [0, 1].
    """

    def __init__(self, num_classes: int, feature_dim: int, *, epsilon: float = 0.1) -> None:
        super().__init__(num_classes, feature_dim)
        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilon={epsilon}: label smoothing needs 0 ≤ epsilon ≤ 1, usually 0.1")
        self.epsilon = epsilon

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        return label_smoothing_loss(logits, labels, self.epsilon)
