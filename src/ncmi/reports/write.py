"""Report files written whole or not at all, with faults that name the cure."""

from __future__ import annotations

from pathlib import Path

from ncmi.files import write_text
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
