"""From the bytes of an image to a square of RGB pixels: one way for training and evaluation, fast for JPEG.

simplejpeg (libjpeg-turbo) decodes, at half the size or less where no more is asked for, and OpenCV scales. What
simplejpeg refuses (a PNG called .JPEG, CMYK, recoverable damage) and what its EXIF entry turns goes through Pillow.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ncmi.data.augmentation import RATIO
from ncmi.data.images import FORMATS, Pixels, eight_bit

Box = tuple[float, float, float, float]
"""Top, left, height and width of a part of an image, in pixels."""
_COLORSPACES = ("Gray", "YCbCr", "RGB")
_ORIENTATION = 0x0112
_EXIF_WITHIN = 65536  # bytes from the beginning
_AREA_FROM = 2.0
"""Scale beyond which every pixel is averaged; up to it bilinear sampling looks at each, in a third of the time."""


def codecs() -> tuple[ModuleType, ModuleType]:
    """simplejpeg and OpenCV.

    Raises:
        ValueError: where they are not installed.
    """
    try:
        import cv2
        import simplejpeg
    except ImportError as error:
        raise ValueError(f'shards of images need {error.name}: pip install "ncmi[images]"') from None
    return simplejpeg, cv2


def center_box(fraction: float) -> Callable[[int, int], Box]:
    """The square in the middle whose side is such a part of the shorter side."""

    def box(height: int, width: int) -> Box:
        side = fraction * min(height, width)
        return (height - side) / 2, (width - side) / 2, side, side

    return box


def random_box(scale: tuple[float, float], draws: Sequence[float]) -> Callable[[int, int], Box]:
    """A box of a resized crop by four draws in 0…1; see :func:`ncmi.data.augmentation.draw_boxes`."""

    def box(height: int, width: int) -> Box:
        part, shape, vertical, horizontal = draws
        area = (scale[0] + (scale[1] - scale[0]) * part) * height * width
        narrowest, widest = math.log(area) - 2 * math.log(height), 2 * math.log(width) - math.log(area)
        least, largest = (min(max(math.log(bound), narrowest), widest) for bound in RATIO)
        half = 0.5 * (least + (largest - least) * shape)
        box_height = min(height, math.sqrt(area) * math.exp(-half))
        box_width = min(width, math.sqrt(area) * math.exp(half))
        return vertical * (height - box_height), horizontal * (width - box_width), box_height, box_width

    return box


def uniform_draws(count: int, *seed: int) -> npt.NDArray[np.float64]:
    """Numbers in 0…1 that depend on whole numbers alone, alike on every platform."""
    return np.random.PCG64(np.random.SeedSequence(seed)).random_raw(count) / 2.0**64


@dataclass(frozen=True)
class FileDecoder:
    """Image files as images of shards are evaluated: see :func:`ncmi.data.images.decode_image` for the arguments."""

    crop_fraction: float

    def __call__(self, file: Path | BinaryIO, size: tuple[int, int], channels: int | None) -> Pixels:
        content = file.read_bytes() if isinstance(file, Path) else file.read()
        return decode_square(content, center_box(self.crop_fraction), size[0]).transpose(2, 0, 1)


def decode_square(content: bytes, box_of: Callable[[int, int], Box], side: int) -> Pixels:
    """A box of an image, scaled to ``[side, side, 3]`` RGB.

    Args:
        content: bytes of the file.
        box_of: gives the box by height and width of the whole image.
        side: in pixels.

    Raises:
        Exception: of any kind, for what is damaged or no image; see :func:`ncmi.data.images.why_unreadable`.
    """
    simplejpeg, _ = codecs()
    pixels, box = None, (0.0, 0.0, 0.0, 0.0)
    if (size := jpeg_size(content)) is not None:
        box = box_of(*size)
        share = min(1.0, side / min(box[2:]))
        try:
            pixels = simplejpeg.decode_jpeg(
                content,
                "RGB",
                fastdct=True,
                fastupsample=True,
                min_height=math.ceil(size[0] * share),
                min_width=math.ceil(size[1] * share),
                min_factor=2,
            )
        except ValueError:  # Pillow knows how to go on, or says what is wrong
            size = None
    if size is None:
        pixels = decode_rgb(content)
        size = pixels.shape[0], pixels.shape[1]
        box = box_of(*size)
    assert pixels is not None
    down, across = pixels.shape[0] / size[0], pixels.shape[1] / size[1]
    top, left = math.floor(box[0] * down + 0.5), math.floor(box[1] * across + 0.5)
    height, width = max(1, math.floor(box[2] * down + 0.5)), max(1, math.floor(box[3] * across + 0.5))
    top, left = min(top, pixels.shape[0] - height), min(left, pixels.shape[1] - width)
    return resize(pixels[top : top + height, left : left + width], side, side)


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Pixels ``[H, W, 3]`` scaled to ``[height, width, 3]``."""
    _, cv2 = codecs()
    shrinks = max(pixels.shape[0] / height, pixels.shape[1] / width) > _AREA_FROM
    scaled: Pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return scaled


def jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG that simplejpeg decodes as it is to be seen; None of all other files."""
    simplejpeg, _ = codecs()
    if not content.startswith(b"\xff\xd8") or _is_turned(content):
        return None
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return None
    return (height, width) if colorspace in _COLORSPACES else None


def _is_turned(content: bytes) -> bool:
    if content.find(b"Exif\0\0", 0, _EXIF_WITHIN) < 0:
        return False
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            return int(image.getexif().get(_ORIENTATION, 1)) != 1
    except Exception:  # damaged entries raise whatever the reader was doing
        return True


def decode_rgb(content: bytes) -> Pixels:
    """All pixels ``[H, W, 3]`` of an image of any format, by Pillow."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
        return np.asarray(eight_bit(ImageOps.exif_transpose(opened)).convert("RGB"))


def suffix_of(content: bytes) -> str:
    """The ending that fits the bytes of an image, whatever the file is called; jpg where nothing is known."""
    kinds = {b"\x89PNG": "png", b"GIF8": "gif", b"BM": "bmp", b"II*\0": "tif", b"MM\0*": "tif", b"RIFF": "webp"}
    return next((suffix for begin, suffix in kinds.items() if content.startswith(begin)), "jpg")


def with_short_side(content: bytes, short_side: int, quality: int) -> bytes:
    """An image whose shorter side is longer, made a JPEG with that shorter side; others as they are.

    All of the image is decoded in any case: what is damaged is found here.

    Raises:
        Exception: as :func:`decode_square`.
    """
    simplejpeg, _ = codecs()
    pixels: Pixels | None = None
    if jpeg_size(content) is not None:
        try:
            pixels = simplejpeg.decode_jpeg(content, "RGB")
        except ValueError:
            pixels = None
    if pixels is None:
        pixels = decode_rgb(content)
    height, width = pixels.shape[:2]
    scale = short_side / min(height, width)
    if not 0 < scale < 1:
        return content
    scaled = resize(pixels, round(height * scale), round(width * scale))
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(scaled), quality=quality, colorspace="RGB", colorsubsampling="420"
    )
    return encoded
