"""Attention over slides as pictures: painted as pixels, and what a template needs to draw marks over them as SVG."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from ncmi.report import text
from ncmi.report.attention import TOP, Attention, Picture

if TYPE_CHECKING:
    from PIL.Image import Image

LOWEST, LEAST_TOP = 0.1, 10.0
"""Attention in units of even attention: below the lower end all has one color, and the upper end is at least this."""
_VIRIDIS = np.array(
    [
        list(bytes.fromhex(color))
        for color in ("440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725")
    ]
)
_STEPS, _STOPS = 128, 24
WIDTH, HEAD, BADGE = 400.0, 22.0, 7.0
"""Of a map: its width, the height of its heading, and the radius of the badges that number patches."""
_TALLEST = 440.0
_Place = tuple[float, float]


# --- pixels


@dataclass(frozen=True)
class Extent:
    """The part of a slide that a picture shows, in pixels of level 0."""

    left: float
    top: float
    width: float
    height: float


def extent_of(coords: NDArray[Any], patch_size: float) -> Extent:
    """The smallest part of a slide that holds all its patches."""
    low, high = coords.min(axis=0), coords.max(axis=0) + patch_size
    return Extent(float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))


def paint(
    values: NDArray[np.float64], coords: NDArray[Any], patch_size: float, extent: Extent, most: int = 640
) -> NDArray[np.float64]:
    """Values of patches as pixels ``[h, w]`` of at most ``most`` on the longer side: their mean where patches overlap.

    A patch covers at least one pixel. NaN where there is none.
    """
    # a pixel for each patch is enough
    step = max(extent.width / most, extent.height / most, patch_size / 8)
    width, height = (max(1, math.ceil(side / step)) for side in (extent.width, extent.height))
    corner = (coords - np.array([extent.left, extent.top])) / step
    low = np.floor(corner + 0.5).astype(np.int64)
    high = np.maximum(np.floor(corner + patch_size / step + 0.5).astype(np.int64), low + 1)
    (x0, y0), (x1, y1) = (np.clip(edge, 0, [width, height]).T for edge in (low, high))
    sums = np.zeros((2, height + 1, width + 1))
    # each rectangle by its four corners; two running sums fill all of them at once
    for sign, xs, ys in ((1, x0, y0), (-1, x1, y0), (-1, x0, y1), (1, x1, y1)):
        np.add.at(sums[0], (ys, xs), sign * values)
        np.add.at(sums[1], (ys, xs), sign)
    total, count = sums.cumsum(axis=1).cumsum(axis=2)[:, :height, :width]
    # what the running sums leave of zero may lie a little below it
    mean = np.maximum(total / np.maximum(count, 1), 0.0)
    return np.where(count > 0.5, mean, np.nan)


def top_of(values: NDArray[np.float64]) -> float:
    """Upper end of the colors: the highest value, but at least ten times even attention."""
    return max(LEAST_TOP, float(values.max()))


def color_places(values: NDArray[np.float64], top: float) -> NDArray[np.float64]:
    """Place 0..1 of relative attention on the logarithmic color scale from :data:`LOWEST` to ``top``.

    >>> color_places(np.array([0.0, 0.1, 1.0, 10.0]), 10.0).tolist()
    [0.0, 0.0, 0.5, 1.0]
    """
    return np.asarray(np.log(np.clip(values, LOWEST, top) / LOWEST) / math.log(top / LOWEST))


def colors_of(places: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colors ``[N, 3]`` at places 0..1 of the scale, which is viridis.

    >>> colors_of(np.array([0.0, 1.0])).tolist()
    [[68, 1, 84], [253, 231, 37]]
    """
    steps = np.linspace(0, 1, len(_VIRIDIS))
    mixed = np.stack([np.interp(places, steps, channel) for channel in _VIRIDIS.T], axis=-1)
    return mixed.round().astype(np.uint8)


def heat_png(pixels: NDArray[np.float64], top: float) -> str:
    """Painted relative attention as a PNG data URI, transparent where there is no patch."""
    from PIL import Image

    painted = np.isfinite(pixels)  # NaN is where there is no patch
    index = 1 + np.round(color_places(np.where(painted, pixels, LOWEST), top) * (_STEPS - 1))
    image = Image.fromarray(np.where(painted, index, 0).astype(np.uint8), mode="P")
    image.putpalette(bytes(3) + colors_of(np.linspace(0, 1, _STEPS)).tobytes())
    return _data_uri(image, "png", optimize=True, transparency=0)


def jpeg(image: Image, quality: int = 76) -> str:
    """An image as a JPEG data URI."""
    return _data_uri(image, "jpeg", quality=quality, optimize=True)


def _data_uri(image: Image, kind: str, **options: object) -> str:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


# --- maps


@dataclass(frozen=True)
class Layer:
    """An image over the whole frame."""

    href: str
    opacity: float = 1.0
    pixelated: bool = False


@dataclass(frozen=True)
class Badge:
    """The number of a patch with its middle, and the place of the badge beside it."""

    number: int
    x: float
    y: float
    badge_x: float
    badge_y: float


@dataclass(frozen=True)
class HeatMap:
    """A picture of a part of a slide, in units of :data:`WIDTH` across, with what is marked on it.

    Attributes:
        description: what it shows, for those who cannot see it.
        left, width, height: of the frame, which begins below the title.
        layers: images, the lowest first.
        badges: of the numbered patches, whose outlines are ``side`` wide.
        scale: length of the scale bar and its words, where the resolution is known.
        ticks: (place, words) at the scale of colors, which has the ``stops`` (offset, color); empty without one.
    """

    name: str
    description: str
    title: str
    left: float
    width: float
    height: float
    layers: Sequence[Layer]
    badges: Sequence[Badge] = ()
    side: float = 0.0
    scale: tuple[float, str] | None = None
    ticks: Sequence[tuple[float, str]] = ()
    stops: Sequence[tuple[float, str]] = field(default_factory=list)


def heat_maps(name: str, attention: Attention, picture: Picture) -> list[HeatMap]:
    """Maps of one slide whose patches' places are known.

    With a thumbnail: the slide with its top patches numbered, and the heat map over the slide in gray. Without: the
    heat map over the patches alone, the top ones numbered.

    Args:
        name: unique on the page.
        attention: with coordinates.
        picture: what there is to see of the slide.
    """
    assert attention.coords is not None
    relative, thumbnail = attention.relative, picture.thumbnail
    extent = Extent(0, 0, *picture.size) if thumbnail else extent_of(attention.coords, attention.patch_size)
    zoom = min(WIDTH / extent.width, _TALLEST / extent.height)
    width, height = extent.width * zoom, extent.height * zoom
    left, top, side = (WIDTH - width) / 2, top_of(relative), max(attention.patch_size * zoom, 4.0)
    corners = attention.coords[attention.top()] + attention.patch_size / 2
    middles = [(left + (x - extent.left) * zoom, HEAD + (y - extent.top) * zoom) for x, y in corners.tolist()]
    badges = _badges(middles, side / 2 + BADGE, height)
    heat = heat_png(paint(relative, attention.coords, attention.patch_size, extent), top)
    ticks = [LOWEST, *(10.0**power for power in range(0, 7) if 10.0**power < top / 1.6), top]
    places = 12 + (WIDTH - 24) * color_places(np.array(ticks), top)
    words = [f"{float(f'{tick:.2g}'):,g}×" for tick in ticks]
    words[0] = f"≤ {words[0]}"
    stops, most = np.linspace(0, 1, _STOPS + 1), text.significant(float(relative.max()))
    bar = [(round(float(at), 4), f"rgb({r} {g} {b})") for at, (r, g, b) in zip(stops, colors_of(stops), strict=True)]
    described = f"Attention over {attention.slide}: {len(relative)} patches, at most {most} times an even share"
    frame, scale = (left, width, height), list(zip(places.tolist(), words, strict=True))
    if thumbnail is None:
        alone = [Layer(heat, pixelated=True)]
        return [HeatMap(name, described, "Attention", *frame, alone, badges, side, None, scale, bar)]
    gray = [Layer(jpeg(thumbnail.convert("L"), 70), 0.8), Layer(heat, 0.78, pixelated=True)]
    over = HeatMap(name, described, "Attention", *frame, gray, ticks=scale, stops=bar)
    title, described = (
        "The slide and its top patches",
        f"The slide {attention.slide} with its {TOP} patches of highest attention",
    )
    length = scale_bar(extent.width, picture.mpp, zoom)
    return [HeatMap(f"{name}-slide", described, title, *frame, [Layer(jpeg(thumbnail))], badges, side, length), over]


def _badges(middles: Sequence[_Place], nearest: float, height: float) -> list[Badge]:
    badges: list[Badge] = []
    for number, middle in enumerate(middles, start=1):
        taken = [(badge.badge_x, badge.badge_y) for badge in badges]
        badges.append(Badge(number, *middle, *_free(middle, nearest, middles, taken, height)))
    return badges


def _free(middle: _Place, nearest: float, patches: Sequence[_Place], taken: Sequence[_Place], height: float) -> _Place:
    """A place for a badge near its patch: inside the picture, on no patch and on no other badge, if there is one."""
    angles = math.pi * (np.tile(np.arange(16), 14) / 8 - 0.25)
    reach = nearest + 1 + np.repeat(np.arange(14), 16) * BADGE
    places = np.array(middle) + np.stack([reach * np.cos(angles), reach * np.sin(angles)], axis=1)
    low, high = np.array([BADGE, HEAD + BADGE]), np.array([WIDTH - BADGE, HEAD + height - BADGE])
    places = places[((places >= low) & (places <= high)).all(axis=1)]
    if not len(places):
        return middle
    room = cdist(places, patches).min(axis=1) - nearest
    if taken:
        room = np.minimum(room, cdist(places, taken).min(axis=1) - 2.1 * BADGE)
    # the nearest one with room enough, or else the one with most of it
    best = int(np.argmax(room >= 0)) if (room >= 0).any() else int(room.argmax())
    return float(places[best, 0]), float(places[best, 1])


def scale_bar(width: float, mpp: float | None, zoom: float) -> tuple[float, str] | None:
    """A round length on a slide of ``width`` pixels, in units of its map, and in words; None without a resolution."""
    if mpp is None:
        return None
    widest = 0.3 * width * mpp / 1000
    length = 10 ** math.floor(math.log10(widest))
    length = max(step * length for step in (1, 2, 5) if step * length <= widest)
    return length * 1000 / mpp * zoom, f"{length:g} mm" if length >= 0.5 else f"{1000 * length:g} µm"
