"""Statistics of a comparison: one row an entry and read-out, like compared with like.

A difference is one between the same read-outs of an entry and of its network's baseline (LP with LP), on the same seed,
split and test part. Scores and their differences are in 0 … 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from scipy import special, stats

from ncmi.readouts.metrics import METRICS, SCORES, unit_of
from ncmi.readouts.scores import (
    INTERVAL_METRICS,
    Estimate,
    Judge,
    Scores,
    calibration_error,
    paired_difference,
    pooled_reliability,
)
from ncmi.recipes.names import READOUTS, method_label
from ncmi.report.published import Images, cohort_of, published_scores
from ncmi.report.records import Comparison, EntryRuns, ReportError, Run
from ncmi.training.schema import InformationRecord

CONFIDENCE = 0.95
# with fewer pairs the signed-rank test has no p below 0.1, whatever the differences are
WILCOXON_MINIMUM = 5
# finer than one sample of a million, coarser than what float32 leaves of an accuracy
RESOLUTION = 1e-6
INFORMATION = tuple(InformationRecord.__struct_fields__)
SHOWN = ("head", "cc", "lp")
"""The read-outs of a table, unless others are asked for."""


@dataclass(frozen=True)
class Spread:
    """Values of repeats, each with its seed, or of folds without; there may be none."""

    values: tuple[float, ...]
    seeds: tuple[int, ...] = ()

    @cached_property
    def mean(self) -> float:
        """NaN of none."""
        return float(np.mean(self.values)) if self.values else math.nan

    @cached_property
    def sd(self) -> float:
        """Sample standard deviation; NaN with fewer than two values."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % t-interval of the mean; None with fewer than two values."""
        return t_interval(self.values)

    @property
    def by_seed(self) -> dict[str, float]:
        """The values by seed, as JSON has names."""
        return dict(zip(map(str, self.seeds), self.values, strict=True))


@dataclass(frozen=True)
class Difference(Spread):
    """Paired differences from the baseline, one for each seed that both have.

    ``over_groups`` is the 95 % bootstrap interval of the mean over groups (patients) of bags; None where repeats differ
    in their test part.
    """

    over_groups: tuple[float, float] | None = None

    @property
    def wilcoxon_p(self) -> float:
        """Two-sided signed-rank p; NaN with fewer than five pairs. With five it is at least 0.0625."""
        return wilcoxon_p(self.values)

    @property
    def too_coarse(self) -> bool:
        """Whether all differences are the same: an interval without width says nothing about the spread."""
        return len(self.values) > 1 and float(np.ptp(self.values)) < RESOLUTION

    @property
    def sign(self) -> int:
        """+1 or −1 where the interval lies wholly above or below zero, otherwise 0: not distinguishable."""
        if self.interval is None or self.too_coarse:
            return 0
        return int(self.interval[0] > 0) - int(self.interval[1] < 0)


@dataclass(frozen=True)
class Score(Spread):
    """One score over repeats: a seed each, of cross-validation with the test parts of all its folds put together.

    The difference is None for the baseline and without a common repeat; ``folds`` holds cross-validation fold by fold,
    where the score is defined, and ``fold_differences`` the paired differences of these from the baseline;
    ``published`` is the paper's value, which enters nothing here.
    """

    difference: Difference | None = None
    folds: Spread | None = None
    fold_differences: Spread | None = None
    published: float | None = None

    @property
    def compared(self) -> Difference:
        """The difference; an empty one where there is none."""
        return self.difference or Difference(())


@dataclass(frozen=True, eq=False)
class Row:
    """One entry by one read-out.

    Attributes:
        entry: with its runs.
        readout: how it decides.
        primary: the read-outs by which its objective is meant to be judged, the first one first.
        is_baseline: whether others of its network are compared with it.
        pooled: False where scores are means over folds, since test parts of published folds overlap.
        seeds: of its complete repeats.
        scores: by name, those of :data:`ncmi.readouts.metrics.SCORES`.
        information: mean CMI, Γ (nats) and NCMI on the test part, by their names in the schema.
        epoch_seconds, peak_memory_mb: median and highest over runs.
    """

    entry: EntryRuns
    readout: str
    primary: tuple[str, ...]
    is_baseline: bool
    pooled: bool
    seeds: tuple[int, ...]
    scores: Mapping[str, Score]
    epoch_seconds: float
    peak_memory_mb: float
    information: Mapping[str, float]

    @property
    def method(self) -> str:
        """The objective's label with the read-out."""
        return method_label(self.entry.objective_label, self.readout)

    @property
    def name(self) -> str:
        """The same, with several networks after the network's name."""
        return self.entry.label.removesuffix(self.entry.objective_label) + self.method

    @property
    def place(self) -> int:
        """Of its read-out among all."""
        return [*READOUTS, self.readout].index(self.readout)

    @property
    def is_primary(self) -> bool:
        """Whether its objective is meant to be judged so; the head of another has not been trained to decide."""
        return self.readout in self.primary

    @property
    def is_first(self) -> bool:
        """Whether this is its objective's own first read-out."""
        return self.readout == self.primary[0]


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % Student-t interval of the mean, or None with fewer than two values.

    >>> t_interval([1.0, 2.0, 3.0])  # doctest: +ELLIPSIS
    (-0.484..., 4.484...)
    """
    if len(values) < 2:
        return None
    mean, count = float(np.mean(values)), len(values)
    half = float(special.stdtrit(count - 1, (1 + CONFIDENCE) / 2) * np.std(values, ddof=1)) / math.sqrt(count)
    return mean - half, mean + half


def wilcoxon_p(differences: Sequence[float]) -> float:
    """Two-sided Wilcoxon signed-rank p of paired differences in 0 … 1; NaN below five of them, 1 if all are zero.

    Exact, with ties and without: the distribution of the sum of ranks by counting, which takes SciPy seventy
    milliseconds where there are ties. Differences of zero do not count.
    """
    if len(differences) < WILCOXON_MINIMUM:
        return math.nan
    # differences are whole numbers of test samples: rounding restores the ties that floating point broke
    rounded = np.round(np.asarray(differences, dtype=float) / RESOLUTION)
    moved = rounded[rounded != 0]
    # twice the ranks: those of ties are halves
    ranks = (2 * stats.rankdata(np.abs(moved))).astype(int)
    ways = np.ones(1)
    for rank in ranks:
        # every sign is equally likely: as many sums with this rank as without it
        ways = np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0))
    positive = int(ranks[moved > 0].sum())
    tail = min(ways[: positive + 1].sum(), ways[positive:].sum())
    return min(1.0, 2 * float(tail / ways.sum()))


@lru_cache(maxsize=16)
def comparison_rows(record: Comparison, *, published: Images | None = None) -> tuple[Row, ...]:
    """One row an entry and read-out: read-out by read-out (head, CC, LP, kNN), in it network by network, in that NCMI,
    then the baseline, then the others by falling mean. Made once of each record.

    Args:
        record: the comparison.
        published: the images of the paper that it is on, so that the paper's accuracies may stand beside. Those on
            slides stand wherever the slides are the paper's.

    Raises:
        ReportError: if a file of a run is damaged, or two folds of a repeat share a sample.
    """
    cohort = cohort_of(record)
    repeats = {entry: _repeats(entry, record) for entry in record.entries}
    rows: list[Row] = []
    for entry, own in repeats.items():
        baseline = baseline_of(record, entry.network)
        reference = repeats[baseline] if baseline and baseline is not entry else {}
        for readout in dict.fromkeys(name for repeat in own.values() for name in repeat.scores):
            known = published_scores(entry, readout, cohort, published)
            rows.append(_row(record, entry, readout, own, reference, baseline, known))

    def place(row: Row) -> tuple[int, int, int, float]:
        rank = 0 if row.entry.objective == "ncmi" else 1 if row.is_baseline else 2
        mean = row.scores[record.judged[0]].mean
        network = record.networks.index(row.entry.network)
        return row.place, network, rank, -mean if rank == 2 and math.isfinite(mean) else 0.0

    return tuple(sorted(rows, key=place))


def baseline_of(record: Comparison, network: str) -> EntryRuns | None:
    """The entry that others of a network are compared with, or None where it has no finished run."""
    entries = (entry for entry in record.entries if entry.network == network and entry.objective == record.baseline)
    return next((entry for entry in entries if entry.runs), None)


def by_readout(rows: Iterable[Row], readouts: Sequence[str] = SHOWN) -> dict[str, list[Row]]:
    """The rows that a table shows, by read-out: by the head only those objectives that are meant to decide by it.

    kNN is left out unless it is asked for.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.readout in readouts and (row.readout != "head" or row.is_primary):
            groups.setdefault(row.readout, []).append(row)
    return groups


def shown_rows(rows: Iterable[Row], readouts: Sequence[str] = SHOWN) -> list[Row]:
    """The rows of a table, read-out by read-out."""
    return [row for group in by_readout(rows, readouts).values() for row in group]


def without_head(rows: Iterable[Row]) -> list[str]:
    """Labels of the entries that are not meant to be judged by a trained head."""
    return list(dict.fromkeys(row.entry.objective_label for row in rows if "head" not in row.primary))


def complete_rows(rows: Sequence[Row], score: str) -> list[Row]:
    """The rows with the most seeds: means over different seeds, so different splits, are not comparable."""
    measured = [row for row in rows if math.isfinite(row.scores[score].mean)]
    most = max((len(row.seeds) for row in measured), default=0)
    return [row for row in measured if len(row.seeds) == most]


def best_rows(rows: Sequence[Row], score: str) -> list[Row]:
    """Of the complete rows, those whose mean is the best in the digits that are written.

    Rows of one read-out compare, and in tables those of one network: see :func:`best_of_table`.
    """
    compared = complete_rows(rows, score)
    means = [unit_of(row.entry.runs[0].kind, score).rounded(row.scores[score].mean) for row in compared]
    best = min if METRICS[score].less_is_better else max
    return [row for row, mean in zip(compared, means, strict=True) if mean == best(means)]


def best_of_table(rows: Sequence[Row], score: str) -> list[Row]:
    """The best rows of each read-out and network, where there are two or more to compare."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.readout, row.entry.network), []).append(row)
    return [row for group in groups.values() if len(complete_rows(group, score)) > 1 for row in best_rows(group, score)]


@dataclass(frozen=True, eq=False)
class _Repeat:
    """One entry at one seed: its scores by read-out and name, and of bags the test parts of all its folds.

    Where test parts of folds overlap, scores are means over folds, and nothing is put together.
    """

    scores: Mapping[str, Mapping[str, float]]
    test: pd.DataFrame | None
    pooled: bool = True

    def pairs_with(self, other: _Repeat) -> bool:
        """Whether both are tested on the same bags."""
        return self.test is None or other.test is None or self.test.index.equals(other.test.index)


_Repeats = dict[tuple[int, int | None], _Repeat]


def _repeats(entry: EntryRuns, record: Comparison) -> _Repeats:
    """The complete repeats of an entry by seed and split; one that lacks a fold is left out."""
    groups: dict[tuple[int, int | None], list[Run]] = {}
    for run in entry.runs:
        groups.setdefault((run.seed, run.split_seed), []).append(run)
    # all folds in turn, or one of them
    planned = (len(entry.runs) + len(entry.unfinished)) // len(record.seeds) if record.folds else 1
    return {key: _repeat(runs) for key, runs in groups.items() if len(runs) == planned}


def _repeat(runs: Sequence[Run]) -> _Repeat:
    first = runs[0]
    bags = first.kind == "bags"
    test = _test_part(runs) if bags or len(runs) > 1 else None
    if test is None or len(runs) == 1:
        return _Repeat({name: _numbers(readout.test) for name, readout in first.finished.readouts.items()}, test)
    if test.index.has_duplicates and first.recipe.get("data", {}).get("splits"):
        # published splits are drawn anew for each fold, so that a slide may be tested on in several: nothing to pool
        each = {
            name: [_numbers(run.finished.readouts[name].test) for run in runs if name in run.finished.readouts]
            for name in first.finished.readouts
        }
        means = {
            name: {score: float(np.mean([row[score] for row in rows])) for score in SCORES}
            for name, rows in each.items()
        }
        return _Repeat(means, None, pooled=False)
    if test.index.has_duplicates:
        raise ReportError(
            f"{first.folder}: {test.index[test.index.duplicated()][0]} is tested on in two folds of seed "
            f"{first.seed}, so these are no folds of one cross-validation: run them again with the same data and "
            "split seed"
        )
    labels, once = test["label", 0].to_numpy(copy=True), np.ones((1, len(test)))
    pooled = {
        name: Judge(labels, test[name].to_numpy(), INTERVAL_METRICS)(once)
        for name in first.finished.readouts
        if name in test
    }
    return _Repeat(
        {
            name: {score: float(value[0]) for score, value in scores.items()} | _trust(runs, name)
            for name, scores in pooled.items()
        },
        test if bags else None,
    )


def _trust(runs: Sequence[Run], readout: str) -> dict[str, float]:
    """NLL and calibration error of the test parts of all folds put together, from those of each."""
    folds = [run.finished.readouts[readout] for run in runs]
    sizes = [fold.test.samples for fold in folds]
    nll = [math.nan if fold.test.nll is None else fold.test.nll for fold in folds]
    bins = [fold.reliability["test"] for fold in folds if "test" in fold.reliability]
    error = calibration_error(pooled_reliability(bins)) if len(bins) == len(folds) else math.nan
    return {"nll": float(np.average(nll, weights=sizes)), "calibration_error": error}


def score_value(scores: Scores, name: str) -> float | None:
    """A score by its name, of those with an interval and of those without."""
    value = getattr(scores, name)
    known: float | None = value.value if isinstance(value, Estimate) else value
    return known


def _numbers(scores: Scores) -> dict[str, float]:
    values = {name: score_value(scores, name) for name in SCORES}
    return {name: math.nan if value is None else value for name, value in values.items()}


def _test_part(runs: Sequence[Run]) -> pd.DataFrame:
    """Labels, groups and, by read-out, probabilities of the test samples of all runs, in order.

    Bags go by name, other samples by their place in the data.
    """
    parts = []
    for outputs in (run.outputs() for run in runs):
        samples = outputs.names if outputs.indices is None else outputs.indices
        groups = outputs.groups or ("",) * len(samples)
        columns: dict[str, Any] = {"label": outputs.labels, "group": groups, **outputs.probabilities}
        frames = {name: pd.DataFrame(values, samples) for name, values in columns.items()}
        parts.append(pd.concat(frames, axis=1))
    return pd.concat(parts, join="inner").sort_index(kind="stable")


def _row(
    record: Comparison,
    entry: EntryRuns,
    readout: str,
    repeats: _Repeats,
    reference: _Repeats,
    baseline: EntryRuns | None,
    published: Mapping[str, float],
) -> Row:
    repeats = {key: repeat for key, repeat in repeats.items() if readout in repeat.scores}
    pairs = {
        key[0]: (repeat, other)
        for key, repeat in repeats.items()
        if (other := reference.get(key)) and readout in other.scores and repeat.pairs_with(other)
    }
    results = [run.finished for run in entry.runs]
    tests = fold_differences = None
    if record.folds:
        tests, others = _by_fold(entry, readout), _by_fold(baseline, readout)
        fold_differences = (tests - others).dropna(how="all") if baseline is not entry and len(others) else None
    measures = pd.DataFrame([msgspec.structs.asdict(result.information) for result in results], dtype=float)
    seeds = tuple(seed for seed, _ in repeats)
    scores = {
        name: Score(
            values=tuple(repeat.scores[readout][name] for repeat in repeats.values()),
            seeds=seeds,
            difference=_difference(pairs, readout, name) if pairs else None,
            folds=None if tests is None else Spread(tuple(tests[name].dropna())),
            fold_differences=None if fold_differences is None else Spread(tuple(fold_differences[name].dropna())),
            published=published.get(name),
        )
        for name in SCORES
    }
    return Row(
        entry=entry,
        readout=readout,
        primary=tuple(dict.fromkeys(name for result in results for name in result.primary_readouts)),
        is_baseline=entry is baseline,
        pooled=all(repeat.pooled for repeat in repeats.values()),
        seeds=seeds,
        scores=scores,
        epoch_seconds=float(np.median([result.epoch_seconds for result in results])),
        peak_memory_mb=max(result.peak_memory_mb for result in results),
        information={name: float(measures[name].mean(skipna=False)) for name in INFORMATION},
    )


def _by_fold(entry: EntryRuns | None, readout: str) -> pd.DataFrame:
    """The scores of each run of an entry by a read-out, by seed, split and fold."""
    runs = [] if entry is None else [run for run in entry.runs if readout in run.finished.readouts]
    lines = {(run.seed, run.split_seed or 0, run.fold): _numbers(run.finished.readouts[readout].test) for run in runs}
    return pd.DataFrame.from_dict(lines, orient="index", columns=list(SCORES))


def _difference(pairs: Mapping[int, tuple[_Repeat, _Repeat]], readout: str, score: str) -> Difference:
    values = tuple(ours.scores[readout][score] - theirs.scores[readout][score] for ours, theirs in pairs.values())
    ours, theirs = zip(*pairs.values(), strict=True)
    over_groups, test = None, ours[0].test
    if score in INTERVAL_METRICS and test is not None and all(ours[0].pairs_with(repeat) for repeat in ours):
        p, q = (np.stack([repeat.test[readout] for repeat in repeats]) for repeats in (ours, theirs))
        bootstrap = paired_difference(test["label", 0].to_numpy(copy=True), p, q, test["group", 0], score)
        low, high = (math.nan if bound is None else bound for bound in (bootstrap.low, bootstrap.high))
        over_groups = (low, high)
    return Difference(values, tuple(pairs), over_groups)
