"""The NCMI loss as a pure function of log-distributions: concentration over separation, sample by sample.

Per sample with label y, ``a = KL(P‖Q_y)`` is the concentration and ``b`` the separation from the wrong classes:

    p = 1:   b   = (1/C) Σ_{c≠y} KL(Q_c‖P)                      the paper's; linear time, no B×C matrix
    else:    b_p = (mean_{c≠y} KL(Q_c‖P)^p)^{1/p}               p → −∞ is the nearest wrong class

The loss is the mean of a/b, the ratio of the means, or ``log(1 + (C−1)·(a/b_p)^{−p})``, which for the direction
``KL(P‖Q_c)`` is the negative logarithm of the likelihood ``π_y ∝ KL(P‖Q_y)^p``. With a robustness q > 0 the last is
``(1 − π_y^q)/q`` instead: bounded, so that no wrong label can pull hard; q → 0 is the logarithm, q = 1 is 1 − π_y.

:mod:`ncmi.loss.equation` has the same in plain sums; :func:`choose_path` says which code computes what.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ncmi.loss.checks import check_targets
from ncmi.loss.divergence import CentroidView, concentration, own_and_wrong_sum, pairwise_divergence, ratio_to_uniform
from ncmi.loss.forms import Direction, Distribution, Reduction, check_loss
from ncmi.loss.kernels import STEEPEST, likelihood_surprisal
from ncmi.loss.simplex import full_precision

Path = Literal["likelihood", "sweep", "linear", "pairwise", "expectation"]


class LossForm(NamedTuple):
    """How a and b become a loss; see :func:`ncmi_loss`."""

    reduction: Reduction
    power: float
    robustness: float | Tensor
    class_weights: Tensor | None


def choose_path(
    values: Tensor,
    labels: Tensor,
    reduction: Reduction,
    power: float,
    direction: Direction,
    *,
    distribution: Distribution | None = None,
    temperature: float = 1.0,
) -> Path:
    """Which code computes a loss; decided here and nowhere else. The first line that fits:

    =============  ======  ================================================  =======================  =============
    path           labels  form                                              where                    cost
    =============  ======  ================================================  =======================  =============
    expectation    soft    every                                             every device, compiled   O(B·C·D)
    likelihood     hard    log_likelihood, sample_to_centroid                every device, compiled   O(B·C·D)
    sweep          hard    p = 1, centroid_to_sample, of features by NSF     CPU, not compiled        O(B·D + C·D)
                           with T ≥ 1/60
    linear         hard    p = 1                                             every device, compiled   O(B·D + C·D)
    pairwise       hard    every                                             every device, compiled   O(B·C·D)
    =============  ======  ================================================  =======================  =============

    ``likelihood`` and ``sweep`` are in :mod:`ncmi.loss.kernels`, with gradients by hand; the others are sums of
    :mod:`ncmi.loss.divergence`. All are matrix products of B×D and C×D: none makes a B×C×D tensor. ``sweep`` and
    ``linear`` make no B×C table either, and where centroids are fixed cost O(B·D).

    Args:
        values: ``[B, D]``, features or log-distributions.
        labels: ``[B]`` or ``[B, C]``.
        reduction, power, direction: of the form.
        distribution, temperature: of the map from features; None where log-distributions are given.
    """
    if labels.is_floating_point():
        return "expectation"
    if reduction == "log_likelihood" and direction == "sample_to_centroid":
        return "likelihood"
    if power != 1:
        return "pairwise"
    sweeps = direction == "centroid_to_sample" and distribution == "nsf" and temperature * STEEPEST >= 1
    return "sweep" if sweeps and values.device.type == "cpu" and not torch.compiler.is_compiling() else "linear"


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
    """Normalized conditional mutual information of a batch: concentration over separation.

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
    form of a likelihood is from Zhang & Sabuncu 2018 (generalized cross-entropy).

    Example:
        >>> import torch
        >>> log_q = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]]).log()
        >>> ncmi_loss(log_q, torch.tensor([0, 1]), log_q)
        tensor(0.)
    """
    log_p, log_q = full_precision(log_p), full_precision(log_q)
    _check_shapes(log_p, log_q)
    check_loss(reduction, separation_power, separation_direction, robustness)
    check_targets(labels, log_p.shape[0], log_q.shape[0])
    path = choose_path(log_p, labels, reduction, separation_power, separation_direction)
    form = LossForm(reduction, separation_power, robustness, class_weights)
    return loss_of_distributions(log_p, labels, CentroidView(log_q, separation_direction), path, form)


def loss_of_distributions(log_p: Tensor, labels: Tensor, view: CentroidView, path: Path, form: LossForm) -> Tensor:
    """:func:`ncmi_loss` on a path, of checked input and of centroids that remember what they have computed."""
    if not labels.is_floating_point():
        labels = labels.long()
    with torch.autocast(log_p.device.type, enabled=False):
        alpha = ratio_to_uniform(log_p)
        if path != "likelihood":
            own, separation = _TERMS[path](alpha, labels, view, form.power)
            return loss_of_terms(own, separation, labels, view.beta.shape[0], form)
        losses, logits = likelihood_surprisal(alpha, view.beta, view.gap_from_uniform(), labels, form.power)
        check_divergences(logits)
        losses = bounded(losses, form.robustness)
        if form.class_weights is None:
            return losses.mean()
        weights = _checked(form.class_weights, view.beta.shape[0]).to(losses).index_select(0, labels)
        return (weights * losses).sum() / weights.sum()


def loss_of_terms(own: Tensor, separation: Tensor, labels: Tensor, num_classes: int, form: LossForm) -> Tensor:
    """The loss of a and b: ``[B, 1]`` for hard labels and ``[B, C]`` for soft ones, where every class may be "own"."""
    check_divergences(own, separation)
    soft = labels.is_floating_point()
    targets = labels.to(own.dtype) if soft else own.new_ones(len(labels), 1)
    if form.class_weights is not None:
        weights = _checked(form.class_weights, num_classes).to(own)
        targets = targets * (weights if soft else weights.index_select(0, labels).unsqueeze(-1))
    if form.reduction == "ratio_of_means":
        return (targets * own).sum() / (targets * separation).sum()
    ratio = own / separation
    if form.reduction == "log_likelihood":
        tiny = torch.finfo(ratio.dtype).tiny
        # log(1 + x); torch's softplus leaves out the 1 from e^20 on
        surprisal = -F.logsigmoid(form.power * ratio.clamp_min(tiny).log() - math.log(num_classes - 1))
        ratio = bounded(surprisal, form.robustness)
    losses = (targets * ratio).sum(-1)
    if form.reduction == "none":
        return losses
    return losses.sum() / (len(losses) if form.class_weights is None else targets.sum())


def bounded(surprisal: Tensor, robustness: float | Tensor) -> Tensor:
    """``(1 − π^q)/q`` of ``−log π``, for q > 0 at most 1/q; itself for the number q = 0."""
    if not isinstance(robustness, Tensor) and robustness == 0:
        return surprisal
    return -torch.expm1(-robustness * surprisal) / robustness


def _checked(class_weights: Tensor, num_classes: int) -> Tensor:
    if class_weights.shape != (num_classes,):
        raise ValueError(f"class_weights {list(class_weights.shape)}: expected [{num_classes}], one for each class")
    return class_weights


def _linear_terms(alpha: Tensor, labels: Tensor, view: CentroidView, power: float) -> tuple[Tensor, Tensor]:
    """a and b with p = 1 of each sample's own class: ``[B, 1]`` each."""
    own, wrong_sum = own_and_wrong_sum(alpha, view.own_rows(labels), labels, view.sums(), view.direction)
    return own.unsqueeze(-1), wrong_sum.unsqueeze(-1) / view.beta.shape[0]


def _pairwise_terms(alpha: Tensor, labels: Tensor, view: CentroidView, power: float) -> tuple[Tensor, Tensor]:
    """a and b of each sample's own class: ``[B, 1]`` each."""
    own = concentration(alpha, view.own_rows(labels))
    of_all = wrong_class_mean(pairwise_divergence(alpha, *view.table(), view.direction), power)
    return own.unsqueeze(-1), of_all.gather(1, labels.unsqueeze(-1))


def _expectation_terms(alpha: Tensor, labels: Tensor, view: CentroidView, power: float) -> tuple[Tensor, Tensor]:
    """a and b for every class that a sample might have: ``[B, C]`` each."""
    own = pairwise_divergence(alpha, *view.table("sample_to_centroid"), "sample_to_centroid")
    same = view.direction == "sample_to_centroid"
    divergence = own if same else pairwise_divergence(alpha, *view.table(), view.direction)
    if power == 1:
        return own, (divergence.sum(-1, keepdim=True) - divergence) / divergence.shape[1]
    return own, wrong_class_mean(divergence, power)


_TERMS = {"linear": _linear_terms, "pairwise": _pairwise_terms, "expectation": _expectation_terms}


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


def _check_shapes(log_p: Tensor, log_q: Tensor) -> None:
    if log_p.dim() != 2 or log_q.dim() != 2 or log_p.shape[1] != log_q.shape[1]:
        raise ValueError(
            f"log_p {list(log_p.shape)} and log_q {list(log_q.shape)} must be [B, D] and [C, D] with the same D"
        )
    if log_q.shape[0] < 2 or log_q.shape[1] < 2:
        raise ValueError(f"log_q {list(log_q.shape)}: separation needs at least C=2 classes and a simplex of D=2")


def check_divergences(*divergences: Tensor) -> None:
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
