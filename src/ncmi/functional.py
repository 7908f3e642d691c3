"""The NCMI loss as a pure function of log-distributions: concentration over separation, sample by sample.

Per sample with label y, ``a = KL(P‖Q_y)`` is the concentration and ``b`` the separation from the wrong classes:

    p = 1:   b   = (1/C) Σ_{c≠y} KL(Q_c‖P)                      the paper's; linear time, no B×C matrix
    else:    b_p = (mean_{c≠y} KL(Q_c‖P)^p)^{1/p}               p → −∞ is the nearest wrong class

The loss is the mean of a/b, the ratio of the means, or ``log(1 + (C−1)·(a/b_p)^{−p})``, which for the direction
``KL(P‖Q_c)`` is the negative logarithm of the likelihood ``π_y ∝ KL(P‖Q_y)^p``. With a robustness q > 0 the last is
``(1 − π_y^q)/q`` instead: bounded, so that no wrong label can pull hard; q → 0 is the logarithm, q = 1 is 1 − π_y.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ncmi.checks import check_targets
from ncmi.divergence import (
    CentroidSums,
    centroid_sums,
    centroid_table,
    concentration,
    own_and_wrong_sum,
    pairwise_divergence,
    ratio_to_uniform,
)
from ncmi.likelihood import likelihood_surprisal
from ncmi.options import Direction, Reduction
from ncmi.simplex import full_precision

REDUCTIONS = ("mean_of_ratios", "ratio_of_means", "log_likelihood", "none")
DIRECTIONS = ("centroid_to_sample", "sample_to_centroid")


class CentroidView:
    """Centroids as the loss looks at them. What it has computed once it keeps: constants of a step, or of a run."""

    def __init__(self, log_q: Tensor, direction: Direction) -> None:
        self.beta = ratio_to_uniform(log_q)
        self.direction: Direction = direction
        # by hand, since torch.compile cannot see through functools.cached_property
        self._sums: CentroidSums | None = None
        self._tables: dict[Direction, tuple[Tensor, Tensor]] = {}

    def own_rows(self, labels: Tensor) -> Tensor:
        """``log(D·Q_y)`` of each label's centroid, ``[B, D]``."""
        return self.beta.index_select(0, labels)

    def sums(self) -> CentroidSums:
        """What p = 1 needs of the centroids."""
        if self._sums is None:
            self._sums = centroid_sums(self.beta, self.direction)
        return self._sums

    def gap_from_uniform(self) -> Tensor:
        """``KL(U‖Q_c)`` of every centroid, ``[C]``, without gradient."""
        if "sample_to_centroid" in self._tables:
            return self._tables["sample_to_centroid"][1].detach()
        return centroid_table(self.beta.detach(), "sample_to_centroid")[1]

    def table(self, direction: Direction | None = None) -> tuple[Tensor, Tensor]:
        """Side and gap of every centroid, by default in the view's own direction."""
        direction = direction or self.direction
        if direction not in self._tables:
            self._tables[direction] = centroid_table(self.beta, direction)
        return self._tables[direction]


def ncmi_loss(
    log_p: Tensor,
    labels: Tensor,
    log_q: Tensor,
    *,
    reduction: Reduction = "mean_of_ratios",
    separation_power: float = 1.0,
    separation_direction: Direction = "centroid_to_sample",
    robustness: float | Tensor = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Normalised conditional mutual information of a batch: concentration over separation.

    Args:
        log_p: log-distributions of the samples, ``[B, D]``; half precision is taken to float32.
        labels: class indices ``[B]``, or soft targets ``[B, C]`` whose rows sum to one. The loss of a soft target
            is the expectation of the loss over it (of a and b each, for ``"ratio_of_means"``).
        log_q: log-distributions of the centroids, ``[C, D]``.
        reduction: ``"mean_of_ratios"``, mean(a/b), the released script; ``"ratio_of_means"``, mean(a)/mean(b), the
            paper's Eq. 8–10; ``"log_likelihood"``, the mean of ``log(1 + (C−1)·(a/b_p)^{−p})``, which needs p < 0 and
            is a proper likelihood in the direction ``"sample_to_centroid"``; ``"none"``, a/b for each sample.
        separation_power: p. 1 is the paper's b (with its 1/C); any other takes the power mean over the C − 1 wrong
            classes, 0 the geometric mean, ±inf the largest or the smallest.
        separation_direction: ``KL(Q_c‖P)`` or ``KL(P‖Q_c)`` for the wrong classes.
        robustness: q in [0, 1], with ``"log_likelihood"`` alone: ``(1 − π^q)/q`` in place of ``−log π``. A tensor with
            one value is taken as it is, and must be above 0.
        class_weights: ``[C]``, ≥ 0: weights of the samples by class; the mean is the weighted mean, as
            ``torch.nn.functional.cross_entropy`` has it.

    Returns:
        Scalar, or ``[B]`` for ``"none"``; float32, or float64 for float64 input; ≥ 0.

    Raises:
        ValueError: for shapes that do not fit, labels out of range, fewer than two classes, an empty batch, and (on the
            CPU) distributions that are NaN.

    Source: arXiv 2601.02543, Eq. 8–10; the separation power and the likelihood form are this library's, the bounded
    form of a likelihood is from Zhang & Sabuncu 2018 (generalised cross-entropy).

    Example:
        >>> import torch
        >>> log_q = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]]).log()
        >>> ncmi_loss(log_q, torch.tensor([0, 1]), log_q)
        tensor(0.)
    """
    log_p, log_q = full_precision(log_p), full_precision(log_q)
    _check_shapes(log_p, log_q)
    view = CentroidView(log_q, separation_direction)
    return ncmi_loss_of_view(
        log_p,
        labels,
        view,
        num_classes=log_q.shape[0],
        reduction=reduction,
        separation_power=separation_power,
        robustness=robustness,
        class_weights=class_weights,
    )


def ncmi_loss_of_view(
    log_p: Tensor,
    labels: Tensor,
    view: CentroidView,
    *,
    num_classes: int,
    reduction: Reduction,
    separation_power: float,
    robustness: float | Tensor,
    class_weights: Tensor | None,
) -> Tensor:
    """:func:`ncmi_loss` for centroids that remember what they have computed; see there."""
    check_options(reduction, separation_power, view.direction, robustness)
    check_targets(labels, log_p.shape[0], num_classes)
    if not labels.is_floating_point():
        labels = labels.long()
    with torch.autocast(log_p.device.type, enabled=False):
        alpha = ratio_to_uniform(log_p)
        hard = not labels.is_floating_point()
        if hard and reduction == "log_likelihood" and view.direction == "sample_to_centroid":
            gap = view.gap_from_uniform()
            losses, logits = likelihood_surprisal(alpha, view.beta, gap, labels, separation_power)
            check_finite(logits)
            losses = bounded(losses, robustness)
            if class_weights is None:
                return losses.mean()
            weights = _checked(class_weights, num_classes).to(losses).index_select(0, labels)
            return (weights * losses).sum() / weights.sum()
        own, separation = (_hard_terms if hard else _soft_terms)(alpha, labels, view, separation_power)
        check_finite(own, separation)
        return reduce_terms(
            own, separation, labels, num_classes, reduction, separation_power, robustness, class_weights
        )


def reduce_terms(
    own: Tensor,
    separation: Tensor,
    labels: Tensor,
    num_classes: int,
    reduction: Reduction,
    power: float,
    robustness: float | Tensor,
    class_weights: Tensor | None,
) -> Tensor:
    """The loss of a and b: ``[B, 1]`` for hard labels and ``[B, C]`` for soft ones, where every class may be "own"."""
    soft = labels.is_floating_point()
    targets = labels.to(own.dtype) if soft else own.new_ones(len(labels), 1)
    if class_weights is not None:
        weights = _checked(class_weights, num_classes).to(own)
        targets = targets * (weights if soft else weights.index_select(0, labels).unsqueeze(-1))
    if reduction == "ratio_of_means":
        return (targets * own).sum() / (targets * separation).sum()
    ratio = own / separation
    if reduction == "log_likelihood":
        tiny = torch.finfo(ratio.dtype).tiny
        # log(1 + x); torch's softplus leaves out the 1 from e^20 on
        ratio = bounded(-F.logsigmoid(power * ratio.clamp_min(tiny).log() - math.log(num_classes - 1)), robustness)
    losses = (targets * ratio).sum(-1)
    if reduction == "none":
        return losses
    return losses.sum() / (len(losses) if class_weights is None else targets.sum())


def bounded(surprisal: Tensor, robustness: float | Tensor) -> Tensor:
    """``(1 − π^q)/q`` of ``−log π``, for q > 0 at most 1/q; itself for the number q = 0."""
    if not isinstance(robustness, Tensor) and robustness == 0:
        return surprisal
    return -torch.expm1(-robustness * surprisal) / robustness


def likelihood_power(num_classes: int) -> float:
    """The default γ = −p for C classes, ``max(4, 2 log C)``.

    For π_y to win over C − 1 classes at typical distance, ``(a/b)^γ`` must be below 1/C: what ratio a/b that asks for
    depends on γ/log C alone. Fixed γ would ask more of the features the more classes there are.

    >>> likelihood_power(2), round(likelihood_power(100), 2)
    (4.0, 9.21)
    """
    return max(4.0, 2 * math.log(num_classes))


def _checked(class_weights: Tensor, num_classes: int) -> Tensor:
    if class_weights.shape != (num_classes,):
        raise ValueError(f"class_weights {list(class_weights.shape)}: expected [{num_classes}], one for each class")
    return class_weights


def _hard_terms(alpha: Tensor, labels: Tensor, view: CentroidView, power: float) -> tuple[Tensor, Tensor]:
    """a and b of each sample's own class: ``[B, 1]`` each."""
    rows = view.own_rows(labels)
    if power == 1:
        own, wrong_sum = own_and_wrong_sum(alpha, rows, labels, view.sums(), view.direction)
        separation = wrong_sum.unsqueeze(-1) / view.sums().gap.shape[0]
    else:
        own = concentration(alpha, rows)
        of_all = wrong_class_mean(pairwise_divergence(alpha, *view.table(), view.direction), power)
        separation = of_all.gather(1, labels.unsqueeze(-1))
    return own.unsqueeze(-1), separation


def _soft_terms(alpha: Tensor, labels: Tensor, view: CentroidView, power: float) -> tuple[Tensor, Tensor]:
    """a and b for every class that a sample might have: ``[B, C]`` each."""
    own = pairwise_divergence(alpha, *view.table("sample_to_centroid"), "sample_to_centroid")
    same = view.direction == "sample_to_centroid"
    divergence = own if same else pairwise_divergence(alpha, *view.table(), view.direction)
    if power == 1:
        return own, (divergence.sum(-1, keepdim=True) - divergence) / divergence.shape[1]
    return own, wrong_class_mean(divergence, power)


def wrong_class_mean(divergence: Tensor, power: float) -> Tensor:
    """Power mean of each row without one entry, for every choice of that entry: ``[B, C] → [B, C]``, positive values.

    The largest term is never subtracted from a sum that it dominates: without it, the others are summed afresh.
    """
    wrong = divergence.shape[1] - 1
    log_divergence = divergence.log()
    if power == 0:
        return ((log_divergence.sum(1, keepdim=True) - log_divergence) / wrong).exp()
    sign = math.copysign(1, power)
    x = log_divergence * (sign if math.isinf(power) else power)
    is_largest = F.one_hot(x.argmax(1), wrong + 1).bool()
    others = x.masked_fill(is_largest, -torch.inf)
    if math.isinf(power):
        return (torch.where(is_largest, others.amax(1, keepdim=True), x.amax(1, keepdim=True)) * sign).exp()
    total = x.logsumexp(1, keepdim=True)
    share = (x - total).masked_fill(is_largest, -torch.inf).exp()
    log_sum = torch.where(is_largest, others.logsumexp(1, keepdim=True), total + torch.log1p(-share))
    return ((log_sum - math.log(wrong)) / power).exp()


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError, listing the choices, for a value that is none of them."""
    if value not in choices:
        raise ValueError(f"unknown {name} {value!r}: use one of {', '.join(choices)}")


def check_options(
    reduction: str, separation_power: float, separation_direction: str, robustness: float | Tensor = 0.0
) -> None:
    """Check the options that the function and the module share.

    Raises:
        ValueError: for an unknown name, a power that is not a number, a likelihood with p ≥ 0, a robustness outside
            [0, 1] or without likelihood.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    check_choice("separation_direction", separation_direction, DIRECTIONS)
    if math.isnan(separation_power):
        raise ValueError("separation_power is NaN: use 1 (the paper) or a negative power such as -4")
    if reduction == "log_likelihood" and not -math.inf < separation_power < 0:
        raise ValueError(
            f"reduction='log_likelihood' needs a finite separation_power below 0, got {separation_power}: use e.g. -4"
        )
    # a tensor is not looked at: that would wait for the device
    given = isinstance(robustness, Tensor)
    if not given and not 0 <= robustness <= 1:
        raise ValueError(f"robustness={robustness}: choose 0 (clean labels) to 1, for the module also 'auto'")
    if (given or robustness > 0) and reduction != "log_likelihood":
        raise ValueError(f"robustness={robustness} bounds a likelihood: use it with reduction='log_likelihood', or 0")


def _check_shapes(log_p: Tensor, log_q: Tensor) -> None:
    if log_p.dim() != 2 or log_q.dim() != 2 or log_p.shape[1] != log_q.shape[1]:
        raise ValueError(
            f"log_p {list(log_p.shape)} and log_q {list(log_q.shape)} must be [B, D] and [C, D] with the same D"
        )
    if log_q.shape[0] < 2 or log_q.shape[1] < 2:
        raise ValueError(f"log_q {list(log_q.shape)}: separation needs at least C=2 classes and a simplex of D=2")


def check_finite(*divergences: Tensor) -> None:
    """Raise ValueError for divergences ``[B, ...]`` that are not finite, on the CPU: elsewhere a look would stall."""
    if divergences[0].device.type != "cpu" or torch.compiler.is_compiling():
        return
    # the sum over a row is finite where all of the row is
    finite = divergences[0].detach().sum(-1).isfinite()
    for divergence in divergences[1:]:
        finite = finite & divergence.detach().sum(-1).isfinite()
    if not bool(finite.all()):
        raise ValueError(
            f"row {int(finite.int().argmin())} of the batch has no finite divergence from the centroids. Features that "
            "are NaN, infinite or beyond 1e19: lower the learning rate, clip gradients, look for NaN in the input. "
            "A probability of exactly 0: take log_softmax or log_nsf of logits, not the logarithm of probabilities"
        )
