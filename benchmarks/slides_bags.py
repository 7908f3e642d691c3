"""Real bags: Musk1, Musk2 and the colon nuclei, four networks × cross-entropy and NCMI, in repeated 10-fold.

    python benchmarks/slides_bags.py --data-dir DATA --out FOLDER [--sets musk1 musk2 colon] [--networks abmil …]
        [--repeats 10] [--dropout 0.5] [--workers 2] [--quick]

DATA holds bags/musk1.npz, bags/musk2.npz (x, bag, bag_label) and bags/colon_nuclei27.npz (27×27 patches around nuclei,
described by color and texture as ``ncmi slides embed`` does). The same command goes on where it was stopped. At the end
FOLDER/SET.md is written, and FOLDER/SET-NETWORK.csv. Every bag is its own group; each repeat draws ten folds anew,
which are pooled. One setting for all, the last epoch; docs/slides.md says how it was chosen. --dropout is that of the
first layer, which losses take differently. "plain" is ABMIL without the gate. "-direction" adds, to the same runs of
cross-entropy, NCMI and cross-entropy that see the direction of a bag vector alone.

Repeats share their bags: the interval is a bootstrap over bags. Published: Ilse et al. 2018, Tables 1 and 3; five
repeats of 10-fold, ± standard error as printed there.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from _direction_only import DirectionOnlyOptions
from _timing import command_line, markdown
from ncmi.files import write_text
from ncmi.objectives.options import CrossEntropyOptions, NCMIOptions
from ncmi.readouts.metrics import SHARE
from ncmi.recipes import BagData, BagNetwork, Recipe, default_training
from ncmi.report import print_table, write_csv
from ncmi.report.records import read_comparison
from ncmi.report.statistics import comparison_rows
from ncmi.training.comparison import Plan, compare_many, entries_of
from ncmi.training.run_folder import write_arrays
from ncmi.training.schema import Results

NETWORKS = ("abmil", "plain", "aem", "asmil", "transmil", "abmil-direction", "plain-direction")
LABELS = {"abmil": "ABMIL, gated", "plain": "ABMIL, plain", "aem": "AEM", "asmil": "ASMIL", "transmil": "TransMIL"}
# set, network: accuracy, then AUC where it is printed, each with its printed error
PUBLISHED: dict[tuple[str, str], tuple[tuple[float, float], ...]] = {
    ("musk1", "plain"): ((0.892, 0.040),),
    ("musk1", "abmil"): ((0.900, 0.050),),
    ("musk2", "plain"): ((0.858, 0.048),),
    ("musk2", "abmil"): ((0.863, 0.042),),
    ("colon", "plain"): ((0.904, 0.011), (0.968, 0.009)),
    ("colon", "abmil"): ((0.898, 0.020), (0.968, 0.010)),
}
FILES = {"musk1": "bags/musk1.npz", "musk2": "bags/musk2.npz", "colon": "bags/colon_nuclei27.npz"}


def recipe_of(features: Path, network: str, dropout: float, quick: bool) -> Recipe:
    """The setting of all sets."""
    training = replace(
        default_training("bags"),
        selection="last",
        learning_rate=2e-3,
        centroid_learning_rate=2e-3,
        weight_decay=1e-2,
        batch_size=8,
        epochs=1 if quick else 40,
        checkpoint_seconds=1e9,
        accelerator="cpu",
    )
    data = BagData(str(features), folds=2 if quick else 10, validation_fraction=0.0, standardize=True)
    name, direction = network.removesuffix("-direction"), network.endswith("-direction")
    chosen = BagNetwork("abmil" if name == "plain" else name, gated=name != "plain", dropout=dropout)  # type: ignore[arg-type]
    return Recipe(data, chosen, NCMIOptions(feature_length="own" if direction else "auto"), training)


def features_of(name: str, data_dir: Path, cache: Path) -> Path:
    """The file of bags; the colon's nuclei are described first."""
    path = data_dir / FILES[name]
    if not path.is_file():
        raise SystemExit(f"{path}: not there: give the folder of {FILES[name]} by --data-dir or NCMI_DATA")
    if name != "colon":
        return path
    described = cache / "colon-described.npz"
    if not described.exists():
        from ncmi.slides.embedding.descriptor import describe_patches

        with np.load(path) as arrays:
            x, bag, label = describe_patches(arrays["x"]), arrays["bag"], arrays["bag_label"]
        write_arrays(described, {"x": x, "bag": bag, "bag_label": label})
    return described


def run(name: str, network: str, arguments: argparse.Namespace, data_dir: Path) -> Path:
    """All runs of one network on one set; the folder of the comparison."""
    recipe = recipe_of(features_of(name, data_dir, arguments.out), network, arguments.dropout, arguments.quick)
    plain = network.removesuffix("-direction")
    others = [] if plain == network else [DirectionOnlyOptions.name]
    # entries of the same recipe have the same name, and share their runs
    direction = "-direction" if network != plain else ""
    entries = [
        replace(entry, name=f"{entry.name}{direction}") if entry.recipe.objective.name == "ncmi" else entry
        for entry in entries_of(recipe, [CrossEntropyOptions.name, *others, NCMIOptions.name])
    ]
    title, seeds = f"{name}, {network}", tuple(range(arguments.repeats))
    plan = Plan(
        tuple(entries), seeds, arguments.workers, ("_direction_only",), title, runs_folder=f"../{name}-{plain}/runs"
    )
    folder: Path = arguments.out / f"{name}-{network}"

    def announce(run: str, results: Results) -> None:
        print(f"{title}: {run}", flush=True)

    compare_many([(plan, folder)], resume=None, command=" ".join(sys.argv), on_run=announce)
    return folder


def rows_of(name: str, network: str, folder: Path) -> list[list[str]]:
    """Rows of one network: each loss by each read-out, against cross-entropy by the same one."""
    lines, plain = [], network.removesuffix("-direction")
    for row in comparison_rows(read_comparison(folder)):
        if row.is_baseline and network != plain:
            continue  # stands with the network's own rows
        cells, published = [], []
        for score in ("accuracy", "macro_auc"):
            mean, gap = row.scores[score].mean, row.scores[score].difference
            # other bags, not other folds: a bootstrap over bags
            bounds = "" if gap is None or gap.over_groups is None else SHARE.interval(gap.over_groups)
            cells += [SHARE.mean_sd(mean, row.scores[score].sd), "" if gap is None else SHARE.signed(gap.mean), bounds]
        known = PUBLISHED.get((name, network), ()) if row.is_baseline and row.is_first else ()
        for heading, score, (value, error) in zip(("", "AUC "), ("accuracy", "macro_auc"), known, strict=False):
            gap_to_it = row.scores[score].mean - value
            place = "inside" if abs(gap_to_it) <= error else "above" if gap_to_it > 0 else "below"
            published.append(f"{heading}{value:.3f} ± {error:.3f}: {place}")
        method = f"{row.method}, direction alone" if network != plain and row.entry.objective == "ncmi" else row.method
        lines.append([LABELS[plain], method, str(len(row.seeds)), *cells, "; ".join(published)])
    return lines


HEAD = ("network", "method", "repeats", "accuracy", "Δ CE", "over bags", "AUC", "Δ CE", "over bags", "published")


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=tuple(FILES), default=tuple(FILES))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--dropout", type=float, default=0.5, help="give each its own --out")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="two folds, one epoch: a rehearsal")
    parser.add_argument("--report-only", action="store_true", help="tables of what has been run")
    arguments = parser.parse_args()
    data_dir = arguments.data_dir or Path(os.environ.get("NCMI_DATA", "."))
    if not arguments.report_only:
        for name in arguments.sets:
            for network in arguments.networks:
                print_table(run(name, network, arguments, data_dir))
    for name in arguments.sets:
        every = {network: arguments.out / f"{name}-{network}" for network in NETWORKS}
        folders = {network: folder for network, folder in every.items() if (folder / "comparison.json").exists()}
        if not folders:
            continue
        rows = [row for network, folder in folders.items() for row in rows_of(name, network, folder)]
        text = markdown(HEAD, rows) + "\n"
        print(f"\n{name}\n{text}")
        write_text(arguments.out / f"{name}.md", text)
        for network, folder in folders.items():
            write_csv(folder, arguments.out / f"{name}-{network}.csv")


if __name__ == "__main__":
    main()
