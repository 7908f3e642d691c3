"""New data decided by a finished run, written as CSV."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ncmi.files import check_writable, write_atomically
from ncmi.readouts.calibration import apply_temperature
from ncmi.recipes import BagData, ImageData, TableData
from ncmi.training.model import Classifier, load_model
from ncmi.training.run_folder import RunFolder, RunFolderError, write_arrays


@dataclass(frozen=True)
class Predicted:
    """How many rows were written, and (name, reason) of what was left out."""

    rows: int
    skipped: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class _Row:
    """What a line is made of: a name, a feature ``[D]``, and of a bag the number of its instances."""

    name: str
    feature: Tensor
    instances: int | None = None


def predict(
    run: str | Path,
    inputs: str | Path,
    out: str | Path,
    *,
    readout: str = "auto",
    calibrated: bool = False,
    bad: str = "error",
    attention: str | Path | None = None,
    overwrite: bool = False,
) -> Predicted:
    """Predict a file or folder of new data with a finished run and write a CSV.

    Columns: ``id`` (row number, file name or slide), ``prediction``, ``probability``, ``distance`` (KL in nats to the
    nearest of the centroids that CC compares with, whatever the read-out is), and ``p(CLASS)`` for each class; of bags
    also ``distance(CLASS)`` for each class, and ``instances``.

    Args:
        run: the run folder, finished.
        inputs: like the training data; labels are not looked at.
        out: the CSV to write.
        readout: "head", "cc" or "lp"; by default the objective's own first one.
        calibrated: probabilities after division of the log-probabilities by the τ that was fitted to the run's
            validation part; predictions stay the same.
        bad: "error", or "skip": leave out bags that cannot be used.
        attention: folder for the attention over each bag, one .npz a bag.
        overwrite: replace an existing CSV.

    Raises:
        FileExistsError: if ``out`` exists and may not be replaced.
        ValueError: for data unlike the training data, or if ``calibrated`` and the run has no τ.
    """
    path = Path(out)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists: choose another --out, or give --overwrite")
    check_writable(path)
    if readout not in ("auto", "head", "cc", "lp"):
        raise ValueError(f"unknown read-out {readout!r}: use 'head', 'cc' or 'lp'")
    model, folder = load_model(run), RunFolder.open(run)
    name = model.objective.readouts[0] if readout == "auto" else readout
    temperature = _temperature(folder, name) if calibrated else None
    skipped: list[tuple[str, str]] = []
    data = folder.recipe().data
    if isinstance(data, BagData):
        rows = _bag_rows(model, data, str(inputs), bad, None if attention is None else Path(attention), skipped)
    elif attention is not None:
        raise ValueError("attention is over the instances of bags, which tables and images do not have: leave it out")
    else:
        assert isinstance(data, TableData | ImageData)
        rows = _sample_rows(model, data, str(inputs))
    count = _write(path, model, list(rows), name, temperature)
    return Predicted(count, tuple(skipped))


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


def _sample_rows(model: Classifier, data: TableData | ImageData, inputs: str) -> Iterator[_Row]:
    from ncmi.data.load import load_unlabeled
    from ncmi.training.samples import features_of

    signature = model.signature
    values, names = load_unlabeled(
        inputs,
        kind=signature.kind,
        shape=signature.sample_shape,
        feature_names=signature.feature_names,
        label_column=data.label_column,
    )
    for name, feature in zip(names, features_of(model, values).float(), strict=True):
        yield _Row(name, feature)


@torch.no_grad()
def _bag_rows(
    model: Classifier, data: BagData, inputs: str, bad: str, attention: Path | None, skipped: list[tuple[str, str]]
) -> Iterator[_Row]:
    from ncmi.data.bags.readers import open_bags
    from ncmi.data.bags.stream import usable_bags
    from ncmi.training.bags import attention_arrays

    def leave_out(name: str, reason: str) -> None:
        skipped.append((name, reason))

    source = open_bags(inputs, features_key=data.features_key, coords_key=data.coords_key)
    width = model.signature.sample_shape[0]
    for bag in usable_bags(source, width, on_bad=leave_out if bad == "skip" else None):
        yield _Row(bag.name, model(bag.features).vector, len(bag.features))
        if attention is not None:
            write_arrays(attention / f"{bag.name}.npz", attention_arrays(model, bag))


@torch.no_grad()
def _write(path: Path, model: Classifier, rows: list[_Row], readout: str, temperature: float | None) -> int:
    features = torch.stack([row.feature for row in rows])
    log_p = model.log_proba(features, readout)
    probabilities = (log_p if temperature is None else apply_temperature(log_p, temperature)).exp().tolist()
    distances = model.cc.divergences(features)
    nearest, by_class = distances.amin(1).tolist(), distances.tolist()
    classes = model.signature.class_names
    bags = rows[0].instances is not None
    heading = ["id", "prediction", "probability", "distance", *(f"p({name})" for name in classes)]
    heading += [*(f"distance({name})" for name in classes), "instances"] if bags else []

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(heading)
            for row, p, least, each in zip(rows, probabilities, nearest, by_class, strict=True):
                best = max(range(len(p)), key=p.__getitem__)
                numbers = [f"{value:.6g}" for value in (p[best], least, *p, *(each if bags else ()))]
                writer.writerow([row.name, classes[best], *numbers, *([row.instances] if bags else [])])

    write_atomically(path, write)
    return len(rows)
