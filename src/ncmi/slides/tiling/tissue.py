"""Where a slide has tissue: coloured pixels, by a threshold on saturation, without specks and small holes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ncmi.slides.tiling.overview import Overview

_LEAST_SATURATION = 0.05
"""Clean glass and the noise of its image stay below this."""
_MOST_SATURATION = 0.15
"""Pale tissue beside dark or deeply stained tissue must not fall below the threshold."""
_LEAST_CONTRAST = 0.06
"""Difference in saturation of two classes that are more than the noise of one."""
_BLACK = 0.15
"""Scanner borders and black ink, as a share of full brightness."""
_CLOSING_MICRONS = 24.0
_INK_MM2 = 0.02
"""Ink marks are larger; smaller spots of their colours lie in and on tissue."""


def tissue_mask(
    overview: Overview, *, min_region_mm2: float = 0.02, max_hole_mm2: float = 0.02, pen: bool = True
) -> NDArray[np.bool_]:
    """Tissue on a small image of a slide, ``[h, w]``: Otsu's threshold on saturation, then closing.

    The threshold is kept between 0.05 and 0.15, so that a blank slide gives an empty mask and pale tissue beside
    deeply stained one is kept; black pixels (borders, ink) take no part.

    Args:
        overview: the slide at 8 … 16 microns per pixel.
        min_region_mm2: regions smaller than this are specks, and removed.
        max_hole_mm2: holes smaller than this are filled.
        pen: leave out marks of green and deep blue, which are ink on slides stained with H&E.
    """
    from PIL import Image, ImageFilter
    from scipy.ndimage import binary_closing, binary_dilation
    from skimage.morphology import disk

    # in 8 bits: ten times as fast as in floating point, and fine enough for thresholds
    smooth = Image.fromarray(overview.image).filter(ImageFilter.GaussianBlur(1.0)).convert("HSV")
    hue, saturation, brightness = (np.asarray(band) / np.float32(255) for band in smooth.split())
    seen = brightness > _BLACK
    radius = max(1, round(_CLOSING_MICRONS / overview.mpp))
    pixels_per_mm2 = (1000 / overview.mpp) ** 2
    if pen:
        marks = _without_small(_ink(hue, saturation), _INK_MM2 * pixels_per_mm2)
        seen &= ~binary_dilation(marks, disk(radius))  # their pale rims as well
    mask = seen & (saturation > _threshold(saturation[seen]))
    # closing sees nothing beyond the image: with the edge repeated, tissue that touches it stays
    closed = binary_closing(np.pad(mask, radius, mode="edge"), disk(radius))[radius:-radius, radius:-radius]
    whole = ~_without_small(~closed, max_hole_mm2 * pixels_per_mm2)
    return np.asarray(_without_small(whole, min_region_mm2 * pixels_per_mm2) & seen)


def _threshold(saturation: NDArray[np.floating]) -> float:
    from skimage.filters import threshold_otsu

    if saturation.size == 0 or saturation.min() == saturation.max():
        return _MOST_SATURATION
    found = float(threshold_otsu(saturation))
    above = saturation > found
    if saturation[above].mean() - saturation[~above].mean() < _LEAST_CONTRAST:
        return _MOST_SATURATION  # one class: all glass, or all tissue
    return min(max(found, _LEAST_SATURATION), _MOST_SATURATION)


def _ink(hue: NDArray[np.floating], saturation: NDArray[np.floating]) -> NDArray[np.bool_]:
    green = (hue > 0.19) & (hue < 0.55) & (saturation > 0.2)
    blue = (hue >= 0.55) & (hue < 0.69) & (saturation > 0.6)
    return np.asarray(green | blue)


def _without_small(mask: NDArray[np.bool_], pixels: float) -> NDArray[np.bool_]:
    """The mask without its connected parts of fewer pixels."""
    from skimage.measure import label

    parts = label(mask, connectivity=2)
    large = np.bincount(parts.ravel()) >= pixels
    large[0] = False
    return np.asarray(large[parts])
