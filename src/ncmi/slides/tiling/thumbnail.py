"""A thumbnail of a slide with the tissue's outline, its patches, a scale bar and a line of text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncmi.files import write_atomically
from ncmi.slides.tiling.grid import Grid
from ncmi.slides.tiling.overview import Overview, read_overview
from ncmi.slides.tiling.slide_file import Slide

LONGEST_SIDE = 1500
_OUTLINE = (0, 110, 60)
_PATCH = (30, 60, 200)
_CAPTION = 34
_BARS_MM = (10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02)


def write_thumbnail(
    path: Path,
    slide: Slide,
    overview: Overview,
    mask: NDArray[np.bool_],
    corners: NDArray[np.int64],
    grid: Grid,
    patch_size: int,
) -> None:
    """Draw a slide with its tissue mask and its patches into a JPEG of at most 1500 pixels a side and a caption.

    Args:
        path: the .jpg to write, whole or not at all.
        slide: the open slide.
        overview, mask: the small image on which the tissue was found, and the tissue.
        corners: ``[N, 2]`` of the chosen patches at level 0.
        grid: that they are of.
        patch_size: side of a patch in pixels of the grid's microns per pixel.

    Raises:
        SlideError: if the slide is damaged.
    """
    from PIL import Image, ImageDraw

    picture, zoom = _picture(slide, overview)
    drawn = _shade(picture, corners * zoom, grid.side * zoom)
    canvas = Image.new("RGB", (max(drawn.width, 420), drawn.height + _CAPTION), "white")
    canvas.paste(drawn)
    pen = ImageDraw.Draw(canvas)
    _outline(pen, mask, overview.scale * zoom, drawn.size)
    text = f"{slide.name}: {len(corners)} patches of {patch_size} px at {grid.mpp:.3g} microns/px"
    _caption(pen, text, drawn.height, canvas.width, slide.mpp / zoom)
    write_atomically(path, lambda temporary: canvas.save(temporary, "JPEG", quality=88))


def _picture(slide: Slide, overview: Overview) -> tuple[Any, float]:
    """The slide as an image, and pixels of it on a pixel of level 0."""
    from PIL import Image

    longest = max(slide.size)
    if max(overview.image.shape) < min(LONGEST_SIDE, longest):
        overview = read_overview(slide, slide.mpp * max(1.0, longest / (2 * LONGEST_SIDE)))
    zoom = min(1.0, LONGEST_SIDE / longest)
    width, height = (max(1, round(length * zoom)) for length in slide.size)
    inside = (0, 0, slide.size[0] / overview.scale, slide.size[1] / overview.scale)
    box = tuple(map(min, inside, (0, 0, overview.image.shape[1], overview.image.shape[0])))
    image = Image.fromarray(overview.image).resize((width, height), Image.Resampling.BILINEAR, box=box)
    return image, zoom


def _shade(picture: Any, corners: NDArray[np.floating], side: float) -> Any:
    """The picture with tinted patches, their borders stronger."""
    from PIL import Image, ImageDraw

    opacity = Image.new("L", picture.size, 0)
    pen = ImageDraw.Draw(opacity)
    # borders of tiny patches would hide the tissue
    border = 190 if side >= 12 else 110 if side >= 6 else 60
    squares = [(round(x), round(y), round(x + side), round(y + side)) for x, y in corners.tolist()]
    for square in squares:
        pen.rectangle(square, fill=30)
    for square in squares if side >= 3 else ():  # on top of all: overlapping patches keep their borders
        pen.rectangle(square, outline=border, width=2 if side >= 60 else 1)
    return Image.composite(Image.new("RGB", picture.size, _PATCH), picture, opacity)


def _outline(pen: Any, mask: NDArray[np.bool_], zoom: float, size: tuple[int, int]) -> None:
    from skimage.measure import find_contours

    # a margin closes the outline of tissue that touches the edge; contours count from the middle of pixels
    for contour in find_contours(np.pad(mask, 1).astype(float), 0.5):
        line = [
            (min(max(x, 0.0), size[0] - 1), min(max(y, 0.0), size[1] - 1)) for y, x in ((contour - 0.5) * zoom).tolist()
        ]
        pen.line(line, fill=_OUTLINE, width=3 if max(size) >= 500 else 2, joint="curve")


def _caption(pen: Any, text: str, top: int, width: int, mpp: float) -> None:
    from PIL import ImageFont

    longest = next((bar for bar in _BARS_MM if bar * 1000 / mpp <= width / 5), _BARS_MM[-1])
    label, font, length = f"{longest:g} mm", ImageFont.load_default(15), longest * 1000 / mpp
    middle, right = top + _CAPTION // 2, width - 12
    pen.line([(right - length, middle), (right, middle)], fill="black", width=4)
    pen.text((right - length - 8, middle), label, fill="black", font=font, anchor="rm")
    room = right - length - 24 - pen.textlength(label, font=font)
    while pen.textlength(text, font=font) > room and len(text) > 4:
        text = text[: -2 if text.endswith("…") else -1] + "…"
    pen.text((10, middle), text, fill="black", font=font, anchor="lm")
