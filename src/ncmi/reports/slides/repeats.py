"""Repeats of an experiment: one seed each, with the folds of a cross-validation pooled into one result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ncmi.reports.files import ReportError
from ncmi.reports.slides.read_results import read_slide_table
from ncmi.reports.slides.records import SlideEntry, SlideRun, SlideTable
from ncmi.slides.metrics import slide_metrics
from ncmi.slides.weighted_scores import SCORES

Key = tuple[int, object]


@dataclass(frozen=True, eq=False)
class Repeat:
    """One entry at one seed.

    Attributes:
        seed: of training and, unless the recipe says otherwise, split.
        runs: one, or one for each fold.
        test: all slides that were tested on; of folds the test parts of all, in which every slide stands once.
        values: for each read-out its scores on ``test``.
    """

    seed: int
    runs: tuple[SlideRun, ...]
    test: SlideTable
    values: dict[str, dict[str, float]]


@dataclass(frozen=True)
class FoldSpread:
    """Scores fold by fold, which are not pooled: mean and sample standard deviation over all folds of all repeats."""

    mean: float
    sd: float
    count: int


def repeats_of(entry: SlideEntry, folds: int) -> dict[Key, Repeat]:
    """The complete repeats of an entry by seed and split; one that lacks a fold is left out.

    Raises:
        ReportError: if a file is damaged, or two folds of a repeat test on the same slide.
    """
    groups: dict[Key, list[SlideRun]] = {}
    for run in entry.runs:
        groups.setdefault((run.seed, run.split_seed), []).append(run)
    wanted = list(range(max(folds, 1)))
    return {
        key: _repeat(key[0], tuple(runs))
        for key, runs in groups.items()
        if not folds or [run.fold for run in runs] == wanted
    }


def fold_spread(entry: SlideEntry, readout: str, score: str) -> FoldSpread:
    """How a score varies from fold to fold; folds in which it is not defined are left out."""
    values = [
        run.results.test[readout].scores[score].value
        for run in entry.runs
        if run.results and readout in run.results.test
    ]
    known = [value for value in values if math.isfinite(value)]
    sd = float(np.std(known, ddof=1)) if len(known) > 1 else math.nan
    return FoldSpread(float(np.mean(known)) if known else math.nan, sd, len(known))


def _repeat(seed: int, runs: tuple[SlideRun, ...]) -> Repeat:
    tables = [read_slide_table(run).part("test") for run in runs]
    results = runs[0].results
    assert results is not None  # an entry's runs are finished
    if len(runs) == 1:
        values = {
            readout: {score: found.scores[score].value for score in SCORES} for readout, found in results.test.items()
        }
        return Repeat(seed, runs, _sorted(tables[0]), values)
    pooled = _sorted(_joined(tables, runs))
    values = {}
    for readout, probabilities in pooled.probabilities.items():
        found = slide_metrics(pooled.labels, probabilities, pooled.patients, results.class_names, resamples=0)
        values[readout] = {score: found[score]["value"] for score in SCORES}
    return Repeat(seed, runs, pooled, values)


def _joined(tables: Sequence[SlideTable], runs: Sequence[SlideRun]) -> SlideTable:
    slides = [slide for table in tables for slide in table.slides]
    if len(set(slides)) < len(slides):
        twice = next(slide for slide in slides if slides.count(slide) > 1)
        raise ReportError(
            f"{runs[0].folder}: {twice} is a test slide of two folds of seed {runs[0].seed}, so these are no folds of "
            "one cross-validation: run them again with the same cohort and split seed"
        )
    shared = [name for name in tables[0].probabilities if all(name in table.probabilities for table in tables)]
    return SlideTable(
        slides=tuple(slides),
        patients=tuple(patient for table in tables for patient in table.patients),
        parts=("test",) * len(slides),
        labels=np.concatenate([table.labels for table in tables]),
        instances=np.concatenate([table.instances for table in tables]),
        probabilities={name: np.concatenate([table.probabilities[name] for table in tables]) for name in shared},
    )


def _sorted(table: SlideTable) -> SlideTable:
    """By name, so that tables of the same slides are rows in the same order."""
    return table.take(sorted(range(len(table.slides)), key=lambda place: table.slides[place]))
