"""Statistics of a comparison of slide classifiers: networks × methods, with differences paired by seed and split."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ncmi.reports.slides.published import cohort_of
from ncmi.reports.slides.records import SlideComparison, SlideEntry, network_name
from ncmi.reports.slides.repeats import FoldSpread, Key, Repeat, fold_spread, repeats_of
from ncmi.reports.statistics import Difference, method_name, t_interval, wilcoxon_p
from ncmi.slides.bootstrap import patient_draws, patient_numbers, percentile_interval, resampled
from ncmi.slides.published import Published, published
from ncmi.slides.weighted_scores import SCORES, Judged

JUDGED = ("macro_f1", "auc")
"""Scores that methods are compared by."""


@dataclass(frozen=True)
class Score:
    """One score over repeats: a value for each, their mean, sample standard deviation and 95 % t-interval."""

    values: tuple[float, ...]
    mean: float
    sd: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class Cell:
    """One network with one method, which is an entry's label and a read-out.

    Attributes:
        network: as it reads in a table.
        method: as it reads in a table.
        label, objective, readout: of the entry, and how it decides.
        is_baseline: whether others of its network are compared with it.
        seeds: of the complete repeats.
        scores: by name.
        differences: from the network's baseline over repeats with the same seed, split and test slides, by name; empty
            without a common repeat.
        over_patients: for the scores of :data:`JUDGED`, the bootstrap interval over patients of the mean difference;
            None where repeats differ in their test slides.
        folds: for these, the spread over folds; empty without folds.
        epoch_seconds, peak_memory_mb: median and highest over runs.
        published: the paper's macro F1 and AUC, where it printed them for this cohort; they enter nothing here.
    """

    network: str
    method: str
    label: str
    objective: str
    readout: str
    is_baseline: bool
    seeds: tuple[int, ...]
    scores: dict[str, Score]
    differences: dict[str, Difference]
    over_patients: dict[str, tuple[float, float]] | None
    folds: dict[str, FoldSpread]
    epoch_seconds: float
    peak_memory_mb: float
    published: Published | None = None


def comparison_cells(record: SlideComparison) -> tuple[Cell, ...]:
    """All cells, network by network in the order of the entries, within one in the order of :func:`methods`.

    Raises:
        ReportError: if a file of a run is damaged.
    """
    cells: list[Cell] = []
    cohort = cohort_of(record)
    for network in dict.fromkeys(entry.network for entry in record.entries):
        entries = [entry for entry in record.entries if entry.network == network]
        baseline = next((one for one in entries if one.objective == record.baseline), None)
        known = {entry.label: repeats_of(entry, record.folds) for entry in entries}
        reference = _Reference(known[baseline.label]) if baseline else _Reference({})
        for entry in entries:
            if known[entry.label]:
                for readout in _primary(entry):
                    found = published(cohort, network, entry.objective, readout)
                    cell = _cell(entry, readout, known[entry.label], reference, entry is baseline, record.folds)
                    cells.append(replace(cell, published=found))
    places = list(dict.fromkeys(cell.network for cell in cells)), methods(cells)
    return tuple(sorted(cells, key=lambda cell: (places[0].index(cell.network), places[1].index(cell.method))))


def methods(cells: Sequence[Cell]) -> list[str]:
    """Columns of the table: every method once, the baseline's first, read-outs in the paper's order LP, CC, head."""
    order = {"lp": 0, "cc": 1, "head": 2}
    found = {cell.method: (not cell.is_baseline, cell.label, order.get(cell.readout, 3)) for cell in reversed(cells)}
    labels = list(dict.fromkeys(cell.label for cell in cells))
    return sorted(found, key=lambda method: (found[method][0], labels.index(found[method][1]), found[method][2]))


def by_network(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Cells by network, in their order."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.network, []).append(cell)
    return found


def best_cells(cells: Sequence[Cell], score: str) -> list[Cell]:
    """The cells of one network with the highest mean in the digits that are printed; none where repeats differ.

    Means over different seeds, so different splits, do not compare.
    """
    known = [cell for cell in cells if math.isfinite(cell.scores[score].mean)]
    if len(known) < 2 or len({cell.seeds for cell in known}) > 1:
        return []
    highest = max((round(cell.scores[score].mean, 3) for cell in known), default=math.nan)
    return [cell for cell in known if round(cell.scores[score].mean, 3) == highest]


def plain_label(entry: SlideEntry) -> str:
    """An entry's label without the name of its network, which has a row of its own.

    >>> plain_label(SlideEntry("ABMIL + NCMI", "abmil", "ncmi", (), ()))
    'NCMI'
    """
    name = re.escape(entry.network)
    rest = re.sub(rf"(?i)\b{name}\b[\s·+/,:–-]*|[\s·+/,:–-]*\b{name}\b", "", entry.label)
    return rest.strip("()[] ") or entry.label


class _Reference:
    """The baseline of a network; its resampled scores are computed once."""

    def __init__(self, repeats: dict[Key, Repeat]) -> None:
        self.repeats = repeats
        self.readout = _first_readout(repeats)
        self._resampled: dict[tuple[Key, ...], dict[str, NDArray[np.float64]]] = {}

    def resampled(self, keys: tuple[Key, ...]) -> dict[str, NDArray[np.float64]]:
        if keys not in self._resampled:
            self._resampled[keys] = _resampled([self.repeats[key] for key in keys], self.readout)
        return self._resampled[keys]


def _first_readout(repeats: dict[Key, Repeat]) -> str:
    results = next((run.results for repeat in repeats.values() for run in repeat.runs), None)
    return results.primary_readouts[0] if results else ""


def _primary(entry: SlideEntry) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for run in entry.runs if run.results for name in run.results.primary_readouts))


def _cell(
    entry: SlideEntry, readout: str, repeats: dict[Key, Repeat], reference: _Reference, is_baseline: bool, folds: int
) -> Cell:
    own = {key: repeat for key, repeat in repeats.items() if readout in repeat.values}
    common = tuple(
        key
        for key, repeat in own.items()
        if key in reference.repeats and repeat.test.slides == reference.repeats[key].test.slides
    )
    differences: dict[str, Difference] = {}
    if common and not is_baseline:
        for score in SCORES:
            values = [
                own[key].values[readout][score] - reference.repeats[key].values[reference.readout][score]
                for key in common
            ]
            differences[score] = _difference(common, values)
    runs = [run.results for run in entry.runs if run.results]
    return Cell(
        network=network_name(entry.network),
        method=method_name(plain_label(entry), readout),
        label=plain_label(entry),
        objective=entry.objective,
        readout=readout,
        is_baseline=is_baseline,
        seeds=tuple(key[0] for key in own),
        scores={score: _score([repeat.values[readout][score] for repeat in own.values()]) for score in SCORES},
        differences=differences,
        over_patients=_over_patients(own, readout, reference, common) if differences else None,
        folds={score: fold_spread(entry, readout, score) for score in JUDGED} if folds else {},
        epoch_seconds=float(np.median([results.epoch_seconds for results in runs])),
        peak_memory_mb=max(results.peak_memory_mb for results in runs),
    )


def _score(values: Sequence[float]) -> Score:
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Score(tuple(values), float(np.mean(values)) if values else math.nan, sd, t_interval(values))


def _difference(keys: Sequence[Key], values: Sequence[float]) -> Difference:
    return Difference(
        seeds=tuple(key[0] for key in keys),
        values=tuple(values),
        mean=float(np.mean(values)),
        interval=t_interval(values),
        wilcoxon_p=wilcoxon_p(values),
    )


def _over_patients(
    own: dict[Key, Repeat], readout: str, reference: _Reference, keys: tuple[Key, ...]
) -> dict[str, tuple[float, float]] | None:
    if any(own[key].test.slides != own[keys[0]].test.slides for key in keys):
        return None
    mine, theirs = _resampled([own[key] for key in keys], readout), reference.resampled(keys)
    return {score: percentile_interval(mine[score] - theirs[score]) for score in JUDGED}


def _resampled(repeats: Sequence[Repeat], readout: str) -> dict[str, NDArray[np.float64]]:
    """Mean over repeats of each judged score in every resample of patients; the same resamples for the same slides."""
    test = repeats[0].test
    numbers = patient_numbers(test.patients)
    draws = patient_draws(numbers, test.labels)
    if not len(draws):
        return {score: np.empty(0) for score in JUDGED}
    found = [
        resampled(Judged(repeat.test.labels, repeat.test.probabilities[readout], JUDGED), numbers, draws)
        for repeat in repeats
    ]
    return {score: np.mean([one[score] for one in found], axis=0) for score in JUDGED}
