"""What a reproduced table or figure says, in sentences, and no more than that."""

from __future__ import annotations

import math

from ncmi.reports import text
from ncmi.reports.figures.correlation import in_words
from ncmi.reports.reproduction import GroupRecord, ReproductionRecord
from ncmi.reports.reproduction_correlation import correlations
from ncmi.reports.statistics import Row, best_rows, complete_rows, results_of
from ncmi.reports.verdict import against_baseline, baseline_name, highest, listed


def reproduction_verdict(record: ReproductionRecord) -> list[str]:
    """Paragraphs: what was found in each group, then how finely it was measured."""
    if record.experiment == "figure2":
        found = _correlation(record)
    elif record.experiment == "figure3":
        found = _batch_sizes(record)
    else:
        found = [_group(group, len(record.groups) > 1) for group in record.measured]
    sizes = {results_of(run).num_test for run in record.runs}
    if len(sizes) == 1:
        size = sizes.pop()
        found.append(
            f"The test set has {size} samples: one sample more or less is {text.fixed(100 / max(size, 1))} points."
        )
    left = len(record.unfinished)
    if left:
        found.append(f"{left} of {left + len(record.runs)} runs have not finished: this is not the last word.")
    return found


def _group(group: GroupRecord, several: bool) -> str:
    """Which row is highest, and how it and the best NCMI row stand to the baseline."""
    start = f"{group.title}: " if several else ""
    sentences = [start + highest(group.rows)]
    name = baseline_name(group.record)
    best = [row for row in best_rows(group.rows) if not row.is_baseline]
    own = [row for row in complete_rows(group.rows) if row.objective == "ncmi" and not row.is_baseline]
    judged = [*best, max(own, key=lambda row: row.mean)] if own else best or _others(group)
    if not any(row.is_baseline for row in group.rows):
        return f"{sentences[0]} No run of the baseline ({name}) has finished, so there are no differences to judge."
    sentences += [against_baseline(row, name) for row in dict.fromkeys(judged)]
    return " ".join(sentences)


def _others(group: GroupRecord) -> list[Row]:
    others = [row for row in complete_rows(group.rows) if not row.is_baseline]
    return [max(others, key=lambda row: row.mean)] if others else []


def _correlation(record: ReproductionRecord) -> list[str]:
    sentences = []
    for found in correlations(record):
        if not math.isfinite(found.plotted.r):
            sentences.append(f"NCMI with {found.title}: too few networks, or no spread, for a correlation.")
            continue
        bounds = found.plotted.interval
        clear = bounds is not None and (bounds[0] > 0 or bounds[1] < 0)
        judgement = "distinguishable from zero" if clear else "not distinguishable from zero"
        told = f": the {'lower' if found.plotted.r < 0 else 'higher'} NCMI, the higher the accuracy" if clear else ""
        sentences.append(
            f"NCMI with {found.title} against test accuracy over {in_words(found)}. "
            f"The correlation is {judgement}{told}."
        )
    return sentences


def _batch_sizes(record: ReproductionRecord) -> list[str]:
    """For each network: who is highest at which batch sizes, where that is clear, and how far each method moves."""
    sentences = []
    for network in dict.fromkeys(group.network for group in record.measured):
        groups = [group for group in record.measured if group.network == network]
        groups.sort(key=lambda group: group.batch_size)
        winners: dict[str, list[str]] = {}
        clear: dict[str, list[str]] = {}
        for group in groups:
            for row in best_rows(group.rows):
                winners.setdefault(row.method, []).append(str(group.batch_size))
            for row in group.rows:
                if row.difference and row.difference.sign:
                    side = "above" if row.difference.sign > 0 else "below"
                    clear.setdefault(f"{row.method} is {side}", []).append(str(group.batch_size))
        name = baseline_name(groups[0].record)
        parts = [f"{method} at {_sizes(sizes)}" for method, sizes in winners.items()]
        sentences.append(f"{network}, highest mean: {'; '.join(parts)}.")
        told = [f"{who} {name} at {_sizes(sizes)}" for who, sizes in clear.items()]
        sentences.append(
            f"By paired differences: {'; '.join(told)}; elsewhere not distinguishable."
            if told
            else f"No paired difference from {name} is distinguishable from zero at any batch size."
        )
        moves = [
            f"{method} {text.fixed(max(means) - min(means))}"
            for method, means in _means(groups).items()
            if len(means) > 1
        ]
        if moves:
            sentences.append(f"From its best to its worst batch size a mean moves by, in points: {', '.join(moves)}.")
    return sentences


def _means(groups: list[GroupRecord]) -> dict[str, list[float]]:
    means: dict[str, list[float]] = {}
    for group in groups:
        for row in group.rows:
            if math.isfinite(row.mean):
                means.setdefault(row.method, []).append(row.mean)
    return means


def _sizes(sizes: list[str]) -> str:
    return f"batch size {sizes[0]}" if len(sizes) == 1 else f"batch sizes {listed(sizes)}"
