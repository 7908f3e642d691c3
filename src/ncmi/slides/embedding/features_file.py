"""Features files: written as the features come, whole or not at all, and recognised again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ncmi.files import write_atomically
from ncmi.slides.embedding.encoder import Encoder
from ncmi.slides.tiling.coords_file import Coords

Precision = Literal["float16", "float32"]
ENCODER, VERSION = "encoder", "encoder_version"
"""Root attributes that say what made the features."""


class EmbedError(ValueError):
    """Slides cannot be embedded; the message names the file, the reason and the cure."""


def write_features(
    path: Path, coords: Coords, encoder: Encoder, batches: Iterable[Tensor], precision: Precision = "float16"
) -> None:
    """Write ``features`` [N, D] and ``coords`` [N, 2] with its attributes, whole or not at all.

    Args:
        path: the .h5 to write.
        coords: of the N patches.
        encoder: that made the features; named in the root attributes ``encoder`` and ``encoder_version``.
        batches: features ``[b, D]`` in the order of the coordinates; each is written as it comes.
        precision: of the file.

    Raises:
        EmbedError: for features that are not finite, or too large for ``precision``.
    """
    import h5py

    def write(temporary: Path) -> None:
        with h5py.File(temporary, "w") as file:
            file.attrs.update({ENCODER: encoder.name, VERSION: encoder.version})
            data = file.create_dataset("features", (len(coords), encoder.feature_dim), precision)
            start = 0
            for batch in batches:
                _check(path, coords, start, batch, precision)
                data[start : start + len(batch)] = batch.numpy().astype(precision)
                start += len(batch)
            if start != len(coords):
                raise RuntimeError(f"{path}: {start} features for {len(coords)} patches")
            file.create_dataset("coords", data=coords.xy).attrs.update(coords.attributes)

    write_atomically(path, write)


def is_made(path: Path, coords: Coords, encoder: Encoder, precision: Precision = "float16") -> bool:
    """Whether the features are there already, of these coordinates by this encoder.

    Raises:
        EmbedError: if another file is there: of another encoder, precision or coordinates, or damaged.
    """
    import h5py

    if not path.exists():
        return False
    cure = "pass overwrite=True to make it anew, or choose another out folder"
    try:
        with h5py.File(path, "r") as file:
            found = tuple(str(file.attrs.get(key, "unknown")) for key in (ENCODER, VERSION))
            dtype, shape = str(file["features"].dtype), file["features"].shape
            xy = file["coords"][()]
    except Exception as error:  # h5py raises nearly anything on a damaged file
        reason = " ".join(str(error).split())
        raise EmbedError(f"{path}: damaged, or no features file of ncmi ({reason}): {cure}") from None
    if found != (encoder.name, encoder.version):
        raise EmbedError(
            f"{path}: made by the encoder {found[0]} ({found[1]}), not by {encoder.name} ({encoder.version}): {cure}"
        )
    if dtype != precision:
        raise EmbedError(f"{path}: holds {dtype}, not {precision}: {cure}")
    if shape != (len(coords), encoder.feature_dim) or not np.array_equal(xy, coords.xy):
        raise EmbedError(f"{path}: made of other coordinates than there are now: {cure}")
    return True


def _check(path: Path, coords: Coords, start: int, batch: Tensor, precision: Precision) -> None:
    """Reject features that are not finite in the file; the first such patch is named."""
    largest = torch.finfo(getattr(torch, precision)).max
    # what rounds to the largest number is still finite; NaN compares as false
    bad = ~(batch.abs() <= largest)
    if not bool(bad.any()):
        return
    row, column = (int(index) for index in bad.nonzero()[0])
    value = float(batch[row, column])
    x, y = coords.xy[start + row]
    where = f"{path.stem}: the patch at x={x}, y={y} has the value {value:g} in feature {column}"
    if np.isfinite(value):
        raise EmbedError(
            f"{where}, above {largest:g}, the largest of {precision}: pass precision='float32', or take the features "
            "before or after another layer"
        )
    raise EmbedError(
        f"{where}: check that the encoder has whole weights and the mean, std and image size of its training"
    )
