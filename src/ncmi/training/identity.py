"""Which data a run was begun with: where it lies and what was in it, kept in ``data.json`` and looked up again.

A finished or stopped run is judged, or gone on with, on the data it was begun with or not at all.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import fields, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ncmi.data.kinds import EMBEDDED, find_data, find_source
from ncmi.errors import listing
from ncmi.recipes import Data
from ncmi.training.run_folder import RunFolder, RunFolderError
from ncmi.training.schema import Contents, DataRecord

if TYPE_CHECKING:
    from ncmi.data.tables.table import LabeledTable

KEPT_DATA = "data"
"""Folder beside runs, and comparisons, for the data that a Python program gave them from memory."""
_BESIDE = 3  # folders up from a run of a comparison to what the comparison lies in
_PATHS = ("name", "test", "validation", "labels", "slide_table", "splits")


def paths_of(data: Data) -> dict[str, str]:
    """Absolute path of each file and folder that a recipe's section names, by its field; nothing of embedded data."""
    named = {each.name: getattr(data, each.name) for each in fields(data) if each.name in _PATHS}
    folder = getattr(data, "data_dir", None)
    found = {}
    for field, name in named.items():
        if name is None or (field == "name" and name in EMBEDDED):
            continue
        # data that was given as an object may have a name that lies nowhere
        with suppress(FileNotFoundError):
            path = find_source(name, folder)[0] if field == "name" else find_data(name, folder)
            found[field] = str(path.absolute())
    return found


def located(data: Data, folder: RunFolder) -> Data:
    """The section of a run's recipe with the paths that the run was begun with, as far as they are still there.

    Raises:
        RunFolderError: where something is neither there nor found anew by its name.
    """
    record = folder.data_record()
    paths = {} if record is None else record.paths
    there: dict[str, Any] = {field: path for field, path in paths.items() if Path(path).exists()}
    for field in paths.keys() - there.keys():
        if (moved := _moved(Path(paths[field]), folder)) is not None:
            there[field] = str(moved)
    if gone := paths.keys() - there.keys() - paths_of(data).keys():
        raise RunFolderError(
            f"{folder.path}: the data that this run was begun with is gone: "
            f"{listing(sorted(paths[field] for field in gone))}. Bring it back to where it was, or train anew "
            "into another folder"
        )
    return replace(data, **there)


def _moved(path: Path, folder: RunFolder) -> Path | None:
    """Where data that was kept beside a run now is, if both have been moved together."""
    if path.parent.name != KEPT_DATA:
        return None
    parents = folder.path.absolute().parents[:_BESIDE]
    return next((place for parent in parents if (place := parent / KEPT_DATA / path.name).exists()), None)


def contents_of_table(table: LabeledTable) -> Contents:
    """Digests of a table's rows, as they were read, with labels, groups, times and given parts."""
    frame = table.rows.frame
    columns = {str(name): _hashes(frame[name]) for name in frame.columns}
    names = np.asarray(table.class_names, dtype=object)[table.labels.numpy()]
    beside = {"label": names, "group": table.groups, "time": table.times, "part": table.parts}
    every = columns | {f"({what})": _hashes(values) for what, values in beside.items() if values is not None}
    rows = np.zeros(len(table), np.uint64)
    for hashes in every.values():
        # of the columns in their order, but row by row
        rows = rows * np.uint64(0x9E3779B97F4A7C15) + hashes
        rows ^= rows >> np.uint64(29)
    return Contents(
        ordered=_digest(rows),
        unordered=_digest(np.sort(rows)),
        columns={name: _digest(hashes) for name, hashes in every.items()},
    )


def _hashes(values: Any) -> np.typing.NDArray[np.uint64]:
    """A hash of each value, ``[N]``."""
    import pandas as pd

    series = pd.Series(values)
    if series.dtype.kind == "f":
        series = series.astype(np.float64) + 0.0  # no -0.0
    elif series.dtype.kind not in "iubM":
        series = series.astype(object).where(series.notna(), None)
    return np.asarray(pd.util.hash_array(series.to_numpy()))


def _digest(array: np.typing.NDArray[np.uint64]) -> str:
    return blake2b(np.ascontiguousarray(array).data, digest_size=16).hexdigest()


def check_same(earlier: DataRecord, now: DataRecord, folder: RunFolder) -> None:
    """Raise RunFolderError where the data is not what the run was begun with; the message says what has changed."""
    changes = _changes(earlier, now)
    if changes:
        path = earlier.paths.get("name")
        where = f" ({path})" if path else ""
        raise RunFolderError(
            f"{folder.path}: the data{where} has changed since this run was begun: {'; '.join(changes)}. Bring it back "
            "as it was, or train anew into another folder"
        )


def _changes(earlier: DataRecord, now: DataRecord) -> list[str]:
    if earlier.contents is not None and earlier.contents == now.contents and earlier.parts == now.parts:
        return []
    changes = []
    if earlier.samples != now.samples:
        changes.append(f"{earlier.samples} samples, now {now.samples}")
    if list(earlier.classes) != list(now.classes):
        lost, new = (list(Counter(one) - Counter(two)) for one, two in _both(list(earlier.classes), list(now.classes)))
        words = [f"{what} {listing(names, 5)}" for what, names in (("without", lost), ("with", new)) if names]
        changes.append(f"classes {' and '.join(words) or 'in another order'}")
    elif earlier.classes != now.classes and not changes:
        changes.append("other labels")
    if changes or earlier.contents is None or now.contents is None:
        return changes or (["other parts"] if earlier.parts != now.parts else [])
    one, two = earlier.contents, now.contents
    if one.unordered and one.unordered == two.unordered and one.ordered != two.ordered:
        return ["the same rows in another order"]
    lost, new = (
        list(Counter(first) - Counter(second)) for first, second in _both(list(one.columns), list(two.columns))
    )
    changes += [f"{what} column {listing(names, 5)}" for what, names in (("without", lost), ("with", new)) if names]
    other = [name for name in one.columns if name in two.columns and one.columns[name] != two.columns[name]]
    if other:
        changes.append(f"other values in {listing(other, 5)}")
    if not changes and one.ordered != two.ordered:
        changes.append("other values, or another order")
    if not changes and earlier.parts != now.parts:
        changes.append("other parts")
    return changes


def _both(one: list[str], two: list[str]) -> tuple[tuple[list[str], list[str]], tuple[list[str], list[str]]]:
    return (one, two), (two, one)
