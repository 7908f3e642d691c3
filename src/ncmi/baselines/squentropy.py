"""Squentropy: cross-entropy for the right class, square loss for the wrong ones."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ncmi.baselines._inputs import as_distribution, prepare
from ncmi.objective import LinearHeadObjective


def squentropy_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of ``−log p_y + (1/(C − 1)) Σ_{j≠y} z_j²``, p the softmax of the logits z.

    Args:
        logits: z, ``[B, C]``, C at least 2; half precision is computed in float32.
        labels: ``[B]`` class indices, or soft targets ``[B, C]``.

    Returns:
        Scalar, ≥ 0.

    Raises:
        ValueError: for labels out of range or of another shape, or an empty batch.

    Source: Hui, Belkin & Wright 2023, "Cut your losses with squentropy", arXiv 2302.03952.

    Example:
        >>> import torch
        >>> squentropy_loss(torch.tensor([[3.0, 3.0]]), torch.tensor([0]))  # log 2 + 3²
        tensor(9.6931)
    """
    logits, labels = prepare(logits, labels)
    num_classes = logits.shape[1]
    wrong = 1 - as_distribution(labels, num_classes, logits.dtype)
    return F.cross_entropy(logits, labels) + (wrong * logits**2).sum(-1).mean() / (num_classes - 1)


class SquentropyObjective(LinearHeadObjective):
    """Squentropy on the logits of a linear head; see :func:`squentropy_loss`."""

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        return squentropy_loss(logits, labels)
