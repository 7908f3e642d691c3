"""The likelihood form, ``−log π_y`` for ``π_c ∝ KL(P‖Q_c)^p``, and its gradient, as one function.

It is the cross-entropy of the logits ``p·log KL(P‖Q_c)`` with divergences as in
:func:`ncmi.divergence.pairwise_divergence`, but for two things that training makes small and float32 would lose: the
own class's divergence comes from the form without cancellation, and 1 − π_y from the wrong classes. Written by hand,
since with one bag or a few samples a step the time goes by the number of kernels: by autograd it takes twice as many.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ncmi.divergence import divergence_from_uniform, rounding_of

_ROUNDED = 1 / 16  # share of a divergence by which the table's entry may be off before it counts as rounding


class _Surprisal(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, alpha: Tensor, beta: Tensor, gap: Tensor, labels: Tensor, power: float
    ) -> tuple[Tensor, Tensor]:
        labels, dim = labels.unsqueeze(-1), alpha.shape[-1]
        excess = torch.expm1(alpha)
        apart = gap + divergence_from_uniform(alpha, excess, forward=True).unsqueeze(-1)
        least = rounding_of(apart)
        divergence = torch.maximum(apart - excess @ beta.T / dim, least)
        # the own class once more, every term of the sum positive
        delta = beta.index_select(0, labels.squeeze(-1)) - alpha
        own = torch.linalg.vecdot(alpha.exp(), torch.expm1(delta).sub_(delta)).div_(dim).unsqueeze(-1)
        rounded = divergence.gather(1, labels)
        own = torch.where((rounded - own).abs() < _ROUNDED * own, own, rounded)
        divergence.scatter_(1, labels, own)
        logits = divergence.log().mul_(power)
        wrong = logits.scatter(1, labels, -torch.inf)
        total = wrong.logsumexp(1, keepdim=True)
        margin = total - logits.gather(1, labels)
        # the gradient by each logit, π_c or π_y − 1, and with it by each divergence times D
        missing = torch.sigmoid(margin)
        slope = (wrong - total).exp_().mul_(missing).scatter_(1, labels, -missing).div_(divergence).mul_(power / dim)
        # what has been raised to its rounding does not follow its input
        slope.masked_fill_(divergence == least, 0.0)
        ctx.save_for_backward(alpha, beta, excess, delta, slope, labels)
        ctx.mark_non_differentiable(logits)
        # log(1 + e^margin) without overflow; torch's softplus leaves out the 1 from e^20 on
        return F.logsigmoid(-margin.squeeze(1)).neg_(), logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        alpha, beta, excess, delta, slope, labels = ctx.saved_tensors
        weight = gradients[0].unsqueeze(-1) * slope
        by_alpha = by_beta = None
        with torch.autocast(alpha.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                # Σ_c w_c (α − β_c), the own class by itself: it has the largest weight and the smallest difference
                wrong = weight.scatter(1, labels, 0.0)
                by_alpha = torch.addcmul(wrong.sum(1, keepdim=True) * alpha, weight.gather(1, labels), delta, value=-1)
                by_alpha = by_alpha.addmm(wrong, beta, alpha=-1).mul_(alpha.exp())
            if ctx.needs_input_grad[1]:
                by_beta = (weight.sum(0).unsqueeze(-1) * torch.expm1(beta)).addmm(weight.T, excess, alpha=-1)
        return by_alpha, by_beta, None, None, None


def likelihood_surprisal(
    alpha: Tensor, beta: Tensor, gap: Tensor, labels: Tensor, power: float
) -> tuple[Tensor, Tensor]:
    """``−log π_y`` in nats, ``[B]``, and without gradient the logits ``p·log KL(P‖Q_c)`` of π, ``[B, C]``.

    Where rounding is all that is left of the own class's divergence in the table, it is as rounded as the others: else
    a sample that lies at every centroid at once would count as certain of its own.

    Args:
        alpha: ``log(D·P)``, ``[B, D]``.
        beta: ``log(D·Q)``, ``[C, D]``.
        gap: ``KL(U‖Q_c)``, ``[C]``, from the same β; its gradient is part of β's.
        labels: ``[B]``.
        power: p < 0.
    """
    surprisal: Tensor
    surprisal, logits = _Surprisal.apply(alpha, beta, gap, labels, power)  # type: ignore[no-untyped-call]
    return surprisal, logits
