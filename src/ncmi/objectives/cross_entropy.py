"""Cross-entropy, the loss that every other is compared with; with class weights or adjusted logits for long tails."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ncmi.loss.checks import as_rows
from ncmi.loss.statistics import ClassWeights
from ncmi.objectives.interface import LinearHeadObjective, on_rows
from ncmi.objectives.options import CrossEntropyOptions


@on_rows
def cross_entropy_loss(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of ``−log p_y``, p the softmax of the logits; with class weights the weighted mean. A scalar in nats, ≥ 0.

    Args:
        logits, labels: ``[B, C]`` and ``[B]`` or soft ``[B, C]``; these and the errors: see :mod:`ncmi.objectives`.
        weight: ``[C]``, ≥ 0, of the classes, as of ``torch.nn.functional.cross_entropy``.

    Example:
        >>> import torch
        >>> cross_entropy_loss(torch.zeros(1, 4), torch.tensor([2]))  # log 4
        tensor(1.3863)
    """
    if weight is not None and weight.shape != logits.shape[1:]:
        raise ValueError(f"weight {list(weight.shape)}: expected [{logits.shape[1]}], one for each class")
    return F.cross_entropy(logits, labels, weight=None if weight is None else weight.to(logits))


class CrossEntropyObjective(LinearHeadObjective):
    """Cross-entropy on the logits of a linear head; see :func:`cross_entropy_loss`.

    Args:
        weight: ``None``; ``[C]`` weights of the classes; or ``"balanced"``, N/(C·n_c), from the counts of
            :meth:`set_class_counts` or, without them, from the labels seen so far.
        logit_adjustment: τ ≥ 0: in training the logits are ``z + τ log π``, π the classes' frequencies, known as
            above; scores are those of z, which then aim at balanced accuracy. 0 is off, 1 is usual.

    Class weights and logit adjustment are alternatives: either alone makes up for frequencies, both do so twice.

    Source: logit adjustment: Menon et al. 2021, "Long-tail learning via logit adjustment", arXiv 2007.07314, Eq. 10.
    """

    options_type = CrossEntropyOptions
    options: CrossEntropyOptions

    def __init__(self, num_classes: int, feature_dim: int, **options: Any) -> None:
        super().__init__(num_classes, feature_dim, **options)
        weight = self.options.weight
        # a weighted mean divides by the sum of the batch's own weights
        self.couples_samples = weight is not None
        self.class_weights = None if weight is None else ClassWeights(num_classes, weight)
        self.frequencies = ClassWeights(num_classes, "balanced") if self.options.logit_adjustment > 0 else None

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.frequencies is not None:
            # balanced weights are 1/(C π): the constant log C does not change a softmax
            logits = logits - self.options.logit_adjustment * self.frequencies().log().to(logits)
        return cross_entropy_loss(logits, labels, None if self.class_weights is None else self.class_weights())

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss; in training mode also counts the labels where counts are wanted and were not told."""
        if self.training:
            for counted in self._counted():
                counted.observe(as_rows(features, labels, self.num_classes), synchronize=True)
        return self.loss(features, labels)

    def observe(self, features: Tensor, labels: Tensor, synchronize: bool = False) -> None:
        for counted in self._counted():
            counted.observe(as_rows(features, labels, self.num_classes, may_be_empty=synchronize), synchronize)

    def set_class_counts(self, counts: Tensor) -> None:
        for counted in self._counted():
            counted.set_counts(counts)

    def _counted(self) -> list[ClassWeights]:
        return [counted for counted in (self.class_weights, self.frequencies) if counted is not None]
