"""The likelihood ``π_c ∝ KL(P‖Q_c)^p``, p < 0: its logarithm as scores, and as a loss; the default form.

It is the softmax of the logits ``p·log KL(P‖Q_c)``. Divergences of all pairs come from one matrix product, as in
:func:`ncmi.loss.divergence.pairwise_divergence`, whose rounding is that of ``KL(·‖U)``. Where training makes a
divergence much smaller than that, from the sample's own class, or where a sample lies close by a wrong centroid, the
entry is computed once more, term by term, without cancellation; and the loss has ``1 − π_y`` from the wrong classes.

Everything is there twice. :func:`plain_surprisal` and :func:`plain_scores` are ordinary operations: for compilers,
export, ``torch.func``, and for derivatives of derivatives. :class:`_Surprisal` and :class:`_Scores` go from features
and directions straight to the result, with the gradient by hand, over blocks of rows that stay in the cache.

Divergences are times D here: with ``r = D·P``, ``e = r − 1``, ``α = log r`` and the same of the centroids, q and β,

    D·KL(P‖Q_c) = Σ_i (e^β_c − 1 − β_c) + Σ_i r α − e  −  Σ_i β_c e       one matrix product, or exactly
                = Σ_i r (e^δ − 1 − δ),  δ = β_c − α

and by the logits of P, since ``Σ_c w_c KL_c`` is 0 for the gradients w of a softmax, ``(1 − σ) r Σ_c w_c (α − β_c)``.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ncmi.loss.autograd import by_hand, differentiable_backward, full_products
from ncmi.loss.divergence import rounding_of
from ncmi.loss.forms import Distribution
from ncmi.loss.simplex import length, log_ratio

STEEPEST = 60.0  # logits within ± this have a sigmoid that float32 holds, with room for ratios
_COLD = 0.25  # temperature below which 1 − σ is not to be had by subtraction
_CLOSE = 1 / 64  # share of KL(Q‖U) below which a divergence from a wrong centroid is computed once more
_ROUNDED = 64  # a divergence of so many rounding errors is one
_BLOCK = 2**15  # elements worked on at a time: 128 KB in float32, in the cache of a core
_JOINED = 2**16  # features and directions with fewer elements are worked on together


class Map(NamedTuple):
    """From features to distributions, and from there to likelihoods.

    Attributes:
        temperature, kind: of the distribution.
        power: p < 0.
    """

    temperature: float
    kind: Distribution
    power: float


# In ordinary operations


def plain_surprisal(
    features: Tensor, directions: Tensor | None, beta: Tensor | None, labels: Tensor, to: Map
) -> Tensor:
    """``−log π_y``, ``[B]``; see :func:`likelihood_surprisal`."""
    alpha, beta = _ratios(features, directions, beta, to)
    return surprisal_of_ratios(alpha, beta, labels, to.power)


def plain_scores(features: Tensor, directions: Tensor | None, beta: Tensor | None, to: Map) -> Tensor:
    """``log π_c``, ``[B, C]``; see :func:`likelihood_scores`."""
    return scores_of_ratios(*_ratios(features, directions, beta, to), to.power)


def _ratios(features: Tensor, directions: Tensor | None, beta: Tensor | None, to: Map) -> tuple[Tensor, Tensor]:
    alpha, betas = (
        None if x is None else log_ratio(x / (length(x) * to.temperature), to.kind) for x in (features, directions)
    )
    if beta is None:
        beta = betas
    assert alpha is not None
    assert beta is not None
    return alpha, beta


def surprisal_of_ratios(alpha: Tensor, beta: Tensor, labels: Tensor, power: float) -> Tensor:
    """``−log π_y``, ``[B]``, of ``α = log(D·P)`` ``[B, D]`` and ``β = log(D·Q)`` ``[C, D]``."""
    label = labels.unsqueeze(-1)
    table, apart = _table(alpha, beta)
    rounding = rounding_of(apart)
    wrong = table.scatter(1, label, math.inf)
    nearest = wrong.detach().argmin(1, keepdim=True)
    floor = _floor(alpha)
    own, near = (_exactly(alpha, beta.index_select(0, x.squeeze(1))).clamp_min(floor) for x in (label, nearest))
    limit = rounding * _ROUNDED
    crowded = ((wrong <= limit).sum(1, keepdim=True) + (own <= limit)) >= 2
    own = torch.where(crowded, torch.maximum(table.gather(1, label), rounding), own)
    near = torch.where(crowded, torch.maximum(wrong.gather(1, nearest), rounding), near)
    log_own = own.log()
    logits = torch.maximum(wrong, rounding).scatter(1, nearest, near).log() * power
    # 1 − π_y from the wrong classes, not by subtraction from 1
    total = logits.masked_fill(_one_hot(label, beta), -math.inf).logsumexp(1, keepdim=True)
    return -F.logsigmoid(log_own * power - total).squeeze(1)


def scores_of_ratios(alpha: Tensor, beta: Tensor, power: float) -> Tensor:
    """``log π_c``, ``[B, C]``, of ``α = log(D·P)`` ``[B, D]`` and ``β = log(D·Q)`` ``[C, D]``."""
    table, apart = _table(alpha, beta)
    rounding = rounding_of(apart)
    nearest = table.detach().argmin(1, keepdim=True)
    near = _exactly(alpha, beta.index_select(0, nearest.squeeze(1))).clamp_min(_floor(alpha))
    crowded = (table <= rounding * _ROUNDED).sum(1, keepdim=True) >= 2
    table = torch.maximum(table, rounding)
    table = torch.where(crowded, table, table.scatter(1, nearest, near))
    return torch.log_softmax(table.log() * power, dim=-1)


def _table(alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """``D·KL(P‖Q_c)``, ``[B, C]``, and the largest of the terms that each row is the difference of, ``[B, 1]``."""
    excess = torch.expm1(alpha)
    gap = (torch.expm1(beta) - beta).sum(-1)
    from_uniform = (torch.linalg.vecdot(alpha, excess) + (alpha - excess).sum(-1)).unsqueeze(-1)
    with full_products(alpha):
        return gap + from_uniform - excess @ beta.T, gap.detach().amax(0) + from_uniform.detach()


def _exactly(alpha: Tensor, beta: Tensor) -> Tensor:
    """``D·KL(P‖Q)`` row by row, without cancellation: ``[B, D]`` and ``[B, D]`` → ``[B, 1]``."""
    delta = beta - alpha
    return (alpha.exp() * (torch.expm1(delta) - delta)).sum(-1, keepdim=True)


def _floor(values: Tensor) -> float:
    """What divergences computed exactly are raised to, so that they have a logarithm: less than their own rounding."""
    return torch.finfo(values.dtype).eps ** 2 / 64


def _one_hot(label: Tensor, beta: Tensor) -> Tensor:
    return label == torch.arange(len(beta), device=label.device)


# By hand


def likelihood_surprisal(
    features: Tensor, directions: Tensor | None, beta: Tensor | None, labels: Tensor, to: Map
) -> Tensor:
    """``−log π_y`` in nats, ``[B]``.

    Args:
        features: ``[B, D]``, centered, float32 or float64; brought to unit length here.
        directions: ``[C, D]``, of centroids that are features of unit length; or None, and then
        beta: ``[C, D]``, ``log(D·Q)`` of any centroids.
        labels: ``[B]`` int64, in range.
        to: the map.
    """
    tensors = (features, directions, beta, labels)
    if not (_fits(to) and by_hand(*tensors)):
        return plain_surprisal(*tensors, to)
    value: Tensor = _Surprisal.apply(*tensors, to)  # type: ignore[no-untyped-call]
    return value


def likelihood_scores(features: Tensor, directions: Tensor | None, beta: Tensor | None, to: Map) -> Tensor:
    """``log π_c`` in nats, ``[B, C]``; arguments as for :func:`likelihood_surprisal`."""
    tensors = (features, directions, beta)
    if not (_fits(to) and by_hand(*tensors)):
        return plain_scores(*tensors, to)
    value: Tensor = _Scores.apply(*tensors, to)  # type: ignore[no-untyped-call]
    return value


def _fits(to: Map) -> bool:
    return to.kind == "nsf" and to.temperature * STEEPEST >= 1


class _Rows(NamedTuple):
    """Features, and below them directions where there are any, as points of the simplex: n = B + C rows, or B.

    Attributes:
        excess, alpha: ``[n, D]``, ``D·P − 1`` and ``log(D·P)``.
        norm, mean: ``[n, 1]``, length of the row, and mean of its sigmoids.
        curve: ``[n]``, ``Σ_i α − e``.
    """

    excess: Tensor
    alpha: Tensor
    norm: Tensor
    mean: Tensor
    curve: Tensor


def _blocks(features: Tensor, directions: Tensor | None) -> Iterator[tuple[Tensor, slice]]:
    """The rows of both, some at a time, with their place in what holds all of them."""
    sources = [features] if directions is None else [features, directions]
    width = features.shape[1]
    if sum(len(x) for x in sources) * width <= _JOINED:
        x = torch.cat(sources) if len(sources) > 1 else features
        yield x, slice(0, len(x))
        return
    step, start = max(1, _BLOCK // width), 0
    for source in sources:
        for x in source.split(step):
            yield x, slice(start, start + len(x))
            start += len(x)


def _to_simplex(features: Tensor, directions: Tensor | None, temperature: float) -> _Rows:
    count = len(features) + (0 if directions is None else len(directions))
    excess, alpha = features.new_empty(2, count, features.shape[1])
    norm, mean = features.new_empty(2, count, 1)
    curve = features.new_empty(count)
    for x, rows in _blocks(features, directions):
        norms, r, a, means = norm[rows], excess[rows], alpha[rows], mean[rows]
        torch.linalg.vector_norm(x, dim=-1, keepdim=True, out=norms)
        # infinity times 0 is NaN; a zero row stays zero
        norms.add_(norms, alpha=0).add_(norms == 0)
        torch.div(x, norms * temperature, out=r).sigmoid_()
        torch.mean(r, -1, keepdim=True, out=means)
        torch.log(r.div_(means), out=a)
        torch.sum(a - r.sub_(1), -1, out=curve[rows])
    return _Rows(excess, alpha, norm, mean, curve)


def _to_features(
    gradient: Tensor, features: Tensor, directions: Tensor | None, norm: Tensor, mean: Tensor, excess: Tensor, to: Map
) -> None:
    """In place, from the gradient by log-distributions to that by features and directions, ``[n, D]``."""
    rest, scale, square = 1 - mean, norm * to.temperature, norm.square()
    for x, rows in _blocks(features, directions):
        by_x = gradient[rows]
        # through log NSF, (1 − σ) where the gradient sums to 0, and through the unit vector
        if to.temperature < _COLD:
            by_x.mul_(torch.div(x, scale[rows]).neg_().sigmoid_())
        else:
            by_x.mul_(torch.addcmul(rest[rows], excess[rows], mean[rows], value=-1))
        along = torch.linalg.vecdot(x, by_x).unsqueeze(-1).div_(square[rows])
        by_x.addcmul_(x, along, value=-1).div_(scale[rows])


class _Distance(NamedTuple):
    """An exact divergence of each row: from which centroid, ``[B, 1]``; δ, ``[B, D]``; and D·KL, ``[B, 1]``."""

    column: Tensor
    delta: Tensor
    value: Tensor


def _distance(rows: _Rows, beta: Tensor, column: Tensor) -> _Distance:
    samples = len(column)
    delta = beta.index_select(0, column.squeeze(1)).sub_(rows.alpha[:samples])
    growth = torch.expm1(delta).sub_(delta)
    return _Distance(column, delta, torch.addcmul(growth, growth, rows.excess[:samples]).sum(-1, keepdim=True))


class _Table(NamedTuple):
    """Divergences of all pairs by one matrix product.

    Attributes:
        value: ``D·KL(P‖Q_c)``, ``[B, C]``.
        beta: ``[C, D]``.
        gap, from_uniform: what it is made of, ``[C]`` and ``[B, 1]``.
    """

    value: Tensor
    beta: Tensor
    gap: Tensor
    from_uniform: Tensor

    def apart(self) -> Tensor:
        """The largest of the terms that a row's divergences are the difference of, ``[B, 1]``."""
        return self.gap.amax() + self.from_uniform


def _table_of(rows: _Rows, samples: int, beta: Tensor | None) -> _Table:
    if beta is None:
        beta, gap = rows.alpha[samples:], rows.curve[samples:].neg()
    else:
        gap = (torch.expm1(beta) - beta).sum(-1)
    alpha, excess = rows.alpha[:samples], rows.excess[:samples]
    from_uniform = (rows.curve[:samples] + torch.linalg.vecdot(alpha, excess)).unsqueeze(-1)
    with full_products(alpha):
        return _Table(torch.addmm(gap, excess, beta.T, alpha=-1).add_(from_uniform), beta, gap, from_uniform)


class _Nearest(NamedTuple):
    """What :func:`_look_closer` finds.

    Attributes:
        distance: of each row from its nearest centroid.
        crowded: ``[B, 1]``, whether rounding is all that is known of two divergences or more.
        raised: ``[B, C]``, entries that have been raised to their rounding, and so do not follow their input.
    """

    distance: _Distance
    crowded: Tensor
    raised: Tensor


def _look_closer(table: _Table, least: Tensor, rows: _Rows, own: Tensor | None = None) -> _Nearest | None:
    """Put each row's least divergence into the table as it is exactly; None where no row needs it.

    Where a row lies at several centroids at once, all its entries stay as rounded as they are: else it would count as
    certain of the one that is exact.

    Args:
        table: changed in place.
        least: the least of each row, ``[B, 1]``.
        own: exact divergences that are not in the table, ``[B, 1]``.
    """
    # a look at another device's values would wait for it
    if least.device.type == "cpu":
        apart = table.gap.amax().item() + table.from_uniform.amax().item()
        if len(least) == 0 or least.amin().item() >= apart * _CLOSE:
            return None
    value = table.value
    distance = _distance(rows, table.beta, value.argmin(1, keepdim=True))
    rounding = rounding_of(table.apart())
    limit = rounding * _ROUNDED
    count = (value <= limit).sum(1, keepdim=True)
    crowded = (count if own is None else count + (own <= limit)) >= 2
    raised = value <= rounding
    torch.maximum(value, rounding, out=value)
    floor = _floor(value)
    value.scatter_(
        1, distance.column, torch.where(crowded, value.gather(1, distance.column), distance.value.clamp_min(floor))
    )
    at_floor = torch.where(crowded, raised.gather(1, distance.column), distance.value <= floor)
    raised.scatter_(1, distance.column, at_floor)
    return _Nearest(distance, crowded, raised)


class _Surprisal(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, directions: Tensor | None, beta: Tensor | None, labels: Tensor, to: Map
    ) -> Tensor:
        label = labels.unsqueeze(-1)
        rows = _to_simplex(features, directions, to.temperature)
        table = _table_of(rows, len(features), beta)
        own = _distance(rows, table.beta, label)
        value, divergence = own.value.clamp_min(_floor(features)), table.value
        divergence.scatter_(1, label, math.inf)
        least = divergence.amin(1, keepdim=True)
        nearest = _look_closer(table, least, rows, value)
        own_raised = None
        if nearest is not None:
            least = divergence.amin(1, keepdim=True)
            rounded, rounding = _table_of(rows, len(features), beta).value.gather(1, label), rounding_of(table.apart())
            own_raised = nearest.crowded & (rounded <= rounding)
            value = torch.where(nearest.crowded, torch.maximum(rounded, rounding), value)
        share = (divergence / least).log_().mul_(to.power).exp_()
        total = share.sum(1, keepdim=True)
        # log-odds of the wrong classes
        margin = (least / value).log_().mul_(to.power).add_(total.log())
        missing = torch.sigmoid(margin).mul_(to.power)
        # gradient by D·KL: of the wrong classes, and of the own
        slope = share.mul_(missing / total).div_(divergence)
        own_slope = missing.div_(value).neg_()
        exact: tuple[Tensor, ...] = ()
        if nearest is not None and own_raised is not None:
            slope.masked_fill_(nearest.raised, 0.0)
            own_slope.masked_fill_(own_raised, 0.0)
            exact = nearest.distance[:2]
        ctx.save_for_backward(features, directions, beta, labels, *rows[:4], slope, own_slope, own.delta, *exact)
        ctx.to = to
        # log(1 + e^margin); torch leaves out the 1 from its threshold on
        return F.softplus(margin, threshold=40.0).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: a checkpoint computes it for each look
        features, directions, beta, labels, *rows, slope, own_slope, delta = saved[:11]
        if torch.is_grad_enabled():
            inputs = (features, directions, beta, labels, ctx.to)
            return differentiable_backward(plain_surprisal, inputs, ctx.needs_input_grad, gradients)
        scale = gradients[0].unsqueeze(-1)
        exact = [(labels.unsqueeze(-1), own_slope * scale, delta)]
        weight = _taken_out(slope * scale, exact, saved[11:])
        return *_gradients(features, directions, beta, rows, weight, exact, ctx), None, None


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, directions: Tensor | None, beta: Tensor | None, to: Map) -> Tensor:
        rows = _to_simplex(features, directions, to.temperature)
        table = _table_of(rows, len(features), beta)
        nearest = _look_closer(table, table.value.amin(1, keepdim=True), rows)
        log_likelihood = table.value.log().mul_(to.power).log_softmax(-1)
        slope = table.value.reciprocal_().mul_(to.power)
        exact: tuple[Tensor, ...] = ()
        if nearest is not None:
            slope.masked_fill_(nearest.raised, 0.0)
            exact = nearest.distance[:2]
        ctx.save_for_backward(features, directions, beta, *rows[:4], slope, log_likelihood, *exact)
        ctx.to = to
        return log_likelihood

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        features, directions, beta, *rows, slope, log_likelihood = saved[:9]
        if torch.is_grad_enabled():
            inputs = (features, directions, beta, ctx.to)
            return differentiable_backward(plain_scores, inputs, ctx.needs_input_grad, gradients)
        gradient = gradients[0]
        total = gradient.sum(1, keepdim=True)
        weight = torch.addcmul(gradient, log_likelihood.exp(), total, value=-1).mul_(slope)
        exact: list[tuple[Tensor, Tensor, Tensor]] = []
        weight = _taken_out(weight, exact, saved[9:])
        return *_gradients(features, directions, beta, rows, weight, exact, ctx), None


def _taken_out(weight: Tensor, exact: list[tuple[Tensor, Tensor, Tensor]], nearest: tuple[Tensor, ...]) -> Tensor:
    """Weights of the table, with those of the nearest centroids moved to the exact ones."""
    if nearest:
        column, delta = nearest
        exact.append((column, weight.gather(1, column), delta))
        weight.scatter_(1, column, 0.0)
    return weight


def _gradients(
    features: Tensor,
    directions: Tensor | None,
    beta: Tensor | None,
    rows: list[Tensor],
    weight: Tensor,
    exact: list[tuple[Tensor, Tensor, Tensor]],
    ctx: Any,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """By features, directions and β, of the gradient by ``D·KL``.

    Args:
        weight: ``[B, C]``, by the entries of the table; overwritten.
        exact: of entries computed exactly, whose weight is 0 there: column ``[B, 1]``, weight ``[B, 1]`` and δ.
    """
    samples = len(features)
    excess, alpha, norm, mean = rows
    betas = alpha[samples:] if beta is None else beta
    by_features, by_directions, by_beta = ctx.needs_input_grad[:3]
    gradient = torch.empty_like(excess) if directions is None or by_directions else torch.empty_like(excess[:samples])
    with full_products(features):
        if by_features:
            top = gradient[:samples]
            torch.mul(alpha[:samples], weight.sum(1, keepdim=True), out=top).addmm_(weight, betas, alpha=-1)
            for _, each, delta in exact:
                top.addcmul_(each, delta, value=-1)
            top.addcmul_(top, excess[:samples])
        else:
            gradient[:samples].zero_()
        if by_directions or by_beta:
            for column, each, _ in exact:
                weight.scatter_add_(1, column, each)
            above = torch.expm1(betas) if beta is not None else excess[samples:]
            out = torch.empty_like(betas) if beta is not None else gradient[samples:]
            torch.mul(above, weight.sum(0).unsqueeze(-1), out=out).addmm_(weight.T, excess[:samples], alpha=-1)
        if by_features or by_directions:
            joined = directions if by_directions else None
            count = len(gradient)
            _to_features(gradient, features, joined, norm[:count], mean[:count], excess[:count], ctx.to)
    return (
        gradient[:samples] if by_features else None,
        gradient[samples:] if by_directions else None,
        out if by_beta else None,
    )
