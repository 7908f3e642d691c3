"""Ctrl-C and SIGTERM ask a run to stop after the present step instead of killing it."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopRequest:
    """Context manager: inside it, the first SIGINT or SIGTERM sets ``requested``; a second one acts as usual.

    Outside the main thread Python takes no signal handlers; there, nothing is changed.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.requested = False
        self.signal_number = 0
        self._enabled = enabled and threading.current_thread() is threading.main_thread()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if self._enabled:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.signal_number = number
        signal.signal(number, self._previous[number])
