"""The Kullback–Leibler divergences of the loss, without a B×C×D tensor and without float32 cancellation.

At T = 0.2 and D = 512 every probability lies within a factor 1.4 of uniform and the divergences are about 1e-3, so
``Σ P (log P − log Q)`` loses four digits in float32. Everything here works with log-ratios to uniform,
``α = log(D·P)`` and ``β_c = log(D·Q_c)``, and with forms of second order in them:

    KL(P‖Q)   = mean_i e^α (e^δ − 1 − δ),  δ = β − α                      non-negative term by term
    KL(Q_c‖P) = KL(Q_c‖U) + KL(U‖P) − mean_i (e^β_c − 1)·α                a matrix product
    KL(P‖Q_c) = KL(U‖Q_c) + KL(P‖U) − mean_i β_c·(e^α − 1)                a matrix product

They equal the plain sums for distributions, and so do the gradients of whatever produced the distributions.
(The direction that would break ``Σ P = 1`` is the one they leave out; it never reaches a feature or a logit.)

Everything here is made of ordinary operations, and so are its derivatives of any order; what a step's time depends on
is once more in :mod:`ncmi.loss.likelihood` and :mod:`ncmi.loss.sweep`, by hand.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ncmi.loss.autograd import by_hand, full_products
from ncmi.loss.forms import Direction

ROUNDED = 64  # a divergence of so many rounding errors is one
_VANISHED = 60.0  # what has this for −log has no part in a sum, nor its entropy, in any dtype


class CentroidSums(NamedTuple):
    """All that a separation with p = 1 needs of the centroids, whatever C is.

    Attributes:
        gap: ``[C]``, each centroid's divergence from uniform: ``KL(Q_c‖U)`` or ``KL(U‖Q_c)``, by direction.
        gap_sum: scalar, their sum.
        side_sum: ``[D]``, sum over classes of the centroids' factor in the matrix product, ``e^β − 1`` or ``β``.
    """

    gap: Tensor
    gap_sum: Tensor
    side_sum: Tensor


def ratio_to_uniform(log_p: Tensor) -> Tensor:
    """``log(D·P)`` of a log-distribution ``[..., D]``."""
    return log_p + math.log(log_p.shape[-1])


def divergence_from_uniform(beta: Tensor, excess: Tensor, *, forward: bool) -> Tensor:
    """``KL(Q‖U)`` (forward) or ``KL(U‖Q)`` of rows ``β = log(D·Q)`` with ``excess = e^β − 1``: ``[..., D] → [...]``."""
    if forward:
        # r log r is 0 long before, and a larger β would leave its rounding
        beta = beta.clamp_min(-_VANISHED)
        divergence: Tensor = (torch.linalg.vecdot(beta, excess) + (beta - excess).sum(-1)) / beta.shape[-1]
        return divergence
    return (excess - beta).mean(-1)


def centroid_table(beta: Tensor, direction: Direction) -> tuple[Tensor, Tensor]:
    """Of ``β = log(D·Q)``, ``side [C, D]`` in the matrix product and ``gap [C]``; see :class:`CentroidSums`."""
    excess = torch.expm1(beta)
    if direction == "centroid_to_sample":
        return excess, divergence_from_uniform(beta, excess, forward=True)
    return beta, divergence_from_uniform(beta, excess, forward=False)


def centroid_sums(beta: Tensor, direction: Direction) -> CentroidSums:
    """Sums over the centroids, ``β = log(D·Q)`` ``[C, D]``."""
    side, gap = centroid_table(beta, direction)
    return CentroidSums(gap, gap.sum(), side.sum(0))


class CentroidView:
    """Centroids as the loss looks at them, ``β = log(D·Q)`` ``[C, D]``; what it has computed once it keeps."""

    def __init__(self, beta: Tensor, direction: Direction) -> None:
        self.beta = beta
        self.direction: Direction = direction
        # by hand, since torch.compile cannot see through functools.cached_property
        self._sums: CentroidSums | None = None
        self._tables: dict[Direction, tuple[Tensor, Tensor]] = {}

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.beta)

    def own_rows(self, labels: Tensor) -> Tensor:
        """``log(D·Q_y)`` of each label's centroid, ``[B, D]``."""
        return self.beta.index_select(0, labels)

    def own_gaps(self, labels: Tensor) -> Tensor:
        """Gap of each label's centroid, ``[B]``; see :class:`CentroidSums`."""
        return self.sums().gap.index_select(0, labels)

    def sums(self) -> CentroidSums:
        """What p = 1 needs of the centroids."""
        if self._sums is None:
            self._sums = centroid_sums(self.beta, self.direction)
        return self._sums

    def table(self, direction: Direction | None = None) -> tuple[Tensor, Tensor]:
        """Side and gap of every centroid, by default in the view's own direction."""
        direction = direction or self.direction
        if direction not in self._tables:
            self._tables[direction] = centroid_table(self.beta, direction)
        return self._tables[direction]


def own_and_wrong_sum(alpha: Tensor, labels: Tensor, view: CentroidView) -> tuple[Tensor, Tensor]:
    """``KL(P‖Q_y)`` and the sum over the wrong classes of ``KL(Q_c‖P)`` (or ``KL(P‖Q_c)``), in O(B·D).

    Args:
        alpha: ``[B, D]``, ``log(D·P)``.
        labels: ``[B]``.
        view: the centroids, with the direction of the divergence from the wrong classes.
    """
    wrong, sums, beta_y = view.num_classes - 1, view.sums(), view.own_rows(labels)
    if view.direction == "centroid_to_sample":
        own = concentration(alpha, beta_y)
        # Σ_{c≠y} (q_c − 1); q by exp, since expm1 has lost every digit of it near the simplex's border
        others = sums.side_sum + 1 - beta_y.exp()
        cross = torch.linalg.vecdot(alpha, others) / alpha.shape[-1]
        rest = wrong * divergence_from_uniform(alpha, torch.expm1(alpha), forward=False) - cross
    else:
        excess = torch.expm1(alpha)
        own = concentration(alpha, beta_y)
        cross = torch.linalg.vecdot(excess, sums.side_sum - beta_y) / alpha.shape[-1]
        rest = wrong * divergence_from_uniform(alpha, excess, forward=True) - cross
    return own, wrong_sum(rest, view.own_gaps(labels), sums.gap_sum)


def wrong_sum(rest: Tensor, own_gaps: Tensor, gap_sum: Tensor) -> Tensor:
    """Σ over the wrong classes from its two parts, ``rest [B]`` and the gaps of all classes but the own; > 0.

    A sum that is lost in rounding, where with two classes P is the wrong centroid itself, is raised to that rounding.
    """
    gaps = gap_sum - own_gaps
    return _at_least_rounding(rest + gaps, gaps)


def _at_least_rounding(divergence: Tensor, apart: Tensor) -> Tensor:
    """``divergence``, the small difference of terms of the size of ``apart``, but no less than their rounding error."""
    return torch.maximum(divergence, rounding_of(apart))


def rounding_of(apart: Tensor) -> Tensor:
    """Rounding error of terms of the size of ``apart``, above 0; a constant."""
    limits = torch.finfo(apart.dtype)
    return (apart.detach() * limits.eps).clamp_min(limits.tiny)


def least_exactly(divergence: Tensor, column: Tensor, exact: Tensor, rounding: Tensor) -> Tensor:
    """A table of divergences ``[B, C]`` with each row's least one as it is exactly, the others at least their rounding.

    Where rounding is all that is known of several of a row's entries they are made equal: else it would count as
    certain of the one that is exact, or that rounding favors.

    Args:
        divergence: by one matrix product, as of :func:`pairwise_divergence`.
        column: of the least one, ``[B, 1]``.
        exact: that one by :func:`concentration`, ``[B, 1]``.
        rounding: of the table's entries, ``[B, 1]``.
    """
    limit = rounding * ROUNDED
    crowded = (divergence <= limit).sum(1, keepdim=True) >= 2
    divergence = torch.maximum(divergence, torch.where(crowded, limit, rounding))
    exact = exact.clamp_min(least_exact(exact))
    return torch.where(crowded, divergence, divergence.scatter(1, column, exact))


def least_exact(values: Tensor) -> float:
    """What divergences computed exactly are raised to, so that they have a logarithm: less than their own rounding."""
    return torch.finfo(values.dtype).eps ** 2 / 64


def concentration(alpha: Tensor, beta: Tensor) -> Tensor:
    """``KL(P‖Q)`` row by row: ``α [B, D]`` and ``β [B, D]`` → ``[B]``, ≥ 0."""
    return concentration_terms(alpha, beta).mean(-1)


def concentration_terms(alpha: Tensor, beta: Tensor) -> Tensor:
    """``e^α (e^δ − 1 − δ)`` of ``α [B, D]`` and ``β [B, D]``, ``[B, D]``, ≥ 0; finite also where e^α is 0."""
    delta = beta - alpha
    ratio = alpha.exp()
    # beyond 1 nothing cancels, and e^δ may be more than a number holds
    near = delta.clamp_max(1.0)
    return torch.where(delta > 1, beta.exp() - ratio * (1 + delta), ratio * (torch.expm1(near) - near))


class _Product(torch.autograd.Function):
    """``x @ yᵀ`` whose gradient has full precision too, also where ``backward`` is called inside autocast."""

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        with full_products(x):
            return x @ y.T

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, y = ctx.saved_tensors
        by_x, by_y = ctx.needs_input_grad
        with full_products(x):
            gradient = gradients[0]
            return row_products(gradient, y.T) if by_x else None, row_products(gradient.T, x.T) if by_y else None


def row_products(x: Tensor, y: Tensor) -> Tensor:
    """``x @ yᵀ``, ``[B, D]`` by ``[C, D]``, in full precision, differentiable any number of times."""
    if by_hand(x, y):
        product: Tensor = _Product.apply(x, y)  # type: ignore[no-untyped-call]
        return product
    with full_products(x):
        return x @ y.T


def pairwise_divergence(alpha: Tensor, side: Tensor, gap: Tensor, direction: Direction) -> Tensor:
    """``KL(Q_c‖P_b)`` (or ``KL(P_b‖Q_c)``) of all pairs, ``[B, C]``, by one matrix product; > 0.

    Its rounding error is about one unit in the last place of ``KL(·‖U)``. Divergences below that are raised to it,
    so that their logarithm exists; the limit scales with the data and vanishes in no dtype.

    Args:
        alpha: ``[B, D]``, ``log(D·P)``.
        side, gap: from :func:`centroid_table`, in the same direction.
        direction: which way the divergence goes.
    """
    to_sample = direction == "centroid_to_sample"
    excess = torch.expm1(alpha)
    apart = gap + divergence_from_uniform(alpha, excess, forward=not to_sample).unsqueeze(-1)
    product = row_products(alpha if to_sample else excess, side)
    divergence = apart - product / alpha.shape[-1]
    return _at_least_rounding(divergence, apart)
