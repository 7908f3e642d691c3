"""Every baseline loss once more, as naively as possible: loops over float64 scalars, a formula a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Rows = Sequence[Sequence[float]]
NAMES = (
    "cross_entropy",
    "label_smoothing",
    "focal",
    "poly",
    "square",
    "squentropy",
    "anticlass",
    "opl",
    "supcon",
    "cmic",
    "generalized_cross_entropy",
    "symmetric_cross_entropy",
)
PAIRING = ("opl", "supcon")
ON_LOGITS = tuple(name for name in NAMES if name not in PAIRING)
LINEAR_IN_TARGETS = tuple(name for name in ON_LOGITS if name != "cmic")


def probabilities(z: Tensor) -> list[Tensor]:
    total = sum(torch.exp(value) for value in z)
    return [torch.exp(value) / total for value in z]


def cross_entropy(z: Tensor, y: int) -> Tensor:
    return -torch.log(probabilities(z)[y])


def label_smoothing(z: Tensor, y: int, epsilon: float) -> Tensor:
    p = probabilities(z)
    loss = torch.zeros((), dtype=z.dtype)
    for j in range(len(z)):
        target = (1 - epsilon if j == y else 0.0) + epsilon / len(z)
        loss = loss - target * torch.log(p[j])
    return loss


def focal(z: Tensor, y: int, gamma: float) -> Tensor:
    p = probabilities(z)[y]
    return -((1 - p) ** gamma) * torch.log(p)


def poly(z: Tensor, y: int, epsilon: float) -> Tensor:
    p = probabilities(z)[y]
    return -torch.log(p) + epsilon * (1 - p)


def square(z: Tensor, y: int, k: float, target_value: float) -> Tensor:
    loss = k * (z[y] - target_value) ** 2
    for j in range(len(z)):
        if j != y:
            loss = loss + z[j] ** 2
    return loss / len(z)


def squentropy(z: Tensor, y: int) -> Tensor:
    squares = sum(z[j] ** 2 for j in range(len(z)) if j != y)
    return cross_entropy(z, y) + squares / (len(z) - 1)


def anticlass(z: Tensor, y: int, gamma: float) -> Tensor:
    opposite = probabilities(-z)
    others = len(z) - 1
    occe = -sum(torch.log(others * opposite[j]) for j in range(len(z)) if j != y) / others
    return cross_entropy(z, y) + gamma * occe


def generalized_cross_entropy(z: Tensor, y: int, q: float) -> Tensor:
    return (1 - probabilities(z)[y] ** q) / q


def symmetric_cross_entropy(z: Tensor, y: int, alpha: float, beta: float, log_zero: float) -> Tensor:
    p = probabilities(z)
    reverse = -sum(p[k] * (0.0 if k == y else log_zero) for k in range(len(z)))
    return alpha * cross_entropy(z, y) + beta * reverse


def mean_loss(loss: Callable[..., Tensor], logits: Tensor, targets: Rows, **options: float) -> Tensor:
    """Mean over the batch of the loss expected over labels drawn from each row of ``targets``."""
    total = torch.zeros((), dtype=logits.dtype)
    for z, row in zip(logits, targets, strict=True):
        for label, probability in enumerate(row):
            if probability > 0:
                total = total + probability * loss(z, label, **options)
    return total / len(logits)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / (torch.sqrt(sum(x * x for x in a)) * torch.sqrt(sum(x * x for x in b)))


def opl(features: Tensor, labels: Sequence[int], gamma: float) -> Tensor:
    same, different = [], []
    for i in range(len(labels)):
        for j in range(len(labels)):
            if i != j:
                c = cosine(features[i], features[j])
                (same if labels[i] == labels[j] else different).append(c)
    loss = torch.zeros((), dtype=features.dtype)
    if same:
        loss = loss + 1 - sum(same) / len(same)
    if different:
        loss = loss + gamma * sum(abs(c) for c in different) / len(different)
    return loss


def supcon(embeddings: Tensor, labels: Sequence[int], temperature: float) -> Tensor:
    n = len(labels)
    total = torch.zeros((), dtype=embeddings.dtype)
    for i in range(n):
        similarity = {j: torch.exp(cosine(embeddings[i], embeddings[j]) / temperature) for j in range(n) if j != i}
        positives = [j for j in similarity if labels[j] == labels[i]]
        for p in positives:
            total = total - torch.log(similarity[p] / sum(similarity.values())) / len(positives)
    return total / n


def separation(logits: Tensor, targets: Rows) -> Tensor:
    p = [probabilities(z) for z in logits]
    total = torch.zeros((), dtype=logits.dtype)
    for i in range(len(p)):
        for j in range(len(p)):
            h = -sum(a * torch.log(b) for a, b in zip(p[i], p[j], strict=True))
            for y in range(len(p[i])):
                for v in range(len(p[i])):
                    if y != v:
                        total = total + targets[i][y] * targets[j][v] * h
    return total / len(p) ** 2


def concentration(z: Tensor, y: int, centroids: Tensor) -> Tensor:
    """KL(P‖Q_y), 0 where class y has no centroid."""
    if float(centroids[y].sum()) == 0:
        return torch.zeros((), dtype=z.dtype)
    return sum(p * (torch.log(p) - torch.log(q)) for p, q in zip(probabilities(z), centroids[y], strict=True))


def cmic(logits: Tensor, targets: Rows, centroids: Tensor, lam: float, beta: float) -> Tensor:
    return (
        mean_loss(cross_entropy, logits, targets)
        + lam * mean_loss(concentration, logits, targets, centroids=centroids)
        - beta * separation(logits, targets)
    )


def one_hot(labels: Tensor, num_classes: int) -> list[list[float]]:
    return [[float(c == y) for c in range(num_classes)] for y in labels.tolist()]
