"""Square loss on logits, rescaled where there are many classes."""

from __future__ import annotations

from torch import Tensor

from ncmi.baselines._inputs import as_distribution, prepare
from ncmi.objective import LinearHeadObjective

MANY_CLASSES = 42
"""Number of classes from which the paper rescales the loss."""


def square_loss(logits: Tensor, labels: Tensor, k: float | None = None, target_value: float | None = None) -> Tensor:
    """Mean of ``(1/C) [k (z_y − M)² + Σ_{j≠y} z_j²]``; there is no softmax.

    Args:
        logits: z, ``[B, C]``; half precision is computed in float32.
        labels: ``[B]`` class indices, or soft targets ``[B, C]``.
        k: weight of the right class, > 0. ``None``: 1 below 42 classes, else 15.
        target_value: M > 0, what the right class's logit should be. ``None``: 1 below 42 classes, else 30.
            The values 15 and 30 were published for 1000 classes; with fewer it may pay to try smaller ones.

    Returns:
        Scalar, ≥ 0.

    Raises:
        ValueError: for labels out of range or of another shape, or an empty batch.

    Source: Hui & Belkin 2021, "Evaluation of neural architectures trained with square loss vs cross-entropy",
    arXiv 2006.07322, section 2 (rescaled square loss).

    Example:
        >>> import torch
        >>> square_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([0]))  # (0² + 2²) / 2
        tensor(2.)
    """
    logits, labels = prepare(logits, labels)
    num_classes = logits.shape[1]
    many = num_classes >= MANY_CLASSES
    k = (15.0 if many else 1.0) if k is None else k
    target_value = (30.0 if many else 1.0) if target_value is None else target_value
    targets = as_distribution(labels, num_classes, logits.dtype)
    # for each class apart: completing the squares instead would cancel M² against M²
    terms = targets * (k * (logits - target_value) ** 2) + (1 - targets) * logits**2
    return terms.sum(-1).mean() / num_classes


class SquareObjective(LinearHeadObjective):
    """Square loss on the outputs of a linear head; see :func:`square_loss`.

    Its scores are the logits. They are not log-probabilities: the distribution that is reported for it is the
    softmax of outputs that were trained towards 0 and M.

    Raises:
        ValueError: if ``k`` or ``target_value`` is not positive.
    """

    def __init__(
        self, num_classes: int, feature_dim: int, *, k: float | None = None, target_value: float | None = None
    ) -> None:
        super().__init__(num_classes, feature_dim)
        if k is not None and not k > 0:
            raise ValueError(f"k={k}: the weight of the right class must be positive; None takes the usual value")
        if target_value is not None and not target_value > 0:
            raise ValueError(f"target_value={target_value}: must be positive; None takes the usual value")
        self.k = k
        self.target_value = target_value

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        return square_loss(logits, labels, self.k, self.target_value)
