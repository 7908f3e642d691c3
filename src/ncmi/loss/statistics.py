"""Running statistics of training: the features' center, the classes' mean distributions, and weights by class.

Center and means gather sums and counts (``observe``) and use them once per optimizer step (``update``); all of it is in
the ``state_dict``, so a run that stops between the two goes on as if it had not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ncmi.loss.checks import check_targets
from ncmi.loss.distributed import all_reduce_sum
from ncmi.loss.forms import check_class_weights, check_range


@torch.library.custom_op("ncmi::snapshot", mutates_args=())
def _snapshot(state: Tensor) -> Tensor:
    return state.clone()


@_snapshot.register_fake
def _(state: Tensor) -> Tensor:
    return torch.empty_like(state)


def before_update(state: Tensor) -> Tensor:
    """The state as a loss may use it that is followed by an update in place.

    Compiled code may read a buffer again in the backward pass, after the update. It does not look into this copy.
    """
    copy: Tensor = _snapshot(state) if torch.compiler.is_compiling() else state
    return copy


class Statistics(nn.Module):
    """Sums, counts and averages over many batches: a cast to half precision leaves them in their own precision."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Statistics:
        def keep(value: Tensor) -> Tensor:
            moved = fn(value)
            return value.to(moved.device) if moved.dtype in (torch.float16, torch.bfloat16) else moved

        super()._apply(keep, recurse)  # type: ignore[no-untyped-call]
        return self


class RunningCenter(Statistics):
    """Center μ of the features, ``[D]``: a moving average, or the mean of the first batches, then constant.

    Args:
        dim: D.
        mode: ``"ema"``: starts at the first batch's mean, then keeps ``decay`` of the old value at each update.
            ``"frozen"``: mean of all samples of the first ``center_updates`` updates.
    """

    mean: Tensor
    sum: Tensor
    pending: Tensor
    samples: Tensor
    updates: Tensor

    def __init__(self, dim: int, mode: Literal["ema", "frozen"], *, decay: float, center_updates: int) -> None:
        super().__init__()
        self.mode, self.decay, self.center_updates = mode, decay, center_updates
        check_range(self, "decay", least=0, below=1, cure="e.g. 0.99")
        check_range(self, "center_updates", least=1)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("sum", torch.zeros(dim))
        self.register_buffer("pending", torch.zeros(()))
        self.register_buffer("samples", torch.zeros(()))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def observe(self, features: Tensor) -> None:
        """Add features ``[B, D]`` to the sum."""
        self.sum += features.sum(0).to(self.sum)
        self.pending += features.shape[0]

    @torch.no_grad()
    def update(self, synchronize: bool) -> None:
        """Move the center by what was observed since the last update; no samples, no move."""
        if synchronize:
            all_reduce_sum(self.sum, self.pending)
        # written without branches on values, so that nothing waits for the device and graphs do not break
        batch_mean = self.sum / self.pending.clamp_min(1)
        if self.mode == "ema":
            share = torch.where(self.updates == 0, torch.ones_like(self.samples), 1 - self.decay)
        else:
            share = self.pending / (self.samples + self.pending).clamp_min(1)
            share = torch.where(self.updates < self.center_updates, share, 0.0)
        share = torch.where(self.pending > 0, share, 0.0)
        self.mean.lerp_(batch_mean, share.to(self.mean))
        self.samples += self.pending
        self.updates += self.pending > 0
        self.sum.zero_()
        self.pending.zero_()


class CentroidMeans(Statistics):
    """Moving average of the classes' mean distributions, ``[C, D]``; a class that a batch lacks stays where it is.

    Args:
        initial: ``[C, D]``, the anchors' distributions.
        decay: share of the old value kept at each update.
    """

    means: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(self, initial: Tensor, *, decay: float) -> None:
        super().__init__()
        self.decay = decay
        check_range(self, "decay", least=0, below=1, cure="e.g. 0.99")
        self.register_buffer("means", initial)
        self.register_buffer("sums", torch.zeros_like(initial))
        self.register_buffer("counts", initial.new_zeros(len(initial)))

    @torch.no_grad()
    def observe(self, p: Tensor, labels: Tensor) -> None:
        """Add distributions ``p [B, D]`` with ``labels [B]``, or soft targets ``[B, C]``."""
        if labels.is_floating_point():
            targets = labels.to(self.sums)
            with torch.autocast(p.device.type, enabled=False):
                self.sums += targets.T @ p.to(self.sums)
            self.counts += targets.sum(0)
        else:
            labels = labels.long()
            self.sums.index_add_(0, labels, p.to(self.sums))
            self.counts.index_add_(0, labels, torch.ones_like(labels, dtype=self.counts.dtype))

    @torch.no_grad()
    def update(self, synchronize: bool) -> None:
        """Move the means of the classes observed since the last update."""
        if synchronize:
            all_reduce_sum(self.sums, self.counts)
        present = (self.counts > 0).unsqueeze(-1)
        batch_means = torch.where(present, self.sums / self.counts.clamp_min(1e-6).unsqueeze(-1), self.means)
        self.means.lerp_(batch_means, 1 - self.decay)
        self.sums.zero_()
        self.counts.zero_()


class ClassWeights(Statistics):
    """Weights of the samples by class: ``weights [C]``, or balanced ones ``N/(C·n_c)``.

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
        check_class_weights(class_weights)
        self.balanced = isinstance(class_weights, str)
        if isinstance(class_weights, str):
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
    def observe(self, labels: Tensor, synchronize: bool = False) -> None:
        """Count labels ``[B]`` or soft targets ``[B, C]``, with ``synchronize`` those of all processes."""
        if not self.balanced:
            return
        check_targets(labels, len(labels), self.num_classes)
        counts = torch.zeros_like(self.counts)
        if labels.is_floating_point():
            counts += labels.sum(0)
        else:
            counts.index_add_(0, labels.long(), torch.ones_like(labels, dtype=counts.dtype))
        if synchronize:
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
