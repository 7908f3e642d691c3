"""NumPy archives (.npz) of a table or of images. Nothing is ever unpickled, and looking into headers takes no torch."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ncmi.data.columns import INPUT_ARRAYS, LABEL_COLUMNS, TEST, TRAIN
from ncmi.errors import listing, reason
from ncmi.recipes.data import Kind

if TYPE_CHECKING:
    from torch import Tensor

    from ncmi.data.dataset import Dataset


def archive_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays in an archive, from their headers; ValueError for a file that is damaged or no archive."""
    if not zipfile.is_zipfile(path):
        raise ValueError("not a complete .npz archive (truncated, or of another format): write it with numpy.savez")
    shapes, where = {}, "the archive"
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith(".npy"):
                    where = f"array {member.removesuffix('.npy')!r}"
                    with archive.open(member) as file:
                        is_old = np.lib.format.read_magic(file) == (1, 0)
                        read = np.lib.format.read_array_header_1_0 if is_old else np.lib.format.read_array_header_2_0
                        shapes[member.removesuffix(".npy")] = tuple(int(side) for side in read(file)[0])
    except Exception as error:  # damaged bytes raise whatever the reader was doing
        raise ValueError(f"{where} is damaged ({reason(error)}): write or copy the file again") from error
    return shapes


def read_array(path: Path, key: str) -> npt.NDArray[Any]:
    """One array of an archive."""
    _check_length(path, key)
    try:
        with np.load(path, allow_pickle=False) as archive:
            array: npt.NDArray[Any] = archive[key]
            return array
    except ValueError as error:
        raise ValueError(
            f"array {key!r} cannot be read ({error}): object arrays are never unpickled; "
            "save numbers or text, e.g. numpy.savez(path, x=x.astype('float32'), y=y.astype('int64'))"
        ) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise ValueError(f"array {key!r} is damaged ({error}): write or copy the file again") from error


def _check_length(path: Path, key: str) -> None:
    """Raise ValueError where a header claims more than there is: memory would be asked for by what it claims."""
    with zipfile.ZipFile(path) as archive:
        try:
            length = archive.getinfo(f"{key}.npy").file_size
            with archive.open(f"{key}.npy") as file:
                is_old = np.lib.format.read_magic(file) == (1, 0)
                read = np.lib.format.read_array_header_1_0 if is_old else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
        except (KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, OSError):
            return  # what is damaged is named where it is read
    claimed = math.prod(int(side) for side in shape) * dtype.itemsize
    if claimed > length and not dtype.hasobject:
        raise ValueError(
            f"array {key!r} is damaged (its header claims {claimed:,} bytes, there are {length:,}): write or copy the "
            "file again"
        )


def find_key(keys: list[str], names: Iterable[str], role: str) -> str:
    """The only key among ``names`` (any case); ValueError for none, or several."""
    usual = [key for key in keys if key.lower() in names]
    if len(usual) > 1:
        raise ValueError(f"several arrays could be the {role} ({listing(usual)}): keep one of them")
    if not usual:
        raise ValueError(f"no {role} found among the arrays {listing(keys)}: call them {' or '.join(names)}")
    return usual[0]


def as_inputs(array: npt.NDArray[Any]) -> tuple[Tensor, Kind]:
    """``[N, F]`` → table; uint8 ``[N, H, W]``, ``[N, H, W, c]``, ``[N, c, H, W]``, c 1 or 3 → images."""
    import torch

    if array.ndim == 2 and array.dtype.kind in "biuf":
        with np.errstate(over="ignore"):  # inf is reported by name where the data set is checked
            return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)), "table"
    if array.ndim in (3, 4) and array.dtype != np.uint8:
        raise ValueError(
            f"images of type {array.dtype}: give uint8, 0…255 (from 0…1: (255 * x).round().astype('uint8')); "
            "a table has shape [N, F]"
        )
    if array.ndim == 3:
        return torch.from_numpy(np.ascontiguousarray(array))[:, None], "image"
    if array.ndim == 4:
        first, last = array.shape[1] in (1, 3), array.shape[3] in (1, 3)
        if first != last:
            images = array if first else array.transpose(0, 3, 1, 2)
            return torch.from_numpy(np.ascontiguousarray(images)), "image"
    raise ValueError(
        f"inputs of type {array.dtype} and shape {list(array.shape)}: give numbers [N, F], or uint8 images "
        "[N, H, W], [N, H, W, 3] or [N, 3, H, W]"
    )


def load_npz(path: Path, label_key: str | None = None) -> Dataset:
    """An archive of inputs (``x``, ``inputs``, ``features``, ``data``, ``images``) and labels (``y``, …).

    Also read, where present: ``class_names`` (then labels are indices into it) and ``feature_names``; and the
    layout ``x_train, y_train, x_test, y_test``, whose test part is then the data set's own.
    """
    import torch

    from ncmi.data.dataset import Dataset, encode_labels

    keys = list(archive_shapes(path))
    pairs = [(f"x_{part}", f"y_{part}") for part in ("train", "test")]
    parts = None
    if all(key in keys for pair in pairs for key in pair):
        read = [(read_array(path, x), read_array(path, y)) for x, y in pairs]
        if read[0][0].shape[1:] != read[1][0].shape[1:]:
            raise ValueError(f"x_train {list(read[0][0].shape)} and x_test {list(read[1][0].shape)} differ in shape")
        x, y = (np.concatenate(arrays) for arrays in zip(*read, strict=True))
        parts = np.repeat(np.array([TRAIN, TEST], np.int8), [len(read[0][0]), len(read[1][0])])
    else:
        x = read_array(path, find_key(keys, INPUT_ARRAYS, "inputs"))
        if label_key is not None and label_key not in keys:
            raise ValueError(f"no array {label_key!r}: choose the labels among {listing(keys)} with label_column")
        y = read_array(path, label_key or find_key(keys, LABEL_COLUMNS, "labels"))
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise ValueError(f"inputs {list(x.shape)} and labels {list(y.shape)} differ in length: give one label each")
    inputs, kind = as_inputs(x)
    if "class_names" in keys:
        class_names = _names(path, "class_names")
        if y.dtype.kind not in "iu":
            raise ValueError(f"labels of type {y.dtype} beside class_names: give indices into class_names")
        labels = torch.from_numpy(y.reshape(-1).astype(np.int64))
    else:
        labels, class_names = encode_labels(y)
    feature_names = _names(path, "feature_names") if "feature_names" in keys and kind == "table" else None
    return Dataset(path.stem, inputs, labels, class_names, kind, feature_names, parts)


def _names(path: Path, key: str) -> tuple[str, ...]:
    return tuple(str(name) for name in read_array(path, key).reshape(-1).tolist())
