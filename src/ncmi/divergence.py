"""The Kullback–Leibler divergences of the loss, without a B×C×D tensor and without float32 cancellation.

At T = 0.2 and D = 512 every probability lies within a factor 1.4 of uniform and the divergences are about 1e-3, so
``Σ P (log P − log Q)`` loses four digits in float32. Everything here works with log-ratios to uniform,
``α = log(D·P)`` and ``β_c = log(D·Q_c)``, and with forms of second order in them:

    KL(P‖Q)   = mean_i e^α (e^δ − 1 − δ),  δ = β − α                      non-negative term by term
    KL(Q_c‖P) = KL(Q_c‖U) + KL(U‖P) − mean_i (e^β_c − 1)·α                a matrix product
    KL(P‖Q_c) = KL(U‖Q_c) + KL(P‖U) − mean_i β_c·(e^α − 1)                a matrix product

They equal the plain sums for distributions, and so do the gradients of whatever produced the distributions.
(The direction that would break ``Σ P = 1`` is the one they leave out; it never reaches a feature or a logit.)

The two autograd functions hold the time of a step: written by hand they take half the passes over memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ncmi.options import Direction

_BLOCK = 2**18  # elements of a C×D table worked on at a time: 1 MB in float32, so that it stays in the cache


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
        divergence: Tensor = (torch.linalg.vecdot(beta, excess) + (beta - excess).sum(-1)) / beta.shape[-1]
        return divergence
    return (excess - beta).mean(-1)


def centroid_table(log_q: Tensor, direction: Direction) -> tuple[Tensor, Tensor]:
    """The centroids' factor ``side [C, D]`` in the matrix product and their ``gap [C]``; see :class:`CentroidSums`."""
    beta = ratio_to_uniform(log_q)
    excess = torch.expm1(beta)
    if direction == "centroid_to_sample":
        return excess, divergence_from_uniform(beta, excess, forward=True)
    return beta, divergence_from_uniform(beta, excess, forward=False)


def centroid_sums(log_q: Tensor, direction: Direction) -> CentroidSums:
    """Sums over the centroids ``log_q [C, D]``."""
    side, gap = centroid_table(log_q, direction)
    return CentroidSums(gap, gap.sum(), side.sum(0))


def _blocks(table: Tensor) -> Iterator[slice]:
    rows, width = table.shape
    step = rows if torch.compiler.is_compiling() or table.is_cuda else max(1, _BLOCK // width)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


class _NSFCentroidSums(torch.autograd.Function):
    """``gap`` and ``side_sum`` of the centroids ``NSF(Λ)``, direction centroid to sample, straight from Λ."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
        gap = logits.new_empty(logits.shape[0])
        side_sum = logits.new_zeros(logits.shape[1])
        beta, excess = torch.empty_like(logits), torch.empty_like(logits)
        lowest = torch.finfo(logits.dtype).eps / 2 - 1
        for rows in _blocks(logits):
            q = torch.sigmoid(logits[rows])
            # a ratio to uniform that rounds to 0 keeps a finite logarithm: here it is multiplied by the ratio itself
            torch.div(q, q.mean(-1, keepdim=True), out=excess[rows]).sub_(1).clamp_min_(lowest)
            torch.log1p(excess[rows], out=beta[rows])
            side_sum += excess[rows].sum(0)
            gap[rows] = divergence_from_uniform(beta[rows], excess[rows], forward=True)
        ctx.save_for_backward(logits, beta, excess)
        return gap, side_sum

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        logits, beta, excess = ctx.saved_tensors
        by_gap = (gradients[0] / logits.shape[1]).unsqueeze(-1)
        out = torch.empty_like(logits)
        for rows in _blocks(logits):
            q = excess[rows] + 1
            by_beta = torch.addcmul(gradients[1], beta[rows], by_gap[rows]).mul_(q)
            by_beta.addcmul_(q, by_beta.mean(-1, keepdim=True), value=-1)
            torch.mul(by_beta, torch.sigmoid(-logits[rows]), out=out[rows])
        return out


def nsf_centroid_sums(logits: Tensor) -> CentroidSums:
    """:func:`centroid_sums` of ``log_nsf(logits)``, direction centroid to sample, in a third of the time."""
    gap, side_sum = _NSFCentroidSums.apply(logits)
    return CentroidSums(gap, gap.sum(), side_sum)


class _LinearTerms(torch.autograd.Function):
    """``KL(P‖Q_y)``, and ``Σ_{c≠y} KL(Q_c‖P)`` short of its constants, in one pass over the sample."""

    @staticmethod
    def forward(ctx: Any, alpha: Tensor, beta: Tensor, side_sum: Tensor, wrong: int) -> tuple[Tensor, Tensor]:
        dim = alpha.shape[-1]
        excess = torch.expm1(alpha)
        p = excess + 1
        delta = beta - alpha
        growth = torch.expm1(delta)
        q = torch.addcmul(p, p, growth)
        own = torch.linalg.vecdot(p, growth.sub_(delta)) / dim
        others = side_sum + 1 - q
        rest = (wrong * (excess - alpha).sum(-1) - torch.linalg.vecdot(alpha, others)) / dim
        ctx.save_for_backward(alpha, excess, p, delta, q, others)
        ctx.wrong = wrong
        return own, rest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        alpha, excess, p, delta, q, others = ctx.saved_tensors
        by_own, by_rest = ((gradient / alpha.shape[-1]).unsqueeze(-1) for gradient in gradients)
        by_alpha = (excess * ctx.wrong).sub_(others).mul_(by_rest).addcmul_(p * delta, by_own, value=-1)
        by_beta = by_side = None
        if ctx.needs_input_grad[1]:
            by_beta = ((q - p) * by_own).addcmul_(alpha * q, by_rest)
        if ctx.needs_input_grad[2]:
            by_side = -(alpha * by_rest).sum(0)
        return by_alpha, by_beta, by_side, None


def own_and_wrong_sum(
    alpha: Tensor, beta_y: Tensor, labels: Tensor, sums: CentroidSums, direction: Direction
) -> tuple[Tensor, Tensor]:
    """``KL(P‖Q_y)`` and the sum over the wrong classes of ``KL(Q_c‖P)`` (or ``KL(P‖Q_c)``), in O(B·D).

    Args:
        alpha: ``[B, D]``, ``log(D·P)``.
        beta_y: ``[B, D]``, ``log(D·Q_y)`` of each sample's own class.
        labels: ``[B]``.
        sums: of all C centroids, in the same direction.
        direction: of the divergence from the wrong classes.
    """
    wrong = sums.gap.shape[0] - 1
    if direction == "centroid_to_sample":
        own, rest = _LinearTerms.apply(alpha, beta_y, sums.side_sum, wrong)
    else:
        excess = torch.expm1(alpha)
        own = concentration(alpha, beta_y)
        cross = torch.linalg.vecdot(excess, sums.side_sum - beta_y) / alpha.shape[-1]
        rest = wrong * divergence_from_uniform(alpha, excess, forward=True) - cross
    return own, rest + (sums.gap_sum - sums.gap.index_select(0, labels))


def concentration(alpha: Tensor, beta: Tensor) -> Tensor:
    """``KL(P‖Q)`` row by row: ``α [B, D]`` and ``β [B, D]`` → ``[B]``, ≥ 0."""
    delta = beta - alpha
    divergence: Tensor = torch.linalg.vecdot(alpha.exp(), torch.expm1(delta) - delta) / alpha.shape[-1]
    return divergence


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
    divergence = apart - (alpha if to_sample else excess) @ side.T / alpha.shape[-1]
    limits = torch.finfo(alpha.dtype)
    return torch.maximum(divergence, (apart.detach() * limits.eps).clamp_min(limits.tiny))
