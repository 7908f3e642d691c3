"""What the command line prints."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ncmi.errors import Interrupted, Terminated, printable
from ncmi.readouts.metrics import FINE, METRICS, PERCENT, SHARE, heading_of, in_words, scores_in_order, unit_of
from ncmi.readouts.scores import Estimate, Scores, unequal_in_words
from ncmi.recipes.names import (
    NOT_THE_TEST_PART,
    READOUTS,
    READOUTS_IN_WORDS,
    network_label,
    objective_label,
    samples_in_words,
)
from ncmi.terminal import FigureColumn, Styled, plain, print_figures
from ncmi.training import schema

if TYPE_CHECKING:
    from ncmi.data.bags.cohort import Cohort
    from ncmi.data.splits import Split
    from ncmi.slides.work import SlideResult
    from ncmi.training.cost import CostRecord, Interval
    from ncmi.training.export import Exported
    from ncmi.training.prediction import Predicted
    from ncmi.training.search import TrialRecord

_SHOWN = 10
_MOST_CLASSES, _MOST_PAIRS = 20, 3
QUIET = False
"""Whether only the last lines of a verb are printed (``--quiet``)."""


class _Patient(Console):
    """A console whose reader may go (``| head``) without an end to the work that is told of."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def console() -> Console:
    """Where to print: as wide as the terminal, 100 columns elsewhere."""
    terminal = _Patient(highlight=False)
    # a file or a pipe has no width: keep lines whole
    return terminal if terminal.is_terminal else _Patient(width=100, highlight=False)


def say(text: str, *, to_errors: bool = False) -> None:
    """One line; paths are not wrapped, and control characters in names are shown by their codes."""
    where = _Patient(stderr=True, highlight=False) if to_errors else console()
    where.print(printable(text), soft_wrap=True, markup=False)


def say_on_the_way(text: str) -> None:
    """A line that is no result: not printed with ``--quiet``."""
    if not QUIET:
        say(text)


def _print_table(title: str, first: str, columns: Iterable[str], rows: Iterable[Sequence[str]], note: str = "") -> None:
    """A table whose first column is a name and whose others are figures."""
    lines = list(rows)
    figures = [FigureColumn(name, [Styled(line[at]) for line in lines]) for at, name in enumerate(columns, start=1)]
    print_figures(console(), title, first, [Styled(line[0]) for line in lines], figures, note=note)


class _Bar:
    """A bar on a terminal; elsewhere nothing, and whoever uses it prints lines."""

    def __init__(self, title: str, total: int | None) -> None:
        self._console = console()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=QUIET or not self._console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=total)
        self.count = 0

    def __enter__(self) -> Any:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        self._bar.stop()

    def _advance(self, line: str) -> None:
        self.count += 1
        self._bar.advance(self._task)
        if line and not self._console.is_terminal:
            say_on_the_way(line)


class RunCounter(_Bar):
    """Progress of the runs of a comparison."""

    def __init__(self, title: str, total: int) -> None:
        super().__init__(title, total)
        self._total = total
        if not self._console.is_terminal:
            say_on_the_way(title)

    def advance(self, name: str, results: schema.Results) -> None:
        """One run has finished."""
        scores = ", ".join(
            f"{READOUTS[readout]} {_in_brief(results.kind, results.readouts[readout].test)}"
            for readout in results.readouts
            if readout != "knn"
        )
        self._advance(f"{self.count + 1}/{self._total}  {name}: {scores}, {results.total_seconds:.1f} s")


def _in_brief(kind: str, scores: Scores) -> str:
    if kind == "bags":
        return f"F1 {_number(scores.macro_f1.value, '.3f')} AUC {_number(scores.macro_auc.value, '.3f')}"
    if scores.unequal:
        return f"F1 {_number(scores.macro_f1.value, '.3f')} acc. {_percent(scores.accuracy.value)}"
    return _percent(scores.accuracy.value)


def _offer_again(kind: type[BaseException] | None, details: Sequence[object]) -> None:
    """Where work was stopped, say how it goes on."""
    if kind is not None and issubclass(kind, KeyboardInterrupt):
        number = details[0].signal_number if isinstance(details[0], Terminated) else signal.SIGINT
        raise Interrupted("stopped; the same command goes on", number) from None


class SlideCounter(_Bar):
    """Progress over slides."""

    def __init__(self, title: str) -> None:
        super().__init__(title, None)
        self._patches = self._bar.add_task("patches", total=None, visible=False)

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        super().__exit__(kind, *details)
        _offer_again(kind, details)

    def done(self, result: SlideResult) -> None:
        """One slide is done, or left out."""
        words = f"{result.slide}: {result.status}, {result.patches} patches"
        self._advance(f"{words} ({result.reason})" if result.reason else words)

    def advance(self, slide: str) -> None:
        """One slide is done."""
        self._advance("")

    def patches(self, slide: str, done: int, total: int) -> None:
        """So many of a slide's patches are embedded."""
        self._bar.update(self._patches, visible=True, description=slide, completed=done, total=total)


class ImageCounter(_Bar):
    """Progress over images that become shards."""

    def __init__(self) -> None:
        super().__init__("images", None)

    def show(self, done: int, total: int) -> None:
        """So many are done."""
        self._bar.update(self._task, completed=done, total=total)

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        super().__exit__(kind, *details)
        _offer_again(kind, details)


class EpochLog:
    """A line for each epoch; of bags, with what they are selected by."""

    def __init__(self) -> None:
        self._begun = False

    def show(self, row: dict[str, Any]) -> None:
        """Print one epoch's metrics: all, or on a terminal as many as have room in a line, the foremost of them."""
        bags = row["train_penalty"] is not None
        columns = [("loss", "train_loss", ".4f", 0), *([("penalty", "train_penalty", ".4f", 6)] if bags else [])]
        columns += [("val. loss", "validation_loss", ".4f", 4), ("val. acc.", "validation_accuracy", ".2%", 2)]
        if bags:
            columns += [("val. F1", "validation_macro_f1", ".4f", 1), ("val. AUC", "validation_macro_auc", ".4f", 3)]
        columns += [("CMI", "validation_cmi", ".3e", 7), ("Γ", "validation_separation", ".3e", 8)]
        columns += [("NCMI", "validation_ncmi", ".4f", 5)]
        where = console()
        # the epoch and its seconds take 13 cells, each of these 10
        room = max(1, (where.width - 13) // 10) if where.is_terminal else len(columns)
        columns = [column for column in columns if sum(other[3] < column[3] for other in columns) < room]
        if not self._begun:
            say_on_the_way(f"{'epoch':>5} " + " ".join(f"{heading:>9}" for heading, *_ in columns) + f" {'s':>6}")
            self._begun = True
        cells = (f"{_number(row[name], form):>9}" for _, name, form, _ in columns)
        say_on_the_way(f"{row['epoch']:5d} {' '.join(cells)} {row['seconds']:6.2f}")


def print_trial(trial: TrialRecord, before: str = "") -> None:
    """A trial of a search: its options, and what came of them on the validation part."""
    params = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in trial.params.items()
    )
    came = trial.state.lower() if trial.value is None else f"{trial.value:.4f}"
    line = f"{before}trial {trial.number}: {came}  ({params})  {trial.run}"
    if before:
        say(line)
    else:
        say_on_the_way(line)


def print_costs(record: CostRecord, published: Mapping[str, tuple[float, float] | None]) -> None:
    """What losses cost on a network; where the paper printed a ratio of time, and one of memory, with them."""
    shares = ("head + loss", "of a step", "step", "× cross-entropy", "× by parts", "peak", "× memory", "published")
    lines = []
    for cost in record.objectives:
        by_parts = cost.step_ratio_by_parts
        of_paper = published.get(cost.name)
        lines.append(
            (
                cost.label,
                f"{cost.head_microseconds.median:,.0f} µs",
                f"{100 * cost.head_share.median:.2f} %",
                f"{cost.step_milliseconds.median:,.1f} ms",
                _ratio(cost.step_ratio),
                "" if by_parts is None else _ratio(by_parts, 4),
                "" if cost.peak_megabytes is None else f"{cost.peak_megabytes:,.0f} MB",
                "" if cost.peak_ratio is None else f"{cost.peak_ratio:.3f}",
                "" if of_paper is None else f"{of_paper[0]:.3f}, {of_paper[1]:.3f}",
            )
        )
    size = f"{record.image_size} pixels, batch {record.batch}, {record.classes:,} classes, D {record.feature_dim}"
    title = f"{network_label(record.network)}, {size}, {record.precision} on {record.machine.get('device')}"
    clock = "processor time of one thread" if record.clock == "processor" else "time on the clock"
    note = (
        f"Medians of {record.rounds} rounds of {clock}, all in turns, with 95 % intervals; by parts: 1 + (head and "
        "loss − cross-entropy's) over cross-entropy's step. Published: ratios of time and memory (arXiv 2601.02543)."
    )
    _print_table(title, "loss", shares, lines, note)


def _ratio(interval: Interval, digits: int = 3) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.median:.{digits}f}"
    return f"{interval.median:.{digits}f} ({interval.low:.{digits}f}–{interval.high:.{digits}f})"


def print_results(results: schema.Results) -> None:
    """How a finished run does on its test part."""
    objective, network = objective_label(results.objective), network_label(results.network)
    part = {"train": "training"}.get(results.judged, results.judged)
    title = f"{objective}, {network}, on {results.data}: {part} part"
    # what is judged stands as "test", whatever part it is
    counts = {results.judged if name == "test" else name: sizes for name, sizes in results.class_counts.items()}
    _print_readouts(title, results.kind, results.readouts, results.primary_readouts[0], counts)
    if results.selection == "best":
        say(f"epoch {results.best_epoch} of {results.epochs}, the best on the validation part")
    if warning := NOT_THE_TEST_PART[results.judged]:
        say(warning)
    print_skipped(results.skipped)
    print_information(results.information)


def print_evaluation(evaluation: schema.Evaluation) -> None:
    """How a run does on its own test part or on other data, and how it tells out-of-distribution data apart."""
    title = f"{objective_label(evaluation.objective)} on {evaluation.data}"
    _print_readouts(title, evaluation.kind, evaluation.readouts, evaluation.primary_readouts[0], {})
    print_information(evaluation.information)
    for record in evaluation.ood.values():
        _print_ood(record)
    for note in evaluation.notes:
        say(note)
    if evaluation.ood:
        say("FPR95: share of these samples that pass where 95 % of the test part do. AUROC: 50 % is chance")


def _print_readouts(
    title: str, kind: str, readouts: dict[str, schema.Readout], primary: str, counts: dict[str, list[int]]
) -> None:
    """Scores of all read-outs and their intervals; then, of the first one, each class and what it is taken for."""
    first = readouts[primary].test
    unequal = first.unequal if kind != "bags" else None
    order = scores_in_order(unequal=unequal is not None)
    columns: list[tuple[str, str, list[str]]] = []
    if readouts[primary].validation:
        lead = order[0]
        texts = [_score(kind, readout.validation, lead) for readout in readouts.values()]
        columns.append((f"val. {in_words(lead)}{unit_of(kind, lead).sign}", "decisions", texts))
    for name in order:
        group = "trust" if METRICS[name].less_is_better else "decisions"
        texts = [_score(kind, readout.test, name) for readout in readouts.values()]
        columns.append((heading_of(kind, name, short=True), group, texts))
    calibrations = [readout.calibration for readout in readouts.values() if readout.calibration]
    if calibrations:
        columns.append(("τ", "trust", [f"{known.temperature:.3g}" for known in calibrations]))
        columns.append(("NLL, /τ", "trust", [FINE.fixed(known.nll) for known in calibrations]))
        columns.append(("ECE %, /τ", "trust", [PERCENT.fixed(known.calibration_error) for known in calibrations]))
    figures = [FigureColumn(heading, [Styled(text) for text in texts], group) for heading, group, texts in columns]
    print_figures(console(), title, "read-out", [Styled(READOUTS_IN_WORDS[name]) for name in readouts], figures)
    if first.resamples:
        _print_intervals(kind, readouts)
    meaning = (
        "; /τ: log-probabilities divided by τ, fitted to the validation part" if readouts[primary].calibration else ""
    )
    say(f"NLL: log-loss; ECE: calibration error{meaning}")
    for note in (unequal_in_words(unequal), *schema.fits_in_words([readout.fit for readout in readouts.values()])):
        if note:
            say(note)
    for note in first.notes:
        say(note)
    _print_classes(first, READOUTS_IN_WORDS[primary], counts)
    for name, readout in readouts.items():
        if (scores := readout.patients) is not None:
            values = (scores.macro_f1, scores.macro_auc, scores.accuracy)
            numbers = ", ".join(
                f"{METRICS[metric].short} {_number(value.value, '.3f')} ({_interval(value)})"
                for metric, value in zip(("macro_f1", "macro_auc", "accuracy"), values, strict=True)
            )
            say(f"one decision a patient, {READOUTS_IN_WORDS[name]}: {scores.samples} patients, {numbers}")


def _score(kind: str, scores: Scores | None, name: str) -> str:
    value = getattr(scores, name, None)
    return unit_of(kind, name).fixed(value.value if isinstance(value, Estimate) else value)


def _print_classes(scores: Scores, readout: str, counts: dict[str, list[int]]) -> None:
    """Precision, recall, F1 and sizes of the classes, of many the worst; and which are most often confused."""
    numbers = sorted(range(len(scores.classes)), key=lambda number: _last(scores.classes[number].f1))
    title = f"by class, {readout}"
    if len(numbers) > _MOST_CLASSES:
        title = f"the {_MOST_CLASSES} of {len(numbers)} classes with the lowest F1, {readout}"
    parts = list(counts or {"test": [each.support for each in scores.classes]})
    rows = []
    for number in sorted(numbers[:_MOST_CLASSES]):
        each = scores.classes[number]
        shares = map(SHARE.fixed, (each.precision, each.recall.value, each.f1))
        sizes = (counts[part][number] if counts else each.support for part in parts)
        rows.append([each.name, *shares, *map(str, sizes)])
    _print_table(title, "class", ("precision", "recall", "F1", *parts), rows)
    for pair in scores.confusions[:_MOST_PAIRS]:
        words = f"{plain(pair.label)} taken for {plain(pair.prediction)}"
        say(f"{words}: {pair.count} of its samples ({100 * pair.share:.1f} %)")


def _last(share: float | None) -> float:
    """A share to sort by; one that is not defined comes last."""
    return math.inf if share is None else share


def _print_intervals(kind: str, readouts: dict[str, schema.Readout]) -> None:
    scores = next(iter(readouts.values())).test
    over = f"{scores.samples} {'slides' if kind == 'bags' else 'samples'}"
    if scores.groups:
        over = f"{scores.groups} {samples_in_words(kind, grouped=True)}, {over}"
    rows = []
    for name, readout in readouts.items():
        test = readout.test
        estimates = (test.accuracy, test.balanced_accuracy, test.macro_f1, test.macro_auc)
        rows.append([READOUTS_IN_WORDS[name], *map(_interval, estimates)])
    headings = [METRICS[name].short for name in ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc")]
    _print_table(f"{scores.confidence:.0%} intervals by bootstrap over {over}", "read-out", headings, rows)


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "–"
    return f"{estimate.low:.3f}–{estimate.high:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"


def _print_ood(record: schema.OutOfDistribution) -> None:
    meaning = {
        "distance": "distance to the nearest centroid",
        "distance_ratio": "nearest / mean of the other distances",
        "max_probability": f"1 − highest probability ({READOUTS[record.readout]})",
        "feature_norm": "feature norm, the shorter the farther",
    }
    title = f"{record.data} ({record.num_outside}) told from the test part of {record.inside} ({record.num_inside})"
    scores = record.scores.items()
    rows = ((meaning[name], _percent(score.auroc), _percent(score.fpr95)) for name, score in scores)
    _print_table(title, "score", ("AUROC", "FPR95"), rows)


def print_information(information: schema.InformationRecord) -> None:
    """CMI, Γ and NCMI; what is not defined (all samples of one class) is a dash."""
    say(f"CMI {_number(information.cmi, '.6g')} nats")
    for words, separation, ncmi in (
        ("centroid KL", information.separation, information.ncmi),
        ("cross entropy", information.cross_entropy_separation, information.cross_entropy_ncmi),
    ):
        say(f"Γ ({words}) {_number(separation, '.6g')} nats   NCMI {_number(ncmi, '.6g')}")


def print_measured(measured: schema.Measured) -> None:
    """The measures of saved outputs, over all classes and by class."""
    print_information(measured.information)
    say(f"CMI by class: {' '.join(_number(value, '.4g') for value in measured.class_cmi)}")


def print_skipped(skipped: Sequence[schema.Skipped]) -> None:
    """What was left out, and why; the first of it."""
    print_faults([(item.name, item.reason) for item in skipped])


def print_predicted(predicted: Predicted, out: Path, *, marked: bool) -> None:
    """What came of a prediction; on standard error where the predictions themselves are on standard output."""
    to_errors = str(out) == "-"
    lines = [*predicted.notes, *(f"not predicted: {name}: {reason}" for name, reason in predicted.skipped[:_SHOWN])]
    count = len(predicted.skipped)
    if count > _SHOWN:
        lines.append(f"… and {count - _SHOWN} more")
    left = f"; {count} could not be predicted and are {'marked' if marked else 'left out'}" if count else ""
    lines.append(f"{predicted.rows} predictions: {'standard output' if to_errors else out}{left}")
    if predicted.patients is not None:
        lines.append(f"one decision a patient, the mean of its slides' probabilities: {predicted.patients}")
    for line in lines:
        say(line, to_errors=to_errors)


def print_exported(exported: Exported) -> None:
    """What goes into an exported file and what comes out."""
    inputs = exported.metadata["inputs"]
    for each in inputs[:_SHOWN]:
        shape = ", ".join(map(str, each["shape"]))
        say(f"input {each['name']}: {each['type']} [{shape}], {each['meaning']}")
    if len(inputs) > _SHOWN:
        say(f"… and {len(inputs) - _SHOWN} more")
    readout, classes = exported.metadata["readout"], exported.metadata["classes"]
    shown = ", ".join(classes[:_SHOWN]) + (" …" if len(classes) > _SHOWN else "")
    say(f"probabilities by {READOUTS_IN_WORDS[readout]} of {len(classes)} classes: {shown}")
    say(f"written: {exported.path} (tried: probabilities within {exported.error:.1g} of the run's)")


def print_left_out(results: Sequence[SlideResult], summary: Path) -> None:
    """How many slides came out how, and which were left out.

    Raises:
        ValueError: where none has a patch: what would be done next has nothing to work on.
    """
    counts = Counter(result.status for result in results)
    patches = sum(result.patches for result in results)
    by_status = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    say(f"{len(results)} slides: {by_status}; {patches} patches. Summary: {summary}")
    print_faults([(result.slide, result.reason) for result in results if result.reason])
    if notes := [result for result in results if result.note]:
        say(f"{notes[0].slide}: {notes[0].note}" + (f"; {len(notes) - 1} more like it" if len(notes) > 1 else ""))
    if not patches:
        raise ValueError(
            f"none of the slides has a patch: mend what is said above, and give the command again ({summary})"
        )


def print_faults(faults: Sequence[tuple[str, str]]) -> None:
    """What was left out, by name and reason; the first of it."""
    for name, reason in faults[:_SHOWN]:
        say(f"left out: {name}: {reason}")
    if len(faults) > _SHOWN:
        say(f"… and {len(faults) - _SHOWN} more")


def print_cohort(cohort: Cohort, split: Split) -> None:
    """Slides, patients and instances of each part by class, and what is left out."""
    rows = []
    for name in ("train", "validation", "test"):
        indices = getattr(split, name).tolist()
        labels = Counter(cohort.slides[index].label for index in indices)
        patients = {cohort.slides[index].patient for index in indices}
        instances = sum(cohort.instances[index] for index in indices)
        by_class = (str(labels[index]) for index in range(len(cohort.class_names)))
        slides = sum(len(cohort.slides[index].names) for index in indices)
        rows.append((name, str(slides), str(len(patients)), f"{instances:,}", *by_class))
    title = f"{sum(len(slide.names) for slide in cohort.slides)} slides, features of width {cohort.feature_dim}"
    _print_table(title, "part", ("slides", "patients", "instances", *cohort.class_names), rows)
    for note in cohort.notes:
        say(note)
    print_faults((*cohort.skipped, *getattr(split, "left_out", ())))
    if cohort.unused:
        say(f"{len(cohort.unused)} slides have features but no row in the table, such as {cohort.unused[0]}")
