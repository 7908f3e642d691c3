"""Runs side by side, one at a time in each of some fresh processes, which stop with a checkpoint."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ncmi.errors import Interrupted, in_one_line
from ncmi.training.stopping import StopRequest, end_with_parent

Ask = Callable[..., Any]
"""``ask(work, *arguments)`` has one of the processes do something, and returns what comes out."""
_LOOK = 0.2  # seconds between two looks for a signal
_END = 10.0  # seconds that an idle process has for its end
_WARM = "ncmi.training.run"
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_KILLED = (
    "its process was killed by signal {signal} (9 is what a system does that runs out of memory): go on by the same "
    "command with --resume and fewer --workers, or make the runs smaller"
)


class WorkError(ValueError):
    """What a process was asked for has failed there; the message is that of its error."""


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_workers(workers: int) -> None:
    """See that a number of processes side by side is one; ValueError where it is below 0."""
    if workers < 0:
        raise ValueError(f"--workers {workers}: give the number of processes side by side, or 0 for one a processor")


def run_side_by_side(
    work: Callable[[str, Any], Any],
    tasks: Mapping[str, Any],
    workers: int,
    on_run: Callable[[str, Any], None],
    before: Callable[[Ask], None] = lambda ask: None,
    more: Callable[[], Mapping[str, Any]] | None = None,
    devices: int = 1,
) -> dict[str, str]:
    """Do ``work(path, content)`` for each task, in fresh processes; what failed, by path, with its message.

    A process that is killed fails its own task alone; the others go on, with a process fewer where there are several.
    Where the machine has several CUDA devices, processes see one each, in turn, so that all devices have work.

    Args:
        work: a function that a fresh process can import.
        tasks: content of each task by the path of its folder.
        workers: processes; 0 for one a processor.
        on_run: called with each finished task's folder name and results, in this process.
        before: called first, with what lets one of the processes do something, while the others start; what it
            raises ends them all.
        more: gives further tasks, such as finished ones have decided on; asked when none waits and a process is idle.
        devices: that a process sees, where a task takes several.

    Raises:
        Interrupted: on Ctrl-C, SIGTERM and SIGHUP; runs in progress have written checkpoints to go on from. A second
            signal ends them at once.
    """
    count = workers or processors()
    if more is None:
        count = max(1, min(count, len(tasks)))
    with StopRequest() as stop:
        pool = [_Worker(place, devices) for place in range(count)]
        try:
            before(lambda work, *arguments: _ask(pool[0], stop, work, arguments))
            return _work_off(pool, stop, work, deque(tasks.items()), on_run, more or dict)
        except BaseException:
            for worker in pool:
                worker.process.kill()
            raise
        finally:
            for worker in pool:
                worker.end()


class _Worker:
    """A fresh process (torch must not be forked, and the one that asks stays without it), and the pipe to it."""

    def __init__(self, place: int, devices: int) -> None:
        self.place, self.devices = place, devices
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, os.getpid(), _WARM, place, devices))
        with _main_unseen():
            self.process.start()
        theirs.close()
        self.path = ""  # of the task in hand

    def give(self, work: Callable[..., Any], arguments: Iterable[Any]) -> bool:
        """Hand it something to do; False where it has ended."""
        try:
            self.connection.send((work, tuple(arguments)))
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def answer(self) -> tuple[str, Any]:
        """What came out, and how; called when there is something to hear."""
        try:
            how, what = self.connection.recv()
            return how, what
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode or 0
            number = -code
            return "ended", _KILLED.format(signal=number) if number > 0 else f"its process ended with code {code}"

    def end(self) -> None:
        self.connection.close()
        self.process.join(_END)
        self.process.kill()


@contextmanager
def _main_unseen() -> Iterator[None]:
    """Inside it a fresh process does not run the caller's script again, which would need a guard against that."""
    main = sys.modules["__main__"]
    names: dict[str, Any] = {name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)}
    vars(main).update(dict.fromkeys(names))
    try:
        yield
    finally:
        vars(main).update(names)


def _ask(worker: _Worker, stop: StopRequest, work: Callable[..., Any], arguments: Iterable[Any]) -> Any:
    worker.give(work, arguments)
    while not wait([worker.connection, worker.process.sentinel], _LOOK):
        if stop.requested:
            raise Interrupted("stopped before anything was written", stop.signal_number)
    how, what = worker.answer()
    if stop.requested:
        raise Interrupted("stopped before anything was written", stop.signal_number)
    if how != "done":
        raise WorkError(what)
    return what


def _work_off(
    pool: list[_Worker],
    stop: StopRequest,
    work: Callable[[str, Any], Any],
    waiting: deque[tuple[str, Any]],
    on_run: Callable[[str, Any], None],
    more: Callable[[], Mapping[str, Any]],
) -> dict[str, str]:
    failures: dict[str, str] = {}
    asked = False
    idle, busy = list(pool), list[_Worker]()
    while True:
        if idle and not waiting and not stop.requested:
            waiting.extend(more().items())
        if not busy and (not waiting or stop.requested):
            break
        while idle and waiting and not stop.requested:
            worker = idle.pop()
            worker.path, content = waiting.popleft()
            worker.give(work, (worker.path, content))  # one that has ended is heard of below
            busy.append(worker)
        if stop.requested and not asked:
            asked = True
            for worker in pool:
                worker.process.terminate()  # one in a run finishes its step and writes a checkpoint
        heard = wait([end for worker in busy for end in (worker.connection, worker.process.sentinel)], _LOOK)
        for worker in [w for w in busy if w.connection in heard or w.process.sentinel in heard]:
            how, what = worker.answer()
            busy.remove(worker)
            if how == "ended":
                pool.remove(worker)
                worker.end()
                # where memory is short, a process less is the cure
                if not pool and waiting and not stop.requested:
                    pool.append(_Worker(worker.place, worker.devices))
                    idle.append(pool[-1])
            else:
                idle.append(worker)
            if how == "done":
                on_run(Path(worker.path).name, what)
            elif not stop.requested:
                failures[worker.path] = what
    if stop.requested:
        raise Interrupted("stopped", stop.signal_number)
    return failures


def devices_of(place: int, devices: int, there: Sequence[str]) -> tuple[str, ...]:
    """Which devices a process sees, by its place among the processes: so many, in turn; all where there are no more.

    >>> [devices_of(place, 1, ["0", "1"]) for place in range(3)]
    [('0',), ('1',), ('0',)]
    """
    groups = max(1, len(there) // devices)
    if groups == 1:
        return tuple(there)
    first = place % groups * devices
    return tuple(there[first : first + devices])


def _see_own_devices(place: int, devices: int) -> None:
    """Let this process see its devices alone; called before CUDA is begun with."""
    if (visible := os.environ.get(_VISIBLE)) is None:
        import torch

        there = [str(number) for number in range(torch.cuda.device_count())]
    else:
        there = [name.strip() for name in visible.split(",") if name.strip()]
    if len(there) > 1 and not any(name.startswith("-") for name in there):
        os.environ[_VISIBLE] = ",".join(devices_of(place, devices, there))


def _serve(connection: Connection, parent: int, warm: str, place: int, devices: int) -> None:
    """What a process does: one thing after the other, until nobody asks any more."""
    end_with_parent(parent)
    # a terminal's Ctrl-C reaches all processes: the one that asks decides
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    import_module(warm)  # seconds, while another one reads the data
    _see_own_devices(place, devices)
    try:
        while True:
            work, arguments = connection.recv()
            connection.send(_outcome(work, arguments))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def ask_here(work: Callable[..., Any], *arguments: Any) -> Any:
    """An :data:`Ask` that does it in this process."""
    how, what = _outcome(work, arguments)
    if how != "done":
        raise WorkError(what)
    return what


def _outcome(work: Callable[..., Any], arguments: Iterable[Any]) -> tuple[str, Any]:
    try:
        return "done", work(*arguments)
    except Interrupted as stopped:
        return "stopped", str(stopped)
    except Exception as error:  # whatever it is, the other runs go on, and it is told in the end
        if os.environ.get("NCMI_TRACEBACK"):
            traceback.print_exc(file=sys.stderr)
        return "failed", in_one_line(error)
