"""Where a slide has tissue: a small image of it, the colored pixels there, and a thumbnail that shows both."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from ncmi.files import write_atomically
from ncmi.slides.tiling.grid import Grid
from ncmi.slides.tiling.slide_file import Slide

_BAND_PIXELS = 16_000_000
LONGEST_SIDE = 1500
_OUTLINE = (0, 110, 60)
_PATCH = (30, 60, 200)
_CAPTION = 34
_BARS_MM = (10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02)


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
    """The whole slide at about ``mpp`` microns per pixel, or up to twice as coarse; as it is where it is coarser."""
    wanted = max(mpp / slide.mpp, 1.0)
    level = slide.level_for(wanted)
    factor = math.ceil(wanted / slide.downsamples[level] * 0.97)
    width, height = slide.level_sizes[level]
    rows = max(factor, _BAND_PIXELS // (width * factor) * factor)
    bands = []
    for top in range(0, height, rows):
        pixels = slide.read(0, round(top * slide.downsamples[level]), level, width, min(rows, height - top))
        bands.append(np.asarray(Image.fromarray(pixels).reduce(factor)) if factor > 1 else pixels)
    scale = slide.downsamples[level] * factor
    return Overview(np.concatenate(bands), scale, slide.mpp * scale)


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
"""Ink marks are larger; smaller spots of their colors lie in and on tissue."""


@dataclass(frozen=True, eq=False)
class Tissue:
    """Where an overview has tissue.

    Attributes:
        mask: ``[h, w]``, tissue: regions that are large enough, gaps closed and holes filled.
        stained: ``[h, w]``, what has color itself: a part of a region without any is glass in a hole.
        largest_mm2: area of the largest region, whether or not it is large enough; 0 where nothing has color.
    """

    mask: NDArray[np.bool_]
    stained: NDArray[np.bool_]
    largest_mm2: float


def tissue_mask(
    overview: Overview, *, min_region_mm2: float = 0.02, max_hole_mm2: float = 0.02, pen: bool = True
) -> NDArray[np.bool_]:
    """The mask of :func:`find_tissue`."""
    return find_tissue(overview, min_region_mm2=min_region_mm2, max_hole_mm2=max_hole_mm2, pen=pen).mask


def find_tissue(
    overview: Overview, *, min_region_mm2: float = 0.02, max_hole_mm2: float = 0.02, pen: bool = True
) -> Tissue:
    """Tissue on a small image of a slide: Otsu's threshold on saturation, then closing.

    The threshold is kept between 0.05 and 0.15, so that a blank slide gives an empty mask and pale tissue beside
    deeply stained one is kept; black pixels (borders, ink) take no part.

    Args:
        overview: the slide at 8 … 16 microns per pixel.
        min_region_mm2: regions smaller than this are specks, and removed.
        max_hole_mm2: holes smaller than this are filled.
        pen: leave out marks of green and deep blue, which are ink on slides stained with H&E.
    """
    from scipy.ndimage import binary_closing, binary_dilation
    from skimage.morphology import disk

    # in 8 bits: ten times as fast as in floating point, and fine enough for thresholds
    smooth = Image.fromarray(overview.image).filter(ImageFilter.GaussianBlur(1.0)).convert("HSV")
    hue, saturation, brightness = (np.asarray(band) / np.float32(255) for band in smooth.split())
    visible = brightness > _BLACK
    radius = max(1, round(_CLOSING_MICRONS / overview.mpp))
    pixels_per_mm2 = (1000 / overview.mpp) ** 2
    if pen:
        green = (hue > 0.19) & (hue < 0.55) & (saturation > 0.2)
        blue = (hue >= 0.55) & (hue < 0.69) & (saturation > 0.6)
        marks = _without_small(green | blue, _INK_MM2 * pixels_per_mm2)
        visible &= ~binary_dilation(marks, disk(radius))  # their pale rims as well
    stained = visible & (saturation > _threshold(saturation[visible]))
    # closing sees nothing beyond the image: with the edge repeated, tissue that touches it stays
    closed = binary_closing(np.pad(stained, radius, mode="edge"), disk(radius))[radius:-radius, radius:-radius]
    whole = ~_without_small(~closed, max_hole_mm2 * pixels_per_mm2)
    largest = float(_areas(whole)[1].max(initial=0)) / pixels_per_mm2
    return Tissue(np.asarray(_without_small(whole, min_region_mm2 * pixels_per_mm2) & visible), stained, largest)


def _threshold(saturation: NDArray[np.floating]) -> float:
    from skimage.filters import threshold_otsu

    if saturation.size == 0 or saturation.min() == saturation.max():
        return _MOST_SATURATION
    threshold = float(threshold_otsu(saturation))
    above = saturation > threshold
    if saturation[above].mean() - saturation[~above].mean() < _LEAST_CONTRAST:
        return _MOST_SATURATION  # one class: all glass, or all tissue
    return min(max(threshold, _LEAST_SATURATION), _MOST_SATURATION)


def _without_small(mask: NDArray[np.bool_], pixels: float) -> NDArray[np.bool_]:
    """The mask without its connected parts of fewer pixels."""
    parts, areas = _areas(mask)
    return np.asarray(np.concatenate([[False], areas >= pixels])[parts])


def _areas(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The connected parts of a mask, numbered from 1, and the pixels of each."""
    from skimage.measure import label

    parts = np.asarray(label(mask, connectivity=2))
    return parts, np.bincount(parts.ravel())[1:]


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
        overview, mask: the small image on which the tissue was found, and the tissue.
        corners: ``[N, 2]`` of the chosen patches at level 0, on the grid.
        patch_size: side of a patch in pixels of the grid's microns per pixel.
    """
    from skimage.measure import find_contours

    picture, zoom = _picture(slide, overview)
    shaded = _shade(picture, corners * zoom, grid.side * zoom)
    canvas = Image.new("RGB", (max(shaded.width, 420), shaded.height + _CAPTION), "white")
    canvas.paste(shaded)
    pen = ImageDraw.Draw(canvas)
    # a margin closes the outline of tissue that touches the edge; contours count from the middle of pixels
    for contour in find_contours(np.pad(mask, 1).astype(float), 0.5):
        points = np.clip((contour - 0.5) * overview.scale * zoom, 0.0, np.array(shaded.size)[::-1] - 1)
        width = 3 if max(shaded.size) >= 500 else 2
        pen.line([(x, y) for y, x in points.tolist()], fill=_OUTLINE, width=width, joint="curve")
    text = f"{slide.name}: {len(corners)} patches of {patch_size} px at {grid.mpp:.3g} microns/px"
    _caption(pen, text, shaded.height, canvas.width, slide.mpp / zoom)
    write_atomically(path, lambda temporary: canvas.save(temporary, "JPEG", quality=88))


def _picture(slide: Slide, overview: Overview) -> tuple[Any, float]:
    """The slide as an image, and pixels of it on a pixel of level 0."""
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


def _caption(pen: Any, text: str, top: int, width: int, mpp: float) -> None:
    longest = next((bar for bar in _BARS_MM if bar * 1000 / mpp <= width / 5), _BARS_MM[-1])
    label, font, length = f"{longest:g} mm", ImageFont.load_default(15), longest * 1000 / mpp
    middle, right = top + _CAPTION // 2, width - 12
    pen.line([(right - length, middle), (right, middle)], fill="black", width=4)
    pen.text((right - length - 8, middle), label, fill="black", font=font, anchor="rm")
    room = right - length - 24 - pen.textlength(label, font=font)
    while pen.textlength(text, font=font) > room and len(text) > 4:
        text = text[: -2 if text.endswith("…") else -1] + "…"
    pen.text((10, middle), text, fill="black", font=font, anchor="lm")
