"""Attention of chosen slides, as run folders hold it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ncmi.reports.files import ReportError, read_arrays

FOLDER = "attention"


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention over a slide's N patches.

    Attributes:
        slide: its name.
        values: ``[N]``, ≥ 0, with sum 1.
        coords: ``[N, 2]``, upper left corners in pixels of level 0; None where unknown.
        patch_size: side of a patch in pixels of level 0; estimated from the corners where the file does not say it.
    """

    slide: str
    values: NDArray[np.float64]
    coords: NDArray[np.int64] | None
    patch_size: int

    @property
    def relative(self) -> NDArray[np.float64]:
        """Attention in units of even attention, 1/N: how many times more than its share a patch counts."""
        return self.values * len(self.values)

    @property
    def effective(self) -> float:
        """How many patches would carry as much if they shared evenly: exp of the attention's entropy, 1 … N."""
        positive = self.values[self.values > 0]
        return float(np.exp(-(positive * np.log(positive)).sum()))

    def top(self, most: int) -> list[int]:
        """The patches with the highest attention, the highest first."""
        return [int(place) for place in np.argsort(-self.values, kind="stable")[:most]]


def attention_files(run: Path) -> dict[str, Path]:
    """Files of attention in a run folder, by slide."""
    folder = run / FOLDER
    return {path.stem: path for path in sorted(folder.glob("*.npz"))} if folder.is_dir() else {}


def read_attention(path: Path) -> Attention:
    """Read one slide's attention.

    Raises:
        ReportError: if the file is damaged, its arrays do not belong together, or it holds no attention.
    """
    arrays = read_arrays(path)
    if "attention" not in arrays:
        raise ReportError(f"{path}: lacks 'attention': run it again into an empty folder")
    values = np.asarray(arrays["attention"])
    whole = values.ndim == 1 and len(values) > 0 and np.issubdtype(values.dtype, np.floating)
    if not whole or not np.isfinite(values).all() or (values < 0).any() or not values.sum() > 0:
        raise ReportError(f"{path}: 'attention' is no list of finite weights ≥ 0: run it again into an empty folder")
    # single precision leaves the sum a little off
    values = values.astype(np.float64) / values.astype(np.float64).sum()
    coords = arrays.get("coords")
    if coords is not None and coords.size == 0:
        coords = None
    if coords is not None:
        numbers = np.issubdtype(coords.dtype, np.number)
        if coords.shape != (len(values), 2) or not numbers or not np.isfinite(coords).all():
            raise ReportError(
                f"{path}: coords have shape {coords.shape}, attention {values.shape}: run it again into an empty folder"
            )
        coords = coords.astype(np.int64)
    size = np.asarray(arrays.get("patch_size", 0)).ravel()
    known = size.size == 1 and np.issubdtype(size.dtype, np.number) and size[0] >= 1
    side = int(size[0]) if known else _side(coords) if coords is not None else 1
    return Attention(path.stem, values, coords, side)


def _side(coords: NDArray[np.int64]) -> int:
    """Spacing of the corners: the middle distance between neighbouring columns and rows."""
    steps = np.concatenate([np.diff(np.unique(coords[:, axis])) for axis in (0, 1)])
    return int(np.median(steps)) if len(steps) else 1
