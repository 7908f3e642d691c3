"""The report: one self-contained HTML page about a comparison folder or a run folder."""

from __future__ import annotations

from pathlib import Path

from ncmi.reports.comparison_page import comparison_page
from ncmi.reports.files import ReportError
from ncmi.reports.page import GENERATOR, render
from ncmi.reports.read import read_comparison, read_run
from ncmi.reports.run_page import run_page
from ncmi.reports.write import write_report_file

NAME = "report.html"


def write_report(folder: Path | str, out: Path | str | None = None) -> Path:
    """Write the report of a comparison folder or a run folder, and return its path.

    Args:
        folder: a folder with ``comparison.json`` or with ``recipe.json``.
        out: the file to write, or a folder for ``report.html``; by default ``report.html`` inside ``folder``.
            An earlier report is replaced, any other file is left alone.

    Raises:
        ReportError: if ``folder`` is neither, a file in it is damaged, no run of a comparison has finished,
            or ``out`` cannot be written or is something else than a report. Nothing is written then.
    """
    folder = Path(folder)
    path = folder / NAME if out is None else Path(out)
    if path.is_dir():
        path = path / NAME
    _refuse_others(path)
    if (folder / "comparison.json").is_file():
        page = comparison_page(read_comparison(folder), path)
    elif (folder / "recipe.json").is_file():
        page = run_page(read_run(folder), path)
    else:
        raise ReportError(
            f"{folder}: neither a comparison folder (comparison.json) nor a run folder (recipe.json): "
            "give the folder that a comparison or a training wrote"
        )
    return write_report_file(path, render(page))


def _refuse_others(path: Path) -> None:
    """Never write over a file that is not an earlier report."""
    if not path.exists():
        return
    with path.open("rb") as file:
        if GENERATOR.encode() in file.read(4096):
            return
    raise ReportError(f"{path}: exists and is no report of ncmi: give another file, or move this one away")
