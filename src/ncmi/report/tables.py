"""Tables of runs, comparisons and reproductions: for pages, in the terminal, as Markdown, CSV and JSON.

A table goes read-out by read-out, so that what stands below each other compares; kNN is left out unless asked for.
"""

from __future__ import annotations

import html
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from rich.console import Console
from rich.text import Text

from ncmi.files import finite, inert_cell
from ncmi.readouts.metrics import METRICS, MISSING, SCORES, Unit, heading_of, in_words, unit_of
from ncmi.readouts.scores import Estimate, Scores, unequal_in_words
from ncmi.recipes.names import READOUTS, method_label, network_label, objective_label
from ncmi.report import text
from ncmi.report.published import SOURCE, SOURCE_OF_BAGS
from ncmi.report.records import SCALES, Comparison, Record, ReportError, Reproduction, Run, UnfinishedRun, read_folder
from ncmi.report.reproduction import (
    Association,
    Rows,
    correlations,
    group_titles,
    overview,
    published_note,
    reproduction_rows,
    reproduction_verdict,
    source,
)
from ncmi.report.statistics import (
    INFORMATION,
    SHOWN,
    Difference,
    Row,
    best_of_table,
    by_readout,
    comparison_rows,
    score_value,
    shown_rows,
)
from ncmi.report.verdict import training_notes
from ncmi.terminal import FigureColumn, Styled, print_figures
from ncmi.training.schema import FORMAT, Readout

TERMINAL_WIDTH = 100
KEYS = ("Loss", "Read-out")
"""By these tables are filtered: like is compared with like."""
_NUMBER = re.compile(r"[+-]?[\d,]*\.?\d+(e[+-]?\d+)?")
_NOTHING = (math.nan, math.nan)


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, the value by which rows are sorted (without one the text), whether it is the best.

    ``tone`` is a class of the style sheet, ``below`` are small lines under the text, ``links`` are (label, target),
    ``picture`` stands before the text, as a data URI.
    """

    text: str
    value: float | None = None
    bold: bool = False
    tone: str = ""
    below: Sequence[Cell] = ()
    links: Sequence[tuple[str, str]] = ()
    picture: str = ""


def numeric(words: str, **look: Any) -> Cell:
    """A cell that begins with a number, and is sorted by it.

    >>> numeric("−0.36 … +0.69").value, numeric("–").value
    (-0.36, None)
    """
    number = _NUMBER.match(words.replace(text.MINUS, "-"))
    return Cell(words, float(number[0].replace(",", "")) if number else None, **look)


@dataclass(frozen=True)
class TableRow:
    """A row: its cells, a class of the style sheet, what it is filtered by, and whether it is shown unasked."""

    cells: Sequence[Cell]
    kind: str = ""
    keys: Sequence[str] = ()
    usual: bool = True


def table_row(name: str, *cells: Cell | str, **look: Any) -> TableRow:
    """A row with a name; cells that are bare words begin with a number."""
    return TableRow([Cell(name), *(numeric(cell) if isinstance(cell, str) else cell for cell in cells)], **look)


@dataclass(frozen=True)
class Table:
    """A table that readers sort, and filter by ``keys``, one for each of a row's; its name is that of the download.

    ``kind`` is a class of the style sheet.
    """

    name: str
    headings: Sequence[str]
    rows: Sequence[TableRow]
    keys: Sequence[str] = ()
    kind: str = ""
    sortable: bool = True

    @property
    def filters(self) -> dict[str, list[str]]:
        """The values to choose from, where there are several."""
        keys = self.keys if len(self.rows) > 2 else ()
        return {key: list(dict.fromkeys(row.keys[place] for row in self.rows)) for place, key in enumerate(keys)}


# --- what stands in a line


def readout_name(readout: str) -> str:
    """What a read-out is called at the beginning of a line."""
    name = READOUTS.get(readout, readout)
    return name.capitalize() if name.islower() else name


def row_look(row: Row) -> dict[str, Any]:
    """How a row of a table stands out, NCMI's and the baseline's, and what it is filtered by."""
    kind = "own" if row.entry.objective == "ncmi" else "base" if row.is_baseline else ""
    return {"kind": kind, "keys": (row.entry.objective_label, readout_name(row.readout))}


def tone(difference: Difference | None) -> str:
    """The color of a difference that is clear."""
    return {1: "up", -1: "down"}.get(difference.sign, "") if difference else ""


def estimate_cell(estimate: Estimate, unit: Unit) -> Cell:
    """An estimate with its interval, where there is one, below."""
    bounds = unit.bounds((estimate.low, estimate.high))
    return numeric(unit.fixed(estimate.value), below=[] if bounds == MISSING else [Cell(bounds)])


def score_cell(scores: Scores, name: str, kind: str) -> Cell:
    """A score by its name, with its interval, where there is one, below."""
    unit, value = unit_of(kind, name), getattr(scores, name)
    return estimate_cell(value, unit) if isinstance(value, Estimate) else numeric(unit.fixed(value))


@dataclass(frozen=True)
class Column:
    """One column of a table of rows: its heading, its text, and whether a terminal shows it.

    Attributes:
        group: columns of one group stand beside each other on a narrow terminal.
        score: the score whose best mean is in bold here, if any.
        differs: the score whose clear difference is colored here, if any.
    """

    heading: str
    cell: Callable[[Row], str]
    narrow: bool = True
    group: str = ""
    score: str = ""
    differs: str = ""


def columns(record: Comparison, rows: Sequence[Row]) -> list[Column]:
    """The columns of a table of a comparison, the same in the terminal, in Markdown and on the page."""
    samples = record.kind != "bags"

    def measure(heading: str, name: str, *, narrow: bool = False) -> Column:
        return Column(heading, lambda row: text.significant(row.information[name]), narrow, "cost")

    shown = [
        Column("Method" if record.baseline else "Network", lambda row: row.name),
        Column("n", lambda row: str(len(row.seeds)), narrow=False),
    ]
    for place, name in enumerate(record.judged):
        shown += _score_columns(record, name, narrow=place == 0 or samples)
    shown += [_further_column(record, name) for name in SCORES if name not in record.judged]
    shown += [
        Column("s/epoch", lambda row: text.significant(row.epoch_seconds, 2), samples, "cost"),
        Column("MB", lambda row: text.fixed(row.peak_memory_mb, 0), samples, "cost"),
        measure("CMI", "cmi"),
        measure("Γ", "separation"),
        measure("NCMI", "ncmi", narrow=samples),
    ]
    if not record.baseline:
        shown.append(measure("Γ (CE)", "cross_entropy_separation"))
        shown.append(measure("NCMI (CE)", "cross_entropy_ncmi", narrow=True))
    if has_published(rows):
        shown.append(Column("published", lambda row: published_cell(record, row)))
    return shown


def _score_columns(record: Comparison, name: str, *, narrow: bool) -> list[Column]:
    """Mean ± sd of a score and, with a baseline, its difference with what is known of its spread."""
    unit, heading = unit_of(record.kind, name), heading_of(record.kind, name)
    shown = [
        Column(heading, lambda row: unit.mean_sd(row.scores[name].mean, row.scores[name].sd), True, name, name),
        Column(
            f"Δ {record.baseline_label}",
            lambda row: unit.signed(row.scores[name].compared.mean),
            group=name,
            differs=name,
        ),
        Column("95 % interval", lambda row: unit.interval(row.scores[name].compared.interval), narrow, name),
        Column("over patients", lambda row: unit.interval(row.scores[name].compared.over_groups), False, name),
    ]
    return shown[: (4 if record.kind == "bags" else 3) if record.baseline else 1]


def _further_column(record: Comparison, name: str) -> Column:
    """The mean of a score that entries are not compared by."""
    unit = unit_of(record.kind, name)
    return Column(
        heading_of(record.kind, name, short=True), lambda row: unit.fixed(row.scores[name].mean), True, "scores", name
    )


def has_published(rows: Sequence[Row]) -> bool:
    """Whether the paper printed a value for one of the rows."""
    return any(score.published is not None for row in rows for score in row.scores.values())


def published_cell(record: Comparison, row: Row) -> str:
    """The paper's values for a row, empty where it printed none."""
    values = [(unit_of(record.kind, name), row.scores[name].published) for name in record.judged]
    return " / ".join(unit.fixed(value) for unit, value in values if value is not None)


def cells_of(rows: Sequence[Row], shown: Sequence[Column]) -> list[list[Cell]]:
    """The cells of each row: the best means in bold, clear differences in their color."""
    best = {column.score: best_of_table(rows, column.score) for column in shown if column.score}

    def cell(row: Row, column: Column) -> Cell:
        color = tone(row.scores[column.differs].difference) if column.differs else ""
        return numeric(column.cell(row), bold=row in best.get(column.score, ()), tone=color)

    return [[cell(row, column) for column in shown] for row in rows]


def rows_table(
    name: str, rows: Sequence[Row], headings: Sequence[str], cells: Callable[[Row], Sequence[Cell | str]]
) -> Table:
    """A table of one line a row, filtered by loss and read-out; what is not judged so is shown by a filter only.

    A line parts read-outs.
    """
    groups = list(by_readout(rows).values())
    lines = []
    for row in rows:
        look = row_look(row)
        look["kind"] += " rule" if any(row is group[-1] for group in groups[:-1]) else ""
        lines.append(table_row(row.name, *cells(row), usual=any(row in group for group in groups), **look))
    return Table(name, headings, lines, KEYS)


def scores_table(
    record: Comparison, rows: Sequence[Row], links: Callable[[Row], Sequence[tuple[str, str]]] | None = None
) -> Table:
    """Scores, paired differences, cost and information; ``links`` stand in a column of seeds."""
    shown = columns(record, rows)
    lines = dict(zip(rows, cells_of(rows, shown), strict=True))
    headings = [column.heading for column in shown] + ["seeds"] * bool(links)
    seeds = {row: [Cell("", links=links(row))] for row in rows} if links else {}
    return rows_table("scores", rows, headings, lambda row: [*lines[row][1:], *seeds.get(row, [])])


def overview_table(
    record: Reproduction,
    rows: Rows,
    readouts: Sequence[str] = SHOWN,
    links: Callable[[Row], Sequence[tuple[str, str]]] = lambda row: (),
) -> Table:
    """Methods × groups, each cell with differences, the paper's value and ``links``."""
    best: set[Row] = set()
    for group in record.groups:
        best |= set(best_of_table(shown_rows(rows[group.name], readouts), group.judged[0]))
    lines = []
    for method, line in overview(record, rows, readouts).items():
        cells = [
            _overview_cell(group, row, row in best, links(row)) if row else Cell(text.MISSING)
            for group, row in zip(record.groups, line, strict=True)
        ]
        lines.append(table_row(method, *cells, **row_look(next(row for row in line if row))))
    return Table("overview", ("Method", *group_titles(record)), lines, KEYS)


def _overview_cell(group: Comparison, row: Row, best: bool, links: Sequence[tuple[str, str]]) -> Cell:
    judged = group.judged
    lines: list[Cell] = []
    for name in judged:
        unit, score = unit_of(group.kind, name), row.scores[name]
        mean = unit.mean_sd(score.mean, score.sd)
        lines.append(Cell(mean if name == judged[0] else f"{in_words(name)} {mean}"))
        if difference := score.difference:
            words = f"Δ {unit.signed(difference.mean)} ({unit.interval(difference.interval)})"
            lines.append(Cell(words, tone=tone(difference)))
        if score.published is not None:
            lines.append(Cell(f"published {unit.fixed(score.published)}", tone="published"))
    return numeric(lines[0].text, bold=best, below=lines[1:], links=links)


def _run_cells(run: Run) -> list[list[Cell]]:
    """Scores by read-out, with their intervals; none of an unfinished run."""
    return [
        [Cell(method_label(run.label, name)), *(score_cell(readout.test, score, run.kind) for score in run.scores)]
        for name, readout in (run.results.readouts if run.results else {}).items()
    ]


def _run_headings(run: Run) -> list[str]:
    return ["Test data", *(heading_of(run.kind, name) for name in run.scores)]


def fold_table(record: Comparison, rows: Sequence[Row]) -> Table:
    """Scores and paired differences fold by fold, which the pooled scores do not show."""

    def cells(row: Row) -> list[Cell]:
        line = []
        for name in record.judged:
            unit, score = unit_of(record.kind, name), row.scores[name]
            spread, difference = score.folds, score.fold_differences
            line.append(numeric(unit.mean_sd(spread.mean, spread.sd) if spread else text.MISSING))
            if difference is None or not difference.values:
                words = text.MISSING
            else:
                words = f"{unit.signed(difference.mean)} ± {unit.fixed(difference.sd)}"
            line.append(numeric(words))
        count = row.scores[record.judged[0]].folds
        return [*line, numeric(str(len(count.values) if count else 0))]

    headings = [heading for name in record.judged for heading in (f"{METRICS[name].label} of a fold", "Δ of a fold")]
    return rows_table("folds", rows, ["Method", *headings, "folds"], cells)


def _title(record: Run | Comparison, rows: Sequence[Row] = ()) -> str:
    if isinstance(record, Run):
        title = f"{record.network_label} with {record.label} on {record.data}, seed {record.seed}: test data"
        simulation = record.results is not None and record.results.simulation
    else:
        scores = " and ".join(METRICS[name].label for name in record.judged)
        scores = scores if record.kind == "bags" else f"Test {' and '.join(map(in_words, record.judged))}"
        repeats = text.count(len(record.seeds), "repeat" if record.folds else "seed")
        how = "pooled" if all(row.pooled for row in rows) else "means of folds, whose test parts overlap"
        pooled = f" of {record.folds} folds, {how}" if record.folds else ""
        title, simulation = f"{scores} on {record.data}, mean ± sd over {repeats}{pooled}", record.simulation
    return f"{text.SIMULATION} {title}" if simulation else title


def _note(record: Comparison, rows: Sequence[Row]) -> str:
    points = "" if record.kind == "bags" else ", of accuracy in points" if record.unequal else ", in points"
    notes = [f"Δ: difference from {record.baseline_label} by the same read-out, on the same seed and split{points}"]
    notes = notes if record.baseline else []
    if has_published(rows):
        notes.append(f"published: {SOURCE_OF_BAGS if record.kind == 'bags' else SOURCE}")
    return "; ".join(notes)


# --- terminal


def print_table(
    folder: Path | str | Record, console: Console | None = None, *, readouts: Sequence[str] = SHOWN
) -> None:
    """Print the table of a run, a comparison or a reproduction with rich; one that is too wide is parted.

    Args:
        folder: of it, or what was read from there.
        console: where to; by default the terminal, or 100 columns where the output goes elsewhere.
        readouts: which to show.

    ReportError if a file is missing or damaged.
    """
    record = read_folder(folder)
    if console is None:
        console = Console()
        console = console if console.is_terminal else Console(width=TERMINAL_WIDTH)
    if isinstance(record, Run):
        headings = [Column(heading_of(record.kind, name, short=True), str) for name in record.scores]
        _print_cells(console, _title(record), "Test data", headings, _run_cells(record))
    elif isinstance(record, Comparison):
        _print_comparison(record, shown_rows(comparison_rows(record), readouts), console)
    else:
        rows = reproduction_rows(record)
        console.print(Text(f"{record.title} (scale {record.scale})", style="bold"))
        for group in record.groups:
            if group.runs:
                heading = f"{group.title}: " if len(record.groups) > 1 else ""
                _print_comparison(group, shown_rows(rows[group.name], readouts), console, heading)
            else:
                console.print(Text(f"{group.title}: no run has finished", style="yellow"))
        for sentence in reproduction_verdict(record, rows):
            console.print(Text(sentence))


def _print_comparison(record: Comparison, rows: Sequence[Row], console: Console, heading: str = "") -> None:
    shown = [column for column in columns(record, rows) if column.narrow]
    ends = [row.readout != after.readout for row, after in itertools.pairwise(rows)]
    title, note = heading + _title(record, rows), _note(record, rows)
    lines = cells_of(rows, shown)
    _print_cells(console, title, shown[0].heading, shown[1:], lines, note=note, ends=[*ends, False])
    if record.folds and rows:
        folds = fold_table(record, rows)
        _print_cells(
            console,
            "Fold by fold, mean ± sd over all folds",
            folds.headings[0],
            [Column(name, str) for name in folds.headings[1:]],
            [row.cells for row in folds.rows],
            ends=[*ends, False],
        )
    if record.kind != "bags" and record.unequal:
        console.print(Text(unequal_in_words(record.unequal)))
    for sentence in training_notes(record.runs):
        console.print(Text(sentence))
    for run in record.unfinished:
        console.print(Text(f"unfinished: {_path(run, record.folder)}, {run.state}", style="yellow"))


def _print_cells(
    console: Console,
    title: str,
    first: str,
    shown: Sequence[Column],
    lines: Sequence[Sequence[Cell]],
    *,
    note: str = "",
    ends: Sequence[bool] = (),
) -> None:
    """Cells line by line, the first of each a name; ``ends`` tells after which lines there is a gap."""

    def styled(cell: Cell) -> Styled:
        words = "\n".join([cell.text, *(part.text for part in cell.below)])
        return Styled(words, "bold" if cell.bold else {"up": "green", "down": "red"}.get(cell.tone, ""))

    names = [Styled(line[0].text, "bold" if any(cell.bold for cell in line) else "") for line in lines]
    figures = [
        FigureColumn("Δ" if column.differs else column.heading, [styled(line[at]) for line in lines], column.group)
        for at, column in enumerate(shown, start=1)
    ]
    print_figures(console, title, first, names, figures, note=note, ends=ends)


# --- Markdown


def to_markdown(folder: Path | str | Record, *, readouts: Sequence[str] = SHOWN) -> str:
    """The table of a run, a comparison or a reproduction in Markdown, the best means in bold; names are no markup.

    Of a comparison it is the table alone, the last line without a line break.

    ReportError if a file is missing or damaged.
    """
    record = read_folder(folder)
    if isinstance(record, Run):
        return f"{_plain(_title(record))}\n\n{markdown_table(_run_headings(record), _run_cells(record))}\n"
    if isinstance(record, Comparison):
        return comparison_markdown(record, shown_rows(comparison_rows(record), readouts))
    return reproduction_markdown(record, reproduction_rows(record), readouts)


def comparison_markdown(record: Comparison, rows: Sequence[Row], extra: Sequence[Column] = ()) -> str:
    """The table of a comparison, the best means in bold, with ``extra`` columns behind."""
    shown = [*columns(record, rows), *extra]
    return markdown_table([column.heading for column in shown], cells_of(rows, shown))


def markdown_table(headings: Sequence[str], lines: Sequence[Sequence[Cell]]) -> str:
    """A table in Markdown, all but the first column aligned right; nothing in it is markup."""
    marks = {"published": "*{}*"}

    def words(cell: Cell) -> str:
        first = f"**{cell.text}**" if cell.bold else cell.text
        content = "\n".join([first, *(marks.get(part.tone, "{}").format(part.text) for part in cell.below)])
        return _plain(content).replace("|", "\\|").replace("\n", "<br>")

    head, *others = (f"| {' | '.join(map(words, line))} |" for line in ([*map(Cell, headings)], *lines))
    return "\n".join([head, "|---" + "|---:" * (len(headings) - 1) + "|", *others])


def reproduction_markdown(record: Reproduction, rows: Rows, readouts: Sequence[str] = SHOWN) -> str:
    """Methods × groups where there are several, then one table with all numbers for each; runs are linked."""

    def links(row: Row) -> str:
        return " ".join(f"[{run.seed}]({quote(_path(run, record.folder))})" for run in row.entry.runs)

    parts = [f"# {_plain(record.title)}", f"Scale: {record.scale} ({SCALES[record.scale]})."]
    if len(record.groups) > 1:
        table = overview_table(record, rows, readouts)
        parts.append(markdown_table(table.headings, [row.cells for row in table.rows]))
    for group in record.groups:
        shown, first = shown_rows(rows[group.name], readouts), group.judged[0]
        p = Column("p", lambda row, first=first: text.significant(row.scores[first].compared.wilcoxon_p))  # type: ignore[misc]
        extra = [p, Column("runs", links)] if group.baseline else [Column("runs", links)]
        numbers = comparison_markdown(group, shown, extra) if shown else "No run has finished yet."
        parts += [f"## {_plain(group.title)}", numbers]
    parts.append(
        "Scores: mean ± sample standard deviation over n seeds, on test data. Δ: mean difference from the baseline by "
        "the same read-out over runs of equal seed and split, with its 95 % t-interval; p: Wilcoxon's signed-rank "
        "test, from five pairs on. CMI and Γ in nats."
    )
    if record.unfinished:
        names = ", ".join(f"{_plain(run.folder.name)} ({run.state})" for run in record.unfinished)
        parts.append(f"Not finished, and left out: {names}.")
    if any(has_published(group) for group in rows.values()):
        parts.append(published_note(record))
    return "\n\n".join(parts) + "\n"


def _plain(words: str) -> str:
    """Text that cannot become markup in Markdown."""
    return html.escape(words, quote=False)


# --- notebooks


def to_html(folder: Path | str | Record, *, readouts: Sequence[str] = SHOWN) -> str:
    """The table of a run or a comparison as a piece of HTML, the best means in bold; names are no markup.

    ReportError if a file is missing or damaged, and for a reproduction, which has several.
    """
    record = read_folder(folder)
    if isinstance(record, Run):
        return html_table(_title(record), _run_headings(record), _run_cells(record))
    if isinstance(record, Reproduction):
        raise ReportError(f"{record.folder}: a reproduction has several tables: write its page (ncmi report)")
    rows = shown_rows(comparison_rows(record), readouts)
    shown = columns(record, rows)
    headings = [column.heading for column in shown]
    return html_table(_title(record, rows), headings, cells_of(rows, shown), _note(record, rows))


def html_table(title: str, headings: Sequence[str], lines: Sequence[Sequence[Cell]], note: str = "") -> str:
    """A table as a piece of HTML."""

    def element(tag: str, words: str) -> str:
        return f"<{tag}>{html.escape(words)}</{tag}>"

    def data(cell: Cell) -> str:
        below = "".join(f"<br>{html.escape(part.text)}" for part in cell.below)
        return f"<td>{element('b' if cell.bold else 'span', cell.text)}{below}</td>"

    body = "".join(f"<tr>{''.join(map(data, line))}</tr>" for line in lines)
    head = "".join(element("th", words) for words in headings)
    table = f"<table><caption>{html.escape(title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return table + (element("p", note) if note else "")


# --- numbers


def to_csv(folder: Path | str | Record) -> str:
    """All numbers of a run, a comparison or a reproduction as CSV, those of every read-out.

    ReportError if a file is missing or damaged.
    """
    record = read_folder(folder)
    if isinstance(record, Run):
        return csv_text(run_table(record))
    if isinstance(record, Comparison):
        return csv_text(comparison_table(record))
    return csv_text(reproduction_table(record, reproduction_rows(record)))


def csv_text(table: pd.DataFrame) -> str:
    """A table of numbers as CSV, in which no name is what a spreadsheet would take for a formula."""
    return str(
        table.map(lambda value: inert_cell(value) if isinstance(value, str) else value).to_csv(
            index=False, lineterminator="\n"
        )
    )


def run_table(run: Run) -> pd.DataFrame:
    """The numbers of a run, one row a read-out: each score on test data with ``_low`` and ``_high``, its interval."""
    table = readouts_table(run.results.readouts if run.results else {}, run.label)
    return table.assign(simulation=run.finished.simulation) if run.results else table


def readouts_table(readouts: Mapping[str, Readout], label: str) -> pd.DataFrame:
    """The numbers of a run's read-outs, as :func:`run_table` has them; ``label`` is the objective's."""
    rows = []
    for readout, result in readouts.items():
        numbers: dict[str, object] = {"method": method_label(label, readout), "readout": READOUTS[readout]}
        for name in SCORES:
            estimate = getattr(result.test, name)
            numbers[name] = score_value(result.test, name)
            if isinstance(estimate, Estimate):
                numbers |= {f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        rows.append(numbers | {"samples": result.test.samples, "groups": result.test.groups})
    return pd.DataFrame(rows)


def comparison_table(record: Comparison, rows: Sequence[Row] | None = None) -> pd.DataFrame:
    """The comparison as numbers, one row an entry and read-out, all of them. Scores and differences are in 0 … 1.

    Columns: ``method``, ``network``, ``objective``, ``readout`` (all as tables call them), ``primary`` (whether the
    objective is meant to be judged so), ``seeds`` (count), ``folds``; of each score ``_mean`` and ``_sd``; of
    cross-validation ``pooled`` (False where test parts of folds overlap, and means are over folds), and of the scores
    that are judged by ``_fold_mean`` and ``_fold_sd``; ``pairs`` (count); of each score ``difference_…`` with ``_low``,
    ``_high`` (95 % t-interval over pairs); of the scores that are judged by also ``_p`` (Wilcoxon, NaN below five
    pairs), of bags ``_patients_low``, ``_patients_high`` (bootstrap over groups), and the paper's ``published_…``;
    ``epoch_seconds`` (median), ``peak_memory_mb`` (highest), and the means of the measures of information.
    """
    rows = comparison_rows(record) if rows is None else rows
    return pd.DataFrame([_row_numbers(record, row) for row in rows])


def _row_numbers(record: Comparison, row: Row) -> dict[str, object]:
    network = row.entry.runs[0].network if row.entry.runs else row.entry.network  # as it was settled by the data
    numbers: dict[str, object] = {
        "method": row.method,
        "network": network_label(network),
        "objective": objective_label(row.entry.objective),
        "readout": READOUTS[row.readout],
        "primary": row.is_primary,
        "seeds": len(row.seeds),
        "folds": record.folds,
    }
    judged = record.judged
    for name in SCORES:
        numbers |= {f"{name}_mean": row.scores[name].mean, f"{name}_sd": row.scores[name].sd}
    if record.folds:
        numbers["pooled"] = row.pooled
        for name in judged:
            folds = row.scores[name].folds
            numbers |= {f"{name}_fold_mean": folds.mean, f"{name}_fold_sd": folds.sd} if folds else {}
    numbers["pairs"] = len(row.scores[judged[0]].compared.values)
    for name in SCORES:
        difference, key = row.scores[name].compared, f"difference_{name}"
        numbers[key] = difference.mean
        numbers[f"{key}_low"], numbers[f"{key}_high"] = difference.interval or _NOTHING
        if name in judged:
            numbers[f"{key}_p"] = difference.wilcoxon_p
            if record.kind == "bags":
                low, high = difference.over_groups or _NOTHING
                numbers |= {f"{key}_patients_low": low, f"{key}_patients_high": high}
    for name in judged:
        value = row.scores[name].published
        numbers[f"published_{name}"] = math.nan if value is None else value
    numbers |= {"epoch_seconds": row.epoch_seconds, "peak_memory_mb": row.peak_memory_mb}
    return numbers | dict(row.information) | {"simulation": record.simulation}


def reproduction_table(record: Reproduction, rows: Rows) -> pd.DataFrame:
    """One row a group, entry and read-out: ``group``, the columns of :func:`comparison_table`, and ``runs``, the
    folders relative to the experiment's, parted by spaces.
    """
    lines = []
    for group in record.groups:
        for row in rows[group.name]:
            runs = " ".join(_path(run, record.folder) for run in row.entry.runs)
            lines.append({"group": group.name, **_row_numbers(group, row), "runs": runs})
    return pd.DataFrame(lines)


def to_json(record: Reproduction, rows: Rows) -> str:
    """All numbers as JSON, with every run's scores; NaN is ``null``.

    Scores are in 0 … 1, CMI and Γ in nats, times in seconds, memory in MB.
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        "experiment": record.experiment,
        "title": record.title,
        "scale": record.scale,
        "seeds": list(record.seeds),
        "machine": text.environment_settings(record.machines),
        "published_source": source(record),
        "groups": [_group_numbers(record, group, rows[group.name]) for group in record.groups],
    }
    if record.experiment == "figure2":
        content["correlations"] = [
            {"separation": panel.separation, "networks": len(panel.points)}
            | {"as_plotted": _association_numbers(panel.plotted), "raw": _association_numbers(panel.raw)}
            | {"logarithmic": panel.logarithmic}
            for panel in correlations(record, rows)
        ]
    return json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _association_numbers(association: Association) -> dict[str, float]:
    low, high = association.interval or _NOTHING
    return {"n": association.n, "pearson_r": association.r, "low": low, "high": high, "spearman_rho": association.rho}


def _group_numbers(record: Reproduction, group: Comparison, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "name": group.name,
        "title": group.title,
        "data": group.data,
        "baseline": group.baseline or None,
        "rows": [_row_and_seeds(group, row) for row in rows],
        "runs": [
            {
                "folder": _path(run, record.folder),
                "label": entry.label,
                "seed": run.seed,
                "fold": run.fold,
                "test": {
                    name: {score: score_value(readout.test, score) for score in SCORES}
                    for name, readout in run.finished.readouts.items()
                },
                **{name: getattr(run.finished.information, name) for name in INFORMATION},
                "epoch_seconds": run.finished.epoch_seconds,
                "total_seconds": run.finished.total_seconds,
                "peak_memory_mb": run.finished.peak_memory_mb,
            }
            for entry in group.entries
            for run in entry.runs
        ],
        "unfinished": [{"folder": _path(run, record.folder), "state": run.state} for run in group.unfinished],
    }


def _row_and_seeds(group: Comparison, row: Row) -> dict[str, Any]:
    """The numbers of a row, with those of every seed."""
    numbers, scores = _row_numbers(group, row), {name: row.scores[name] for name in group.judged}
    del numbers["seeds"]
    values = {name: score.by_seed for name, score in scores.items()}
    return numbers | {"values": values, "differences": {name: s.compared.by_seed for name, s in scores.items()}}


def _path(run: Run | UnfinishedRun, folder: Path) -> str:
    """A run's folder relative to another."""
    return Path(os.path.relpath(run.folder, folder)).as_posix()
