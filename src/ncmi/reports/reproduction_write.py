"""The report of a reproduced table or figure: page, tables, numbers and figure files, written together."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from ncmi.reports.figures.drawing import document
from ncmi.reports.page import GENERATOR, render
from ncmi.reports.reproduction import read_reproduction
from ncmi.reports.reproduction_figures import Picture, pictures
from ncmi.reports.reproduction_numbers import to_csv, to_json
from ncmi.reports.reproduction_page import reproduction_page
from ncmi.reports.reproduction_table import to_markdown
from ncmi.reports.reproduction_words import reproduction_verdict
from ncmi.reports.table import print_table, terminal
from ncmi.reports.write import refuse_others, write_report_file, write_report_files

PAGE = "report.html"
FIGURES = ("figure.svg", "figure.png")


def write_reproduction(folder: Path | str, out: Path | None = None) -> Path:
    """Write the report of a reproduced table or figure into its folder, and return the page's path.

    Besides ``report.html`` these are ``table.md``, ``table.csv``, ``results.json`` and, for documents, ``figure.svg``
    and ``figure.png``: all of them, or none where one cannot be made. Where the experiment's figure cannot be drawn
    from these runs, earlier figure files are taken away.

    Args:
        folder: a folder with ``reproduction.json``; it and the run folders that it links are all that is read.
        out: a file for the page; then the page alone is written, there.

    Raises:
        ReportError: if a file is missing or damaged, no run has finished, or the files cannot be written.
    """
    folder = Path(folder)
    path = folder / PAGE if out is None else out
    refuse_others(path, GENERATOR)
    record = read_reproduction(folder)
    figures = pictures(record)
    page = render(reproduction_page(record, figures, path))
    if out is not None:
        return write_report_file(path, page)
    drawn = _document(figures)
    texts = {
        PAGE: page,
        "table.md": to_markdown(record),
        "table.csv": to_csv(record),
        "results.json": to_json(record),
    }
    write_report_files(folder, {name: text.encode() for name, text in texts.items()} | drawn)
    for name in FIGURES:
        if name not in drawn:
            (folder / name).unlink(missing_ok=True)
    return path


def print_reproduction(folder: Path | str, console: Console | None = None) -> None:
    """Print what a reproduced table or figure says, and its tables, with rich in at most 100 columns.

    Raises:
        ReportError: as :func:`write_reproduction`.
    """
    record = read_reproduction(folder)
    console = console or terminal()
    console.print(Text(f"{record.title} (scale {record.scale})", style="bold"))
    for group in record.groups:
        if not group.rows:
            console.print(Text(f"{group.title}: no run has finished", style="yellow"))
            continue
        heading = f"{group.title}: " if len(record.groups) > 1 else ""
        print_table(group.record, console, rows=group.rows, heading=heading)
    for sentence in reproduction_verdict(record):
        console.print(Text(sentence))


def _document(figures: list[Picture]) -> dict[str, bytes]:
    shown = [one for one in figures if one.main and one.drawings]
    drawings = [drawing for one in shown for drawing in one.drawings]
    if not drawings:
        return {}
    legend = {name: style for one in shown for name, style in one.legend.items()}
    return dict(zip(FIGURES, document(drawings, legend=legend), strict=True))
