"""The data set, which every loader returns and every split, standardizer and trainer reads; labels and fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ncmi.data.columns import NONE, TRAIN
from ncmi.errors import listing
from ncmi.recipes.data import Kind

if TYPE_CHECKING:
    from ncmi.data.image_files import ImageFiles


def check_finite(inputs: Tensor, feature_names: Sequence[str] | None = None) -> None:
    """Reject NaN and infinities in a table ``[N, F]``, naming the first such column and row."""
    if not inputs.is_floating_point() or bool(torch.isfinite(inputs).all()):
        return
    bad = (~torch.isfinite(inputs)).nonzero()
    row, column = (int(i) for i in bad[0])
    name = repr(feature_names[column]) if feature_names is not None else str(column)
    raise ValueError(
        f"column {name}, row {row} (counted from 0) is {float(inputs[row, column])}; {len(bad)} such values "
        "in all: fill in or drop missing values; every value must be finite in float32"
    )


@dataclass(frozen=True, eq=False)
class Dataset:
    """A labeled data set, checked when it is made.

    Args:
        name: what reports call it.
        inputs: ``[N, F]`` float32 for tables, ``[N, channels, H, W]`` uint8 (0…255) for images, in memory or in files.
        labels: ``[N]`` int64, each in ``0…C−1``.
        class_names: the C names, distinct; at least two.
        kind: ``"table"`` or ``"image"``.
        feature_names: the F column names of a table, distinct; ``None`` where columns have no names.
        parts: ``[N]`` int8, what the data says itself: 0 training, 1 validation, 2 test, -1 in none; where none is in
            validation, or none in test, that part is still to be drawn from training. ``None`` where nothing is said.
        groups: ``[N]``, what each sample belongs to, so that no group is on two sides; ``None`` where each stands for
            itself.
        times: ``[N]``, anything that sorts, where the latest samples are to be tested on; else ``None``.
        left_out: (name, reason) of what could not be used.
        notes: a line each of what was understood and might have been understood otherwise.
        names: what outputs call each sample; ``None`` where they have no names but their numbers.
        contents: hash of the files that the inputs were read from, in their order; ``None`` where the inputs say it.

    Raises:
        ValueError: for wrong shapes or types, NaN or infinities, labels out of range, fewer than two classes.

    Example:
        >>> data = Dataset("toy", torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]), ("no", "yes"), "table")
        >>> len(data), data.num_classes, data.sample_shape
        (4, 2, (2,))
    """

    name: str
    inputs: Tensor | ImageFiles
    labels: Tensor
    class_names: tuple[str, ...]
    kind: Kind
    feature_names: tuple[str, ...] | None = None
    parts: npt.NDArray[np.int8] | None = None
    groups: npt.NDArray[Any] | None = None
    times: npt.NDArray[Any] | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    names: Sequence[str] | None = None
    contents: str | None = None

    def __post_init__(self) -> None:
        self._check_inputs()
        self._check_labels()
        if (names := self.feature_names) is not None:
            if self.kind == "image":
                raise ValueError("images have no feature names: leave feature_names out")
            if len(names) != self.inputs.shape[1]:
                raise ValueError(f"{len(names)} feature names for {self.inputs.shape[1]} columns: give one for each")
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"feature names appear twice ({listing(twice)}): rename the columns")
        if isinstance(self.inputs, Tensor):
            check_finite(self.inputs, self.feature_names)
        if self.names is not None and len(self.names) != len(self):
            raise ValueError(f"{len(self.names)} names for {len(self)} samples: give one for each")
        if (parts := self.parts) is not None:
            if parts.shape != (len(self),) or parts.dtype != np.int8 or set(parts.tolist()) - {NONE, 0, 1, 2}:
                raise ValueError(
                    f"parts must be int8 of shape [{len(self)}]: -1 none, 0 training, 1 validation, 2 test"
                )
            if not (parts == TRAIN).any():
                raise ValueError("no sample is in the training part (0 in parts): give at least one of each class")

    def __len__(self) -> int:
        return self.inputs.shape[0]

    @property
    def num_classes(self) -> int:
        """C, the number of classes."""
        return len(self.class_names)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample: ``(F,)`` or ``(channels, H, W)``."""
        return tuple(self.inputs.shape[1:])

    @property
    def array(self) -> Tensor:
        """The inputs of a data set that lies in memory.

        Raises:
            ValueError: where they are decoded as they are used.
        """
        if not isinstance(self.inputs, Tensor):
            raise ValueError(f"{self.name!r} does not lie in memory: give more of it (memory_gigabytes)")
        return self.inputs

    def only(self, rows: npt.NDArray[np.int64], class_names: tuple[str, ...], labels: Tensor) -> Dataset:
        """Some of the samples, with labels ``[n]`` among these classes."""
        by_row = {"parts": self.parts, "groups": self.groups, "times": self.times}
        kept: dict[str, Any] = {name: None if each is None else each[rows] for name, each in by_row.items()}
        kept["names"] = None if self.names is None else tuple(self.names[row] for row in rows.tolist())
        inputs = self.inputs[torch.from_numpy(rows)]
        return replace(self, inputs=inputs, labels=labels, class_names=class_names, **kept)

    def _check_inputs(self) -> None:
        expected = {"table": (2, torch.float32, "[N, F]"), "image": (4, torch.uint8, "[N, channels, H, W]")}
        if self.kind not in expected:
            raise ValueError(f"kind={self.kind!r}: choose 'table' or 'image'")
        ndim, dtype, shape = expected[self.kind]
        if self.inputs.ndim != ndim or self.inputs.dtype != dtype:
            raise ValueError(
                f"inputs of kind {self.kind!r} must be {dtype} of shape {shape}, "
                f"not {self.inputs.dtype} of shape {list(self.inputs.shape)}: convert or reshape them"
            )
        if self.inputs.numel() == 0:
            raise ValueError(f"inputs of shape {list(self.inputs.shape)} are empty: give at least one value")

    def _check_labels(self) -> None:
        if self.labels.shape != (len(self),) or self.labels.dtype != torch.int64:
            raise ValueError(
                f"labels must be int64 of shape [{len(self)}], one for each input, "
                f"not {self.labels.dtype} of shape {list(self.labels.shape)}"
            )
        if len(set(self.class_names)) != self.num_classes:
            raise ValueError(f"class names are not distinct ({listing(self.class_names)}): rename or merge classes")
        if self.num_classes < 2:
            raise ValueError(f"only one class ({listing(self.class_names)}): a classifier needs at least two")
        wrong = ((self.labels < 0) | (self.labels >= self.num_classes)).nonzero()
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(
                f"label {int(self.labels[row])} of sample {row} is outside 0…{self.num_classes - 1}: "
                "check the labels or give a name for every class"
            )


def fingerprint(dataset: Dataset) -> str:
    """Hash of inputs, labels, names of classes and features, and given parts, in their order: 32 hexadecimal digits.

    Where the inputs were read from image files, of the files' names below the folder and their bytes, not of pixels:
    it does not change with the size that they are scaled to, and stays when the folder is moved as a whole.

    Example:
        >>> toy = Dataset("toy", torch.zeros(3, 1), torch.tensor([0, 1, 0]), ("no", "yes"), "table")
        >>> turned = Dataset("toy", torch.zeros(3, 1), torch.tensor([1, 0, 0]), ("no", "yes"), "table")
        >>> fingerprint(toy) == fingerprint(turned)
        False
    """
    whole = hashlib.blake2b(digest_size=16)
    names = (dataset.kind, len(dataset), dataset.class_names, dataset.feature_names, dataset.contents)
    whole.update(repr(names).encode("utf-8", "surrogateescape"))
    if dataset.contents is None:
        whole.update(repr((dataset.sample_shape, str(dataset.inputs.dtype))).encode())
        for rows in dataset.inputs.split(1024):
            whole.update(rows.cpu().contiguous().numpy().data)
    whole.update(dataset.labels.cpu().contiguous().numpy().data)
    if dataset.parts is not None:
        whole.update(np.ascontiguousarray(dataset.parts).data)
    return whole.hexdigest()


def encode_labels(
    values: npt.NDArray[Any], missing: npt.NDArray[np.bool_] | None = None
) -> tuple[Tensor, tuple[str, ...]]:
    """Labels as they stand in files → class indices ``[N]`` int64, and the class names.

    Names are in sorted order: numbers by value, text by code point.

    Args:
        values: ``[N]`` or ``[N, 1]``: integers, booleans, whole floats, text or bytes (UTF-8).
        missing: ``[N]``, true where the label is known to be absent; NaN and empty text are absent anyway.

    Raises:
        ValueError: for an absent label, a number that is not whole, one-hot labels, fewer than two classes.

    Example:
        >>> encode_labels(np.array([10, 9, 10]))
        (tensor([1, 0, 1]), ('9', '10'))
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise ValueError(
            f"labels of shape {list(values.shape)}: give one class per sample, shape [N] "
            "(from one-hot labels: labels.argmax(axis=1))"
        )
    absent = np.zeros(len(values), bool) if missing is None else missing.copy()
    if values.dtype.kind == "f":
        absent |= np.isnan(values)
    elif values.dtype.kind == "O" and all(type(v) is int for v in values[~absent]):
        values = np.where(absent, 0, values).astype(np.int64)  # pandas' nullable integers
    elif values.dtype.kind not in "biu":
        values = np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values], dtype=np.str_)
        absent |= values == ""
    if absent.any():
        row = int(absent.argmax())
        raise ValueError(
            f"row {row} (counted from 0) has no label; {int(absent.sum())} such rows in all: label or drop "
            "them (a class called 'NA' or 'None' reads as missing: rename it)"
        )
    if values.dtype.kind == "f":
        broken = ~np.isfinite(values) | (values != np.round(values))
        if broken.any():
            row = int(broken.argmax())
            raise ValueError(
                f"label {float(values[row])} of row {row} (counted from 0) is not a whole number: classes are "
                "whole numbers or names; bin a continuous target first"
            )
        values = values.astype(np.int64)
    classes, indices = np.unique(values, return_inverse=True)
    names = tuple(str(c) for c in classes.tolist())
    if len(names) < 2:
        raise ValueError(f"only one class ({listing(names)}): a classifier needs samples of at least two")
    return torch.from_numpy(indices.astype(np.int64)), names
