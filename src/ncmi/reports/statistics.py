"""Statistics of a comparison: one row per method and read-out, with differences paired by seed and split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ncmi.reports.files import ReportError
from ncmi.reports.records import ComparisonRecord, EntryRecord, Results, RunRecord

CONFIDENCE = 0.95
# with fewer pairs the signed-rank test has no p below 0.1, whatever the differences are
WILCOXON_MINIMUM = 5
# points; finer than one sample of a million, coarser than what float32 leaves of an accuracy
RESOLUTION = 1e-4

_SUFFIX = {"head": "", "cc": "-CC", "lp": "-LP", "knn": "-kNN"}
PairKey = tuple[int, object]


@dataclass(frozen=True)
class Difference:
    """Paired difference from the baseline, in points (percent of the test set).

    Attributes:
        seeds: the seeds that both have, in order.
        values: one difference for each of them.
        mean: their mean.
        interval: 95 % t-interval of the mean; None with fewer than two pairs.
        wilcoxon_p: two-sided signed-rank p; NaN with fewer than five pairs. With five it is at least 0.0625.
    """

    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None
    wilcoxon_p: float

    @property
    def too_coarse(self) -> bool:
        """Whether all differences are the same: an interval without width says nothing about the spread.

        It happens with few seeds and a small test set.
        """
        return len(self.values) > 1 and float(np.ptp(self.values)) < RESOLUTION

    @property
    def sign(self) -> int:
        """+1 or −1 where the interval lies wholly above or below zero, otherwise 0: not distinguishable."""
        if self.interval is None or self.too_coarse:
            return 0
        return int(self.interval[0] > 0) - int(self.interval[1] < 0)


@dataclass(frozen=True)
class Row:
    """One method with one read-out. Accuracies in percent, CMI and Γ in nats on the test set."""

    method: str
    label: str
    objective: str
    readout: str
    is_baseline: bool
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    mean: float
    sd: float
    interval: tuple[float, float] | None
    difference: Difference | None
    epoch_seconds: float
    peak_memory_mb: float
    cmi: float
    separation: float
    ncmi: float
    cross_entropy_separation: float = math.nan
    cross_entropy_ncmi: float = math.nan


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Student-t interval of the mean, or None with fewer than two values.

    >>> t_interval([1.0, 2.0, 3.0])  # doctest: +ELLIPSIS
    (-0.484..., 4.484...)
    """
    n = len(values)
    if n < 2:
        return None
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    mean = float(np.mean(values))
    return mean - half, mean + half


def wilcoxon_p(differences: Sequence[float]) -> float:
    """Two-sided Wilcoxon signed-rank p of paired differences; NaN below five of them, 1 if all are zero."""
    if len(differences) < WILCOXON_MINIMUM:
        return math.nan
    # differences are whole numbers of test samples: rounding restores the ties that floating point broke
    rounded = np.round(np.asarray(differences, dtype=float) / RESOLUTION)
    if not rounded.any():
        return 1.0
    return float(stats.wilcoxon(rounded).pvalue)


def method_name(label: str, readout: str) -> str:
    """Name of a row: the label, and the read-out unless it is the method's own head.

    >>> method_name("NCMI", "cc"), method_name("CE", "head")
    ('NCMI-CC', 'CE')
    >>> method_name("NCMI (p = −4, fixed)", "lp"), method_name("NSF, not centred", "cc")
    ('NCMI-LP (p = −4, fixed)', 'NSF, not centred, CC')
    """
    suffix = _SUFFIX.get(readout, f"-{readout}")
    name, bracket, rest = label.partition(" (")
    if bracket and rest.endswith(")"):
        return f"{name}{suffix}{bracket}{rest}"
    return f"{label}, {suffix[1:]}" if suffix and ", " in label else label + suffix


def results_of(run: RunRecord) -> Results:
    """The results of a run that is known to be finished."""
    if run.results is None:
        raise ReportError(f"{run.folder}: the run has not finished: finish it before counting on its results")
    return run.results


def primary_readouts(entry: EntryRecord) -> tuple[str, ...]:
    """The read-outs by which an entry is judged, in the order that its runs give."""
    return tuple(dict.fromkeys(name for run in entry.runs for name in results_of(run).primary_readouts))


def baseline_entry(record: ComparisonRecord) -> EntryRecord | None:
    """The entry that the others are compared with, or None where it has no finished run."""
    return next((entry for entry in record.entries if entry.objective == record.baseline and entry.runs), None)


def comparison_rows(record: ComparisonRecord) -> tuple[Row, ...]:
    """One row per method and read-out: NCMI, then the baseline, then the others by falling mean accuracy.

    Raises:
        ReportError: if one entry has two runs with the same seed and split.
    """
    baseline = baseline_entry(record)
    reference = _accuracies(baseline, primary_readouts(baseline)[0]) if baseline else {}
    rows = [
        _row(entry, readout, entry is baseline, reference)
        for entry in record.entries
        if entry.runs
        for readout in primary_readouts(entry)
    ]
    return tuple(sorted(rows, key=_place))


def complete_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows with the most seeds: means over different seeds, so different splits, are not comparable."""
    measured = [row for row in rows if math.isfinite(row.mean)]
    most = max((len(row.accuracies) for row in measured), default=0)
    return [row for row in measured if len(row.accuracies) == most]


def best_rows(rows: Sequence[Row]) -> list[Row]:
    """Of the complete rows, those whose mean is the highest in the two decimals that are printed."""
    compared = complete_rows(rows)
    highest = max((round(row.mean, 2) for row in compared), default=math.nan)
    return [row for row in compared if round(row.mean, 2) == highest]


def _place(row: Row) -> tuple[int, float]:
    if row.objective == "ncmi":
        return (0, 0.0)
    if row.is_baseline:
        return (1, 0.0)
    return (2, math.inf if math.isnan(row.mean) else -row.mean)


def _pair_key(run: RunRecord) -> PairKey:
    return run.seed, run.recipe["data"].get("split_seed")


def _accuracies(entry: EntryRecord, readout: str) -> dict[PairKey, float]:
    """Test accuracy in percent by seed and split."""
    accuracies: dict[PairKey, float] = {}
    for run in entry.runs:
        key = _pair_key(run)
        if key in accuracies:
            raise ReportError(f"{run.folder}: {entry.label} has seed {key[0]} twice: remove one of the two runs")
        found = results_of(run).readouts.get(readout)
        if found is not None:
            accuracies[key] = 100 * found.test_accuracy
    return accuracies


def _difference(own: dict[PairKey, float], reference: dict[PairKey, float]) -> Difference | None:
    common = [key for key in own if key in reference]
    if not common:
        return None
    values = tuple(own[key] - reference[key] for key in common)
    return Difference(
        seeds=tuple(key[0] for key in common),
        values=values,
        mean=float(np.mean(values)),
        interval=t_interval(values),
        wilcoxon_p=wilcoxon_p(values),
    )


def _row(entry: EntryRecord, readout: str, is_baseline: bool, reference: dict[PairKey, float]) -> Row:
    accuracies = _accuracies(entry, readout)
    values = list(accuracies.values())
    results = [results_of(run) for run in entry.runs]
    return Row(
        method=method_name(entry.label, readout),
        label=entry.label,
        objective=entry.objective,
        readout=readout,
        is_baseline=is_baseline,
        seeds=tuple(key[0] for key in accuracies),
        accuracies=tuple(values),
        mean=float(np.mean(values)),
        sd=float(np.std(values, ddof=1)) if len(values) > 1 else math.nan,
        interval=t_interval(values),
        difference=None if is_baseline else _difference(accuracies, reference),
        epoch_seconds=float(np.median([result.epoch_seconds for result in results])),
        peak_memory_mb=max(result.peak_memory_mb for result in results),
        cmi=float(np.mean([result.cmi for result in results])),
        separation=float(np.mean([result.separation for result in results])),
        ncmi=float(np.mean([result.ncmi for result in results])),
        cross_entropy_separation=float(np.mean([result.cross_entropy_separation for result in results])),
        cross_entropy_ncmi=float(np.mean([result.cross_entropy_ncmi for result in results])),
    )
