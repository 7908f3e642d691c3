"""Attention painted as pixels, and small images as parts of a page."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

COLOURS = "viridis"
# attention in units of even attention: what lies below the lower end has its colour
LOWEST, LEAST_TOP = 0.1, 10.0
_STEPS = 128


@dataclass(frozen=True)
class Extent:
    """The part of a slide that a picture shows, in pixels of level 0."""

    left: float
    top: float
    width: float
    height: float


def extent_of(coords: NDArray[np.int64], patch_size: int) -> Extent:
    """The smallest part of a slide that holds all its patches."""
    low, high = coords.min(axis=0), coords.max(axis=0) + patch_size
    return Extent(float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))


def paint(
    values: NDArray[np.float64], coords: NDArray[np.int64], patch_size: int, extent: Extent, most: int = 640
) -> NDArray[np.float64]:
    """Values of patches as pixels ``[h, w]`` of at most ``most`` on the longer side: their mean where patches overlap.

    A patch covers at least one pixel. NaN where there is none.
    """
    step = max(extent.width, extent.height) / most
    # a pixel for each patch is enough
    step = max(step, patch_size / 8)
    width, height = (max(1, math.ceil(side / step)) for side in (extent.width, extent.height))
    corner = (coords - np.array([extent.left, extent.top])) / step
    low = np.floor(corner + 0.5).astype(np.int64)
    high = np.maximum(np.floor(corner + patch_size / step + 0.5).astype(np.int64), low + 1)
    shape = np.array([width, height])
    low, high = np.clip(low, 0, shape), np.clip(high, 0, shape)
    sums = np.zeros((2, height + 1, width + 1))
    # each rectangle by its four corners; two running sums fill all of them at once
    for sign, xs, ys in (
        (1, low[:, 0], low[:, 1]),
        (-1, high[:, 0], low[:, 1]),
        (-1, low[:, 0], high[:, 1]),
        (1, high[:, 0], high[:, 1]),
    ):
        np.add.at(sums[0], (ys, xs), sign * values)
        np.add.at(sums[1], (ys, xs), sign)
    total, count = sums.cumsum(axis=1).cumsum(axis=2)[:, :height, :width]
    covered = count > 0.5
    result = np.full(covered.shape, np.nan)
    # what the running sums leave of zero may lie a little below it
    result[covered] = np.maximum(total[covered] / count[covered], 0.0)
    return result


def top_of(values: NDArray[np.float64]) -> float:
    """Upper end of the colours: the highest value, but at least ten times even attention."""
    return max(LEAST_TOP, float(values.max()))


def colour_places(values: NDArray[np.float64], top: float) -> NDArray[np.float64]:
    """Place 0..1 of relative attention on the logarithmic colour scale from :data:`LOWEST` to ``top``.

    >>> colour_places(np.array([0.0, 0.1, 1.0, 10.0]), 10.0).tolist()
    [0.0, 0.0, 0.5, 1.0]
    """
    clipped = np.clip(values, LOWEST, top)
    places: NDArray[np.float64] = np.log(clipped / LOWEST) / math.log(top / LOWEST)
    return places


def colour_of(place: float) -> str:
    """Colour at a place 0..1 of the scale."""
    import matplotlib
    from matplotlib.colors import to_hex

    return to_hex(matplotlib.colormaps[COLOURS](place))


def heat_png(pixels: NDArray[np.float64], top: float) -> str:
    """Painted relative attention as a PNG data URI, transparent where there is no patch."""
    import matplotlib
    from PIL import Image

    covered = np.isfinite(pixels)
    index = np.zeros(pixels.shape, dtype=np.uint8)
    places = colour_places(np.where(covered, pixels, 1.0), top)
    index[covered] = 1 + np.round(places[covered] * (_STEPS - 1)).astype(np.uint8)
    table = (255 * matplotlib.colormaps[COLOURS](np.linspace(0, 1, _STEPS))[:, :3]).round().astype(np.uint8)
    image = Image.fromarray(index, mode="P")
    image.putpalette(bytes(3) + table.tobytes())
    return _data_uri(image, "png", optimize=True, transparency=0)


def jpeg(image: Image, quality: int = 76) -> str:
    """An image as a JPEG data URI."""
    return _data_uri(image, "jpeg", quality=quality, optimize=True)


def _data_uri(image: Image, kind: str, **options: object) -> str:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
