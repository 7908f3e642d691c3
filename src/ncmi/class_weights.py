"""Weights of the samples by class: given numbers, or balanced ones from the classes' counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ncmi.checks import check_targets
from ncmi.distributed import all_reduce_sum
from ncmi.running import Statistics


class ClassWeights(Statistics):
    """``weights [C]``, or balanced ones ``N/(C·n_c)``.

    Balanced weights come from counts told by :meth:`set_counts` or, without them, from the labels observed so far.

    Raises:
        ValueError: for another name than ``"balanced"``, or weights that are not C numbers ≥ 0.
    """

    weights: Tensor
    counts: Tensor
    counts_are_known: Tensor

    def __init__(self, num_classes: int, class_weights: str | Tensor | Sequence[float]) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.balanced = isinstance(class_weights, str)
        if isinstance(class_weights, str):
            if class_weights != "balanced":
                raise ValueError(f"unknown class_weights {class_weights!r}: use 'balanced', C numbers or None")
            self.register_buffer("counts", torch.zeros(num_classes))
            self.register_buffer("counts_are_known", torch.zeros((), dtype=torch.bool))
        else:
            weights = torch.as_tensor(class_weights, dtype=torch.get_default_dtype()).detach().clone()
            if weights.shape != (num_classes,) or not bool(
                (weights >= 0).all() & weights.any() & weights.isfinite().all()
            ):
                raise ValueError(f"class_weights must be {num_classes} numbers ≥ 0, one a class, not all 0")
            self.register_buffer("weights", weights)

    @torch.no_grad()
    def observe(self, labels: Tensor, synchronise: bool = False) -> None:
        """Count labels ``[B]`` or soft targets ``[B, C]``, with ``synchronise`` those of all processes."""
        if not self.balanced:
            return
        check_targets(labels, len(labels), self.num_classes)
        counts = torch.zeros_like(self.counts)
        if labels.is_floating_point():
            counts += labels.sum(0)
        else:
            counts.index_add_(0, labels.long(), torch.ones_like(labels, dtype=counts.dtype))
        if synchronise:
            all_reduce_sum(counts)
        self.counts += torch.where(self.counts_are_known, 0.0, counts)

    @torch.no_grad()
    def set_counts(self, counts: Tensor) -> None:
        """Tell how many training samples each class has, ``[C]``; observed labels do not matter thereafter."""
        if self.balanced:
            if counts.shape != (self.num_classes,):
                raise ValueError(
                    f"class counts {list(counts.shape)}: expected one for each of {self.num_classes} classes"
                )
            self.counts.copy_(counts)
            self.counts_are_known.fill_(True)

    def forward(self) -> Tensor:
        if not self.balanced:
            return self.weights
        return self.counts.sum().clamp_min(1) / (self.num_classes * self.counts.clamp_min(1))
