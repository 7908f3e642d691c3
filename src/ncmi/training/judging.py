"""How the read-outs of a trained model decide on features of whole parts of the data, of any kind."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ncmi.loss.information import InformationAccumulator
from ncmi.readouts.calibration import (
    apply_temperature,
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)
from ncmi.readouts.neighbors import NearestNeighbors
from ncmi.readouts.scores import defined, judge
from ncmi.training.model import Classifier
from ncmi.training.schema import Calibration, InformationRecord, Readout


@dataclass(frozen=True, eq=False)
class Features:
    """Features ``[N, D]``, in the precision of the model's weights, and labels ``[N]`` of one part of the data.

    ``groups`` says of each sample what it belongs to, such as its patient; None where each stands for itself.
    """

    features: Tensor
    labels: Tensor
    groups: Sequence[Hashable] | None = None


@dataclass(frozen=True, eq=False)
class Judgment:
    """How the read-outs decide.

    Attributes:
        readouts: by name, as ``results.json`` holds them.
        log_p: by part and read-out, log-probabilities ``[N, C]``.
    """

    readouts: dict[str, Readout]
    log_p: dict[str, dict[str, Tensor]]


def information(model: Classifier, part: Features) -> InformationRecord:
    """CMI, Γ and NCMI of the objective's output distribution on a part: Γ by centroid KL, and by cross-entropy."""
    log_p = model.objective.log_distribution(part.features)
    accumulator = InformationAccumulator(model.objective.num_classes, log_p.shape[1], device=log_p.device)
    accumulator.update(log_p, part.labels)
    return information_of(accumulator)


def information_of(accumulator: InformationAccumulator) -> InformationRecord:
    """What an accumulator that has seen everything, and needs no other process's sums, comes to."""
    by_centroid = accumulator.compute("centroid_kl", synchronize=False)
    by_entropy = accumulator.compute("cross_entropy", synchronize=False)
    return InformationRecord(
        cmi=defined(by_centroid.cmi),
        separation=defined(by_centroid.separation),
        ncmi=defined(by_centroid.ncmi),
        cross_entropy_separation=defined(by_entropy.separation),
        cross_entropy_ncmi=defined(by_entropy.ncmi),
    )


@torch.no_grad()
def fit_readouts(model: Classifier, train: Features) -> NearestNeighbors:
    """Fit CC and LP of the model to the training features, and return kNN fitted to them."""
    # a new one, with the center as it now is; and as every process has gathered all features, its sums are the sums
    classifier = model.objective.centroid_classifier().to(train.features.device)
    model.cc = classifier.partial_fit(train.features, train.labels)
    model.lp.fit(train.features, train.labels)
    return fit_neighbors(model, train)


def fit_neighbors(model: Classifier, train: Features) -> NearestNeighbors:
    """kNN by the training features."""
    return NearestNeighbors(model.objective.num_classes).fit(train.features, train.labels)


@torch.no_grad()
def log_probabilities(model: Classifier, neighbors: NearestNeighbors, part: Features) -> dict[str, Tensor]:
    """Log-probabilities ``[N, C]`` of every read-out: head, CC, LP and kNN."""
    by_readout = {name: model.log_proba(part.features, name) for name in ("head", "cc", "lp")}
    by_readout["knn"] = neighbors.predict_log_proba(part.features)
    return by_readout


def judge_readouts(model: Classifier, parts: Mapping[str, Features], class_names: Sequence[str]) -> Judgment:
    """Fit the read-outs to ``parts["train"]`` and judge them on ``parts["validation"]``, if any, and ``parts["test"]``.

    What is chosen by the validation part, the temperature τ of each read-out, is used on the test part as it is.
    """
    neighbors = fit_readouts(model, parts["train"])
    judged = [name for name in ("validation", "test") if name in parts]
    log_p = {part: log_probabilities(model, neighbors, parts[part]) for part in judged}
    test, validation = parts["test"], parts.get("validation")
    readouts = {}
    for name, of_test in log_p["test"].items():
        bins = {"test": reliability(of_test, test.labels)}
        calibration = None
        if validation is not None:
            temperature = fit_temperature(log_p["validation"][name], validation.labels)
            calibrated = apply_temperature(of_test, temperature)
            bins["calibrated"] = reliability(calibrated, test.labels)
            calibration = Calibration(
                temperature=temperature,
                nll=negative_log_likelihood(calibrated, test.labels),
                calibration_error=calibration_error(bins["calibrated"]),
            )
        readouts[name] = Readout(
            test=judge(of_test, test.labels, class_names, groups=test.groups),
            validation=None
            if validation is None
            else judge(
                log_p["validation"][name], validation.labels, class_names, groups=validation.groups, per_class=False
            ),
            calibration=calibration,
            reliability=bins,
        )
    return Judgment(readouts, log_p)
