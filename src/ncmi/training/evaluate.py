"""Features of whole parts of the data, and how the read-outs decide on them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
)

from ncmi.calibration import (
    BINS,
    Reliability,
    apply_temperature,
    brier_score,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)
from ncmi.files import finite
from ncmi.information import InformationAccumulator
from ncmi.neighbours import NearestNeighbours
from ncmi.training.model import Classifier

# torchmetrics gives a confidence of exactly 1 a bin of its own
_BELOW_ONE = 1 - 2.0**-24


@dataclass(frozen=True, eq=False)
class Features:
    """Features ``[N, D]``, in the precision of the model's weights, and labels ``[N]`` of one part of the data."""

    features: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Judgement:
    """How the read-outs decide.

    Attributes:
        readouts: for each read-out ``{"test_accuracy": …, "validation_accuracy": …, …}``; with a validation part also
            ``temperature_scale``, the τ fitted to it, and ``test_calibrated_nll`` and ``test_calibrated_error``, what
            it makes of the test part's probabilities.
        predictions: of each read-out on the test part, ``[N]``.
        reliability: of each read-out on the test part, ``"test"`` and, with a validation part, ``"calibrated"``.
    """

    readouts: dict[str, dict[str, float]]
    predictions: dict[str, Tensor]
    reliability: dict[str, dict[str, Reliability]]

    def plain_reliability(self) -> dict[str, Any]:
        """:attr:`reliability` as plain lists for JSON, None for an empty bin's values."""
        plain: dict[str, Any] = finite(
            {name: {state: asdict(bins) for state, bins in found.items()} for name, found in self.reliability.items()}
        )
        return plain


def information(model: Classifier, part: Features) -> dict[str, float]:
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
def fit_cc_and_lp(model: Classifier, train: Features) -> None:
    """Fit CC and LP of the model to the training features."""
    # a new one, with the centre as it now is; and as every process has gathered all features, its sums are the sums
    model.cc = model.centroid_classifier().to(train.features.device).partial_fit(train.features, train.labels)
    model.lp.fit(train.features, train.labels)


def fit_readouts(model: Classifier, train: Features) -> NearestNeighbours:
    """Fit CC and LP of the model to the training features, and return kNN fitted to them."""
    fit_cc_and_lp(model, train)
    return NearestNeighbours(model.objective.num_classes).fit(train.features, train.labels)


@torch.no_grad()
def log_probabilities(model: Classifier, neighbours: NearestNeighbours, part: Features) -> dict[str, Tensor]:
    """Log-probabilities ``[N, C]`` of every read-out: head, CC, LP and kNN."""
    found = {name: model.log_proba(part.features, name) for name in ("head", "cc", "lp")}
    # a vote of zero keeps a finite logarithm
    found["knn"] = neighbours.votes(part.features).clamp_min(torch.finfo(torch.float32).tiny).log()
    return found


def scores_of(log_p: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, balanced accuracy, macro F1, top-5 accuracy (from 10 classes on), calibration error, NLL, Brier score.

    The calibration error is over 15 bins of equal width; see :mod:`ncmi.calibration` for the last three.
    """
    classes = log_p.shape[1]
    options: dict[str, Any] = {"num_classes": classes, "validate_args": False}
    found: dict[str, Any] = {
        "accuracy": multiclass_accuracy(log_p, labels, average="micro", **options),
        "balanced_accuracy": multiclass_accuracy(log_p, labels, average="macro", **options),
        "macro_f1": multiclass_f1_score(log_p, labels, average="macro", **options),
        "calibration_error": calibration_error(log_p, labels),
        "nll": negative_log_likelihood(log_p, labels),
        "brier": brier_score(log_p, labels),
    }
    if classes >= 10:
        found["top5_accuracy"] = multiclass_accuracy(log_p, labels, average="micro", top_k=5, **options)
    return {name: float(value) for name, value in found.items()}


def calibration_error(log_p: Tensor, labels: Tensor) -> float:
    """Expected calibration error over 15 bins of equal width."""
    # torchmetrics takes a row for logits, and applies softmax, where rounding lifts a probability above 1
    p = log_p.exp().clamp_max(_BELOW_ONE)
    return float(multiclass_calibration_error(p, labels, log_p.shape[1], n_bins=BINS, validate_args=False))


def evaluate_readouts(model: Classifier, parts: dict[str, Features]) -> Judgement:
    """Fit the read-outs to ``parts["train"]`` and judge them on ``parts["validation"]``, if any, and ``parts["test"]``.

    What is chosen by the validation part, the temperature τ of each read-out, is used on the test part as it is.
    """
    neighbours = fit_readouts(model, parts["train"])
    found = {
        part: log_probabilities(model, neighbours, parts[part]) for part in ("validation", "test") if part in parts
    }
    judged, labels = Judgement({}, {}, {}), parts["test"].labels
    for readout, log_p in found["test"].items():
        bins = {"test": reliability(log_p, labels)}
        scores: dict[str, float] = {}
        for part in found:
            of_part = scores_of(found[part][readout], parts[part].labels)
            scores |= {f"{part}_{name}": value for name, value in of_part.items()}
        if "validation" in found:
            scale = fit_temperature(found["validation"][readout], parts["validation"].labels)
            calibrated = apply_temperature(log_p, scale)
            scores["temperature_scale"] = scale
            scores["test_calibrated_nll"] = negative_log_likelihood(calibrated, labels)
            scores["test_calibrated_error"] = calibration_error(calibrated, labels)
            bins["calibrated"] = reliability(calibrated, labels)
        judged.readouts[readout] = scores
        judged.predictions[readout] = log_p.argmax(-1)
        judged.reliability[readout] = bins
    return judged
