"""Table III's cells on simulated slides, where the truth is known; and at true size, what a cell costs.

    python benchmarks/slides_simulation.py cells --out FOLDER [--labels DIR] [--cohorts camelyon17 bracs] [--seeds 3]
        [--epochs 30] [--scale 0.05] [--feature-dim 256] [--networks …] [--workers 2]
    python benchmarks/slides_simulation.py size --out FOLDER [--labels DIR] [--slides 60] [--threads 2]

A SIMULATION: the slide tables are real (--labels holds camelyon17.csv and bracs.csv; without it, tables of the same
counts are made), the features are not. No figure here says how well anything works on real slides.

- cells: four networks × cross-entropy and NCMI, several seeds; macro F1 and AUC as `ncmi slides table3` gives them, and
  beside them how well each network's attention finds the lesions (AUC over the patches of a slide, mean over the test
  slides that have some) and what counting every lesion patch without error would reach.
- size: one epoch of each cell on part of the table's slides with as many patches as real slides have, D = 1024:
  seconds a slide and peak memory.

Runs are kept below FOLDER, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from ncmi.files import write_text
from ncmi.reports.slides import comparison_cells, read_slide_comparison, slides_markdown, write_slides_report
from ncmi.reports.slides.table import slides_csv
from ncmi.slides.compare import SlidePlan, compare_slides
from ncmi.slides.model import load_slide_model
from ncmi.slides.outcome import attention_over
from ncmi.slides.readers import open_bags
from ncmi.slides.simulation import (
    SlideRow,
    attention_auc,
    describe_simulation,
    open_simulation,
    oracle_metrics,
    read_table,
    write_simulation,
)
from ncmi.slides.table3 import NETWORKS, table3_plans


def table_of(cohort: str, labels: Path | None) -> Path | None:
    """The real table, where it is at hand."""
    return None if labels is None else labels / f"{cohort}.csv"


def plan_of(cohort: str, folder: Path, arguments: argparse.Namespace, workers: int) -> SlidePlan:
    """The plan of one cohort's cells on a simulation."""
    given = {cohort: (folder / "features", None)}
    plans = table3_plans(
        **given,  # type: ignore[arg-type]
        networks=arguments.networks,
        seeds=range(arguments.seeds),
        epochs=arguments.epochs,
        workers=workers,
    )
    return next(iter(plans.values()))


def tell(name: str, results: dict[str, object]) -> None:
    """A line a run."""
    print(f"{name}: {results['total_seconds']:.0f} s", flush=True)


def compare(plan: SlidePlan, folder: Path) -> None:
    """Make what is missing of a plan's runs."""
    resume = (folder / "comparison.json").exists()
    compare_slides(plan, folder, resume=resume, command=" ".join(sys.argv), on_run=tell)


def attention_found(run: Path, features: Path) -> float:
    """Mean over the test slides with lesions of the AUC by which a run's attention tells lesion patches."""
    model, source = load_slide_model(run), open_bags(features)
    found = []
    with (run / "slides.csv").open(newline="", encoding="utf-8") as file:
        tested = [row["slide"] for row in csv.DictReader(file) if row["part"] == "test"]
    for slide in tested:
        with h5py.File(features / f"{slide}.h5") as file:
            lesion = file["lesion"][:]
        if lesion.any() and not lesion.all():
            auc = attention_auc(attention_over(model, source.load(slide)), lesion)
            found += [] if auc is None else [auc]
    return float(np.mean(found))


def attention_table(folder: Path, features: Path) -> str:
    """Attention against the truth, by network and loss, over seeds."""
    lines = ["| network | loss | attention finds lesions, AUC |", "|---|---|---:|"]
    for entry in read_slide_comparison(folder).entries:
        values = [attention_found(run.folder, features) for run in entry.runs]
        spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        lines.append(f"| {entry.network} | {entry.objective} | {np.mean(values):.3f}{spread} |")
    return "\n".join(lines)


def cells(arguments: argparse.Namespace) -> None:
    """Accuracy, attention and oracle on small simulated cohorts."""
    for cohort in arguments.cohorts:
        simulated = arguments.out / f"simulated-{cohort}"
        write_simulation(
            simulated,
            table_of(cohort, arguments.labels),
            cohort=cohort,
            feature_dim=arguments.feature_dim,
            scale=arguments.scale,
            workers=arguments.workers,
        )
        folder = arguments.out / cohort
        compare(plan_of(cohort, simulated, arguments, arguments.workers), folder)
        record = read_slide_comparison(folder)
        found = comparison_cells(record)
        options = open_simulation(simulated).options
        test = [row for row in read_table(simulated / "labels.csv", cohort) if in_test(cohort, row)]
        oracle = oracle_metrics(options, test)
        text = "\n\n".join(
            [
                slides_markdown(record, found).strip(),
                f"Who counts every lesion patch without error: macro F1 {oracle['macro_f1']['value']:.3f}, "
                f"AUC {oracle['auc']['value']:.3f} (all labels of the table).",
                attention_table(folder, simulated / "features"),
            ]
        )
        print(text, flush=True)
        write_text(arguments.out / f"{cohort}.md", text + "\n")
        write_text(arguments.out / f"{cohort}.csv", slides_csv(record, found))
        write_slides_report(folder)
    numbers = describe_simulation(open_simulation(arguments.out / f"simulated-{arguments.cohorts[0]}").options)
    lines = [f"| {one.what} | {one.value} | {one.kind} | {one.source} |" for one in numbers]
    write_text(
        arguments.out / "numbers.md", "\n".join(["| what | value | | source |", "|---|---|---|---|", *lines]) + "\n"
    )


def in_test(cohort: str, row: SlideRow) -> bool:
    """Whether a slide of the table is in the published test part."""
    return row.centre in ("3", "4") if cohort == "camelyon17" else row.part == "test"


def size(arguments: argparse.Namespace) -> None:
    """Cost of each cell with as many patches as real slides have."""
    rows = balanced(arguments.labels, arguments.slides)
    simulated = arguments.out / "simulated-true-size"
    write_simulation(simulated, rows, feature_dim=1024, scale=1.0, workers=arguments.threads)
    plan = plan_of("camelyon17", simulated, arguments, 1)
    lines = ["| network | loss | s a training slide | epoch, s | peak MB |", "|---|---|---:|---:|---:|"]
    for entry in plan.entries:
        one = replace(plan, entries=(entry,), seeds=(0,))
        folder = arguments.out / f"size-{entry.name}"
        compare(one, folder)
        run = folder / one.runs(entry)[0][0]
        results = json.loads((run / "results.json").read_text(encoding="utf-8"))
        seconds, count = results["epoch_seconds"], results["num_train"]
        lines.append(
            f"| {entry.recipe.network.name} | {entry.recipe.objective.name} | {seconds / count:.2f} | {seconds:.0f} | "
            f"{results['peak_memory_mb']:.0f} |"
        )
    text = "\n".join(lines)
    print(text)
    write_text(arguments.out / "size.md", text + "\n")


def balanced(labels: Path | None, count: int) -> Path | None:
    """A table of so many slides, whole patients alike from each centre; None for the made-up table."""
    if labels is None:
        return None
    with (labels / "camelyon17.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    centres: dict[str, list[str]] = {}
    for row in rows:
        patients = centres.setdefault(row["center"], [])
        if row["patient_id"] not in patients:
            patients.append(row["patient_id"])
    kept = {patient for patients in centres.values() for patient in patients[: max(1, count // 25)]}
    path = Path(tempfile.gettempdir()) / f"camelyon17-{count}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row for row in rows if row["patient_id"] in kept)
    return path


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    arguments = parser.parse_args(words)
    if arguments.epochs is None:
        arguments.epochs = 30 if arguments.part == "cells" else 1
    (cells if arguments.part == "cells" else size)(arguments)


if __name__ == "__main__":
    main()
