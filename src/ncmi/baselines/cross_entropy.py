"""Cross-entropy, the loss that every other is compared with."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ncmi.baselines._inputs import prepare
from ncmi.objective import LinearHeadObjective


def cross_entropy_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of ``−log p_y``, p the softmax of the logits.

    Args:
        logits: ``[B, C]``; half precision is computed in float32.
        labels: ``[B]`` class indices, or soft targets ``[B, C]``.

    Returns:
        Scalar in nats, ≥ 0.

    Raises:
        ValueError: for labels out of range or of another shape, or an empty batch.

    Example:
        >>> import torch
        >>> cross_entropy_loss(torch.zeros(1, 4), torch.tensor([2]))  # log 4
        tensor(1.3863)
    """
    logits, labels = prepare(logits, labels)
    return F.cross_entropy(logits, labels)


class CrossEntropyObjective(LinearHeadObjective):
    """Cross-entropy on the logits of a linear head; see :func:`cross_entropy_loss`."""

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy_loss(logits, labels)
