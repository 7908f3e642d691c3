"""Reports of the parts ``noise``, ``batch``, ``tail`` and ``curves``."""

from __future__ import annotations

import math
import statistics
from typing import Any

from _study_figures import Curve, accuracy_curves
from _study_methods import BATCH, CURVES, NOISE, ROBUST_RIVALS, TAIL, Method, NoiseKind, told
from _study_plan import (
    batch_setting,
    batch_sizes,
    conditions,
    curve_setting,
    damage,
    is_dear,
    noise_search,
    tail_search,
)
from _study_search import Study
from _study_tables import SPLITS_NOTE, Outcome, Report, difference, markdown, percent, seeds_told
from ncmi.reports.figures.palette import KNOWN
from ncmi.reports.text import MISSING, signed

BATCH_BAR = 0.5


def noise_report(study: Study) -> Report:
    """Test accuracy with wrong training labels, against cross-entropy and against the better robust rival."""
    report = Report(figures={"sets": {}})
    report.sections.append(
        "Labels of the training part are wrong, those of validation and test are right. Learning rates and options are "
        "chosen on the validation part with seeds of their own, and so with right labels, as is usual in published "
        "comparisons and seldom possible in practice; every method has the same number of rates to choose from."
    )
    methods = study.chosen(NOISE)
    for name in study.sets:
        found = {
            (level, kind, method.name): one
            for level, kind in conditions(study)
            for method in methods
            if (one := _noise_outcome(study, name, method, level, kind)) is not None
        }
        if not found:
            continue
        tables = [_noise_table(methods, found, level, kind) for level, kind in conditions(study)]
        dear = "; searched at its first noisy level only" if study.tune_seeds != 0 and is_dear(name) else ""
        report.sections.append(f"### {name}: wrong labels{dear}\n\n" + "\n\n".join(filter(None, tables)))
        report.figures["sets"][name] = {
            f"{kind} {level:g}: {method}": one.figures() for (level, kind, method), one in found.items()
        }
    report.sections.append(SPLITS_NOTE)
    return report


def _noise_outcome(study: Study, name: str, method: Method, level: float, kind: NoiseKind) -> Outcome | None:
    choice = noise_search(study, name, method, level, kind).choice
    outcome = Outcome.of(study, name, choice.setting.on(damage(level, kind))) if choice else None
    return outcome if outcome and outcome.records else None


def _noise_table(
    methods: list[Method],
    found: dict[tuple[float, NoiseKind, str], Outcome],
    level: float,
    kind: NoiseKind,
) -> str:
    def at(method: str) -> Outcome | None:
        return found.get((level, kind, method))

    rivals = [one for name in ROBUST_RIVALS if (one := at(name)) is not None]
    best = max(rivals, key=Outcome.mean, default=None)
    rows = []
    for method in methods:
        outcome = at(method.name)
        if outcome is None:
            continue
        rows.append(
            [
                method.label,
                outcome.cell(),
                _gap(outcome, at("cross_entropy")),
                _gap(outcome, best),
                told({**dict(outcome.setting.options), **dict(outcome.setting.training)}) or "as usual",
                seeds_told([outcome]),
            ]
        )
    if not rows:
        return ""
    title = f"{kind}, {100 * level:g} % wrong" if level else "right labels"
    head = [title, "test accuracy, %", "− cross-entropy", "− better of GCE and SCE", "chosen", "seeds"]
    return markdown(head, rows)


def _gap(outcome: Outcome, other: Outcome | None, measure: str = "test_accuracy") -> str:
    return "" if outcome is other else difference(outcome.minus(other, measure))


def batch_report(study: Study) -> Report:
    """Test accuracy by batch size, and how far apart the means are."""
    report = Report(figures={"sets": {}})
    rule = (
        "Learning rates follow the batch size: its root with AdamW, in proportion with SGD, from the recipe's."
        if study.scale_rate
        else "Learning rates are the recipe's at every batch size."
    )
    report.sections.append(f"{rule} The number of epochs is the same. Range: highest minus lowest mean, points.")
    for name in study.sets:
        sizes = batch_sizes(study, name)
        rows: list[list[str]] = []
        figures: dict[str, Any] = {}
        for method in study.chosen(BATCH):
            found = {size: Outcome.of(study, name, batch_setting(study, name, method, size)[0]) for size in sizes}
            means = [one.mean() for one in found.values() if one.records]
            if not means:
                continue
            apart = max(means) - min(means)
            cells = [found[size].cell() for size in sizes]
            rows.append([method.label, *cells, percent(apart), "✓" if apart <= BATCH_BAR else "✗"])
            figures |= {f"{method.name} {size}": one.figures() for size, one in found.items() if one.records}
        if rows:
            head = [f"{name}, batch", *map(str, sizes), "range", f"≤ {BATCH_BAR}"]
            report.sections.append(markdown(head, rows))
            report.figures["sets"][name] = figures
    return report


def tail_report(study: Study) -> Report:
    """Balanced test accuracy after training on a long tail."""
    report = Report(figures={"sets": {}, "ratio": study.ratio})
    report.sections.append(
        f"The training part's largest class has {study.ratio:g} times the samples of its smallest; validation and test "
        f"are as they were. All methods at the recipe's settings. {SPLITS_NOTE}"
    )
    measure = "test_balanced_accuracy"
    for name in study.sets:
        found: dict[str, Outcome] = {}
        for method in study.chosen(TAIL):
            choice = tail_search(study, name, method).choice
            outcome = Outcome.of(study, name, choice.setting) if choice else None
            if outcome and outcome.records:
                found[method.name] = outcome
        rows = [
            [
                method.label,
                found[method.name].cell(measure),
                _gap(found[method.name], found.get("cross_entropy"), measure),
                _gap(found[method.name], found.get("balanced_ce"), measure),
                found[method.name].cell(),
                seeds_told([found[method.name]]),
            ]
            for method in study.chosen(TAIL)
            if method.name in found
        ]
        if rows:
            head = [name, "balanced accuracy, %", "− cross-entropy", "− balanced CE", "accuracy, %", "seeds"]
            report.sections.append(markdown(head, rows))
            report.figures["sets"][name] = {method: one.figures() for method, one in found.items()}
    return report


def curves_report(study: Study) -> Report:
    """Validation accuracy of the trained head after each epoch."""
    report = Report(figures={"sets": {}})
    pictures: dict[str, list[Curve]] = {}
    for name in study.sets:
        rows: list[list[str]] = []
        epochs: list[int] = []
        for method in study.chosen(CURVES):
            candidate = curve_setting(study, name, method)
            records = Outcome.of(study, name, candidate.setting).records if candidate else {}
            if candidate is None or not records:
                continue
            seeds = [[100 * value for value in record.content["curve"]] for record in records.values()]
            means = [statistics.fmean(values) for values in zip(*seeds, strict=True)]
            epochs = epochs or _some_epochs(len(means))
            label = method.label if candidate.rate == 1 else f"{method.label}, rate ×{candidate.rate:g}"
            rows.append([label, *(percent(means[one - 1]) if one <= len(means) else MISSING for one in epochs)])
            pictures.setdefault(name, []).append((label, seeds, KNOWN[method.objective]))
            report.figures["sets"].setdefault(name, {})[method.name] = {
                "rate": candidate.rate,
                "seeds": list(records),
                "validation_accuracy": [[round(value, 3) for value in values] for values in seeds],
            }
        if len(rows) == 2:
            first, second = ([float(cell) if cell != MISSING else math.nan for cell in row[1:]] for row in rows)
            gaps = (signed(one - other) for one, other in zip(first, second, strict=True))
            rows.append([f"{rows[0][0]} − {rows[1][0]}", *gaps])
        if rows:
            report.sections.append(markdown([f"{name}, after epoch", *map(str, epochs)], rows))
    if pictures:
        note = "Validation accuracy, %, of the trained head (for NCMI: of its trained centroids), mean over seeds."
        report.sections.insert(0, note)
        report.pictures["curves"] = accuracy_curves(pictures)
    return report


def _some_epochs(count: int) -> list[int]:
    """All of few epochs, about a dozen of many.

    >>> _some_epochs(30)
    [3, 6, 9, 12, 15, 18, 21, 24, 27, 30]
    """
    step = max(1, math.ceil(count / 12))
    return [epoch for epoch in range(1, count + 1) if epoch % step == 0 or epoch == count]
