"""CIFAR-100 at full size on CPU cores: losses tuned alike, seeds, tables, curves.

    python benchmarks/cifar_full.py [PART ...] --out runs/cifar-full --data-dir FOLDER

Parts:

- tune: learning rates from 1/16 to 4 times the recipe's in steps of 4, then the neighbors of the best in steps of 2,
  those of the network and of the centroids alike, each by the recipe cifar100.cpu_fast on 150 images a class for 4
  epochs, judged by validation accuracy (seed 100).
- check: is that rate right for the larger network too? The chosen rate and its neighbors by the recipe cifar100.cpu,
  for a quarter of its epochs on as many images; where the best is at an edge, the next one as well. It chooses nothing.
- fast: each loss with its rate and seeds 0, 1, 2 by the recipe cifar100.cpu_fast; the last epoch is judged.
- full: the same, with the same rates, by the recipe cifar100.cpu, which takes five times as long.
- curve: a run by cifar100.cpu_fast (seed 100) that leaves 5,000 training images out and is judged on them after each
  epoch: from when on does a loss train? By default the released form of NCMI and cross-entropy.
- report: tables, figures and grids from what is there; made after the other parts too.

Without a part all. Stop it at any time and call it again: finished runs are kept and others go on. Runs lie in
OUT/tune, OUT/check and so on, called LOSS-rateRATE-seedSEED, and may also be made by ``ncmi train
--recipe``; what lies there by another recipe is refused. Results: OUT/cifar_full.md and .json.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import _study_plan
from _gpu_train import rehearsal_images
from _study_plan import BROKE_DOWN, RATE, Record
from _study_statistics import paired
from _study_tables import gap_text
from _timing import command_line, machine, machine_text, markdown
from ncmi.errors import Interrupted
from ncmi.files import finite, write_json, write_text
from ncmi.objectives.options import CrossEntropyOptions, LabelSmoothingOptions, NCMIOptions, ObjectiveOptions
from ncmi.recipes import Recipe, cifar100, recipe_from_dict, resolve_recipe
from ncmi.recipes.names import READOUTS
from ncmi.report import to_csv, to_markdown
from ncmi.report.records import read_comparison
from ncmi.report.text import duration
from ncmi.training.comparison import RECORD, ComparisonError, Entry, Plan, compare_many
from ncmi.training.run_folder import RunFolder
from ncmi.training.schema import Results, write_record

PARTS = ("tune", "check", "fast", "full", "curve", "report")
# parts that search rates by short runs, and the part whose network they are of
SEARCHED = {"tune": "fast", "check": "full"}
# parts whose runs are reported with their test accuracy
JUDGED = {"fast": cifar100.cpu_fast, "full": cifar100.cpu}
# what training says of a run whose numbers are no longer finite
DIVERGED = "lower the learning rate"
TUNING_SEED = 100
RATES = replace(_study_plan.RATES, start=tuple(range(6, 13, 2)))
# the first is what the others are compared with
METHODS: dict[str, tuple[str, ObjectiveOptions]] = {
    "cross_entropy": ("Cross-entropy", CrossEntropyOptions()),
    "label_smoothing": ("Label smoothing", LabelSmoothingOptions()),
    "ncmi": ("NCMI", NCMIOptions()),
    "ncmi_released": ("NCMI (released)", cifar100.RELEASED_NCMI),
}


@dataclass(frozen=True)
class Job:
    """One call of the script."""

    out: Path
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    workers: int = 2
    data_dir: str | None = None
    rehearsal: bool = False
    precision: str | None = None

    def recipe(self, method: str, rate: float = 0.0, part: str = "fast") -> Recipe:
        """A method's recipe, at another learning rate where one is given; a rehearsal's on a few small images."""
        recipe = JUDGED[part](METHODS[method][1])
        changes: dict[str, Any] = {"learning_rate": rate, "centroid_learning_rate": rate} if rate else {}
        if self.precision:
            changes["precision"] = self.precision
        training = replace(recipe.training, **changes)
        if not self.rehearsal:
            return replace(recipe, data=replace(recipe.data, data_dir=self.data_dir), training=training)
        data = rehearsal_images(self.out)
        training = replace(training, epochs=4, batch_size=64, image_sizes=(8, 12))
        return replace(recipe, data=data, network=replace(recipe.network, width=16), training=training)

    def tuning_recipe(self, method: str, rate: float, part: str = "tune") -> Recipe:
        """A quarter of the epochs on a third of the images, judged on the validation part."""
        recipe = self.recipe(method, rate, SEARCHED[part])
        training = replace(recipe.training, epochs=recipe.training.epochs // 4, neighbors_limit=0, seed=TUNING_SEED)
        data = replace(recipe.data, train_per_class=15 if self.rehearsal else 150, train_on_all=False)  # type: ignore[arg-type]
        return replace(recipe, data=data, training=training)

    def curve_recipe(self, method: str, rate: float) -> Recipe:
        """The fast recipe's whole length, with a validation part."""
        recipe = self.recipe(method, rate)
        training = replace(recipe.training, neighbors_limit=0, seed=TUNING_SEED)
        return replace(recipe, data=replace(recipe.data, train_on_all=False), training=training)  # type: ignore[arg-type]

    def accuracy(self, method: str, rate: float, part: str = "tune") -> float | None:
        """Validation accuracy of a tuning run; −∞ where it broke down, None where it is still to be made."""
        path = self.out / part / f"{name_of(method, rate)}-seed{TUNING_SEED}"
        record = Record.read(path)
        if record is None:
            return None
        if record.broke_down:
            return -math.inf
        self.see_that_it_is(path, self.tuning_recipe(method, rate, part))
        return record.score("validation_accuracy")

    def see_that_it_is(self, path: Path, recipe: Recipe) -> None:
        """That a finished run has been made by this recipe.

        Raises:
            ValueError: where it has not.
        """
        folder = RunFolder(path)
        results = folder.results()
        stored = recipe_from_dict(json.loads((path / "recipe.json").read_text(encoding="utf-8")))
        shape = (3, 12, 12) if self.rehearsal else (3, 32, 32)
        asked = resolve_recipe(recipe, shape, len(results.class_names), results.num_train)
        # where it lay and ran does not matter
        asked = replace(asked, data=replace(asked.data, data_dir=stored.data.data_dir))  # type: ignore[arg-type]
        if stored != replace(asked, training=replace(asked.training, devices=stored.training.devices)):
            raise ValueError(f"{path} has been made by another recipe: remove it, or give another --out")

    def rates(self, method: str) -> list[float]:
        """All of the grid."""
        return [point[RATE] * self.recipe(method).training.learning_rate for point in RATES.points]

    def grid(self, method: str, part: str = "tune") -> dict[float, float]:
        """The tuning runs that there are, rate by rate."""
        found = {rate: self.accuracy(method, rate, part) for rate in self.rates(method)}
        return {rate: accuracy for rate, accuracy in found.items() if accuracy is not None}

    def open_rates(self, method: str, part: str = "tune") -> list[float]:
        """Rates that are still to be tried, by the rule of the study."""
        rates, known, search = self.rates(method), self.grid(method, part), RATES
        if part == "check":
            chosen = rates.index(at_chosen_rates(self, [method])[method])
            search = replace(RATES, start=tuple(range(max(0, chosen - 1), min(chosen + 2, len(rates)))))
        best = rates.index(self._best_of(method, known)) if known else 0
        return [rates[place] for place in search.untried([rates.index(rate) for rate in known], best)]

    def rate(self, method: str) -> float | None:
        """The chosen rate; None where the grid is not finished."""
        return None if self.open_rates(method) else self._best_of(method, self.grid(method))

    def _best_of(self, method: str, grid: dict[float, float]) -> float:
        """The rate of the highest accuracy; of equals the recipe's own, else the lowest."""
        usual = self.recipe(method).training.learning_rate
        return max(sorted(grid), key=lambda rate: (grid[rate], rate == usual))


def name_of(method: str, rate: float) -> str:
    """Of a run's folder, without its seed."""
    return f"{method}-rate{rate:g}"


def make(job: Job, part: str, recipes: dict[str, Recipe], seeds: Sequence[int]) -> list[str]:
    """Make runs into OUT/PART; what failed, with its error. A tuning run that broke down is a result."""
    entries = tuple(Entry(name, name, recipe) for name, recipe in recipes.items())
    missing = False
    for entry, seed in itertools.product(entries, seeds):
        path = job.out / part / f"{entry.name}-seed{seed}"
        if RunFolder(path).finished:
            job.see_that_it_is(path, replace(entry.recipe, training=replace(entry.recipe.training, seed=seed)))
        else:
            missing = True
    if not missing:
        return []
    # its own for each call, as two may work on different runs side by side
    comparison = job.out / "comparisons" / "-".join((part, *recipes, *map(str, seeds)))[:200]
    shutil.rmtree(comparison, ignore_errors=True)  # the runs lie elsewhere
    plan = Plan(entries, tuple(seeds), job.workers, title=part, runs_folder=f"../../{part}")

    def finished(name: str, results: Results) -> None:
        print(f"{part} {name}: {duration(results.total_seconds)}", flush=True)

    try:
        compare_many([(plan, comparison)], command=" ".join(sys.argv), on_run=finished)
    except ComparisonError as error:
        if not error.failures:
            raise
        for name, reason in error.failures.items():
            if part in SEARCHED and DIVERGED in reason:
                write_json(job.out / part / name / BROKE_DOWN, {"error": reason})
        return [
            f"{name}: {reason}"
            for name, reason in error.failures.items()
            if part not in SEARCHED or DIVERGED not in reason
        ]
    return []


def _seed_of(path: Path) -> int:
    return int(path.name.rpartition("-seed")[2])


def tune(job: Job, part: str) -> list[str]:
    """All grids of a part, round by round."""
    while recipes := {
        name_of(method, rate): job.tuning_recipe(method, rate, part)
        for method in job.methods
        for rate in job.open_rates(method, part)
    }:
        if failures := make(job, part, recipes, (TUNING_SEED,)):
            return failures
    return []


def at_chosen_rates(job: Job, methods: Sequence[str]) -> dict[str, float]:
    """The chosen rate of each method.

    Raises:
        ValueError: where one is not tuned.
    """
    rates = {}
    for method in methods:
        rate = job.rate(method)
        if rate is None:
            raise ValueError(f"{method} is not tuned yet: run the part tune first, with the same --out")
        rates[method] = rate
    return rates


def curves(job: Job, rates: dict[str, float]) -> str:
    """Loss on the training part and validation accuracy by epoch."""
    columns = {}
    for method, rate in rates.items():
        folder = RunFolder(job.out / "curve" / f"{name_of(method, rate)}-seed{TUNING_SEED}")
        if folder.finished:
            columns[method] = folder.metrics()
    if not columns:
        return ""
    head = ["epoch", *(f"{METHODS[name][0]}: {what}" for name in columns for what in ("loss", "val. %"))]
    lines = []
    for epoch, rows in enumerate(zip(*columns.values(), strict=True), 1):
        values = (
            text for row in rows for text in (f"{row.train_loss:.4g}", f"{100 * (row.validation_accuracy or 0):.2f}")
        )
        lines.append([str(epoch), *values])
    return markdown(head, lines)


def differences(runs: dict[str, Any]) -> str:
    """NCMI less each of the others by each read-out that both have, paired by seed."""
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for name, run in runs.items():
        method, _, seed = name.partition("-rate")
        scores.setdefault(method, {})[seed.rpartition("-seed")[2]] = run["test_accuracy"]
    of_method = {
        method: pd.DataFrame.from_dict(rows, "index").reindex(columns=[*READOUTS]) for method, rows in scores.items()
    }
    ours = of_method.pop("ncmi", pd.DataFrame(columns=[*READOUTS], dtype=float))
    lines = [
        [METHODS[method][0], *(gap_text(paired(ours[readout], theirs[readout])) for readout in READOUTS)]
        for method, theirs in of_method.items()
    ]
    return markdown(["NCMI −", *READOUTS], lines)


def judged_runs(job: Job, part: str, rates: dict[str, float], about: dict[str, Any]) -> list[str]:
    """Tables of a part's runs at the chosen rates, into a .csv file too; their figures go into ``about``."""
    made = {
        method: rate
        for method, rate in rates.items()
        if any(RunFolder(path).finished for path in (job.out / part).glob(f"{name_of(method, rate)}-seed*"))
    }
    if not made:
        return []
    folder = job.out / f"comparison-{part}"
    found = {_seed_of(path) for name in made for path in (job.out / part).glob(f"{name_of(name, made[name])}-seed*")}
    entries = tuple(
        Entry(name_of(name, rate), METHODS[name][0], job.recipe(name, rate, part)) for name, rate in made.items()
    )
    title = f"CIFAR-100, 32×32, recipe cifar100.{JUDGED[part].__name__}"
    plan = Plan(entries, tuple(sorted(found)), job.workers, title=title, runs_folder=f"../{part}")
    folder.mkdir(exist_ok=True)
    write_record(folder / RECORD, plan.describe(" ".join(sys.argv)))
    comparison = read_comparison(folder, may_be_unfinished=True)
    write_text(job.out / f"cifar_full-{part}.csv", to_csv(comparison))
    runs: dict[str, Any] = {}
    for path in sorted(path for entry in plan.entries for path in (job.out / part).glob(f"{entry.name}-seed*")):
        run = RunFolder(path)
        if run.finished:
            results = run.results()
            runs[path.name] = {
                "commit": run.environment().get("commit"),
                "seconds": results.total_seconds,
                "test_accuracy": {name: judged.test.accuracy.value for name, judged in results.readouts.items()},
                "train_loss": [row.train_loss for row in run.metrics()],
            }
    about[f"{part}_runs"] = runs
    return [
        f"{title}:",
        to_markdown(comparison, readouts=tuple(READOUTS)),
        "NCMI − each, test accuracy at common seeds, points (95 % t-interval):",
        differences(runs),
    ]


def grid_table(grids: dict[str, dict[float, float]], rates: dict[str, float]) -> str:
    """Accuracy by method and rate, the chosen rates in bold."""
    every = sorted({rate for grid in grids.values() for rate in grid})
    lines = [
        [METHODS[name][0], *(_percent(grid.get(rate), rate == rates.get(name)) for rate in every)]
        for name, grid in grids.items()
        if grid
    ]
    return markdown(["", *(f"{rate:g}" for rate in every)], lines) if every else ""


def report(job: Job) -> str:
    """Everything that there is, into OUT/cifar_full.md and .json."""
    grids = {method: job.grid(method) for method in METHODS}
    checked = {method: job.grid(method, "check") for method in METHODS}
    rates = {method: rate for method in METHODS if (rate := job.rate(method)) is not None}
    about: dict[str, Any] = {
        "machine": machine(torch.device("cpu")),
        "grids": grids,
        "rates": rates,
        "checked": checked,
    }
    sections = [machine_text(about["machine"])]
    if text := grid_table(grids, rates):
        sections += ["Validation accuracy in tuning, by learning rate:", text]
    if text := grid_table(checked, rates):
        sections += ["The same by the recipe cifar100.cpu, about the chosen rates:", text]
    for part in JUDGED:
        sections += judged_runs(job, part, rates, about)
    if text := curves(job, rates):
        sections += ["Training loss and validation accuracy by epoch:", text]
    text = "\n\n".join(sections)
    write_text(job.out / "cifar_full.md", text + "\n")
    content = json.dumps(finite({"command": " ".join(sys.argv[1:]), **about}), ensure_ascii=False, allow_nan=False)
    write_text(job.out / "cifar_full.json", content + "\n")
    return text


def _percent(accuracy: float | None, chosen: bool) -> str:
    if accuracy is None:
        return ""
    text = f"{100 * accuracy:.2f}" if math.isfinite(accuracy) else "broke down"
    return f"**{text}**" if chosen else text


def main() -> int:
    """Run what the command line asks for."""
    command = command_line(__doc__)
    command.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; without one, all in this order")
    command.add_argument("--out", type=Path, required=True, help="folder of runs, tables and figures")
    command.add_argument("--losses", nargs="+", choices=list(METHODS), default=list(METHODS))
    command.add_argument("--curves", nargs="*", choices=list(METHODS), default=["cross_entropy", "ncmi_released"])
    command.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    command.add_argument("--workers", type=int, default=2, help="processes of one thread; 0 for one a processor")
    command.add_argument("--data-dir", help="folder with CIFAR-100; by default NCMI_DATA")
    command.add_argument("--precision", help="of all runs, by default the recipe's; bf16-mixed where a CPU has it")
    command.add_argument("--rehearse", action="store_true", help="tiny images and networks, to see that it runs")
    arguments = command.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        command.error(f"unknown part {', '.join(unknown)}: choose {', '.join(PARTS)}")
    job = Job(
        arguments.out,
        tuple(arguments.losses),
        tuple(arguments.seeds),
        arguments.workers,
        arguments.data_dir,
        arguments.rehearse,
        arguments.precision,
    )
    failures: list[str] = []
    try:
        for part in arguments.parts or PARTS:
            if part in SEARCHED:
                failures += tune(job, part)
            elif part in JUDGED:
                rates = at_chosen_rates(job, job.methods)
                recipes = {name_of(name, rate): job.recipe(name, rate, part) for name, rate in rates.items()}
                failures += make(job, part, recipes, job.seeds)
            elif part == "curve":
                wanted = [name for name in arguments.curves if name in job.methods]
                rates = at_chosen_rates(job, wanted)
                recipes = {name_of(name, rate): job.curve_recipe(name, rate) for name, rate in rates.items()}
                failures += make(job, part, recipes, (TUNING_SEED,))
        print(f"\n{report(job)}\n", flush=True)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"cifar_full: {error}") from None
    except (Interrupted, KeyboardInterrupt):
        print("stopped; finished runs are kept: the same command goes on", file=sys.stderr)
        return 130
    for failure in failures:
        print(f"FAILED {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
