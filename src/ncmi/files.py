"""Files that are either written whole or not at all, and what is to be seen in a folder."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ncmi.errors import on_one_line

PARTIAL = ".partial"
"""Ending of a file that is being written."""
# what a formula begins with, for some programs in full width too
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_SYSTEM_FILES = ("thumbs.db", "desktop.ini", "__macosx")


def visible(folder: Path) -> list[Path]:
    """Entries of a folder in order of name, without hidden ones and what operating systems leave behind."""
    return sorted((e for e in folder.iterdir() if not is_system_file(e.name)), key=lambda entry: entry.name)


def is_system_file(name: str) -> bool:
    """Whether a name is of what operating systems leave behind, or hidden."""
    return name.startswith(".") or name.lower() in _SYSTEM_FILES


def all_files(folder: Path) -> list[Path]:
    """All visible files below a folder, in order of their path. A link to a folder that it lies in is left out."""

    def below(inner: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
        status = inner.stat()
        key = (status.st_dev, status.st_ino)
        if key not in above:
            for entry in visible(inner):
                if entry.is_dir():
                    yield from below(entry, (*above, key))
                else:
                    yield entry

    return list(below(folder, ()))


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a temporary file beside ``path``, then put it in place of it in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_regular(path: Path) -> None:
    """Raise ValueError for what would be waited for without end, or read without end: pipes, devices, sockets.

    What does not exist, or is a folder, is left to whoever opens it.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(f"{path}: a pipe or a device, and no file: give the path of a file")


def check_writable(path: Path) -> None:
    """See now whether a file could be written here, which is made only after long work.

    Raises:
        OSError: naming the path, the reason and the cure.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"{path}: cannot be written ({error.strerror}): choose another place") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def write_json(path: Path, content: Any) -> None:
    """Write plain values as JSON, whole or not at all; NaN and infinities become ``null``."""
    write_text(path, json.dumps(finite(content), indent=2, allow_nan=False) + "\n")


def inert_cell(text: str) -> str:
    """A text as a cell of a CSV file that no spreadsheet takes for a formula, and no terminal for an order.

    What begins with ``=``, ``+``, ``-``, ``@``, a tab or a line's end gets an apostrophe before it, unless it is a
    number; control characters are shown by their codes.

    >>> inert_cell("=cmd|' /C calc'!A0"), inert_cell("-1.5"), inert_cell("setosa")
    ("'=cmd|' /C calc'!A0", '-1.5', 'setosa')
    """
    shown = on_one_line(text)
    return f"'{shown}" if text.startswith(_FORMULA) and not _is_number(text) else shown


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def finite(content: Any) -> Any:
    """The same plain values with ``None`` for NaN and infinities, which JSON does not have."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    if isinstance(content, float) and (content != content or content in (float("inf"), float("-inf"))):
        return None
    return content


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
