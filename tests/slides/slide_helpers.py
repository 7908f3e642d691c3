"""Small cohorts of bags with a planted instance, and recipes that learn them in seconds."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ncmi.objectives.options import NCMIOptions, ObjectiveOptions
from ncmi.recipes import BagData, BagNetwork, Recipe, default_training

CLASSES = ("none", "one", "other")
WIDTH = 12
TIMES = {"seconds", "epoch_seconds", "total_seconds", "peak_memory_mb"}


def write_cohort(folder: Path, *, slides: int = 36, patients: int = 18, seed: int = 0, dtype: Any = np.float16) -> Path:
    """One .h5 a slide, and labels.csv: a slide of class c > 0 holds a few instances far along axis c. The CSV."""
    random = np.random.default_rng(seed)
    features = folder / "features"
    features.mkdir(parents=True)
    rows = []
    for number in range(slides):
        label = number % len(CLASSES)
        count = int(random.integers(4, 15))
        x = random.normal(size=(count, WIDTH))
        planted = random.permutation(count)[:2]
        if label:
            x[planted, label] += 6
        side = int(np.ceil(np.sqrt(count)))
        coords = 256 * np.stack([np.arange(count) % side, np.arange(count) // side], 1)
        with h5py.File(features / f"slide{number:02d}.h5", "w") as file:
            file["features"] = x.astype(dtype)
            file["coords"] = coords
            file["coords"].attrs["patch_size_level0"] = 256
            file["planted"] = np.isin(np.arange(count), planted) & bool(label)
        patient = number // len(CLASSES) % patients
        rows.append([f"slide{number:02d}", f"patient{patient}", patient % 3, CLASSES[label]])
    table = folder / "labels.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slide_id", "patient_id", "center", "label"])
        writer.writerows(rows)
    return table


def slide_recipe(
    table: Path,
    network: str = "abmil",
    objective: ObjectiveOptions | None = None,
    *,
    data: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    **training: Any,
) -> Recipe:
    """Two epochs of a narrow network on a cohort of :func:`write_cohort`."""
    place = {"name": str(table.parent / "features"), "labels": str(table), "test_fraction": 0.3}
    usual = {"epochs": 2, "learning_rate": 1e-2, "centroid_learning_rate": 1e-2, "accelerator": "cpu", "threads": 1}
    return Recipe(
        BagData(**{**place, **(data or {})}),  # type: ignore[arg-type]
        BagNetwork(network, **{"width": 16, "heads": 4, "attention_dim": 8, **(options or {})}),  # type: ignore[arg-type]
        objective or NCMIOptions(),
        replace(default_training("bags"), **{**usual, **training}),
    )


def read(folder: Path, name: str) -> Any:
    """A JSON file of a run."""
    return json.loads((folder / name).read_text())


def rows(path: Path) -> list[dict[str, str]]:
    """A CSV."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in TIMES}
