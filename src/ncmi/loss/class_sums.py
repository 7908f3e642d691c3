"""What the separation with p = 1 needs of learned centroids, which is sums: in passes that keep nothing of size C×D.

They are looked at block by block, in the forward pass and once more in the backward pass, which writes their gradient.
For fixed ones the sums are constants, see :class:`ncmi.loss.divergence.CentroidView` and :mod:`ncmi.loss.signs`.

Centroids that are spread over processes need one message, in the forward pass: the D + 1 numbers of the sums, and the
labels' rows, each of which one process has, are added up over all. As all of them go on to compute the same loss of the
same batch, the gradient of what was added up is complete on each of them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ncmi.loss.autograd import differentiable_backward
from ncmi.loss.chunked import Reduce
from ncmi.loss.divergence import CentroidSums, CentroidView, centroid_sums
from ncmi.loss.forms import Direction
from ncmi.loss.likelihood import Map, SimplexRows, fits_float32, gradient_of_rows, rows_on_simplex
from ncmi.loss.simplex import log_ratio, logits_of

_BLOCK = 2**18  # elements worked on at a time: 1 MB in float32


class LearnedSums(CentroidView):
    """Learned centroids as p = 1 looks at them, for a batch's labels.

    Args:
        points: ``[C, D]``, parameters that the map takes to centroids.
        labels: ``[B]``.
        to: the map; its distribution is NSF, and its power of no account.
        direction: of the divergences from wrong centroids.
        num_classes: C.
        shard: for centroids that are spread over processes; ``points`` are then those of this process, and ``labels``
            of all classes.
    """

    def __init__(
        self, points: Tensor, labels: Tensor, to: Map, direction: Direction, num_classes: int, shard: Reduce | None
    ) -> None:
        held = fits_float32(to, points, None)
        batch = len(labels)
        if shard is not None:
            labels = labels - shard.first
            here = ((labels >= 0) & (labels < len(points))).nonzero().squeeze(1)
            labels = labels[here]
        gap, side_sum, rows = _LearnedSums.apply(points, labels, to, direction, held)  # type: ignore[no-untyped-call]
        gap_sum, own = gap.sum(), gap.index_select(0, labels)
        if shard is not None:
            both = torch.cat((rows, own.unsqueeze(1)), dim=1)
            both = both.new_zeros(batch, both.shape[1]).index_copy(0, here, both)
            parts = torch.cat((both.flatten(), side_sum, gap_sum.unsqueeze(0)))
            whole = _SumOverProcesses.apply(parts, shard.add)  # type: ignore[no-untyped-call]
            both, side_sum, gap_sum = whole.split((both.numel(), len(side_sum), 1))
            rows, own = both.view(batch, -1).split((points.shape[1], 1), dim=1)
            gap_sum, own = gap_sum.squeeze(0), own.squeeze(1)
        super().__init__(rows, direction)
        self._sums, self._own_gaps, self._num_classes = CentroidSums(gap, gap_sum, side_sum), own, num_classes

    @property
    def num_classes(self) -> int:
        return self._num_classes

    def own_rows(self, labels: Tensor) -> Tensor:
        return self.beta

    def own_gaps(self, labels: Tensor) -> Tensor:
        gaps: Tensor = self._own_gaps
        return gaps


class _SumOverProcesses(torch.autograd.Function):
    """A tensor summed over processes that all go on to compute the same of it, whose gradient is complete on each."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, add: Callable[[Tensor], None]) -> Tensor:
        whole = parts.clone()
        add(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _blocks(
    points: Tensor, to: Map, direction: Direction, held: bool
) -> Iterator[tuple[slice, Tensor, SimplexRows, Tensor]]:
    """Some rows at a time: place, rows, their distributions, and D times the divergence from uniform, ``[n, 1]``."""
    step = max(1, _BLOCK // points.shape[1])
    for start in range(0, len(points), step):
        place = slice(start, min(start + step, len(points)))
        x = points[place]
        if direction == "centroid_to_sample":
            rows, gap = rows_on_simplex(x, None, to, held=held)
        else:
            rows, opposite = rows_on_simplex(x[:0], x, to, held=held)
            gap = opposite.neg_()
        yield place, x, rows, gap


class _LearnedSums(torch.autograd.Function):
    """Gap and side_sum of :class:`CentroidSums`, and the labels' rows of β."""

    @staticmethod
    def forward(
        ctx: Any, points: Tensor, labels: Tensor, to: Map, direction: Direction, held: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        gap, side_sum = points.new_empty(len(points)), points.new_zeros(points.shape[1])
        for place, _, rows, of_block in _blocks(points, to, direction, held):
            gap[place] = of_block.squeeze(1)
            side_sum += (rows.excess if direction == "centroid_to_sample" else rows.alpha).sum(0)
        ctx.save_for_backward(points, labels)
        ctx.to, ctx.direction, ctx.held = to, direction, held
        own = rows_on_simplex(points.index_select(0, labels), None, to, held=held)[0].alpha
        return gap.div_(points.shape[1]), side_sum, own

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        points, labels = ctx.saved_tensors
        to, direction = ctx.to, ctx.direction
        if torch.is_grad_enabled():
            inputs = (points, labels, to, direction)
            return *differentiable_backward(_plain, inputs, ctx.needs_input_grad[:4], gradients), None
        by_gap, by_side, by_own = gradients
        by_gap = (by_gap / points.shape[1]).unsqueeze(-1)
        by_points = torch.empty_like(points)
        order = labels.sort()
        starts = torch.arange(0, len(points) + 1, max(1, _BLOCK // points.shape[1]), device=labels.device)
        ends = [*torch.searchsorted(order.values, starts).tolist(), len(labels)]
        for number, (place, x, rows, _) in enumerate(_blocks(points, to, direction, ctx.held)):
            beta, excess = rows.alpha, rows.excess
            if direction == "centroid_to_sample":
                ratio = excess.add_(1)
                out = torch.addcmul(by_side, beta, by_gap[place], out=beta).mul_(ratio)
            else:
                out = torch.addcmul(by_side, excess, by_gap[place], out=beta)
                ratio = excess.add_(1)
            here = order.indices[ends[number] : ends[number + 1]]
            if len(here):
                out.index_add_(0, labels[here] - place.start, by_own[here])
            # β is a log-distribution: through its normalization
            out.addcmul_(ratio, out.mean(-1, keepdim=True), value=-1)
            by_points[place] = gradient_of_rows(out, x, None, rows, to)
        return by_points, None, None, None, None


def _plain(points: Tensor, labels: Tensor, to: Map, direction: Direction) -> tuple[Tensor, Tensor, Tensor]:
    beta = log_ratio(logits_of(points, to.temperature, to.length), "nsf")
    sums = centroid_sums(beta, direction)
    return sums.gap, sums.side_sum, beta.index_select(0, labels)
