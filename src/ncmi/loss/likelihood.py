"""The likelihood ``π_c ∝ KL(P‖Q_c)^p``, p < 0: its logarithm as scores, and as a loss; the default form.

It is the softmax of the logits ``p·log KL(P‖Q_c)``. Divergences of all pairs come from one matrix product, as in
:func:`ncmi.loss.divergence.pairwise_divergence`, whose rounding is that of ``KL(·‖U)``. Where training makes a
divergence much smaller than that, from a sample's own class or where it lies close by a wrong centroid, the entry is
computed once more, term by term, without cancellation; and the loss has ``1 − π_y`` from the wrong classes.

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
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ncmi.loss.autograd import by_hand, differentiable_backward, full_products
from ncmi.loss.divergence import ROUNDED, concentration_terms, least_exact, least_exactly, rounding_of, row_products
from ncmi.loss.forms import Distribution
from ncmi.loss.simplex import length, log_ratio, logits_of

STEEPEST = 60.0  # logits within ± this have a sigmoid that float32 holds, with room for ratios
_COLD = 0.25  # temperature below which 1 − σ is not to be had by subtraction
CLOSE = 1 / 64  # share of KL(Q‖U) below which a divergence from a wrong centroid is computed once more
_BLOCK = 2**17  # elements worked on at a time: 512 KB in float32, in the cache of a core
_JOINED = 2**18  # features and directions with fewer elements are worked on together


class Map(NamedTuple):
    """From features to distributions, and from there to likelihoods.

    Attributes:
        temperature, kind: of the distribution.
        length: s, of all features; None for each one's own.
        power: p < 0.
    """

    temperature: float
    kind: Distribution
    length: float | None
    power: float

    @property
    def factor(self) -> float:
        """What takes features of length 1, or all, to logits."""
        return 1 / (self.temperature * (self.length or 1.0))


# In ordinary operations


def plain_surprisal(
    features: Tensor, directions: Tensor | None, beta: Tensor | None, labels: Tensor, to: Map
) -> Tensor:
    """``−log π_y``, ``[B]``; see :func:`likelihood_surprisal`."""
    alpha, beta = _ratios(features, directions, beta, to)
    return surprisal_of_ratios(alpha, beta, labels, to.power)


def _plain_mean(features: Tensor, directions: Tensor | None, beta: Tensor | None, labels: Tensor, to: Map) -> Tensor:
    return plain_surprisal(features, directions, beta, labels, to).mean()


def plain_scores(features: Tensor, directions: Tensor | None, beta: Tensor | None, to: Map) -> Tensor:
    """``log π_c``, ``[B, C]``; see :func:`likelihood_scores`."""
    return scores_of_ratios(*_ratios(features, directions, beta, to), to.power)


def _ratios(features: Tensor, directions: Tensor | None, beta: Tensor | None, to: Map) -> tuple[Tensor, Tensor]:
    alpha, betas = (
        None if x is None else log_ratio(logits_of(x, to.temperature, to.length), to.kind)
        for x in (features, directions)
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
    floor = least_exact(alpha)
    own, near = (_exactly(alpha, beta.index_select(0, x.squeeze(1))).clamp_min(floor) for x in (label, nearest))
    limit = rounding * ROUNDED
    crowded = ((wrong <= limit).sum(1, keepdim=True) + (own <= limit)) >= 2
    raised = torch.maximum(wrong, torch.where(crowded, limit, rounding))
    own = torch.where(crowded, torch.maximum(table.gather(1, label), limit), own)
    near = torch.where(crowded, raised.gather(1, nearest), near)
    log_own = own.log()
    logits = raised.scatter(1, nearest, near).log() * power
    # 1 − π_y from the wrong classes, not by subtraction from 1
    total = logits.scatter(1, label, -math.inf).logsumexp(1, keepdim=True)
    return -F.logsigmoid(log_own * power - total).squeeze(1)


def scores_of_ratios(alpha: Tensor, beta: Tensor, power: float) -> Tensor:
    """``log π_c``, ``[B, C]``, of ``α = log(D·P)`` ``[B, D]`` and ``β = log(D·Q)`` ``[C, D]``."""
    table, apart = _table(alpha, beta)
    rounding = rounding_of(apart)
    nearest = table.detach().argmin(1, keepdim=True)
    near = _exactly(alpha, beta.index_select(0, nearest.squeeze(1)))
    table = least_exactly(table, nearest, near, rounding)
    return torch.log_softmax(table.log() * power, dim=-1)


def _table(alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """``D·KL(P‖Q_c)``, ``[B, C]``; and how large the terms are of which an entry near 0 is the difference, ``[B, 1]``.

    Where an entry is near 0 its centroid is P, so that P tells, whatever other centroids there are; they are looked at
    as well, since P may lie far outside of all of them.
    """
    excess = torch.expm1(alpha)
    gap = (torch.expm1(beta) - beta).sum(-1)
    bent = alpha.clamp_min(-STEEPEST)
    from_uniform = (torch.linalg.vecdot(bent, excess) + (bent - excess).sum(-1)).unsqueeze(-1)
    widest = torch.minimum(gap.detach().amax(0), (excess - alpha).detach().sum(-1, keepdim=True))
    return gap + from_uniform - row_products(excess, beta), widest + from_uniform.detach()


def _exactly(alpha: Tensor, beta: Tensor) -> Tensor:
    """``D·KL(P‖Q)`` row by row, without cancellation: ``[B, D]`` and ``[B, D]`` → ``[B, 1]``."""
    return concentration_terms(alpha, beta).sum(-1, keepdim=True)


# By hand


def likelihood_surprisal(
    features: Tensor, directions: Tensor | None, beta: Tensor | None, labels: Tensor, to: Map
) -> Tensor:
    """``−log π_y`` in nats, ``[B]``.

    Args:
        features: ``[B, D]``, centered, float32 or float64; divided by a length here.
        directions: ``[C, D]``, of centroids that are as features are; or None, and then
        beta: ``[C, D]``, ``log(D·Q)`` of any centroids.
        labels: ``[B]`` int64, in range.
        to: the map.
    """
    tensors = (features, directions, beta, labels)
    if not (by_hand(*tensors) and fits_float32(to, features, directions)):
        return plain_surprisal(*tensors, to)
    value: Tensor = _Surprisal.apply(*tensors, to, False)  # type: ignore[no-untyped-call]
    return value


def mean_surprisal(features: Tensor, directions: Tensor, labels: Tensor, to: Map) -> Tensor | None:
    """The mean of :func:`likelihood_surprisal` in fewer operations, of tensors that are :func:`by_hand`; or None."""
    if not fits_float32(to, features, directions):
        return None
    value: Tensor = _Surprisal.apply(features, directions, None, labels, to, True)  # type: ignore[no-untyped-call]
    return value


def likelihood_scores(features: Tensor, directions: Tensor | None, beta: Tensor | None, to: Map) -> Tensor:
    """``log π_c`` in nats, ``[B, C]``; arguments as for :func:`likelihood_surprisal`."""
    tensors = (features, directions, beta)
    if not (by_hand(*tensors) and fits_float32(to, features, directions)):
        return plain_scores(*tensors, to)
    value: Tensor = _Scores.apply(*tensors, to)  # type: ignore[no-untyped-call]
    return value


def fits_float32(to: Map, features: Tensor, directions: Tensor | None) -> bool:
    """Whether all logits have a sigmoid that float32 holds."""
    if to.kind != "nsf":
        return False
    if to.length is None:
        return to.temperature * STEEPEST >= 1
    if not is_looked_at(features):
        return True  # logarithms are then taken of sigmoids that need not be held
    limit = STEEPEST / to.factor
    return all(_within(x, limit) for x in (features, directions) if x is not None)


def is_looked_at(x: Tensor) -> bool:
    """Whether code may depend on values: elsewhere a look would wait for the device."""
    return x.device.type == "cpu"


def _within(x: Tensor, limit: float) -> bool:
    if x.numel() == 0:
        return True
    least, most = torch.aminmax(x.detach())
    return -limit <= least.item() and most.item() <= limit


@cache
def _number(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A number as a tensor: torch converts a Python number anew each time, which takes as long as a small operation."""
    with torch.inference_mode(False):
        return torch.tensor(value, dtype=dtype, device=device)


class SimplexRows(NamedTuple):
    """Features, and below them directions where there are any, as points of the simplex: n = B + C rows, or B.

    Attributes:
        excess, alpha, sigma: ``[n, D]``, ``D·P − 1``, ``log(D·P)`` and the sigmoids that P is proportional to.
        norm, inverse: ``[n, 1]``, length of the row, and 1/T; None where one length serves all.
        joined: what they are of in one tensor, or None where that is large.
    """

    excess: Tensor
    alpha: Tensor
    sigma: Tensor
    norm: Tensor | None
    inverse: Tensor | None
    joined: Tensor | None


def _blocks(features: Tensor, directions: Tensor | None) -> Iterator[tuple[Tensor, slice]]:
    """The rows of both, some at a time, with their place in what holds all of them."""
    step, start = max(1, _BLOCK // features.shape[1]), 0
    for source in (features,) if directions is None else (features, directions):
        for x in source.split(step):
            yield x, slice(start, start + len(x))
            start += len(x)


def _joined(features: Tensor, directions: Tensor | None) -> Tensor | None:
    """Both in one tensor, or None where they are so large that it is faster to go through them in blocks."""
    count = features.numel() + (0 if directions is None else directions.numel())
    if count > _JOINED:
        return None
    return features if directions is None else torch.cat((features, directions))


def _scaled(x: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Rows at length 1/T, ``[n, D]``, and the length they had, ``[n, 1]``, as by :func:`ncmi.loss.simplex.length`."""
    if x.device.type == "cpu" and len(x) > 0:
        scaled, norm = torch._weight_norm_interface(x, inverse, 0)
        least, most = torch.aminmax(norm)
        if least.item() > 0 and most.item() < math.inf:
            return scaled, norm
    norm = length(x)
    return x * (inverse / norm), norm


def rows_on_simplex(
    features: Tensor, directions: Tensor | None, to: Map, *, held: bool | None = None
) -> tuple[SimplexRows, Tensor]:
    """Rows; and ``Σ_i r α − e`` of features, ``Σ_i β − (e^β − 1)`` of directions, ``[n, 1]``.

    ``held`` says that no logit is beyond ``STEEPEST``; by default that is so where :func:`fits_float32` had a look.
    """
    samples, width = features.shape
    one, share = (_number(x, features.dtype, features.device) for x in (1.0, 1 / width))
    count = samples + (0 if directions is None else len(directions))
    looked_at = (to.length is None or is_looked_at(features)) if held is None else held
    joined = _joined(features, directions)
    inverse = features.new_full((count, 1), to.factor) if to.length is None else None
    excess, alpha, sigma = (features.new_empty(count, width) for _ in range(3))

    def one_block(
        x: Tensor, inverse: Tensor | None, r: Tensor, log_r: Tensor, s: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        norm = None
        if inverse is not None:
            z, norm = _scaled(x, inverse)
        else:
            z = x * to.factor if looked_at else logits_of(x, to.temperature, to.length)
        torch.sigmoid(z, out=s)
        if looked_at:
            torch.div(s, s.sum(-1, keepdim=True).mul_(share), out=r)
            torch.log(r, out=log_r)
        else:
            torch.exp(log_r.copy_(log_ratio(z, to.kind)), out=r)
        return torch.sub(log_r, r.sub_(one), out=z), norm

    def bend(curve: Tensor, log_r: Tensor, e: Tensor) -> None:
        if looked_at:
            curve.addcmul_(log_r, e)
        else:
            log_r = log_r.clamp_min(-STEEPEST)
            torch.sub(log_r, e, out=curve).addcmul_(log_r, e)

    if joined is not None:
        curve, norm = one_block(joined, inverse, excess, alpha, sigma)
        bend(curve[:samples], alpha[:samples], excess[:samples])
        return SimplexRows(excess, alpha, sigma, norm, inverse, joined), curve.sum(-1, keepdim=True)
    norms, curves = [], []
    for x, rows in _blocks(features, directions):
        part = None if inverse is None else inverse[rows]
        curve, norm = one_block(x, part, excess[rows], alpha[rows], sigma[rows])
        if rows.start < samples:
            bend(curve, alpha[rows], excess[rows])
        curves.append(curve.sum(-1, keepdim=True))
        if norm is not None:
            norms.append(norm)
    return SimplexRows(excess, alpha, sigma, torch.cat(norms) if norms else None, inverse, None), torch.cat(curves)


def gradient_of_rows(
    gradient: Tensor, features: Tensor, directions: Tensor | None, rows: SimplexRows, to: Map
) -> Tensor:
    """From the gradient by log-distributions, which is overwritten, to that by features and directions, ``[n, D]``."""

    def one_block(by_z: Tensor, x: Tensor, sigma: Tensor, norm: Tensor | None, inverse: Tensor | None) -> Tensor:
        # through log NSF, (1 − σ) where the gradient sums to 0, and through the length
        if norm is None or inverse is None:
            return by_z.mul_((x * -to.factor).sigmoid_().mul_(to.factor))
        if to.temperature < _COLD:
            by_z.mul_(torch.div(x, norm / -inverse).sigmoid_())
        else:
            by_z.addcmul_(by_z, sigma, value=-1)
        by_x: Tensor = torch.ops.aten._weight_norm_interface_backward(by_z, x, inverse, norm, 0)[0]
        return by_x

    _, _, sigma, norm, inverse, joined = rows
    if joined is not None:
        return one_block(gradient, joined, sigma, norm, inverse)
    for x, block in _blocks(features, directions):
        by_z = gradient[block]
        parts = (None, None) if norm is None or inverse is None else (norm[block], inverse[block])
        by_z.copy_(one_block(by_z, x, sigma[block], *parts))
    return gradient


class _Distance(NamedTuple):
    """An exact divergence of each row: from which centroid, ``[B, 1]``; δ, ``[B, D]``; and D·KL, ``[B, 1]``."""

    column: Tensor
    delta: Tensor
    value: Tensor


class _Table(NamedTuple):
    """Divergences of all pairs by one matrix product.

    Attributes:
        value: ``D·KL(P‖Q_c)``, ``[B, C]``.
        alpha, excess, beta: what it is of, ``[B, D]``, ``[B, D]`` and ``[C, D]``.
        gap, from_uniform: what it is made of, ``[C]`` and ``[B, 1]``.
    """

    value: Tensor
    alpha: Tensor
    excess: Tensor
    beta: Tensor
    gap: Tensor
    from_uniform: Tensor

    def apart(self) -> Tensor:
        """The largest of the terms that a row's divergences are the difference of, ``[B, 1]``."""
        return self.gap.amax() + self.from_uniform

    def rounding(self) -> Tensor:
        """Of entries near 0, ``[B, 1]``; see :func:`_table`."""
        widest = torch.minimum(self.gap.amax(), (self.excess - self.alpha).sum(-1, keepdim=True))
        return rounding_of(widest + self.from_uniform)

    def distance(self, column: Tensor) -> _Distance:
        """The divergences from the centroids that ``column [B, 1]`` names, without cancellation."""
        rows = self.beta.index_select(0, column.view(-1))
        if not is_looked_at(rows):
            terms = concentration_terms(self.alpha, rows)
            return _Distance(column, rows.sub_(self.alpha), terms.sum(-1, keepdim=True))
        delta = rows.sub_(self.alpha)
        growth = torch.expm1(delta).sub_(delta)
        return _Distance(column, delta, torch.addcmul(growth, growth, self.excess).sum(-1, keepdim=True))


def _table_of(rows: SimplexRows, curve: Tensor, samples: int, beta: Tensor | None) -> _Table:
    if len(rows.alpha) == samples:
        assert beta is not None
        alpha, excess = rows.alpha, rows.excess
        gap = (torch.expm1(beta) - beta).sum(-1)
    else:
        alpha, beta = rows.alpha.split((samples, len(rows.alpha) - samples))
        curve, gap = curve.split((samples, len(beta)))
        excess, gap = rows.excess[:samples], gap.view(-1).neg()
    with full_products(alpha):
        value = torch.addmm(gap, excess, beta.T, alpha=-1).add_(curve)
    return _Table(value, alpha, excess, beta, gap, curve)


def _bound(directions: Tensor | None, to: Map) -> float | None:
    """On the table's :meth:`_Table.apart`, where all lengths are alike."""
    return None if directions is None or to.length is not None else _widest(to.temperature)


@cache
def _widest(temperature: float) -> float:
    """Twice the largest ``D·KL(U‖Q)`` of a direction: that of a single negative component, or of many small ones."""
    ratio = 2 / (1 + math.exp(1 / temperature))
    return 2 * max(ratio - 1 - math.log(ratio), 1 / (8 * temperature**2))


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


def _any_close(table: _Table, bound: float | None) -> bool:
    """Whether a divergence is so small a difference that it must be exact; always where a look would wait.

    Args:
        bound: on the table's :meth:`_Table.apart`, where it is known.
    """
    if table.value.device.type != "cpu":
        return True
    if len(table.value) == 0:
        return False
    apart = table.apart().amax().item() if bound is None else bound
    return not table.value.amin().item() >= apart * CLOSE


def _look_closer(table: _Table, own: Tensor | None = None) -> _Nearest:
    """Put each row's least divergence into the table as it is exactly.

    Where a row lies at several centroids at once, as far as its entries tell, those are made equal: else it would count
    as certain of the one that is exact, or that rounding favors.

    Args:
        table: changed in place.
        own: exact divergences that are not in the table, ``[B, 1]``.
    """
    value = table.value
    distance = table.distance(value.argmin(1, keepdim=True))
    rounding = table.rounding()
    limit = rounding * ROUNDED
    count = (value <= limit).sum(1, keepdim=True)
    crowded = (count if own is None else count + (own <= limit)) >= 2
    # equal, and so without a pull towards any of them
    known = torch.where(crowded, limit, rounding)
    raised = value <= known
    torch.maximum(value, known, out=value)
    floor = least_exact(value)
    value.scatter_(
        1, distance.column, torch.where(crowded, value.gather(1, distance.column), distance.value.clamp_min(floor))
    )
    at_floor = torch.where(crowded, raised.gather(1, distance.column), distance.value <= floor)
    raised.scatter_(1, distance.column, at_floor)
    return _Nearest(distance, crowded, raised)


def _look_closer_at_own(table: _Table, label: Tensor, bound: float | None) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Put each row's divergence from its own centroid into the table as it is exactly, and with it the least other one.

    Returns:
        Columns and δ of what is exact, one after the other, and what has been raised, as in :class:`_Nearest`.
    """
    value = table.value
    rounded, own = value.gather(1, label), table.distance(label)
    divergence = own.value.clamp_min(least_exact(value))
    exact: tuple[Tensor, ...] = (label, own.delta)
    value.scatter_(1, label, math.inf)
    raised = None
    if _any_close(table, bound):
        nearest = _look_closer(table, divergence)
        limit = table.rounding() * ROUNDED
        raised = nearest.raised.scatter_(1, label, nearest.crowded & (rounded <= limit))
        divergence = torch.where(nearest.crowded, torch.maximum(rounded, limit), divergence)
        exact = (*exact, *nearest.distance[:2])
    value.scatter_(1, label, divergence)
    return exact, raised


class _Surprisal(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, directions: Tensor | None, beta: Tensor | None, labels: Tensor, to: Map, mean: bool
    ) -> Tensor:
        label = labels.unsqueeze(-1)
        rows, curve = rows_on_simplex(features, directions, to)
        table = _table_of(rows, curve, len(features), beta)
        divergence, bound = table.value, _bound(directions, to)
        exact, raised = _look_closer_at_own(table, label, bound) if _any_close(table, bound) else ((), None)
        power = _number(to.power, divergence.dtype, divergence.device)
        log_likelihood = divergence.log().mul_(power).log_softmax(1)
        own = log_likelihood.gather(1, label)
        # 1 − π_y from the wrong classes, not by subtraction from 1
        share = log_likelihood.exp_().scatter_(1, label, 0.0)
        missing = share.sum(1, keepdim=True)
        margin = missing.log().sub_(own)
        # gradient by D·KL, over p: of the wrong classes, and of the own
        slope = share.scatter_(1, label, missing.neg_()).div_(divergence)
        if raised is not None:
            slope.masked_fill_(raised, 0.0)
        ctx.save_for_backward(features, directions, beta, labels, *rows, slope, *exact)
        ctx.to, ctx.mean = to, mean
        # log(1 + e^margin); torch leaves out the 1 from its threshold on
        value = F.softplus(margin, threshold=40.0)
        return value.mean() if mean else value.squeeze(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: a checkpoint computes it for each look
        features, directions, beta, labels, *rows, slope = saved[:11]
        if torch.is_grad_enabled():
            inputs = (features, directions, beta, labels, ctx.to)
            plain = _plain_mean if ctx.mean else plain_surprisal
            return *differentiable_backward(plain, inputs, ctx.needs_input_grad[:5], gradients), None
        factor = ctx.to.power / len(features) if ctx.mean else ctx.to.power
        each = gradients[0] * _number(factor, slope.dtype, slope.device)
        weight = slope * (each if ctx.mean else each.unsqueeze(-1))
        return *_gradients(features, directions, beta, SimplexRows(*rows), weight, saved[11:], ctx), None, None, None


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, directions: Tensor | None, beta: Tensor | None, to: Map) -> Tensor:
        rows, curve = rows_on_simplex(features, directions, to)
        table = _table_of(rows, curve, len(features), beta)
        nearest = _look_closer(table) if _any_close(table, _bound(directions, to)) else None
        power = _number(to.power, features.dtype, features.device)
        log_likelihood = table.value.log().mul_(power).log_softmax(-1)
        slope = torch.div(power, table.value)
        exact: tuple[Tensor, ...] = ()
        if nearest is not None:
            slope.masked_fill_(nearest.raised, 0.0)
            exact = nearest.distance[:2]
        ctx.save_for_backward(features, directions, beta, *rows, slope, log_likelihood, *exact)
        ctx.to = to
        return log_likelihood

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        features, directions, beta, *rows, slope, log_likelihood = saved[:11]
        if torch.is_grad_enabled():
            inputs = (features, directions, beta, ctx.to)
            return differentiable_backward(plain_scores, inputs, ctx.needs_input_grad, gradients)
        gradient = gradients[0]
        weight = torch.ops.aten._log_softmax_backward_data(gradient, log_likelihood, 1, gradient.dtype).mul_(slope)
        return *_gradients(features, directions, beta, SimplexRows(*rows), weight, saved[11:], ctx), None


def _gradients(
    features: Tensor,
    directions: Tensor | None,
    beta: Tensor | None,
    rows: SimplexRows,
    weight: Tensor,
    exact: tuple[Tensor, ...],
    ctx: Any,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """By features, directions and β, of the gradient by ``D·KL``.

    Args:
        weight: ``[B, C]``, by the entries of the table; overwritten.
        exact: column ``[B, 1]`` and δ ``[B, D]`` of entries that were computed exactly, one after the other.
    """
    samples = len(features)
    by_features, by_directions, by_beta = ctx.needs_input_grad[:3]
    if directions is None:
        assert beta is not None
        alpha, excess, betas, above = rows.alpha, rows.excess, beta, None
    else:
        (alpha, betas), (excess, above) = (x.split((samples, len(directions))) for x in (rows.alpha, rows.excess))
    if not by_directions:
        rows = SimplexRows(*(None if x is None else x[:samples] for x in rows))  # type: ignore[arg-type]
    gradient = torch.empty_like(rows.excess)
    top, bottom = gradient[:samples], gradient[samples:]
    apart = []
    for column, delta in zip(exact[::2], exact[1::2], strict=True):
        apart.append((column, weight.gather(1, column), delta))
        weight.scatter_(1, column, 0.0)
    with full_products(features):
        if by_features:
            torch.mul(alpha, weight.sum(1, keepdim=True), out=top).addmm_(weight, betas, alpha=-1)
            for _, each, delta in apart:
                top.addcmul_(each, delta, value=-1)
            top.addcmul_(top, excess)
        else:
            top.zero_()
        if by_directions or by_beta:
            for column, each, _ in apart:
                weight.scatter_add_(1, column, each)
            if above is None:
                above, bottom = torch.expm1(betas), torch.empty_like(betas)
            torch.mul(above, weight.sum(0).unsqueeze(-1), out=bottom).addmm_(weight.T, excess, alpha=-1)
    if by_features or by_directions:
        gradient = gradient_of_rows(gradient, features, directions if by_directions else None, rows, ctx.to)
    return (
        gradient[:samples] if by_features else None,
        gradient[samples:] if by_directions else None,
        bottom if by_beta else None,
    )
