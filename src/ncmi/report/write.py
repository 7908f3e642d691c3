"""The report: one page about a run, a comparison or a reproduction of any kind of data, and the files beside it."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ncmi.files import PARTIAL
from ncmi.report.records import Comparison, Record, ReportError, Run, read_folder
from ncmi.report.reproduction import reproduction_rows
from ncmi.report.statistics import comparison_rows
from ncmi.report.tables import (
    comparison_markdown,
    comparison_table,
    csv_text,
    reproduction_markdown,
    reproduction_table,
    to_csv,
    to_json,
)

NAME = "report.html"
GENERATOR = b'<meta name="generator" content="ncmi report">'
"""By this, near the beginning, an earlier report is known."""
FIGURES = ("figure.svg", "figure.png")
"""For documents, of a reproduced table or figure."""


def write_report(
    folder: Path | str | Record,
    out: Path | str | None = None,
    *,
    tiles: Path | None = None,
    slides: Path | None = None,
) -> Path:
    """Write the report of a run, a comparison or a reproduction, and return the page's path.

    Beside the page of a comparison stand ``table.md`` and ``table.csv``; beside that of a reproduction also
    ``results.json`` and, where its figure can be drawn from these runs, ``figure.svg`` and ``figure.png``. With ``out``
    the page alone is written. All of it is written, or none.

    Args:
        folder: what ``ncmi train``, ``ncmi compare`` or ``ncmi reproduce`` wrote, or what was read from there.
        out: the file to write, or a folder for ``report.html``; by default ``report.html`` inside ``folder``. An
            earlier report is replaced, any other file is left alone.
        tiles: of a run on slides what ``ncmi slides tile`` wrote, for thumbnails below its heat maps.
        slides: folder of the slide files, for thumbnails and for images of the patches that drew most attention.

    Raises:
        ReportError: if ``folder`` is none of these, a file in it is damaged, no run of it has finished, ``tiles`` or
            ``slides`` is no folder, or ``out`` cannot be written or is something else than a report. Nothing is
            written then.
    """
    place = folder.folder if isinstance(folder, Record) else Path(folder)
    path = place / NAME if out is None else Path(out)
    path = path / NAME if path.is_dir() else path
    _refuse_others(path)
    record = read_folder(folder)
    # here, not above: whoever wants a table waits for no chart
    from altair.utils.schemapi import debug_mode

    # charts are checked by the tests, not again on every page
    with debug_mode(False):
        return _write(record, path, out is not None, tiles, slides)


def write_csv(folder: Path | str | Record, path: Path) -> Path:
    """Write :func:`to_csv` into a file, complete or not at all.

    ReportError if a file is missing or damaged, or this one cannot be written.
    """
    return _write_files({path: to_csv(folder).encode()})


def _write(record: Record, path: Path, alone: bool, tiles: Path | None, slides: Path | None) -> Path:
    from ncmi.report import pages

    if isinstance(record, Run):
        return _write_files({path: pages.run_page(record, path, tiles=tiles, slides=slides).encode()})
    figures: dict[str, bytes] = {}
    if isinstance(record, Comparison):
        rows = comparison_rows(record)
        page = pages.comparison_page(record, rows, path)
        texts = {"table.md": comparison_markdown(record, rows) + "\n"}
        texts["table.csv"] = csv_text(comparison_table(record, rows))
    else:
        groups = reproduction_rows(record)
        page, figures = pages.reproduction_page(record, groups, path)
        texts = {"table.md": reproduction_markdown(record, groups), "results.json": to_json(record, groups)}
        texts["table.csv"] = csv_text(reproduction_table(record, groups))
    if alone:
        return _write_files({path: page.encode()})
    files = {name: content.encode() for name, content in texts.items()} | figures | {NAME: page.encode()}
    _write_files({record.folder / name: content for name, content in files.items()})
    for name in FIGURES if not isinstance(record, Comparison) else ():
        if name not in figures:
            # a figure of other runs would be a lie
            (record.folder / name).unlink(missing_ok=True)
    return path


def _write_files(contents: Mapping[Path, bytes]) -> Path:
    """Write files into existing folders: all of them, or, where one cannot be written, none. The last one's path."""
    made: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
            made[path] = Path(temporary)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, source in made.items():
            source.chmod(0o644)
            source.replace(path)
    except OSError as error:
        raise ReportError(
            f"{path}: cannot be written ({error.strerror}): give a path in an existing, writable folder, or make room"
        ) from None
    finally:
        for source in made.values():
            source.unlink(missing_ok=True)
    return path


def _refuse_others(path: Path) -> None:
    """Never write over a page that is not an earlier report, which says so at its beginning."""
    if path.exists():
        with path.open("rb") as file:
            if GENERATOR not in file.read(4096):
                raise ReportError(f"{path}: exists and is no report of ncmi: give another file, or move this one away")
