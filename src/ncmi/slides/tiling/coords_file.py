"""Files of patch coordinates: written in the words of TRIDENT and of CLAM, read from any of the three."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncmi.files import write_atomically


class CoordsError(ValueError):
    """A file of coordinates cannot be used; the message names the file, the reason and the cure."""


@dataclass(frozen=True, eq=False)
class Coords:
    """Where a slide's patches are.

    Attributes:
        name: of the slide.
        xy: ``[N, 2]`` int64, x and y of the upper left corners in pixels of level 0; N may be 0 (no tissue).
        patch_size: side of a patch in pixels as a network sees it.
        patch_size_level0: side of a patch in pixels of level 0.
        mpp: microns per pixel of the patches; None where the file does not say it.
        level0_mpp: microns per pixel of level 0; None where the file does not say it.
        attributes: all attributes of the data set ``coords`` as they stand in the file, to be handed on with features.
    """

    name: str
    xy: NDArray[np.int64]
    patch_size: int
    patch_size_level0: int
    mpp: float | None = None
    level0_mpp: float | None = None
    attributes: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.xy)


def write_coords(path: Path, xy: NDArray[np.int64], attributes: dict[str, Any]) -> None:
    """Write a file of coordinates, whole or not at all.

    Args:
        path: the .h5 to write.
        xy: ``[N, 2]``, upper left corners in pixels of level 0.
        attributes: of the data set ``coords``: at least ``patch_size`` and ``patch_size_level0``.
    """
    import h5py

    def write(temporary: Path) -> None:
        with h5py.File(temporary, "w") as file:
            data = file.create_dataset("coords", data=np.asarray(xy, dtype=np.int64).reshape(-1, 2))
            data.attrs.update(attributes)

    write_atomically(path, write)


def read_coords(path: str | Path) -> Coords:
    """Read the coordinates of a slide's patches from a file of ours, of TRIDENT's, or of CLAM's.

    Features files with a data set ``coords`` that has the same attributes are read as well. TRIDENT's ``patch_size``
    is the side at the wanted magnification, ``patch_size_level0`` the side at level 0. CLAM's ``patch_size`` is the
    side at ``patch_level``, which is ``downsample`` (times ``custom_downsample``) times smaller than level 0.

    Raises:
        CoordsError: if the file is missing, damaged, or does not say how large the patches are.
    """
    path = Path(path)
    try:
        return _read(path)
    except (CoordsError, MemoryError):
        raise
    except Exception as error:  # h5py raises nearly anything on a damaged file
        reason = " ".join(str(error).split())
        raise CoordsError(f"{path}: cannot be read ({reason}): tile the slide again") from None


def _read(path: Path) -> Coords:
    import h5py

    with h5py.File(path, "r") as file:
        if "coords" not in file:
            raise CoordsError(f"{path}: holds no data set coords: give a file that tile, TRIDENT or CLAM wrote")
        xy = np.asarray(file["coords"][()])
        attributes = {key: _plain(value) for key, value in file["coords"].attrs.items()}
    if xy.ndim == 3 and len(xy) == 1:
        xy = xy[0]
    if xy.size == 0:
        xy = xy.reshape(0, 2)
    if xy.ndim != 2 or xy.shape[1] != 2 or not np.array_equal(xy, np.round(xy)) or (xy < 0).any():
        raise CoordsError(f"{path}: coords has shape {xy.shape}, wanted whole numbers ≥ 0 of shape [N, 2]: tile again")
    patch_size, at_level0 = _sides(path, attributes)
    return Coords(
        name=str(attributes.get("name", path.stem)),
        xy=xy.astype(np.int64),
        patch_size=patch_size,
        patch_size_level0=at_level0,
        mpp=_number(attributes, "mpp"),
        level0_mpp=_number(attributes, "level0_mpp"),
        attributes=attributes,
    )


def _sides(path: Path, attributes: dict[str, Any]) -> tuple[int, int]:
    """Side of a patch as seen, and in pixels of level 0."""
    patch_size, at_level0 = (_number(attributes, key) for key in ("patch_size", "patch_size_level0"))
    if at_level0 is None and patch_size is not None:
        if (source := _number(attributes, "level0_magnification")) and (
            target := _number(attributes, "target_magnification")
        ):
            at_level0 = patch_size * source / target
        elif (downsample := _number(attributes, "downsample")) or _number(attributes, "patch_level") == 0:
            at_level0 = patch_size * (downsample or 1.0) * (_number(attributes, "custom_downsample") or 1.0)
    if patch_size is None or at_level0 is None or patch_size < 1 or at_level0 < 1:
        raise CoordsError(
            f"{path}: does not say how large the patches are: coords needs the attributes patch_size and"
            " patch_size_level0 (as TRIDENT writes), or patch_size and downsample (as CLAM writes)"
        )
    return round(patch_size), round(at_level0)


def _plain(value: Any) -> Any:
    """An attribute as plain Python values, so that processes and files can take it on."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.generic):
        return value.item()
    return tuple(value.tolist()) if isinstance(value, np.ndarray) and value.ndim == 1 else value


def _number(attributes: dict[str, Any], key: str) -> float | None:
    """A number, or the first of several that are meant for both axes; None where there is none."""
    value = attributes.get(key)
    if isinstance(value, tuple) and value:
        value = value[0]
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
