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

from ncmi.loss.autograd import by_hand, values_can_be_read
from ncmi.loss.checks import IGNORE, Batch, NotFiniteError, as_rows, check_tensor
from ncmi.loss.divergence import CentroidView, concentration, own_and_wrong_sum, pairwise_divergence, ratio_to_uniform
from ncmi.loss.forms import Direction, Distribution, Form, Reduction, check_loss, check_reduction
from ncmi.loss.likelihood import STEEPEST, scores_of_ratios, surprisal_of_ratios
from ncmi.loss.simplex import full_precision

Path = Literal["surprisal", "scores", "sweep", "linear", "pairwise", "expectation"]


class Terms(NamedTuple):
    """How a and b of samples become a loss; see :func:`ncmi_loss` for what the fields mean.

    A value for each class that may be a sample's own is weighed by its target and by the class's weight.
    """

    form: Form
    power: float
    robustness: float | Tensor
    weight: Tensor | None
    label_smoothing: float
    reduction: Reduction

    def smoothed(self, labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
        """Soft targets ``[n, C]`` of labels, or those given."""
        soft = (labels if labels.is_floating_point() else _one_hot(labels, num_classes)).to(dtype)
        return soft.lerp(torch.full_like(soft, 1 / num_classes), self.label_smoothing) if self.label_smoothing else soft

    def loss(self, batch: Batch, num_classes: int, values: Tensor, separation: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            batch: the samples.
            num_classes: C.
            values: ``[n, 1]`` of the own class or ``[n, C]`` of each that may be it: a, or with no separation given
                what is to be averaged.
            separation: b, as a; for the ratio of means alone.
        """
        own = None if self.weight is None else _checked(self.weight, num_classes).to(values)
        hard = not batch.labels.is_floating_point()
        normalizer = None if own is None or not hard else own.index_select(0, batch.labels)
        if values.shape[1] == 1:
            targets = None if normalizer is None else normalizer.unsqueeze(-1)
        else:
            targets = self.smoothed(batch.labels, num_classes, values.dtype)
            targets = targets if own is None else targets * own

        def expected(x: Tensor) -> Tensor:
            weighed = x if targets is None else targets * x
            return weighed.squeeze(1) if weighed.shape[1] == 1 else weighed.sum(-1)

        if separation is not None:
            return batch.ratio(expected(values), expected(separation))
        return batch.reduce(expected(values), normalizer, self.reduction)

    def smoothed_loss(self, batch: Batch, surprisal: Tensor, uniform: Tensor) -> Tensor:
        """The loss of smoothed labels, of ``−log π_y`` and ``(1/C) Σ_c w_c·(−log π_c)``, ``[n]`` each."""
        own = None if self.weight is None else self.weight.to(surprisal).index_select(0, batch.labels)
        each = surprisal if own is None else own * surprisal
        return batch.reduce(each.lerp(uniform, self.label_smoothing), own, self.reduction)


def choose_path(
    values: Tensor,
    labels: Tensor,
    form: Form,
    power: float,
    direction: Direction,
    *,
    label_smoothing: float = 0.0,
    distribution: Distribution | None = None,
    temperature: float = 1.0,
    own_length: bool = True,
) -> Path:
    """Which code computes a loss; decided here and nowhere else. The first line that fits:

    =============  ======  ================================================  =======================  =============
    path           labels  form                                              where                    cost
    =============  ======  ================================================  =======================  =============
    scores         soft    likelihood, sample_to_centroid                    every device, compiled   O(B·C·D)
    expectation    soft    every                                             every device, compiled   O(B·C·D)
    surprisal      hard    likelihood, sample_to_centroid                    every device, compiled   O(B·C·D)
    sweep          hard    p = 1, centroid_to_sample, of features by NSF     CPU, not compiled        O(B·D + C·D)
                           with T ≥ 1/60, each over its own length
    linear         hard    p = 1                                             every device, compiled   O(B·D + C·D)
    pairwise       hard    every                                             every device, compiled   O(B·C·D)
    =============  ======  ================================================  =======================  =============

    Labels that are smoothed are soft. ``scores`` and ``surprisal`` are in :mod:`ncmi.loss.likelihood` and ``sweep`` is
    in :mod:`ncmi.loss.sweep`, with gradients by hand in eager mode; the others are sums of :mod:`ncmi.loss.divergence`.
    All are matrix products of B×D and C×D: none makes a B×C×D tensor. ``sweep`` and ``linear`` make no B×C table
    either, and where centroids are fixed cost O(B·D).

    Args:
        values: ``[B, D]``, features or log-distributions.
        labels: ``[B]`` or ``[B, C]``.
        form, power, direction, label_smoothing: of the loss.
        distribution, temperature, own_length: of the map from features; None where log-distributions are given.
    """
    likely = form == "likelihood" and direction == "sample_to_centroid"
    if labels.is_floating_point() or label_smoothing > 0:
        return "scores" if likely else "expectation"
    if likely:
        return "surprisal"
    if power != 1:
        return "pairwise"
    sweeps = direction == "centroid_to_sample" and distribution == "nsf" and own_length and temperature * STEEPEST >= 1
    return "sweep" if sweeps and values.device.type == "cpu" and by_hand(values) else "linear"


def ncmi_loss(
    log_p: Tensor,
    labels: Tensor,
    log_q: Tensor,
    *,
    form: Form = "mean_of_ratios",
    separation_power: float = 1.0,
    separation_direction: Direction = "centroid_to_sample",
    robustness: float | Tensor = 0.0,
    weight: Tensor | None = None,
    ignore_index: int = IGNORE,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Normalized conditional mutual information of a batch: concentration over separation.

    Args:
        log_p: log-distributions of the samples, ``[B, D]`` or ``[B, D, d1, …]``; half precision is taken to float32.
        labels: class indices ``[B]`` (``[B, d1, …]``) of any integer dtype, or soft targets ``[B, C]``
            (``[B, C, d1, …]``) which sum to one over the classes. The loss of a soft target is the expectation of the
            loss over it (of a and b each, for ``"ratio_of_means"``).
        log_q: log-distributions of the centroids, ``[C, D]``.
        form: ``"mean_of_ratios"``, mean(a/b), the released script; ``"ratio_of_means"``, mean(a)/mean(b), the paper's
            Eq. 8–10; ``"likelihood"``, the mean of ``log(1 + (C−1)·(a/b_p)^{−p})``, which needs p < 0 and is a proper
            likelihood in the direction ``"sample_to_centroid"``.
        separation_power: p. 1 is the paper's b (with its 1/C); any other takes the power mean over the C − 1 wrong
            classes, 0 the geometric mean, ±inf the largest or the smallest.
        separation_direction: ``KL(Q_c‖P)`` or ``KL(P‖Q_c)`` for the wrong classes.
        robustness: q in [0, 1], with ``"likelihood"`` alone: ``(1 − π^q)/q`` in place of ``−log π``. A tensor with one
            value is taken as it is, and must be above 0.
        weight, ignore_index, reduction, label_smoothing: as of ``torch.nn.functional.cross_entropy``: a weight ``[C]``
            for each class; a label that does not count; ``"mean"`` (weighted), ``"sum"`` or ``"none"``; the share of
            the target that goes to all classes alike. Where all samples are ignored the loss is 0.

    Returns:
        Scalar, or the labels' shape with ``reduction="none"``; float32, or float64 for float64 input; ≥ 0.

    Raises:
        TypeError: for what is no tensor.
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
    check_tensor(log_q, "log_q")
    if log_q.dim() != 2 or log_q.shape[0] < 2 or log_q.shape[1] < 2:
        raise ValueError(
            f"log_q {list(log_q.shape)}: expected [C, D]; separation needs at least C=2 classes and a simplex of D=2"
        )
    check_loss(form, separation_power, separation_direction, robustness)
    check_reduction(form, reduction)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing={label_smoothing}: must be at least 0 and at most 1, usually 0.1")
    batch = as_rows(log_p, labels, len(log_q), width=log_q.shape[1], ignore_index=ignore_index, what="log_p")
    alpha, beta = (ratio_to_uniform(full_precision(x)) for x in (batch.rows, log_q))
    path = choose_path(
        alpha, batch.labels, form, separation_power, separation_direction, label_smoothing=label_smoothing
    )
    terms = Terms(form, separation_power, robustness, weight, label_smoothing, reduction)
    return loss_of_ratios(alpha, batch, CentroidView(beta, separation_direction), path, terms)


def loss_of_ratios(alpha: Tensor, batch: Batch, view: CentroidView, path: Path, terms: Terms) -> Tensor:
    """The loss on a path, of ``α = log(D·P)`` ``[n, D]`` of a batch's rows, whose own rows are not looked at."""
    with torch.autocast(alpha.device.type, enabled=False):
        if path == "surprisal":
            values = surprisal_of_ratios(alpha, view.beta, batch.labels, terms.power).unsqueeze(-1)
            return loss_of_surprisal(values, batch, view.num_classes, terms)
        if path == "scores":
            values = -scores_of_ratios(alpha, view.beta, terms.power)
            return loss_of_surprisal(values, batch, view.num_classes, terms)
        own, separation = _TERMS[path](alpha, batch.labels, view, terms.power)
        return loss_of_terms(own, separation, batch, view.num_classes, terms)


def loss_of_surprisal(surprisal: Tensor, batch: Batch, num_classes: int, terms: Terms) -> Tensor:
    """The likelihood form of ``−log π``, ``[n, 1]`` of the label or ``[n, C]`` of all classes."""
    check_divergences(surprisal)
    return terms.loss(batch, num_classes, bounded(surprisal, terms.robustness))


def loss_of_terms(own: Tensor, separation: Tensor, batch: Batch, num_classes: int, terms: Terms) -> Tensor:
    """The loss of a and b: ``[n, 1]`` for hard labels and ``[n, C]`` for soft ones, where every class may be "own"."""
    check_divergences(own, separation)
    if terms.form == "ratio_of_means":
        return terms.loss(batch, num_classes, own, separation.expand_as(own))
    ratio = own / separation
    if terms.form == "likelihood":
        tiny = torch.finfo(ratio.dtype).tiny
        # log(1 + x); torch's softplus leaves out the 1 from e^20 on
        surprisal = -F.logsigmoid(terms.power * ratio.clamp_min(tiny).log() - math.log(num_classes - 1))
        ratio = bounded(surprisal, terms.robustness)
    return terms.loss(batch, num_classes, ratio)


def bounded(surprisal: Tensor, robustness: float | Tensor) -> Tensor:
    """``(1 − π^q)/q`` of ``−log π``, for q > 0 at most 1/q; itself for the number q = 0."""
    if not isinstance(robustness, Tensor) and robustness == 0:
        return surprisal
    return -torch.expm1(-robustness * surprisal) / robustness


def _one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """``[n, C]`` bool; torch's own looks at values, which a vmap cannot."""
    return labels.unsqueeze(-1) == torch.arange(num_classes, device=labels.device)


def _checked(weight: Tensor, num_classes: int) -> Tensor:
    if weight.shape != (num_classes,):
        raise ValueError(f"weight {list(weight.shape)}: expected [{num_classes}], one for each class")
    return weight


def _linear_terms(alpha: Tensor, labels: Tensor, view: CentroidView, power: float) -> tuple[Tensor, Tensor]:
    """a and b with p = 1 of each sample's own class: ``[B, 1]`` each."""
    own, wrong_sum = own_and_wrong_sum(alpha, labels, view)
    return own.unsqueeze(-1), wrong_sum.unsqueeze(-1) / view.num_classes


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
    is_largest = _one_hot(x.argmax(1), wrong + 1)
    others = x.masked_fill(is_largest, -torch.inf)
    if math.isinf(power):
        return (torch.where(is_largest, others.amax(1, keepdim=True), x.amax(1, keepdim=True)) * sign).exp()
    total = x.logsumexp(1, keepdim=True)
    share = (x - total).masked_fill(is_largest, -torch.inf).exp()
    log_sum = torch.where(is_largest, others.logsumexp(1, keepdim=True), total + torch.log1p(-share))
    return ((log_sum - math.log(wrong)) / power).exp()


def check_divergences(*values: Tensor) -> None:
    """Raise NotFiniteError for values ``[n, ...]`` that are not, on the CPU: elsewhere a look would stall."""
    # the sum over a batch is finite where all of it is
    if not values_can_be_read(values[0]) or all(math.isfinite(x.detach().sum().item()) for x in values):
        return
    finite = torch.stack([x.detach().sum(-1).isfinite() for x in values]).all(0)
    if not bool(finite.all()):
        raise NotFiniteError(
            f"row {int(finite.int().argmin())} of the batch has no finite divergence from the centroids. Features that "
            "are NaN, infinite or beyond 1e19: lower the learning rate, clip gradients, look for NaN in the input. "
            "A probability of exactly 0: take log_softmax or log_nsf of logits, not the logarithm of probabilities"
        )
