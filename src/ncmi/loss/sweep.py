"""The paper's a and b on the CPU, from features and centroid logits straight to the two divergences.

The same sums as :mod:`ncmi.loss.divergence` has for p = 1, with the normalized sigmoid and its gradient inside, over
blocks of rows that stay in the cache: a step is bound by memory, and by separate functions it takes twice the time.
Those over the centroids are in :mod:`ncmi.loss.class_sums`.
With ``r = D·P``, ``q_c = D·Q_c``, ``α = log r``, ``β_c = log q_c`` and ``δ = β_y − α``:

    D·KL(P‖Q_y)            = Σ_i r (e^δ − 1 − δ),  e^δ − 1 = (q_y − r)/r and δ = log1p of that: no exponential
    D·Σ_{c≠y} KL(Q_c‖P)    = Σ_{c≠y} D·KL(Q_c‖U) + (C−1) Σ_i (r − 1 − α) − Σ_i α Σ_{c≠y} (q_c − 1)

Gradients of gradients go by the plain twins.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ncmi.loss.autograd import differentiable_backward
from ncmi.loss.divergence import CentroidView, concentration, wrong_sum
from ncmi.loss.simplex import length, log_ratio

_BLOCK = 2**16  # elements worked on at a time: 256 KB in float32
_LOG2_E = math.log2(math.e)
_NEAR_ZERO = -0.9  # log1p(x) below this has lost digits of 1 + x


def _blocks(rows: Tensor, scratch: int) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the rows, and as many working tables of that shape as asked for, the same memory every time."""
    step = max(1, _BLOCK // rows.shape[1])
    tables = rows.new_empty(scratch, min(step, rows.shape[0]), rows.shape[1])
    for start in range(0, rows.shape[0], step):
        stop = min(start + step, rows.shape[0])
        yield slice(start, stop), tables[:, : stop - start]


def _exp(x: Tensor, out: Tensor) -> Tensor:
    """``e^x``; by way of 2^x, for which torch has the faster kernel."""
    return torch.mul(x, _LOG2_E, out=out).exp2_()


def _plain_sample(
    f: Tensor, scale: Tensor, temperature: float, beta: Tensor, side_sum: Tensor, wrong: int
) -> tuple[Tensor, Tensor]:
    alpha = log_ratio(f / (length(f) * temperature), "nsf")
    from_uniform = (torch.expm1(alpha) - alpha).sum(-1)
    rest = wrong * from_uniform - torch.linalg.vecdot(alpha, side_sum + 1 - beta.exp())
    return concentration(alpha, beta) * f.shape[-1], rest


class _SweepSample(torch.autograd.Function):
    """``D·KL(P‖Q_y)``, and ``D·Σ_{c≠y} KL(Q_c‖P)`` short of its constants; P = NSF(f/scale), scale = T·‖f‖."""

    @staticmethod
    def forward(
        ctx: Any, f: Tensor, scale: Tensor, temperature: float, beta: Tensor, side_sum: Tensor, wrong: int
    ) -> tuple[Tensor, Tensor]:
        ratio, delta = torch.empty_like(f), torch.empty_like(f)
        own, rest = f.new_empty(len(f)), f.new_empty(len(f))
        q_sum = side_sum + 1  # Σ_{c≠y} (q_c − 1) = side_sum − (q_y − 1)
        for rows, (x, y, z) in _blocks(f, 3):
            r, d = ratio[rows], delta[rows]
            torch.div(f[rows], scale[rows], out=r).sigmoid_()
            r.div_(r.mean(-1, keepdim=True))
            q = _exp(beta[rows], out=x)
            growth = torch.sub(q, r, out=y).div_(r)
            torch.log1p(growth, out=d)
            if float(growth.amin()) < _NEAR_ZERO:
                torch.where(growth < _NEAR_ZERO, beta[rows] - r.log(), d, out=d)
            torch.sum(growth.sub_(d).mul_(r), -1, out=own[rows])
            alpha = torch.sub(beta[rows], d, out=y)
            linear = torch.sub(q_sum, q, out=z).mul_(alpha).sum(-1)
            from_uniform = torch.sub(r, 1, out=z).sub_(alpha).sum(-1)
            torch.sub(from_uniform.mul_(wrong), linear, out=rest[rows])
        ctx.save_for_backward(f, scale, ratio, delta, beta, side_sum)
        ctx.temperature, ctx.wrong = temperature, wrong
        return own, rest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        f, scale, ratio, delta, beta, side_sum = ctx.saved_tensors
        if torch.is_grad_enabled():
            inputs = (f, scale, ctx.temperature, beta, side_sum, ctx.wrong)
            return differentiable_backward(_plain_sample, inputs, ctx.needs_input_grad, gradients)
        by_own, by_rest = gradients
        q_sum = side_sum + 1
        by_f = torch.empty_like(f)
        by_beta = torch.empty_like(f) if ctx.needs_input_grad[3] else None
        by_side = torch.zeros_like(q_sum)
        for rows, (x, y, z) in _blocks(f, 3):
            r, out, own, rest = ratio[rows], by_f[rows], by_own[rows].unsqueeze(-1), by_rest[rows].unsqueeze(-1)
            q = _exp(beta[rows], out=x)
            # the large constant C − 1 goes with r − 1, to which the projection below would take it, but for rounding
            torch.sub(q, q_sum, out=out).add_(torch.sub(r, 1, out=y), alpha=ctx.wrong).mul_(rest / scale[rows])
            out.addcmul_(torch.mul(r, delta[rows], out=y), own / scale[rows], value=-1)
            # through log NSF, then through the unit vector
            out.addcmul_(r, out.mean(-1, keepdim=True), value=-1)
            opposite = torch.div(f[rows], -scale[rows], out=y)
            out.mul_(torch.sigmoid(opposite, out=z))
            along = torch.mul(opposite, out, out=z).sum(-1, keepdim=True).mul_(ctx.temperature**2)
            out.addcmul_(opposite, along, value=-1)
            if by_beta is not None:
                alpha = torch.sub(beta[rows], delta[rows], out=y)
                torch.sub(q, r, out=by_beta[rows]).mul_(own).addcmul_(torch.mul(alpha, q, out=z), rest)
                by_side -= alpha.mul_(rest).sum(0)
        return by_f, None, None, by_beta, by_side if ctx.needs_input_grad[4] else None, None


def sweep_terms(centered: Tensor, temperature: float, labels: Tensor, centroids: CentroidView) -> tuple[Tensor, Tensor]:
    """a and b of the paper: ``KL(P‖Q_y)`` and ``(1/C) Σ_{c≠y} KL(Q_c‖P)``, ``[B, 1]`` each.

    Args:
        centered: features less their center, ``[B, D]``, on the CPU, float32 or float64.
        temperature: T, at least ``1/STEEPEST`` of :mod:`ncmi.loss.likelihood`.
        labels: ``[B]``.
        centroids: constants, or learned ones by their sums.
    """
    sums, beta = centroids.sums(), centroids.own_rows(labels)
    scale = length(centered.detach()) * temperature
    wrong = centroids.num_classes - 1
    own, rest = _SweepSample.apply(centered, scale, temperature, beta, sums.side_sum, wrong)  # type: ignore[no-untyped-call]
    dim = centered.shape[1]
    separation = wrong_sum(rest / dim, centroids.own_gaps(labels), sums.gap_sum) / centroids.num_classes
    return (own / dim).unsqueeze(-1), separation.unsqueeze(-1)
