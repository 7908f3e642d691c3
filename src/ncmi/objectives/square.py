"""Square loss on logits, rescaled where there are many classes."""

from torch import Tensor

from ncmi.objectives.interface import LossObjective, as_distribution, on_rows
from ncmi.objectives.options import SquareOptions

MANY_CLASSES = 42
"""Number of classes from which the paper rescales the loss."""


@on_rows
def square_loss(logits: Tensor, labels: Tensor, k: float | None = None, target_value: float | None = None) -> Tensor:
    """Mean of ``(1/C) [k (z_y − M)² + Σ_{j≠y} z_j²]``, z the logits, without a softmax; a scalar, ≥ 0.

    Args:
        logits, labels: ``[B, C]`` and ``[B]`` or soft ``[B, C]``; these and the errors: see :mod:`ncmi.objectives`.
        k: weight of the right class, > 0. ``None``: 1 below 42 classes, else 15.
        target_value: M > 0, what the right class's logit should be. ``None``: 1 below 42 classes, else 30.
            The values 15 and 30 were published for 1000 classes; with fewer it may pay to try smaller ones.

    Source: Hui & Belkin 2021, "Evaluation of neural architectures trained with square loss vs cross-entropy",
    arXiv 2006.07322, section 2 (rescaled square loss).

    Example:
        >>> import torch
        >>> square_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([0]))  # (0² + 2²) / 2
        tensor(2.)
    """
    num_classes = logits.shape[1]
    usual_k, usual_target = (15.0, 30.0) if num_classes >= MANY_CLASSES else (1.0, 1.0)
    k = usual_k if k is None else k
    target_value = usual_target if target_value is None else target_value
    targets = as_distribution(labels, num_classes, logits.dtype)
    # for each class apart: completing the squares instead would cancel M² against M²
    terms = targets * (k * (logits - target_value) ** 2) + (1 - targets) * logits**2
    return terms.sum(-1).mean() / num_classes


class SquareObjective(LossObjective):
    """:func:`square_loss` of the outputs of a linear head.

    Its scores are the logits. They are not log-probabilities: the distribution that is reported for it is the
    softmax of outputs that were trained towards 0 and M.
    """

    options_type = SquareOptions
    function = staticmethod(square_loss)
