"""Data by name or path: data sets, embedded or in files of all kinds, and inputs without labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ncmi.data.arrays import archive_shapes, as_inputs, find_key, load_npz, read_array
from ncmi.data.cifar import load_cifar
from ncmi.data.columns import INPUT_ARRAYS, LABEL_COLUMNS, TEST, TRAIN, called_like
from ncmi.data.dataset import Dataset
from ncmi.data.image_files import Decoder, ImageFiles, list_images, open_images
from ncmi.data.image_folders import load_folder
from ncmi.data.images import decode_image, with_channels
from ncmi.data.kinds import EMBEDDED, find_data, find_source, kind_of
from ncmi.data.shards.index import is_address, is_shards
from ncmi.data.signature import Signature
from ncmi.data.splits import parts_to_draw
from ncmi.data.tables.dialect import Known
from ncmi.data.tables.load import load_table, read_rows
from ncmi.data.tables.reading import raw_table_from_frame, read_raw_table
from ncmi.data.tables.table import LabeledTable, TableColumn
from ncmi.errors import left_out_in_words, listing, naming
from ncmi.recipes.data import ImageData, Kind, TableData

if TYPE_CHECKING:
    import pandas as pd

    from ncmi.data.tables.preprocessing import Preprocessing

_OF_FILES = (
    *("test", "validation", "images", "label_column", "header", "separator", "decimal", "encoding", "missing", "sheet"),
    *("drop", "categorical", "numeric", "id_column", "group_column", "split_column", "time_column"),
)
"""Options of tables and folders of images, which arrays do not have."""


def load_samples(data: TableData | ImageData) -> Dataset | LabeledTable:
    """The data set that a recipe's section names, as it is: without the damage that a recipe may ask for.

    - embedded (scikit-learn): ``digits``, ``wine``, ``breast_cancer``, ``iris``;
    - a table file, see :mod:`ncmi.data.tables.reading`; an ``.npz``; a folder of images or a table of them, see
      :mod:`ncmi.data.images`;
    - CIFAR-10 or CIFAR-100: the path of ``cifar-100-python``, ``cifar-100-binary``, ``cifar-10-batches-py``,
      ``cifar-10-batches-bin``, of their ``.tar.gz`` archives, of the Parquet files of the Hugging Face hub, or of
      a folder that directly holds one of these; or the name ``cifar10`` or ``cifar100`` for one of these
      anywhere below ``data_dir`` or ``NCMI_DATA``, in this order where there are several: see
      :func:`ncmi.data.cifar.load_cifar`;
    - ``name`` for the one file ``**/name.npz`` (``.csv``, …) below ``data_dir`` or the folder ``NCMI_DATA``.

    Classes that are too small for all parts to be drawn are left out where ``data.bad`` is "skip".

    Raises:
        FileNotFoundError: if nothing has this name; the message lists the embedded names.
        ValueError: if the data is unusable, or of another kind than the section; the message names file and cure.

    Example:
        >>> load_samples(TableData("wine")).class_names
        ('class_0', 'class_1', 'class_2')
    """
    dataset = _load(data)
    check_kind(dataset, data)
    return without_small_classes(dataset, data) if data.bad == "skip" else dataset


def check_kind(dataset: Dataset | LabeledTable, data: TableData | ImageData) -> None:
    """Raise ValueError where a data set is of another kind than the section of a recipe."""
    if dataset.kind != data.kind:
        section = "ImageData" if dataset.kind == "image" else "TableData"
        raise ValueError(
            f"{data.name!r} is data of kind {dataset.kind!r}, but the recipe's data section, {type(data).__name__}, is "
            f"for kind {data.kind!r}: use {section}({data.name!r})"
        )


def load_dataset(name: str, *, data_dir: str | None = None, **options: Any) -> Dataset | LabeledTable:
    """A data set by name or path; options are those of the recipe's section for its kind of data.

    Example:
        >>> load_dataset("wine").class_names
        ('class_0', 'class_1', 'class_2')
    """
    if kind_of(name, data_dir) == "image":
        return load_samples(ImageData(name, data_dir=data_dir, **options))
    options.pop("image_size", None)
    return load_samples(TableData(name, data_dir=data_dir, **options))


def _load(data: TableData | ImageData) -> Dataset | LabeledTable:
    if data.name in EMBEDDED:
        _without_options(data, _OF_FILES, "embedded data")
        return load_embedded(data.name)
    if is_address(data.name):
        return _load_shards(data.name, data)
    path, cifar = find_source(data.name, data.data_dir)
    others = {
        part: None if name is None else find_data(name, data.data_dir)
        for part, name in (("test", data.test), ("validation", data.validation))
    }
    given = [file.resolve() for file in (path, *others.values()) if file is not None]
    if twice := [file for file in given if given.count(file) > 1]:
        raise ValueError(f"{twice[0]} is given for two parts: nothing may be tested on what it was trained on")
    with naming(path):
        if cifar:
            _without_options(data, _OF_FILES, "CIFAR")
            return load_cifar(cifar, data.image_size if isinstance(data, ImageData) else 32)
        if path.suffix.lower() == ".npz":
            _without_options(data, set(_OF_FILES) - {"label_column"}, "an .npz archive")
            return load_npz(path, data.label_column)
        if isinstance(data, ImageData):
            return _load_shards(str(path), data) if is_shards(path) else load_folder(path, data)
    return load_table(path, data, **others)


def _load_shards(place: str, data: TableData | ImageData) -> Dataset:
    # torch's loader comes with it
    from ncmi.data.shards.reading import load_shards

    if not isinstance(data, ImageData):
        raise ValueError(f"{place} are images: use ImageData({place!r})")
    _without_options(data, _OF_FILES, "shards, whose index says labels and parts")
    with naming(place):
        return load_shards(place, data)


def _without_options(data: TableData | ImageData, names: Collection[str], what: str) -> None:
    """Raise ValueError where an option is given that would do nothing."""
    defaults = type(data)(data.name)
    given = [name for name in names if getattr(data, name, None) != getattr(defaults, name, None)]
    if given:
        options = ", ".join(f"--data.{name.replace('_', '-')}" for name in sorted(given))
        raise ValueError(f"{options} does nothing with {what}: it is for tables and folders of images; leave it out")


def without_small_classes(dataset: Dataset | LabeledTable, data: TableData | ImageData) -> Dataset | LabeledTable:
    """The data set without the classes that have fewer samples than there are parts to draw; they are noted."""
    pool = np.full(len(dataset), True) if dataset.parts is None or data.folds else dataset.parts == TRAIN
    labels = dataset.labels.numpy()
    counts = np.bincount(labels[pool], minlength=len(dataset.class_names))
    drawn = parts_to_draw(
        dataset.parts,
        validation_fraction=data.validation_fraction,
        test_fraction=data.test_fraction,
        folds=data.folds,
    )
    few = counts <= drawn
    if not few.any():
        return dataset
    if (~few).sum() < 2:
        raise ValueError(
            f"fewer than two classes of {dataset.name!r} have a sample for each of {drawn + 1} parts: give more "
            "samples, or other parts"
        )
    reasons = tuple(
        (f"class {dataset.class_names[index]!r}", f"{counts[index]} samples for {drawn + 1} parts")
        for index in np.flatnonzero(few)
    )
    rows = np.flatnonzero(~few[labels])
    places = np.cumsum(~few) - 1
    names = tuple(name for name, is_small in zip(dataset.class_names, few, strict=True) if not is_small)
    kept = dataset.only(rows, names, torch.from_numpy(places[labels[rows]].astype(np.int64)))
    return dataclasses.replace(kept, left_out=(*dataset.left_out, *reasons))


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


@dataclass(frozen=True, eq=False)
class NewSamples:
    """Samples for a model that has been trained.

    Attributes:
        inputs: ``[n, *shape]`` of those that can be used, float32 for tables, uint8 for images.
        names: of all N samples: id, row number from 0, or relative path.
        usable: ``[N]`` bool, which of them ``inputs`` holds, in their order.
        reasons: why others cannot be used, by their place among the N.
        labels: ``[N]`` int64 where labels were asked for.
        notes: what a user should know.
    """

    inputs: Tensor | ImageFiles
    names: list[str]
    usable: Tensor
    reasons: dict[int, str] = field(default_factory=dict)
    labels: Tensor | None = None
    notes: tuple[str, ...] = ()


def load_new(
    path: str | Path, signature: Signature, data: TableData | ImageData, *, labeled: bool = False
) -> NewSamples:
    """Samples like those that a model was trained on, read as its recipe says; without labels unless ``labeled``.

    Tables may have further columns, in any order. Images are an ``.npz``, one file or a folder, flat or nested; with
    labels a folder as for training.

    Args:
        path: file or folder.
        signature: of the model.
        data: section of the run's recipe.
        labeled: read the labels too; they must be of classes that the model knows, not of all of them.

    Raises:
        FileNotFoundError: if the path does not exist.
        ValueError: for missing columns, another shape, unreadable files, and with ``labeled`` unknown classes and rows
            without label, unless ``data.bad`` is "skip", which leaves these out.
    """
    file = Path(path).expanduser()
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist: give the path of a file or a folder")
    with naming(file):
        if file.suffix.lower() == ".npz":
            return _new_arrays(file, signature, data, labeled)
        if isinstance(data, ImageData):
            return _new_images(file, signature, data, labeled)
        if file.is_dir():
            raise ValueError("the network was trained on a table: give the file of one")
    return new_rows(file, signature, data, labeled)


def load_ood(name_or_path: str, signature: Signature, data: TableData | ImageData) -> Tensor | ImageFiles:
    """Out-of-distribution inputs ``[N, *shape]``: of any data set by embedded name, path, or name in a data folder.

    Labels are neither needed nor looked at. Images become gray or RGB as in training. Image files are scaled to the
    size of training, CIFAR to 32, 16 or 8 pixels, of which only the test part is taken; arrays keep their size.

    Args:
        name_or_path: as for :func:`load_samples`; here also a flat folder of images and tables without labels.
        signature, data: of the run.

    Raises:
        FileNotFoundError: if nothing has this name.
        ValueError: for data of another kind, shape or columns; the message names the cure.
    """
    if name_or_path in EMBEDDED:
        dataset = load_embedded(name_or_path)
        return of_form(dataset.array, dataset.kind, signature, f"{name_or_path} is ")
    path, cifar = find_source(name_or_path, data.data_dir)
    if cifar and signature.kind == "image":
        shape = signature.sample_shape
        if shape[1] != shape[2]:
            raise ValueError(
                f"{name_or_path} has square images, but the network was trained on sample shape {list(shape)}: "
                "give image files in a folder, which are scaled to it"
            )
        dataset = load_cifar(cifar, shape[1])
        inputs = with_channels(dataset.array, shape[0])
        return inputs if dataset.parts is None else inputs[torch.from_numpy(dataset.parts == TEST)]
    samples = load_new(find_data(name_or_path, data.data_dir), signature, data)
    if samples.reasons and data.bad == "error":
        raise ValueError(f"{path}: {_first_reason(samples)}: correct or remove it")
    return samples.inputs


def _first_reason(samples: NewSamples) -> str:
    place, why = next(iter(samples.reasons.items()))
    return f"{samples.names[place]}: {why} ({len(samples.reasons)} such)"


def of_form(inputs: Tensor, kind: Kind, signature: Signature, name: str = "") -> Tensor:
    """Inputs with the channels of the training data; ValueError where they are of another kind or shape."""
    shape = tuple(signature.sample_shape)
    if kind == signature.kind == "image":
        inputs = with_channels(inputs, shape[0])
    if kind != signature.kind or inputs.shape[1:] != shape:
        scaled = "; image files in a folder are scaled to it" if signature.kind == "image" else ""
        raise ValueError(
            f"{name}{kind} of sample shape {list(inputs.shape[1:])}, but the network was trained on {signature.kind} "
            f"of sample shape {list(shape)}: give data of that form{scaled}"
        )
    return inputs


def _new_arrays(path: Path, signature: Signature, data: TableData | ImageData, labeled: bool) -> NewSamples:
    if signature.preprocessing is not None:
        raise ValueError("the network was trained on a table with named columns: give a table that has them")
    if labeled:
        dataset = load_npz(path, data.label_column)
        inputs = of_form(dataset.array, dataset.kind, signature)
        labels = known_labels(dataset.class_names, signature)[dataset.labels]
        return usable_samples(inputs, [str(row) for row in range(len(dataset))], labels=labels)
    keys = list(archive_shapes(path))
    inputs, kind = as_inputs(read_array(path, find_key(keys, INPUT_ARRAYS, "inputs")))
    inputs = of_form(inputs, kind, signature)
    if signature.feature_names is not None and "feature_names" in keys:
        _same_columns([str(n) for n in read_array(path, "feature_names").tolist()], signature.feature_names)
    return usable_samples(inputs, [str(row) for row in range(len(inputs))])


def _same_columns(columns: list[str], trained: Sequence[str]) -> None:
    if missing := [name for name in trained if name not in columns]:
        there = listing(columns)
        raise ValueError(f"columns missing that the network was trained on: {listing(missing)}; found {there}")
    if columns != list(trained):
        raise ValueError(f"columns in another order than in training: put them as {listing(trained)}")


def new_rows(table: Any, signature: Signature, data: TableData, labeled: bool = False) -> NewSamples:
    """Rows of a table file by its path, or of a pandas or polars frame; see :func:`load_new`."""
    preprocessing = signature.preprocessing
    label_column = signature.label_column or data.label_column or LABEL_COLUMNS[0]
    if preprocessing is not None:
        columns: Sequence[TableColumn] = preprocessing.columns
    else:
        names = signature.feature_names or [f"column_{i + 1}" for i in range(signature.sample_shape[0])]
        columns = [TableColumn(name=name, kind="number") for name in names]
    source = table
    if preprocessing is None and signature.feature_names is None:
        if isinstance(table, Path):
            with naming(table):
                raw = read_raw_table(table, data, Known())
        else:
            raw = raw_table_from_frame(table, Known())
        source = _by_place(raw.frame, columns, label_column)
    read = read_rows(
        source,
        columns,
        data,
        label_column=label_column,
        class_names=signature.class_names,
        writing=preprocessing.writing if preprocessing is not None else None,
    )
    notes = list(read.notes)
    if preprocessing is not None:
        inputs = preprocessing.transform(read.rows.frame)
        notes += unseen_in_words(preprocessing, read.rows.frame)
    else:
        with np.errstate(over="ignore"):  # what overflows is infinite, and cannot be used
            inputs = torch.from_numpy(read.rows.frame.to_numpy(np.float32))
    labels = _labels_of(read.labels, label_column, signature, data) if labeled else None
    return usable_samples(inputs, read.rows.names, labels=labels, notes=tuple(notes))


def unseen_in_words(preprocessing: Preprocessing, frame: pd.DataFrame) -> list[str]:
    """A note for each column of new rows, read as in training, with categories that training had not often enough."""
    return [
        f"{count} {'row has' if count == 1 else 'rows have'} a value of {name!r} that training had not, or rarely"
        for name, count in preprocessing.unseen(frame).items()
    ]


def _by_place(frame: Any, columns: Sequence[TableColumn], label_column: str) -> Any:
    """A table with the names of columns that had none in training, by their order; the label keeps its name."""
    names = [str(name) for name in frame.columns]
    label = label_column if label_column in names else next(iter(called_like(names, LABEL_COLUMNS)), None)
    features = [name for name in names if name != label]
    if len(features) != len(columns):
        raise ValueError(
            f"{len(features)} feature columns, but the network was trained on {len(columns)}: give the same columns in "
            "the same order"
        )
    renamed = dict(zip(features, (column.name for column in columns), strict=True))
    return frame.rename(columns=renamed if label is None else renamed | {label: label_column})


def _labels_of(texts: Sequence[str | None] | None, label_column: str, signature: Signature, data: TableData) -> Tensor:
    """Class indices of labels as they stand in a file; -1 where there is none that could be used."""
    if texts is None:
        raise ValueError(f"no column {label_column!r}, which holds the label: add it, or call it so")
    places = {name: index for index, name in enumerate(signature.class_names)}
    unknown = sorted({text for text in texts if text is not None and text not in places})
    missing = sum(text is None for text in texts)
    if unknown and data.bad == "error":
        raise ValueError(
            f"classes that the run does not know: {listing(unknown)}; it knows {listing(signature.class_names)}: "
            "correct or remove these rows"
        )
    if missing and data.bad == "error":
        raise ValueError(f"{missing} rows have no label: label or remove them")
    return torch.tensor([-1 if text is None else places.get(text, -1) for text in texts], dtype=torch.int64)


def known_labels(class_names: Sequence[str], signature: Signature) -> Tensor:
    """Index ``[C′]`` of each of these classes among those of the run.

    Raises:
        ValueError: for classes that the run does not know, by name.
    """
    if unknown := [name for name in class_names if name not in signature.class_names]:
        raise ValueError(
            f"classes that the run does not know: {listing(unknown)}; it knows {listing(signature.class_names)}: "
            "rename or remove them"
        )
    return torch.tensor([signature.class_names.index(name) for name in class_names], dtype=torch.int64)


def decoder_of(signature: Signature) -> Decoder:
    """How image files become pixels as those that a model was trained on."""
    if signature.crop_fraction is None:
        return decode_image
    from ncmi.data.shards.decoding import FileDecoder

    return FileDecoder(signature.crop_fraction)


def _new_images(path: Path, signature: Signature, data: ImageData, labeled: bool) -> NewSamples:
    shape = signature.sample_shape
    if is_shards(path):
        return _new_shards(path, signature, data, labeled)
    if labeled:
        section = dataclasses.replace(data, image_size=shape[1], test=None, validation=None)
        decode = decoder_of(signature)
        dataset = load_folder(path, section, channels=shape[0], class_names=signature.class_names, decode=decode)
        names = list(dataset.names or map(str, range(len(dataset))))
        notes = (*dataset.notes, *left_out_in_words(dataset.left_out))
        return usable_samples(dataset.inputs, names, labels=dataset.labels, notes=notes)
    files = list_images(path)
    if not files:
        raise ValueError("no image inside: give a folder with images")
    return new_image_files(files, path if path.is_dir() else path.parent, signature, data)


def new_image_files(files: Sequence[Path], root: Path, signature: Signature, data: ImageData) -> NewSamples:
    """Images in files, called by their paths below ``root``; see :func:`load_new`."""
    shape = signature.sample_shape
    images = open_images(
        files,
        (shape[1], shape[2]),
        shape[0],
        root,
        memory_gigabytes=data.memory_gigabytes,
        bad="skip",
        decode=decoder_of(signature),
    )
    usable = torch.zeros(len(files), dtype=torch.bool)
    usable[images.kept] = True
    places = [place for place, is_usable in enumerate(usable.tolist()) if not is_usable]
    reasons = {place: reason for place, (_, reason) in zip(places, images.left_out, strict=True)}
    names = [file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file) for file in files]
    return NewSamples(images.inputs, names, usable, reasons)


def _new_shards(path: Path, signature: Signature, data: ImageData, labeled: bool) -> NewSamples:
    from ncmi.data.shards.reading import load_shards

    section = dataclasses.replace(data, test_size=signature.sample_shape[1])
    dataset = load_shards(str(path), section)
    labels = known_labels(dataset.class_names, signature)[dataset.labels] if labeled else None
    return usable_samples(dataset.inputs, list(dataset.names or ()), labels=labels, notes=dataset.notes)


def usable_samples(
    inputs: Tensor | ImageFiles, names: list[str], *, labels: Tensor | None = None, notes: tuple[str, ...] = ()
) -> NewSamples:
    """New samples, of which those with values that are not finite cannot be used."""
    usable = torch.ones(len(inputs), dtype=torch.bool)
    if isinstance(inputs, Tensor) and inputs.is_floating_point():
        usable = torch.isfinite(inputs).flatten(1).all(1)
    reasons = dict.fromkeys((~usable).nonzero()[:, 0].tolist(), "a value is missing, infinite or beyond float32")
    if labels is not None and bool((labels < 0).any()):
        reasons |= dict.fromkeys((labels < 0).nonzero()[:, 0].tolist(), "no label that the run knows")
        usable = usable & (labels >= 0)
    return NewSamples(inputs[usable], names, usable, dict(sorted(reasons.items())), labels, notes)
