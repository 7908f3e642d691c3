"""Finished runs put to use: judged again, applied to new data; and the measures of saved outputs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ncmi.calibration import apply_temperature
from ncmi.data import load_unlabelled
from ncmi.data.foreign import load_foreign
from ncmi.files import write_atomically
from ncmi.information import InformationAccumulator
from ncmi.kept_evaluation import temperature_of
from ncmi.out_of_distribution import compare_with_foreign
from ncmi.recipes import Data
from ncmi.saved_outputs import read_outputs
from ncmi.simplex import to_log_distribution
from ncmi.training import Features, RunFolder, evaluate_readouts, load_model
from ncmi.training.evaluate import information
from ncmi.training.model import Model
from ncmi.training.parts import dataset_of, parts_of

_BATCH = 1024
Values = Literal["auto", "logits", "probabilities", "log_probabilities", "features"]


@torch.no_grad()
def features_of(model: Model, inputs: Tensor) -> Tensor:
    """Features ``[N, D]`` of raw inputs, in batches, on the CPU."""
    dtype = next(model.parameters()).dtype
    return torch.cat([model.backbone(model.standardise(batch).to(dtype)) for batch in inputs.split(_BATCH)])


def evaluate_run(run: str | Path, on: str | Data | None = None, ood: Sequence[str] = ()) -> dict[str, Any]:
    """Judge a finished run by all read-outs, on its own validation and test parts or on other labelled data.

    Args:
        run: the run folder; nothing is written into it.
        on: other labelled data; a name or path is read as the run's own data was.
        ood: names or paths of foreign data that the run's test part is to be told from; labels are not looked at.

    Returns:
        ``readouts``, ``information``, ``reliability`` and what was judged, as in ``results.json``; with ``ood`` also
        for each of its names what :func:`ncmi.out_of_distribution.compare_with_foreign` gives.

    Raises:
        ValueError: if the other data has other classes or inputs than the run was trained on, or is the run's own.
    """
    recipe = RunFolder.open(run).recipe()
    model = load_model(run)
    own, split = parts_of(recipe, dataset_of(recipe.data))
    if recipe.data.name in ood:
        raise ValueError(f"{recipe.data.name} is what the run was trained on: give data that is foreign to it")
    foreign = {name: _foreign_inputs(model, recipe.data, name) for name in ood}
    parts = {
        name: Features(features_of(model, own.inputs[indices]), own.labels[indices])
        for name, indices in (("train", split.train), ("validation", split.validation), ("test", split.test))
        if len(indices)
    }
    inside = parts["test"].features
    results: dict[str, Any] = {"objective": recipe.objective.name, "data": recipe.data.name}
    if on is not None:
        data = replace(recipe.data, name=on) if isinstance(on, str) else on
        other = dataset_of(data)
        if other.class_names != own.class_names or other.sample_shape != own.sample_shape:
            raise ValueError(
                f"{data.name} has {other.num_classes} classes and samples {list(other.sample_shape)}, the run was "
                f"trained on {own.num_classes} and {list(own.sample_shape)}: give data with the same classes and inputs"
            )
        parts["test"] = Features(features_of(model, other.inputs), other.labels)
        results["data"] = data.name
    judged = evaluate_readouts(model, parts)
    results["readouts"] = judged.readouts
    if on is not None:  # the validation part is the run's own, not the other data's
        results["readouts"] = {
            readout: {name: value for name, value in found.items() if not name.startswith("validation_")}
            for readout, found in judged.readouts.items()
        }
    results["information"] = information(model, parts["test"])
    results["reliability"] = judged.plain_reliability()
    if ood:
        readout = model.objective.readouts[0]
        results["ood"] = {
            name: compare_with_foreign(
                model,
                inside,
                features_of(model, inputs),
                data=recipe.data.name,
                foreign=name,
                readout=readout,
            )
            for name, inputs in foreign.items()
        }
    return results


def _foreign_inputs(model: Model, data: Data, name: str) -> Tensor:
    signature = model.signature
    return load_foreign(
        name,
        kind=signature.kind,
        shape=signature.sample_shape,
        feature_names=signature.feature_names,
        label_column=data.label_column,
        data_dir=data.data_dir,
    )


def predict_file(
    run: str | Path,
    inputs: str | Path,
    out: str | Path,
    *,
    readout: str = "auto",
    calibrated: bool = False,
    overwrite: bool = False,
) -> int:
    """Predict a file or folder of new data with a finished run and write a CSV; the number of its rows.

    Columns: ``id`` (row number or file name), ``prediction``, ``probability``, ``distance`` (KL in nats to the nearest
    of the centroids that CC compares with, whatever the read-out is), and ``p(CLASS)`` for each class.

    Args:
        calibrated: probabilities after division of the log-probabilities by the τ that was fitted to the run's
            validation part; predictions stay the same.

    Raises:
        FileExistsError: if ``out`` exists and may not be replaced.
        ValueError: for data unlike the training data, or if ``calibrated`` and the run has no τ.
    """
    path = Path(out)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists: choose another --out, or give --overwrite")
    model = load_model(run)
    folder = RunFolder.open(run)
    chosen = model.objective.readouts[0] if readout == "auto" else readout
    temperature = temperature_of(folder, chosen) if calibrated else None
    signature = model.signature
    values, names = load_unlabelled(
        str(inputs),
        kind=signature.kind,
        shape=signature.sample_shape,
        feature_names=signature.feature_names,
        label_column=folder.recipe().data.label_column,
    )
    features = features_of(model, values).float()
    log_p = model.log_proba(features, chosen)
    probabilities = (log_p if temperature is None else apply_temperature(log_p, temperature)).exp()
    distances = model.cc.divergences(features).amin(1)

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            classes = signature.class_names
            writer.writerow(["id", "prediction", "probability", "distance", *(f"p({name})" for name in classes)])
            for name, row, distance in zip(names, probabilities.tolist(), distances.tolist(), strict=True):
                best = max(range(len(row)), key=row.__getitem__)
                shown = (f"{value:.6g}" for value in (row[best], distance, *row))
                writer.writerow([name, classes[best], *shown])

    write_atomically(path, write)
    return len(names)


def measure_file(
    path: str | Path, values: Values = "auto", temperature: float = 0.5, labels_file: str | Path | None = None
) -> dict[str, Any]:
    """CMI, Γ (both definitions) and NCMI of saved outputs ``[N, D]`` and labels ``[N]``: see :mod:`ncmi.saved_outputs`.

    Raises:
        ValueError: if the arrays are missing, damaged or do not fit together; the message names file and cure.
    """
    file = Path(path)
    name, outputs, labels = read_outputs(file, None if labels_file is None else Path(labels_file))
    kind = _kind_of(name, outputs) if values == "auto" else values
    x = torch.from_numpy(np.ascontiguousarray(outputs))
    x = x if x.dtype == torch.float32 else x.double()
    try:
        log_p = _log_distributions(x, kind, temperature)
        accumulator = InformationAccumulator(int(labels.max()) + 1, log_p.shape[1])
        accumulator.update(log_p, torch.from_numpy(labels.astype(np.int64)))
    except ValueError as error:
        raise ValueError(f"{file}, array {name!r} taken as {kind}: {error}") from None
    by_centroid = accumulator.compute("centroid_kl", synchronise=False)
    by_entropy = accumulator.compute("cross_entropy", synchronise=False)
    return {
        "file": str(file),
        "values": kind,
        "samples": len(labels),
        "cmi": by_centroid.cmi,
        "separation": by_centroid.separation,
        "ncmi": by_centroid.ncmi,
        "cross_entropy_separation": by_entropy.separation,
        "cross_entropy_ncmi": by_entropy.ncmi,
        "per_class_cmi": [None if value != value else value for value in by_centroid.per_class_cmi.tolist()],
    }


def _log_distributions(x: Tensor, kind: str, temperature: float) -> Tensor:
    if kind == "features":
        return to_log_distribution(x, None, temperature)
    if kind == "logits":
        return torch.log_softmax(x, dim=-1)
    return x.log() if kind == "probabilities" else x


def _kind_of(name: str, outputs: Any) -> Values:
    known: dict[str, Values] = {
        "logits": "logits",
        "probabilities": "probabilities",
        "probs": "probabilities",
        "log_probabilities": "log_probabilities",
        "log_p": "log_probabilities",
        "features": "features",
    }
    if name in known:
        return known[name]
    rows = outputs[:1000].astype(np.float64)
    if (rows >= 0).all() and np.allclose(rows.sum(1), 1, atol=1e-3):
        return "probabilities"
    if (rows <= 0).all() and np.allclose(np.exp(rows).sum(1), 1, atol=1e-3):
        return "log_probabilities"
    return "logits"
