"""The study behind docs/findings.md: NCMI against its rivals on real public data sets, by a protocol fixed beforehand.

    python benchmarks/study.py tables --role confirmation --data-dir FOLDER [FOLDER …] --out runs/study
    python benchmarks/study.py noise --data-dir … --out … --sets letter --levels 0.4 --kinds symmetric
    python benchmarks/study.py report tables noise --out runs/study

Parts: tables (default against default, tuned against tuned, NCMI without search against searched rivals), noise (wrong
training labels), tail (long-tailed classes), batch (batch sizes), lengths (epochs), neighborhood (NCMI's default and
its neighbors), curves (accuracy by epoch). Methods, grids and neighbors stand in _study_plan.py; the data sets, what
each of them is for (development or confirmation) and how its rows are divided in _study_sets.py.

Whatever is chosen is chosen by validation accuracy with seeds 100, 101, …, on rows that no reported test part holds;
what is reported comes from seeds 0, 1, …. Test accuracy chooses nothing. Every loss is judged by the first of its own
read-outs. Every registered set has its row in the tables, with a dash where runs are missing. The part tables is
reported for each role by itself.

Stop it at any time and call it again: run folders are kept (OUT/runs/SET/NAME-seedN, without models), unfinished ones
go on, and where a recipe has changed, by a new default for instance, its runs are made anew. After a change of the
code behind a loss remove its folders: rm -r OUT/runs/*/*-LOSS-*. Cheap sets come first.

At the end, or by report from what is there: tables to the terminal and to OUT/PART.md, pictures to OUT, and all
figures with every grid that was tried, commit, machine and versions to OUT/PART.json.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import _study_plan as plan
import _study_tables as tables
from _study_sets import SETS, Folders, named_sets, placed, see_that_all_are_there
from _timing import command_line
from ncmi.errors import Interrupted
from ncmi.files import finite, write_atomically, write_text
from ncmi.recipes import recipe_to_dict
from ncmi.report.text import count
from ncmi.training.schema import Results
from ncmi.training.tuning import try_rate
from ncmi.training.workers import run_side_by_side

ROLES = ("development", "confirmation")


@dataclass(frozen=True)
class Part:
    """What a part runs, how it is reported, and on which data sets; all for none. ``by_role``: a report a role."""

    cells: plan.CellsOf
    report: Callable[[plan.Study], tables.Report]
    title: str
    sets: tuple[str, ...] | None = None
    by_role: bool = False


# of each kind that a part is about several sets of both roles, with at least 500 rows, declared before anything has run
PARTS = {
    "tables": Part(plan.tables_cells, tables.tables_report, "NCMI and its rivals", by_role=True),
    "noise": Part(
        plan.noise_cells,
        tables.noise_report,
        "Wrong training labels",
        ("vehicle", "segment", "optdigits", "texture", "satimage", "letter", "cifar100"),
    ),
    "tail": Part(
        plan.tail_cells,
        tables.tail_report,
        "Long-tailed classes",
        ("digits", "optdigits", "texture", "penbased", "letter", "cifar100"),
    ),
    "batch": Part(
        plan.batch_cells, tables.batch_report, "Batch sizes", ("digits", "segment", "satimage", "letter", "cifar100")
    ),
    "lengths": Part(
        plan.lengths_cells,
        tables.lengths_report,
        "Lengths of training",
        ("vowel", "vehicle", "digits", "segment", "optdigits", "satimage"),
    ),
    # a choice, and so on development sets
    "neighborhood": Part(
        plan.neighborhood_cells,
        tables.neighborhood_report,
        "NCMI's default and its neighbors",
        named_sets(None, "development"),
    ),
    "curves": Part(plan.curves_cells, tables.curves_report, "Accuracy by epoch", ("cifar100",)),
}


class Queue:
    """Runs that are open now, for processes that ask for more: set by set, and what a search has decided next."""

    def __init__(self, study: plan.Study, part: Part, folders: Folders) -> None:
        self.study, self.part, self.folders = study, part, folders
        self.asked: dict[str, plan.Run] = {}
        self.left = list(study.sets)
        self.changed = True

    def more(self) -> dict[str, Any]:
        """Recipes by folder: the open runs of the first set that has any which are not in hand."""
        if not self.changed:  # nothing has been decided since the last look
            return {}
        for name in list(self.left):
            runs = plan.open_runs(self.study, self.part.cells, name)
            new = [run for run in runs if str(self.study.folder / run.folder) not in self.asked]
            if not runs:
                self.left.remove(name)
            if new:
                self.asked |= {str(self.study.folder / run.folder): run for run in new}
                print(f"{name}: {count(len(new), 'run')}", flush=True)
                data = self.study.folder / "data"
                return {
                    str(self.study.folder / run.folder): recipe_to_dict(placed(run.recipe(), self.folders, data))
                    for run in new
                }
        self.changed = False
        return {}

    def finished(self, name: str, results: Results | None) -> None:
        """Tell of a run that has come to its end."""
        self.changed = True
        path, run = next((path, run) for path, run in self.asked.items() if Path(path).name == name)
        _slim(Path(path))
        print(f"{run}: {'broke down' if results is None else f'{results.total_seconds:.1f} s'}", flush=True)


def make_runs(study: plan.Study, part: Part, folders: Folders, workers: int) -> dict[str, str]:
    """Make what is open, and what searches choose in the meantime, all in the same processes.

    Returns:
        What failed, with its error. A run that broke down in training has not failed.

    Raises:
        Interrupted: on Ctrl-C; unfinished runs have written checkpoints.
    """
    see_that_all_are_there([one for one in study.sets if plan.open_runs(study, part.cells, one)], folders)
    queue = Queue(study, part, folders)
    if not (first := queue.more()):
        return {}
    failures = run_side_by_side(try_rate, first, workers, queue.finished, more=queue.more)
    for run in study.known:  # those too that finished while an earlier call was being stopped
        _slim(study.folder / run.folder)
    return {str(queue.asked[path]): reason for path, reason in failures.items()}


def _slim(folder: Path) -> None:
    """Thousands of models and outputs are not kept."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    for name in ("model.safetensors", "test_outputs.npz", "metrics.csv"):
        (folder / name).unlink(missing_ok=True)


def write_report(name: str, study: plan.Study, title: str = "", file: str = "") -> str:
    """Tables, pictures and figures of a part into the study's folder; gives the text.

    Args:
        name: of the part.
        study: with the sets that have a row each.
        title, file: by default the part's.
    """
    part, out, file = PARTS[name], study.folder, file or name
    report = part.report(study)
    open_runs = {one: len(plan.open_runs(study, part.cells, one)) for one in study.sets}
    missing = [one for one, left in open_runs.items() if left]
    registered = [one for one in named_sets(part.sets, study.role) if one not in study.sets]
    notes = [
        f"{count(len(study.sets), 'data set')}, each with a row in every table: {_with_roles(study)}.",
        f"Left out by --sets, so this is not all that is registered: {', '.join(registered)}." if registered else "",
        # what its searches have not chosen yet comes on top
        f"At least {count(sum(open_runs.values()), 'run')} of this plan still to be made, so that the figures are "
        f"preliminary, on {', '.join(missing)}."
        if missing
        else "",
        f"Restricted by --methods to {', '.join(study.methods)}." if study.methods else "",
        _of_all_runs(study.common),
    ]
    text = "\n\n".join([f"## {title or part.title}", *filter(None, notes), *report.sections])
    for picture, png in report.pictures.items():
        path = out / f"{file}-{picture}.png"
        write_atomically(path, lambda temporary, png=png: temporary.write_bytes(png) and None)  # type: ignore[misc]
        text += f"\n\n![{picture}]({path.name})"
    about = {
        "part": name,
        "made_by": " ".join(sys.argv[1:]),
        "role": study.role,
        "registered": [*study.sets, *registered],
        "open_runs": open_runs,
        "common": dict(study.common),
        **tables.provenance(study),
    }
    content = json.dumps(finite({**about, **report.figures}), ensure_ascii=False, allow_nan=False)
    write_text(out / f"{file}.json", content + "\n")
    write_text(out / f"{file}.md", text + "\n")
    return text


def _of_all_runs(common: plan.Options) -> str:
    """What the command line has changed for all runs, in words; empty where it has changed nothing."""
    changes = ", ".join(f"{name} = {value}" for name, value in common.items())
    return changes and f"{'A rehearsal: f' if 'epochs' in common else 'F'}or all runs, {changes}."


def _with_roles(study: plan.Study) -> str:
    """The sets of a report by their role."""
    by_role = {role: [tables.named(name) for name in study.sets if SETS[name].role == role] for role in ROLES}
    return "; ".join(f"{role}: {', '.join(names)}" for role, names in by_role.items() if names)


def reports(name: str, study: plan.Study) -> str:
    """The report of a part, or one of each role."""
    roles = [role for role in ROLES if study.role in (None, role)] if PARTS[name].by_role else []
    if not roles:
        return write_report(name, study)
    texts = []
    for role in roles:
        if sets := tuple(one for one in study.sets if SETS[one].role == role):
            # runs that are known stay known: the two share nothing else
            of_role = replace(study, sets=sets, role=role, known={})
            texts.append(write_report(name, of_role, f"{PARTS[name].title}: {role} sets", f"{name}-{role}"))
    return "\n\n".join(texts)


def main() -> int:
    """Run what the command line asks for."""
    command = command_line(__doc__)
    command.add_argument("part", choices=[*PARTS, "report"])
    command.add_argument("parts", nargs="*", help="after report: parts to report; all by default")
    command.add_argument("--data-dir", nargs="+", type=Path, default=[], help="folders to search for data sets")
    command.add_argument("--out", type=Path, required=True, help="folder of runs, tables and figures")
    command.add_argument("--workers", type=int, default=2, help="processes of one thread; 0 for one a processor")
    command.add_argument("--sets", nargs="+", help="restrict the part to these data sets")
    command.add_argument("--role", choices=ROLES, help="restrict the part to the sets of a role")
    command.add_argument("--methods", nargs="+", help="the part's methods, or further ones, by name")
    command.add_argument("--seeds", type=int, help="reported seeds 0, 1, …: how many; by default each set's own number")
    command.add_argument(
        "--small-seeds", type=int, help="the same of sets of up to 1,000 rows, whose test parts are small"
    )
    command.add_argument("--tune-seeds", type=int, help="tuning seeds 100, 101, …: how many; 0 takes all as usual")
    command.add_argument("--levels", nargs="+", type=float, default=plan.LEVELS, help="of wrong labels")
    command.add_argument("--kinds", nargs="+", choices=plan.KINDS, default=plan.KINDS, help="of wrong labels")
    command.add_argument("--lengths", nargs="+", type=float, default=plan.LENGTHS, help="multiples of the usual epochs")
    command.add_argument("--epochs", type=int, help="of all runs, for a rehearsal")
    command.add_argument(
        "--precision", help="of all runs, by default 32-true; bf16-mixed is faster for images where a CPU has it"
    )
    arguments = command.parse_args()
    if arguments.part != "report" and arguments.parts:
        command.error(f"{' '.join(arguments.parts)}: one part at a time; several can be given to report")
    if unknown := set(arguments.parts) - set(PARTS):
        command.error(f"unknown part {', '.join(unknown)}: choose {', '.join(PARTS)}")
    if unknown := set(arguments.methods or ()) - {one.name for one in plan.METHODS}:
        command.error(f"unknown method {', '.join(unknown)}: choose {', '.join(one.name for one in plan.METHODS)}")
    failures: dict[str, str] = {}
    try:
        for name in (arguments.parts or list(PARTS)) if arguments.part == "report" else [arguments.part]:
            study = plan.Study(
                folder=arguments.out,
                sets=named_sets(arguments.sets or PARTS[name].sets, arguments.role),
                role=arguments.role,
                methods=arguments.methods,
                seeds=arguments.seeds,
                tune_seeds=arguments.tune_seeds,
                small_seeds=arguments.small_seeds,
                common={
                    name: value for name in ("epochs", "precision") if (value := getattr(arguments, name)) is not None
                },
                levels=tuple(arguments.levels),
                kinds=tuple(arguments.kinds),
                lengths=tuple(arguments.lengths),
            )
            if not study.sets:
                raise ValueError(f"{name} has no {arguments.role} set among these: leave --role or --sets out")
            if arguments.part != "report":
                failures = make_runs(study, PARTS[name], tuple(arguments.data_dir), arguments.workers)
            print(f"\n{reports(name, study)}\n", flush=True)
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
