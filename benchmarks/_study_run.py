"""Makes the runs of a part side by side, the next one always by what is known so far, and keeps a record of each."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from functools import cache
from multiprocessing.connection import wait as wait_for_connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ncmi
from _study_jobs import FORMAT, Job
from _study_loaders import Folders, Loaded
from _study_search import Study
from _study_sets import load_set
from ncmi.files import finite, write_text
from ncmi.recipes import recipe_to_dict
from ncmi.reports.text import duration
from ncmi.training import train
from ncmi.training.environment import describe_environment

Plan = Callable[[Study], Iterator[Job]]


@cache
def source() -> str:
    """A digest of the package's source as this process has it: commits do not tell of changes that are not committed.

    >>> len(source())
    12
    """
    root = Path(ncmi.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


@cache
def _environment() -> dict[str, Any]:
    return {**describe_environment(torch.device("cpu")), "source": source()}


def make_run(job: Job, folders: Folders, out: Path, scratch: Path) -> float:
    """One run: its record is written, its model is not kept. Gives the seconds.

    A run that breaks down (numbers that are no longer finite) has a record that says so.
    """
    recipe = job.recipe()
    loaded = load_set(job.set, folders, job.seed)
    content: dict[str, Any] = {
        "format": FORMAT,
        "set": job.set,
        "objective": job.setting.objective,
        "changes": {name: dict(getattr(job.setting, name)) for name in ("options", "training", "data")},
        "seed": job.seed,
        "recipe": recipe_to_dict(recipe),
        "environment": _environment(),
    }
    started, processor = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        path = Path(folder) / "run"
        try:
            results = train(recipe, path, dataset=loaded.dataset, catch_signals=False)
        except FloatingPointError as error:
            content["error"] = str(error)
        else:
            content |= _figures(results, path, loaded)
    seconds = time.perf_counter() - started
    content["seconds"] = round(seconds, 2)
    # on a busy machine the better measure of what a run costs
    content["processor_seconds"] = round(time.process_time() - processor, 2)
    write_text(out / job.path, json.dumps(finite(content), allow_nan=False, ensure_ascii=False) + "\n")
    return seconds


def _figures(results: dict[str, Any], path: Path, loaded: Loaded) -> dict[str, Any]:
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    readouts = _by_group(path, loaded.validation_rows) if loaded.validation_rows else results["readouts"]
    kept = ("primary_readouts", "epochs", "epoch_seconds", "parameters", "num_train", "num_validation", "num_test")
    return {
        **{name: results[name] for name in kept},
        "num_classes": len(results["class_names"]),
        "information": _rounded(results["information"]),
        "readouts": {name: _rounded(found) for name, found in readouts.items()},
        "curve": [round(row["validation_accuracy"], 6) for row in rows],
        "train_loss": [round(row["train_loss"], 6) for row in rows],
    }


def _by_group(path: Path, rows: int) -> dict[str, dict[str, float]]:
    """Accuracies where validation and test part are the head and the rest of what the library calls test."""
    found: dict[str, dict[str, float]] = {}
    with np.load(path / "test_outputs.npz", allow_pickle=False) as outputs:
        labels = outputs["labels"]
        for name in ("head", "cc", "lp", "knn"):
            right = outputs[f"prediction_{name}"] == labels
            balanced = [float(right[rows:][labels[rows:] == one].mean()) for one in np.unique(labels[rows:])]
            found[name] = {
                "validation_accuracy": float(right[:rows].mean()),
                "test_accuracy": float(right[rows:].mean()),
                "test_balanced_accuracy": float(np.mean(balanced)),
            }
    return found


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 7) if isinstance(value, float) else value for name, value in values.items()}


def _begin_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave_with_parent() -> None:
        wait_for_connection([parent.sentinel])
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


class Inline:
    """Stands for a pool: makes runs in this process, one at a time."""

    def submit(self, call: Callable[..., float], *arguments: Any) -> Future[float]:
        """The outcome, which is there at once."""
        future: Future[float] = Future()
        try:
            future.set_result(call(*arguments))
        except (ValueError, OSError, RuntimeError) as error:
            future.set_exception(error)
        return future


def open_jobs(study: Study, plan: Plan) -> list[Job]:
    """Runs that a plan asks for now and that have no record, in the order in which they are to be made."""
    # of equal runs the one with the earliest place
    jobs: dict[Job, Job] = {}
    for job in plan(study):
        if job not in jobs or job.order < jobs[job].order:
            jobs[job] = job
    return sorted((job for job in jobs.values() if study.store.get(job) is None), key=lambda job: job.order)


def run_all(study: Study, plan: Plan, folders: Folders, *, workers: int, minutes: float | None) -> dict[str, str]:
    """Make the open runs of a plan, which grows with what its searches find.

    Args:
        workers: processes with one thread each; 0 for this process.
        minutes: begin no more runs after so long; None for no limit.

    Returns:
        What failed, with its error; a run that broke down in training has not failed.

    Raises:
        KeyboardInterrupt: on Ctrl-C; runs under way are given up, finished ones are kept.
    """
    out = study.store.folder
    if not workers:
        with tempfile.TemporaryDirectory() as scratch:
            return _run(study, plan, folders, Inline(), 1, minutes, Path(scratch))
    # fresh processes: torch must not be forked
    context = multiprocessing.get_context("spawn")
    os.environ["OMP_NUM_THREADS"] = "1"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker)
        try:
            return _run(study, plan, folders, pool, workers, minutes, Path(scratch))
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _run(
    study: Study,
    plan: Plan,
    folders: Folders,
    pool: ProcessPoolExecutor | Inline,
    workers: int,
    minutes: float | None,
    scratch: Path,
) -> dict[str, str]:
    started = time.monotonic()
    running: dict[Future[float], Job] = {}
    failures: dict[Job, str] = {}
    spent = expected = 0.0
    made = 0
    while True:
        late = minutes is not None and time.monotonic() - started > 60 * minutes
        for job in [] if late else open_jobs(study, plan):
            if len(running) >= workers:
                break
            if job not in failures and job not in running.values():
                running[pool.submit(make_run, job, folders, study.store.folder, scratch)] = job
        if not running:
            return {f"{job.told()} seed {job.seed}": told for job, told in failures.items()}
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            job = running.pop(future)
            try:
                seconds = future.result()
            except (ValueError, OSError, RuntimeError) as error:
                failures[job] = f"{type(error).__name__}: {error}"
                print(f"FAILED {job.told()} seed {job.seed}: {failures[job]}", flush=True)
                continue
            if study.store.get(job) is None:
                failures[job] = "its record cannot be read back, or is of another recipe"
                continue
            made, spent, expected = made + 1, spent + seconds, expected + job.seconds
            left = open_jobs(replace(study, assume=True), plan)
            remaining = sum(one.seconds for one in left) * spent / expected / workers
            print(
                f"[{made} made, {len(left)} left, about {duration(remaining)}] {job.told()} seed {job.seed}: "
                f"{_outcome(study, job)}, {seconds:.1f} s",
                flush=True,
            )


def _outcome(study: Study, job: Job) -> str:
    record = study.store.get(job)
    assert record is not None
    if record.diverged:
        return "broke down"
    readout = record.readout(study.judged_by(job.setting.objective))
    return f"validation {record.score(readout, 'validation_accuracy'):.2f} % by {readout}"
