"""Files of labels: tables, most often .csv, with a column that names images, one of classes, perhaps one of parts."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ncmi.data.columns import IMAGE_COLUMNS, IMAGE_LABEL_COLUMNS, PART_WORDS, SPLIT_COLUMNS, called_like
from ncmi.errors import listing
from ncmi.files import is_system_file

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
LABEL_FILE_SUFFIXES = (".csv", ".tsv", ".txt")
_ID = re.compile(r"(?<![a-z])(id|index|unnamed: 0)$|^$", re.IGNORECASE)  # of columns that number something
_SAMPLE_ROWS = 50
_SAMPLE_BYTES = 256 * 1024
_MOST_ENTRIES = 50_000  # of folders, looked at to see whether a table names images
_PREDICTION_STRING = "predictionstring"  # ImageNet's: the class, then boxes


@dataclass(eq=False)
class ImageLabels:
    """What a file of labels says.

    Attributes:
        path: the file.
        rows: (path of the image, class, part or None) in order; each image once.
        bad: (name, reason) of rows that cannot be used.
        note: what was understood.
        repeats_folders: whether a column says no more than the folder that each image lies in, by names of its own.
        undecided: why no column could be taken for the label's; empty where one was.
    """

    path: Path
    rows: list[tuple[str, str, int | None]] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    note: str = ""
    repeats_folders: bool = False
    undecided: str = ""


class _Finder:
    """The image that a text names: by its path, with or without suffix, or by its name alone where that is unique."""

    def __init__(self, bases: Sequence[Path], most: int | None = None) -> None:
        self.bases = [str(base) for base in bases]
        self.most = most
        self._by_name: dict[str, list[str]] | None = None

    def find(self, text: str) -> str | None:
        """Path of an existing image, or None."""
        name = text.strip().replace("\\", "/").removeprefix("./")
        if not name or len(name) > 500 or "\0" in name:
            return None
        if name.lower().endswith(IMAGE_SUFFIXES):
            for base in self.bases:
                # normalized, so that ../ in a name does not hide where the image lies
                path = os.path.normpath(name if name.startswith("/") else f"{base}/{name}")
                if os.path.lexists(path):
                    return path
        last = name.rsplit("/", 1)[-1]
        candidates = self.by_name.get(last.lower(), [])
        if not candidates and last.isdecimal():
            candidates = self.by_name.get(_number_key(last), [])
        if len(candidates) > 1:
            tails = [_common_tail(path, name) for path in candidates]
            candidates = [p for p, tail in zip(candidates, tails, strict=True) if tail == max(tails)]
        return candidates[0] if len(candidates) == 1 else None

    @property
    def by_name(self) -> dict[str, list[str]]:
        """Images below the folders, by their names in small letters, with and without suffix."""
        if self._by_name is None:
            self._by_name, seen = {}, 0
            for base in self.bases[:1]:
                for folder, inner, files in os.walk(base):
                    inner[:] = sorted(name for name in inner if not is_system_file(name))
                    for name in sorted(files):
                        if name.lower().endswith(IMAGE_SUFFIXES) and not is_system_file(name):
                            stem = _stem(name).lower()
                            keys = (name.lower(), stem, *((_number_key(stem),) if stem.isdecimal() else ()))
                            for key in keys:
                                self._by_name.setdefault(key, []).append(f"{folder}/{name}")
                    seen += len(files) + len(inner)
                    if self.most is not None and seen > self.most:
                        return self._by_name
        return self._by_name


def _common_tail(path: str, name: str) -> int:
    """How many last parts two paths have in common, without suffix."""
    first, second = (text.lower().split("/")[::-1] for text in (path, name))
    first[0], second[0] = (_stem(last) if last.endswith(IMAGE_SUFFIXES) else last for last in (first[0], second[0]))
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def _number_key(text: str) -> str:
    """Of 7, 07 and 007 alike; no file is called so."""
    return f"/{int(text)}"


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def names_images(path: Path, images: Path | None = None) -> bool:
    """Whether a table is one of image files and their labels: most rows' values in a column are names of images."""
    # a pipe would wait for somebody to write into it
    rows = _read_rows(path, sample=True) if path.is_file() else []
    if not rows or len(rows[0]) < 2:
        return False
    # a look into folders is worth it only where something is called like a file
    columns = list(zip(*rows, strict=False))
    like = [any(t.strip().lower().endswith(IMAGE_SUFFIXES) for t in c) or bool(_called(c[0])) for c in columns]
    if not any(like):
        return False
    finder = _Finder([images or path.parent, path.parent], _MOST_ENTRIES)
    return _file_column(rows, finder, least=0.8) is not None


def read_image_labels(
    path: Path, images: Path | None = None, label_column: str | None = None, *, guess: bool = False
) -> ImageLabels:
    """Read a file of labels.

    Which column names the images is seen by which names files that exist. The label's is the one called so
    (``label_column``, or label, class, species and the like), or the only other one, or one of several 0/1 columns is
    1 in each row. A column called split, set or the like that holds only train, val and test says the parts.

    Args:
        images: folder that names are relative to, besides the file's own.
        label_column: name of the label's column, or its number, from 1 on.
        guess: the file was found beside images and may be something else: then there are no rows, or ``undecided``
            says why, where otherwise there is an error.

    Raises:
        ValueError: where no column names images, or none is clearly the label's.
    """
    found = ImageLabels(path)
    rows = _read_rows(path, sample=True)
    finder = _Finder([images or path.parent, path.parent])
    column = _file_column(rows, finder, least=0.5 if guess else 0.02) if rows and len(rows[0]) > 1 else None
    if column is None:
        if guess:
            return found
        seen = listing([row[0] for row in rows[1:4]], 3) if rows else "no rows"
        raise ValueError(
            f"no column names images that exist in {images or path.parent} ({seen} in the first): give the folder of "
            "the images (--data.images DIR)"
        )
    rows = _read_rows(path)
    first = rows[0]
    headed = finder.find(first[column]) is None
    header = [name.strip() for name in first] if headed else [f"column_{i + 1}" for i in range(len(first))]
    body = [row for row in (rows[1:] if headed else rows) if any(cell.strip() for cell in row)]
    width = len(header)
    body = [row[:width] + [""] * (width - len(row)) for row in body]
    parts = _split_column(header, body, column)
    labels, how = _labels(header, body, column, parts, label_column, headed)
    if labels is None:
        if not guess:
            raise ValueError(how)
        found.undecided = how
        found.repeats_folders = _repeats_folders(body, column, finder)
        return found
    _collect(found, body, column, labels, parts, finder)
    split = f", parts by column {header[parts]!r}" if parts is not None else ""
    found.note = f"labels are read from {path.name}: images by column {header[column]!r}, {how}{split}"
    known = {row[0] for row in found.rows}
    beside = {p for paths in finder.by_name.values() for p in paths} if images is not None or guess else set()
    if unnamed := len(beside - known):
        found.note += f"; {unnamed} images that it does not name are left out"
    found.repeats_folders = _one_to_one((label, Path(file).parent.name) for file, label, _ in found.rows)
    return found


def _collect(
    found: ImageLabels, body: list[list[str]], column: int, labels: list[str], parts: int | None, finder: _Finder
) -> None:
    places: dict[str, int] = {}
    conflicts: set[str] = set()
    for row, label in zip(body, labels, strict=True):
        text = row[column].strip()
        file = finder.find(text)
        if file is None:
            found.bad.append((text or "(no name)", f"named in {found.path.name}, but there is no such image"))
        elif not label:
            found.bad.append((text, f"without a label in {found.path.name}"))
        elif file in places:
            _, other, _ = found.rows[places[file]]
            if other != label and file not in conflicts:
                conflicts.add(file)
                found.bad.append((text, f"named twice in {found.path.name}, as {other!r} and {label!r}"))
        else:
            part = None if parts is None else PART_WORDS.get(row[parts].strip().lower(), -1)
            places[file] = len(found.rows)
            found.rows.append((file, label, part))
    if conflicts:
        found.rows = [row for row in found.rows if row[0] not in conflicts]


def _read_rows(path: Path, sample: bool = False) -> list[list[str]]:
    """Rows of a text table, by the separator that all first lines have equally often; [] for what is none."""
    with path.open("rb") as file:
        content = file.read(_SAMPLE_BYTES if sample else -1)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = content[: len(content) // 2 * 2].decode("utf-16", "replace")
    elif b"\0" in content[:4096]:
        return []
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            cut = sample and error.start > len(content) - 4
            text = content.decode("utf-8-sig", "replace") if cut else content.decode("latin-1")
    lines = [line for line in text.splitlines() if line.strip()]
    if sample:
        # the last line may have been cut
        lines = lines[: min(_SAMPLE_ROWS + 1, len(lines) - (len(content) == _SAMPLE_BYTES))]
    separator = _separator(lines[:20])
    if separator == " ":
        return [line.split() for line in lines]
    try:
        return [row for row in csv.reader(lines, delimiter=separator, skipinitialspace=True) if row]
    except csv.Error:
        return []


def _separator(lines: list[str]) -> str:
    for separator in (",", "\t", ";", "|"):
        counts = {len(row) for row in csv.reader(lines, delimiter=separator, skipinitialspace=True)}
        if len(counts) == 1 and counts != {1}:
            return separator
    return " " if lines and all(len(line.split()) > 1 for line in lines) and "," not in lines[0] else ","


def _file_column(rows: list[list[str]], finder: _Finder, least: float) -> int | None:
    """The column whose values are names of images; of several the one called so, else the one that differs most.

    Numbers name images only in a column that is called like one of files: an age of 3 is not 3.png.
    """
    body = rows[1:] or rows
    scores = []
    for index in range(len(rows[0])):
        values = [row[index].strip() for row in body if len(row) > index and row[index].strip()]
        if not values:
            continue
        suffixed = sum(value.lower().endswith(IMAGE_SUFFIXES) for value in values)
        called = bool(_called(rows[0][index]))
        if not called and not suffixed and all(value.isdigit() for value in values):
            continue
        named = sum(finder.find(value) is not None for value in values)
        if named >= max(1, least * len(values)):
            scores.append((called, suffixed, len(set(values)), -index))
    return -max(scores)[3] if scores else None


def _called(name: str) -> list[str]:
    return called_like([name], IMAGE_COLUMNS)


def _split_column(header: list[str], body: list[list[str]], column: int) -> int | None:
    for name in called_like(header, SPLIT_COLUMNS):
        index = header.index(name)
        values = {row[index].strip().lower() for row in body}
        if index != column and values - {""} and values - {""} <= PART_WORDS.keys():
            return index
    return None


def _labels(
    header: list[str], body: list[list[str]], column: int, parts: int | None, label_column: str | None, headed: bool
) -> tuple[list[str] | None, str]:
    """The class of each row and how it was found; or None, and why there is none."""
    others = [i for i, name in enumerate(header) if i not in (column, parts) and not _ID.search(name)]
    chosen: int | None = None
    if label_column is not None:
        number = int(label_column) if re.fullmatch(r"[1-9]\d*", label_column) else 0
        if label_column in header:
            chosen = header.index(label_column)
        elif number and number <= len(header):
            chosen = number - 1
        else:
            return None, f"no column {label_column!r} (--data.label-column): there are {listing(header)}"
    else:
        usual = [i for i in range(len(header)) if called_like([header[i]], IMAGE_LABEL_COLUMNS)]
        usual = [i for i in usual if i not in (column, parts)]
        if len(usual) > 1:
            # a number and a name of the same class: the name says more
            pairs = {tuple(row[i].strip() for i in usual) for row in body}
            one_to_one = all(len({pair[k] for pair in pairs}) == len(pairs) for k in range(len(usual)))
            texts = [i for i in usual if not all(re.fullmatch(r"[+-]?\d+", row[i].strip()) for row in body)]
            usual = (texts or usual)[:1] if one_to_one else usual
        if len(usual) == 1:
            chosen = usual[0]
        elif not usual and len(others) == 1:
            chosen = others[0]
        elif not usual and not headed:
            chosen = next((i for i in others if i > column), others[0] if others else None)
    if chosen is not None:
        values = [row[chosen].strip() for row in body]
        if header[chosen].lower() == _PREDICTION_STRING:
            values = [value.split()[0] if value else "" for value in values]
        values = [re.sub(r"^([+-]?\d+)\.0+$", r"\1", value) for value in values]
        return values, f"classes by column {header[chosen]!r}"
    flags = [i for i in others if body and all(re.fullmatch(r"[01](\.0*)?", row[i].strip()) for row in body)]
    if len(flags) > 1 and all(sum(row[i].strip()[0] == "1" for i in flags) == 1 for row in body):
        values = [header[next(i for i in flags if row[i].strip()[0] == "1")] for row in body]
        return values, f"classes by which of the columns {listing([header[i] for i in flags], 5)} is 1"
    names = listing([header[index] for index in others])
    return None, f"which column is the label? There are {names}: say it (--data.label-column NAME)"


def _repeats_folders(body: list[list[str]], column: int, finder: _Finder) -> bool:
    rows = [(row, finder.find(row[column])) for row in body[:_SAMPLE_ROWS]]
    folders = [(row, Path(file).parent.name) for row, file in rows if file is not None]
    width = len(folders[0][0]) if folders else 0
    return any(_one_to_one((row[i].strip(), folder) for row, folder in folders) for i in range(width) if i != column)


def _one_to_one(pairs: Iterable[tuple[str, str]]) -> bool:
    """Whether two names of the same thing say the same of it, and of several."""
    different = set(pairs)
    return len(different) > 1 and all(len({pair[k] for pair in different}) == len(different) for k in (0, 1))
