"""The study behind docs/findings.md: NCMI at its default against tuned rivals, on real data, by a fixed protocol.

    python benchmarks/study.py transfer --data-dir FOLDER [FOLDER …] --out runs/study
    python benchmarks/study.py noise --data-dir … --out … --sets letter --levels 0.4 --kinds symmetric
    python benchmarks/study.py report transfer noise --data-dir … --out runs/study

Parts: transfer (rivals searched over a small grid each, NCMI not), neighbourhood (NCMI's default and its neighbours),
noise (wrong training labels), batch (batch sizes), tail (long-tailed classes), curves (accuracy by epoch). The methods,
grids and neighbours of each stand in _study_methods.py, the data sets in _study_sets.py.

Whatever is chosen is chosen by validation accuracy with seeds 100, 101, …; what is reported comes from seeds 0, 1, ….
Test accuracy chooses nothing. Stop it at any time and call it again: finished runs are kept, one small JSON file each
(OUT/runs/SET/LOSS-…-seedN.json), and made again only if their recipe is no longer what it would be now, by a changed
default for instance. After a change of the code behind a loss remove its files: rm OUT/runs/*/LOSS-*.

At the end, or by report from what is there: tables to the terminal and to OUT/PART.md, pictures to OUT, and all
figures with commit, machine and versions to OUT/PART.json. Long runs: --minutes; what there is to do: --dry-run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from _study_damage import batch_report, curves_report, noise_report, tail_report
from _study_jobs import Store, StudyError
from _study_methods import BATCH_SIZES, DAMAGED_SETS, KINDS, LEVELS, TAIL_RATIO
from _study_plan import (
    batch_jobs,
    curves_jobs,
    neighbourhood_jobs,
    noise_jobs,
    tail_jobs,
    transfer_jobs,
)
from _study_run import Plan, open_jobs, run_all
from _study_search import Study
from _study_sets import GROUPS, named_sets
from _study_tables import Report, provenance
from _study_transfer import neighbourhood_report, transfer_report
from ncmi.files import finite, write_atomically, write_text
from ncmi.reports.text import count, duration

TINY_SETS = ("iris", "digits")
TINY = {"epochs": 2}


@dataclass(frozen=True)
class Part:
    """What a part runs, how it is reported, and on which data sets by default."""

    plan: Plan
    report: Callable[[Study], Report]
    sets: tuple[str, ...]
    title: str


PARTS = {
    "transfer": Part(transfer_jobs, transfer_report, ("usual",), "NCMI at its default against tuned rivals"),
    "neighbourhood": Part(neighbourhood_jobs, neighbourhood_report, ("usual",), "NCMI's default and its neighbours"),
    "noise": Part(noise_jobs, noise_report, DAMAGED_SETS, "Wrong training labels"),
    "batch": Part(batch_jobs, batch_report, tuple(BATCH_SIZES), "Batch sizes"),
    "tail": Part(tail_jobs, tail_report, DAMAGED_SETS, "Long-tailed classes"),
    "curves": Part(curves_jobs, curves_report, ("cifar100",), "Accuracy by epoch"),
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("part", choices=[*PARTS, "report"])
    command.add_argument("parts", nargs="*", help="after report: parts to report; all by default")
    command.add_argument("--data-dir", nargs="+", type=Path, default=[], help="folders to search for data sets")
    command.add_argument("--out", type=Path, required=True, help="folder of records, tables and figures")
    command.add_argument("--workers", type=int, default=2, help="processes of one thread; 0 for this one")
    command.add_argument("--sets", nargs="+", help=f"data sets, or {', '.join(GROUPS)}")
    command.add_argument("--methods", nargs="+", help="restrict the part to these methods")
    command.add_argument("--seeds", type=int, help="final seeds 0, 1, …: how many; by default each set's own number")
    command.add_argument("--tune-seeds", type=int, help="tuning seeds 100, 101, …: how many; 0 takes all as usual")
    command.add_argument("--rates", nargs="+", type=float, help="multiples of the learning rate to choose from")
    command.add_argument("--ncmi-readout", default="primary", choices=["primary", "head", "cc", "lp", "knn"])
    command.add_argument("--levels", nargs="+", type=float, default=list(LEVELS), help="of wrong labels")
    command.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of wrong labels")
    command.add_argument("--batch-sizes", nargs="+", type=int, help="in place of each set's own")
    command.add_argument("--same-rate", action="store_true", help="learning rates do not follow the batch size")
    command.add_argument("--ratio", type=float, default=TAIL_RATIO, help="of the long tail")
    command.add_argument("--minutes", type=float, help="begin no more runs after so long")
    command.add_argument("--dry-run", action="store_true", help="list the runs that are open, with an estimate")
    command.add_argument("--tiny", action="store_true", help="a rehearsal: two epochs, two seeds, the smallest sets")
    return command


def study_of(arguments: argparse.Namespace, part: Part) -> Study:
    """What is asked for."""
    tiny = arguments.tiny
    sets = arguments.sets or (TINY_SETS if tiny else part.sets)
    return Study(
        store=Store(arguments.out),
        sets=named_sets(sets),
        methods=None if arguments.methods is None else tuple(arguments.methods),
        seeds=2 if tiny and arguments.seeds is None else arguments.seeds,
        tune_seeds=1 if tiny and arguments.tune_seeds is None else arguments.tune_seeds,
        # the recipe's own rate comes first: it wins ties
        rates=None if arguments.rates is None else tuple(sorted(set(arguments.rates), key=lambda rate: rate != 1)),
        readout=arguments.ncmi_readout,
        common=TINY if tiny else {},
        levels=tuple(arguments.levels),
        kinds=tuple(arguments.kinds),
        batch_sizes=None if arguments.batch_sizes is None else tuple(arguments.batch_sizes),
        ratio=arguments.ratio,
        scale_rate=not arguments.same_rate,
    )


def list_runs(study: Study, plan: Plan, workers: int) -> None:
    """The open runs, in their order, summed up by set."""
    jobs = open_jobs(replace(study, assume=True), plan)
    for job in jobs:
        print(f"{job.seconds:6.0f} s  {job.told()} seed {job.seed}")
    runs = Counter(job.set for job in jobs)
    seconds: Counter[str] = Counter()
    for job in jobs:
        seconds[job.set] += round(job.seconds)
    for name, number in runs.items():
        print(f"{name}: {number} runs, {seconds[name]} s")
    total = seconds.total()
    print(f"{len(jobs)} runs, {total} s on one core, about {duration(total / max(1, workers))} with {workers} workers")


def write_report(part: str, study: Study, out: Path) -> str:
    """Tables, pictures and figures of a part into the folder; gives the text."""
    report = PARTS[part].report(study)
    left = len(open_jobs(replace(study, assume=True), PARTS[part].plan))
    told = [f"{count(left, 'run')} of this plan still to be made: the figures are preliminary."] if left else []
    text = "\n\n".join([f"## {PARTS[part].title}", *told, *report.sections])
    for name, png in report.pictures.items():
        path = out / f"{part}-{name}.png"
        write_atomically(path, partial(_write_bytes, content=png))
        text += f"\n\n![{name}]({path.name})"
    content = {
        "part": part,
        "made_by": " ".join(sys.argv[1:]),
        "open_runs": left,
        **provenance(study),
        **report.figures,
    }
    lines = json.dumps(finite(content), ensure_ascii=False, allow_nan=False)
    write_text(out / f"{part}.json", lines + "\n")
    write_text(out / f"{part}.md", text + "\n")
    return text


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def main() -> int:
    """Run what the command line asks for."""
    arguments = parser().parse_args()
    if arguments.part != "report" and arguments.parts:
        raise SystemExit(f"{' '.join(arguments.parts)}: one part at a time; several can be given to report")
    parts = (arguments.parts or list(PARTS)) if arguments.part == "report" else [arguments.part]
    failures: dict[str, str] = {}
    try:
        for name in parts:
            if name not in PARTS:
                raise StudyError(f"unknown part {name!r}: choose {', '.join(PARTS)}")
            part, folders = PARTS[name], tuple(arguments.data_dir)
            study = study_of(arguments, part)
            if arguments.dry_run:
                list_runs(study, part.plan, arguments.workers)
                continue
            if arguments.part != "report":
                failures = run_all(study, part.plan, folders, workers=arguments.workers, minutes=arguments.minutes)
            print(f"\n{write_report(name, study, arguments.out)}\n", flush=True)
    except ValueError as error:
        raise SystemExit(f"study: {error}") from None
    except KeyboardInterrupt:
        print("stopped; finished runs are kept: the same command goes on", file=sys.stderr)
        return 130
    for told, reason in failures.items():
        print(f"FAILED {told}: {reason}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
