"""What the benchmarks share: rows of a table, and where they ran; times are taken by ``ncmi.training.timing``."""

from __future__ import annotations

import argparse
import statistics
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ncmi.files import write_json, write_text
from ncmi.training.environment import describe_environment, peak_megabytes

HEAD = "| what | bar | median (range) | | note |\n|---|---|---|---|---|"


@dataclass(frozen=True)
class Row:
    """One measured value.

    Attributes:
        what: was measured.
        value: the median.
        low, high: of all repetitions.
        unit: "×", "ms", "MB", …
        bar: largest value that passes, where there is one; with ``at_least`` the smallest.
        digits: decimals; −1 for powers of ten.
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
        """Whether the bar is met; None without one."""
        if self.bar is None:
            return None
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    @property
    def plain(self) -> dict[str, Any]:
        """As plain values, with whether it passed."""
        return {**asdict(self), "passed": self.passed}

    def line(self) -> str:
        """The row of a Markdown table."""
        form = ".1e" if self.digits < 0 else f".{self.digits}f"
        bar = "" if self.bar is None else f"{'≥' if self.at_least else '≤'} {self.bar:g} {self.unit}".rstrip()
        spread = "" if self.repeats == 1 else f" ({self.low:{form}}–{self.high:{form}})"
        mark = {None: "", True: "✓", False: "✗"}[self.passed]
        value = f"{self.value:{form}} {self.unit}".rstrip()
        return f"| {self.what} | {bar} | {value}{spread} | {mark} | {self.note} |"


class Table:
    """Rows that are printed as they come, and written with machine, versions, commit and date as JSON and Markdown.

    Args:
        path: the JSON file, or None; the Markdown table is written beside it.
        device: that was measured.
        about: more of the JSON file.
    """

    def __init__(self, path: Path | None, device: torch.device, **about: Any) -> None:
        self.path, self.device, self.about = path, device, about
        self.rows: list[Row] = []
        print(HEAD, flush=True)

    def add(self, row: Row) -> None:
        """Print a row, and write all rows so far."""
        self.rows.append(row)
        print(row.line(), flush=True)
        self.write()

    def write(self) -> None:
        """Write all rows, and what is said about them."""
        if self.path is not None:
            where = machine(self.device)
            write_json(self.path, {"machine": where, **self.about, "rows": [row.plain for row in self.rows]})
            text = [f"{machine_text(where)}\n", HEAD, *(one.line() for one in self.rows)]
            write_text(self.path.with_suffix(".md"), "\n".join(text) + "\n")


def command_line(doc: str | None) -> argparse.ArgumentParser:
    """A benchmark's command line; ``--help`` is what its file says of itself."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def measuring_line(doc: str | None, parts: Iterable[str], threads: list[int]) -> argparse.ArgumentParser:
    """The command line of a benchmark that measures several parts into a :class:`Table`."""
    command = command_line(doc)
    command.add_argument("--threads", type=int, nargs="+", default=threads)
    command.add_argument("--parts", choices=tuple(parts), nargs="+", default=list(parts))
    command.add_argument("--quick", action="store_true", help="a few seconds, to see that it runs; no measurement")
    command.add_argument("--out", type=Path, help="JSON file; a table in Markdown is written beside it")
    return command


def measure_parts(
    parts: Mapping[str, Callable[[argparse.Namespace], Iterable[Row]]],
    arguments: argparse.Namespace,
    device: torch.device,
    once: Sequence[str],
) -> None:
    """What the command line asks for at each number of threads, the parts ``once`` at the last of them alone."""
    table = Table(arguments.out, device, quick=arguments.quick)
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for part in arguments.parts:
            if part not in once or threads == arguments.threads[-1]:
                for row in parts[part](arguments):
                    table.add(replace(row, what=f"{row.what}, {threads_label(threads)}"))


def machine(device: torch.device) -> dict[str, Any]:
    """Date, versions, processor with its vector capability, device, threads and commit."""
    return {**describe_environment(device), "cpu_capability": torch.backends.cpu.get_cpu_capability()}


def machine_text(environment: Mapping[str, Any]) -> str:
    """A machine in a line.

    >>> machine_text({"date": "2026-11-28", "threads": 1, "commit": None})
    'date 2026-11-28, threads 1'
    """
    return ", ".join(f"{name} {value}" for name, value in environment.items() if isinstance(value, str | int | float))


def of_values(what: str, values: Sequence[float], **options: Any) -> Row:
    """The row of repeated values."""
    return Row(what, statistics.median(values), min(values), max(values), repeats=len(values), **options)


def of_value(what: str, value: float, **options: Any) -> Row:
    """The row of a single value."""
    return Row(what, value, value, value, **options)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, the first column left and the others right.

    >>> print(markdown(["a", "b"], [["x", "1"]]))
    | a | b |
    |---|---:|
    | x | 1 |
    """
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def ratios(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """``first/second``, repetition by repetition."""
    return [a / b for a, b in zip(first, second, strict=True)]


def in_own_process(call: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a call in a fresh process, whose peak of memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(call, *arguments).result()


class Peak(threading.Thread):
    """Largest mark of resident memory in MB, seen ten times a second: the trainer resets the mark at each epoch."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.megabytes = 0.0
        self.over = threading.Event()

    def look(self) -> None:
        self.megabytes = max(self.megabytes, peak_megabytes(torch.device("cpu")))

    def run(self) -> None:
        while not self.over.wait(0.1):
            self.look()


def threads_label(threads: int) -> str:
    """Such as ``"2 threads"``."""
    return f"{threads} thread{'s' * (threads > 1)}"


class LinearCrossEntropy(nn.Module):
    """What a loss on features is measured against: the usual last layer with cross-entropy."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, classes)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.head(features), labels)


def step_of(loss: nn.Module, features: Tensor, labels: Tensor) -> Callable[[], None]:
    """Forward and backward of a loss on features, gradients dropped afterwards."""

    def step() -> None:
        loss(features, labels).backward()
        features.grad = None
        loss.zero_grad(set_to_none=True)

    return step
