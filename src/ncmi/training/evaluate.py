"""Features of whole parts of the data, and how the read-outs decide on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
)

from ncmi.information import InformationAccumulator
from ncmi.neighbours import NearestNeighbours
from ncmi.training.model import Model


@dataclass(frozen=True, eq=False)
class Features:
    """Features ``[N, D]``, in the precision of the model's weights, and labels ``[N]`` of one part of the data."""

    features: Tensor
    labels: Tensor


def information(model: Model, part: Features) -> dict[str, float]:
    """CMI, Γ and NCMI of the objective's output distribution on a part: Γ by centroid KL, and by cross-entropy."""
    log_p = model.objective.log_distribution(part.features)
    accumulator = InformationAccumulator(model.objective.num_classes, log_p.shape[1], device=log_p.device)
    accumulator.update(log_p, part.labels)
    # every process has gathered the whole part: nothing is left to add up
    by_centroid = accumulator.compute("centroid_kl", synchronise=False)
    by_entropy = accumulator.compute("cross_entropy", synchronise=False)
    return {
        "cmi": by_centroid.cmi,
        "separation": by_centroid.separation,
        "ncmi": by_centroid.ncmi,
        "cross_entropy_separation": by_entropy.separation,
        "cross_entropy_ncmi": by_entropy.ncmi,
    }


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of samples whose highest score is at their label."""
    return float((scores.argmax(-1) == labels).double().mean())


@torch.no_grad()
def fit_readouts(model: Model, train: Features) -> NearestNeighbours:
    """Fit CC and LP of the model to the training features, and return kNN fitted to them."""
    # a new one, with the centre as it now is; and as every process has gathered all features, its sums are the sums
    model.cc = model.centroid_classifier().to(train.features.device).partial_fit(train.features, train.labels)
    model.lp.fit(train.features, train.labels)
    return NearestNeighbours(model.objective.num_classes).fit(train.features, train.labels)


@torch.no_grad()
def log_probabilities(model: Model, neighbours: NearestNeighbours, part: Features) -> dict[str, Tensor]:
    """Log-probabilities ``[N, C]`` of every read-out: head, CC, LP and kNN."""
    found = {name: model.log_proba(part.features, name) for name in ("head", "cc", "lp")}
    # a vote of zero keeps a finite logarithm
    found["knn"] = neighbours.votes(part.features).clamp_min(torch.finfo(torch.float32).tiny).log()
    return found


def scores_of(log_p: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, balanced accuracy, macro F1, top-5 accuracy (from 10 classes on) and calibration error (15 bins)."""
    classes = log_p.shape[1]
    options: dict[str, Any] = {"num_classes": classes, "validate_args": False}
    # torchmetrics takes a row for logits, and applies softmax, where rounding lifts a probability above 1
    p = log_p.exp().clamp_max(1)
    found = {
        "accuracy": multiclass_accuracy(log_p, labels, average="micro", **options),
        "balanced_accuracy": multiclass_accuracy(log_p, labels, average="macro", **options),
        "macro_f1": multiclass_f1_score(log_p, labels, average="macro", **options),
        "calibration_error": multiclass_calibration_error(p, labels, n_bins=15, **options),
    }
    if classes >= 10:
        found["top5_accuracy"] = multiclass_accuracy(log_p, labels, average="micro", top_k=5, **options)
    return {name: float(value) for name, value in found.items()}


def evaluate_readouts(
    model: Model, parts: dict[str, Features]
) -> tuple[dict[str, dict[str, float]], dict[str, Tensor]]:
    """Fit the read-outs to ``parts["train"]`` and judge them on ``parts["validation"]``, if any, and ``parts["test"]``.

    Returns:
        For each read-out, ``{"test_accuracy": …, "validation_accuracy": …, …}``; and each read-out's predictions on the
        test part, ``[N]``.
    """
    neighbours = fit_readouts(model, parts["train"])
    results: dict[str, dict[str, float]] = {}
    predictions: dict[str, Tensor] = {}
    for part in (name for name in ("validation", "test") if name in parts):
        for readout, log_p in log_probabilities(model, neighbours, parts[part]).items():
            found = scores_of(log_p, parts[part].labels)
            results.setdefault(readout, {}).update({f"{part}_{name}": value for name, value in found.items()})
            if part == "test":
                predictions[readout] = log_p.argmax(-1)
    return results, predictions
