"""Real bags: Musk1, Musk2 and the colon nuclei, four networks × cross-entropy and NCMI, in repeated 10-fold.

    python benchmarks/slides_bags.py --data-dir DATA --out FOLDER [--sets musk1 musk2 colon] [--networks abmil …]
        [--repeats 10] [--workers 2] [--quick]

DATA holds bags/musk1.npz, bags/musk2.npz (x, bag, bag_label) and bags/colon_nuclei27.npz (27×27 patches around nuclei).
Run folders are kept below FOLDER: the same command goes on where it was stopped. At the end FOLDER/SET.md and .csv
are written. Every bag is its own group; each repeat draws ten folds anew. Nothing is selected: the last epoch is
taken, with one setting for all sets, networks and losses: AdamW 2e-3, weight decay 1e-2, 8 bags a step, 40 epochs,
dropout ½, features standardised over the training instances. It was chosen among six by cross-entropy's validation
parts in ABMIL's folds on Musk1, in a split of the same bags that is not among these; NCMI had its best validation at
another of them (1e-3, one bag a step), so the setting favours cross-entropy. "plain" is ABMIL without the gate.

"-length" adds, to the same runs of cross-entropy: NCMI with a homogeneous coordinate (h = 1), by which the length of a
bag vector counts, and cross-entropy that sees its direction alone. h was looked for on Musk1, ABMIL, in other splits of
the same bags (seeds 100 to 103) among 1, 3, 10, 30 and 100, absolute: 10 was best, where √D is 11.3.

Each nucleus of the colon is described by colour and texture (`ncmi slides embed`'s descriptor: no weights, nothing
learned from these images), 105 numbers; the published network learns its features from the pixels.

Folds of a repeat are pooled; mean ± sd over repeats. Repeats share their bags: the interval is a bootstrap over bags.
Published (Ilse et al. 2018, Tables 1 and 3; five repeats of 10-fold, ± standard error as printed there).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from _direction_only import DirectionOnlyOptions
from ncmi.comparison import open_comparison
from ncmi.files import write_text
from ncmi.options import CrossEntropyOptions, NCMIOptions
from ncmi.recipes import BagNetwork, SlideData, SlideRecipe, slide_training
from ncmi.reports.slides import SlideComparison, comparison_cells, print_slides_table, read_slide_comparison
from ncmi.reports.slides.repeats import repeats_of
from ncmi.reports.slides.table import slides_csv
from ncmi.slides.compare import SlidePlan, compare_slides, slide_entries
from ncmi.slides.metrics import paired_difference

# with "-length": NCMI with a homogeneous coordinate, and cross-entropy on directions alone, beside cross-entropy
NETWORKS = ("abmil", "plain", "aem", "asmil", "transmil", "abmil-length", "plain-length")
LABELS = {"abmil": "ABMIL, gated", "plain": "ABMIL, plain", "aem": "AEM", "asmil": "ASMIL", "transmil": "TransMIL"}
# set, network: accuracy and its printed error, AUC and its; None where none is printed
PUBLISHED: dict[tuple[str, str], tuple[float, float, float | None, float | None]] = {
    ("musk1", "plain"): (0.892, 0.040, None, None),
    ("musk1", "abmil"): (0.900, 0.050, None, None),
    ("musk2", "plain"): (0.858, 0.048, None, None),
    ("musk2", "abmil"): (0.863, 0.042, None, None),
    ("colon", "plain"): (0.904, 0.011, 0.968, 0.009),
    ("colon", "abmil"): (0.898, 0.020, 0.968, 0.010),
}
FILES = {"musk1": "bags/musk1.npz", "musk2": "bags/musk2.npz", "colon": "bags/colon_nuclei27.npz"}


def recipe_of(features: Path, network: str, quick: bool) -> SlideRecipe:
    """The setting of all sets."""
    training = replace(
        slide_training(),
        selection="last",
        learning_rate=2e-3,
        centroid_learning_rate=2e-3,
        weight_decay=1e-2,
        batch_size=8,
        epochs=1 if quick else 40,
        checkpoint_seconds=1e9,
        accelerator="cpu",
    )
    data = SlideData(str(features), folds=2 if quick else 10, validation_fraction=0.0, standardise=True)
    name, length = network.removesuffix("-length"), network.endswith("-length")
    chosen = BagNetwork("abmil" if name == "plain" else name, gated=name != "plain", dropout=0.5)  # type: ignore[arg-type]
    return SlideRecipe(data, chosen, NCMIOptions(homogeneous=1.0 if length else 0.0), training)


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
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache, suffix=".npz", delete=False) as file:
            np.savez(file, x=x, bag=bag, bag_label=label)
        Path(file.name).replace(described)
    return described


def run(name: str, network: str, arguments: argparse.Namespace, data_dir: Path) -> Path:
    """All runs of one network on one set; the folder of the comparison."""
    recipe = recipe_of(features_of(name, data_dir, arguments.out), network, arguments.quick)
    plain = network.removesuffix("-length")
    others = [] if plain == network else [DirectionOnlyOptions.name]
    entries = slide_entries(recipe, [recipe.network.name], [CrossEntropyOptions.name, *others, NCMIOptions.name])
    title = f"{name}, {network}"
    plan = SlidePlan(entries, tuple(range(arguments.repeats)), arguments.workers, ("_direction_only",), title)
    folder: Path = arguments.out / f"{name}-{network}"
    command = " ".join(sys.argv)
    if not (folder / "comparison.json").exists():
        open_comparison(folder, plan.describe(command), resume=False)
    if plain != network:
        link_runs(plan, arguments.out / f"{name}-{plain}", folder)
    done = [0]

    def tell(run_name: str, results: dict[str, object]) -> None:
        done[0] += 1
        if done[0] % 20 == 0:
            print(f"{name} {network}: {done[0]} of {len(plan.all_runs())}", flush=True)

    return compare_slides(plan, folder, resume=True, command=command, on_run=tell)


def link_runs(plan: SlidePlan, finished: Path, folder: Path) -> None:
    """Take over the runs of cross-entropy from the comparison of the same network: they are the same."""
    for path, recipe in plan.all_runs():
        if recipe.objective.name == CrossEntropyOptions.name and (finished / path / "results.json").exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            if not (folder / path).exists():
                (folder / path).symlink_to((finished / path).resolve(), target_is_directory=True)


def place(value: float, middle: float, half: float) -> str:
    """Where a value lies to a published interval."""
    return "inside" if abs(value - middle) <= half else "above" if value > middle else "below"


def over_bags(record: SlideComparison, objective: str, readout: str, score: str) -> str:
    """95 % bootstrap interval over bags of the mean difference from cross-entropy: other bags, not other folds."""
    by_objective = {entry.objective: repeats_of(entry, record.folds) for entry in record.entries}
    ours, theirs = (list(by_objective[name].values()) for name in (objective, CrossEntropyOptions.name))
    if not ours or len(ours) != len(theirs):
        return ""
    found = paired_difference(
        ours[0].test.labels,
        np.stack([one.test.probabilities[readout] for one in ours]),
        np.stack([one.test.probabilities["head"] for one in theirs]),
        ours[0].test.slides,
        score,
    )
    return f"{found['low']:+.3f} … {found['high']:+.3f}"


def summary(name: str, folders: dict[str, Path]) -> tuple[str, str]:
    """The table of one set in Markdown and CSV: accuracy and AUC of pooled folds over repeats."""
    head = ("network", "method", "repeats", "accuracy", "Δ CE", "over bags", "AUC", "Δ CE", "over bags", "published")
    lines = [f"| {' | '.join(head)} |", "|---|---|" + "---:|" * 8]
    csv = []
    for network, folder in folders.items():
        record = read_slide_comparison(folder)
        cells = comparison_cells(record)
        csv.append(slides_csv(record, cells))
        known = PUBLISHED.get((name, network))
        plain = network.removesuffix("-length")
        for cell in cells:
            if cell.is_baseline and network != plain:
                continue  # stands with the network's own rows
            shown = []
            for score in ("accuracy", "auc"):
                value, other = cell.scores[score], cell.differences.get(score)
                shown.append(f"{value.mean:.3f}" + (f" ± {value.sd:.3f}" if np.isfinite(value.sd) else ""))
                shown.append("" if other is None else f"{other.mean:+.3f}")
                shown.append("" if cell.is_baseline else over_bags(record, cell.objective, cell.readout, score))
            told = ""
            if known and cell.is_baseline:
                accuracy, error, auc, auc_error = known
                told = f"{accuracy:.3f} ± {error:.3f}: {place(cell.scores['accuracy'].mean, accuracy, error)}"
                if auc is not None and auc_error is not None:
                    where = place(cell.scores["auc"].mean, auc, auc_error)
                    told += f"; AUC {auc:.3f} ± {auc_error:.3f}: {where}"
            method = f"{cell.method}, h = 1" if network != plain and cell.objective == "ncmi" else cell.method
            row = (LABELS[plain], method, str(len(cell.seeds)), *shown, told)
            lines.append(f"| {' | '.join(row)} |")
    header, *rest = csv[0].splitlines()
    rows = [f"{network},{line}" for network, text in zip(folders, csv, strict=True) for line in text.splitlines()[1:]]
    return "\n".join(lines) + "\n", "\n".join([f"entry,{header}", *rows]) + "\n" if rest else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
                folder = run(name, network, arguments, data_dir)
                print_slides_table(read_slide_comparison(folder))
    for name in arguments.sets:
        every = {network: arguments.out / f"{name}-{network}" for network in NETWORKS}
        folders = {network: folder for network, folder in every.items() if (folder / "comparison.json").exists()}
        if not folders:
            continue
        text, csv = summary(name, folders)
        print(f"\n{name}\n{text}")
        write_text(arguments.out / f"{name}.md", text)
        write_text(arguments.out / f"{name}.csv", csv)


if __name__ == "__main__":
    main()
