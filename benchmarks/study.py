"""The study behind docs/findings.md: NCMI at its default against tuned rivals, on real data, by a fixed protocol.

    python benchmarks/study.py transfer --data-dir FOLDER [FOLDER …] --out runs/study
    python benchmarks/study.py noise --data-dir … --out … --sets letter --levels 0.4 --kinds symmetric
    python benchmarks/study.py report transfer noise --out runs/study

Parts: transfer (rivals searched over a small grid each, NCMI not), neighborhood (NCMI's default and its neighbors),
noise (wrong training labels), batch (batch sizes), tail (long-tailed classes), curves (accuracy by epoch). The methods,
grids and neighbors of each stand in _study_plan.py, the data sets in _study_sets.py.

Whatever is chosen is chosen by validation accuracy with seeds 100, 101, …; what is reported comes from seeds 0, 1, ….
Test accuracy chooses nothing. All methods are judged by the same read-out, the trained head by default. Stop it at any
time and call it again: run folders are kept (OUT/runs/SET/NAME-seedN, without models), unfinished ones go on, and they
are made again only if their recipe is no longer what it would be now, by a changed default for instance. After a change
of the code behind a loss remove its folders: rm -r OUT/runs/*/*-LOSS-*.

At the end, or by report from what is there: tables to the terminal and to OUT/PART.md, pictures to OUT, and all
figures with commit, machine and versions to OUT/PART.json. Long runs: --minutes; what there is to do: --dry-run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import _study_tables as tables
from _study_plan import BATCH_SIZES, BROKE_DOWN, KINDS, LEVELS, CellsOf, Record, Run, Study, StudyError, open_runs
from _study_sets import GROUPS, SETS, Folders, named_sets, placed
from _timing import command_line
from ncmi.files import finite, write_atomically, write_json, write_text
from ncmi.report.text import count, duration
from ncmi.training.comparison import ComparisonError, Entry, Plan, compare_many
from ncmi.training.schema import Results

DAMAGED_SETS = ("digits", "letter", "cifar100")
# what training says of a run whose numbers are no longer finite
DIVERGED = "lower the learning rate"


@dataclass(frozen=True)
class Part:
    """What a part runs, how it is reported, and on which data sets by default."""

    cells: CellsOf
    report: Callable[[Study], tables.Report]
    sets: tuple[str, ...]
    title: str


_plan = tables.plan
PARTS = {
    "transfer": Part(
        _plan.transfer_cells, tables.transfer_report, ("usual",), "NCMI at its default against tuned rivals"
    ),
    "neighborhood": Part(
        _plan.neighborhood_cells, tables.neighborhood_report, ("usual",), "NCMI's default and its neighbors"
    ),
    "noise": Part(_plan.noise_cells, tables.noise_report, DAMAGED_SETS, "Wrong training labels"),
    "batch": Part(_plan.batch_cells, tables.batch_report, tuple(BATCH_SIZES), "Batch sizes"),
    "tail": Part(_plan.tail_cells, tables.tail_report, DAMAGED_SETS, "Long-tailed classes"),
    "curves": Part(_plan.curves_cells, tables.curves_report, ("cifar100",), "Accuracy by epoch"),
}


def study_of(arguments: argparse.Namespace, part: Part) -> Study:
    """What is asked for; a rehearsal is of two epochs, two seeds, the smallest sets."""
    tiny, rates, sizes = arguments.tiny, arguments.rates, arguments.batch_sizes
    return Study(
        folder=arguments.out,
        sets=named_sets(arguments.sets or (("iris", "digits") if tiny else part.sets)),
        methods=arguments.methods and tuple(arguments.methods),
        seeds=2 if tiny and arguments.seeds is None else arguments.seeds,
        tune_seeds=1 if tiny and arguments.tune_seeds is None else arguments.tune_seeds,
        # the recipe's own rate comes first: it wins ties
        rates=rates and tuple(sorted(set(rates), key=lambda rate: rate != 1)),
        readout=arguments.readout,
        common={"epochs": 2} if tiny else {},
        levels=tuple(arguments.levels),
        kinds=tuple(arguments.kinds),
        batch_sizes=sizes and tuple(sizes),
        ratio=arguments.ratio,
        scale_rate=not arguments.same_rate,
    )


class OutOfTime(KeyboardInterrupt):
    """The minutes are over."""


@dataclass
class Maker:
    """Makes the runs of a part by :func:`ncmi.training.comparison.compare_many`, round by round.

    A round is every run that is open by what is known: the next one's are what its searches choose.
    """

    study: Study
    part: Part
    folders: Folders
    workers: int
    ends: float
    failures: dict[Run, str] = field(default_factory=dict)
    open: dict[str, Run] = field(default_factory=dict)
    made: int = 0
    spent: float = 0.0
    expected: float = 0.0

    def run(self) -> dict[str, str]:
        """Make what is open; what failed, with its error. A run that broke down in training has not failed.

        Raises:
            KeyboardInterrupt: on Ctrl-C; unfinished runs have written checkpoints.
        """
        while time.monotonic() < self.ends:
            runs = [run for run in open_runs(self.study, self.part.cells) if run not in self.failures]
            if not runs:
                break
            self.open = {run.folder.name: run for run in runs}
            try:
                compare_many(self._plans(runs), command=" ".join(sys.argv), on_run=self._finished)
            except ComparisonError as error:
                self._note_failures(str(error))
            except OutOfTime:
                break
        for run in self.study.known:  # those too that finished while an earlier call was being stopped
            self._slim(run)
        return {str(run): reason for run, reason in self.failures.items()}

    def _plans(self, runs: list[Run]) -> list[tuple[Plan, Path]]:
        """One comparison for the settings of a set that have the same seeds to run, in the order of the runs."""
        settings: defaultdict[tuple[str, str, int], list[Run]] = defaultdict(list)
        for run in runs:
            # where the data itself depends on the seed, each seed is a comparison of its own
            settings[run.set, run.name, run.seed if SETS[run.set].by_seed else 0].append(run)
        groups: defaultdict[tuple[str, tuple[int, ...]], list[Run]] = defaultdict(list)
        for (name, _, _), same in settings.items():
            groups[name, tuple(run.seed for run in same)].append(same[0])
        comparisons = self.study.folder / "comparisons"
        shutil.rmtree(comparisons, ignore_errors=True)  # the runs lie elsewhere
        plans = []
        for (name, seeds), firsts in groups.items():
            entries = []
            for run in firsts:
                self.study.prepare(run)
                recipe = placed(run.recipe(), self.folders, self.study.folder / "data", run.seed)
                entries.append(Entry(run.name, str(run.setting), recipe))
            plan = Plan(tuple(entries), seeds, self.workers, title=name, runs_folder=f"../../runs/{name}")
            plans.append((plan, comparisons / str(len(plans))))
        return plans

    def _finished(self, name: str, results: Results) -> None:
        run = self.open[Path(name).name]
        self._slim(run)
        record = self.study.get(run) or Record.of(results)
        self.made, self.spent, self.expected = self.made + 1, self.spent + record.seconds, self.expected + run.seconds
        left = open_runs(replace(self.study, assume=True), self.part.cells)
        remaining = sum(one.seconds for one in left) * self.spent / self.expected / max(1, self.workers)
        accuracy = 100 * record.score(self.study.readout, "validation_accuracy")
        print(
            f"[{self.made} made, {len(left)} left, about {duration(remaining)}] {run}: validation {accuracy:.2f} %, "
            f"{record.seconds:.1f} s",
            flush=True,
        )
        if time.monotonic() > self.ends:
            raise OutOfTime

    def _slim(self, run: Run) -> None:
        """Thousands of models are not kept; nor outputs, but where validation and test part lie in one."""
        folder = self.study.folder / run.folder
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        for name in ("model.safetensors", *(() if SETS[run.set].by_seed else ("test_outputs.npz",))):
            (folder / name).unlink(missing_ok=True)

    def _note_failures(self, message: str) -> None:
        """A run that broke down is a result; one that failed otherwise is tried again by the next call."""
        for name, run in self.open.items():
            _, failed, rest = message.partition(f"{name}: ")
            if not failed:
                continue
            reason = rest.partition("; ")[0]
            if DIVERGED in reason:
                write_json(self.study.folder / run.folder / BROKE_DOWN, {"error": reason})
                print(f"{run}: broke down", flush=True)
            else:
                self.failures[run] = reason
                print(f"FAILED {run}: {reason}", flush=True)


def list_runs(study: Study, part: Part, workers: int) -> None:
    """The open runs, in their order, summed up by set."""
    runs = open_runs(replace(study, assume=True), part.cells)
    for run in runs:
        print(f"{run.seconds:6.0f} s  {run}")
    for name in dict.fromkeys(run.set for run in runs):
        seconds = [run.seconds for run in runs if run.set == name]
        print(f"{name}: {len(seconds)} runs, {sum(seconds):.0f} s")
    total = sum(run.seconds for run in runs)
    print(
        f"{len(runs)} runs, {total:.0f} s on one core, about {duration(total / max(1, workers))} with {workers} workers"
    )


def write_report(name: str, study: Study) -> str:
    """Tables, pictures and figures of a part into the study's folder; gives the text."""
    part, out = PARTS[name], study.folder
    report = part.report(study)
    left = len(open_runs(replace(study, assume=True), part.cells))
    notes = [f"{count(left, 'run')} of this plan still to be made: the figures are preliminary."] if left else []
    text = "\n\n".join([f"## {part.title}", *notes, *report.sections])
    for picture, png in report.pictures.items():
        path = out / f"{name}-{picture}.png"
        write_atomically(path, lambda temporary, png=png: temporary.write_bytes(png) and None)  # type: ignore[misc]
        text += f"\n\n![{picture}]({path.name})"
    about = {"part": name, "made_by": " ".join(sys.argv[1:]), "open_runs": left, **tables.provenance(study)}
    content = json.dumps(finite({**about, **report.figures}), ensure_ascii=False, allow_nan=False)
    write_text(out / f"{name}.json", content + "\n")
    write_text(out / f"{name}.md", text + "\n")
    return text


def main() -> int:
    """Run what the command line asks for."""
    command = command_line(__doc__)
    command.add_argument("part", choices=[*PARTS, "report"])
    command.add_argument("parts", nargs="*", help="after report: parts to report; all by default")
    command.add_argument("--data-dir", nargs="+", type=Path, default=[], help="folders to search for data sets")
    command.add_argument("--out", type=Path, required=True, help="folder of runs, tables and figures")
    command.add_argument("--workers", type=int, default=2, help="processes of one thread; 0 for one a processor")
    command.add_argument("--sets", nargs="+", help=f"data sets, or {', '.join(GROUPS)}")
    command.add_argument("--methods", nargs="+", help="restrict the part to these methods")
    command.add_argument("--seeds", type=int, help="final seeds 0, 1, …: how many; by default each set's own number")
    command.add_argument("--tune-seeds", type=int, help="tuning seeds 100, 101, …: how many; 0 takes all as usual")
    command.add_argument("--rates", nargs="+", type=float, help="multiples of the learning rate to choose from")
    command.add_argument("--readout", default="primary", choices=["primary", "head", "cc", "lp", "knn"])
    command.add_argument("--levels", nargs="+", type=float, default=list(LEVELS), help="of wrong labels")
    command.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of wrong labels")
    command.add_argument("--batch-sizes", nargs="+", type=int, help="in place of each set's own")
    command.add_argument("--same-rate", action="store_true", help="learning rates do not follow the batch size")
    command.add_argument("--ratio", type=float, default=100.0, help="of the long tail")
    command.add_argument("--minutes", type=float, default=float("inf"), help="begin no more runs after so long")
    command.add_argument("--dry-run", action="store_true", help="list the runs that are open, with an estimate")
    command.add_argument("--tiny", action="store_true", help="a rehearsal: two epochs, two seeds, the smallest sets")
    arguments = command.parse_args()
    if arguments.part != "report" and arguments.parts:
        raise SystemExit(f"{' '.join(arguments.parts)}: one part at a time; several can be given to report")
    ends, failures = time.monotonic() + 60 * arguments.minutes, {}
    try:
        for name in (arguments.parts or list(PARTS)) if arguments.part == "report" else [arguments.part]:
            if name not in PARTS:
                raise StudyError(f"unknown part {name!r}: choose {', '.join(PARTS)}")
            part, study = PARTS[name], study_of(arguments, PARTS[name])
            if arguments.dry_run:
                list_runs(study, part, arguments.workers)
                continue
            if arguments.part != "report":
                failures = Maker(study, part, tuple(arguments.data_dir), arguments.workers, ends).run()
            print(f"\n{write_report(name, study)}\n", flush=True)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"study: {error}") from None
    except KeyboardInterrupt:
        print("stopped; finished runs are kept: the same command goes on", file=sys.stderr)
        return 130
    for run, reason in failures.items():
        print(f"FAILED {run}: {reason}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
