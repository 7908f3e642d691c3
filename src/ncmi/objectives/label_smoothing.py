"""Label smoothing."""

import torch.nn.functional as F
from torch import Tensor

from ncmi.objectives.interface import LossObjective, on_rows
from ncmi.objectives.options import LabelSmoothingOptions


@on_rows
def label_smoothing_loss(logits: Tensor, labels: Tensor, epsilon: float = LabelSmoothingOptions.epsilon) -> Tensor:
    """Cross-entropy against ``(1 − ε)·onehot + ε/C``; a scalar in nats, ≥ 0.

    Args:
        logits, labels: ``[B, C]`` and ``[B]`` or soft ``[B, C]``; these and the errors: see :mod:`ncmi.objectives`.
            Soft targets are smoothed in the same way.
        epsilon: ε in [0, 1]; 0 is cross-entropy.

    Source: Szegedy et al. 2016, "Rethinking the Inception architecture", section 7.

    Example:
        >>> import torch
        >>> label_smoothing_loss(torch.zeros(1, 4), torch.tensor([2]), epsilon=0.3)  # log 4 whatever ε
        tensor(1.3863)
    """
    return F.cross_entropy(logits, labels, label_smoothing=epsilon)


class LabelSmoothingObjective(LossObjective):
    """:func:`label_smoothing_loss` of the logits of a linear head."""

    options_type = LabelSmoothingOptions
    function = staticmethod(label_smoothing_loss)
