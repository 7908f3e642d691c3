"""Table III's cells on simulated slides, where the truth is known; and at true size, what a cell costs.

    python benchmarks/slides_simulation.py cells --out FOLDER [--labels DIR] [--cohorts camelyon17 bracs] [--seeds 3]
        [--epochs 30] [--scale 0.05] [--feature-dim 256] [--networks …] [--workers 2]
    python benchmarks/slides_simulation.py size --out FOLDER [--labels DIR] [--slides 60] [--threads 2]

A SIMULATION: the slide tables are real (--labels holds camelyon17.csv and bracs.csv; without it, tables of the same
counts are made), the features are not. No figure here says how well anything works on real slides.

- cells: four networks × cross-entropy and NCMI, several seeds; the tables of `ncmi reproduce table3`, and beside
  them how well each network's attention finds the lesions (AUC over the patches of a slide, mean over the test
  slides that have some) and what counting every lesion patch without error would reach.
- size: one epoch of each cell on part of the table's slides with as many patches as real slides have, D = 1024:
  seconds a slide and peak memory.

Runs are kept below FOLDER, so the same command goes on where it was stopped.
"""

import argparse
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from _timing import command_line, markdown
from ncmi.data.bags.readers import open_bags
from ncmi.files import write_text
from ncmi.readouts.scores import Scores, judge
from ncmi.recipes.names import network_label, objective_label
from ncmi.report import to_markdown, write_csv, write_report
from ncmi.slides.simulation import SimulationOptions, SlideRow, describe_simulation, read_table, write_simulation
from ncmi.slides.simulation.lesions import plan_slide
from ncmi.slides.simulation.options import labels_of
from ncmi.training.bags import attend_bags
from ncmi.training.comparison import Plan, compare_many
from ncmi.training.model import load_model
from ncmi.training.reproduction import EXPERIMENTS, plan_experiment
from ncmi.training.run_folder import RunFolder
from ncmi.training.schema import ComparisonRecord, read_record

NETWORKS = EXPERIMENTS["table3"].networks


def plan_of(cohort: str, folder: Path, arguments: argparse.Namespace, workers: int) -> Plan:
    """The plan of one cohort's cells on a simulation, its runs in a folder of its own."""
    (group,) = plan_experiment(
        "table3",
        "paper",
        networks=arguments.networks,
        seeds=range(arguments.seeds),
        epochs=arguments.epochs,
        workers=workers,
        cohorts={cohort: (folder / "features", None)},
    )
    return replace(group.plan, runs_folder="runs")


def make(plan: Plan, folder: Path) -> None:
    """Make what is missing of a plan's runs."""
    compare_many(
        [(plan, folder)], resume=None, command=" ".join(sys.argv), on_run=lambda name, _: print(name, flush=True)
    )


def attention_score(run: Path, features: Path) -> float:
    """Mean over the test slides with lesions of the AUC by which a run's attention tells lesion patches."""
    model, source, scores = load_model(run), open_bags(features), []
    for slide in RunFolder(run).outputs().names:
        with h5py.File(features / f"{slide}.h5") as file:
            lesion = file["lesion"][:]
        if lesion.any() and not lesion.all():
            scores.append(roc_auc_score(lesion, next(attend_bags(model, source, [slide])).arrays["attention"]))
    return float(np.mean(scores))


def oracle_probabilities(options: SimulationOptions, rows: Sequence[SlideRow]) -> NDArray[np.float64]:
    """``[n, C]`` what one who counts each slide's lesion patches without error would say, by Bayes' rule.

    In CAMELYON-17 the likelihoods of a count are estimated from 2,000 slides of each class, the priors are the classes'
    shares among ``rows``. In BRACS the kinds of lesions are counted, so the worst one present, which the label is, is
    always known: the oracle is right by construction.
    """
    labels = labels_of(options.cohort)
    if options.cohort == "bracs":
        kinds = ([labels.index(lesion.kind) for lesion in plan_slide(options, row).lesions] for row in rows)
        return np.eye(len(labels))[[max(of_slide, default=0) for of_slide in kinds]]

    def bin_of(row: SlideRow) -> int:
        count = plan_slide(options, row).lesion_patches
        return 0 if count == 0 else 1 + round(10 * math.log10(count))

    counts = Counter(row.label for row in rows)
    joint = np.empty((len(labels), 52))
    for at, label in enumerate(labels):
        drawn = [bin_of(SlideRow(f"oracle {draw}", "", label)) for draw in range(2000)]
        # a thousandth of a slide in every bin: a count that no draw had is not impossible
        shares = np.bincount(drawn, minlength=52) + 0.001
        joint[at] = counts[label] * shares / shares.sum()
    posterior = joint[:, [bin_of(row) for row in rows]]
    result: NDArray[np.float64] = (posterior / posterior.sum(0)).T
    return result


def oracle_scores(options: SimulationOptions, rows: Sequence[SlideRow]) -> Scores:
    """Scores of :func:`oracle_probabilities` on some slides: what no classifier should be expected to beat."""
    labels = labels_of(options.cohort)
    with np.errstate(divide="ignore"):  # an oracle may be certain
        log_p = np.log(oracle_probabilities(options, rows))
    return judge(log_p, [labels.index(row.label) for row in rows], labels)


def attention_table(folder: Path, features: Path) -> str:
    """Attention against the truth, by network and loss, over seeds."""
    rows = []
    for entry in read_record(folder / "comparison.json", ComparisonRecord).entries:
        values = [attention_score(folder / run, features) for run in entry.runs]
        spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        names = network_label(entry.network), objective_label(entry.objective)
        rows.append([*names, f"{np.mean(values):.3f}{spread}"])
    return markdown(["network", "loss", "attention finds lesions, AUC"], rows)


def cells(arguments: argparse.Namespace) -> None:
    """Accuracy, attention and oracle on small simulated cohorts."""
    for cohort in arguments.cohorts:
        simulated = arguments.out / f"simulated-{cohort}"
        options = SimulationOptions(cohort=cohort, feature_dim=arguments.feature_dim, scale=arguments.scale)
        table = arguments.labels and arguments.labels / f"{cohort}.csv"
        write_simulation(simulated, table, options, workers=arguments.workers)
        folder = arguments.out / cohort
        make(plan_of(cohort, simulated, arguments, arguments.workers), folder)
        test = [row for row in read_table(simulated / "labels.csv", cohort) if in_test(cohort, row)]
        oracle = oracle_scores(options, test)
        text = "\n\n".join(
            [
                to_markdown(folder).strip(),
                f"Who counts every lesion patch without error: macro F1 {oracle.macro_f1.value:.3f}, "
                f"AUC {oracle.macro_auc.value:.3f} (all labels of the table).",
                attention_table(folder, simulated / "features"),
            ]
        )
        print(text, flush=True)
        write_text(arguments.out / f"{cohort}.md", text + "\n")
        write_csv(folder, arguments.out / f"{cohort}.csv")
        write_report(folder)
    options = SimulationOptions(arguments.cohorts[0], feature_dim=arguments.feature_dim, scale=arguments.scale)
    numbers = describe_simulation(options)
    rows = [[number.what, str(number.value), number.kind, number.source] for number in numbers]
    write_text(arguments.out / "numbers.md", markdown(["what", "value", "", "source"], rows) + "\n")


def in_test(cohort: str, row: SlideRow) -> bool:
    """Whether a slide of the table is in the published test part."""
    return row.center in ("3", "4") if cohort == "camelyon17" else row.part == "test"


def size(arguments: argparse.Namespace) -> None:
    """Cost of each cell with as many patches as real slides have."""
    table = balanced(arguments.labels, arguments.slides)
    simulated = arguments.out / "simulated-true-size"
    write_simulation(simulated, table, SimulationOptions(feature_dim=1024, scale=1.0), workers=arguments.threads)
    plan = plan_of("camelyon17", simulated, arguments, 1)
    rows = []
    for entry in plan.entries:
        one = replace(plan, entries=(entry,), seeds=(0,))
        folder = arguments.out / f"size-{entry.name}"
        make(one, folder)
        results = RunFolder(folder / one.runs()[0][0]).results()
        seconds, names = results.epoch_seconds, [network_label(results.network), objective_label(results.objective)]
        rows.append([*names, f"{seconds / results.num_train:.2f}", f"{seconds:.0f}", f"{results.peak_memory_mb:.0f}"])
    text = markdown(["network", "loss", "s a training slide", "epoch, s", "peak MB"], rows)
    print(text)
    write_text(arguments.out / "size.md", text + "\n")


def balanced(labels: Path | None, count: int) -> Path | None:
    """A table of so many slides, whole patients alike from each center; None for the made-up table."""
    if labels is None:
        return None
    rows = pd.read_csv(labels / "camelyon17.csv", dtype=str, keep_default_na=False)
    kept = rows.drop_duplicates("patient_id").groupby("center").head(max(1, count // 25))["patient_id"]
    path = Path(tempfile.gettempdir()) / f"camelyon17-{count}.csv"
    rows[rows["patient_id"].isin(kept)].to_csv(path, index=False)
    return path


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("part", choices=("cells", "size"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--labels", type=Path, default=None)
    parser.add_argument("--cohorts", nargs="+", default=("camelyon17", "bracs"))
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--scale", type=float, default=0.05)
    parser.add_argument("--feature-dim", type=int, default=256)
    parser.add_argument("--slides", type=int, default=75)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.epochs is None:
        arguments.epochs = 30 if arguments.part == "cells" else 1
    (cells if arguments.part == "cells" else size)(arguments)


if __name__ == "__main__":
    main()
