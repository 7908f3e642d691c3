"""Data by name or path: data sets, embedded or in files of all kinds, and inputs without labels."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ncmi.data.arrays import archive_shapes, as_inputs, find_key, load_npz, read_array
from ncmi.data.cifar import load_cifar
from ncmi.data.columns import INPUT_ARRAYS, TEST
from ncmi.data.dataset import Dataset, check_finite
from ncmi.data.image_files import ImageFiles, list_images, open_images
from ncmi.data.image_folders import load_folder
from ncmi.data.image_labels import LABEL_FILE_SUFFIXES, names_images
from ncmi.data.images import with_channels
from ncmi.data.kinds import EMBEDDED, FILE_SUFFIXES, TABLE_SUFFIXES, find_data, find_source
from ncmi.data.table import find_label_column, load_table, numeric_columns, read_frame
from ncmi.errors import listing, naming
from ncmi.recipes.data import ImageData, Kind, SampleData, TableData

# a number as a column name; pandas turns a second 5.1 into 5.1.1
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)*(e[-+]?\d+)?", re.IGNORECASE)


def load_samples(data: TableData | ImageData) -> Dataset:
    """The data set that a recipe's section names, as it is: without the damage that a recipe may ask for.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_dataset`, and for data of another kind than the section's.
    """
    if isinstance(data, ImageData) and data.name not in EMBEDDED:
        path, cifar = find_source(data.name, data.data_dir)
        if cifar is None and (path.is_dir() or path.suffix.lower() in LABEL_FILE_SUFFIXES):
            with naming(path):
                return load_folder(path, data)
    image_size = data.image_size if isinstance(data, ImageData) else 32
    dataset = load_dataset(data.name, label_column=data.label_column, image_size=image_size, data_dir=data.data_dir)
    check_kind(dataset, data)
    return dataset


def check_kind(dataset: Dataset, data: SampleData) -> None:
    """Raise ValueError where a data set is of another kind than the section of a recipe."""
    if dataset.kind != data.kind:
        section = "ImageData" if dataset.kind == "image" else "TableData"
        raise ValueError(
            f"{data.name!r} is data of kind {dataset.kind!r}, but the recipe's data section, {type(data).__name__}, is "
            f"for kind {data.kind!r}: use {section}({data.name!r})"
        )


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
        channels: 1 for gray, 3 for RGB, ``None`` as the images are. Images only.
        data_dir: folder to search for names; by default the environment variable ``NCMI_DATA``.

    Raises:
        FileNotFoundError: if nothing has this name; the message lists the embedded names.
        ValueError: if the data is unusable; the message names file and cure.

    Example:
        >>> load_dataset("wine").class_names
        ('class_0', 'class_1', 'class_2')
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"channels={channels}: choose 1 (gray), 3 (RGB) or leave it out")
    if name_or_path in EMBEDDED:
        return _with_channels(load_embedded(name_or_path), channels)
    path, cifar = find_source(name_or_path, data_dir)
    suffix = path.suffix.lower()
    with naming(path):
        if cifar:
            dataset = load_cifar(cifar, image_size)
        elif path.is_dir() or (path.suffix.lower() in LABEL_FILE_SUFFIXES and names_images(path)):
            return load_folder(path, ImageData(name_or_path, image_size=image_size), channels=channels)
        elif suffix == ".npz":
            dataset = load_npz(path, label_column)
        elif suffix in TABLE_SUFFIXES:
            dataset = load_table(path, label_column)
        else:
            raise ValueError(
                f"a file of type {suffix or 'unknown'} cannot be read: give a {', '.join(FILE_SUFFIXES)} file "
                "or a folder of images with one subfolder for each class"
            )
        return _with_channels(dataset, channels)


def load_embedded(name: str) -> Dataset:
    """One of scikit-learn's embedded data sets, by name.

    - ``digits``: 1,797 handwritten digits, gray 8×8, 10 classes. The original levels 0…16 are stretched to
      0…255 (rounded, no two levels merged), so that a trained network reads image files on the same scale.
    - ``wine``: 178 wines, 13 measurements, 3 classes.
    - ``breast_cancer``: 569 tumors, 30 measurements, 2 classes.
    - ``iris``: 150 flowers, 4 measurements, 3 classes.

    Raises:
        ValueError: for another name; the message lists the known ones.

    Example:
        >>> load_embedded("digits").inputs.shape
        torch.Size([1797, 1, 8, 8])
    """
    if name not in EMBEDDED:
        raise ValueError(f"no embedded data set {name!r}: choose one of {', '.join(EMBEDDED)}")
    from sklearn import datasets

    bunch: Any = getattr(datasets, f"load_{name}")()
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    class_names = tuple(str(c) for c in bunch.target_names)
    if name == "digits":
        pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
        return Dataset(name, torch.from_numpy(pixels)[:, None], labels, class_names, "image")
    inputs = torch.from_numpy(bunch.data.astype(np.float32))
    return Dataset(name, inputs, labels, class_names, "table", tuple(str(f) for f in bunch.feature_names))


def _with_channels(dataset: Dataset, channels: int | None) -> Dataset:
    if channels is None:
        return dataset
    if dataset.kind != "image":
        raise ValueError(f"channels={channels}, but {dataset.name!r} is a table: leave channels out")
    assert isinstance(dataset.inputs, Tensor)
    return dataclasses.replace(dataset, inputs=with_channels(dataset.inputs, channels))


def load_unlabeled(
    path: str,
    *,
    kind: Kind,
    shape: Sequence[int],
    feature_names: Sequence[str] | None = None,
    label_column: str | None = None,
) -> tuple[Tensor | ImageFiles, list[str]]:
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
            root = file if file.is_dir() else file.parent
            files = list_images(file)
            if not files:
                raise ValueError("no image inside: give a folder with images")
            images = open_images(files, (shape[1], shape[2]), shape[0], root)
            return images.inputs, [files[index].relative_to(root).as_posix() for index in images.kept]
        if file.suffix.lower() in TABLE_SUFFIXES:
            return _from_table(file, tuple(shape), feature_names, label_column)
        raise ValueError(f"the network was trained on a table: give a .npz, {', '.join(TABLE_SUFFIXES)} file")


def load_ood(
    name_or_path: str,
    *,
    kind: Kind,
    shape: Sequence[int],
    feature_names: Sequence[str] | None = None,
    label_column: str | None = None,
    data_dir: str | None = None,
) -> Tensor | ImageFiles:
    """Out-of-distribution inputs ``[N, *shape]``: of any data set by embedded name, path, or name in a data folder.

    Labels are neither needed nor looked at. Images become gray or RGB as in training. Image files are scaled to the
    size of training, CIFAR to 32, 16 or 8 pixels, of which only the test part is taken; arrays keep their size.

    Args:
        name_or_path: as for :func:`ncmi.data.load.load_dataset`; here also a flat folder of images and tables without
            labels.
        kind, shape, feature_names, label_column: of the training data, see :func:`load_unlabeled`.
        data_dir: folder to search for names; by default the environment variable ``NCMI_DATA``.

    Raises:
        FileNotFoundError: if nothing has this name.
        ValueError: for data of another kind, shape or columns; the message names the cure.
    """
    if name_or_path in EMBEDDED:
        dataset = load_embedded(name_or_path)
        assert isinstance(dataset.inputs, Tensor)
        return _of_form(dataset.inputs, dataset.kind, kind, shape, f"{name_or_path} is ")
    path, cifar = find_source(name_or_path, data_dir)
    if cifar and kind == "image":
        if shape[1] != shape[2]:
            raise ValueError(
                f"{name_or_path} has square images, but the network was trained on sample shape {list(shape)}: "
                "give image files in a folder, which are scaled to it"
            )
        dataset = load_dataset(name_or_path, image_size=shape[1], channels=shape[0], data_dir=data_dir)
        return dataset.inputs if dataset.parts is None else dataset.inputs[torch.from_numpy(dataset.parts == TEST)]
    path = find_data(name_or_path, data_dir)
    return load_unlabeled(str(path), kind=kind, shape=shape, feature_names=feature_names, label_column=label_column)[0]


def _of_form(inputs: Tensor, read_kind: Kind, kind: Kind, shape: Sequence[int], name: str = "") -> Tensor:
    """Inputs with the channels of the training data; ValueError where they are of another kind or shape."""
    if read_kind == kind == "image":
        inputs = with_channels(inputs, shape[0])
    if read_kind != kind or inputs.shape[1:] != tuple(shape):
        scaled = "; image files in a folder are scaled to it" if kind == "image" else ""
        raise ValueError(
            f"{name}{read_kind} of sample shape {list(inputs.shape[1:])}, but the network was trained on {kind} of "
            f"sample shape {list(shape)}: give data of that form{scaled}"
        )
    return inputs


def _from_npz(
    path: Path, kind: Kind, shape: tuple[int, ...], feature_names: Sequence[str] | None
) -> tuple[Tensor, list[str]]:
    keys = list(archive_shapes(path))
    inputs, read_kind = as_inputs(read_array(path, find_key(keys, INPUT_ARRAYS, "inputs")))
    inputs = _of_form(inputs, read_kind, kind, shape)
    if feature_names is not None and "feature_names" in keys:
        _same_columns([str(n) for n in read_array(path, "feature_names").tolist()], feature_names, ordered=True)
    check_finite(inputs, feature_names)
    return inputs, list(map(str, range(len(inputs))))


def _from_table(
    path: Path, shape: tuple[int, ...], feature_names: Sequence[str] | None, label_column: str | None
) -> tuple[Tensor, list[str]]:
    frame = read_frame(path)
    untrained = [name for name in frame.columns if name not in (feature_names or ())]
    label = find_label_column(untrained, label_column)
    if label is not None:
        frame = frame.drop(columns=label)
    columns = list(frame.columns)
    if feature_names is not None:
        _same_columns(columns, feature_names)
        frame = frame[list(feature_names)]
    elif all(map(_NUMBER.fullmatch, columns)) and columns != list(map(str, range(len(columns)))):
        raise ValueError("the first line holds numbers, not column names: put a header line above the rows")
    elif len(columns) != shape[0]:
        raise ValueError(
            f"{len(columns)} feature columns, but the network was trained on {shape[0]}: "
            "give the same columns in the same order"
        )
    inputs = numeric_columns(frame)
    check_finite(inputs, list(frame.columns))
    return inputs, list(map(str, range(len(inputs))))


def _same_columns(columns: list[str], trained: Sequence[str], ordered: bool = False) -> None:
    if missing := [name for name in trained if name not in columns]:
        there = listing(columns)
        raise ValueError(f"columns missing that the network was trained on: {listing(missing)}; found {there}")
    if extra := [name for name in columns if name not in trained]:
        raise ValueError(f"columns that the network was not trained on: {listing(extra)}: remove them")
    if ordered and columns != list(trained):
        raise ValueError(f"columns in another order than in training: put them as {listing(trained)}")
