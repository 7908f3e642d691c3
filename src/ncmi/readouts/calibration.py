"""Probabilities that mean what they say: temperature scaling, proper scores and reliability.

A read-out is calibrated if, of all samples that it decides with confidence q, the share q is decided rightly.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ncmi.files import finite
from ncmi.loss.checks import check_labels
from ncmi.readouts.scores import Reliability

BINS = 15
"""Bins of equal width for reliability and calibration error, as in Guo et al. 2017."""
LEAST, MOST = 0.01, 100.0
"""Bounds of τ."""
_ROWS = 8192  # held in double precision at a time
_MOST_STEPS = 100
_TOLERANCE = 1e-12


@torch.no_grad()
def fit_temperature(log_p: Tensor, labels: Tensor, *, pseudo_samples: float = 0.5) -> float:
    """The temperature τ > 0 by which to divide log-probabilities, fitted to a validation part.

    Minimizes the negative log-likelihood of ``softmax(log_p / τ)``, which is convex in 1/τ. Dividing by τ keeps every
    decision. For centroid distances, ``π_c ∝ KL(P‖S_c)^{−γ}``, it is the same as fitting γ: the exponent becomes γ/τ.

    Args:
        log_p: ``[N, C]``, log-probabilities or logits; −inf for a class that is excluded.
        labels: ``[N]``, of samples that nothing was trained on.
        pseudo_samples: samples of unknown class that count as seen besides the N, each with all classes alike. A
            validation part that is classified without error, as small ones often are, would ask for τ = 0 and so for
            probabilities of 0 and 1, which the first error on new data refutes at boundless cost. Half a sample is
            Jeffreys' prior for a share, and nothing beside hundreds of samples. 0 for plain maximum likelihood.

    Returns:
        τ in 0.01 … 100; at these bounds where there is no minimum (``pseudo_samples=0`` without an error: 0.01;
        scores worse than chance: 100). 1 where no τ makes a difference: all rows constant, or no sample whose class
        is possible. Samples whose class has probability 0 are left out: no τ helps them.

    Raises:
        ValueError: for NaN or +inf, labels that do not fit, or ``pseudo_samples`` below 0.

    Source: Guo et al. 2017 (1706.04599), section 4.2; softened targets are Platt's (1999) remedy for few samples.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
        >>> tau = fit_temperature(logits, torch.tensor([0, 0, 1, 1]), pseudo_samples=0)
        >>> torch.softmax(logits / tau, dim=-1)[0].round(decimals=3)  # three of four are right
        tensor([0.7500, 0.2500])
    """
    _check(log_p, labels)
    if not pseudo_samples >= 0:
        raise ValueError(f"pseudo_samples={pseudo_samples}: must be at least 0")
    own = log_p.gather(1, labels.long().unsqueeze(1)).squeeze(1)
    possible = torch.isfinite(own)
    rows = log_p[possible]
    if len(rows) == 0:
        return 1.0
    share = pseudo_samples / (len(rows) + pseudo_samples)
    top = rows.amax(1)
    finite = torch.isfinite(rows)
    means = torch.where(finite, rows - top[:, None], 0).double().sum(1) / finite.sum(1)
    targets = (1 - share) * (own[possible] - top).double() + share * means
    if bool((means == 0).all()):
        return 1.0

    low, high = 1 / MOST, 1 / LEAST
    if _slope(rows, targets, low)[0] >= 0:
        return MOST
    if _slope(rows, targets, high)[0] <= 0:
        return LEAST
    beta = 1.0
    # Newton's steps towards the zero of a slope that only rises; halving the bracket where they leave it
    for _ in range(_MOST_STEPS):
        slope, curvature = _slope(rows, targets, beta)
        low, high = (low, beta) if slope > 0 else (beta, high)
        following = beta - slope / curvature if curvature > 0 else math.inf
        converged = abs(following - beta) <= _TOLERANCE * beta
        # a step of nothing ends on the bracket, which is no reason to leave it
        if not converged and not low < following < high:
            following = math.sqrt(low * high)
            converged = abs(following - beta) <= _TOLERANCE * beta
        beta = following
        if converged:
            break
    return 1 / beta


def _slope(rows: Tensor, targets: Tensor, beta: float) -> tuple[float, float]:
    """First and second derivative of ``Σ logsumexp(β·row) − β·target`` by β; rows are shifted to a maximum of 0."""
    slope, curvature = 0.0, 0.0
    for part, target in zip(rows.split(_ROWS), targets.split(_ROWS), strict=True):
        shifted = (part - part.amax(1, keepdim=True)).double()
        p = torch.softmax(beta * shifted, dim=1)
        values = torch.where(torch.isfinite(shifted), shifted, 0)  # p is 0 there
        mean = torch.linalg.vecdot(p, values)
        slope += float((mean - target).sum())
        curvature += float(torch.linalg.vecdot(p, (values - mean[:, None]).square()).sum())
    return slope, curvature


def apply_temperature(log_p: Tensor, temperature: float) -> Tensor:
    """``log softmax(log_p / τ)``: ``[..., C] → [..., C]``; τ from :func:`fit_temperature`.

    Raises:
        ValueError: if τ is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: must be above 0; fit_temperature gives one")
    return torch.log_softmax(log_p / temperature, dim=-1)


def negative_log_likelihood(log_p: Tensor, labels: Tensor) -> float:
    """Mean of ``−log p`` at the label, in nats, ≥ 0; a proper score. +inf where a label has probability 0.

    Example:
        >>> round(negative_log_likelihood(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([1])), 4)
        0.6931
    """
    _check(log_p, labels)
    return float(F.nll_loss(log_p.double(), labels.long()))


def brier_score(log_p: Tensor, labels: Tensor) -> float:
    """Mean of ``Σ_c (p_c − 1{c = label})²``, in 0 … 2; a proper score.

    Source: Brier 1950, over all classes (not the half of it that is usual for two).

    Example:
        >>> brier_score(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([1]))
        0.5
    """
    _check(log_p, labels)
    p = log_p.double().exp()
    own = p.gather(1, labels.long().unsqueeze(1)).squeeze(1)
    return float((p.square().sum(1) - 2 * own + 1).mean())


def reliability(log_p: Tensor, labels: Tensor, bins: int = BINS) -> Reliability:
    """Confidence against accuracy: what a reliability diagram draws, of ``log_p [N, C]`` and ``labels [N]``.

    Raises:
        ValueError: for fewer than one bin, NaN, or labels that do not fit.

    Source: Guo et al. 2017 (1706.04599), equations 2 and 3.

    Example:
        >>> p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
        >>> diagram = reliability(p.log(), torch.tensor([0, 1, 1]), bins=2)
        >>> diagram.counts, round(diagram.confidence[1], 3), round(diagram.accuracy[1], 3)
        ([0, 3], 0.8, 0.667)
    """
    _check(log_p, labels)
    if bins < 1:
        raise ValueError(f"bins={bins}: needs at least 1")
    highest, decided = log_p.double().max(1)
    return reliability_of(highest.exp().clamp_max(1), decided == labels, bins)  # rounding may lift it above 1


def reliability_of(confidence: Tensor, right: Tensor, bins: int = BINS) -> Reliability:
    """The same of confidences ``[N]`` in 0…1, float64, and whether each decision is right, ``[N]``."""
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=confidence.device)
    where = (torch.bucketize(confidence, edges, right=True) - 1).clamp_(0, bins - 1)
    counts = torch.bincount(where, minlength=bins)
    sure = torch.bincount(where, confidence, minlength=bins) / counts  # 0 / 0 is NaN
    share = torch.bincount(where, right.double(), minlength=bins) / counts
    return Reliability(counts=counts.tolist(), confidence=finite(sure.tolist()), accuracy=finite(share.tolist()))


def _check(log_p: Tensor, labels: Tensor) -> None:
    if log_p.dim() != 2 or log_p.shape[1] < 2 or not log_p.is_floating_point():
        raise ValueError(f"log_p is {log_p.dtype} {list(log_p.shape)}: expected log-probabilities [N, C] with C ≥ 2")
    check_labels(labels, log_p.shape[1])
    if len(labels) != len(log_p):
        raise ValueError(f"{len(log_p)} samples but {len(labels)} labels: pass one label for each sample")
    # a row of −inf alone has a maximum of −inf, and NaN one of NaN
    if not bool(torch.isfinite(log_p.amax(1)).all()):
        raise ValueError("log_p holds NaN, +inf or a row of −inf alone: check the features that it comes from")
