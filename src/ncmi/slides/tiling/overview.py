"""A slide as one small image, made in bands so that a large level never lies in memory whole."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ncmi.slides.tiling.slide_file import Slide

_BAND_PIXELS = 16_000_000


@dataclass(frozen=True, eq=False)
class Overview:
    """A small image of a whole slide.

    Attributes:
        image: ``[h, w, 3]`` uint8, RGB.
        scale: pixels of level 0 on the side of one of its pixels; the last row and column may stand for less.
        mpp: its microns per pixel.
    """

    image: NDArray[np.uint8]
    scale: float
    mpp: float


def read_overview(slide: Slide, mpp: float = 8.0) -> Overview:
    """The whole slide at about ``mpp`` microns per pixel, or up to twice as coarse; as it is where it is coarser.

    Raises:
        SlideError: if the slide's pixel size is not known, or the file is damaged.
    """
    wanted = max(mpp / slide.mpp, 1.0)
    level = slide.level_for(wanted)
    factor = math.ceil(wanted / slide.downsamples[level] * 0.97)
    width, height = slide.level_sizes[level]
    rows = max(factor, _BAND_PIXELS // (width * factor) * factor)
    bands = [_band(slide, level, top, min(rows, height - top), factor) for top in range(0, height, rows)]
    scale = slide.downsamples[level] * factor
    return Overview(np.concatenate(bands), scale, slide.mpp * scale)


def _band(slide: Slide, level: int, top: int, rows: int, factor: int) -> NDArray[np.uint8]:
    from PIL import Image

    width = slide.level_sizes[level][0]
    pixels = slide.read(0, round(top * slide.downsamples[level]), level, width, rows)
    return np.asarray(Image.fromarray(pixels).reduce(factor)) if factor > 1 else pixels
