"""Ranks over data sets, what tests say of them, and what they cannot say."""

from __future__ import annotations

import math

import numpy as np

from _study_figures import difference_diagram
from _study_methods import Method
from _study_statistics import ALPHA, Matrix, critical_difference, friedman, holm, least_p, ranks
from _study_tables import Outcomes, Report, markdown, percent
from ncmi.reports.statistics import WILCOXON_MINIMUM, wilcoxon_p
from ncmi.reports.text import MISSING, signed


def ranking(report: Report, methods: list[Method], outcomes: Outcomes) -> str:
    """The section on ranks; figures and the critical-difference diagram go into the report."""
    complete = {name: found for name, found in outcomes.items() if all(one.name in found for one in methods)}
    if len(complete) < 2 or len(methods) < 3:
        return ""
    blocks: dict[str, Matrix] = {}
    for name, found in complete.items():
        common = set.intersection(*(set(found[one.name].records) for one in methods))
        blocks[name] = np.array([[found[one.name].scores()[seed] for one in methods] for seed in sorted(common)])
    blocks = {name: block for name, block in blocks.items() if len(block)}
    scores = np.array([block.mean(0) for block in blocks.values()])
    average = ranks(scores).mean(0)
    every = np.concatenate(list(blocks.values()))
    apart = critical_difference(len(methods), len(scores))
    test, loose = friedman(scores), friedman(every)
    assert test is not None
    assert loose is not None
    labels = [one.label for one in methods]
    marked = next((one.label for one in methods if one.name == "ncmi"), "")
    named = {label: float(rank) for label, rank in zip(labels, average, strict=True)}
    report.pictures["critical-difference"] = difference_diagram(named, apart, len(scores), marked)
    lines = [
        "### Ranks",
        markdown(["", *labels], [["average rank", *map(percent, average)]]),
        f"Over {len(scores)} data sets ({', '.join(blocks)}), by mean test accuracy over seeds; 1 is best. "
        f"Friedman: χ² = {test.chi_square:.2f}, p = {test.p:.3g}; Iman–Davenport: F = {test.f:.2f}, "
        f"p = {test.f_p:.3g}. "
        f"Nemenyi's critical difference at {ALPHA:g} is {apart:.2f} ranks.",
        f"With every seed of a set as a block of its own ({len(every)}), p would be {loose.p:.3g}; nothing to rely on, "
        "for a set's seeds are no sample of data sets.",
    ]
    if "ncmi" in [one.name for one in methods]:
        lines.append(_signed_ranks(methods, scores))
    report.figures["ranks"] = {
        "sets": list(blocks),
        "average": {one.name: round(float(rank), 3) for one, rank in zip(methods, average, strict=True)},
        "friedman_p": test.p,
        "iman_davenport_p": test.f_p,
        "critical_difference": round(apart, 3),
    }
    return "\n\n".join(lines)


def _signed_ranks(methods: list[Method], scores: Matrix) -> str:
    """NCMI against each of the others over data sets: Wilcoxon with Holm's correction, and what it can show."""
    own = [one.name for one in methods].index("ncmi")
    others = [place for place in range(len(methods)) if place != own]
    gaps = {place: scores[:, own] - scores[:, place] for place in others}
    raw = [wilcoxon_p(list(gaps[place])) for place in others]
    adjusted = holm(raw)
    rows = [
        [methods[place].label, signed(float(gaps[place].mean())), _shown(p), _shown(corrected)]
        for place, p, corrected in zip(others, raw, adjusted, strict=True)
    ]
    count = len(scores)
    least = least_p(count)
    first = ALPHA / len(others)
    if count < WILCOXON_MINIMUM:
        able = f"with {count} data sets there is no such test"
    elif least > first:
        able = (
            f"with {count} data sets the least possible p is {least:.3g}, above Holm's first threshold {first:.3g}: "
            "no difference can come out as significant here, however regular"
        )
    else:
        able = (
            f"with {count} data sets the least possible p is {least:.3g} (all differences of one sign), Holm's first "
            f"threshold {first:.3g}: only differences that hold on nearly all sets can come out as significant, and a "
            "p above it is no sign that methods are equal"
        )
    table = markdown(["NCMI against", "mean difference", "Wilcoxon p", "Holm"], rows)
    return f"{table}\n\nSigned ranks over data sets: {able}."


def _shown(p: float) -> str:
    return MISSING if math.isnan(p) else f"{p:.3g}"
