"""Work on many files side by side, where the death of one process costs one file."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def run_side_by_side(
    work: Callable[[T], R], tasks: Sequence[T], workers: int, on_death: Callable[[T], R]
) -> Generator[R, None, None]:
    """Results in the order in which they are finished; one worker runs in this process, several in processes.

    Args:
        work: a function of a module, of arguments that can be pickled.
        tasks: its arguments.
        workers: processes side by side; 0 for one a processor.
        on_death: the result of a task whose process was killed, called in this process.

    Raises:
        Exception: what ``work`` raises; tasks in progress are finished, the others are not begun.
        KeyboardInterrupt: on Ctrl-C, likewise.
    """
    workers = min(workers or _processors(), len(tasks))
    if workers <= 1:
        yield from map(work, tasks)
        return
    # each thread has a process of its own, so that a death belongs to one task
    own = threading.local()
    processes: list[ProcessPoolExecutor] = []

    def run(task: T) -> R:
        if getattr(own, "process", None) is None:
            own.process = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_leave_interrupts)
            processes.append(own.process)
        try:
            result: R = own.process.submit(work, task).result()
            return result
        except BrokenProcessPool:
            own.process = None
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


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
