"""Attention over slides as pictures: painted as pixels, with marks, over the slide where there is one to see."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
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
_WIDTH, _HEAD, _TALLEST = 400.0, 22.0, 440.0
_BADGE = 7.0
_Place = tuple[float, float]
_FONT = "font: {weight} {size}px var(--sans); fill: {fill}"


# --- pixels


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


# --- drawings: marks that a template writes as SVG


@dataclass(frozen=True)
class Mark:
    """An element of an SVG: its name, attributes, and words where it is a text."""

    kind: str
    attributes: dict[str, str]
    words: str = ""


@dataclass(frozen=True)
class Drawing:
    """A picture of ``width × height`` units.

    Attributes:
        name: unique on a page.
        description: what it shows, for those who cannot see it.
        bar: (place, color) of the scale of colors, empty without one.
    """

    name: str
    description: str
    width: float
    height: float
    marks: Sequence[Mark]
    bar: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class Frame:
    """Where a part of a slide lies in a drawing: ``zoom`` units to a pixel of level 0."""

    extent: Extent
    zoom: float
    left: float
    width: float
    height: float

    @classmethod
    def fitting(cls, extent: Extent) -> Frame:
        """As large as a drawing may be, in the middle of its width."""
        zoom = min(_WIDTH / extent.width, _TALLEST / extent.height)
        return cls(extent, zoom, (_WIDTH - extent.width * zoom) / 2, extent.width * zoom, extent.height * zoom)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of level 0 lies in the drawing."""
        return self.left + (x - self.extent.left) * self.zoom, _HEAD + (y - self.extent.top) * self.zoom

    def filled(self, kind: str, **attributes: Any) -> Mark:
        """A mark that fills the frame."""
        stretched = {"preserveAspectRatio": "none"} if kind == "image" else {}
        return _mark(kind, x=self.left, y=_HEAD, width=self.width, height=self.height, **stretched, **attributes)


def heat_maps(name: str, attention: Attention, picture: Picture) -> list[Drawing]:
    """Drawings of one slide whose patches' places are known.

    With a thumbnail: the slide with its top patches numbered, and the heat map over the slide in gray. Without: the
    heat map over the patches alone, the top ones numbered.

    Args:
        name: unique on the page.
        attention: with coordinates.
        picture: what there is to see of the slide.
    """
    assert attention.coords is not None
    extent = extent_of(attention.coords, attention.patch_size)
    if picture.thumbnail is not None:
        extent = Extent(0, 0, *picture.size)
    frame = Frame.fitting(extent)
    bottom, relative = _HEAD + frame.height, attention.relative
    top, most = top_of(relative), text.significant(float(relative.max()))
    pixels = paint(relative, attention.coords, attention.patch_size, extent)
    heat = {"style": "image-rendering: pixelated", "href": heat_png(pixels, top)}
    numbers = _numbered(attention, frame)
    # a quiet ground for colors that would be lost on paper or in the dark
    marks = [_heading("Attention"), frame.filled("rect", fill="var(--grid)", opacity=0.55)]
    drawings = []
    if picture.thumbnail is None:
        marks += [frame.filled("image", **heat), *numbers]
    else:
        slide = [_heading("The slide and its top patches"), frame.filled("image", href=jpeg(picture.thumbnail))]
        slide += [*numbers, *_scale_bar(frame, picture.mpp)]
        description = f"The slide {attention.slide} with its {TOP} patches of highest attention"
        drawings.append(Drawing(f"{name}-slide", description, _WIDTH, round(bottom + 4, 2), slide))
        gray = jpeg(picture.thumbnail.convert("L"), 70)
        marks += [frame.filled("image", href=gray, opacity=0.8), frame.filled("image", opacity=0.78, **heat)]
    marks += _color_bar(name, top, bottom + 12)
    description = f"Attention over {attention.slide}: {len(relative)} patches, at most {most} times an even share"
    stops = np.linspace(0, 1, _STOPS + 1)
    bar = [(round(float(at), 4), f"rgb({r} {g} {b})") for at, (r, g, b) in zip(stops, colors_of(stops), strict=True)]
    return [*drawings, Drawing(name, description, _WIDTH, round(bottom + 58, 2), marks, bar)]


def patches_drawing(name: str, attention: Attention, picture: Picture) -> Drawing:
    """The top patches as images side by side, with their attention."""
    width, gap = 820.0, 8.0
    side = (width - (TOP - 1) * gap) / TOP
    marks = []
    for index, (place, image) in enumerate(zip(attention.top(), picture.patches, strict=True)):
        x = index * (side + gap)
        share = f"{text.significant(float(attention.relative[place]))}×"
        marks += [
            _mark("image", x=x, y=0, width=side, height=side, href=jpeg(image)),
            _words(x, side + 13, str(index + 1), "start", 10.5, "var(--ink)"),
            _words(x + side, side + 13, share, "end"),
        ]
    description = f"The {len(picture.patches)} patches of {attention.slide} with the highest attention"
    return Drawing(f"{name}-patches", description, width, round(side + 18, 2), marks)


def _heading(title: str) -> Mark:
    return _words(0, 12, title, "start", 11.5, "var(--ink)", 700)


def _mark(kind: str, words: str = "", **attributes: Any) -> Mark:
    """A mark; numbers are written with two decimals, ``stroke_width`` is ``stroke-width``."""
    written = {
        name.replace("_", "-"): f"{round(value, 2):g}" if isinstance(value, float | int) else value
        for name, value in attributes.items()
    }
    return Mark(kind, written, words)


def _words(
    x: float,
    y: float,
    words: str,
    anchor: str = "middle",
    size: float = 10,
    fill: str = "var(--soft)",
    weight: int = 400,
) -> Mark:
    """A line of text."""
    style = _FONT.format(weight=weight, size=size, fill=fill)
    return _mark("text", words, x=x, y=y, text_anchor=anchor, style=style)


def _color_bar(name: str, top: float, y: float) -> list[Mark]:
    """The scale of the colors."""
    left, width = 12.0, _WIDTH - 24
    marks = [_mark("rect", x=left, y=y, width=width, height=9, fill=f"url(#{name}-bar)")]
    for tick in [LOWEST, *(10.0**power for power in range(0, 7) if 10.0**power < top / 1.6), top]:
        x = left + width * math.log(tick / LOWEST) / math.log(top / LOWEST)
        words = f"{float(f'{tick:.2g}'):,g}×"
        marks.append(_mark("path", d=f"M{x:.2f} {y + 9:.2f}v4", stroke="var(--soft)"))
        marks.append(_words(x, y + 24, f"≤ {words}" if tick == LOWEST else words))
    under = "attention relative to an even share (1× = 1/N), logarithmic"
    return [*marks, _words(_WIDTH / 2, y + 40, under, size=10.5)]


def _numbered(attention: Attention, frame: Frame) -> list[Mark]:
    """Outlines of the top patches, and beside each its number on a badge."""
    assert attention.coords is not None
    side = max(attention.patch_size * frame.zoom, 4.0)
    corners = attention.coords[attention.top()] + attention.patch_size / 2
    middles = [frame.place(float(x), float(y)) for x, y in corners]
    outlines, badges = [], []
    taken: list[_Place] = []
    for number, (x, y) in enumerate(middles, start=1):
        corner: dict[str, Any] = {"x": x - side / 2, "y": y - side / 2, "width": side, "height": side, "fill": "none"}
        # black on white: to be seen on pale and on dark tissue
        outlines += [_mark("rect", **corner, stroke=s, stroke_width=w) for s, w in (("#fff", 2.2), ("#000", 1.1))]
        a, b = _free((x, y), side / 2 + _BADGE, middles, taken, frame)
        taken.append((a, b))
        outlines.append(_mark("path", d=f"M{x:.2f} {y:.2f}L{a:.2f} {b:.2f}", stroke="#000", stroke_width=0.8))
        badges.append(_mark("circle", cx=a, cy=b, r=_BADGE, fill="#fff", stroke="#000", stroke_width=1))
        badges.append(_words(a, b + 3.3, str(number), "middle", 9.5, "#000", 700))
    return outlines + badges


def _free(middle: _Place, nearest: float, patches: Sequence[_Place], taken: Sequence[_Place], frame: Frame) -> _Place:
    """A place for a badge near its patch: inside the picture, on no patch and on no other badge, if there is one."""
    angles = math.pi * (np.tile(np.arange(16), 14) / 8 - 0.25)
    reach = nearest + 1 + np.repeat(np.arange(14), 16) * _BADGE
    places = np.array(middle) + np.stack([reach * np.cos(angles), reach * np.sin(angles)], axis=1)
    low, high = np.array([_BADGE, _HEAD + _BADGE]), np.array([_WIDTH - _BADGE, _HEAD + frame.height - _BADGE])
    places = places[((places >= low) & (places <= high)).all(axis=1)]
    if not len(places):
        return middle
    room = cdist(places, patches).min(axis=1) - nearest
    if taken:
        room = np.minimum(room, cdist(places, taken).min(axis=1) - 2.1 * _BADGE)
    # the nearest one with room enough, or else the one with most of it
    best = int(np.argmax(room >= 0)) if (room >= 0).any() else int(room.argmax())
    return float(places[best, 0]), float(places[best, 1])


def _scale_bar(frame: Frame, mpp: float | None) -> list[Mark]:
    """A bar of a round length on the slide, where its resolution is known."""
    if mpp is None:
        return []
    widest = 0.3 * frame.extent.width * mpp / 1000
    length = 10 ** math.floor(math.log10(widest))
    length = max(step * length for step in (1, 2, 5) if step * length <= widest)
    units = length * 1000 / mpp * frame.zoom
    x, y = frame.left + 8, _HEAD + frame.height - 8
    words = f"{length:g} mm" if length >= 0.5 else f"{1000 * length:g} µm"
    return [
        _mark("rect", x=x - 4, y=y - 15, width=max(units, 34) + 8, height=20, fill="#fff", opacity=0.75),
        _mark("path", d=f"M{x:.2f} {y:.2f}H{x + units:.2f}", stroke="#000", stroke_width=2.5),
        _words(x, y - 4, words, "start", 9.5, "#000"),
    ]
