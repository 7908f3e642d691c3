"""Read-outs fitted to and judged by features that are made batch by batch and kept by nobody.

Nothing here has a row for each sample and a column for each feature or class, on any process: CC is fitted by sums, the
linear probe by steps on what passes by, the temperature by a sample, and scores are added up; see
:mod:`ncmi.readouts.streamed`. Small training parts are kept, and the linear probe is fitted to them as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ncmi.loss.distributed import world_size
from ncmi.loss.information import InformationAccumulator
from ncmi.readouts.calibration import fit_temperature
from ncmi.readouts.linear_probe import Moments, stratified_sample
from ncmi.readouts.neighbors import NearestNeighbors
from ncmi.readouts.scores import calibration_error
from ncmi.readouts.streamed import StreamedScores, all_rows
from ncmi.training.judging import (
    Features,
    Judgment,
    Outcome,
    Stages,
    information_of,
    log_probabilities,
    say_nothing,
)
from ncmi.training.mistakes import MOST_ROWS, Mistakes
from ncmi.training.model import Classifier
from ncmi.training.schema import Calibration, Fit, Readout

KEPT_VALUES = 2**24
"""Features or probabilities that may be kept of a part."""
_PROBE_STEPS, _MOST_PASSES, _PROBE_BATCH = 300, 10, 1024


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """A batch of features ``[n, D]`` of this process, their labels ``[n]``, and their places in the part ``[n]``."""

    features: Tensor
    labels: Tensor
    places: Tensor


@dataclass(frozen=True, eq=False)
class Stream:
    """Features of a part of the data, to be had as often as is asked for.

    Attributes:
        labels: of the part, ``[N]``.
        batch_size: samples of a batch of all processes.
        read: gives this process's share of the batches of some places of the part ``[n]``, in their order; samples that
            cannot be read are left out.
    """

    labels: Tensor
    batch_size: int
    read: Callable[[Tensor], Iterator[FeatureRows]]

    def all(self) -> Iterator[FeatureRows]:
        """The whole part in its order."""
        return self.read(torch.arange(len(self.labels)))

    def collect(self, places: Tensor) -> tuple[Features, Tensor]:
        """Features of some places, of all processes, in order of place; and which they are."""
        batches = list(self.read(places))
        return _together(batches, batches[0].features.device)


def stream_of(features: Features) -> Stream:
    """What is kept, as what is made batch by batch."""
    labels = features.labels

    def read(places: Tensor) -> Iterator[FeatureRows]:
        for part in places.split(_PROBE_BATCH):
            yield FeatureRows(features.features[part], labels[part], part)

    return Stream(labels, _PROBE_BATCH, read)


def _together(batches: Sequence[FeatureRows], device: torch.device) -> tuple[Features, Tensor]:
    """FeatureRows of all processes in order of place, and their places; every process must call it."""
    features, labels, places = (
        all_rows(torch.cat([getattr(batch, name).to(device) for batch in batches]), device)
        for name in ("features", "labels", "places")
    )
    order = places.argsort()
    return Features(features[order], labels[order]), places[order]


@torch.no_grad()
def fit_by_stream(
    model: Classifier, train: Stream, neighbors_limit: int | None, on_stage: Stages = say_nothing
) -> tuple[NearestNeighbors | None, dict[str, Fit]]:
    """Fit CC, and LP where it is judged; kNN only where a limit asks for it.

    Returns:
        kNN, and what was fitted to what.
    """
    count, dim = len(train.labels), model.objective.feature_dim
    device, probes = model.standardize.mean.device, "lp" in model.judged
    keeps = count * dim <= KEPT_VALUES
    probe = " and the linear probe" if probes else ""
    on_stage(f"fitting centroid comparison{probe} to {count:,} samples, {model.objective.num_classes:,} classes …")
    model.cc = model.objective.centroid_classifier().to(device)
    fits: dict[str, Fit] = {}
    if keeps:
        features, _ = train.collect(torch.arange(count))
        model.cc.partial_fit(features.features, features.labels)
        if probes:
            model.lp.fit(features.features, features.labels)
    else:
        moments = Moments(dim, device)

        def look() -> Iterator[tuple[Tensor, Tensor]]:
            for rows in train.all():
                if probes:
                    moments.update(rows.features)
                yield rows.features, rows.labels

        model.cc.fit(look())
        if probes:
            moments.gather()
            batches = -(-count // train.batch_size)
            per_step = max(1, _PROBE_BATCH // train.batch_size)
            passes = min(_MOST_PASSES, max(1, -(-_PROBE_STEPS * per_step // batches)))
            order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
            model.lp.fit_stream(
                lambda: ((rows.features, rows.labels) for rows in train.read(order)),
                moments,
                passes=passes,
                batches_per_pass=batches,
                batches_per_step=per_step,
            )
    if probes:
        converged = model.lp.converged if keeps else None
        fits["lp"] = Fit(samples=model.lp.samples, available=count, iterations=model.lp.iterations, converged=converged)
    neighbors = neighbors_of_stream(model, train, neighbors_limit) if len(model.judged) > 1 else None
    if neighbors is not None:
        fits["knn"] = Fit(samples=len(neighbors.labels), available=count)
    return neighbors, fits


@torch.no_grad()
def neighbors_of_stream(model: Classifier, train: Stream, limit: int | None) -> NearestNeighbors | None:
    """kNN among so many training samples; None where no number is given."""
    if not limit:
        return None
    most = min(limit, KEPT_VALUES // model.objective.feature_dim)
    some, _ = train.collect(stratified_sample(train.labels, most))
    return NearestNeighbors(model.objective.num_classes).fit(some.features, some.labels)


class _Judged:
    """What is added up over a part: scores of each read-out, information, the surest mistakes."""

    def __init__(
        self, model: Classifier, neighbors: NearestNeighbors | None, stream: Stream, temperatures: Mapping[str, float]
    ) -> None:
        names = [*model.judged, *([] if neighbors is None else ["knn"])]
        classes = model.objective.num_classes
        self.scores = {name: StreamedScores(classes, temperatures.get(name)) for name in names}
        self.accumulator = accumulator_for(model)
        self.device = model.standardize.mean.device
        # places, labels and probabilities of the surest mistakes so far, of this process
        self._mistakes = torch.empty(0, 3, dtype=torch.float64)
        self._of_mistakes = torch.empty(0, classes, dtype=torch.float64)
        widest = max(model.objective.feature_dim, classes)
        wanted = torch.zeros(len(stream.labels), dtype=torch.bool)
        wanted[stratified_sample(stream.labels, max(1, KEPT_VALUES // widest))] = True
        kept: list[FeatureRows] = []
        first = model.objective.readouts[0]
        for rows in stream.all():
            keep = wanted[rows.places].to(rows.labels.device)
            kept.append(FeatureRows(rows.features[keep], rows.labels[keep], rows.places[keep.cpu()]))
            if len(rows.labels) == 0:
                continue
            log_p = log_probabilities(model, neighbors, Features(rows.features, rows.labels))
            for name, of_readout in log_p.items():
                self.scores[name].update(of_readout, rows.labels)
            self._look_at(log_p[first], rows)
            self.accumulator.update(model.objective.log_distribution(rows.features), rows.labels)
        for scores in self.scores.values():
            scores.gather(self.device)
        self.sample, self.places = _together(kept, self.device)

    def _look_at(self, log_p: Tensor, rows: FeatureRows) -> None:
        highest, decided = log_p.double().max(1)
        wrong = decided != rows.labels
        columns = torch.stack([highest, rows.places.double(), rows.labels.double()], 1)[wrong].cpu()
        # the probabilities of all classes are kept of as many as are written at most
        self._keep(torch.cat([self._mistakes, columns]), torch.cat([self._of_mistakes, log_p[wrong].double().cpu()]))

    def _keep(self, mistakes: Tensor, of_mistakes: Tensor) -> None:
        by_place = mistakes[:, 1].argsort()
        order = by_place[mistakes[by_place, 0].argsort(descending=True, stable=True)][:MOST_ROWS]
        self._mistakes, self._of_mistakes = mistakes[order], of_mistakes[order]

    def mistakes(self, readout: str) -> Mistakes:
        """The surest mistakes of all processes; each must call it."""
        self._keep(all_rows(self._mistakes, self.device).cpu(), all_rows(self._of_mistakes, self.device).cpu())
        scores = self.scores[readout]
        total = int((scores.column("decided") != scores.column("label")).sum())
        _, places, labels = self._mistakes.unbind(1)
        return Mistakes(places.long(), total, self._of_mistakes.exp(), labels.long())


@torch.no_grad()
def judge_streams(
    model: Classifier,
    streams: Mapping[str, Stream],
    class_names: Sequence[str],
    neighbors_limit: int | None = None,
    on_stage: Stages = say_nothing,
) -> Outcome:
    """What :func:`ncmi.training.judging.judge_readouts` does, of parts that are too large to be kept.

    Args:
        model: in evaluation mode.
        streams: by part: ``"train"``, if the read-outs are to be fitted, ``"validation"``, if any, and ``"test"``.
        class_names: of the C classes.
        neighbors_limit: kNN among so many training samples; None or 0 for no kNN.
        on_stage: told what is begun.
    """
    neighbors: NearestNeighbors | None = None
    fits: dict[str, Fit] = {}
    if "train" in streams:
        neighbors, fits = fit_by_stream(model, streams["train"], neighbors_limit, on_stage)
    temperatures: dict[str, float] = {}
    judged: dict[str, _Judged] = {}
    for part in ("validation", "test"):
        if part not in streams:
            continue
        stream = streams[part]
        on_stage(f"judging {len(stream.labels):,} samples of the {part} part …")
        judged[part] = _Judged(model, neighbors, stream, temperatures)
        if part == "validation":
            sample = judged[part].sample
            log_p = log_probabilities(model, neighbors, sample)
            temperatures = {name: fit_temperature(each, sample.labels) for name, each in log_p.items()}
    test = judged["test"].sample
    readouts = {
        name: _readout(name, judged, temperatures, class_names, fits.get(name)) for name in judged["test"].scores
    }
    return Outcome(
        judgment=Judgment(readouts, {"test": log_probabilities(model, neighbors, test)}),
        test=test,
        places=judged["test"].places.cpu(),
        information=information_of(judged["test"].accumulator, synchronize=world_size() > 1),
        class_counts={
            name: torch.bincount(stream.labels.cpu(), minlength=len(class_names)).tolist()
            for name, stream in streams.items()
        },
        mistakes=judged["test"].mistakes(model.objective.readouts[0]),
    )


def _readout(
    name: str,
    judged: Mapping[str, _Judged],
    temperatures: Mapping[str, float],
    class_names: Sequence[str],
    fit: Fit | None,
) -> Readout:
    of_test = judged["test"].scores[name]
    bins, calibration, validation = {"test": of_test.reliability()}, None, None
    if "validation" in judged:
        bins["calibrated"] = of_test.reliability(calibrated=True)
        calibration = Calibration(
            temperature=temperatures[name],
            nll=of_test.calibrated_nll(),
            calibration_error=calibration_error(bins["calibrated"]),
        )
        validation = judged["validation"].scores[name].compute(class_names, per_class=False)
    return Readout(
        test=of_test.compute(class_names),
        validation=validation,
        calibration=calibration,
        reliability=bins,
        fit=fit,
    )


def accumulator_for(model: Classifier) -> InformationAccumulator:
    """What measures a model's distributions, whether or not a process has samples of its own."""
    mean, objective = model.standardize.mean, model.objective
    probe = objective.log_distribution(torch.eye(1, objective.feature_dim, device=mean.device, dtype=mean.dtype))
    return InformationAccumulator(objective.num_classes, probe.shape[1], device=mean.device)
