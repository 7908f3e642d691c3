"""Scores as readers see them, and what the numbers of a run say in sentences, and no more than they say."""

from __future__ import annotations

import math

from ncmi.reports import text
from ncmi.reports.slides.records import Measure, Metrics, SlideRun
from ncmi.reports.statistics import method_name

SCORE_NAMES = {
    "macro_f1": "macro F1",
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
}
DIGITS = 3
SIMULATION = "Simulation: no slide of this cohort is real."


def score(value: float) -> str:
    """A score in 0..1.

    >>> score(0.5224), score(float("nan"))
    ('0.522', '–')
    """
    return text.fixed(value, DIGITS)


def bounds(low: float, high: float) -> str:
    """An interval of scores.

    >>> bounds(0.44, 0.6), bounds(float("nan"), float("nan"))
    ('0.440 … 0.600', '–')
    """
    return f"{score(low)} … {score(high)}" if math.isfinite(low) and math.isfinite(high) else text.MISSING


def signed_bounds(interval: tuple[float, float] | None) -> str:
    """An interval of differences.

    >>> signed_bounds((-0.01, 0.2)), signed_bounds(None)
    ('−0.010 … +0.200', '–')
    """
    if interval is None or not all(map(math.isfinite, interval)):
        return text.MISSING
    return " … ".join(text.signed(bound, DIGITS) for bound in interval)


def mean_sd(mean: float, sd: float) -> str:
    """Mean ± sample standard deviation; the mean alone where there is no deviation.

    >>> mean_sd(0.5, 0.012), mean_sd(0.5, float("nan"))
    ('0.500 ± 0.012', '0.500')
    """
    return f"{score(mean)} ± {score(sd)}" if math.isfinite(sd) else score(mean)


def measured(measure: Measure) -> str:
    """A score with its interval in brackets."""
    return f"{score(measure.value)} ({bounds(measure.low, measure.high)})"


def run_verdict(run: SlideRun) -> list[str]:
    """Sentences on a single run; the first is the main one."""
    if run.results is None:
        return [f"This run is not finished: it {run.state}. There are no test results yet."]
    results = run.results
    main = results.primary_readouts[0]
    found = results.test[main]
    f1, auc = found.scores["macro_f1"], found.scores["auc"]
    percent = f"{100 * found.confidence:g} %"
    sentences = [
        f"{_decider(run, main)} reaches macro F1 {score(f1.value)} ({percent} interval {bounds(f1.low, f1.high)}) and "
        f"AUC {score(auc.value)} ({bounds(auc.low, auc.high)}) on {text.count(found.slides, 'test slide')} of "
        f"{text.count(found.patients, 'patient')}."
    ]
    if f1.low == f1.high:
        sentences.append("Every resample of these patients gives the same: the interval says nothing.")
    if results.simulation:
        sentences.append(SIMULATION)
    sentences += [*_chance(found), *_classes(found)]
    others = results.primary_readouts[1:]
    if others:
        told = "; ".join(
            f"{method_name(run.label, name)} {score(results.test[name].scores['macro_f1'].value)} and "
            f"{score(results.test[name].scores['auc'].value)}"
            for name in others
        )
        sentences.append(f"Read out otherwise, macro F1 and AUC are: {told}.")
    if run.folds:
        sentences.append(f"This is fold {run.fold + 1} of {run.folds}: the result is that of all folds together.")
    if results.skipped:
        sentences.append(f"{text.count(len(results.skipped), 'slide')} could not be used and took no part; see below.")
    sentences += [f"{method_name(run.label, main)}: {note}" for note in found.notes]
    sentences.append("One run says nothing about the spread over seeds; the intervals are about other patients.")
    return sentences


def _decider(run: SlideRun, readout: str) -> str:
    return f"{run.network} with {method_name(run.label, readout)}"


def _chance(found: Metrics) -> list[str]:
    """What deciding without looking would reach, and whether the AUC is clear of it."""
    slides = found.confusion.sum(axis=1)
    share = float(slides.max() / max(slides.sum(), 1))
    occurring = max(int((slides > 0).sum()), 1)
    sentences = [
        f"Without looking at any slide, AUC is 0.500, and always deciding for the largest class has accuracy "
        f"{score(share)} and macro F1 {score(2 * share / (1 + share) / occurring)}."
    ]
    auc = found.scores["auc"]
    if math.isfinite(auc.low) and auc.low <= 0.5:
        sentences.append("The interval of the AUC holds 0.5: that the model knows anything is not shown.")
    return sentences


def _classes(found: Metrics) -> list[str]:
    known = {name: measure for name, measure in found.recall.items() if math.isfinite(measure.value)}
    if len(known) < 2:
        return []
    worst = min(known, key=lambda name: known[name].value)
    best = max(known, key=lambda name: known[name].value)
    if known[worst].value == known[best].value:
        return [f"Recall is {score(known[best].value)} for every class."]
    return [
        f"Of the slides of a class, {100 * known[worst].value:.0f} % ({worst}) to {100 * known[best].value:.0f} % "
        f"({best}) are recognised."
    ]
