"""Cross-entropy, the loss that every other is compared with; with class weights or adjusted logits for long tails."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ncmi.loss.statistics import ClassWeights
from ncmi.objectives.interface import LinearHeadObjective, prepare
from ncmi.objectives.options import CrossEntropyOptions


def cross_entropy_loss(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean of ``−log p_y``, p the softmax of the logits; with class weights the weighted mean. A scalar in nats, ≥ 0.

    Args:
        logits, labels: ``[B, C]`` and ``[B]`` or soft ``[B, C]``; these and the errors: see :mod:`ncmi.objectives`.
        class_weights: ``[C]``, ≥ 0: ``Σ_b w_y (−log p_y) / Σ_b w_y``, as ``torch.nn.functional.cross_entropy`` has it
            for class indices; for soft targets both sums are over the labels' expectation.

    Example:
        >>> cross_entropy_loss(torch.zeros(1, 4), torch.tensor([2]))  # log 4
        tensor(1.3863)
    """
    logits, labels = prepare(logits, labels)
    if class_weights is None:
        return F.cross_entropy(logits, labels)
    if class_weights.shape != logits.shape[1:]:
        raise ValueError(f"class_weights {list(class_weights.shape)}: expected [{logits.shape[1]}], one for each class")
    weights = class_weights.to(logits)
    if not labels.is_floating_point():
        return F.cross_entropy(logits, labels, weight=weights)
    weighted = labels * weights
    return -(weighted * torch.log_softmax(logits, dim=-1)).sum() / weighted.sum()


class CrossEntropyObjective(LinearHeadObjective):
    """Cross-entropy on the logits of a linear head; see :func:`cross_entropy_loss`.

    Args:
        class_weights: ``None``; ``[C]`` weights; or ``"balanced"``, N/(C·n_c), from the counts of
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
        class_weights = self.options.class_weights
        # a weighted mean divides by the sum of the batch's own weights
        self.couples_samples = class_weights is not None
        self.class_weights = None if class_weights is None else ClassWeights(num_classes, class_weights)
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
                counted.observe(labels, synchronize=True)
        return self.loss(features, labels)

    def observe(self, features: Tensor, labels: Tensor) -> None:
        for counted in self._counted():
            counted.observe(labels)

    def set_class_counts(self, counts: Tensor) -> None:
        for counted in self._counted():
            counted.set_counts(counts)

    def _counted(self) -> list[ClassWeights]:
        return [counted for counted in (self.class_weights, self.frequencies) if counted is not None]
