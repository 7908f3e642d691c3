"""Out-of-distribution classes: calibration, and how well scores tell classes apart that were never trained on.

    python benchmarks/ood.py digits letter --data-dir FOLDER --seeds 5

For each seed a random quarter of the classes is kept out of everything; cross-entropy, label smoothing and NCMI at
their defaults are trained on the others, and judged by their first read-out. For the classes trained on: expected
calibration error (15 bins) and negative log-likelihood of the test part, before and after a temperature fitted to the
validation part. For the others: AUROC and false positive rate at 95 % true positives of each score, test samples
against all samples of the classes kept out. Mean ± sd.
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np

from _timing import command_line, markdown
from ncmi.data.dataset import Dataset
from ncmi.data.load import load_dataset
from ncmi.files import write_json
from ncmi.objectives.options import objective_options
from ncmi.readouts.out_of_distribution import OOD_SCORES
from ncmi.recipes import DATA, Recipe, Training
from ncmi.recipes.names import objective_label
from ncmi.training.evaluation import evaluate_run
from ncmi.training.run import train

OBJECTIVES = ("cross_entropy", "label_smoothing", "ncmi")
# name, heading, factor, digits
CALIBRATION = (
    ("calibration_error", "ECE", 100, 2),
    ("calibrated_error", "ECE, fitted", 100, 2),
    ("nll", "NLL", 1, 3),
    ("calibrated_nll", "NLL, fitted", 1, 3),
)
Figures = dict[str, float]


def parted(dataset: Dataset, seed: int, folder: Path) -> tuple[Path, Path]:
    """Files of the classes to train on, numbered anew, and of the quarter that is kept out."""
    order = np.random.default_rng(seed).permutation(dataset.num_classes)
    inputs, labels = dataset.inputs.numpy(), dataset.labels.numpy()
    inside = ~np.isin(labels, order[: max(1, dataset.num_classes // 4)])
    paths = folder / "inside.npz", folder / "outside.npz"
    for path, rows in zip(paths, (inside, ~inside), strict=True):
        np.savez(path, x=inputs[rows], y=np.unique(labels[rows], return_inverse=True)[1])
    return paths


def figures_of(dataset: Dataset, objective: str, seed: int) -> Figures:
    """One run's figures, as results.json and ood-NAME.json have them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inside, outside = parted(dataset, seed, folder)
        training = Training(seed=seed, threads=1, accelerator="cpu")
        recipe = Recipe(DATA[dataset.kind](str(inside)), objective=objective_options(objective)(), training=training)
        results = train(recipe, folder / "run")
        judged = results.readouts[results.primary_readouts[0]]
        assert judged.calibration is not None
        values = {
            "accuracy": judged.test.accuracy.value,
            "calibration_error": judged.test.calibration_error,
            "calibrated_error": judged.calibration.calibration_error,
            "nll": judged.test.nll,
            "calibrated_nll": judged.calibration.nll,
        }
        for found in evaluate_run(folder / "run", ood=[str(outside)]).ood.values():
            for score, detection in found.scores.items():
                values |= {f"{score}, AUROC": detection.auroc, f"{score}, FPR95": detection.fpr95}
        return {key: float("nan") if value is None else value for key, value in values.items()}


def spread(rows: list[Figures], name: str, factor: float = 100, digits: int = 2) -> str:
    """Mean ± sd over seeds."""
    values = [factor * row[name] for row in rows]
    sd = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.{digits}f} ± {sd:.{digits}f}"


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", "--json", type=Path, help="JSON file")
    arguments = parser.parse_args()
    sets: dict[str, dict[str, list[Figures]]] = {}
    for name in arguments.data:
        dataset = load_dataset(name, data_dir=arguments.data_dir)
        rows = {
            objective_label(objective): [figures_of(dataset, objective, seed) for seed in range(arguments.seeds)]
            for objective in OBJECTIVES
        }
        sets[name] = rows
        print(f"\n{name}, {arguments.seeds} seeds, {max(1, dataset.num_classes // 4)} classes kept out\n")
        measures = [("accuracy", "accuracy, %", 100, 2), *CALIBRATION]
        calibration = [
            [label, *(spread(seeds, key, factor, digits) for key, _, factor, digits in measures)]
            for label, seeds in rows.items()
        ]
        print(markdown(["method", *(heading for _, heading, _, _ in measures)], calibration))
        scores = [f"{score}, {kind}" for score in OOD_SCORES for kind in ("AUROC", "FPR95")]
        detection = [[label, *(spread(seeds, score, digits=1) for score in scores)] for label, seeds in rows.items()]
        print(f"\n{markdown(['method', *(score.replace('_', ' ') for score in scores)], detection)}", flush=True)
        if arguments.out is not None:
            write_json(arguments.out, {"seeds": arguments.seeds, "sets": sets})


if __name__ == "__main__":
    main()
