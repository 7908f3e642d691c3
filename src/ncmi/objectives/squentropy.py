"""Squentropy: cross-entropy for the right class, square loss for the wrong ones."""

import torch.nn.functional as F
from torch import Tensor

from ncmi.objectives.interface import LossObjective, as_distribution, on_rows
from ncmi.objectives.options import SquentropyOptions


@on_rows
def squentropy_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of ``−log p_y + (1/(C − 1)) Σ_{j≠y} z_j²``, p the softmax of the logits z; a scalar, ≥ 0.

    Args:
        logits, labels: ``[B, C]`` and ``[B]`` or soft ``[B, C]``; these and the errors: see :mod:`ncmi.objectives`.

    Source: Hui, Belkin & Wright 2023, "Cut your losses with squentropy", arXiv 2302.03952.

    Example:
        >>> import torch
        >>> squentropy_loss(torch.tensor([[3.0, 3.0]]), torch.tensor([0]))  # log 2 + 3²
        tensor(9.6931)
    """
    num_classes = logits.shape[1]
    wrong = 1 - as_distribution(labels, num_classes, logits.dtype)
    return F.cross_entropy(logits, labels) + (wrong * logits**2).sum(-1).mean() / (num_classes - 1)


class SquentropyObjective(LossObjective):
    """:func:`squentropy_loss` of the logits of a linear head."""

    options_type = SquentropyOptions
    function = staticmethod(squentropy_loss)
