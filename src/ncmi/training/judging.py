"""How the read-outs of a trained model decide on features of whole parts of the data, of any kind."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ncmi.loss.information import InformationAccumulator
from ncmi.readouts.calibration import (
    apply_temperature,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)
from ncmi.readouts.linear_probe import stratified_sample
from ncmi.readouts.neighbors import NearestNeighbors, usual_neighbors
from ncmi.readouts.scores import Scores, by_group, calibration_error, defined, judge
from ncmi.recipes.names import READOUTS_IN_WORDS
from ncmi.training.mistakes import Mistakes
from ncmi.training.model import Classifier
from ncmi.training.schema import Calibration, Fit, InformationRecord, Readout

Stages = Callable[[str], None]
"""Told what is begun, in words, where it may take long."""
_ROWS = 65536  # samples that are decided at once


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


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a finished run is told by.

    Attributes:
        judgment: of the read-outs.
        test: features of the part that is judged, or of a sample of it where they are too many to be kept.
        places: which of the part these are, ``[n]``.
        information: of the part.
        class_counts: samples of each class by part.
        mistakes: the surest ones; their rows are places of the part.
        parts: features of all parts, where they are kept.
    """

    judgment: Judgment
    test: Features
    places: Tensor
    information: InformationRecord
    class_counts: dict[str, list[int]]
    mistakes: Mistakes
    parts: dict[str, Features] = field(default_factory=dict)


def information(model: Classifier, part: Features) -> InformationRecord:
    """CMI, Γ and NCMI of the objective's output distribution on a part: Γ by centroid KL, and by cross-entropy."""
    accumulator: InformationAccumulator | None = None
    for features, labels in zip(part.features.split(_ROWS), part.labels.split(_ROWS), strict=True):
        log_p = model.objective.log_distribution(features)
        if accumulator is None:
            accumulator = InformationAccumulator(model.objective.num_classes, log_p.shape[1], device=log_p.device)
        accumulator.update(log_p, labels)
    assert accumulator is not None
    return information_of(accumulator)


def information_of(accumulator: InformationAccumulator, *, synchronize: bool = False) -> InformationRecord:
    """What an accumulator that has seen everything comes to; with ``synchronize`` those of all processes together."""
    by_centroid = accumulator.compute("centroid_kl", synchronize=synchronize)
    by_entropy = accumulator.compute("cross_entropy", synchronize=synchronize)
    return InformationRecord(
        cmi=defined(by_centroid.cmi),
        separation=defined(by_centroid.separation),
        ncmi=defined(by_centroid.ncmi),
        cross_entropy_separation=defined(by_entropy.separation),
        cross_entropy_ncmi=defined(by_entropy.ncmi),
    )


def say_nothing(stage: str) -> None:
    """Whoever does not want to be told of stages."""


@torch.no_grad()
def fit_readouts(
    model: Classifier, train: Features, neighbors_limit: int | None = None, on_stage: Stages = say_nothing
) -> NearestNeighbors | None:
    """Fit CC, and LP if it is judged, to the training features, and return kNN fitted to them, or to a part of them.

    Args:
        model: whose ``cc`` and ``lp`` are fitted.
        train: the training part.
        neighbors_limit: see :class:`ncmi.recipes.Training`; no kNN for 0, or of a model judged by its own read-out.
        on_stage: told what is begun.
    """
    count, classes = len(train.labels), model.objective.num_classes
    probe = " and the linear probe" if "lp" in model.judged else ""
    on_stage(f"fitting centroid comparison{probe} to {count:,} samples, {classes:,} classes …")
    # a new one, with the center as it now is; and as every process has gathered all features, its sums are the sums
    classifier = model.objective.centroid_classifier().to(train.features.device)
    model.cc = classifier.partial_fit(train.features, train.labels)
    if "lp" in model.judged:
        model.lp.fit(train.features, train.labels)
    return fit_neighbors(model, train, neighbors_limit) if len(model.judged) > 1 else None


def fit_neighbors(model: Classifier, train: Features, limit: int | None = None) -> NearestNeighbors | None:
    """kNN among the training features, or a sample of them; None for a limit of 0.

    Args:
        limit: how many at most; by default :func:`usual_neighbors`.
    """
    classes = model.objective.num_classes
    most = usual_neighbors(len(train.labels), classes) if limit is None else limit
    if most == 0:
        return None
    rows = stratified_sample(train.labels, most)
    return NearestNeighbors(classes).fit(train.features[rows], train.labels[rows])


@torch.no_grad()
def log_probabilities(model: Classifier, neighbors: NearestNeighbors | None, part: Features) -> dict[str, Tensor]:
    """Log-probabilities ``[N, C]`` of every read-out that is judged, and, where it is fitted, of kNN."""
    by_readout = {
        name: torch.cat([model.log_proba(rows, name) for rows in part.features.split(_ROWS)]) for name in model.judged
    }
    if neighbors is not None:
        by_readout["knn"] = neighbors.predict_log_proba(part.features)
    return by_readout


def judge_readouts(
    model: Classifier,
    parts: Mapping[str, Features],
    class_names: Sequence[str],
    neighbors_limit: int | None = None,
    on_stage: Stages = say_nothing,
) -> Judgment:
    """Fit the read-outs to ``parts["train"]`` and judge them on ``parts["validation"]``, if any, and ``parts["test"]``.

    What is chosen by the validation part, the temperature τ of each read-out, is used on the test part as it is.

    Args:
        model: in evaluation mode; see :func:`fit_readouts`.
        parts: features by part; without a training part the model's read-outs decide as they are, without kNN.
        class_names: of the C classes.
        neighbors_limit, on_stage: as for :func:`fit_readouts`.
    """
    train = parts.get("train")
    neighbors = None if train is None else fit_readouts(model, train, neighbors_limit, on_stage)
    judged = [name for name in ("validation", "test") if name in parts]
    decided = sum(len(parts[part].labels) for part in judged)
    among = "" if neighbors is None else f", nearest neighbors among {len(neighbors.labels):,}"
    which = "all read-outs" if len(model.judged) > 1 else READOUTS_IN_WORDS[model.judged[0]]
    on_stage(f"deciding {decided:,} samples by {which}{among} …")
    log_p = {part: log_probabilities(model, neighbors, parts[part]) for part in judged}
    on_stage("judging the decisions …")
    fits = {}
    if train is not None and "lp" in model.judged:
        fits["lp"] = Fit(
            samples=model.lp.samples,
            available=len(train.labels),
            iterations=model.lp.iterations,
            converged=model.lp.converged,
        )
    if train is not None and neighbors is not None:
        fits["knn"] = Fit(samples=len(neighbors.labels), available=len(train.labels))
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
            fit=fits.get(name),
            patients=_of_patients(model, of_test, test, class_names),
        )
    return Judgment(readouts, log_p)


def _of_patients(model: Classifier, log_p: Tensor, test: Features, class_names: Sequence[str]) -> Scores | None:
    if model.signature.kind != "bags" or test.groups is None:
        return None
    pooled = by_group(log_p.cpu().numpy(), test.labels.cpu().numpy(), test.groups)
    return None if pooled is None else judge(pooled[0], pooled[1], class_names, groups=pooled[2])
