"""JSON, JSON lines and NumPy archives, read so that every fault names the file and the cure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT = 1


class ReportError(ValueError):
    """A file that a report needs is missing, damaged or of another kind; the message names file and cure."""


@dataclass(frozen=True)
class JsonObject:
    """A JSON object that remembers its file, so that a missing or mistyped key is reported with its place."""

    path: Path
    content: dict[str, Any]
    place: str = ""

    def _get(self, key: str, kinds: tuple[type, ...], wanted: str) -> Any:
        where = f"{self.place}{key}"
        if key not in self.content:
            raise ReportError(f"{self.path}: the key {where!r} is missing: run it again into an empty folder")
        value = self.content[key]
        # bool is an int to Python, never to a run folder
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ReportError(f"{self.path}: {where!r} is {value!r}, not {wanted}: restore the file or run it again")
        return value

    def text(self, key: str) -> str:
        """A string."""
        return str(self._get(key, (str,), "a string"))

    def integer(self, key: str) -> int:
        """A whole number."""
        return int(self._get(key, (int,), "a whole number"))

    def number(self, key: str) -> float:
        """A number; ``null`` is NaN: measured, but undefined."""
        value = self._get(key, (int, float, type(None)), "a number")
        return float("nan") if value is None else float(value)

    def items(self, key: str) -> list[Any]:
        """A list."""
        return list(self._get(key, (list,), "a list"))

    def child(self, key: str) -> JsonObject:
        """An object inside this one."""
        return JsonObject(self.path, self._get(key, (dict,), "an object"), f"{self.place}{key}.")


def read_json(path: Path, *, versioned: bool = True) -> JsonObject:
    """Read a file that holds one JSON object; a ``versioned`` one must have ``"format": 1``.

    Raises:
        ReportError: if the file is missing, is not JSON, or has a format that this version does not know.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"{path}: cannot be read ({error.strerror}): check the path and run it again") from None
    except ValueError as error:
        raise ReportError(f"{path}: damaged, not JSON ({error}): restore the file or run it again") from None
    if not isinstance(content, dict):
        raise ReportError(f"{path}: holds a {type(content).__name__}, not a JSON object: restore the file")
    found = content.get("format")
    if versioned and found != FORMAT:
        raise ReportError(f"{path}: has format {found!r}, this version reads {FORMAT}: use the ncmi that wrote it")
    return JsonObject(path, content)


def read_json_lines(path: Path, *, may_be_cut: bool) -> list[JsonObject]:
    """Read one JSON object per line. Of a killed run, the last line may be cut off and is left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ReportError(f"{path}: cannot be read ({error.strerror}): run it again") from None
    except ValueError as error:
        raise ReportError(f"{path}: damaged, not text ({error}): restore the file or run it again") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line)
        except ValueError as error:
            if may_be_cut and number == len(lines):
                break
            raise ReportError(
                f"{path}, line {number}: damaged, not JSON ({error}): restore the file or run it again"
            ) from None
        if not isinstance(content, dict):
            raise ReportError(f"{path}, line {number}: not a JSON object: restore the file or run it again")
        rows.append(JsonObject(path, content, f"line {number}: "))
    return rows


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of an ``.npz``; nothing that is pickled is ever loaded."""
    try:
        # opened here, so that it is closed when NumPy gives up on it half-way
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise ReportError(f"{path}: missing: restore it or run it again into an empty folder") from None
    # damaged archives make NumPy, zipfile, zlib and tokenize raise a dozen unrelated kinds of exception
    except Exception as error:
        raise ReportError(f"{path}: damaged, not an .npz archive ({error}): run it again") from None
