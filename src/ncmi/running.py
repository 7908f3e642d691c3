"""Running statistics of training: the features' centre and the classes' mean distributions.

Both gather sums and counts (``observe``) and use them once per optimiser step (``update``); all of it is in the
``state_dict``, so a run that stops between the two goes on as if it had not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from ncmi.distributed import all_reduce_sum


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


class RunningCentre(Statistics):
    """Centre μ of the features, ``[D]``: a moving average, or the mean of the first batches, then constant.

    Args:
        dim: D.
        mode: ``"ema"``: starts at the first batch's mean, then keeps ``decay`` of the old value at each update.
            ``"frozen"``: mean of all samples of the first ``first_updates`` updates.
    """

    mean: Tensor
    sum: Tensor
    pending: Tensor
    samples: Tensor
    updates: Tensor

    def __init__(self, dim: int, mode: Literal["ema", "frozen"], *, decay: float, first_updates: int) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"centre_decay={decay}: a moving average keeps a share of at least 0 and below 1")
        if first_updates < 1:
            raise ValueError(f"centre_updates={first_updates}: a frozen centre needs at least 1 batch")
        self.mode = mode
        self.decay = decay
        self.first_updates = first_updates
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
    def update(self, synchronise: bool) -> None:
        """Move the centre by what was observed since the last update; no samples, no move."""
        if synchronise:
            all_reduce_sum(self.sum, self.pending)
        # written without branches on values, so that nothing waits for the device and graphs do not break
        batch_mean = self.sum / self.pending.clamp_min(1)
        if self.mode == "ema":
            share = torch.where(self.updates == 0, torch.ones_like(self.samples), 1 - self.decay)
        else:
            share = self.pending / (self.samples + self.pending).clamp_min(1)
            share = torch.where(self.updates < self.first_updates, share, 0.0)
        share = torch.where(self.pending > 0, share, 0.0)
        self.mean.lerp_(batch_mean, share.to(self.mean))
        self.samples += self.pending
        self.updates += self.pending > 0
        self.sum.zero_()
        self.pending.zero_()


class ClassMeans(Statistics):
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
        if not 0 <= decay < 1:
            raise ValueError(f"centroid_decay={decay}: a moving average keeps a share of at least 0 and below 1")
        self.decay = decay
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
    def update(self, synchronise: bool) -> None:
        """Move the means of the classes observed since the last update."""
        if synchronise:
            all_reduce_sum(self.sums, self.counts)
        present = (self.counts > 0).unsqueeze(-1)
        batch_means = torch.where(present, self.sums / self.counts.clamp_min(1e-6).unsqueeze(-1), self.means)
        self.means.lerp_(batch_means, 1 - self.decay)
        self.sums.zero_()
        self.counts.zero_()
