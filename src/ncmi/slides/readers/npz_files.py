"""What the readers of .npz files share: shapes without values, values without pickles."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ncmi.slides.readers.arrays import UnusableBag


def npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of a .npz file, from their headers.

    Raises:
        BagError: for a file that cannot be read.
    """
    shapes = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith(".npy"):
                    with archive.open(member) as file:
                        shapes[member.removesuffix(".npy")] = _header(file)
    except MemoryError:
        raise
    except Exception as error:  # damage makes the parsers raise whatever comes
        raise _broken(path, error) from error
    return shapes


def npz_array(path: Path, name: str) -> npt.NDArray[Any]:
    """One array of a .npz file.

    Raises:
        BagError: for a file that cannot be read, and for an array of Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found: npt.NDArray[Any] = arrays[name]
            return found
    except MemoryError:
        raise
    except Exception as error:
        raise _broken(path, error) from error


def _header(file: Any) -> tuple[int, ...]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return tuple(int(side) for side in read(file)[0])


def _broken(path: Path, error: Exception) -> UnusableBag:
    return UnusableBag(path, f"not a readable .npz file, truncated or damaged ({' '.join(str(error).split())})")
