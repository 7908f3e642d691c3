"""What the numbers say, in sentences, and no more than they say. Every sentence says which read-out it speaks of."""

import math
from collections.abc import Sequence

import numpy as np

from ncmi.readouts.metrics import SHARE, in_words, unit_of
from ncmi.readouts.scores import Scores, unequal_in_words
from ncmi.recipes.names import NOT_THE_TEST_PART, READOUTS, method_label
from ncmi.report import text
from ncmi.report.records import Comparison, Run
from ncmi.report.statistics import (
    Row,
    baseline_of,
    best_rows,
    by_readout,
    complete_rows,
    score_value,
    shown_rows,
    without_head,
)
from ncmi.report.text import count, listed
from ncmi.training.schema import TuningRecord, fits_in_words, memorized_in_words, tuning_in_words

BY = {"head": "by the trained head", "cc": "by CC", "lp": "by LP", "knn": "by kNN"}
"""Read-outs in sentences."""


def verdict(record: Comparison, rows: Sequence[Row]) -> list[str]:
    """Sentences on a comparison: NCMI (else the best) against the baseline by its own first read-out, then by the
    others; the highest means; who else stands out; how finely it was measured.
    """
    sentences = missing_baseline(record) or _against(record, _judged(record, rows))
    if record.simulation:
        sentences.insert(1, text.SIMULATION)
    if record.kind != "bags" and record.unequal:
        sentences.append(unequal_in_words(record.unequal))
    sentences.append(highest(rows, record.judged[0]))
    sentences += _others(record, rows)
    if absent := without_head(rows):
        sentences.append(
            f"Without a trained head of {'its' if len(absent) == 1 else 'their'} own, and so not judged by one: "
            f"{listed(absent)}."
        )
    return sentences + _cautions(record, rows)


def missing_baseline(record: Comparison) -> list[str]:
    """A sentence where no run of the baseline has finished."""
    if any(baseline_of(record, network) for network in record.networks):
        return []
    return [f"No run of the baseline ({record.baseline_label}) has finished, so there are no differences to judge."]


def _judged(record: Comparison, rows: Sequence[Row]) -> list[Row]:
    """The rows of NCMI, or else those of the objective that is best by its own first read-out."""
    others = [row for row in rows if row.entry.objective != record.baseline]
    score = record.judged[0]
    first = [row for row in others if row.is_first and math.isfinite(row.scores[score].mean)]
    best = max(first, key=lambda row: row.scores[score].mean).entry.objective_label if first else ""
    ncmi = [row for row in others if row.entry.objective == "ncmi"]
    return ncmi or [row for row in others if row.entry.objective_label == best]


def _against(record: Comparison, rows: Sequence[Row]) -> list[str]:
    """Each objective against the baseline: by its own first read-out, and by others where they say something else."""
    sentences, score = [], record.judged[0]
    for label in dict.fromkeys(row.entry.objective_label for row in rows):
        same = [row for row in rows if row.entry.objective_label == label]
        first = [row for row in same if row.is_first]
        readout = first[0].readout
        # a headline by another read-out than the trained head says so
        by = BY.get(readout, f"by {readout}") + (", its own first read-out," if readout != "head" else "")
        sentences.append(_sentence(record, first, by))
        values = [[row.scores[score].compared.values for row in first]]
        for other, shown in by_readout(same).items():
            compared = [row.scores[score].compared.values for row in shown]
            if other != readout and any(compared):
                sentences += [_sentence(record, shown, BY[other])] if compared not in values else []
                values.append(compared)
    return sentences


def _sentence(record: Comparison, rows: Sequence[Row], by: str) -> str:
    """One objective by one read-out: on one network in full, on several in sum."""
    return _over_networks(record, rows, by) if len(record.networks) > 1 else against_baseline(record, rows[0], by)


def against_baseline(record: Comparison, row: Row, by: str = "") -> str:
    """One sentence on one row: direction, size, interval, number of pairs, and whether that is clear."""
    by = by or BY.get(row.readout, f"by {row.readout}")
    start, scores = f"{by[0].upper()}{by[1:]} {row.entry.objective_label}", record.judged
    if not all(row.scores[name].difference for name in scores):
        return f"{start} has no run with a seed and split of {record.baseline_label}: there is nothing to compare."
    of = [f" in {in_words(name)}" if len(scores) > 1 else "" for name in scores]
    parts = [_direction(record, row, name, words) for name, words in zip(scores, of, strict=True)]
    return f"{start} {'; it '.join(parts)}."


def _direction(record: Comparison, row: Row, score: str, of: str) -> str:
    unit, baseline, difference = unit_of(record.kind, score), record.baseline_label, row.scores[score].compared
    size = unit.signed(difference.mean)
    if size[0] in f"+{text.MINUS}":
        side = "above" if size.startswith("+") else "below"
        direction = f"is {side} {baseline} by {size.removeprefix(text.MINUS)}{unit.difference}{of}"
    else:
        direction = f"equals {baseline} in the mean ({size}{unit.difference}){of}"
    pairs = count(len(difference.values), "paired seed")
    if difference.interval is None:
        return f"{direction} ({pairs}): one pair has no interval, so nothing can be concluded about other seeds"
    judgment = f"{'' if difference.sign else 'not '}distinguishable from zero"
    if difference.too_coarse:
        judgment = "all seeds agree exactly, too coarse a measurement for an interval"
    return f"{direction} (95 % interval {unit.interval(difference.interval)}, {pairs}): {judgment}"


def _over_networks(record: Comparison, rows: Sequence[Row], by: str) -> str:
    parts = []
    start = f"{rows[0].entry.objective_label} against {record.baseline_label}, {by.removesuffix(',')}: "
    for name in record.judged:
        differences = {
            row.entry.network_label: row.scores[name].compared for row in rows if row.scores[name].difference
        }
        if not differences:
            return f"{start}no two runs share seed and split, so there is nothing to compare."
        unit, means = unit_of(record.kind, name), [difference.mean for difference in differences.values()]
        higher = f"{sum(mean > 0 for mean in means)} of {count(len(means), 'network')}"
        mean = f"{unit.signed(float(np.mean(means)))}{unit.difference} in the mean"
        part = f"{in_words(name)} is higher with {higher}, by {mean}"
        clear = [
            f"distinguishably {word} with {'all' if len(networks) == len(differences) > 1 else listed(networks)}"
            for word, sign in (("above", 1), ("below", -1))
            if (networks := [network for network, difference in differences.items() if difference.sign == sign])
        ]
        if any(difference.interval for difference in differences.values()):
            part += f" ({'; '.join(clear) or 'nowhere distinguishably'})"
        parts.append(part)
    return f"{start}{'; '.join(parts)}."


def highest(rows: Sequence[Row], score: str) -> str:
    """One sentence on the highest mean by each read-out, of the rows that have all seeds."""
    parts, most = [], 0
    for readout, group in by_readout(rows).items():
        compared, best = complete_rows(group, score), best_rows(group, score)
        if not best:
            continue
        most = max(most, len(compared))
        unit = unit_of(best[0].entry.runs[0].kind, score)
        left_out = len(group) - len(compared)
        missing = f", {left_out} with missing seeds left out" if left_out else ""
        labels = [row.entry.label for row in best]
        names = "; ".join(labels) if any(", " in label for label in labels) else listed(labels)
        mean = f"{unit.fixed(best[0].scores[score].mean)}{unit.sign}"
        parts.append(f"{BY[readout]} {names} ({mean}, of {count(len(compared), 'row')}{missing})")
    if not parts:
        return f"No {in_words(score)} was measured."
    caution = "; the highest of many is in part the luckiest" if most > 2 else ""
    return f"Highest mean {in_words(score)}: {'; '.join(parts)}{caution}."


def _others(record: Comparison, rows: Sequence[Row]) -> list[str]:
    """Which of the other objectives are clear of the baseline, each by its own first read-out."""
    sentences, score = [], record.judged[0]
    single = len(record.networks) == 1
    others = [row for row in rows if single and row.is_first and row.entry.objective != "ncmi"]
    for sign, side in ((1, "above"), (-1, "below")):
        if clear := [row.method for row in others if row.scores[score].compared.sign == sign]:
            sentences.append(
                f"Of the other methods, each against {record.baseline_label} by the same read-out, {listed(clear)} "
                f"{'is' if len(clear) == 1 else 'are'} distinguishably {side} it."
            )
    return sentences


def _cautions(record: Comparison, rows: Sequence[Row]) -> list[str]:
    scores = [row.scores[name] for row in shown_rows(rows) for name in record.judged]
    differences, sentences = [score.difference for score in scores if score.difference], []
    repeats = "repeats" if record.folds else "seeds"
    if differences and all(difference.interval is None for difference in differences):
        sentences.append(
            f"One {repeats[:-1]} has no interval over {repeats}: nothing can be concluded about other seeds."
        )
    elif len(differences) > 2:
        sentences.append(
            f"Differences are called distinguishable where their 95 % t-interval over {repeats} excludes zero; "
            f"intervals are not corrected for there being {len(differences)} of them, of which chance alone would let "
            f"about {len(differences) / 20:.1f} exclude it."
        )
    sentences += training_notes(record.runs)
    if record.kind != "bags" or record.runs[0].finished.judged != "test":
        sentences += fineness(record.runs)
    if record.unfinished:
        sentences.append(f"{count(len(record.unfinished), 'run')} not finished, and left out.")
    return sentences


def fineness(runs: Sequence[Run]) -> list[str]:
    """Which part is judged, if not the test part; how much one sample of it is, where all runs have the same number."""
    if others := {run.finished.judged for run in runs} - {"test"}:
        return [NOT_THE_TEST_PART[part] for part in sorted(others)]
    sizes = {run.finished.num_test for run in runs}
    if len(sizes) != 1:
        return []
    points = text.fixed(100 / max(*sizes, 1))
    return [f"The test set has {min(sizes)} samples: one sample more or less is {points} points."]


def run_verdict(run: Run) -> list[str]:
    """Sentences on a single run; the first is the main one."""
    if run.results is None:
        return [f"This run is not finished: it {run.state}. There are no test results yet."]
    return (_bag_verdict if run.kind == "bags" else _sample_verdict)(run)


def _sample_verdict(run: Run) -> list[str]:
    results = run.finished
    sentences = []
    for score in run.judged:
        unit = unit_of(run.kind, score)
        scores = ", ".join(
            f"{unit.fixed(score_value(readout.test, score))}{unit.sign} ({method_label(run.label, name)})"
            for name, readout in results.readouts.items()
            if name in results.primary_readouts
        )
        part = {"train": "training"}.get(results.judged, results.judged).capitalize()
        sentences.append(f"{part} {in_words(score)} on {results.data}, seed {results.seed}: {scores}.")
    if run.unequal:
        first = results.readouts[results.primary_readouts[0]].test
        sentences += [unequal_in_words(run.unequal), *_chance(first, "sample")]
    return [
        *sentences,
        *training_notes([run]),
        *fineness([run]),
        "One run says nothing about the spread over seeds.",
    ]


def _bag_verdict(run: Run) -> list[str]:
    results = run.finished
    first, *others = results.primary_readouts
    test, method = results.readouts[first].test, method_label(run.label, first)
    f1, auc = (SHARE.bounds((score.low, score.high)) for score in (test.macro_f1, test.macro_auc))
    sentences = [
        f"{run.network_label} with {method} reaches macro F1 {SHARE.fixed(test.macro_f1.value)} "
        f"({100 * test.confidence:g} % interval {f1}) and macro AUC {SHARE.fixed(test.macro_auc.value)} ({auc}) on "
        f"{count(test.samples, 'test slide')} of {count(test.groups or test.samples, 'patient')}."
    ]
    if test.macro_f1.low is not None and test.macro_f1.low == test.macro_f1.high:
        sentences.append("Every resample of these patients gives the same: the interval says nothing.")
    if results.simulation:
        sentences.append(text.SIMULATION)
    sentences += [*_chance(test, "slide"), *_recalls(test)]
    if others:
        tests = [(READOUTS.get(name, name), results.readouts[name].test) for name in others]
        parts = (f"{name} {SHARE.fixed(t.macro_f1.value)} and {SHARE.fixed(t.macro_auc.value)}" for name, t in tests)
        sentences.append(f"Read out otherwise, macro F1 and macro AUC are: {'; '.join(parts)}.")
    if run.folds:
        sentences.append(f"This is fold {run.fold + 1} of {run.folds}: the result is that of all folds together.")
    if results.skipped:
        sentences.append(f"{count(len(results.skipped), 'slide')} could not be used and took no part; see below.")
    sentences += [f"{method}: {note}" for note in test.notes]
    last = "One run says nothing about the spread over seeds; the intervals are about other patients."
    return [*sentences, *training_notes([run]), last]


def training_notes(runs: Sequence[Run]) -> list[str]:
    """Sentences on learning rates that were searched, on what read-outs were fitted to, and on networks that have
    memorized their training part at a rate that nobody has searched.
    """
    several = len({run.network for run in runs}) > 1
    tuned: dict[str, list[TuningRecord]] = {}
    for run in runs:
        if run.tuning:
            name = f"{run.network_label}, {run.label}" if several else run.label
            tuned.setdefault(name, []).append(run.tuning)
    fits = [readout.fit for run in runs for readout in run.finished.readouts.values()]
    last = [
        run.metrics["validation_loss"].tolist()
        for run in runs
        if run.finished.selection == "last" and run.tuning is None
    ]
    return tuning_in_words(tuned, len(runs)) + fits_in_words(fits) + memorized_in_words(last)


def _chance(test: Scores, noun: str) -> list[str]:
    """What deciding without looking would reach, and whether the AUC is clear of it."""
    supports = [scores.support for scores in test.classes]
    share = max(supports, default=0) / max(sum(supports), 1)
    occurring = max(sum(support > 0 for support in supports), 1)
    sentences = [
        f"Without looking at any {noun}, AUC is 0.500, and always deciding for the largest class has accuracy "
        f"{SHARE.fixed(share)} and macro F1 {SHARE.fixed(2 * share / (1 + share) / occurring)}."
    ]
    low = test.macro_auc.low
    if low is not None and low <= 0.5:
        sentences.append("The interval of the AUC holds 0.5: that the model knows anything is not shown.")
    return sentences


def _recalls(test: Scores) -> list[str]:
    recalls = sorted((scores.recall.value, scores.name) for scores in test.classes if scores.recall.value is not None)
    if len(recalls) < 2:
        return []
    (low, worst), (high, best) = recalls[0], recalls[-1]
    if low == high:
        return [f"Recall is {SHARE.fixed(high)} for every class."]
    return [f"Of the slides of a class, {100 * low:.0f} % ({worst}) to {100 * high:.0f} % ({best}) are recognized."]
