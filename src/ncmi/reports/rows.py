"""Rows of a comparison as HTML: the same in the page of a comparison and of a reproduced table."""

from __future__ import annotations

from collections.abc import Sequence

from ncmi.reports import elements as e
from ncmi.reports.records import EntryRecord
from ncmi.reports.settings import objective_settings
from ncmi.reports.statistics import Row, best_rows
from ncmi.reports.table import cells


def row_lines(rows: Sequence[Row]) -> tuple[list[list[str]], dict[int, str]]:
    """Cells of each row, the best mean in bold and clear differences coloured; and the rows' classes."""
    best = best_rows(rows)
    lines, marks = [], {}
    for index, row in enumerate(rows):
        line = [e.escape(cell) for cell in cells(row)]
        if row in best:
            line[2] = f"<b>{line[2]}</b>"
        if row.difference and row.difference.sign:
            line[3] = f'<span class="{"up" if row.difference.sign > 0 else "down"}">{line[3]}</span>'
        lines.append(line)
        following = rows[index + 1] if index + 1 < len(rows) else None
        marks[index] = row_mark(row, following)
    return lines, {index: mark for index, mark in marks.items() if mark}


def row_mark(row: Row, following: Row | None) -> str:
    """Style classes of a row: NCMI's and the baseline's stand out, and a line parts them from the others."""
    kind = "own" if row.objective == "ncmi" else "base" if row.is_baseline else ""
    ends = kind and following is not None and following.objective != row.objective
    return f"{kind} rule" if ends else kind


def objectives_table(entries: Sequence[EntryRecord]) -> str:
    """The options of every entry's objective, by label."""
    lines = [
        (e.escape(entry.label), e.escape(entry.objective), e.escape(objective_settings(entry.runs)))
        for entry in entries
        if entry.runs
    ]
    return e.table(("Method", "objective", "options"), lines, kind="plain")
