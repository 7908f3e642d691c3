"""New inputs for a trained network: files with or without labels, checked against the training data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ncmi.data.arrays import INPUT_NAMES, archive_keys, as_inputs, find_key, read_array
from ncmi.data.dataset import Kind, check_finite, listing
from ncmi.data.folder import all_files
from ncmi.data.images import decode_images, with_channels
from ncmi.data.load import naming
from ncmi.data.table import TABLE_SUFFIXES, find_label_column, numeric_columns, read_frame

# a number as a column name; pandas turns a second 5.1 into 5.1.1
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)*(e[-+]?\d+)?", re.IGNORECASE)


def load_unlabelled(
    path: str,
    *,
    kind: Kind,
    shape: Sequence[int],
    feature_names: Sequence[str] | None = None,
    label_column: str | None = None,
) -> tuple[Tensor, list[str]]:
    """Inputs like those of the training data, and a name for each: row number from 0, or relative path.

    Tables are ``.csv``, ``.tsv``, ``.parquet`` or ``.npz``; images an ``.npz``, one file or a folder, flat or
    nested. Labels, where present, are ignored. Columns are put in the order of training.

    Args:
        kind: ``"table"`` or ``"image"``, as in training.
        shape: shape of one sample in training, ``(F,)`` or ``(channels, H, W)``: files are scaled to it.
        feature_names: the training columns; ``None`` where they had no names (then their number is checked).
        label_column: label column of the training file; by default any column called like a label.

    Returns:
        Inputs ``[N, *shape]``, float32 for tables, uint8 for images; and N names.

    Raises:
        FileNotFoundError: if the path does not exist.
        ValueError: for missing or extra columns, another shape, unreadable files, NaN.
    """
    file = Path(path).expanduser()
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist: give the path of a file or a folder")
    with naming(file):
        if file.suffix.lower() == ".npz":
            return _from_npz(file, kind, tuple(shape), feature_names)
        if kind == "image":
            return _from_images(file, tuple(shape))
        if file.suffix.lower() in TABLE_SUFFIXES:
            return _from_table(file, tuple(shape), feature_names, label_column)
        raise ValueError(f"the network was trained on a table: give a .npz, {', '.join(TABLE_SUFFIXES)} file")


def _from_images(path: Path, shape: tuple[int, ...]) -> tuple[Tensor, list[str]]:
    root = path if path.is_dir() else path.parent
    files = all_files(path) if path.is_dir() else [path]
    if not files:
        raise ValueError("no image inside: give a folder with images")
    inputs = decode_images(files, (shape[1], shape[2]), shape[0], root)
    return inputs, [file.relative_to(root).as_posix() for file in files]


def _from_npz(
    path: Path, kind: Kind, shape: tuple[int, ...], feature_names: Sequence[str] | None
) -> tuple[Tensor, list[str]]:
    keys = archive_keys(path)
    key = find_key(keys, INPUT_NAMES, "inputs")
    if key is None:
        raise ValueError(f"no inputs found among the arrays {listing(keys)}: call them {' or '.join(INPUT_NAMES)}")
    inputs, found_kind = as_inputs(read_array(path, key))
    if found_kind == kind == "image":
        inputs = with_channels(inputs, shape[0])
    if found_kind != kind or tuple(inputs.shape[1:]) != shape:
        raise ValueError(
            f"{found_kind} of sample shape {list(inputs.shape[1:])}, but the network was trained on {kind} "
            f"of sample shape {list(shape)}: give data like the training data"
        )
    if feature_names is not None and "feature_names" in keys:
        _same_columns([str(n) for n in read_array(path, "feature_names").tolist()], feature_names, ordered=True)
    check_finite(inputs, feature_names)
    return inputs, _positions(len(inputs))


def _from_table(
    path: Path, shape: tuple[int, ...], feature_names: Sequence[str] | None, label_column: str | None
) -> tuple[Tensor, list[str]]:
    frame = read_frame(path)
    untrained = [name for name in frame.columns if name not in (feature_names or ())]
    label = find_label_column(untrained, label_column)
    if label is not None:
        frame = frame.drop(columns=label)
    if feature_names is not None:
        _same_columns(list(frame.columns), feature_names)
        frame = frame[list(feature_names)]
    elif all(_NUMBER.fullmatch(name) for name in frame.columns) and list(frame.columns) != _positions(frame.shape[1]):
        raise ValueError("the first line holds numbers, not column names: put a header line above the rows")
    elif frame.shape[1] != shape[0]:
        raise ValueError(
            f"{frame.shape[1]} feature columns, but the network was trained on {shape[0]}: "
            "give the same columns in the same order"
        )
    inputs = numeric_columns(frame)
    check_finite(inputs, list(frame.columns))
    return inputs, _positions(len(inputs))


def _positions(count: int) -> list[str]:
    return [str(i) for i in range(count)]


def _same_columns(found: list[str], trained: Sequence[str], ordered: bool = False) -> None:
    missing = [name for name in trained if name not in found]
    extra = [name for name in found if name not in trained]
    if missing:
        raise ValueError(f"columns missing that the network was trained on: {listing(missing)}; found {listing(found)}")
    if extra:
        raise ValueError(f"columns that the network was not trained on: {listing(extra)}: remove them")
    if ordered and found != list(trained):
        raise ValueError(f"columns in another order than in training: put them as {listing(trained)}")
