"""Labels as they stand in files (numbers, text) → class indices and class names."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ncmi.data.dataset import listing

LABEL_NAMES = ("label", "labels", "class", "target", "targets", "y")


def encode_labels(
    values: npt.NDArray[Any], missing: npt.NDArray[np.bool_] | None = None
) -> tuple[Tensor, tuple[str, ...]]:
    """Class indices ``[N]`` int64 and the class names in sorted order (numbers by value, text by code point).

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
        values = _whole(values)
    classes, indices = np.unique(values, return_inverse=True)
    names = tuple(str(c) for c in classes.tolist())
    if len(names) < 2:
        raise ValueError(f"only one class ({listing(names)}): a classifier needs samples of at least two")
    return torch.from_numpy(indices.astype(np.int64)), names


def _whole(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    broken = ~np.isfinite(values) | (values != np.round(values))
    if broken.any():
        row = int(broken.argmax())
        raise ValueError(
            f"label {float(values[row])} of row {row} (counted from 0) is not a whole number: classes are "
            "whole numbers or names; bin a continuous target first"
        )
    return values.astype(np.int64)
