"""One slide to its coordinates file and thumbnail."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ncmi.slides.tiling.coords_file import write_coords
from ncmi.slides.tiling.grid import Grid, plan_grid, tissue_shares
from ncmi.slides.tiling.overview import read_overview
from ncmi.slides.tiling.patches import read_square
from ncmi.slides.tiling.settings import TilingSettings
from ncmi.slides.tiling.slide_file import Slide, SlideError, slide_name
from ncmi.slides.tiling.thumbnail import write_thumbnail
from ncmi.slides.tiling.tissue import tissue_mask

SETTINGS = "tiling"
"""Attribute of the coordinates that holds the settings they were made with, as JSON."""


@dataclass(frozen=True)
class TileResult:
    """What became of a slide.

    Attributes:
        slide: its name.
        path: its file.
        status: "tiled"; "no tissue" (there is a coordinates file of no patches); "failed" (there is none).
        patches: how many.
        reason: why there are none.
        made: made by this call; False where an earlier one had made it.
    """

    slide: str
    path: Path
    status: Literal["tiled", "no tissue", "failed"]
    patches: int = 0
    reason: str = ""
    made: bool = True


def counted(slide: str, path: Path, patches: int, settings: TilingSettings, *, made: bool = True) -> TileResult:
    """The result of a slide that could be read."""
    if patches:
        return TileResult(slide, path, "tiled", patches, made=made)
    reason = f"no patch has {settings.min_tissue:.0%} of tissue or more: see the thumbnail"
    return TileResult(slide, path, "no tissue", 0, reason, made=made)


def tile_slide(path: Path, out: Path, settings: TilingSettings) -> TileResult:
    """Write OUT/thumbnails/SLIDE.jpg, then OUT/coords/SLIDE.h5, each whole or not at all.

    A slide that cannot be read or does not fit the settings is a result like any other, with its reason.

    Raises:
        OSError: if the files cannot be written.
    """
    try:
        with Slide(path, settings.slide_mpp) as slide:
            return _tile(slide, out, settings)
    except SlideError as error:
        return TileResult(slide_name(path), path, "failed", reason=str(error))
    except MemoryError:
        return TileResult(slide_name(path), path, "failed", reason=f"{path}: out of memory: give fewer workers")


def _tile(slide: Slide, out: Path, settings: TilingSettings) -> TileResult:
    grid = plan_grid(slide, settings)
    overview = read_overview(slide)
    mask = tissue_mask(
        overview,
        min_region_mm2=settings.min_region_mm2,
        max_hole_mm2=settings.max_hole_mm2,
        pen=settings.pen,
    )
    corners = grid.corners(slide.size)
    corners = corners[tissue_shares(mask, overview.scale, corners, grid.side) >= settings.min_tissue]
    _probe(slide, corners, grid, settings.patch_size)
    picture = out / "thumbnails" / f"{slide.name}.jpg"
    write_thumbnail(picture, slide, overview, mask, corners, grid, settings.patch_size)
    # last: where it is, the slide is done
    write_coords(out / "coords" / f"{slide.name}.h5", corners, _attributes(slide, out, grid, settings))
    return counted(slide.name, slide.path, len(corners), settings)


def _probe(slide: Slide, corners: NDArray[np.int64], grid: Grid, patch_size: int) -> None:
    """Read the first, the middle and the last patch: a file that was cut off often shows it there alone."""
    for index in {0, len(corners) // 2, len(corners) - 1} if len(corners) else ():
        x, y = corners[index].tolist()
        read_square(slide, x, y, grid.side, patch_size)


def _attributes(slide: Slide, out: Path, grid: Grid, settings: TilingSettings) -> dict[str, Any]:
    """What TRIDENT and CLAM call the same things.

    CLAM reads ``patch_size`` pixels at ``patch_level``: the same area only where ``custom_downsample`` is 1.
    TRIDENT reads by the ratio of the magnifications, which is exact here.
    """
    magnification = slide.objective_power or 10 / slide.mpp
    downsample = slide.downsamples[grid.level]
    return {
        "patch_size": settings.patch_size,
        "patch_size_level0": grid.side,
        "level0_magnification": _whole(magnification),
        "target_magnification": _whole(magnification * settings.patch_size / grid.side),
        "overlap": settings.overlap,
        "name": slide.name,
        "savetodir": str(out),
        "level0_width": slide.size[0],
        "level0_height": slide.size[1],
        "patch_level": grid.level,
        "downsample": [downsample, downsample],
        "custom_downsample": _whole(grid.side / (settings.patch_size * downsample)),
        "downsampled_level_dim": list(slide.level_sizes[grid.level]),
        "level_dim": list(slide.level_sizes[grid.level]),
        "save_path": str(out),
        "mpp": grid.mpp,
        "level0_mpp": slide.mpp,
        SETTINGS: settings_text(settings),
    }


def settings_text(settings: TilingSettings) -> str:
    """The settings as JSON, for comparison."""
    return json.dumps(asdict(settings), sort_keys=True)


def _whole(value: float) -> int | float:
    return round(value) if abs(value - round(value)) < 1e-9 else value
