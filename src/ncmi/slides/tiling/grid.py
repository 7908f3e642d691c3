"""The grid of patches on a slide, and which of them hold enough tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ncmi.slides.tiling.settings import TilingSettings
from ncmi.slides.tiling.slide_file import Slide, SlideError


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

    def corners(self, size: tuple[int, int]) -> NDArray[np.int64]:
        """Upper left corners ``[N, 2]`` (x, y) of all squares within a slide of ``size`` (width, height), row by row.

        Example:
            >>> Grid(side=4, step=3, level=0, mpp=0.5).corners((10, 4)).tolist()
            [[0, 0], [3, 0], [6, 0]]
        """
        x, y = (np.arange(0, length - self.side + 1, self.step, dtype=np.int64) for length in size)
        return np.stack([np.tile(x, len(y)), np.repeat(y, len(x))], axis=1)


def plan_grid(slide: Slide, settings: TilingSettings) -> Grid:
    """The grid for a slide: of the wanted pixel size, or of a level's own where that is within the tolerance.

    Raises:
        SlideError: if the slide's pixel size is not known, if it is coarser than the wanted one (unless enlarging is
            allowed), or if the slide is smaller than a patch.
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
    if side > min(slide.size):
        raise SlideError(
            f"{slide.path}: its {slide.size[0]} by {slide.size[1]} pixels are less than one patch, which takes {side}"
            f" of them: give a smaller patch_size or mpp"
        )
    step = max(1, side - round(settings.overlap * downsample))
    return Grid(side, step, level, slide.mpp * side / settings.patch_size)


def tissue_shares(mask: NDArray[np.bool_], scale: float, corners: NDArray[np.int64], side: int) -> NDArray[np.floating]:
    """Share of tissue in each square, ``[N]``, exact for the mask's pixels (what lies beyond the mask has none).

    Args:
        mask: ``[h, w]``, tissue.
        scale: pixels of level 0 on the side of a mask pixel.
        corners: ``[N, 2]``, upper left corners (x, y) at level 0.
        side: of the squares at level 0.

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
