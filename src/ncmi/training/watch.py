"""Processes that train together look after each other: none waits for one that has ended or stands still."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from ncmi.errors import Interrupted, PeerLost, RankError, ToldElsewhere, exit_code_of, in_one_line, is_of_peer

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_BEAT = 1.0  # seconds
_LOOK = 0.05  # seconds between two looks for the ends of the others, at the end
_SILENCE = 5.0  # seconds without a beat, after which a process has ended where a connection to one is lost
_LINGER = 15.0  # seconds in which all have told each other what they end of
_RANKS_A_SECOND = 64


class _Beat(msgspec.Struct, frozen=True):
    """What a process tells of itself, again and again.

    Attributes:
        number: of this beat.
        step: optimizer steps of the run that it has finished.
        place: the same in words.
        state: ``"fails"`` with an error of its own; ``"leaves"`` because of another's; ``"done"``.
        text, code: of its error.
        knows: whether it does not work any more, and has heard the same of all others.
    """

    number: int = 0
    step: int = 0
    place: str = "the start"
    state: str = "works"
    text: str = ""
    code: int = 0
    knows: bool = False


@dataclass
class _Heard:
    beat: _Beat
    at: float


class Watch:
    """Context manager: inside it, a process that has ended or stands still ends the others, which say which it was.

    Each process tells the others of itself once a second by a thread, through a store that the first one keeps. Where
    all fail of the same error it is raised by the first; where one does, it is raised there with its rank; all other
    processes raise :class:`~ncmi.errors.ToldElsewhere`. One process alone is not watched.

    Args:
        fabric: launched.
        timeout: seconds without a sign of life after which a process counts as ended.
    """

    def __init__(self, fabric: Fabric, timeout: float) -> None:
        self.fabric, self.timeout = fabric, timeout
        self.rank, self.world_size = fabric.global_rank, fabric.world_size
        self._own = _Beat()
        self._heard: list[_Heard] = []
        self._round_at = 0.0
        self._store_lost = False
        self._over, self._wake = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []

    def at(self, step: int, epoch: int, step_of_epoch: int) -> None:
        """Where this process is: steps finished in the run, its epoch and the steps finished in that, from 0."""
        if self.world_size > 1:
            self._say(step=step, place=f"epoch {epoch + 1}, step {step_of_epoch}")

    def _say(self, **news: Any) -> None:
        self._own = msgspec.structs.replace(self._own, **news)

    def __enter__(self) -> Watch:
        if self.world_size == 1:
            return self
        environment: Any = self.fabric.strategy.cluster_environment  # type: ignore[attr-defined]
        host, wait = environment.main_address, timedelta(seconds=self.timeout)
        if self.rank == 0:
            self._store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=wait)
        port = self.fabric.broadcast(self._store.port if self.rank == 0 else 0)
        if self.rank > 0:
            self._store = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=wait)
        self._store.set(self._key(self.rank), msgspec.json.encode(self._own).decode())
        self.fabric.barrier()
        now = self._round_at = time.monotonic()
        self._heard = [_Heard(_Beat(), now) for _ in range(self.world_size)]
        launcher: Any = self.fabric.strategy.launcher
        # Fabric would kill this process when one that it has started fails, before it can say which
        self._children = list(launcher.procs)
        launcher.procs.clear()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._tell_and_listen, self._judge)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.world_size == 1:
            return
        try:
            if error is None or isinstance(error, Interrupted):
                self._leave("done")  # all have agreed on it
            elif isinstance(error, Exception) and is_of_peer(error):
                self._raise_of_peer(error)
            else:
                self._raise_own(error)
        finally:
            self._over.set()
            self._wake.set()
            for thread in self._threads:
                thread.join(_BEAT)  # one that waits for a store that does not answer ends with the process

    # In threads

    @staticmethod
    def _key(rank: int) -> str:
        return f"beat/{rank}"

    def _tell_and_listen(self) -> None:
        keys = [self._key(rank) for rank in range(self.world_size)]
        number = 0
        while not self._over.is_set():
            number += 1
            own = msgspec.structs.replace(self._own, number=number)
            try:
                self._store.set(self._key(self.rank), msgspec.json.encode(own).decode())
                values = self._store.multi_get(keys)
            except Exception:  # RuntimeError and its kin, by torch's version
                self._store_lost = True
                return
            self._round_at = time.monotonic()
            for heard, value in zip(self._heard, values, strict=True):
                beat = msgspec.json.decode(value, type=_Beat)
                if beat.number != heard.beat.number:
                    heard.beat, heard.at = beat, self._round_at
            ends = self._own.state != "works"
            if ends and not self._still_there():
                self._say(knows=True)
            self._wake.wait(_LOOK if ends else max(_BEAT, self.world_size / _RANKS_A_SECOND))
            self._wake.clear()

    def _judge(self) -> None:
        before = time.monotonic()
        failed_at: float | None = None
        while not self._over.wait(_BEAT):
            now = time.monotonic()
            if now - before > self.timeout / 2:  # this process itself has stood still
                self._round_at = now
                for heard in self._heard:
                    heard.at = now
            before = now
            if self._own.state != "works":
                continue  # the main thread knows, and waits for the others
            silent = self._silent(self.timeout)
            if silent:
                self._end_process(silent)
            if failed_at is None and self._failure() is not None:
                failed_at = now
            # one that is told of what it has no part in may wait in the middle of a step
            if failed_at is not None and now - failed_at > _SILENCE and (failure := self._failure()):
                self._leave("leaves")
                os._exit(failure.code)

    def _end_process(self, silent: list[int]) -> None:
        """The main thread may wait for the silent ones where nothing else reaches it."""
        if self.rank == min(set(range(self.world_size)) - set(silent)):
            sys.stderr.write(f"ncmi: {self._missing(silent)}\n")
            sys.stderr.flush()
        os._exit(PeerLost.exit_code)

    # What is known

    def _silent(self, seconds: float) -> list[int]:
        """Ranks that have not been heard of for so long, and have not said that they leave."""
        now = time.monotonic()
        first = self._heard[0].beat.state
        if self.rank > 0 and (self._store_lost or now - self._round_at > seconds):
            return [0] if first == "works" else []
        return [
            rank
            for rank, heard in enumerate(self._heard)
            if rank != self.rank and heard.beat.state == "works" and now - heard.at > seconds
        ]

    def _failure(self) -> _Beat | None:
        return next((heard.beat for heard in self._heard if heard.beat.state == "fails"), None)

    def _still_there(self) -> list[int]:
        """Other ranks that have not said that they leave."""
        return [rank for rank, heard in enumerate(self._heard) if rank != self.rank and heard.beat.state == "works"]

    def _missing(self, ranks: list[int], what: str = "") -> str:
        rank = ranks[0]
        what = what or "has ended, or stands still"
        beat = max(self._heard[rank].beat, self._own, key=lambda beat: beat.step)  # no step is made without all
        return (
            f"rank {rank} {what} (after {beat.place}), and the other processes end: go on with the same command and "
            "--resume auto, or ncmi resume RUN"
        )

    # In the main thread, at its end

    @staticmethod
    def _until(condition: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(_LOOK)
        return True

    def _leave(self, state: str, **news: Any) -> None:
        """Tell the others, and wait until all have told the same; the first one keeps the store for them until then."""
        self._say(state=state, **news)
        self._wake.set()
        self._until(lambda: self._store_lost or self._all_know(), _LINGER)

    def _all_know(self) -> bool:
        """Whether nobody is there any more who waits to be told."""
        now = time.monotonic()
        others = [heard for rank, heard in enumerate(self._heard) if rank != self.rank]
        gone = [now - heard.at > _SILENCE for heard in others]
        if self.rank > 0:
            return self._heard[self.rank].beat.knows or all(gone)  # as it came back: the first one can hear it too
        return all(heard.beat.knows or lost for heard, lost in zip(others, gone, strict=True))

    def _raise_own(self, error: BaseException) -> None:
        text, code = in_one_line(error) if isinstance(error, Exception) else str(error), exit_code_of(error)
        self._leave("fails", text=text, code=code)
        if not isinstance(error, Exception):
            return  # a second signal, which is no fault
        alike = [heard.beat.state == "fails" and heard.beat.text == text for heard in self._heard]
        if any(alike[: self.rank]):
            raise ToldElsewhere(code) from error
        if not all(alike):
            raise RankError(self.rank, text) from error

    def _raise_of_peer(self, error: Exception) -> None:
        """A connection is lost: who has gone, and does it say why?"""
        with suppress(KeyboardInterrupt):  # a launcher that ends all, and this process ends as it is
            self._until(lambda: self._failure() is not None or bool(self._silent(_SILENCE)), _SILENCE * 2)
        failure, silent = self._failure(), self._silent(_SILENCE)
        self._leave("leaves")
        if failure is not None:
            raise ToldElsewhere(failure.code) from error
        what = ""
        if not silent:
            # all are there: the one that is behind does not go on
            others = [rank for rank in range(self.world_size) if rank != self.rank]
            silent, what = [min(others, key=lambda rank: self._heard[rank].beat.step)], "does not answer"
        if self.rank > min(set(range(self.world_size)) - set(silent)):
            raise ToldElsewhere(PeerLost.exit_code) from error
        raise PeerLost(self._missing(silent, what)) from error
