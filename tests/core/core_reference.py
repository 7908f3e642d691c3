"""The mathematics once more, as plainly as possible, in float64: probabilities, logarithms, all pairs, no tricks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

POWERS = (1.0, 2.0, 0.0, -1.0, -4.0, -12.0, math.inf, -math.inf)
DIRECTIONS = ("centroid_to_sample", "sample_to_centroid")
KINDS = ("nsf", "softmax")


def simplex(z: Tensor, kind: str) -> Tensor:
    weights = 1 / (1 + torch.exp(-z)) if kind == "nsf" else torch.exp(z)
    return weights / weights.sum(-1, keepdim=True)


def distribution(feature: Tensor, centre: Tensor | None, temperature: float, kind: str) -> Tensor:
    centred = feature if centre is None else feature - centre
    return simplex(centred / centred.square().sum(-1, keepdim=True).sqrt() / temperature, kind)


def centroids(logits: Tensor, temperature: float | None, kind: str) -> Tensor:
    """Centroids of free logits, or with a temperature of directions on the features' sphere."""
    return simplex(logits, kind) if temperature is None else distribution(logits, None, temperature, kind)


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p.log() - q.log())).sum(-1)


def power_mean(values: Tensor, power: float) -> Tensor:
    """Power mean over the last dimension."""
    if power == 0:
        return values.log().mean(-1).exp()
    if math.isinf(power):
        return values.amax(-1) if power > 0 else values.amin(-1)
    return values.pow(power).mean(-1).pow(1 / power)


def terms(p: Tensor, q: Tensor, classes: Sequence[int], power: float, direction: str) -> tuple[Tensor, Tensor]:
    """a and b of every sample for each of the classes as its own: ``[B, len(classes)]`` each, from B×C×D tensors."""
    to_centroid = kl(p[:, None, :], q[None, :, :])
    divergence = to_centroid if direction == "sample_to_centroid" else kl(q[None, :, :], p[:, None, :])
    separations = []
    for own in classes:
        wrong = torch.cat([divergence[:, :own], divergence[:, own + 1 :]], dim=1)
        separations.append(wrong.sum(1) / len(q) if power == 1 else power_mean(wrong, power))
    return to_centroid[:, list(classes)], torch.stack(separations, dim=1)


def loss(
    p: Tensor,
    labels: Tensor,
    q: Tensor,
    *,
    reduction: str,
    power: float,
    direction: str,
    robustness: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """The loss of ``p [B, D]``, ``labels [B]`` or soft targets ``[B, C]``, ``q [C, D]``."""
    classes = range(len(q)) if labels.is_floating_point() else sorted(set(labels.tolist()))
    own, separation = terms(p, q, classes, power, direction)
    hard = not labels.is_floating_point()
    weights = (labels[:, None] == torch.tensor(list(classes))).to(p.dtype) if hard else labels
    if class_weights is not None:
        weights = weights * class_weights[list(classes)]
    if reduction == "ratio_of_means":
        return (weights * own).sum() / (weights * separation).sum()
    ratio = own / separation
    if reduction == "log_likelihood":
        likelihood = 1 / (1 + (len(q) - 1) * ratio ** (-power))
        ratio = (1 - likelihood**robustness) / robustness if robustness else -likelihood.log()
    losses = (weights * ratio).sum(1)
    if reduction == "none":
        return losses
    return losses.sum() / (len(losses) if class_weights is None else weights.sum())


def information(p: Tensor, labels: Tensor, separation: str) -> tuple[float, float, dict[int, float]]:
    """CMI, Γ and per-class CMI by their definitions, Γ over all pairs of samples or of sample and centroid."""
    classes = sorted(set(labels.tolist()))
    centroids = {c: p[labels == c].mean(0) for c in classes}
    per_class = {c: kl(p[labels == c], centroids[c]).mean().item() for c in classes}
    cmi = sum(per_class[c] * (labels == c).double().mean().item() for c in classes)
    if separation == "centroid_kl":
        gamma = 0.0
        for distribution_x, y in zip(p, labels.tolist(), strict=True):
            gamma += sum(kl(centroids[c], distribution_x).item() for c in classes if c != y) / len(classes)
        return cmi, gamma / len(p), per_class
    cross_entropy = -(p @ p.log().T)
    different = labels[:, None] != labels[None, :]
    return cmi, (cross_entropy * different).mean().item(), per_class


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference by the norm of what was expected."""
    return ((found.double() - expected).norm() / expected.norm()).item()
