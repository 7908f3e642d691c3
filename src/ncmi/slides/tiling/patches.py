"""The pixels of a slide's patches, as a network sees them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ncmi.slides.tiling.coords_file import Coords
from ncmi.slides.tiling.slide_file import Slide


def read_patch(slide: Slide, coords: Coords, index: int) -> NDArray[np.uint8]:
    """The patch ``[patch_size, patch_size, 3]``, RGB, read at the best level and rescaled where no level fits.

    Args:
        slide: the open slide.
        coords: of this slide.
        index: of the patch, 0 … N−1.

    Raises:
        SlideError: if the slide is damaged there.
    """
    x, y = coords.xy[index]
    return read_square(slide, int(x), int(y), coords.patch_size_level0, coords.patch_size)


def read_square(slide: Slide, x: int, y: int, side: int, pixels: int) -> NDArray[np.uint8]:
    """A square of the slide as an image ``[pixels, pixels, 3]``.

    Args:
        slide: the open slide.
        x, y: upper left corner at level 0.
        side: of the square in pixels of level 0.
        pixels: side of the image.

    Raises:
        SlideError: if the slide is damaged there.
    """
    from PIL import Image

    level = slide.level_for(side / pixels)
    at_level = max(1, round(side / slide.downsamples[level]))
    image = slide.read(x, y, level, at_level, at_level)
    if at_level == pixels:
        return image
    # Pillow's filter widens with the reduction, so that nothing aliases
    return np.asarray(Image.fromarray(image).resize((pixels, pixels), Image.Resampling.BILINEAR))
