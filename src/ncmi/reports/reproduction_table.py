"""The table of a reproduced table or figure: methods × networks or batch sizes, as HTML and as Markdown."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from ncmi.reports import captions, text
from ncmi.reports import elements as e
from ncmi.reports.published import SOURCE
from ncmi.reports.records import RunRecord
from ncmi.reports.reproduction import SCALES, GroupRecord, ReproductionRecord
from ncmi.reports.reproduction_numbers import run_path
from ncmi.reports.rows import row_lines, row_mark
from ncmi.reports.statistics import Row, best_rows
from ncmi.reports.table import cells, headings, markdown_line

PUBLISHED = (
    f"Published: the paper's own figure ({SOURCE}), printed without a spread; it stands beside what was measured here "
    "and enters no mean, difference or figure of this page."
)
_CELLS = (
    "Each cell: mean ± sample standard deviation over seeds, test accuracy in percent, the highest of a column in "
    "bold; Δ: mean difference from {baseline} in the same column over runs of equal seed and split, in points, with "
    "its 95 % t-interval (coloured where it excludes zero); below, one link to each seed's run folder."
)
Link = Callable[[RunRecord], str]


def html_table(record: ReproductionRecord, path: Path) -> str:
    """The table on the page that will be written to ``path``; every cell links to its run folders."""

    def link(run: RunRecord) -> str:
        return e.link(run.folder, path, str(run.seed))

    marked = any(record.published(group, row) is not None for group in record.groups for row in group.rows)
    published = [e.paragraph(PUBLISHED, "note")] if marked else []
    if len(record.groups) > 1:
        baseline = next(group.baseline for group in record.measured)
        note = f"{_CELLS.format(baseline=baseline)} {captions.READOUTS}"
        return "".join([_wide(record, link), e.paragraph(note, "note"), *published])
    group = record.groups[0]
    names, lines, marks = _lines(record, group, link)
    note = captions.TABLE.partition(" Order:")[0].format(baseline=group.baseline)
    if not group.record.baseline:
        note = (
            "Accuracy of the head: mean ± sample standard deviation over n seeds, in percent of the test set. CMI, Γ, "
            "NCMI: means over seeds on the test set, Γ by centroid KL, and by cross-entropy (CE)."
        )
    readouts = f" {captions.READOUTS}" if group.record.baseline else ""
    notes = e.paragraph(f"{note} Seeds link to their run folders.{readouts}", "note")
    return "".join([e.table(names, lines, marks=marks), notes, *published])


def _lines(
    record: ReproductionRecord, group: GroupRecord, link: Link
) -> tuple[tuple[str, ...], list[list[str]], dict[int, str]]:
    names, (lines, marks) = headings(group.record), row_lines(group.rows)
    extra: dict[str, list[str]] = {}
    if not group.record.baseline:
        names = (names[0].replace("Method", "Network"), *names[1:3], *names[5:])
        lines = [[*line[:3], *line[5:]] for line in lines]
        extra["Γ (CE)"] = [text.significant(row.cross_entropy_separation) for row in group.rows]
        extra["NCMI (CE)"] = [text.significant(row.cross_entropy_ncmi) for row in group.rows]
        marks = {}
    figures = [record.published(group, row) for row in group.rows]
    if any(figure is not None for figure in figures):
        extra["published"] = [f'<span class="sub published">{text.fixed(f)}</span>' if f else "" for f in figures]
    extra["seeds"] = [" ".join(link(run) for run in group.entry(row).runs) for row in group.rows]
    full = [[*line, *(column[place] for column in extra.values())] for place, line in enumerate(lines)]
    return (*names, *extra), full, marks


def _methods(record: ReproductionRecord) -> list[tuple[str, str]]:
    """Label and read-out of every row that some group has, in the order of the entries."""
    order: dict[str, int] = {}
    for group in record.groups:
        for entry in group.record.entries:
            order.setdefault(entry.label, len(order))
    found = dict.fromkeys((row.label, row.readout) for group in record.groups for row in group.rows)
    return sorted(found, key=lambda key: order[key[0]])


def _find(group: GroupRecord, key: tuple[str, str]) -> Row | None:
    return next((row for row in group.rows if (row.label, row.readout) == key), None)


def _wide(record: ReproductionRecord, link: Link) -> str:
    lines, rows = [], []
    for key in _methods(record):
        found = [_find(group, key) for group in record.groups]
        rows.append(next(row for row in found if row is not None))
        parts = [
            e.escape(text.MISSING) if row is None else _cell(record, group, row, link)
            for group, row in zip(record.groups, found, strict=True)
        ]
        lines.append([e.escape(rows[-1].method), *parts])
    marks = {place: row_mark(row, rows[place + 1] if place + 1 < len(rows) else None) for place, row in enumerate(rows)}
    names = ("Method", *record.columns)
    return e.table(names, lines, marks={place: mark for place, mark in marks.items() if mark})


def _cell(record: ReproductionRecord, group: GroupRecord, row: Row, link: Link) -> str:
    mean = e.escape(text.mean_sd(row.mean, row.sd))
    parts = [f"<b>{mean}</b>" if row in best_rows(group.rows) else mean]
    if row.difference:
        told = e.escape(f"Δ {text.signed(row.difference.mean)} ({text.interval(row.difference.interval)})")
        if len(record.groups) > 4:
            told = told.replace(" (", "<br>(")
        if row.difference.sign:
            told = f'<span class="{"up" if row.difference.sign > 0 else "down"}">{told}</span>'
        parts.append(f'<span class="sub">{told}</span>')
    figure = record.published(group, row)
    if figure is not None:
        parts.append(f'<span class="sub published">published {text.fixed(figure)}</span>')
    seeds = " ".join(link(run) for run in group.entry(row).runs)
    parts.append(f'<span class="sub">seeds {seeds}</span>')
    return "".join(parts)


def to_markdown(record: ReproductionRecord) -> str:
    """The table in Markdown: methods × groups where there are several, then one table with all numbers for each."""
    parts = [f"# {_plain(record.title)}", f"Scale: {record.scale} ({SCALES[record.scale]}). Test accuracy in percent."]
    if len(record.groups) > 1:
        parts.append(_markdown_overview(record))
    for group in record.groups:
        parts.append(f"## {_plain(group.title)}")
        parts.append(_markdown_group(record, group) if group.rows else "No run has finished yet.")
    parts.append(
        "Accuracy: mean ± sample standard deviation over n seeds. Δ: mean difference from the baseline over runs of "
        "equal seed and split, in points, with its 95 % t-interval; p: Wilcoxon's signed-rank test, from five pairs "
        "on. CMI and Γ in nats, on the test set."
    )
    if record.unfinished:
        names = ", ".join(f"{_plain(run.folder.name)} ({run.state})" for run in record.unfinished)
        parts.append(f"Not finished, and left out: {names}.")
    if any(record.published(group, row) is not None for group in record.groups for row in group.rows):
        parts.append(PUBLISHED.replace(" of this page", ""))
    return "\n\n".join(parts) + "\n"


def _markdown_overview(record: ReproductionRecord) -> str:
    lines = [markdown_line(["Method", *map(_plain, record.columns)])]
    lines.append("|---" + "|---:" * len(record.groups) + "|")
    for key in _methods(record):
        found = [_find(group, key) for group in record.groups]
        method = next(row.method for row in found if row is not None)
        cells_ = [
            text.MISSING if row is None else _markdown_cell(record, group, row)
            for group, row in zip(record.groups, found, strict=True)
        ]
        lines.append(markdown_line([_plain(method), *cells_]))
    return "\n".join(lines)


def _markdown_cell(record: ReproductionRecord, group: GroupRecord, row: Row) -> str:
    mean = text.mean_sd(row.mean, row.sd)
    parts = [f"**{mean}**" if row in best_rows(group.rows) else mean]
    if row.difference:
        parts.append(f"Δ {text.signed(row.difference.mean)} ({text.interval(row.difference.interval)})")
    figure = record.published(group, row)
    if figure is not None:
        parts.append(f"*published {text.fixed(figure)}*")
    return "<br>".join(parts)


def _markdown_group(record: ReproductionRecord, group: GroupRecord) -> str:
    best = best_rows(group.rows)
    names = [*headings(group.record), "p", "published", "runs"]
    if not group.record.baseline:
        names[-3:-1] = ["Γ (CE)", "NCMI (CE)"]
    lines = []
    for row in group.rows:
        line = [_plain(cell) for cell in cells(row)]
        if row in best:
            line[2] = f"**{line[2]}**"
        links = " ".join(f"[{run.seed}]({quote(run_path(run, record))})" for run in group.entry(row).runs)
        figure = record.published(group, row)
        extra = [text.significant(row.difference.wilcoxon_p) if row.difference else text.MISSING]
        extra.append(text.MISSING if figure is None else text.fixed(figure))
        if not group.record.baseline:
            extra = [text.significant(row.cross_entropy_separation), text.significant(row.cross_entropy_ncmi)]
        lines.append([*line, *extra, links])
    kept = [place for place in range(len(names)) if group.record.baseline or place not in (3, 4)]
    table = [[names[place] for place in kept], *([line[place] for place in kept] for line in lines)]
    rule = "|---" + "|---:" * (len(kept) - 1) + "|"
    return "\n".join([markdown_line(table[0]), rule, *map(markdown_line, table[1:])])


def _plain(words: str) -> str:
    """Text that cannot become markup."""
    return html.escape(words, quote=False)
