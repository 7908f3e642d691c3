"""The report: one self-contained HTML page about a reproduction, a comparison or a run."""

from __future__ import annotations

from pathlib import Path

from ncmi.reports.comparison_page import comparison_page
from ncmi.reports.files import ReportError
from ncmi.reports.page import GENERATOR, render
from ncmi.reports.read import read_comparison, read_run
from ncmi.reports.reproduction import FILE as REPRODUCTION
from ncmi.reports.reproduction_write import write_reproduction
from ncmi.reports.run_page import run_page
from ncmi.reports.write import refuse_others, write_report_file

NAME = "report.html"


def write_report(folder: Path | str, out: Path | str | None = None) -> Path:
    """Write the report of a reproduction, a comparison folder or a run folder, and return its path.

    Of a reproduced table or figure the tables and figure files are written too, unless ``out`` is given: see
    :func:`write_reproduction`.

    Args:
        folder: a folder with ``reproduction.json``, ``comparison.json`` or ``recipe.json``.
        out: the file to write, or a folder for ``report.html``; by default ``report.html`` inside ``folder``.
            An earlier report is replaced, any other file is left alone.

    Raises:
        ReportError: if ``folder`` is neither, a file in it is damaged, no run of a comparison has finished,
            or ``out`` cannot be written or is something else than a report. Nothing is written then.
    """
    from ncmi.reports.slides import is_slides_folder, write_slides_report

    folder = Path(folder)
    if is_slides_folder(folder):
        return write_slides_report(folder, out=out)
    path = folder / NAME if out is None else Path(out)
    if path.is_dir():
        path = path / NAME
    refuse_others(path, GENERATOR)
    if (folder / REPRODUCTION).is_file():
        return write_reproduction(folder, None if out is None else path)
    if (folder / "comparison.json").is_file():
        page = comparison_page(read_comparison(folder), path)
    elif (folder / "recipe.json").is_file():
        page = run_page(read_run(folder), path)
    else:
        raise ReportError(
            f"{folder}: neither a comparison folder (comparison.json) nor a run folder (recipe.json) nor a reproduced "
            "table or figure (reproduction.json): "
            "give the folder that a comparison or a training wrote"
        )
    return write_report_file(path, render(page))
