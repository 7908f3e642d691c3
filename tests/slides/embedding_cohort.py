"""A few small slides with coordinates files, and what embedding makes of them."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tiling_helpers import disc, picture, write_slide

from ncmi.slides.tiling import TilingSettings, tile_slides

SIZE = (320, 256)


def make_cohort(root: Path, names: tuple[str, ...] = ("a", "b", "c"), patch_size: int = 32) -> Path:
    """ROOT/slides with tissue discs, tiled into ROOT/out at the slides' own pixel size."""
    (root / "slides").mkdir(parents=True)
    for number, name in enumerate(names):
        tissue = disc(SIZE, (150 + 10 * number, 130), 90)
        image = picture(tissue, seed=number, color=(190 - 20 * number, 90, 160))
        write_slide(root / "slides" / f"{name}.tif", image, levels=2, compression="deflate")
    tile_slides(root / "slides", root / "out", TilingSettings(patch_size=patch_size), workers=1)
    return root


def copy_cohort(made: Path, to: Path) -> Path:
    """A cohort of one's own."""
    shutil.copytree(made, to)
    return to


def contents(path: Path) -> dict[str, Any]:
    """All of a features file."""
    with h5py.File(path, "r") as file:
        return {
            "features": file["features"][()],
            "coords": file["coords"][()],
            "coords attributes": dict(file["coords"].attrs),
            "attributes": dict(file.attrs),
            "names": set(file),
        }


def summary(out: Path) -> dict[str, dict[str, str]]:
    """embed_summary.csv by slide."""
    with (out / "embed_summary.csv").open(newline="", encoding="utf-8") as file:
        return {row["slide"]: row for row in csv.DictReader(file)}


def damage(path: Path, keep: float) -> None:
    """Overwrite the file's middle with noise; ``keep`` of it at either end stays."""
    content = bytearray(path.read_bytes())
    start, stop = int(len(content) * keep), int(len(content) * (1 - keep))
    content[start:stop] = np.random.default_rng(0).bytes(stop - start)
    path.write_bytes(content)
