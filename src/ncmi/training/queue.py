"""Many runs side by side, each in a process of its own kind: fresh, with one thread."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from ncmi.errors import Interrupted

Task = TypeVar("Task")
Result = TypeVar("Result")

# the pool has handed a worker its next run before it is asked to stop: that one must not begin
_STOPPED: list[str] = []


def run_side_by_side(
    work: Callable[[str, Task], Result],
    tasks: Mapping[str, Task],
    workers: int,
    on_run: Callable[[str, Result], None],
) -> dict[str, str]:
    """Do ``work(path, content)`` for each of the tasks; what failed, by path, with its message.

    Args:
        work: a function that a fresh process can import.
        tasks: content of each task by the path of its folder.
        workers: processes; 0 for one a processor.
        on_run: called with each finished task's folder name and results, in this process.

    Raises:
        KeyboardInterrupt: on Ctrl-C; runs in progress have written checkpoints to go on from.
    """
    failures: dict[str, str] = {}
    # fresh processes: torch must not be forked, and this one stays without it
    pool = ProcessPoolExecutor(min(workers or processors(), len(tasks)), mp_context=get_context("spawn"))
    try:
        futures: dict[Future[Result], str] = {
            pool.submit(_unless_stopped, work, path, content): path for path, content in tasks.items()
        }
        for future in as_completed(futures):
            path = futures[future]
            try:
                on_run(Path(path).name, future.result())
            except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
                failures[path] = str(error)
    except (KeyboardInterrupt, Interrupted):
        # the workers have had the signal as well: they stop after their step and write a checkpoint
        pool.shutdown(wait=True, cancel_futures=True)
        raise KeyboardInterrupt from None
    pool.shutdown()
    return failures


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _unless_stopped(work: Callable[[str, Task], Result], path: str, content: Task) -> Result:
    if _STOPPED:
        raise Interrupted("stopped before it began")
    try:
        return work(path, content)
    except Interrupted:
        _STOPPED.append(path)
        raise
