"""The report of slides: one self-contained HTML page about a run or a comparison, and a comparison's table as files."""

from __future__ import annotations

from pathlib import Path

from ncmi.reports.files import ReportError
from ncmi.reports.page import GENERATOR, render
from ncmi.reports.slides.comparison_page import slide_comparison_page
from ncmi.reports.slides.read import read_slide_comparison, read_slide_run
from ncmi.reports.slides.run_page import slide_run_page
from ncmi.reports.slides.sources import Sources
from ncmi.reports.slides.statistics import comparison_cells
from ncmi.reports.slides.table import slides_csv, slides_markdown
from ncmi.reports.write import refuse_others, write_report_file, write_report_files

PAGE = "report.html"


def write_slides_report(
    folder: Path | str, *, out: Path | str | None = None, tiles: Path | None = None, slides: Path | None = None
) -> Path:
    """Write the report of a run folder or of a comparison folder of slides, and return the page's path.

    Beside the page of a comparison ``table.md`` and ``table.csv`` are written, unless ``out`` is given: all of them, or
    none.

    Args:
        folder: a folder with ``comparison.json`` or ``recipe.json`` of slides.
        out: the file to write, or a folder for ``report.html``; by default ``report.html`` inside ``folder``. An
            earlier report is replaced, any other file is left alone.
        tiles: what `ncmi slides tile` wrote, for thumbnails below the heat maps of a run.
        slides: folder of the slide files, for thumbnails and for images of the patches that drew most attention.

    Raises:
        ReportError: if ``folder`` is neither, a file in it is damaged, no run of a comparison has finished, ``tiles``
            or ``slides`` is no folder, or ``out`` cannot be written or is something else than a report. Nothing is
            written then.
    """
    folder = Path(folder)
    path = folder / PAGE if out is None else Path(out)
    if path.is_dir():
        path = path / PAGE
    refuse_others(path, GENERATOR)
    if (folder / "comparison.json").is_file():
        record = read_slide_comparison(folder)
        cells = comparison_cells(record)
        page = render(slide_comparison_page(record, cells, path))
        if out is not None:
            return write_report_file(path, page)
        texts = {PAGE: page, "table.md": slides_markdown(record, cells), "table.csv": slides_csv(record, cells)}
        write_report_files(folder, {name: text.encode() for name, text in texts.items()})
        return path
    if (folder / "recipe.json").is_file():
        return write_report_file(path, render(slide_run_page(read_slide_run(folder), path, Sources(slides, tiles))))
    raise ReportError(
        f"{folder}: neither a comparison folder (comparison.json) nor a run folder (recipe.json): give the folder that "
        "a comparison or a training of slides wrote"
    )
