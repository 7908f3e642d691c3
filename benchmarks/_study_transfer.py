"""Reports of the parts ``transfer`` and ``neighbourhood``: a default against tuned rivals, and among its neighbours."""

from __future__ import annotations

import math
from collections.abc import Mapping

from _study_methods import NEIGHBOURS, TRANSFER, Method, told
from _study_plan import neighbour
from _study_ranks import ranking
from _study_search import Search, Study, search
from _study_statistics import neighbourhood
from _study_tables import (
    READOUTS,
    SPLITS_NOTE,
    Outcome,
    Outcomes,
    Report,
    difference,
    markdown,
    seeds_told,
    wins,
)
from ncmi.reports.text import MISSING, interval, signed

BAR = 0.2


def transfer_report(study: Study) -> Report:
    """Tables, ranks and the critical-difference diagram of what is known."""
    methods = study.chosen(TRANSFER)
    searches = {(name, one.name): search(study, name, one) for name in study.sets for one in methods}
    outcomes: Outcomes = {name: {} for name in study.sets}
    for (name, method), found in searches.items():
        if found.choice is not None:
            outcome = Outcome.of(study, name, found.choice.setting)
            if outcome.records:
                outcomes[name][method] = outcome
    outcomes = {name: found for name, found in outcomes.items() if found}
    report = Report()
    report.sections += [_choices(study, methods, searches), _accuracies(methods, outcomes)]
    report.sections += [_differences(methods, outcomes), _readouts(outcomes)]
    more = (_calibration(methods, outcomes), ranking(report, methods, outcomes), _bars(outcomes))
    report.sections += [section for section in more if section]
    report.figures["sets"] = {
        name: {
            method: {
                **outcome.figures(),
                "searched": [
                    [one.rate, dict(one.options), round(one.accuracy, 3)]
                    for one in searches[name, method].tried
                    if math.isfinite(one.accuracy)
                ],
            }
            for method, outcome in found.items()
        }
        for name, found in outcomes.items()
    }
    return report


def _choices(study: Study, methods: list[Method], searches: Mapping[tuple[str, str], Search]) -> str:
    searched = [method for method in methods if len(method.rates) + len(method.grid) > 1]

    def cell(name: str, method: Method) -> str:
        found = searches[name, method.name]
        if found.choice is None:
            return MISSING
        return ", ".join(part for part in (f"×{found.choice.rate:g}", told(found.choice.options)) if part)

    rows = [[name, *(cell(name, method) for method in searched)] for name in study.sets]
    rows = [row for row in rows if set(row[1:]) != {MISSING}]
    return (
        "### Settings chosen\n\nBy mean validation accuracy of tuning seeds (100, …), none of which is reported: "
        "multiple of the recipe's learning rate, then the loss's own option where another than its default was chosen. "
        "NCMI is not searched.\n\n" + markdown(["data set", *(method.label for method in searched)], rows)
    )


def _accuracies(methods: list[Method], outcomes: Outcomes) -> str:
    rows = []
    for name, found in outcomes.items():
        best = max((round(outcome.mean(), 2) for outcome in found.values()), default=math.nan)
        cells = []
        for method in methods:
            outcome = found.get(method.name)
            cell = outcome.cell() if outcome else MISSING
            cells.append(f"**{cell}**" if outcome and round(outcome.mean(), 2) == best else cell)
        rows.append([name, *cells, seeds_told(found.values())])
    return "### Test accuracy, %\n\n" + markdown(["data set", *(method.label for method in methods), "seeds"], rows)


def _differences(methods: list[Method], outcomes: Outcomes) -> str:
    others = [method for method in methods if method.name != "cross_entropy"]
    columns = {
        method.name: {
            name: found[method.name].minus(found.get("cross_entropy"))
            for name, found in outcomes.items()
            if method.name in found
        }
        for method in others
    }
    rows = [[name, *(difference(columns[method.name].get(name)) for method in others)] for name in outcomes]
    rows.append(["won/tied/lost (surely)", *(wins(columns[method.name].values()) for method in others)])
    note = f"{SPLITS_NOTE} Bold, and surely: the interval leaves zero out."
    return (
        "### Difference from tuned cross-entropy, points\n\n"
        + markdown(["data set", *(method.label for method in others)], rows)
        + f"\n\n{note}"
    )


def _readouts(outcomes: Outcomes) -> str:
    pairs = [(method, readout) for method in ("ncmi", "cross_entropy") for readout in READOUTS]
    short = {"ncmi": "NCMI", "cross_entropy": "CE"}
    rows = [
        [name, *(found[method].cell(readout=readout) if method in found else MISSING for method, readout in pairs)]
        for name, found in outcomes.items()
    ]
    head = [f"{short[method]} {readout}" for method, readout in pairs]
    return "### Read-outs, test accuracy, %\n\n" + markdown(["data set", *head], rows)


def _calibration(methods: list[Method], outcomes: Outcomes) -> str:
    """Negative log-likelihood and calibration errors of the read-out that counts, where runs have them."""
    measures = [
        measure
        for measure in ("test_nll", "test_calibration_error", "test_calibrated_nll", "test_calibrated_error")
        if any(
            measure in record.content["readouts"]["head"]
            for found in outcomes.values()
            for outcome in found.values()
            for record in outcome.records.values()
        )
    ]

    def cell(outcome: Outcome | None, measure: str) -> str:
        try:
            return f"{outcome.mean(measure) / 100:.3f}" if outcome else MISSING
        except KeyError:
            return MISSING

    tables = []
    for measure in measures:
        rows = [[name, *(cell(found.get(one.name), measure) for one in methods)] for name, found in outcomes.items()]
        tables.append(f"`{measure}`\n\n" + markdown(["data set", *(method.label for method in methods)], rows))
    return "### Probabilities, mean over seeds\n\n" + "\n\n".join(tables) if tables else ""


def _bars(outcomes: Outcomes) -> str:
    rows = []
    above = level = 0
    for name, found in outcomes.items():
        if "ncmi" not in found or "cross_entropy" not in found:
            continue
        gap = found["ncmi"].minus(found["cross_entropy"])
        rivals = [one for method, one in found.items() if method != "ncmi"]
        best = max(rivals, key=Outcome.mean)
        if gap is None:
            continue
        above += gap.mean > 0
        level += gap.mean >= -BAR
        told_best = difference(found["ncmi"].minus(best))
        rows.append([name, difference(gap), "✓" if gap.mean >= -BAR else "✗", told_best, best.setting.objective])
    if not rows:
        return ""
    return (
        "### NCMI at its default against tuned rivals, points\n\n"
        + markdown(["data set", "− cross-entropy", f"≥ −{BAR}", "− best rival", "best rival (by test mean)"], rows)
        + f"\n\nNot below tuned cross-entropy by more than {BAR} points on {level} of {len(rows)} data sets; above it "
        f"on {above}. The best rival is picked by test accuracy, in its favour."
    )


def neighbourhood_report(study: Study) -> Report:
    """Is the default within 0.2 points of the best of its neighbours on each set, by validation accuracy?"""
    report = Report(figures={"sets": {}})
    rows, means = [], []
    for name in study.sets:
        outcomes = {
            label: Outcome.of(study, name, neighbour(study, name, options, training))
            for label, options, training in NEIGHBOURS
        }
        scores = {label: one.scores("validation_accuracy") for label, one in outcomes.items() if one.records}
        if not scores:
            continue
        means.append([name, *(outcomes[label].cell("validation_accuracy") for label, _, _ in NEIGHBOURS)])
        report.figures["sets"][name] = {label: one.figures() for label, one in outcomes.items() if one.records}
        found = neighbourhood(scores, NEIGHBOURS[0][0])
        if found is None:
            continue
        gain, within = found.gain, "✓" if found.honest <= BAR else "✗"
        spread_told = interval(gain.interval) if found.best != NEIGHBOURS[0][0] else MISSING
        halves = f"{found.times} of {found.halvings}"
        rows.append([name, found.best, signed(gain.mean), spread_told, signed(found.honest), within, halves])
        report.figures["sets"][name]["split_half_gain"] = round(found.honest, 3)
    head = ["data set", "best", "gain", "95 % interval", "split-half gain", f"≤ {BAR}", "default chosen"]
    report.sections += [
        "### Validation accuracy of NCMI and its neighbours, %\n\n"
        + markdown(["data set", *(label for label, _, _ in NEIGHBOURS)], means),
        "### What choosing a neighbour would gain over the default, points of validation accuracy\n\n"
        + markdown(head, rows)
        + "\n\nThe gain on the seeds that it was chosen on is biased upwards: it is the largest of "
        f"{len(NEIGHBOURS)} noisy means. The split-half gain chooses on one half of the seeds and measures on the "
        "other, over all halvings: no such bias, but chosen on half as many seeds.",
    ]
    return report
