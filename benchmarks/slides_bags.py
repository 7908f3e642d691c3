"""Real bags: Musk1, Musk2 and the colon nuclei, four networks × cross-entropy and NCMI, in repeated 10-fold.

    python benchmarks/slides_bags.py --data-dir DATA --out FOLDER [--sets musk1 musk2 colon] [--networks abmil …]
        [--repeats 10] [--workers 2] [--quick]

DATA holds bags/musk1.npz, bags/musk2.npz (x, bag, bag_label) and bags/colon_nuclei27.npz (27×27 patches around nuclei).
Run folders are kept below FOLDER: the same command goes on where it was stopped. At the end FOLDER/SET.md is written,
and FOLDER/SET-NETWORK.csv. Every bag is its own group; each repeat draws ten folds anew. Nothing is selected: the last
epoch is taken, with one setting for all sets, networks and losses: AdamW 2e-3, weight decay 1e-2, 8 bags a step, 40
epochs, dropout ½, features standardized over the training instances. It was chosen among six by cross-entropy's
validation parts in ABMIL's folds on Musk1, in a split of the same bags that is not among these; NCMI had its best
validation at another of them (1e-3, one bag a step), so the setting favors cross-entropy. "plain" is ABMIL without the
gate. Both losses are judged by every read-out, and compared by the same ones.

"-length" adds, to the same runs of cross-entropy: NCMI with a homogeneous coordinate (h = 1), by which the length of a
bag vector counts, and cross-entropy that sees its direction alone. h was looked for on Musk1, ABMIL, in other splits of
the same bags (seeds 100 to 103) among 1, 3, 10, 30 and 100, absolute: 10 was best, where √D is 11.3.

Each nucleus of the colon is described by color and texture (`ncmi slides embed`'s descriptor: no weights, nothing
learned from these images), 105 numbers; the published network learns its features from the pixels.

Folds of a repeat are pooled; mean ± sd over repeats. Repeats share their bags: the interval is a bootstrap over bags.
Published (Ilse et al. 2018, Tables 1 and 3; five repeats of 10-fold, ± standard error as printed there).
"""

from __future__ import annotations

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
from ncmi.recipes import BagData, BagNetwork, Recipe, default_training
from ncmi.report import print_table, write_csv
from ncmi.report.records import read_comparison
from ncmi.report.statistics import comparison_rows
from ncmi.report.text import SHARE
from ncmi.training.comparison import Plan, compare, entries_of, open_comparison
from ncmi.training.run_folder import write_arrays

# with "-length": NCMI with a homogeneous coordinate, and cross-entropy on directions alone, beside cross-entropy
NETWORKS = ("abmil", "plain", "aem", "asmil", "transmil", "abmil-length", "plain-length")
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


def recipe_of(features: Path, network: str, quick: bool) -> Recipe:
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
    name, length = network.removesuffix("-length"), network.endswith("-length")
    chosen = BagNetwork("abmil" if name == "plain" else name, gated=name != "plain", dropout=0.5)  # type: ignore[arg-type]
    return Recipe(data, chosen, NCMIOptions(homogeneous=1.0 if length else 0.0), training)


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
    recipe = recipe_of(features_of(name, data_dir, arguments.out), network, arguments.quick)
    plain = network.removesuffix("-length")
    others = [] if plain == network else [DirectionOnlyOptions.name]
    entries = entries_of(recipe, [CrossEntropyOptions.name, *others, NCMIOptions.name])
    title, seeds = f"{name}, {network}", tuple(range(arguments.repeats))
    plan = Plan(entries, seeds, arguments.workers, ("_direction_only",), title)
    folder: Path = arguments.out / f"{name}-{network}"
    command = " ".join(sys.argv)
    if not (folder / "comparison.json").exists():
        open_comparison(folder, plan.describe(command), resume=False)
    if plain != network:
        link_runs(plan, arguments.out / f"{name}-{plain}", folder)
    return compare(
        plan, folder, resume=True, command=command, on_run=lambda run, _: print(f"{title}: {run}", flush=True)
    )


def link_runs(plan: Plan, finished: Path, folder: Path) -> None:
    """Take over the runs of cross-entropy from the comparison of the same network: they are the same."""
    for path, recipe in plan.runs():
        if recipe.objective.name == CrossEntropyOptions.name and (finished / path / "results.json").exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            if not (folder / path).exists():
                (folder / path).symlink_to((finished / path).resolve(), target_is_directory=True)


def rows_of(name: str, network: str, folder: Path) -> list[list[str]]:
    """Rows of one network: each loss by each read-out, against cross-entropy by the same one."""
    lines, plain = [], network.removesuffix("-length")
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
        method = f"{row.method}, h = 1" if network != plain and row.entry.objective == "ncmi" else row.method
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
