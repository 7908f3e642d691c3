"""The tables of a run and of a comparison on slides: in the terminal, as CSV, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ncmi.reports import text
from ncmi.reports.slides.records import SlideComparison, SlideRun
from ncmi.reports.slides.statistics import JUDGED, Cell, best_cells, by_network, comparison_cells, methods
from ncmi.reports.slides.words import SCORE_NAMES, SIMULATION, bounds, mean_sd, score
from ncmi.reports.statistics import method_name
from ncmi.reports.table import markdown_line, terminal
from ncmi.reports.write import write_report_file
from ncmi.slides.published import SOURCE
from ncmi.slides.weighted_scores import SCORES

Record = SlideRun | SlideComparison
Cells = Sequence[Cell] | None
_NOTHING = (math.nan, math.nan)


def slides_table(record: Record, cells: Cells = None) -> pd.DataFrame:
    """The numbers of a run, one row per read-out, or of a comparison, one row per network and method.

    Of a run: ``readout``, and each score with ``_low`` and ``_high``, its interval over patients, on test data, with
    the numbers of ``slides`` and ``patients``. Of a comparison: ``network``, ``method``, ``objective``, ``readout``,
    ``repeats``, each score's ``_mean`` and ``_sd`` over repeats, ``pairs``, the mean ``difference_`` from the baseline
    with ``_low``, ``_high`` (t-interval over repeats), of macro F1 and AUC also ``_patients_low``, ``_patients_high``
    (bootstrap over patients), and the paper's value, ``published_``, where it has one.
    ``simulation`` says whether the slides are simulated.

    Args:
        record: what was read.
        cells: of a comparison, where they have been computed already.
    """
    if isinstance(record, SlideRun):
        return pd.DataFrame(_run_numbers(record))
    return pd.DataFrame([_numbers(cell, record) for cell in _cells(record, cells)])


def print_slides_table(record: Record, console: Console | None = None, *, cells: Cells = None) -> None:
    """Print the table with rich; by default to the terminal, or 100 columns where the output goes elsewhere."""
    console = console or terminal()
    heads, lines = _lines(record, cells, bold=False)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left", caption_justify="left")
    table.title = Text(_title(record, cells))
    for index, head in enumerate(heads):
        table.add_column(Text(head), justify="left" if index == 0 else "right")
    for line in lines:
        table.add_row(*map(Text, line))
    console.print(table)
    for run in () if isinstance(record, SlideRun) else record.unfinished:
        console.print(Text(f"unfinished: {run.folder.name}, {run.state}", style="yellow"))


def slides_markdown(record: Record, cells: Cells = None) -> str:
    """The table in Markdown below a line on what it shows, the best means in bold; pipes in names are escaped."""
    heads, lines = _lines(record, cells, bold=True)
    rows = [markdown_line(heads), "|---" + "|---:" * (len(heads) - 1) + "|", *map(markdown_line, lines)]
    return f"{_title(record, cells)}\n\n" + "\n".join(rows) + "\n"


def slides_csv(record: Record, cells: Cells = None) -> str:
    """:func:`slides_table` as CSV."""
    return str(slides_table(record, cells).to_csv(index=False, lineterminator="\n"))


def write_slides_csv(record: Record, path: Path) -> Path:
    """Write :func:`slides_table` as CSV, complete or not at all.

    Raises:
        ReportError: if it cannot be written.
    """
    return write_report_file(path, slides_csv(record))


def _cells(record: SlideComparison, cells: Cells) -> Sequence[Cell]:
    return comparison_cells(record) if cells is None else cells


def _title(record: Record, cells: Cells) -> str:
    if isinstance(record, SlideRun):
        simulated = record.results is not None and record.results.simulation
        told = f"{record.network} with {record.label} on {record.data}, seed {record.seed}: test slides"
    else:
        simulated = record.simulation
        unit = f"repeats of {record.folds} folds, pooled" if record.folds else "seeds"
        told = f"Macro F1 / AUC on {record.data}, mean ± sd over {unit}"
        if any(cell.published for cell in _cells(record, cells)):
            told += f"; published: {SOURCE}"
    return f"{SIMULATION} {told}" if simulated else told


def _lines(record: Record, cells: Cells, *, bold: bool) -> tuple[list[str], list[list[str]]]:
    if isinstance(record, SlideRun):
        return ["Test data", *(SCORE_NAMES[name] for name in SCORES)], _run_lines(record, _break(bold))
    found = _cells(record, cells)
    columns = methods(found)
    lines = []
    for network, own in by_network(found).items():
        by_method = {cell.method: _told(cell, own, bold) for cell in own}
        lines.append([network, *(by_method.get(column, text.MISSING) for column in columns)])
    return ["Network", *columns], lines


def _told(cell: Cell, own: Sequence[Cell], bold: bool) -> str:
    parts = []
    for name in JUDGED:
        words = mean_sd(cell.scores[name].mean, cell.scores[name].sd)
        parts.append(f"**{words}**" if bold and cell in best_cells(own, name) else words)
    if cell.published:
        parts.append(f"published {score(cell.published.f1)} / {score(cell.published.auc)}")
    return _break(bold).join(parts)


def _break(markdown: bool) -> str:
    """A line break inside a cell."""
    return "<br>" if markdown else "\n"


def _numbers(cell: Cell, record: SlideComparison) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(cell, name) for name in ("network", "method", "objective", "readout")}
    row |= {"repeats": len(cell.seeds), "folds": record.folds}
    for name in SCORES:
        row |= {f"{name}_mean": cell.scores[name].mean, f"{name}_sd": cell.scores[name].sd}
    row["pairs"] = len(cell.differences["macro_f1"].values) if cell.differences else 0
    for name in SCORES:
        difference = cell.differences.get(name)
        low, high = (difference.interval if difference else None) or _NOTHING
        row[f"difference_{name}"] = difference.mean if difference else math.nan
        row |= {f"difference_{name}_low": low, f"difference_{name}_high": high}
        if name in JUDGED:
            low, high = (cell.over_patients or {}).get(name, _NOTHING)
            row |= {f"difference_{name}_patients_low": low, f"difference_{name}_patients_high": high}
    figures = (cell.published.f1, cell.published.auc) if cell.published else _NOTHING
    row |= {f"published_{name}": value for name, value in zip(JUDGED, figures, strict=True)}
    cost = {"epoch_seconds": cell.epoch_seconds, "peak_memory_mb": cell.peak_memory_mb}
    return row | cost | {"simulation": record.simulation}


def _run_numbers(run: SlideRun) -> list[dict[str, object]]:
    rows = []
    for readout, found in run.results.test.items() if run.results else ():
        row: dict[str, object] = {"method": method_name(run.label, readout), "readout": readout}
        for name in SCORES:
            measure = found.scores[name]
            row |= {name: measure.value, f"{name}_low": measure.low, f"{name}_high": measure.high}
        simulation = run.results is not None and run.results.simulation
        rows.append(row | {"slides": found.slides, "patients": found.patients, "simulation": simulation})
    return rows


def _run_lines(run: SlideRun, line_break: str) -> list[list[str]]:
    lines = []
    for readout, found in run.results.test.items() if run.results else ():
        measures = [found.scores[name] for name in SCORES]
        told = [f"{score(one.value)}{line_break}{bounds(one.low, one.high)}" for one in measures]
        lines.append([method_name(run.label, readout), *told])
    return lines
