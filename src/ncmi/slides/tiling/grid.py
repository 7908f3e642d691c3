"""The grid of patches on a slide, what defines it, and which of its squares hold enough tissue."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ncmi.slides.tiling.slide_file import Slide, SlideError


@dataclass(frozen=True)
class TilingSettings:
    """What defines the patches of a slide; stored with them.

    Attributes:
        mpp: wanted microns per pixel of the patches: 0.5 for 20x, 0.25 for 40x.
        patch_size: side of a patch in pixels at ``mpp``.
        overlap: of neighboring patches in pixels at ``mpp``.
        min_tissue: least share of a patch that is tissue, above 0 … 1; 0 takes every patch of the slide.
        slide_mpp: microns per pixel of all slides' level 0, where the files do not say it; by default theirs.
        mpp_tolerance: a level whose pixel size differs by no more than this share is taken as it is, unscaled.
        upsample: let slides that are coarser than ``mpp`` be enlarged.
        min_region_mm2: tissue regions smaller than this are specks.
        max_hole_mm2: holes in tissue that are smaller than this count as tissue.
        edge: take patches that reach over the right and lower edge too.
        max_patches: most patches of a slide; 0 for all.
        pen: leave out green and deep blue ink; False for slides whose stain has these colors.

    Raises:
        ValueError: naming the option and what it can be.
    """

    mpp: float = 0.5
    patch_size: int = 256
    overlap: int = 0
    min_tissue: float = 0.25
    slide_mpp: float | None = None
    mpp_tolerance: float = 0.02
    upsample: bool = False
    min_region_mm2: float = 0.02
    max_hole_mm2: float = 0.02
    edge: bool = False
    max_patches: int = 0
    pen: bool = True

    def __post_init__(self) -> None:
        for name in ("mpp", "slide_mpp"):
            value = getattr(self, name)
            if value is not None and not 0.01 <= value <= 100:
                raise ValueError(f"{name}={value}: microns per pixel, 0.01 … 100 (20x is 0.5, 40x is 0.25)")
        valid = {
            "patch_size": (self.patch_size >= 16, "must be at least 16 pixels; 224 and 256 are usual"),
            "overlap": (
                0 <= self.overlap < self.patch_size,
                f"must be at least 0 and below patch_size={self.patch_size}, in pixels",
            ),
            "min_tissue": (0 <= self.min_tissue <= 1, "a share of the patch, 0 … 1"),
            "mpp_tolerance": (0 <= self.mpp_tolerance < 0.5, "a share of mpp, at least 0 and below 0.5"),
            "min_region_mm2": (0 <= self.min_region_mm2 < math.inf, "an area in mm², at least 0"),
            "max_patches": (self.max_patches >= 0, "a number of patches, or 0 for all"),
            "max_hole_mm2": (0 <= self.max_hole_mm2 < math.inf, "an area in mm², at least 0"),
        }
        for name, (is_valid, cure) in valid.items():
            if not is_valid:
                raise ValueError(f"{name}={getattr(self, name)}: {cure}")


@dataclass(frozen=True)
class Grid:
    """A grid of squares that begins at the slide's upper left corner; all squares lie within the slide.

    Attributes:
        side: of a square in pixels of level 0.
        step: from one square to the next in pixels of level 0.
        level: the pyramid level to read it from.
        mpp: microns per pixel of its patches.
    """

    side: int
    step: int
    level: int
    mpp: float

    def corners(self, size: tuple[int, int], *, edge: bool = False) -> NDArray[np.int64]:
        """Upper left corners ``[N, 2]`` (x, y) of all squares within a slide of ``size`` (width, height), row by row.

        Args:
            edge: also those that begin within it and reach over its right or lower edge.

        Example:
            >>> Grid(side=4, step=3, level=0, mpp=0.5).corners((10, 4)).tolist()
            [[0, 0], [3, 0], [6, 0]]
        """
        beyond = self.side - 1 if edge else 0
        x, y = (np.arange(0, length - self.side + 1 + beyond, self.step, dtype=np.int64) for length in size)
        return np.stack([np.tile(x, len(y)), np.repeat(y, len(x))], axis=1)


def plan_grid(slide: Slide, settings: TilingSettings) -> Grid:
    """The grid for a slide: of the wanted pixel size, or of a level's own where that is within the tolerance.

    Raises:
        SlideError: if the pixel size is not known or coarser than wanted (unless enlarging is allowed), or if the slide
            is smaller than a patch.
    """
    wanted = settings.mpp / slide.mpp
    level = min(range(len(slide.downsamples)), key=lambda number: abs(slide.downsamples[number] / wanted - 1))
    if abs(slide.downsamples[level] / wanted - 1) <= settings.mpp_tolerance:
        downsample = slide.downsamples[level]
    elif wanted < 1 and not settings.upsample:
        raise SlideError(
            f"{slide.path}: has {slide.mpp:.4g} microns per pixel, coarser than mpp={settings.mpp:g}: give"
            f" mpp={slide.mpp:.4g} or more, or allow patches to be enlarged by upsample"
        )
    else:
        downsample, level = wanted, slide.level_for(wanted)
    side = max(1, round(settings.patch_size * downsample))
    if side > min(slide.size) and not settings.edge:
        raise SlideError(
            f"{slide.path}: its {slide.size[0]} by {slide.size[1]} pixels are less than one patch, which takes {side}"
            f" of them: give a smaller patch_size or mpp, or edge"
        )
    step = max(1, side - round(settings.overlap * downsample))
    return Grid(side, step, level, slide.mpp * side / settings.patch_size)


def tissue_shares(mask: NDArray[np.bool_], scale: float, corners: NDArray[np.int64], side: int) -> NDArray[np.floating]:
    """Share of tissue in each square, ``[N]``, exact for the mask's pixels (what lies beyond the mask has none).

    Args:
        mask: ``[h, w]``, tissue; ``scale`` pixels of level 0 are on the side of one of its pixels.
        corners: ``[N, 2]``, upper left corners (x, y) at level 0 of squares of this side.

    Example:
        >>> tissue_shares(np.array([[True, False]]), 10.0, np.array([[0, 0], [5, 0]]), 10).tolist()
        [1.0, 0.5]
    """
    area = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    area[1:, 1:] = mask.cumsum(0).cumsum(1)
    (left, top), (right, bottom) = (corners / scale).T, ((corners + side) / scale).T
    tissue = _at(area, bottom, right) - _at(area, top, right) - _at(area, bottom, left) + _at(area, top, left)
    return np.asarray(np.clip(tissue / (side / scale) ** 2, 0.0, 1.0))


def _at(area: NDArray[np.floating], y: NDArray[np.floating], x: NDArray[np.floating]) -> NDArray[np.floating]:
    """The summed area between its nodes, where it is bilinear."""
    y, x = np.minimum(y, area.shape[0] - 1), np.minimum(x, area.shape[1] - 1)
    row, column = (np.minimum(np.floor(v).astype(int), n - 2) for v, n in ((y, area.shape[0]), (x, area.shape[1])))
    down, across = y - row, x - column
    upper = area[row, column] * (1 - across) + area[row, column + 1] * across
    lower = area[row + 1, column] * (1 - across) + area[row + 1, column + 1] * across
    return np.asarray(upper * (1 - down) + lower * down)
