"""Probabilities and unknown classes: calibration, and how well scores tell classes apart that were never trained on.

    python benchmarks/unknowns.py digits letter --data-dir FOLDER --seeds 5

For each seed a random quarter of the classes is kept out of everything; cross-entropy, label smoothing and NCMI at
their defaults are trained on the others. Told, on the known classes' test part: expected calibration error (15 bins)
and negative log-likelihood, before and after a temperature fitted to the validation part; and AUROC and false positive
rate at 95 % true positives of each score, known test samples against all samples of the unknown classes. Mean ± sd.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ncmi.data import Dataset, load_dataset
from ncmi.evaluation import evaluate_run
from ncmi.options import objective_options
from ncmi.out_of_distribution import SCORES
from ncmi.recipes import Data, Recipe, Training
from ncmi.training import train

METHODS = {"Cross-entropy": "cross_entropy", "Label smoothing": "label_smoothing", "NCMI": "ncmi"}
CALIBRATION = {
    "test_calibration_error": "ECE",
    "test_calibrated_error": "ECE, fitted",
    "test_nll": "NLL",
    "test_calibrated_nll": "NLL, fitted",
}


def parted(dataset: Dataset, seed: int, folder: Path) -> tuple[Path, Path]:
    """Files of the known classes, numbered anew, and of the unknown quarter."""
    order = np.random.default_rng(seed).permutation(dataset.num_classes)
    unknown = order[: max(1, dataset.num_classes // 4)]
    inputs, labels = dataset.inputs.numpy(), dataset.labels.numpy()
    inside = ~np.isin(labels, unknown)
    known, foreign = folder / "known.npz", folder / "foreign.npz"
    np.savez(known, x=inputs[inside], y=np.unique(labels[inside], return_inverse=True)[1])
    np.savez(foreign, x=inputs[~inside], y=np.unique(labels[~inside], return_inverse=True)[1])
    return known, foreign


def measured(dataset: Dataset, objective: str, seed: int) -> dict[str, float]:
    """One run's figures, in percent but for the likelihoods."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        known, foreign = parted(dataset, seed, folder)
        training = Training(seed=seed, threads=1, accelerator="cpu")
        recipe = Recipe(Data(str(known)), objective=objective_options(objective)(), training=training)
        results = train(recipe, folder / "run")
        found = evaluate_run(folder / "run", ood=[str(foreign)])
        readout = results["primary_readouts"][0]
        judged = found["readouts"][readout]
        row = {"accuracy": 100 * judged["test_accuracy"]}
        row |= {name: judged[name] * (100 if "error" in name else 1) for name in CALIBRATION}
        for score, one in found["ood"][str(foreign)]["scores"].items():
            row |= {f"{score}_auroc": 100 * one["auroc"], f"{score}_fpr95": 100 * one["fpr95"]}
        return row


def spread(rows: list[dict[str, float]], name: str, digits: int = 2) -> str:
    """Mean ± sd over seeds."""
    values = [row[name] for row in rows]
    sd = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.{digits}f} ± {sd:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    everything: dict[str, Any] = {}
    for name in arguments.data:
        dataset = load_dataset(name, data_dir=arguments.data_dir)
        rows = {
            label: [measured(dataset, objective, seed) for seed in range(arguments.seeds)]
            for label, objective in METHODS.items()
        }
        everything[name] = rows
        print(f"\n{name}, {arguments.seeds} seeds, {max(1, dataset.num_classes // 4)} classes unknown\n")
        print("| method | accuracy, % | " + " | ".join(CALIBRATION.values()) + " |\n|---|" + "---:|" * 5)
        for label, found in rows.items():
            cells = [spread(found, one, 3 if "nll" in one else 2) for one in CALIBRATION]
            print(f"| {label} | {spread(found, 'accuracy')} | " + " | ".join(cells) + " |")
        heads = [f"{score.replace('_', ' ')}, {kind}" for score in SCORES for kind in ("AUROC", "FPR95")]
        print("\n| method | " + " | ".join(heads) + " |\n|---|" + "---:|" * len(heads))
        for label, found in rows.items():
            cells = [spread(found, f"{score}_{kind}", 1) for score in SCORES for kind in ("auroc", "fpr95")]
            print(f"| {label} | " + " | ".join(cells) + " |", flush=True)
        if arguments.json is not None:
            arguments.json.write_text(json.dumps({"seeds": arguments.seeds, "sets": everything}, indent=1) + "\n")


if __name__ == "__main__":
    main()
