"""The study behind docs/findings.md: NCMI at its default against tuned rivals, on real data, by a fixed protocol.

    python benchmarks/study.py transfer --data-dir FOLDER [FOLDER …] --out runs/study
    python benchmarks/study.py noise --data-dir … --out … --sets letter --levels 0.4 --kinds symmetric
    python benchmarks/study.py report transfer noise --out runs/study

Parts: transfer (rivals searched over a small grid each, NCMI not), neighborhood (NCMI's default and its neighbors),
noise (wrong training labels), batch (batch sizes), tail (long-tailed classes), curves (accuracy by epoch). The methods,
grids and neighbors of each stand in _study_plan.py, the data sets in _study_sets.py.

Whatever is chosen is chosen by validation accuracy with seeds 100, 101, …; what is reported comes from seeds 0, 1, ….
Test accuracy chooses nothing. All methods are judged by the first of their own read-outs. Stop it at any time and call
it again: run folders are kept (OUT/runs/SET/NAME-seedN, without models), unfinished ones go on, and where a recipe
has changed, by a new default for instance, its runs are made anew. After a change of the code behind a loss remove its
folders: rm -r OUT/runs/*/*-LOSS-*.

At the end, or by report from what is there: tables to the terminal and to OUT/PART.md, pictures to OUT, and all
figures with commit, machine and versions to OUT/PART.json.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import _study_plan as plan
import _study_tables as tables
from _study_sets import GROUPS, Folders, named_sets, placed
from _timing import command_line
from ncmi.errors import Interrupted
from ncmi.files import finite, write_atomically, write_json, write_text
from ncmi.report.text import count
from ncmi.training.comparison import ComparisonError, Entry, Plan, compare_many
from ncmi.training.schema import Results

DAMAGED_SETS = ("digits", "letter", "cifar100")
# what training says of a run whose numbers are no longer finite
DIVERGED = "lower the learning rate"


@dataclass(frozen=True)
class Part:
    """What a part runs, how it is reported, and on which data sets by default."""

    cells: plan.CellsOf
    report: Callable[[plan.Study], tables.Report]
    sets: tuple[str, ...]
    title: str


PARTS = {
    "transfer": Part(
        plan.transfer_cells, tables.transfer_report, ("usual",), "NCMI at its default against tuned rivals"
    ),
    "neighborhood": Part(
        plan.neighborhood_cells, tables.neighborhood_report, ("usual",), "NCMI's default and its neighbors"
    ),
    "noise": Part(plan.noise_cells, tables.noise_report, DAMAGED_SETS, "Wrong training labels"),
    "batch": Part(plan.batch_cells, tables.batch_report, tuple(plan.BATCH_SIZES), "Batch sizes"),
    "tail": Part(plan.tail_cells, tables.tail_report, DAMAGED_SETS, "Long-tailed classes"),
    "curves": Part(plan.curves_cells, tables.curves_report, ("cifar100",), "Accuracy by epoch"),
}


def make_runs(study: plan.Study, part: Part, folders: Folders, workers: int) -> dict[str, str]:
    """Make what is open, round by round: the next round's runs are what this one's searches choose.

    Returns:
        What failed, with its error. A run that broke down in training has not failed.

    Raises:
        Interrupted: on Ctrl-C; unfinished runs have written checkpoints.
    """
    failures: dict[plan.Run, str] = {}
    while runs := [run for run in plan.open_runs(study, part.cells) if run not in failures]:
        left = {run.folder.name: run for run in runs}

        def finished(name: str, results: Results, left: dict[str, plan.Run] = left) -> None:
            run = left.pop(name)
            _slim(study.folder / run.folder)
            print(f"[{len(left)} left of this round] {run}: {results.total_seconds:.1f} s", flush=True)

        try:
            compare_many(_plans(study, runs, folders, workers), command=" ".join(sys.argv), on_run=finished)
        except ComparisonError as error:
            if not error.failures:
                raise
            failures |= _failures(study, left.values(), error.failures)
    for run in study.known:  # those too that finished while an earlier call was being stopped
        _slim(study.folder / run.folder)
    return {str(run): reason for run, reason in failures.items()}


def _plans(study: plan.Study, runs: list[plan.Run], folders: Folders, workers: int) -> list[tuple[Plan, Path]]:
    """One comparison for the settings of a set that have the same seeds to run, in the order of the runs."""
    settings: defaultdict[tuple[str, str], list[plan.Run]] = defaultdict(list)
    for run in runs:
        settings[run.set, run.name].append(run)
    groups: defaultdict[tuple[str, tuple[int, ...]], list[plan.Run]] = defaultdict(list)
    for (name, _), same in settings.items():
        groups[name, tuple(run.seed for run in same)].append(same[0])
    comparisons = study.folder / "comparisons"
    shutil.rmtree(comparisons, ignore_errors=True)  # the runs lie elsewhere
    plans = []
    for (name, seeds), firsts in groups.items():
        entries = (
            Entry(run.name, str(run.setting), placed(run.recipe(), folders, study.folder / "data")) for run in firsts
        )
        comparison = Plan(tuple(entries), seeds, workers, title=name, runs_folder=f"../../runs/{name}")
        plans.append((comparison, comparisons / str(len(plans))))
    return plans


def _slim(folder: Path) -> None:
    """Thousands of models and outputs are not kept."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    for name in ("model.safetensors", "test_outputs.npz"):
        (folder / name).unlink(missing_ok=True)


def _failures(study: plan.Study, runs: Iterable[plan.Run], reasons: dict[str, str]) -> dict[plan.Run, str]:
    """A run that broke down is a result; one that failed otherwise is tried again by the next call."""
    failures = {}
    for run in runs:
        reason = reasons.get(run.folder.name)
        if reason is None:
            continue
        if DIVERGED in reason:
            write_json(study.folder / run.folder / plan.BROKE_DOWN, {"error": reason})
            print(f"{run}: broke down", flush=True)
        else:
            failures[run] = reason
            print(f"FAILED {run}: {reason}", flush=True)
    return failures


def write_report(name: str, study: plan.Study) -> str:
    """Tables, pictures and figures of a part into the study's folder; gives the text."""
    part, out = PARTS[name], study.folder
    report = part.report(study)
    left = len(plan.open_runs(study, part.cells))
    # what its searches have not chosen yet comes on top
    notes = (
        [f"At least {count(left, 'run')} of this plan still to be made: the figures are preliminary."] if left else []
    )
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
    command.add_argument("--levels", nargs="+", type=float, default=plan.LEVELS, help="of wrong labels")
    command.add_argument("--kinds", nargs="+", choices=plan.KINDS, default=plan.KINDS, help="of wrong labels")
    command.add_argument("--epochs", type=int, help="of all runs, for a rehearsal")
    arguments = command.parse_args()
    if arguments.part != "report" and arguments.parts:
        command.error(f"{' '.join(arguments.parts)}: one part at a time; several can be given to report")
    if unknown := set(arguments.parts) - set(PARTS):
        command.error(f"unknown part {', '.join(unknown)}: choose {', '.join(PARTS)}")
    failures: dict[str, str] = {}
    try:
        for name in (arguments.parts or list(PARTS)) if arguments.part == "report" else [arguments.part]:
            study = plan.Study(
                folder=arguments.out,
                sets=named_sets(arguments.sets or PARTS[name].sets),
                methods=arguments.methods,
                seeds=arguments.seeds,
                tune_seeds=arguments.tune_seeds,
                common={} if arguments.epochs is None else {"epochs": arguments.epochs},
                levels=tuple(arguments.levels),
                kinds=tuple(arguments.kinds),
            )
            if arguments.part != "report":
                failures = make_runs(study, PARTS[name], tuple(arguments.data_dir), arguments.workers)
            print(f"\n{write_report(name, study)}\n", flush=True)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"study: {error}") from None
    except (Interrupted, KeyboardInterrupt):
        print("stopped; finished runs are kept: the same command goes on", file=sys.stderr)
        return 130
    for run, reason in failures.items():
        print(f"FAILED {run}: {reason}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
