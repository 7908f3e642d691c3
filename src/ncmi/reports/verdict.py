"""What the numbers say, in sentences, and no more than they say."""

from __future__ import annotations

from collections.abc import Sequence

from ncmi.reports import text
from ncmi.reports.records import ComparisonRecord, RunRecord
from ncmi.reports.statistics import (
    Row,
    baseline_entry,
    best_rows,
    comparison_rows,
    complete_rows,
    method_name,
    results_of,
)

_SPOKEN = {"cross_entropy": "cross-entropy"}


def verdict(record: ComparisonRecord) -> list[str]:
    """Sentences on a comparison: each NCMI row (else the best row) against the baseline, then the rest."""
    rows = comparison_rows(record)
    name = baseline_name(record)
    if baseline_entry(record) is None:
        sentences = [f"No run of the baseline ({name}) has finished, so there are no differences to judge."]
    else:
        judged = [row for row in rows if row.objective == "ncmi" and not row.is_baseline]
        judged = judged or [row for row in rows if not row.is_baseline][:1]
        sentences = [against_baseline(row, name) for row in judged]
    sentences.append(highest(rows))
    others = [row for row in rows if row.objective != "ncmi"]
    for sign, side in ((1, "above"), (-1, "below")):
        clear = [row.method for row in others if row.difference and row.difference.sign == sign]
        if clear:
            verb = "is" if len(clear) == 1 else "are"
            sentences.append(f"Of the other methods, {listed(clear)} {verb} distinguishably {side} {name}.")
    sizes = {results_of(run).num_test for run in record.runs}
    if len(sizes) == 1:
        size = sizes.pop()
        sentences.append(
            f"The test set has {size} samples: one sample more or less is {text.fixed(100 / max(size, 1))} points."
        )
    return sentences


def against_baseline(row: Row, baseline: str) -> str:
    """One sentence on one row: direction, size, interval, number of pairs, and whether that is clear."""
    difference = row.difference
    if difference is None:
        return f"{row.method} has no run with a seed and split of {baseline}: there is nothing to compare."
    points = text.signed(difference.mean)
    if points.startswith("+"):
        direction = f"is above {baseline} by {points} points"
    elif points.startswith(text.MINUS):
        direction = f"is below {baseline} by {points.removeprefix(text.MINUS)} points"
    else:
        direction = f"equals {baseline} in the mean ({points} points)"
    pairs = text.count(len(difference.values), "paired seed")
    if difference.interval is None:
        return f"{row.method} {direction} ({pairs}): one pair has no interval, so nothing can be concluded."
    judgement = "distinguishable from zero" if difference.sign else "not distinguishable from zero"
    if difference.too_coarse:
        judgement = "all seeds agree exactly, too coarse a measurement for an interval"
    bounds = text.interval(difference.interval)
    return f"{row.method} {direction} (95 % interval {bounds}, {pairs}): {judgement}."


def run_verdict(run: RunRecord) -> list[str]:
    """Sentences on a single run."""
    label = run.label
    if run.results is None:
        return [f"This run is not finished: it {run.state}. There are no test results yet."]
    results = run.results
    scores = ", ".join(
        f"{text.fixed(100 * results.readouts[name].test_accuracy)} % ({method_name(label, name)})"
        for name in results.primary_readouts
    )
    return [
        f"Test accuracy on {results.data}, seed {results.seed}: {scores}.",
        f"The test set has {results.num_test} samples: one sample more or less is "
        f"{text.fixed(100 / max(results.num_test, 1))} points.",
        "One run says nothing about the spread over seeds.",
    ]


def baseline_name(record: ComparisonRecord) -> str:
    """The baseline as it reads in a sentence."""
    entry = baseline_entry(record)
    return _SPOKEN.get(record.baseline, entry.label if entry else record.baseline)


def highest(rows: Sequence[Row]) -> str:
    """One sentence on the highest mean of the rows that have all seeds."""
    compared = complete_rows(rows)
    best = best_rows(rows)
    if not best:
        return "No accuracy was measured."
    verb = "has" if len(best) == 1 else "have"
    caution = "; the highest of many is in part the luckiest" if len(compared) > 2 else ""
    left_out = len(rows) - len(compared)
    missing = f" ({text.count(left_out, 'row')} with missing seeds left out)" if left_out else ""
    return (
        f"{listed([row.method for row in best])} {verb} the highest mean, {text.fixed(best[0].mean)} %, "
        f"of {text.count(len(compared), 'row')}{missing}{caution}."
    )


def listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
