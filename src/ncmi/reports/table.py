"""The comparison as a table: a data frame, in the terminal, as CSV and as Markdown."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ncmi.reports import text
from ncmi.reports.records import ComparisonRecord
from ncmi.reports.statistics import Row, baseline_entry, best_rows, comparison_rows
from ncmi.reports.write import write_report_file

TERMINAL_WIDTH = 100


def comparison_table(record: ComparisonRecord) -> pd.DataFrame:
    """The comparison as numbers: one row per method and read-out, NCMI, then the baseline, then by accuracy.

    Columns: ``method``, ``objective``, ``readout``, ``seeds`` (count), ``accuracy_mean`` and ``accuracy_sd``
    (percent of the test set), ``pairs`` (count), ``difference``, ``difference_low``, ``difference_high``
    (points, 95 % t-interval over pairs with equal seed and split), ``wilcoxon_p`` (NaN below five pairs),
    ``epoch_seconds`` (median), ``peak_memory_mb`` (highest), ``cmi``, ``separation`` (nats) and ``ncmi``
    (means over seeds, test set).
    """
    return pd.DataFrame([row_numbers(row) for row in comparison_rows(record)])


def row_numbers(row: Row) -> dict[str, object]:
    """One row of :func:`comparison_table`, by column."""
    difference = row.difference
    low, high = difference.interval if difference and difference.interval else (math.nan, math.nan)
    return {
        "method": row.method,
        "objective": row.objective,
        "readout": row.readout,
        "seeds": len(row.accuracies),
        "accuracy_mean": row.mean,
        "accuracy_sd": row.sd,
        "pairs": len(difference.values) if difference else 0,
        "difference": difference.mean if difference else math.nan,
        "difference_low": low,
        "difference_high": high,
        "wilcoxon_p": difference.wilcoxon_p if difference else math.nan,
        "epoch_seconds": row.epoch_seconds,
        "peak_memory_mb": row.peak_memory_mb,
        "cmi": row.cmi,
        "separation": row.separation,
        "ncmi": row.ncmi,
    }


def baseline_label(record: ComparisonRecord) -> str:
    """The label of the baseline, or its objective's name where it has no finished run."""
    entry = baseline_entry(record)
    return entry.label if entry else record.baseline


def headings(record: ComparisonRecord) -> tuple[str, ...]:
    """Headings of :func:`cells`."""
    return (
        "Method",
        "n",
        "Accuracy %",
        f"Δ {baseline_label(record)}",
        "95 % interval",
        "s/epoch",
        "MB",
        "CMI",
        "Γ",
        "NCMI",
    )


def cells(row: Row) -> tuple[str, ...]:
    """One row as text, in the order of :func:`headings`."""
    difference = row.difference
    return (
        row.method,
        str(len(row.accuracies)),
        text.mean_sd(row.mean, row.sd),
        text.signed(difference.mean) if difference else text.MISSING,
        text.interval(difference.interval) if difference else text.MISSING,
        text.significant(row.epoch_seconds, 2),
        text.fixed(row.peak_memory_mb, 0),
        text.significant(row.cmi),
        text.significant(row.separation),
        text.significant(row.ncmi),
    )


def terminal() -> Console:
    """The terminal, or 100 columns where the output goes elsewhere."""
    console = Console()
    return console if console.is_terminal else Console(width=TERMINAL_WIDTH)


def print_table(
    record: ComparisonRecord,
    console: Console | None = None,
    *,
    rows: Sequence[Row] | None = None,
    heading: str = "",
) -> None:
    """Print the table with rich in at most 100 columns; CMI, Γ and the number of seeds are left to CSV and page.

    Args:
        record: the comparison.
        console: where to; by default the terminal.
        rows: its rows in another order.
        heading: goes in front of the title.
    """
    console = console or terminal()
    rows = comparison_rows(record) if rows is None else rows
    best = best_rows(rows)
    names = headings(record)
    hidden = {"n", "CMI", "Γ"} if record.baseline else {"n", "Γ", *names[3:5]}
    shown = [index for index, name in enumerate(names) if name not in hidden]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left", caption_justify="left")
    seeds = text.count(len(record.seeds), "seed")
    table.title = Text(f"{heading}Test accuracy on {record.data}, mean ± sd over {seeds}")
    if record.baseline:
        table.caption = Text(f"Δ: difference from {baseline_label(record)} on the same seed and split, in points")
    for index in shown:
        heading = "Δ" if names[index].startswith("Δ ") else names[index]
        table.add_column(Text(heading), justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        line = [Text(cell) for cell in cells(row)]
        if row in best:
            line[0].stylize("bold")
            line[2].stylize("bold")
        if row.difference and row.difference.sign:
            line[3].stylize("green" if row.difference.sign > 0 else "red")
        table.add_row(*(line[index] for index in shown))
    console.print(table)
    for run in record.unfinished:
        folder = Path(os.path.relpath(run.folder, record.folder)).as_posix()
        console.print(Text(f"unfinished: {folder}, {run.state}", style="yellow"))


def to_markdown(record: ComparisonRecord) -> str:
    """The table in Markdown, the best mean in bold; pipes in names are escaped.

    The last line of the result is a table row without a line break.
    """
    rows = comparison_rows(record)
    best = best_rows(rows)
    lines = [markdown_line(headings(record)), "|---" + "|---:" * (len(headings(record)) - 1) + "|"]
    for row in rows:
        line = list(cells(row))
        if row in best:
            line[2] = f"**{line[2]}**"
        lines.append(markdown_line(tuple(line)))
    return "\n".join(lines)


def markdown_line(parts: Sequence[str]) -> str:
    """One row of a Markdown table; pipes are escaped."""
    return "| " + " | ".join(part.replace("|", "\\|") for part in parts) + " |"


def write_csv(record: ComparisonRecord, path: Path) -> Path:
    """Write :func:`comparison_table` as CSV, complete or not at all."""
    return write_report_file(path, comparison_table(record).to_csv(index=False, lineterminator="\n"))
