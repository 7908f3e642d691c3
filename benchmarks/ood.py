"""Out-of-distribution classes: how well scores tell classes apart that were never trained on.

    python benchmarks/ood.py digits letter --data-dir FOLDER --seeds 5

For each seed a random quarter of the classes is kept out of everything; cross-entropy, label smoothing and NCMI at
their defaults are trained on the others. AUROC and false positive rate at 95 % true positives of each score, test
samples against all samples of the classes kept out. Mean ± sd in percent, beside the test accuracy of the classes
trained on by the first read-out.
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
        values = {"accuracy": results.readouts[results.primary_readouts[0]].test.accuracy.value}
        for found in evaluate_run(folder / "run", ood=[str(outside)]).ood.values():
            for score, detection in found.scores.items():
                values |= {f"{score}, AUROC": detection.auroc, f"{score}, FPR95": detection.fpr95}
        return {key: float("nan") if value is None else value for key, value in values.items()}


def spread(rows: list[Figures], name: str) -> str:
    """Mean ± sd over seeds."""
    values = [100 * row[name] for row in rows]
    sd = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.1f} ± {sd:.1f}"


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
        scores = ["accuracy", *(f"{score}, {kind}" for score in OOD_SCORES for kind in ("AUROC", "FPR95"))]
        table = [[label, *(spread(seeds, score) for score in scores)] for label, seeds in rows.items()]
        print(markdown(["method", *(score.replace("_", " ") for score in scores)], table), flush=True)
        if arguments.out is not None:
            write_json(arguments.out, {"seeds": arguments.seeds, "sets": sets})


if __name__ == "__main__":
    main()
