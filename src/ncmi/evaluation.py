"""Finished runs put to use: judged again, applied to new data; and the measures of saved outputs."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ncmi.data import load_unlabelled
from ncmi.files import write_atomically
from ncmi.information import InformationAccumulator
from ncmi.recipes import Data
from ncmi.saved_outputs import read_outputs
from ncmi.simplex import to_log_distribution
from ncmi.training import Features, RunFolder, evaluate_readouts, load_model
from ncmi.training.evaluate import fit_readouts, information, log_probabilities, scores_of
from ncmi.training.model import Model
from ncmi.training.parts import dataset_of, split_of

_BATCH = 1024
Values = Literal["auto", "logits", "probabilities", "log_probabilities", "features"]


@torch.no_grad()
def features_of(model: Model, inputs: Tensor) -> Tensor:
    """Features ``[N, D]`` of raw inputs, in batches, on the CPU."""
    dtype = next(model.parameters()).dtype
    return torch.cat([model.backbone(model.standardise(batch).to(dtype)) for batch in inputs.split(_BATCH)])


def evaluate_run(run: str | Path, on: Data | None = None) -> dict[str, Any]:
    """Judge a finished run by all read-outs, on its own validation and test parts or on other labelled data.

    Returns:
        ``readouts``, ``information`` and what was judged, as in ``results.json``.

    Raises:
        ValueError: if the other data has other classes or inputs than the run was trained on.
    """
    recipe = RunFolder.open(run).recipe()
    model = load_model(run)
    own = dataset_of(recipe.data)
    split = split_of(recipe, own)
    train = Features(features_of(model, own.inputs[split.train]), own.labels[split.train])
    results: dict[str, Any] = {"objective": recipe.objective.name, "data": recipe.data.name}
    if on is None:
        parts = {"train": train}
        for name, indices in (("validation", split.validation), ("test", split.test)):
            if len(indices) == 0:
                continue
            parts[name] = Features(features_of(model, own.inputs[indices]), own.labels[indices])
        results["readouts"], _ = evaluate_readouts(model, parts)
        results["information"] = information(model, parts["test"])
        return results
    other = dataset_of(on)
    if other.class_names != own.class_names or other.sample_shape != own.sample_shape:
        raise ValueError(
            f"{on.name} has {other.num_classes} classes and samples {list(other.sample_shape)}, the run was trained on "
            f"{own.num_classes} and {list(own.sample_shape)}: give data with the same classes and inputs"
        )
    part = Features(features_of(model, other.inputs), other.labels)
    found = log_probabilities(model, fit_readouts(model, train), part)
    results["data"] = on.name
    results["readouts"] = {
        readout: {f"test_{name}": value for name, value in scores_of(log_p, part.labels).items()}
        for readout, log_p in found.items()
    }
    results["information"] = information(model, part)
    return results


def predict_file(
    run: str | Path, inputs: str | Path, out: str | Path, *, readout: str = "auto", overwrite: bool = False
) -> int:
    """Predict a file or folder of new data with a finished run and write a CSV; the number of its rows.

    Columns: ``id`` (row number or file name), ``prediction``, ``probability``, and ``p(CLASS)`` for each class.

    Raises:
        FileExistsError: if ``out`` exists and may not be replaced.
    """
    path = Path(out)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists: choose another --out, or give --overwrite")
    model = load_model(run)
    recipe = RunFolder.open(run).recipe()
    signature = model.signature
    values, names = load_unlabelled(
        str(inputs),
        kind=signature.kind,
        shape=signature.sample_shape,
        feature_names=signature.feature_names,
        label_column=recipe.data.label_column,
    )
    chosen = model.objective.readouts[0] if readout == "auto" else readout
    probabilities = model.log_proba(features_of(model, values).float(), chosen).exp()

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "prediction", "probability", *(f"p({name})" for name in signature.class_names)])
            for name, row in zip(names, probabilities.tolist(), strict=True):
                best = max(range(len(row)), key=row.__getitem__)
                writer.writerow([name, signature.class_names[best], f"{row[best]:.6g}", *(f"{p:.6g}" for p in row)])

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
