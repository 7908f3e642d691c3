"""Files of patch coordinates: written in the words of TRIDENT and of CLAM, read from any of the three."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncmi.data.columns import attribute, patch_side
from ncmi.errors import reason
from ncmi.files import write_atomically
from ncmi.slides.tiling.slide_file import Slide, read_square


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
    """Write a file of coordinates ``[N, 2]``, upper left corners in pixels of level 0, whole or not at all.

    Args:
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

    Features files with a data set ``coords`` that has the same attributes are read as well.

    Raises:
        CoordsError: if the file is missing, damaged, or does not say how large the patches are.
    """
    path = Path(path)
    try:
        return _read(path)
    except (CoordsError, MemoryError):
        raise
    except Exception as error:  # h5py raises nearly anything on a damaged file
        raise CoordsError(f"{path}: cannot be read ({reason(error)}): tile the slide again") from None


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
    patch_size, at_level0 = attribute(attributes, "patch_size") or 0, patch_side(attributes) or 0
    if patch_size < 1 or at_level0 < 1:
        raise CoordsError(
            f"{path}: does not say how large the patches are: coords needs the attributes patch_size and"
            " patch_size_level0 (as TRIDENT writes), or patch_size and downsample (as CLAM writes)"
        )
    return Coords(
        name=str(attributes.get("name", path.stem)),
        xy=xy.astype(np.int64),
        patch_size=round(patch_size),
        patch_size_level0=round(at_level0),
        mpp=attribute(attributes, "mpp"),
        level0_mpp=attribute(attributes, "level0_mpp"),
        attributes=attributes,
    )


def _plain(value: Any) -> Any:
    """An attribute as plain Python values, so that processes and files can take it on."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.generic):
        return value.item()
    return tuple(value.tolist()) if isinstance(value, np.ndarray) and value.ndim == 1 else value


def read_patch(slide: Slide, coords: Coords, index: int) -> NDArray[np.uint8]:
    """Patch number ``index``, ``[patch_size, patch_size, 3]`` RGB, read at the best level, rescaled where none fits."""
    x, y = coords.xy[index]
    return read_square(slide, int(x), int(y), coords.patch_size_level0, coords.patch_size)
