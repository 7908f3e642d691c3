"""Signals that ask a process to stop, and the end of a process whose parent has gone. Imports no torch."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from ncmi.errors import Terminated

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
STOP_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""Ctrl-C, an end that is asked for, a terminal that is closed, and a scheduler's warning that time is running out."""
_LOOK = 0.5  # seconds between two looks at the parent
_GRACE = 60.0  # seconds from the parent's end in which a step must have been finished


class StopRequest:
    """Context manager: inside it, the first of each of :data:`STOP_SIGNALS` sets ``requested``; a second acts as usual.

    A signal that is ignored stays so, as ``nohup`` and shells in the background have it. Outside the main thread Python
    takes no signal handlers; there, nothing is changed.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.requested = False
        self.signal_number: int = signal.SIGINT
        self._enabled = enabled and threading.current_thread() is threading.main_thread()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if self._enabled:
            for number in STOP_SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.signal_number = number
        signal.signal(number, self._previous[number])


def raise_terminated(number: int, frame: FrameType | None) -> None:
    """A signal handler that ends a process as Ctrl-C does: what it has open is closed, and half files are removed."""
    raise Terminated(number)


def end_with_parent(parent: int) -> None:
    """Stop this process when its parent has ended, even by SIGKILL: by SIGTERM, and if that does not help, at once.

    Args:
        parent: the parent's process number, as the parent itself has told it, or as it was at the start.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
