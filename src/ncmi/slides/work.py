"""What tiling and embedding share: many files side by side, and the summary of what became of them."""

import signal
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, TypeVar

from ncmi.files import write_text
from ncmi.training.workers import processors

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class SlideResult:
    """What became of a slide that was to be tiled or embedded.

    Attributes:
        slide: its name.
        status: "tiled", or "no tissue" (there is a coordinates file of no patches); "embedded", or "no patches" (there
            is nothing to embed); "failed". No file of this call is there after the last two.
        patches: how many.
        reason: why there are none.
        made: made by this call; False where an earlier one had made it.
        path: of the slide; None where there is none.
        seconds: that embedding it took.
        note: what a user should know of it.
    """

    slide: str
    status: Literal["tiled", "no tissue", "embedded", "no patches", "failed"]
    patches: int = 0
    reason: str = ""
    made: bool = True
    path: Path | None = None
    seconds: float = 0.0
    note: str = ""


def map_in_processes(
    work: Callable[[T], R], tasks: Sequence[T], workers: int, on_death: Callable[[T], R]
) -> Generator[R, None, None]:
    """Results in the order in which they are finished; one worker runs in this process, several in processes.

    Args:
        work: a function of a module, of arguments that can be pickled.
        tasks: its arguments.
        workers: processes side by side; 0 for one a processor.
        on_death: the result of a task whose process was killed, called in this process.
    """
    workers = min(workers or processors(), len(tasks))
    if workers <= 1:
        yield from map(work, tasks)
        return
    # each thread has a process of its own, so that a death belongs to one task
    local = threading.local()
    processes: list[ProcessPoolExecutor] = []

    def run(task: T) -> R:
        if getattr(local, "process", None) is None:
            local.process = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_leave_interrupts)
            processes.append(local.process)
        try:
            result: R = local.process.submit(work, task).result()
            return result
        except BrokenProcessPool:
            local.process = None
            return on_death(task)

    threads = ThreadPoolExecutor(workers)
    try:
        for future in as_completed([threads.submit(run, task) for task in tasks]):
            yield future.result()
    finally:
        threads.shutdown(wait=True, cancel_futures=True)
        for process in processes:
            process.shutdown()


def _leave_interrupts() -> None:
    """Ctrl-C reaches all processes: the first one decides, this one finishes its file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def write_summary(path: Path, results: Iterable[SlideResult]) -> None:
    """Write a CSV of one line a slide: slide, status, patches, reason."""
    import pandas as pd

    columns = ["slide", "status", "patches", "reason"]
    table = pd.DataFrame([[getattr(result, name) for name in columns] for result in results], columns=columns)
    write_text(path, table.to_csv(index=False, lineterminator="\n"))
