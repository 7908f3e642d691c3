"""New data decided by a finished run, written as CSV."""

import csv
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ncmi.data.bags.bag import BagSource
from ncmi.files import check_writable, inert_cell, write_atomically
from ncmi.readouts.calibration import apply_temperature
from ncmi.readouts.neighbors import NearestNeighbors
from ncmi.recipes import BagData, ImageData, TableData
from ncmi.recipes.names import READOUTS
from ncmi.training.evaluation import open_own_source
from ncmi.training.judging import fit_neighbors
from ncmi.training.model import Classifier, load_model
from ncmi.training.run_folder import RunFolder, RunFolderError, write_arrays
from ncmi.training.streams import neighbors_of_stream

Bad = Literal["mark", "skip", "error"]


@dataclass(frozen=True)
class Predicted:
    """What came of a prediction.

    Attributes:
        rows: how many samples were predicted.
        skipped: (name, reason) of those that could not be; tables and images have a row without prediction for them.
        notes: what a user should know.
    """

    rows: int
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Row:
    """What a line is made of: a name, a feature ``[D]`` or why there is none, and of a bag its number of instances."""

    name: str
    feature: Tensor | None
    instances: int | None = None
    reason: str = ""


def predict(
    run: str | Path,
    inputs: str | Path,
    out: str | Path,
    *,
    readout: str = "auto",
    calibrated: bool = False,
    bad: Bad = "mark",
    attention: str | Path | None = None,
    overwrite: bool = False,
) -> Predicted:
    """Predict a file or folder of new data with a finished run and write a CSV.

    Columns: ``id`` (by the run's id column, else row number, file name or slide), ``prediction``, ``probability``,
    ``distance`` (KL in nats to the nearest of the centroids that CC compares with, whatever the read-out is), and
    ``p(CLASS)`` for each class; of bags also ``distance(CLASS)`` for each class, and ``instances``. Where a sample
    cannot be predicted, its row holds its id alone, and a last column, ``reason``, says why.

    Args:
        run: the run folder, finished.
        inputs: like the training data: columns in any order, and further ones; labels are not looked at.
        out: the CSV to write; ``-`` for standard output.
        readout: "head", "cc", "lp" or "knn", which reads the run's training data again; by default the objective's own
            first one.
        calibrated: probabilities after division of the log-probabilities by the τ that was fitted to the run's
            validation part; predictions stay the same.
        bad: samples that cannot be used: "mark" writes them as such, "skip" leaves them out, "error" stops.
        attention: folder for the attention over each bag, one .npz a bag.
        overwrite: replace an existing CSV.

    Raises:
        FileExistsError: if ``out`` exists and may not be replaced.
        ValueError: for data unlike the training data, an ``out`` that is one of the inputs, or if ``calibrated`` and
            the run has no τ.
    """
    if readout not in ("auto", *READOUTS):
        raise ValueError(f"unknown read-out {readout!r}: use {', '.join(READOUTS)}")
    model, folder = load_model(run), RunFolder.open(run)
    path = None if str(out) == "-" else Path(out)
    if path is not None:
        _check_out(path, Path(inputs), folder, overwrite)
    name = model.objective.readouts[0] if readout == "auto" else readout
    if name == "knn" and len(model.judged) == 1:
        raise ValueError("this run has no nearest neighbors (--training.readouts own): choose another --readout")
    if calibrated and len(model.judged) == 1 and name not in model.judged:
        raise ValueError(
            f"this run was judged by {READOUTS[model.judged[0]]} alone (--training.readouts own), and has a "
            f"temperature for nothing else: predict without --calibrated, or give --readout {model.judged[0]}"
        )
    temperature = _temperature(folder, name) if calibrated else None
    data = folder.recipe().data
    notes: tuple[str, ...] = ()
    if isinstance(data, BagData):
        from ncmi.data.bags.readers import open_bags
        from ncmi.training.bags import unknown_encoder

        skipped: list[tuple[str, str]] = []
        attention = None if attention is None else Path(attention)
        source = open_bags(str(inputs), features_key=data.features_key, coords_key=data.coords_key)
        rows = list(_bag_rows(model, source, bad, attention, skipped))
        notes = unknown_encoder(model, source, [row.name for row in rows])
        rows += [_Row(slide, None, reason=reason) for slide, reason in skipped]
    elif attention is not None:
        raise ValueError("attention is over the instances of bags, which tables and images do not have: leave it out")
    else:
        assert isinstance(data, TableData | ImageData)
        rows, notes = _sample_rows(model, data, str(inputs))
    unusable = tuple((row.name, row.reason) for row in rows if row.feature is None)
    if unusable and bad == "error":
        first = ": ".join(unusable[0])
        raise ValueError(
            f"{inputs}: {first} ({len(unusable)} such): correct it, or have them marked (--bad mark) or left out "
            "(--bad skip)"
        )
    if len(unusable) == len(rows):
        raise ValueError(f"{inputs}: none of {len(rows)} samples can be predicted: {': '.join(unusable[0])}")
    if bad == "skip":
        rows = [row for row in rows if row.feature is not None]
    lines = _lines(model, rows, name, temperature, _neighbors(model, folder) if name == "knn" else None)
    if path is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(lines)
    else:
        write_atomically(path, lambda temporary: _write(temporary, lines))
    return Predicted(sum(row.feature is not None for row in rows), unusable, notes)


def _check_out(path: Path, inputs: Path, folder: RunFolder, overwrite: bool) -> None:
    """See now whether the CSV can be written, and takes nothing away."""
    record = folder.data_record()
    sources = [] if record is None else [Path(source) for source in record.paths.values()]
    if path.exists():
        for source in (inputs.expanduser(), *sources, folder.path):
            inside = source.is_dir() and path.resolve().is_relative_to(source.resolve())
            if inside or (source.exists() and path.samefile(source)):
                raise ValueError(f"--out {path} is one of the inputs, or part of the run: choose another file")
        if not overwrite:
            raise FileExistsError(f"{path} exists: choose another --out, or give --overwrite")
    check_writable(path)


def _neighbors(model: Classifier, folder: RunFolder) -> NearestNeighbors:
    """kNN, fitted to the run's training part as when it was finished."""
    source, limit = open_own_source(folder), folder.recipe().training.neighbors_limit
    if (streams := source.streams(model)) is None:
        neighbors = fit_neighbors(model, source.features(model, source.split.train), limit)
    else:
        neighbors = neighbors_of_stream(model, streams["train"], limit)
    if neighbors is None:
        raise ValueError("this run has no nearest neighbors (--training.neighbors-limit 0): choose another --readout")
    return neighbors


def _temperature(folder: RunFolder, readout: str) -> float:
    """The τ of a read-out that was fitted to the run's validation part."""
    path, readouts = folder.path / "results.json", folder.results().readouts
    if readout not in readouts:
        raise RunFolderError(f"{path}: no results of {readout!r}: restore the file or run it again")
    calibration = readouts[readout].calibration
    if calibration is None:
        raise RunFolderError(
            f"{folder.path}: this run has no validation part to fit a temperature to: predict without --calibrated, "
            "or train with a validation part"
        )
    if not calibration.temperature > 0:
        raise RunFolderError(f"{path}: temperature of {readout!r} is not above 0: restore it")
    return calibration.temperature


def _sample_rows(model: Classifier, data: TableData | ImageData, inputs: str) -> tuple[list[_Row], tuple[str, ...]]:
    from ncmi.data.load import load_new
    from ncmi.training.samples import features_of

    new = load_new(inputs, model.signature, data)
    features = iter(features_of(model, new.inputs).float()) if len(new.inputs) else iter(())
    rows = [
        _Row(name, next(features)) if usable else _Row(name, None, reason=new.reasons[place])
        for place, (name, usable) in enumerate(zip(new.names, new.usable.tolist(), strict=True))
    ]
    return rows, new.notes


@torch.no_grad()
def _bag_rows(
    model: Classifier, source: BagSource, bad: Bad, attention: Path | None, skipped: list[tuple[str, str]]
) -> Iterator[_Row]:
    from ncmi.data.bags.stream import usable_bags
    from ncmi.training.bags import attention_arrays

    def leave_out(name: str, reason: str) -> None:
        skipped.append((name, reason))

    width, encoder = model.signature.sample_shape[0], model.signature.encoder
    for bag in usable_bags(source, width, encoder=encoder, on_bad=None if bad == "error" else leave_out):
        yield _Row(bag.name, model(bag.features).vector, len(bag.features))
        if attention is not None:
            write_arrays(attention / f"{bag.name}.npz", attention_arrays(model, bag))


@torch.no_grad()
def _lines(
    model: Classifier, rows: list[_Row], readout: str, temperature: float | None, neighbors: NearestNeighbors | None
) -> Iterator[list[str]]:
    """Heading and lines of the CSV."""
    features = torch.stack([row.feature for row in rows if row.feature is not None])
    log_p = model.log_proba(features, readout) if neighbors is None else neighbors.predict_log_proba(features)
    probabilities = iter((log_p if temperature is None else apply_temperature(log_p, temperature)).exp().tolist())
    distances = iter(model.cc.divergences(features).tolist())
    classes = model.signature.class_names
    bags, marked = model.signature.kind == "bags", any(row.feature is None for row in rows)
    heading = ["id", "prediction", "probability", "distance", *(inert_cell(f"p({name})") for name in classes)]
    heading += [*(inert_cell(f"distance({name})") for name in classes), "instances"] if bags else []
    yield [*heading, *(["reason"] if marked else [])]
    for row in rows:
        cells = [inert_cell(row.name)]
        if row.feature is not None:
            p, each = next(probabilities), next(distances)
            best = max(range(len(p)), key=p.__getitem__)
            numbers = [f"{value:.6g}" for value in (p[best], min(each), *p, *(each if bags else ()))]
            cells += [inert_cell(classes[best]), *numbers, *([str(row.instances)] if bags else [])]
        cells += [""] * (len(heading) - len(cells))
        yield [*cells, *([row.reason] if marked else [])]


def _write(path: Path, lines: Iterable[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
