"""How far probabilities can be trusted: the section of a run's page, and that of a comparison's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ncmi.reports import captions, text
from ncmi.reports import elements as e
from ncmi.reports.figures.reliability import reliability_panel
from ncmi.reports.records import EntryRecord, Readout, Results
from ncmi.reports.rows import row_mark
from ncmi.reports.statistics import Row, method_name, results_of


@dataclass(frozen=True)
class _Measure:
    """A column: its value, of which lower is better unless it is a setting."""

    heading: str
    value: Callable[[Readout], float]
    decimals: int
    is_setting: bool = False


_MEASURES = (
    _Measure("NLL", lambda one: one.nll, 4),
    _Measure("NLL, /τ", lambda one: one.calibrated_nll, 4),
    _Measure("ECE %", lambda one: 100 * one.calibration_error, 2),
    _Measure("ECE %, /τ", lambda one: 100 * one.calibrated_error, 2),
    _Measure("Brier", lambda one: one.brier, 4),
    _Measure("τ", lambda one: one.temperature, 2, is_setting=True),
)
_HEADINGS = tuple(measure.heading for measure in _MEASURES)


def run_calibration(label: str, results: Results, numbers: Iterator[int]) -> str:
    """The section on a run's probabilities; empty for a run in which they were not measured."""
    measured = {name: one for name, one in results.readouts.items() if _is_measured(one)}
    if not measured:
        return ""
    lines = [
        (
            e.escape(name) + (" (primary)" if name in results.primary_readouts else ""),
            *(text.fixed(measure.value(one), measure.decimals) for measure in _MEASURES),
        )
        for name, one in measured.items()
    ]
    parts = [e.table(("Read-out", *_HEADINGS), lines), e.paragraph(captions.CALIBRATION, "note")]
    if not results.num_validation:
        parts.append(e.paragraph(captions.NO_TEMPERATURE, "note"))
    panels = []
    for readout in results.primary_readouts:
        scale = text.significant(results.readouts[readout].temperature)
        for state, bins in results.reliability.get(readout, {}).items():
            told = f"divided by τ = {scale}" if state == "calibrated" else "as trained"
            title = f"{method_name(label, readout)}, {told}"
            panels.append(reliability_panel(f"reliability-{readout}-{state}", title, bins))
    if panels:
        parts.append(e.figure(next(numbers), captions.RELIABILITY, panels))
    return e.section("Calibration", *parts)


def comparison_calibration(entries: Sequence[EntryRecord], rows: Sequence[Row]) -> str:
    """The table of all methods' probabilities, means over seeds; empty where no run has measured them."""
    runs = {entry.label: [results_of(run) for run in entry.runs] for entry in entries}
    found: list[tuple[Row, list[Readout]]] = []
    for row in rows:
        readouts = [results.readouts.get(row.readout) for results in runs[row.label]]
        measured = [one for one in readouts if one is not None and _is_measured(one)]
        if measured:
            found.append((row, measured))
    if not found:
        return ""
    columns = [_column(measure, [measured for _, measured in found]) for measure in _MEASURES]
    lines, marks = [], {}
    for index, (row, measured) in enumerate(found):
        lines.append([e.escape(row.method), str(len(measured)), *(column[index] for column in columns)])
        marks[index] = row_mark(row, found[index + 1][0] if index + 1 < len(found) else None)
    return e.section(
        "Calibration",
        e.table(("Method", "n", *_HEADINGS), lines, marks={index: mark for index, mark in marks.items() if mark}),
        e.paragraph(f"{captions.CALIBRATION} {captions.CALIBRATION_MEANS}", "note"),
    )


def _column(measure: _Measure, found: Sequence[Sequence[Readout]]) -> list[str]:
    """Mean ± sd of each row; in bold the lowest mean, in the decimals that are printed, of rows with the most seeds."""
    most = max(map(len, found))
    means, cells = [], []
    for measured in found:
        values = [measure.value(one) for one in measured]
        mean, sd = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        told = text.fixed(mean, measure.decimals)
        means.append(round(mean, measure.decimals) if len(values) == most else math.nan)
        cells.append(f"{told} ± {text.fixed(sd, measure.decimals)}" if math.isfinite(sd) else told)
    best = min((mean for mean in means if math.isfinite(mean)), default=math.nan)
    if measure.is_setting:
        return cells
    return [f"<b>{cell}</b>" if mean == best else cell for mean, cell in zip(means, cells, strict=True)]


def _is_measured(one: Readout) -> bool:
    """Runs of earlier versions have a calibration error, and nothing else of this."""
    return math.isfinite(one.brier)
