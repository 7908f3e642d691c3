"""Data sets by name or by path."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ncmi.data.arrays import load_npz
from ncmi.data.cifar import load_cifar
from ncmi.data.cifar_find import cifar_at, find_cifar, not_found
from ncmi.data.cifar_sets import CIFAR_SETS
from ncmi.data.dataset import Dataset
from ncmi.data.embedded import EMBEDDED, load_embedded
from ncmi.data.folder import load_folder
from ncmi.data.images import with_channels
from ncmi.data.table import TABLE_SUFFIXES, load_table

FILE_SUFFIXES = (".npz", *TABLE_SUFFIXES)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the path in front of every complaint about its contents."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def load_dataset(
    name_or_path: str,
    *,
    label_column: str | None = None,
    image_size: int = 32,
    channels: int | None = None,
    data_dir: str | None = None,
) -> Dataset:
    """A data set by embedded name, by path, or by the name of a file in a data folder; tried in this order.

    - embedded (scikit-learn): ``digits``, ``wine``, ``breast_cancer``, ``iris``;
    - ``.npz``, ``.csv``, ``.tsv``, ``.parquet``, or a folder of images with one subfolder for each class;
    - CIFAR-10 or CIFAR-100: the path of ``cifar-100-python``, ``cifar-100-binary``, ``cifar-10-batches-py``,
      ``cifar-10-batches-bin``, of their ``.tar.gz`` archives, of the Parquet files of the Hugging Face hub, or of
      a folder that directly holds one of these; or the name ``cifar10`` or ``cifar100`` for one of these
      anywhere below ``data_dir`` or ``NCMI_DATA``, in this order where there are several: see
      :func:`ncmi.data.cifar.load_cifar`;
    - ``name`` for the one file ``**/name.npz`` (``.csv``, …) below ``data_dir`` or the folder ``NCMI_DATA``.

    Args:
        label_column: label column of a table (array of an ``.npz``); by default the one called label, class,
            target or y.
        image_size: side in pixels to which the images of a folder are scaled, and to which those of CIFAR are
            averaged (32, 16, 8); arrays keep their size.
        channels: 1 for grey, 3 for RGB, ``None`` as the images are. Images only.
        data_dir: folder to search for names; by default the environment variable ``NCMI_DATA``.

    Raises:
        FileNotFoundError: if nothing has this name; the message lists the embedded names.
        ValueError: if the data is unusable; the message names file and cure.

    Example:
        >>> load_dataset("wine").class_names
        ('class_0', 'class_1', 'class_2')
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"channels={channels}: choose 1 (grey), 3 (RGB) or leave it out")
    if name_or_path in EMBEDDED:
        return _with_channels(load_embedded(name_or_path), channels)
    found = find_cifar(name_or_path, data_dir or os.environ.get("NCMI_DATA")) if name_or_path in CIFAR_SETS else None
    path = found.path if found else _find_path(name_or_path, data_dir)
    with naming(path):
        found = found or cifar_at(path)
    if found:
        with naming(found.path):
            return _with_channels(load_cifar(found, image_size), channels)
    with naming(path):
        if path.is_dir():
            return load_folder(path, image_size, channels)
        suffix = path.suffix.lower()
        if suffix == ".npz":
            return _with_channels(load_npz(path, label_column), channels)
        if suffix in TABLE_SUFFIXES:
            return _with_channels(load_table(path, label_column), channels)
        raise ValueError(
            f"a file of type {suffix or 'unknown'} cannot be read: give a {', '.join(FILE_SUFFIXES)} file "
            "or a folder of images with one subfolder for each class"
        )


def find_data(name_or_path: str, data_dir: str | None = None) -> Path:
    """The path meant by a path, or by a name in ``data_dir`` or ``NCMI_DATA``; see :func:`load_dataset`."""
    path = Path(name_or_path).expanduser()
    if path.exists():
        return path
    known = f"embedded data sets are {', '.join(EMBEDDED)}"
    cure = (
        f"{known}; otherwise give the path of a {', '.join(FILE_SUFFIXES)} file or of a folder of images or of "
        f"{' or '.join(CIFAR_SETS)}"
    )
    where = data_dir or os.environ.get("NCMI_DATA")
    if not where:
        raise FileNotFoundError(f"no data set {name_or_path!r}: {cure}, or set NCMI_DATA to a folder that holds it")
    folder = Path(where).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"no data set {name_or_path!r} and no data folder {folder}: {cure}")
    if (folder / path).exists():
        return folder / path
    named = (p for p in folder.rglob("*") if p.stem == name_or_path and p.suffix.lower() in FILE_SUFFIXES)
    found = sorted(p for p in named if p.is_file())
    if len(found) > 1:
        raise ValueError(f"{name_or_path!r} is ambiguous: give one of the paths {', '.join(map(str, found))}")
    if not found:
        raise FileNotFoundError(f"no data set {name_or_path!r}, nor a file of that name below {folder}: {cure}")
    return found[0]


def _find_path(name_or_path: str, data_dir: str | None) -> Path:
    """As :func:`find_data`; for CIFAR's names a file alone will do, and the error says where to get the data."""
    if name_or_path not in CIFAR_SETS:
        return find_data(name_or_path, data_dir)
    try:
        path = find_data(name_or_path, data_dir)
    except FileNotFoundError:
        path = Path(name_or_path)
    if not path.is_file():
        raise FileNotFoundError(not_found(name_or_path, data_dir or os.environ.get("NCMI_DATA")))
    return path


def _with_channels(dataset: Dataset, channels: int | None) -> Dataset:
    if channels is None:
        return dataset
    if dataset.kind != "image":
        raise ValueError(f"channels={channels}, but {dataset.name!r} is a table: leave channels out")
    return dataclasses.replace(dataset, inputs=with_channels(dataset.inputs, channels))
