"""How the default options were chosen: validation accuracy of NCMI and its rivals, never the test part.

    python benchmarks/defaults.py digits --seeds 5
    NCMI_DATA=... python benchmarks/defaults.py letter --seeds 2 --epochs 30

Prints one line a setting: mean ± sd of the validation accuracy of the trained head, of CC and of LP over the seeds
(each seed has its own split), and seconds a run. --json writes the same figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from ncmi.data import load_dataset
from ncmi.options import objective_options
from ncmi.recipes import Data, Recipe, Training
from ncmi.training import train

# objective, its options, changes of the training
SETTINGS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("cross_entropy", {}, {}),
    ("cross_entropy", {}, {"learning_rate": 5e-3}),
    ("label_smoothing", {}, {}),
    ("ncmi", {}, {}),
    ("ncmi", {"temperature": 0.25}, {}),
    ("ncmi", {"temperature": 1.0}, {}),
    ("ncmi", {"separation_power": -2.0}, {}),
    ("ncmi", {"separation_power": -8.0}, {}),
    ("ncmi", {}, {"centroid_learning_rate": 2e-4}),
    ("ncmi", {}, {"centroid_learning_rate": 2e-2}),
    ("ncmi", {"anchors": "etf"}, {}),
    ("ncmi", {"centre": "frozen"}, {}),
    ("ncmi", {"centroids": "fixed"}, {}),
    (
        "ncmi",  # the paper's loss as released: fixed centroids, p = 1, mean of ratios
        {
            "centroids": "fixed",
            "separation_power": 1.0,
            "separation_direction": "centroid_to_sample",
            "reduction": "mean_of_ratios",
        },
        {},
    ),
    ("cmic", {}, {}),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=0, help="0: the recipe's own")
    parser.add_argument("--only", help="objective to restrict to")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.data)
    rows = []
    for name, options, changes in SETTINGS:
        if arguments.only not in (None, name):
            continue
        base = Training(epochs=arguments.epochs, threads=1, accelerator="cpu")
        found: dict[str, list[float]] = {"head": [], "cc": [], "lp": [], "seconds": []}
        for seed in range(arguments.seeds):
            recipe = Recipe(
                data=Data(arguments.data),
                objective=objective_options(name)(**options),
                training=replace(base, seed=seed, **changes),
            )
            with tempfile.TemporaryDirectory() as folder:
                results = train(recipe, Path(folder) / "run", dataset=dataset)
            for readout in ("head", "cc", "lp"):
                found[readout].append(100 * results["readouts"][readout]["validation_accuracy"])
            found["seconds"].append(results["total_seconds"])
        rows.append({"objective": name, **options, **changes, "validation": found})
        spread = "  ".join(
            f"{readout} {statistics.mean(values):6.2f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.2f}"
            for readout, values in found.items()
            if readout != "seconds"
        )
        told = " ".join(f"{key}={value}" for key, value in {**options, **changes}.items()) or "default"
        print(f"{name:16} {spread}  {statistics.median(found['seconds']):5.1f} s  {told}", flush=True)
        if arguments.json is not None:
            content = {"data": arguments.data, "seeds": arguments.seeds, "epochs": arguments.epochs, "rows": rows}
            arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
