"""What all readers share: names of data sets, shapes, precision, and what makes a bag unusable."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ncmi.data.dataset import listing
from ncmi.slides.bag import Bag, BagError

FEATURE_KEYS = ("features", "feats", "feat", "feature", "embeddings", "embedding", "x")
"""Usual names of a bag's features, in lower case."""
COORDS_KEYS = ("coords", "coordinates", "coord", "xy", "locations")
"""Usual names of the patches' positions, in lower case."""


LARGEST = 1e18
"""Features beyond it cannot be computed with in float32."""


class UnusableBag(BagError):
    """One bag is missing, empty or damaged.

    Attributes:
        reason: what is wrong, without the file and the cure.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}: make it again, or leave such slides out (--data.bad skip)")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type[UnusableBag], tuple[Path, str]]:
        # by default an exception is made again from its message: no worker process could hand this one over
        return type(self), (self.path, self.reason)


def find_features(shapes: Mapping[str, Sequence[int]], asked: str | None, path: Path) -> str:
    """Name of the data set with the features: the one asked for, or the only one with a usual name.

    Raises:
        BagError: where there is none, or several.
    """
    if asked is not None:
        if asked not in shapes:
            raise BagError(f"{path}: no data set {asked!r} (there is {listing(list(shapes))}): see --data.features-key")
        return asked
    found = [name for name in shapes if name.lower() in FEATURE_KEYS and len(shapes[name]) > 1]
    if len(found) != 1:
        which = "several data sets could be" if found else "no data set is called like"
        there = listing([f"{name} {list(shape)}" for name, shape in shapes.items()]) or "none"
        raise BagError(f"{path}: {which} the features; there is {there}: choose one (--data.features-key)")
    return found[0]


def find_coords(names: Collection[str], asked: str | None, path: Path) -> str | None:
    """Name of the data set with the patches' positions: the one asked for, or one with a usual name; or None.

    Raises:
        BagError: where the one asked for is not there.
    """
    if asked is not None:
        if asked not in names:
            raise BagError(f"{path}: no data set {asked!r} (there is {listing(list(names))}): see --data.coords-key")
        return asked
    return next((name for name in names if name.lower() in COORDS_KEYS), None)


def bag_shape(shape: Sequence[int], path: Path) -> tuple[int, int]:
    """(N, D) of features stored as ``[N, D]`` or ``[1, N, D]``.

    Raises:
        BagError: for any other shape, and without instances or without features.
    """
    sides = tuple(int(side) for side in shape)
    if len(sides) == 3 and sides[0] == 1:
        sides = sides[1:]
    if len(sides) != 2:
        raise UnusableBag(path, f"features of shape {list(shape)} instead of [N, D] or [1, N, D]")
    if 0 in sides:
        raise UnusableBag(path, f"an empty bag, features of shape {list(shape)}")
    return sides[0], sides[1]


def to_features(values: Tensor | npt.NDArray[Any], path: Path) -> Tensor:
    """``[N, D]``, contiguous, float16 or float32 as stored, anything else as float32, checked to be finite.

    Raises:
        BagError: for another shape, values that are no real numbers, NaN or infinities; says how many.
    """
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "fiub":
            raise UnusableBag(path, f"features of type {values.dtype} instead of numbers")
        if values.dtype not in (np.float16, np.float32):
            with np.errstate(over="ignore"):  # infinities are reported below
                values = values.astype(np.float32)
        values = torch.from_numpy(np.ascontiguousarray(values))
    elif values.is_complex() or values.is_quantized or values.layout != torch.strided:
        raise UnusableBag(path, f"features of type {values.dtype}, {values.layout} instead of plain numbers")
    elif values.dtype not in (torch.float16, torch.float32):
        values = values.float()
    features = values.reshape(bag_shape(values.shape, path)).contiguous()
    # least and largest value are finite only where all are: much faster than asking each
    extremes = torch.stack(torch.aminmax(features)).abs()
    if not bool(extremes.isfinite().all()):
        broken = ~features.isfinite()
        rows = int(broken.any(dim=1).sum())
        raise UnusableBag(path, f"{int(broken.sum())} NaN or infinite features, in {rows} of {len(features)} instances")
    if bool((extremes > LARGEST).any()):
        raise UnusableBag(path, f"features up to {float(extremes.max()):.1e}, whose squares float32 does not hold")
    return features


def to_coords(values: Tensor | npt.NDArray[Any], instances: int, path: Path) -> Tensor:
    """``[N, 2]`` int64 of positions stored as ``[N, 2]`` or ``[1, N, 2]``.

    Raises:
        BagError: for another shape, or positions that are no finite numbers.
    """
    if isinstance(values, Tensor):
        plain = values.detach()
        # NumPy has no bfloat16
        found: npt.NDArray[Any] = (plain.double() if plain.is_floating_point() else plain).numpy()
    else:
        found = values
    if found.ndim == 3 and found.shape[0] == 1:
        found = found[0]
    if found.shape != (instances, 2):
        raise UnusableBag(path, f"coords of shape {list(values.shape)} for {instances} instances")
    # pixels beyond 2⁵³ would not be whole numbers as floats, and NaN is not below it
    if found.dtype.kind not in "fiu" or not (np.abs(found.astype(np.float64)) < 2**53).all():
        raise UnusableBag(path, "coords that are no positions in pixels")
    return torch.from_numpy(np.round(found).astype(np.int64))


def label_text(value: Any) -> str | None:
    """A label stored beside the features as text: whole numbers without a fraction; None for none, NaN or nothing.

    Example:
        >>> label_text(1.0), label_text(0.5), label_text(b" tumour "), label_text(float("nan"))
        ('1', '0.5', 'tumour', None)
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return text.strip() or None


def patch_size(attributes: Mapping[str, Any]) -> int | None:
    """Side of a patch in pixels of level 0 from TRIDENT's or CLAM's attributes; None where they do not say."""

    def number(name: str) -> float | None:
        try:
            value = float(np.asarray(attributes[name]).ravel()[0])
        except (KeyError, ValueError, TypeError, IndexError):
            return None
        return value if 0 < value < 2**31 else None

    level0, size = number("patch_size_level0"), number("patch_size")
    if level0 is not None or size is None:
        return None if level0 is None else round(level0)
    magnifications = number("level0_magnification"), number("target_magnification")
    if magnifications[0] is not None and magnifications[1] is not None:
        return round(size * magnifications[0] / magnifications[1])
    downsample = number("downsample")
    if downsample is None and number("patch_level") is not None:  # 0 is no number above 0
        return None
    return round(size * (downsample or 1.0))


def make_bag(
    name: str,
    features: Tensor | npt.NDArray[Any],
    coords: Tensor | npt.NDArray[Any] | None,
    attributes: Mapping[str, Any],
    path: Path,
) -> Bag:
    """A checked bag of arrays as they were read."""
    checked = to_features(features, path)
    positions = None if coords is None else to_coords(coords, len(checked), path)
    return Bag(name, checked, positions, patch_size(attributes))
