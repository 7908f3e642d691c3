"""Report files written whole or not at all, with faults that name the cure."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ncmi.files import PARTIAL, write_text
from ncmi.reports.files import ReportError


def write_report_file(path: Path, content: str) -> Path:
    """Write UTF-8 text in one step and return its path; no folder is made.

    Raises:
        ReportError: if the folder does not exist or cannot be written to.
    """
    try:
        if not path.parent.is_dir():
            raise FileNotFoundError(2, "no such folder")
        write_text(path, content)
    except OSError as error:
        raise ReportError(
            f"{path}: cannot be written ({error.strerror}): give a path in an existing, writable folder"
        ) from None
    return path


def write_report_files(folder: Path, contents: dict[str, bytes]) -> None:
    """Write several files into an existing folder: all of them, or, where one cannot be written, none.

    Raises:
        ReportError: if the folder does not exist or cannot be written to.
    """
    made: list[tuple[Path, Path]] = []
    try:
        for name, content in contents.items():
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}.", suffix=PARTIAL)
            made.append((Path(temporary), folder / name))
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for source, target in made:
            source.chmod(0o644)
            source.replace(target)
    except OSError as error:
        raise ReportError(
            f"{folder}: the report cannot be written ({error.strerror}): make room, or give a writable folder"
        ) from None
    finally:
        for source, _ in made:
            source.unlink(missing_ok=True)


def refuse_others(path: Path, mark: str) -> None:
    """Never write over a page that is not an earlier report, which has ``mark`` at its beginning.

    Raises:
        ReportError: if there is another file.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        if mark.encode() in file.read(4096):
            return
    raise ReportError(f"{path}: exists and is no report of ncmi: give another file, or move this one away")
