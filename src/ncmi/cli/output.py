"""What the command line prints."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

_NAMES = {"head": "trained head", "cc": "centroid comparison (CC)", "lp": "linear probe (LP)", "knn": "20 neighbours"}


def console() -> Console:
    """Where to print: as wide as the terminal, 100 columns elsewhere."""
    terminal = Console(highlight=False)
    # a file or a pipe has no width: keep lines whole
    return terminal if terminal.is_terminal else Console(width=100, highlight=False)


def say(text: str) -> None:
    """One line; paths are not wrapped."""
    console().print(text, soft_wrap=True, markup=False)


def progress_bar(where: Console) -> Progress:
    """A bar with description, count and time; nothing where there is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=where, disable=not where.is_terminal)


class Counter:
    """Progress of the runs of a comparison: a bar on a terminal, a line a run elsewhere, which ``line`` makes."""

    def __init__(self, title: str, total: int, line: Callable[[dict[str, Any]], str] | None = None) -> None:
        self._line = line or _accuracies
        self._console = console()
        self._total = total
        self._done = 0
        self._bar = progress_bar(self._console)
        self._task = self._bar.add_task(title, total=total)
        if not self._console.is_terminal:
            say(title)

    def __enter__(self) -> Counter:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, name: str, results: dict[str, Any]) -> None:
        """One run has finished."""
        self._done += 1
        self._bar.advance(self._task)
        if not self._console.is_terminal:
            say(f"{self._done}/{self._total}  {name}: {self._line(results)}, {results['total_seconds']:.1f} s")


def _accuracies(results: dict[str, Any]) -> str:
    return ", ".join(
        f"{readout} {100 * results['readouts'][readout]['test_accuracy']:.2f} %"
        for readout in results["primary_readouts"]
    )


class EpochLog:
    """A line for each epoch."""

    def __init__(self) -> None:
        self._started = False

    def __enter__(self) -> EpochLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def show(self, row: dict[str, Any]) -> None:
        """Print one epoch's metrics."""
        if not self._started:
            say(f"{'epoch':>5} {'loss':>9} {'val. acc.':>9} {'CMI':>10} {'Γ':>10} {'NCMI':>9} {'s':>6}")
            self._started = True
        judged = f"{'–':>9} {'–':>10} {'–':>10} {'–':>9}"
        if row["validation_accuracy"] is not None:
            judged = (
                f"{100 * row['validation_accuracy']:8.2f}% {row['validation_cmi']:10.3e} "
                f"{row['validation_separation']:10.3e} {row['validation_ncmi']:9.4f}"
            )
        say(f"{row['epoch']:5d} {row['train_loss']:9.4f} {judged} {row['seconds']:6.2f}")


_COLUMNS = {
    "validation_accuracy": "validation",
    "test_accuracy": "test",
    "test_macro_f1": "macro F1",
    "test_nll": "NLL",
    "test_calibration_error": "ECE",
    "temperature_scale": "τ",
    "test_calibrated_nll": "NLL, /τ",
    "test_calibrated_error": "ECE, /τ",
}
_FOREIGN = {
    "distance": "distance to the nearest centroid",
    "distance_ratio": "nearest / mean of the other distances",
    "max_probability": "1 − highest probability ({readout})",
    "feature_norm": "feature norm, shorter is more foreign",
}


def print_readouts(results: dict[str, Any]) -> None:
    """Accuracies of all read-outs, how far their probabilities can be trusted, and CMI, Γ, NCMI."""
    title = f"{results['objective']} on {results['data']}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("read-out", no_wrap=True)
    shown = [name for name in _COLUMNS if name in next(iter(results["readouts"].values()))]
    for name in shown:
        table.add_column(_COLUMNS[name], justify="right", no_wrap=True)
    for readout, found in results["readouts"].items():
        table.add_row(_NAMES[readout], *(_cell(name, found[name]) for name in shown))
    console().print(table)
    if "temperature_scale" in shown:
        say("ECE: calibration error. /τ: log-probabilities divided by τ, which is fitted to the validation part")
    print_information(results["information"])


def _cell(name: str, value: float | None) -> str:
    if value is None or value == float("inf"):  # a file has null for it
        return "∞"
    if "accuracy" in name:
        return f"{100 * value:.2f} %"
    return f"{value:.3g}" if name == "temperature_scale" else f"{value:.4f}"


def print_foreign(found: dict[str, dict[str, Any]]) -> None:
    """How well each score tells foreign data from the run's test part."""
    for name, one in found.items():
        title = f"{name} ({one['num_out']}) told from the test part of {one['in_distribution']} ({one['num_in']})"
        table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD)
        for column in ("score", "AUROC", "FPR95"):
            table.add_column(column, justify="left" if column == "score" else "right", no_wrap=True)
        for score, told in one["scores"].items():
            label = _FOREIGN[score].format(readout=one["readout"])
            table.add_row(label, f"{100 * told['auroc']:.2f} %", f"{100 * told['fpr95']:.2f} %")
        console().print(table)
    say("FPR95: share of the foreign samples that pass where 95 % of the test part do. AUROC: 50 % is chance")


def print_information(measured: dict[str, Any]) -> None:
    """CMI, Γ and NCMI."""

    def told(name: str) -> str:
        # not defined where all samples are of one class
        return "–" if measured[name] is None else f"{measured[name]:.6g}"

    lines = [f"CMI {told('cmi')} nats"]
    for name, meaning in (("", "centroid KL"), ("cross_entropy_", "cross entropy")):
        if f"{name}separation" in measured:
            lines.append(f"Γ ({meaning}) {told(f'{name}separation')} nats   NCMI {told(f'{name}ncmi')}")
    if "per_class_cmi" in measured:
        values = " ".join("–" if value is None else f"{value:.4g}" for value in measured["per_class_cmi"])
        lines.append(f"CMI by class: {values}")
    for line in lines:
        say(line)


def print_findings(findings: list[tuple[bool | None, str, str]]) -> bool:
    """Print what the doctor found; whether all that is needed works."""
    marks = {True: "✓", False: "✗", None: "–"}
    for works, name, detail in findings:
        say(f"{marks[works]} {name:<24} {detail}")
    return all(works is not False for works, _, _ in findings)
