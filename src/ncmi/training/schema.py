"""What the files of a run folder and of a comparison hold: one schema for whoever writes and whoever reads.

``recipe.json`` is a :class:`ncmi.recipes.Recipe`. Accuracies, F1, AUC and the like are in 0 … 1, information in nats,
times in seconds, memory in MB (10⁶ bytes). What is not defined (no validation part, a class that does not occur) is
None.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from ncmi.files import check_regular, finite, write_text
from ncmi.readouts.scores import Detection, Histogram, Reliability, Scores
from ncmi.recipes import Kind

FORMAT = 2
MISTAKES = "misclassified.csv"
"""What a run decided wrongly on its test part, in its folder; see :mod:`ncmi.training.mistakes`."""
TUNING = "tuning.json"
"""How the learning rate of a run was chosen, in its folder; see :mod:`ncmi.training.tuning`."""


class SchemaError(ValueError):
    """A file is missing, damaged or not what it should be; the message names it and the cure."""


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of everything that is written as JSON."""


class Skipped(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sample that could not be used, and why."""

    name: str
    reason: str


class Contents(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is told of a data set's contents without keeping them: digests of 32 hexadecimal digits.

    Attributes:
        ordered: of everything that a run looks at, in order.
        unordered: of the same samples in any order; empty where it is not known.
        columns: of a table, each column in order.
    """

    ordered: str
    unordered: str = ""
    columns: dict[str, str] = {}


class DataRecord(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``data.json``: which data a run was begun with, and what was understood of it.

    Attributes:
        summary: one line: samples, features by kind, classes with counts, parts.
        paths: absolute, by the field of the recipe that names them; empty for embedded data.
        samples: number of them.
        classes: samples of each class in the whole data set, by name.
        parts: samples of each class in each part, by the part's name, in the classes' order.
        contents: digests.
        notes: what might have been understood otherwise.
        skipped: what could not be used.
    """

    format: int = FORMAT
    kind: Kind
    summary: str
    paths: dict[str, str]
    samples: int
    classes: dict[str, int]
    parts: dict[str, list[int]]
    contents: Contents | None = None
    notes: list[str] = []
    skipped: list[Skipped] = []


class InformationRecord(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """CMI, Γ and NCMI of the output distributions of a part, with Γ by both definitions."""

    cmi: float | None
    separation: float | None
    ncmi: float | None
    cross_entropy_separation: float | None
    cross_entropy_ncmi: float | None


class Calibration(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A temperature that was fitted to the validation part, and what it makes of the test part."""

    temperature: float
    nll: float | None
    calibration_error: float | None


class Fit(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a read-out was fitted to, and whether the fit came to its end.

    Attributes:
        samples: of the training part that it was fitted to; of kNN those among which neighbors are looked for.
        available: samples of the training part.
        iterations: of the linear probe's solver.
        converged: whether the linear probe came to its minimum before it reached the bound on its work.
    """

    samples: int
    available: int
    iterations: int | None = None
    converged: bool | None = None


def fits_in_words(fits: Sequence[Fit | None]) -> list[str]:
    """Sentences on read-outs that saw a part of the training data, or whose fit ended at the bound on its work."""
    sentences = []
    parts = [fit for fit in fits if fit and fit.samples < fit.available]
    # the linear probe alone has a solver
    for what, probe in (("kNN looks for neighbors among", False), ("The linear probe is fitted to", True)):
        if same := [fit for fit in parts if (fit.iterations is not None) == probe]:
            share = f"{same[0].samples:,} of the {same[0].available:,} training samples, each class by its share."
            sentences.append(f"{what} {share}")
    if early := [fit for fit in fits if fit and fit.converged is False]:
        most = max(fit.iterations or 0 for fit in early)
        sentences.append(f"The linear probe is not converged after {most:,} steps, the bound on its work.")
    return sentences


_MEMORIZED, _NATS, _MANY = 2.0, 0.2, 0.25


class TriedRate(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A learning rate as a multiple of the recipe's, with its validation score; None where training broke down."""

    multiple: float
    score: float | None


class TuningRecord(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``tuning.json``: the learning rates that a run was tried at, and the choice among them.

    Attributes:
        metric: of the validation part, by the run's first read-out; the most is best.
        multiple: the chosen rate.
        at_end: whether that is the lowest or highest of the grid, so that a better one may lie beyond.
        tried: in their order.
    """

    metric: Literal["accuracy", "macro_f1", "macro_auc"]
    multiple: float
    at_end: bool
    tried: list[TriedRate]


def tuning_in_words(chosen: Mapping[str, Sequence[TuningRecord]], runs: int) -> list[str]:
    """Sentences on learning rates that were searched.

    Args:
        chosen: by what they are called, one of each run that has been tuned.
        runs: how many there are in all.
    """
    records = [record for same in chosen.values() for record in same]
    if not records:
        return []
    metrics = {"accuracy": "accuracy", "macro_f1": "macro F1", "macro_auc": "macro AUC"}
    by = "/".join(dict.fromkeys(metrics[record.metric] for record in records))
    rates = "; ".join(f"{name} {_rates(same)}" for name, same in chosen.items() if same)
    if runs == 1:
        rate = multiple_in_words(records[0].multiple)
        sentences = [f"Its learning rate, {rate} of the usual one, was chosen by the {by} of its validation part."]
    else:
        whose = f"Each run's learning rate was chosen by the {by} of its own validation part"
        if len(records) < runs:
            some = f"The learning rates of {len(records)} of {runs} runs"
            whose = f"{some} were chosen by the {by} of their own validation parts"
        sentences = [f"{whose}, by one rule for every loss. In multiples of the usual rate: {rates}."]
    if ends := sum(record.at_end for record in records):
        which = "It is" if runs == 1 else f"{ends} of the {len(records)} rates {'is' if ends == 1 else 'are'}"
        sentences.append(f"{which} at an end of the range that was searched: a better one may lie beyond.")
    return sentences


def _rates(records: Sequence[TuningRecord]) -> str:
    """``×1/16``, and of several the least and the most: ``×1/64 to ×1, median ×1/16``."""
    chosen = sorted(record.multiple for record in records)
    middle = chosen[(len(chosen) - 1) // 2]
    if chosen[0] == chosen[-1]:
        return multiple_in_words(middle)
    return f"{multiple_in_words(chosen[0])} to {multiple_in_words(chosen[-1])}, median {multiple_in_words(middle)}"


def multiple_in_words(multiple: float) -> str:
    """A rate in multiples of the usual one.

    >>> multiple_in_words(2.0), multiple_in_words(1 / 64)
    ('×2', '×1/64')
    """
    return f"×{multiple:g}" if multiple >= 1 else f"×1/{1 / multiple:g}"


def memorized_in_words(losses: Sequence[Sequence[float | None]]) -> list[str]:
    """A sentence where networks have memorized their training part: what small noisy tables lose the most by.

    Args:
        losses: of each run whose last epoch is judged, the validation part's log-loss by epoch, in nats. A run counts
            where that is twice its lowest at the end, and 0.2 nats above it; of several a quarter must.
    """
    runs = [[loss for loss in run if loss is not None and math.isfinite(loss)] for run in losses]
    runs = [run for run in runs if run]
    grown = [run for run in runs if run[-1] >= max(_MEMORIZED * min(run), min(run) + _NATS)]
    if len(grown) < max(1, _MANY * len(runs)):
        return []
    if len(runs) == 1:
        (run,) = runs
        return [
            f"The validation part's log-loss was lowest after epoch {run.index(min(run)) + 1} ({min(run):.3g}) and is "
            f"{run[-1]:.3g} at the end: the network memorizes its training part. A lower learning rate, down to a "
            "hundredth of this one, may do better: ncmi sweep looks for it."
        ]
    return [
        f"In {len(grown)} of {len(runs)} runs the validation part's log-loss ends at twice its lowest or more: these "
        "networks memorize their training part. There lower learning rates, down to a hundredth of this one, may gain "
        "more than the choice of the loss: ncmi compare --tune looks for the rate of each run."
    ]


class Readout(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one way of deciding (head, cc, lp, knn) does.

    Attributes:
        test: on the test part.
        validation: on the validation part; None without one, and where other data is judged.
        calibration: None without a validation part.
        reliability: of the test part: ``"test"``, and with a validation part ``"calibrated"``.
        fit: of linear probe and kNN; None of the others.
        patients: on the test part with one decision a patient, see :func:`ncmi.readouts.scores.by_group`; None where
            no patient has several slides, or one has slides of several classes.
    """

    test: Scores
    validation: Scores | None = None
    calibration: Calibration | None = None
    reliability: dict[str, Reliability] = {}
    fit: Fit | None = None
    patients: Scores | None = None


class Results(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``results.json``: what a finished run came to.

    Attributes:
        kind: of data.
        data: its title.
        network, objective: names.
        fold, folds: of cross-validation; 0 folds for none.
        primary_readouts: how the objective is meant to decide, the first one first.
        readouts: all of them, by name.
        class_counts: samples of each class in each part, by the part's name; the labels as training is given them.
        information: of the test part.
        judged: the part that is judged where ``test`` is said: the test part, or where there is none the validation
            part, or the training part itself, of which figures say nothing on new data.
        epoch_seconds: median.
        parameters: number of those that training moves.
        simulation: whether the data is simulated.
        skipped: of a cohort.
    """

    format: int = FORMAT
    kind: Kind
    data: str
    network: str
    objective: str
    seed: int
    fold: int = 0
    folds: int = 0
    epochs: int
    best_epoch: int
    selection: Literal["last", "best"]
    class_names: list[str]
    num_train: int
    num_validation: int
    num_test: int
    judged: Literal["test", "validation", "train"] = "test"
    primary_readouts: list[str]
    readouts: dict[str, Readout]
    class_counts: dict[str, list[int]] = {}
    information: InformationRecord
    epoch_seconds: float
    total_seconds: float
    peak_memory_mb: float
    parameters: int
    simulation: bool = False
    skipped: list[Skipped] = []


class EpochMetrics(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of ``metrics.jsonl``. Validation metrics are None without a validation part.

    ``train_penalty`` is what a bag network adds to the loss, None for other networks.
    """

    epoch: int
    steps: int
    learning_rate: float
    train_loss: float
    train_penalty: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    validation_macro_f1: float | None = None
    validation_macro_auc: float | None = None
    validation_cmi: float | None = None
    validation_separation: float | None = None
    validation_ncmi: float | None = None
    seconds: float
    peak_memory_mb: float


class OutOfDistribution(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``ood-NAME.json``: how well a run knows data that is none of its own."""

    format: int = FORMAT
    data: str
    inside: str
    num_inside: int
    num_outside: int
    readout: str
    scores: dict[str, Detection]
    distances: Histogram

    def __post_init__(self) -> None:
        if "distance" not in self.scores:
            raise ValueError("'scores' lacks 'distance'")


class Evaluation(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``ncmi evaluate`` gives: a finished run judged again, on its own test part or on other labeled data."""

    format: int = FORMAT
    kind: Kind
    data: str
    objective: str
    class_names: list[str]
    primary_readouts: list[str]
    readouts: dict[str, Readout]
    information: InformationRecord
    ood: dict[str, OutOfDistribution] = {}
    notes: list[str] = []


class Measured(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``ncmi measure`` gives: the measures of any model's saved outputs."""

    format: int = FORMAT
    file: str
    values: str
    samples: int
    information: InformationRecord
    class_cmi: list[float | None]


class EntryRecord(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of a comparison: its label, what it varies, its run folders (relative), and what its runs share."""

    name: str
    label: str
    network: str
    objective: str
    runs: list[str]
    recipe: dict[str, Any]


class ComparisonRecord(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``comparison.json``.

    Attributes:
        title: what the page is called; by default by its data.
        baseline: name of the objective that others are compared with.
        command: the command line that made it.
        machine: of the first run, as in ``environment.json``.
        tuned: whether each run's learning rate was searched; the entries' recipes have the usual one.
    """

    format: int = FORMAT
    kind: Kind
    title: str = ""
    data: str
    seeds: list[int]
    folds: int = 0
    entries: list[EntryRecord]
    baseline: str
    simulation: bool = False
    command: str | None = None
    total_seconds: float = 0.0
    machine: dict[str, Any] = {}
    tuned: bool = False


class GroupRecord(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One comparison of a reproduction: the name of its folder, and what tables call it."""

    name: str
    title: str


class ReproductionRecord(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``reproduction.json``: a table or figure of the paper as a list of comparisons, each in its own folder."""

    format: int = FORMAT
    experiment: str
    title: str
    scale: str
    groups: list[GroupRecord]


R = TypeVar("R", bound=Record)


def write_record(path: Path, record: Record) -> None:
    """Write a record as JSON, whole or not at all; NaN and infinities become null."""
    plain = finite(msgspec.to_builtins(record))
    write_text(path, msgspec.json.format(msgspec.json.encode(plain), indent=2).decode() + "\n")


def read_record(path: Path, kind: type[R]) -> R:
    """Read what :func:`write_record` wrote.

    Raises:
        SchemaError: if the file is missing, damaged, or of another format; the message names the cure.
    """
    check_regular(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SchemaError(f"{path}: cannot be read ({error.strerror}): is the run finished?") from None
    return decode_record(content, kind, path)


def decode_record(content: bytes | str, kind: type[R], path: Path) -> R:
    """A record from JSON text of a file; see :func:`read_record`."""
    try:
        plain = msgspec.json.decode(content)
        version = plain.get("format", FORMAT) if isinstance(plain, dict) else FORMAT
        if version != FORMAT:
            raise SchemaError(f"{path}: format {version!r}, this version reads format {FORMAT}: run it again")
        return msgspec.convert(plain, kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SchemaError(f"{path}: damaged ({error}): restore the file or run it again") from None
