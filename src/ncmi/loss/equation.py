"""The whole of it in plain sums: the paper's Eq. 5–10, and what this library adds. Read this first.

A network gives a feature f. :func:`distribution` makes it a point P of the simplex, where class c has a centroid Q_c:

    NCMI = CMI / Γ      how far samples are from their own class's centroid, over how far from the others'

Everything is here as it is defined: probabilities, logarithms, all pairs, no tricks. In float64 that is exact enough to
test all other code against. In float32 it is not (see README.md), and it holds B×C×D numbers where the library never
does.
This file imports nothing of ``ncmi``, and is used by its tests, by the benchmarks and by ``ncmi doctor``.

Notation: B or N samples, C classes, D components; ``p [B, D]`` distributions, ``q [C, D]`` centroids, ``labels [B]``.
"""

import math

import torch
from torch import Tensor

# From a feature to a distribution


def simplex(z: Tensor, kind: str = "nsf") -> Tensor:
    """Normalized sigmoid ``σ(z_i) / Σ_j σ(z_j)``, or with ``"softmax"`` ``e^z_i / Σ_j e^z_j``: ``[..., D]``."""
    weights = 1 / (1 + torch.exp(-z)) if kind == "nsf" else torch.exp(z)
    return weights / weights.sum(-1, keepdim=True)


def distribution(
    feature: Tensor, center: Tensor | None, temperature: float, kind: str = "nsf", length: float | None = None
) -> Tensor:
    """``P = NSF(u/T)``, ``u = (f − μ)/‖f − μ‖₂``, of features ``[..., D]``, or of length s (ours) ``(f − μ)/s``."""
    centered = feature if center is None else feature - center
    lengths = centered.square().sum(-1, keepdim=True).sqrt() if length is None else length
    return simplex(centered / lengths / temperature, kind)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """``KL(P‖Q) = Σ_i P_i (log P_i − log Q_i)``, in nats, over the last dimension."""
    return (p * (p.log() - q.log())).sum(-1)


# The measures of a classifier, Eq. 5–7; S_c are its true centroids


def true_centroids(p: Tensor, labels: Tensor) -> dict[int, Tensor]:
    """``S_c = mean_{x∈c} P_x`` of the classes that occur."""
    return {int(c): p[labels == c].mean(0) for c in labels.unique()}


def class_cmi(p: Tensor, labels: Tensor) -> dict[int, Tensor]:
    """``CMI_c = mean_{x∈c} KL(P_x‖S_c)``, the concentration of each class that occurs."""
    return {c: kl(p[labels == c], s).mean() for c, s in true_centroids(p, labels).items()}


def cmi(p: Tensor, labels: Tensor) -> Tensor:
    """``CMI = Σ_c π_c CMI_c``, π_c the share of class c."""
    shares = {c: (labels == c).double().mean() for c in true_centroids(p, labels)}
    return torch.stack([shares[c] * value for c, value in class_cmi(p, labels).items()]).sum()


def gamma(p: Tensor, labels: Tensor, separation: str = "centroid_kl") -> Tensor:
    """Γ, the separation, over all pairs; C counts the classes that occur.

    - ``"centroid_kl"`` (the NCMI paper): ``Γ = E_x[(1/C) Σ_{c≠y} KL(S_c‖P_x)]``.
    - ``"cross_entropy"`` (CMIC-DL, arXiv 2309.09123): ``Γ = E[1{Y≠V} H(P_X, P_U)]``, (X, Y) and (U, V) independent,
      ``H(p, q) = −Σ_i p_i log q_i``.
    """
    if separation == "cross_entropy":
        cross_entropy = -(p[:, None, :] * p[None, :, :].log()).sum(-1)
        return (cross_entropy * (labels[:, None] != labels[None, :])).mean()
    centroids = true_centroids(p, labels)
    pairs = [kl(s, p) * (labels != c) for c, s in centroids.items()]
    return torch.stack(pairs).sum(0).mean() / len(centroids)


def ncmi(p: Tensor, labels: Tensor, separation: str = "centroid_kl") -> Tensor:
    """``NCMI = CMI / Γ``."""
    return cmi(p, labels) / gamma(p, labels, separation)


# The loss, Eq. 8–10; Q_c are free centroids


def divergences(p: Tensor, q: Tensor, direction: str) -> Tensor:
    """``KL(P‖Q_c)`` for ``"sample_to_centroid"``, ``KL(Q_c‖P)`` for ``"centroid_to_sample"``: ``[B, C]``."""
    p, q = p[:, None, :], q[None, :, :]
    return kl(p, q) if direction == "sample_to_centroid" else kl(q, p)


def power_mean(values: Tensor, power: float) -> Tensor:
    """``(mean x^p)^{1/p}`` over the last dimension: p = 0 is the geometric mean, ±∞ the largest and the smallest."""
    if power == 0:
        return values.log().mean(-1).exp()
    if math.isinf(power):
        return values.amax(-1) if power > 0 else values.amin(-1)
    return values.pow(power).mean(-1).pow(1 / power)


def separation_from_others(divergence: Tensor, labels: Tensor, power: float) -> Tensor:
    """b of each sample, of ``divergence [B, C]``: ``[B]``.

    ``b = (1/C) Σ_{c≠y} KL_c`` for p = 1, the paper's; else (ours) the power mean ``b_p = (mean_{c≠y} KL_c^p)^{1/p}``.
    """
    samples, classes = divergence.shape
    wrong = divergence[labels[:, None] != torch.arange(classes, device=labels.device)].view(samples, classes - 1)
    return wrong.sum(1) / classes if power == 1 else power_mean(wrong, power)


def surprisal(ratio: Tensor, classes: int, power: float, robustness: float = 0.0) -> Tensor:
    """The likelihood form (ours) of a/b: ``−log π``, ``π = 1 / (1 + (C−1)·(a/b_p)^{−p})``, p < 0.

    With ``KL(P‖Q_c)`` in both places π is that of :func:`likelihoods` at the label. With a robustness q in (0, 1] it is
    ``(1 − π^q)/q``, which no wrong label can drive above 1/q (Zhang & Sabuncu 2018).
    """
    likelihood = 1 / (1 + (classes - 1) * ratio ** (-power))
    return (1 - likelihood**robustness) / robustness if robustness else -likelihood.log()


def likelihoods(p: Tensor, q: Tensor, power: float) -> Tensor:
    """``π_c = KL(P‖Q_c)^p / Σ_c' KL(P‖Q_c')^p``, the probabilities of the likelihood form: ``[B, C]``."""
    odds = divergences(p, q, "sample_to_centroid") ** power
    return odds / odds.sum(-1, keepdim=True)


def loss(
    p: Tensor,
    labels: Tensor,
    q: Tensor,
    *,
    form: str = "mean_of_ratios",
    reduction: str = "mean",
    power: float = 1.0,
    direction: str = "centroid_to_sample",
    robustness: float = 0.0,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The NCMI loss of a batch: of ``a = KL(P‖Q_y)`` and b, see :func:`separation_from_others`.

    - ``"ratio_of_means"``: ``mean(a) / mean(b)``, the paper's Eq. 8–10.
    - ``"mean_of_ratios"``: ``mean(a/b)``, the released script.
    - ``"likelihood"``: the mean of :func:`surprisal`.

    Soft targets ``[B, C]`` in place of labels give the expectation over them; smoothed labels are soft targets. Weights
    ``[C]`` of the classes and the reduction ``"mean"``, ``"sum"`` or ``"none"`` are those of ``F.cross_entropy``: the
    mean of labels is divided by the sum of their weights, that of soft targets by B.
    """
    samples, classes = len(p), len(q)
    soft = labels.is_floating_point()
    targets = labels if soft else torch.eye(classes, dtype=p.dtype, device=p.device)[labels]
    targets = (1 - label_smoothing) * targets + label_smoothing / classes
    weights = torch.ones(classes, dtype=p.dtype, device=p.device) if weight is None else weight
    weighted = targets * weights
    a = divergences(p, q, "sample_to_centroid")
    divergence = divergences(p, q, direction)
    every = torch.arange(classes, device=p.device).expand(samples, classes)
    b = torch.stack([separation_from_others(divergence, column, power) for column in every.T], dim=1)
    if form == "ratio_of_means":
        return (weighted * a).sum() / (weighted * b).sum()
    values = surprisal(a / b, classes, power, robustness) if form == "likelihood" else a / b
    # a class that cannot be the sample's own takes no part, whatever its value is
    each = torch.where(weighted > 0, weighted * values, torch.zeros_like(values)).sum(1)
    if reduction == "none":
        return each
    return each.sum() / (1 if reduction == "sum" else samples if soft else weights[labels].sum())
