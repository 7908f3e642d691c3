"""What ``ncmi slides`` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ncmi.cli.output import console, print_information, progress_bar, say
from ncmi.errors import Interrupted

if TYPE_CHECKING:
    from ncmi.data import Split
    from ncmi.slides.cohort import Cohort
    from ncmi.slides.embedding import EmbedResult
    from ncmi.slides.tiling import TileResult

_NAMES = {"head": "trained head", "cc": "CC", "lp": "LP"}
_SHOWN = 10


class SlideCounter:
    """Progress over slides: a bar on a terminal, a line a slide elsewhere."""

    def __init__(self, title: str) -> None:
        self.count = 0
        self._console = console()
        self._bar = progress_bar(self._console)
        self._slides = self._bar.add_task(title, total=None)
        self._patches = self._bar.add_task("patches", total=None, visible=False)

    def __enter__(self) -> SlideCounter:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if kind is KeyboardInterrupt:
            raise Interrupted("stopped; the same command goes on") from None

    def done(self, result: TileResult | EmbedResult) -> None:
        """One slide is done, or left out."""
        self.advance(result.slide)
        if not self._console.is_terminal:
            say(_slide_words(result))

    def advance(self, slide: str) -> None:
        """One slide is done."""
        self.count += 1
        self._bar.advance(self._slides)

    def patches(self, slide: str, done: int, total: int) -> None:
        """So many of a slide's patches are embedded."""
        self._bar.update(self._patches, visible=True, description=slide, completed=done, total=total)


def _slide_words(result: TileResult | EmbedResult) -> str:
    words = f"{result.slide}: {result.status}, {result.patches} patches"
    return f"{words} ({result.reason})" if result.reason else words


def print_left_out(results: Sequence[TileResult | EmbedResult], summary: Path) -> None:
    """How many slides came out how, and which were left out."""
    counts = Counter(result.status for result in results)
    patches = sum(result.patches for result in results)
    told = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    say(f"{len(results)} slides: {told}; {patches} patches. Summary: {summary}")
    _list("left out", [(result.slide, result.reason) for result in results if result.reason])


def _list(title: str, faults: Sequence[tuple[str, str]]) -> None:
    for slide, reason in faults[:_SHOWN]:
        say(f"{title}: {slide}: {reason}")
    if len(faults) > _SHOWN:
        say(f"… and {len(faults) - _SHOWN} more")


def print_cohort(cohort: Cohort, split: Split) -> None:
    """Slides, patients and instances of each part by class, and what is left out."""
    # names are the user's: as text, or rich would read [b] as markup
    table = Table(title=f"{len(cohort.slides)} slides, features of width {cohort.feature_dim}", box=SIMPLE_HEAD)
    for column in ("part", "slides", "patients", "instances", *cohort.class_names):
        table.add_column(Text(column), justify="left" if column == "part" else "right", no_wrap=True)
    for name in ("train", "validation", "test"):
        indices = getattr(split, name).tolist()
        labels = Counter(cohort.slides[index].label for index in indices)
        patients = {cohort.slides[index].patient for index in indices}
        instances = sum(cohort.instances[index] for index in indices)
        by_class = (str(labels[index]) for index in range(len(cohort.class_names)))
        table.add_row(name, str(len(indices)), str(len(patients)), f"{instances:,}", *by_class)
    console().print(table)
    for note in cohort.notes:
        say(note)
    _list("left out", (*cohort.skipped, *getattr(split, "left_out", ())))
    if cohort.unused:
        say(f"{len(cohort.unused)} slides have features but no row in the table, such as {cohort.unused[0]}")


class SlideEpochLog:
    """A line for each epoch."""

    def __init__(self) -> None:
        self._started = False

    def show(self, row: dict[str, Any]) -> None:
        """Print one epoch's metrics."""
        if not self._started:
            say(f"{'epoch':>5} {'loss':>9} {'penalty':>9} {'val. loss':>9} {'val. F1':>8} {'val. AUC':>8} {'s':>7}")
            self._started = True
        judged = f"{'–':>9} {'–':>8} {'–':>8}"
        if row["validation_auc"] is not None:
            judged = f"{row['validation_loss']:9.4f} {row['validation_macro_f1']:8.4f} {row['validation_auc']:8.4f}"
        say(f"{row['epoch']:5d} {row['train_loss']:9.4f} {row['train_penalty']:9.4f} {judged} {row['seconds']:7.2f}")


def print_slide_results(results: dict[str, Any]) -> None:
    """Test metrics of all read-outs with their intervals, and CMI, Γ, NCMI."""
    first = next(iter(results["readouts"].values()))["test"]
    title = f"{results['network']}, {results['objective']} on {results['data']}: test part"
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("read-out", no_wrap=True)
    for column in ("macro F1", "AUC", "balanced acc.", "accuracy"):
        table.add_column(column, justify="right", no_wrap=True)
    for readout, parts in results["readouts"].items():
        found = (parts["test"][name] for name in ("macro_f1", "auc", "balanced_accuracy", "accuracy"))
        table.add_row(_NAMES[readout], *(_with_interval(one) for one in found))
    console().print(table)
    say(
        f"95 % intervals by bootstrap over {first['patients']} patients, {first['slides']} slides. "
        f"Epoch {results['best_epoch']} of {results['epochs']}, selection: {results['selection']}"
    )
    _list("left out", [(one["slide"], one["reason"]) for one in results["skipped"]])
    print_information(results["information"])


def _with_interval(found: dict[str, float | None]) -> str:
    value, low, high = (found[name] for name in ("value", "low", "high"))
    if value is None or value != value:
        return "–"
    if low is None or high is None or low != low:
        return f"{value:.3f}"
    return f"{value:.3f} ({low:.3f}–{high:.3f})"


def slide_line(results: dict[str, Any]) -> str:
    """A finished run in a line: macro F1 and AUC of the read-outs that it is judged by."""

    def told(readout: str, name: str) -> str:
        value = results["readouts"][readout]["test"][name]["value"]
        return "–" if value is None else f"{value:.3f}"

    return ", ".join(
        f"{readout} F1 {told(readout, 'macro_f1')} AUC {told(readout, 'auc')}"
        for readout in results["primary_readouts"]
    )
