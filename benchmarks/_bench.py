"""What the benchmarks share: timing in turns, rows of a table, and where they ran."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ncmi.files import finite
from ncmi.training.environment import describe_environment


@dataclass(frozen=True)
class Row:
    """One measured value.

    Attributes:
        what: was measured.
        value: the median.
        low, high: of all repetitions.
        unit: "×", "ms", "MB", …
        bar: largest value that passes, where there is one; with ``at_least`` the smallest.
        repeats: number of repetitions behind the median.
    """

    what: str
    value: float
    low: float
    high: float
    unit: str = "×"
    bar: float | None = None
    at_least: bool = False
    digits: int = 2
    repeats: int = 1
    note: str = ""

    @property
    def passed(self) -> bool | None:
        if self.bar is None:
            return None
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def line(self) -> str:
        """The row of a Markdown table."""
        bar = "" if self.bar is None else f"{'≥' if self.at_least else '≤'} {self.bar:g} {self.unit}"
        spread = "" if self.repeats == 1 else f" ({self.low:.{self.digits}f}–{self.high:.{self.digits}f})"
        mark = {None: "", True: "✓", False: "✗"}[self.passed]
        return f"| {self.what} | {bar} | {self.value:.{self.digits}f} {self.unit}{spread} | {mark} | {self.note} |"


HEAD = "| what | bar | median (range) | | note |\n|---|---|---|---|---|"


def of_values(what: str, values: Sequence[float], **options: Any) -> Row:
    """The row of repeated values."""
    return Row(what, statistics.median(values), min(values), max(values), repeats=len(values), **options)


def ratios(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """``first/second``, repetition by repetition."""
    return [a / b for a, b in zip(first, second, strict=True)]


def seconds_of(call: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Wall-clock and processor seconds of a call, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    wall, processor = time.perf_counter(), time.process_time()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - wall, time.process_time() - processor


def in_turns(
    calls: Mapping[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, list[tuple[float, float]]]:
    """Seconds (wall-clock, processor) of each call in each repetition; the first one, which warms up, is left out.

    Calls take turns, each time beginning with another one, so that a machine that slows down slows all of them.
    """
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    names = list(calls)
    for repeat in range(repeats + 1):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            spent = seconds_of(calls[name], device)
            if repeat:
                found[name].append(spent)
    return found


def wall(times: Sequence[tuple[float, float]]) -> list[float]:
    return [one[0] for one in times]


def processor(times: Sequence[tuple[float, float]]) -> list[float]:
    return [one[1] for one in times]


def write(path: Path | None, rows: Sequence[Row], device: torch.device, **more: Any) -> None:
    """Write rows, machine, versions, commit and date as JSON."""
    if path is None:
        return
    listed = [{**asdict(row), "passed": row.passed} for row in rows]
    content = {"machine": describe_environment(device), **more, "rows": listed}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(finite(content), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
