"""The likelihood form for many classes: its value and gradient over chunks of centroids, without a B×C table.

What :mod:`ncmi.loss.likelihood` computes of all centroids at once is a sum over the wrong classes,

    log W = log Σ_{c≠y} KL(P‖Q_c)^p,    −log π_y = log(1 + e^margin),    margin = log W − p·log KL(P‖Q_y)

and goes chunk by chunk; the own class stands apart and is exact. The backward pass computes a chunk's divergences once
more, its weights ``(1 − π_y)·KL^(p−1)/W``, and writes the chunk's rows of the centroids' gradient. So a step keeps a
few B×D and a few B, and has four products of B×C×D where the unchunked form has three.

As there, an entry that is the small difference of large terms is computed once more without cancellation, the nearest
of each row, and where rounding is all that is known of several of a row's entries those are made equal.

**What is left out.** Sharp likelihoods have weights that are nothing beside the others. The backward pass leaves out
whole samples and whole centroids, the lightest first, for as long as all that is left out is together no more than a
share ``negligible`` of the weight of the batch, by default the rounding of one number. The weight of samples is known
by then; that of centroids is bounded in the forward pass. So the sum of what is missing is bounded, not each term.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ncmi.loss.autograd import by_hand, differentiable_backward, full_products
from ncmi.loss.divergence import ROUNDED, concentration_terms, least_exact, rounding_of
from ncmi.loss.likelihood import (
    CLOSE,
    Map,
    SimplexRows,
    fits_float32,
    gradient_of_rows,
    is_looked_at,
    plain_scores,
    plain_surprisal,
    rows_on_simplex,
)

WORTH = 2**22  # entries of a B×C table from which chunks are faster, and take less memory
_TABLE = 2**19  # entries of a chunk's tables, B×k and k×D: a few MB
_LOG2_E = math.log2(math.e)


class ClassSample(NamedTuple):
    """Some of the classes.

    Attributes:
        classes: their numbers, ``[k]``; first those of the labels.
        labels: places of the labels in it, ``[B]``.
        offset: logarithm of how many classes each stands for, ``[k]``.
    """

    classes: Tensor
    labels: Tensor
    offset: Tensor


def sample_classes(labels: Tensor, num_classes: int, count: int) -> ClassSample:
    """The classes of ``labels [B]``, and at most ``count`` of the others, drawn from torch's generator.

    The expectation of the sum over the sample's wrong classes, each times what it stands for, is that over all.

    Source: An et al. 2021, Partial FC (arXiv 2010.05222), who do not weigh.
    """
    positive, places = labels.unique(return_inverse=True)
    others = num_classes - len(positive)
    drawn = torch.randint(others, (count,), device=labels.device) if count < others else torch.arange(others)
    drawn = drawn.to(labels.device).unique()
    # the drawn numbers count the classes that are not among the labels
    gaps = positive - torch.arange(len(positive), device=labels.device)
    drawn = drawn + torch.searchsorted(gaps, drawn, right=True)
    offset = torch.zeros(len(positive) + len(drawn), device=labels.device)
    offset[len(positive) :] = math.log(others / max(1, len(drawn)))
    return ClassSample(torch.cat((positive, drawn)), places, offset)


class Skips(NamedTuple):
    """What the last backward pass left out.

    Attributes:
        samples, centroids: how many, ``of_samples`` and ``of_centroids`` there were.
        share: bound on their part of the batch's weight.
    """

    samples: int
    of_samples: int
    centroids: int
    of_centroids: int
    share: float


class Reduce(NamedTuple):
    """Where centroids are spread over processes: the number of the first one here, and how parts come together.

    Attributes:
        first: class of the first centroid of this process.
        world: number of processes.
        add: sums a tensor over all processes, in place.
        gather: stacks a tensor of all processes, ``[...] → [world, ...]``.
    """

    first: int
    world: int
    add: Callable[[Tensor], None]
    gather: Callable[[Tensor], Tensor]


class ChunkPlan(NamedTuple):
    """How a loss is computed in chunks.

    Attributes:
        size: centroids in a chunk.
        negligible: share of the weight that gradients may do without; None for the rounding of their dtype, 0 for none.
        smooth: whether the surprisal of all classes is wanted too.
        report: told what was left out.
        shard: for centroids that are spread over processes.
    """

    size: int
    negligible: float | None = None
    smooth: bool = False
    report: Callable[[Skips], None] | None = None
    shard: Reduce | None = None


def chunk_size(samples: int, width: int) -> int:
    """Centroids in a chunk whose tables take a few MB."""
    return max(64, _TABLE // max(samples, width))


def chunked_surprisal(
    features: Tensor,
    directions: Tensor | None,
    beta: Tensor | None,
    labels: Tensor,
    to: Map,
    plan: ChunkPlan,
    *,
    weight: Tensor | None = None,
    offset: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """``−log π_y``, ``[B]``, and for smoothed labels ``(1/C) Σ_c w_c·(−log π_c)``, ``[B]``, in nats.

    Args:
        features: ``[B, D]``, centered, float32 or float64; divided by a length here.
        directions: ``[C, D]``, of centroids that are as features are; or None, and then
        beta: ``[C, D]``, ``log(D·Q)`` of any centroids.
        labels: ``[B]`` int64, in range; with ``plan.shard`` of all classes, not of those of this process.
        to: the map; its distribution is NSF.
        plan: how.
        weight: w, ``[C]``, of the classes; 1 by default.
        offset: ``[C]``, added to the logits of wrong classes: the logarithm of how many classes each stands for.
    """
    held = fits_float32(to, features, directions)
    offset = None if offset is None else offset.to(features.dtype)
    surprisal, uniform = _Chunked.apply(features, directions, beta, labels, weight, offset, to, plan, held)  # type: ignore[no-untyped-call]
    return surprisal, uniform


def can_chunk(to: Map, *tensors: Tensor | None) -> bool:
    """Whether these tensors can be worked on in chunks: eager, nothing looks inside, and the distribution is NSF."""
    return to.kind == "nsf" and by_hand(*tensors)


class _Chunk(NamedTuple):
    """Some of the centroids.

    Attributes:
        place: their numbers, a slice or ``[k]`` in rising order.
        points: ``[k, D]``, or None where β is given.
        rows: how they come from points.
        beta, above, gap: ``log(D·Q)``, ``D·Q − 1``, both ``[k, D]``, and ``D·KL(U‖Q)``, ``[k]``.
    """

    place: slice | Tensor
    points: Tensor | None
    rows: SimplexRows | None
    beta: Tensor
    above: Tensor
    gap: Tensor

    def find(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Which of ``classes [n]`` are here, and where."""
        if isinstance(self.place, slice):
            here = ((classes >= self.place.start) & (classes < self.place.stop)).nonzero().squeeze(1)
            return here, classes[here] - self.place.start
        column = torch.searchsorted(self.place, classes).clamp_max_(len(self.place) - 1)
        here = (self.place[column] == classes).nonzero().squeeze(1)
        return here, column[here]

    def of(self, x: Tensor) -> Tensor:
        """The part of a tensor ``[C, ...]``."""
        part: Tensor = x[self.place]
        return part


class _Centroids(NamedTuple):
    points: Tensor | None
    beta: Tensor | None
    to: Map
    held: bool

    @property
    def table(self) -> Tensor:
        table = self.beta if self.points is None else self.points
        assert table is not None
        return table

    def chunk(self, place: slice | Tensor) -> _Chunk:
        points = self.table[place]
        if self.points is None:
            above = torch.expm1(points)
            return _Chunk(place, None, None, points, above, (above - points).sum(-1))
        rows, curve = rows_on_simplex(points[:0], points, self.to, held=self.held)
        return _Chunk(place, points, rows, rows.alpha, rows.excess, curve.view(-1).neg())

    def chunks(self, size: int, wanted: Tensor | None = None) -> Iterator[_Chunk]:
        """All centroids, or those of the numbers ``wanted``, some at a time."""
        if wanted is not None:
            yield from (self.chunk(part) for part in wanted.split(size) if len(part))
            return
        for start in range(0, len(self.table), size):
            yield self.chunk(slice(start, min(start + size, len(self.table))))


class _Samples(NamedTuple):
    """Samples as points of the simplex; ``curve`` is ``D·KL(P‖U)``, ``[B, 1]``, ``limit`` what of it is rounding."""

    rows: SimplexRows
    curve: Tensor
    limit: Tensor

    @classmethod
    def of(cls, features: Tensor, to: Map, held: bool) -> "_Samples":
        rows, curve = rows_on_simplex(features, None, to, held=held)
        # where a divergence is as small as its rounding the centroid is P, and P tells how large its terms are
        apart = curve.squeeze(1) + (rows.excess - rows.alpha).sum(-1)
        return cls(rows, curve, rounding_of(apart) * ROUNDED)

    def distance(self, beta: Tensor) -> tuple[Tensor, Tensor]:
        """``D·KL(P‖Q)`` from a centroid each, ``[B]``, without cancellation; and δ, ``[B, D]``."""
        return concentration_terms(self.rows.alpha, beta).sum(-1), beta - self.rows.alpha

    def rounded(self, beta: Tensor) -> Tensor:
        """The same, ``[B]``, as the difference that the table has."""
        gap = (torch.expm1(beta) - beta).sum(-1)
        divergence: Tensor = gap + self.curve.squeeze(1) - torch.linalg.vecdot(self.rows.excess, beta)
        return divergence


def _divergences(excess: Tensor, curve: Tensor, chunk: _Chunk) -> Tensor:
    """``D·KL(P‖Q_c)``, ``[n, k]``."""
    return torch.addmm(chunk.gap, excess, chunk.beta.T, alpha=-1).add_(curve)


def _any(mask: Tensor) -> bool:
    """Whether any of it is true; so taken to be where a look would wait for the device."""
    return not is_looked_at(mask) or bool(mask.any())


class _Wrong:
    """``log W`` of each row, as chunks come; the nearest centroid is kept out until it can be computed exactly."""

    def __init__(self, samples: _Samples, power: float, own_logit: Tensor, offset: Tensor | None) -> None:
        self.samples, self.power, self.own_logit, self.offset = samples, power, own_logit, offset
        self.log_sum = torch.full_like(own_logit, -math.inf)
        self.near = torch.full_like(own_logit, math.inf)
        self.nearest = torch.zeros_like(own_logit, dtype=torch.int64)
        self.count = torch.zeros_like(self.nearest)
        self.most = math.log(torch.finfo(own_logit.dtype).max)

    def logit(self, divergence: Tensor, column: Tensor) -> Tensor:
        """Of a divergence of each row from centroid ``column [B]``."""
        logit = divergence.log() * self.power
        return logit if self.offset is None else logit + self.offset[column]

    def add(self, chunk: _Chunk, labels: Tensor, value: Tensor) -> Tensor:
        """Take in divergences ``[B, k]``, which are overwritten; returns each centroid's share of all so far, ``[k]``.

        The share is a bound on what it is of all classes; that of the nearest centroids is not in it.
        """
        value[chunk.find(labels)] = math.inf
        least = value.amin(1)
        curve = self.samples.curve.squeeze(1)
        # also where it is not a number
        if _any(~(least > (chunk.gap.amax() + curve) * CLOSE)):
            least = self._keep_nearest_out(chunk, value)
        largest = least.log().clamp_max_(self.most) * self.power
        logits = value.log_()
        if self.offset is not None:
            offset = chunk.of(self.offset)
            logits.mul_(self.power).add_(offset)
            largest += offset.amax()
            share = logits.sub_(largest.unsqueeze(1)).exp_()
        else:
            scaled = (largest * -_LOG2_E).unsqueeze(1)
            share = torch.add(scaled, logits, alpha=self.power * _LOG2_E, out=logits).exp2_()
        self.log_sum = torch.logaddexp(self.log_sum, largest + share.sum(1).log())
        part: Tensor = (largest - torch.logaddexp(self.log_sum, self.own_logit)).exp_() @ share
        return part

    def _keep_nearest_out(self, chunk: _Chunk, value: Tensor) -> Tensor:
        limit = self.samples.limit
        self.count += (value <= limit.unsqueeze(1)).sum(1)
        least, column = value.min(1, keepdim=True)
        value.scatter_(1, column, math.inf)
        assert isinstance(chunk.place, slice)
        least, column = least.squeeze(1), column.squeeze(1) + chunk.place.start
        nearer = ~(least >= self.near)
        # that which is nearest no more
        back = torch.maximum(torch.where(nearer, self.near, least), limit)
        self.log_sum = torch.logaddexp(self.log_sum, self.logit(back, torch.where(nearer, self.nearest, column)))
        self.nearest = torch.where(nearer, column, self.nearest)
        self.near = torch.where(nearer, least, self.near)
        torch.maximum(value, limit.unsqueeze(1), out=value)
        return value.amin(1)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        directions: Tensor | None,
        beta: Tensor | None,
        labels: Tensor,
        weight: Tensor | None,
        offset: Tensor | None,
        to: Map,
        plan: ChunkPlan,
        held: bool,
    ) -> tuple[Tensor, Tensor | None]:
        samples, centroids = _Samples.of(features, to, held), _Centroids(directions, beta, to, held)
        label = labels if plan.shard is None else labels - plan.shard.first
        here = (label >= 0) & (label < len(centroids.table))
        own, rounded = features.new_zeros(2, len(features))
        if _any(here):
            of_own = centroids.chunk(label.masked_fill(~here, 0)).beta
            own, _ = samples.distance(of_own)
            rounded = samples.rounded(of_own)
            own, rounded = own.masked_fill(~here, 0.0), rounded.masked_fill(~here, 0.0)
        if plan.shard is not None:
            both = torch.stack((own, rounded))
            plan.shard.add(both)
            own, rounded = both
        floor = least_exact(own)
        own = own.clamp_min(floor)
        wrong = _Wrong(samples, to.power, own.log() * to.power, offset)
        bound = features.new_empty(len(centroids.table))
        logit_sum = torch.zeros_like(own) if plan.smooth else None
        with full_products(features):
            for chunk in centroids.chunks(plan.size):
                value = _divergences(samples.rows.excess, samples.curve, chunk)
                if logit_sum is not None:
                    logit_sum += _log_sum(value, samples, chunk, label, weight) * to.power
                bound[chunk.place] = wrong.add(chunk, label, value)
        # the nearest of this process; and who is close by several
        kept = wrong.near < math.inf
        near = wrong.near
        if _any(kept):
            near, _ = samples.distance(centroids.chunk(wrong.nearest).beta)
        count = wrong.count
        if plan.shard is not None:
            count = count.to(own.dtype)
            plan.shard.add(count)
        crowded = count + (own <= samples.limit) >= 2
        near = torch.where(crowded, torch.maximum(wrong.near, samples.limit), near.clamp_min(floor))
        # what has been raised does not follow its input
        free = torch.stack((~(crowded & (rounded <= samples.limit)) & (own > floor), near > floor, kept))
        free[1] &= ~(crowded & (wrong.near <= samples.limit)) & kept
        near, nearest = near.masked_fill(~kept, math.inf), wrong.nearest.masked_fill(~kept, -1)
        own = torch.where(crowded, torch.maximum(rounded, samples.limit), own)
        log_wrong = torch.logaddexp(wrong.log_sum, wrong.logit(near, wrong.nearest))
        if plan.shard is not None:
            log_wrong = plan.shard.gather(log_wrong).logsumexp(0)
        own_logit = own.log() * to.power
        margin = log_wrong - own_logit
        # log(1 + e^margin); torch leaves out the 1 from its threshold on
        surprisal = F.softplus(margin, threshold=40.0)
        uniform = None
        if logit_sum is not None:
            total = len(centroids.table) if weight is None else weight.sum()
            logit_sum += own_logit * (1 if weight is None else weight[label])
            uniform = (total * (own_logit + surprisal) - logit_sum) / len(centroids.table)
        saved = (own, near, nearest, own_logit + surprisal, margin, free[:2], bound)
        ctx.save_for_backward(features, directions, beta, labels, weight, offset, *saved)
        ctx.to, ctx.plan, ctx.held = to, plan, held
        return surprisal, uniform

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, directions, beta, labels, weight, offset, *_ = ctx.saved_tensors
        needed = ctx.needs_input_grad
        if torch.is_grad_enabled():
            if offset is not None or ctx.plan.shard is not None:
                raise RuntimeError(
                    "gradients of gradients of sampled or sharded classes are not supported: leave out create_graph, "
                    "or use all classes on one process"
                )
            inputs = (features, directions, beta, labels, weight, ctx.to)
            outputs = _plain if ctx.plan.smooth else _plain_alone
            outer = gradients if ctx.plan.smooth else gradients[:1]
            of_inputs = differentiable_backward(outputs, inputs, (*needed[:3], False, False, False), outer)
            return *of_inputs[:3], None, None, None, None, None, None
        return *_gradients(ctx, *gradients), None, None, None, None, None, None


def _log_sum(value: Tensor, samples: _Samples, chunk: _Chunk, label: Tensor, weight: Tensor | None) -> Tensor:
    """``Σ_{c≠y} w_c·log(D·KL_c)`` over a chunk, ``[B]``."""
    logs = torch.maximum(value, samples.limit.unsqueeze(1) / ROUNDED).log_()
    logs[chunk.find(label)] = 0.0
    return logs.sum(1) if weight is None else logs @ chunk.of(weight)


def _plain(
    features: Tensor, directions: Tensor | None, beta: Tensor | None, labels: Tensor, weight: Tensor | None, to: Map
) -> tuple[Tensor, Tensor]:
    scores = plain_scores(features, directions, beta, to)
    return plain_surprisal(features, directions, beta, labels, to), -(
        scores if weight is None else scores * weight
    ).mean(1)


def _plain_alone(
    features: Tensor, directions: Tensor | None, beta: Tensor | None, labels: Tensor, weight: Tensor | None, to: Map
) -> Tensor:
    return plain_surprisal(features, directions, beta, labels, to)


def _gradients(ctx: Any, by_surprisal: Tensor, by_uniform: Tensor | None) -> tuple[Tensor | None, ...]:
    """By features, directions and β."""
    features, directions, beta, labels, weight, offset, own, near, nearest, log_total, margin, free, bound = (
        ctx.saved_tensors
    )
    to, plan = ctx.to, ctx.plan
    power, by_centroids = to.power, None
    samples, centroids = _Samples.of(features, to, ctx.held), _Centroids(directions, beta, to, ctx.held)
    label = labels if plan.shard is None else labels - plan.shard.first
    missing = torch.sigmoid(margin)
    # the gradient by a logit is that of its likelihood π, times "likely", less what is wanted of it
    likely, wanted = by_surprisal, None
    if by_uniform is not None:
        count = len(centroids.table)
        likely = by_surprisal + by_uniform * (1.0 if weight is None else weight.sum() / count)
        wanted = by_uniform / count

    def of_exact(value: Tensor, logit: Tensor, classes: Tensor, is_own: bool) -> Tensor:
        """Weight of exact divergences, ``[B]``, over p."""
        share = -by_surprisal * missing if is_own else likely * (logit - log_total).exp()
        if wanted is not None:
            extra = likely - by_surprisal if is_own else torch.zeros_like(likely)
            share = share + extra * (logit - log_total).exp()
            share = share - wanted * (1.0 if weight is None else weight[classes.clamp_min(0)])
        return share / value

    near_logit = near.log() * power
    if offset is not None:
        near_logit = near_logit + offset[nearest.clamp_min(0)]
    of_own = of_exact(own, own.log() * power, label, True).masked_fill(~free[0], 0.0)
    of_near = of_exact(near, near_logit, nearest, False).masked_fill(~free[1], 0.0)
    here = (label >= 0) & (label < len(centroids.table))
    of_own = of_own.masked_fill(~here, 0.0)

    row, wanted_classes = _worth_it(ctx, by_surprisal, by_uniform, missing, label, nearest, bound)
    alpha, excess, curve, limit = samples.rows.alpha, samples.rows.excess, samples.curve, samples.limit
    each: tuple[Tensor, ...] = (label, nearest, likely, log_total, of_own, of_near)
    if row is not None:
        alpha, excess, curve, limit = (x[row] for x in (alpha, excess, curve, limit))
        each = tuple(x[row] for x in each)
        wanted = None if wanted is None else wanted[row]
    label, nearest, likely, log_total, of_own, of_near = each
    signed = excess * likely.unsqueeze(1) if wanted is None else excess
    scale = likely if wanted is None else torch.ones_like(likely)
    # what is exact is not over the factor that all others have
    factor = torch.where(scale == 0, 1.0, scale)
    any_near = _any(nearest >= 0)
    by_alpha, total = torch.zeros_like(alpha), torch.zeros_like(likely)
    if any(ctx.needs_input_grad[1:3]):
        by_centroids = torch.zeros_like(centroids.table)
    with full_products(features):
        for chunk in centroids.chunks(plan.size, wanted_classes):
            value = _divergences(excess, curve, chunk)
            own_place, near_place = chunk.find(label), chunk.find(nearest)
            value[own_place] = math.inf
            if any_near:
                value[near_place] = math.inf
                value.masked_fill_(value <= limit.unsqueeze(1), math.inf)
            added = None if offset is None else chunk.of(offset)
            if wanted is None:
                shift = (log_total * -_LOG2_E).unsqueeze(1)
                slope = torch.add(shift, value.log_(), alpha=(power - 1) * _LOG2_E, out=value)
                slope = (slope if added is None else slope.add_(added * _LOG2_E)).exp2_()
            else:
                share = (value.log() * power - log_total.unsqueeze(1)).exp_().mul_(likely.unsqueeze(1))
                target = wanted.unsqueeze(1)
                slope = share.sub_(target if weight is None else target * chunk.of(weight)).div_(value)
            if ctx.needs_input_grad[0]:
                by_alpha.addmm_(slope, chunk.beta, alpha=-1)
                total += slope.sum(1)
            if by_centroids is not None:
                for place, exact in ((own_place, of_own), (near_place, of_near)):
                    slope[place] += exact[place[0]] / factor[place[0]]
                by_beta = (chunk.above * (scale @ slope).unsqueeze(1)).addmm_(slope.T, signed, alpha=-1)
                if chunk.points is not None and chunk.rows is not None:
                    by_beta = gradient_of_rows(by_beta.mul_(power), chunk.points, None, chunk.rows, to)
                    by_centroids[chunk.place] = by_beta
                else:
                    by_centroids[chunk.place] = by_beta.mul_(power)
        by_features = None
        if ctx.needs_input_grad[0]:
            by_alpha.addcmul_(alpha, total.unsqueeze(1)).mul_(scale.unsqueeze(1))
            for classes, exact in ((label, of_own), (nearest, of_near)):
                if _any(exact != 0):
                    points = centroids.chunk(classes.clamp(0, len(centroids.table) - 1)).beta
                    by_alpha.addcmul_(points.sub_(alpha), exact.unsqueeze(1), value=-1)
            by_alpha.mul_(excess + 1).mul_(power)
            if row is not None:
                by_alpha = torch.zeros_like(features).index_copy_(0, row, by_alpha)
            if plan.shard is not None:
                plan.shard.add(by_alpha)
            by_features = gradient_of_rows(by_alpha, features, None, samples.rows, to)
    return (by_features, *((by_centroids, None) if directions is not None else (None, by_centroids)))


def _worth_it(
    ctx: Any,
    by_surprisal: Tensor,
    by_uniform: Tensor | None,
    missing: Tensor,
    label: Tensor,
    nearest: Tensor,
    bound: Tensor,
) -> tuple[Tensor | None, Tensor | None]:
    """Numbers of the samples and of the centroids whose weight counts, or None for all of them."""
    plan = ctx.plan
    share = torch.finfo(missing.dtype).eps if plan.negligible is None else plan.negligible
    rows, classes, left_out = None, None, 0.0
    if share > 0 and by_uniform is None:
        mass = by_surprisal.abs() * missing
        total = mass.sum()
        rows, of_rows = _heaviest(mass, total * share / 2)
        largest = by_surprisal.abs().amax().clamp_min(torch.finfo(mass.dtype).tiny)
        bound = bound / 1.0
        for column in (label, nearest) if rows is None else (label[rows], nearest[rows]):
            bound[column[(column >= 0) & (column < len(bound))]] = math.inf
        processes = 1 if plan.shard is None else plan.shard.world
        classes, of_classes = _heaviest(bound, total * share / (2 * largest * processes))
        left_out = float((of_rows + of_classes * largest) / total) if float(total) > 0 else 0.0
    if plan.report is not None:
        counts = [
            (0 if kept is None else count - len(kept), count)
            for kept, count in ((rows, len(missing)), (classes, len(bound)))
        ]
        plan.report(Skips(*counts[0], *counts[1], left_out))
    return rows, classes


def _heaviest(mass: Tensor, budget: Tensor) -> tuple[Tensor | None, Tensor]:
    """Numbers, in rising order, of all but the lightest whose sum is within a budget, and that sum.

    None for all, where so few are light that to leave them out would save nothing.
    """
    order = mass.sort()
    sums = order.values.cumsum(0)
    light = int((sums <= budget).sum())
    if light < max(1, len(mass) // 8):
        return None, budget.new_zeros(())
    return order.indices[light:].sort().values, sums[light - 1]
