"""A bag of instance features, what makes one unusable, and where bags come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ncmi.data.columns import patch_side, side_in_microns
from ncmi.errors import listing

Entry = TypeVar("Entry")
LARGEST = 1e18
"""Features beyond it cannot be computed with in float32."""


class BagError(ValueError):
    """A bag cannot be used; the message names the file, the reason and the cure."""

    reason: str
    """What is wrong with it, for a list of bags that are left out."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.reason = message


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


@dataclass(frozen=True, eq=False)
class Bag:
    """One slide's instances.

    Attributes:
        name: of the slide.
        features: ``[N, D_feat]``, N ≥ 1, finite, in the precision of the file (float16 or float32).
        coords: ``[N, 2]``, x and y of each patch's upper left corner: int64 in pixels of level 0, or float64 in
            microns; None where unknown.
        patch_size: side of a patch, in the same unit; None where unknown.
        unit: of coords and patch_size. A file of microns (STAMP) does not say how large a pixel of level 0 is.
        slides: of a patient's bag: those that it was joined of, in order, whose features are its rows; each has coords
            of its own, and the whole has none.
    """

    name: str
    features: Tensor
    coords: Tensor | None = None
    patch_size: float | None = None
    unit: Literal["px", "um"] = "px"
    slides: tuple[Bag, ...] = ()

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        places = [bag.coords for bag in (self, *self.slides) if bag.coords is not None]
        return self.features.nbytes + sum(coords.nbytes for coords in places)


class BagSource(ABC):
    """Bags by name; opening one reads names and shapes alone. Safe to use from several threads, and to pickle.

    Attributes:
        path: file or folder.
        names: of the bags, sorted.
    """

    path: Path
    names: tuple[str, ...]

    @abstractmethod
    def shape(self, name: str) -> tuple[int, int]:
        """(N, D_feat) of a bag, without reading its features; BagError for one that is missing, empty or damaged."""

    @abstractmethod
    def load(self, name: str) -> Bag:
        """Read a bag; BagError for one that is missing, empty, damaged, or whose features are not finite."""

    def label(self, name: str) -> str | None:
        """The label that the features' file itself gives a bag; None where it gives none. Default: none."""
        return None

    def encoder(self, name: str) -> str | None:
        """What made a bag's features, in the words of its file; None where it does not say. Default: it does not."""
        return None

    def entry(self, entries: Mapping[str, Entry], name: str) -> Entry:
        """What some entries by the bags' names hold for a name; BagError for one that no bag has."""
        if name not in entries:
            raise BagError(f"{self.path}: no bag {name!r} (there is {listing(self.names, 5)})")
        return entries[name]


def bag_shape(shape: Sequence[int], path: Path) -> tuple[int, int]:
    """(N, D) of features stored as ``[N, D]``, ``[1, N, D]`` or ``[D]``, which is one patch; BagError for others."""
    sides = tuple(int(side) for side in shape)
    if len(sides) == 3 and sides[0] == 1:
        sides = sides[1:]
    if len(sides) == 1:
        sides = (1, *sides)
    if len(sides) != 2:
        raise UnusableBag(path, f"features of shape {list(shape)} instead of [N, D] or [1, N, D]")
    if 0 in sides:
        raise UnusableBag(path, f"an empty bag, features of shape {list(shape)}")
    return sides[0], sides[1]


def to_features(values: Tensor | npt.NDArray[Any], path: Path) -> Tensor:
    """``[N, D]``, contiguous, float16 or float32 as stored, anything else as float32; BagError if not finite."""
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
    if not bool(extremes.any()):
        raise UnusableBag(path, "features that are all 0")
    if bool((extremes > LARGEST).any()):
        raise UnusableBag(path, f"features up to {float(extremes.max()):.1e}, whose squares float32 does not hold")
    return features


def to_coords(
    values: Tensor | npt.NDArray[Any], instances: int, path: Path, unit: Literal["px", "um"] = "px"
) -> Tensor:
    """``[N, 2]`` of positions stored as ``[N, 2]``, ``[1, N, 2]`` or ``[2]``: int64 pixels or float64 microns."""
    if isinstance(values, Tensor):  # NumPy has no bfloat16
        values = (values.detach().double() if values.is_floating_point() else values.detach()).numpy()
    positions = values
    if positions.ndim == 3 and positions.shape[0] == 1:
        positions = positions[0]
    if positions.shape == (2,):
        positions = positions[None]
    if instances == 1 and positions.ndim == 2 and len(positions) > 1:
        raise UnusableBag(
            path, f"one vector of features for {len(positions)} positions, as of a slide encoder: give those of patches"
        )
    if positions.shape != (instances, 2):
        raise UnusableBag(path, f"coords of shape {list(values.shape)} for {instances} instances")
    # pixels beyond 2⁵³ would not be whole numbers as floats, and NaN is not below it
    if positions.dtype.kind not in "fiu" or not (np.abs(positions.astype(np.float64)) < 2**53).all():
        raise UnusableBag(path, "coords that are no positions in pixels")
    return torch.from_numpy(positions.astype(np.float64) if unit == "um" else np.round(positions).astype(np.int64))


def make_bag(
    name: str,
    features: Tensor | npt.NDArray[Any],
    coords: Tensor | npt.NDArray[Any] | None,
    attributes: Mapping[str, Any],
    path: Path,
) -> Bag:
    """A checked bag of arrays as they were read, with the patch size that attributes tell."""
    checked = to_features(features, path)
    microns = side_in_microns(attributes)
    unit: Literal["px", "um"] = "px" if microns is None else "um"
    positions = None if coords is None else to_coords(coords, len(checked), path, unit)
    side = patch_side({"patch_level": 0, **attributes})
    return Bag(name, checked, positions, microns or (None if side is None else round(side)), unit)
