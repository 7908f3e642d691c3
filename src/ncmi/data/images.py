"""Pixels of image files as uint8 arrays: size, mode and orientation settled; and the channels of images."""

import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ncmi.errors import reason

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
Pixels = npt.NDArray[np.uint8]


def decode_image(file: Path | BinaryIO, size: tuple[int, int], channels: int | None) -> Pixels:
    """Pixels ``[channels, H, W]`` of an image file.

    It is turned as its EXIF entry says, laid over white where it is transparent, scaled so that it covers
    ``size = (H, W)`` and cropped in the middle. 16-bit gray levels are divided by 257. Of an animation the first frame
    is taken.

    Args:
        channels: 1 (gray, ITU-R 601), 3 (RGB) or ``None``: 1 where all pixels of the result are gray, otherwise 3.

    Raises:
        Exception: of any kind, for what is damaged, none of ``FORMATS``, or of levels that do not fit 16 bits; see
            :func:`why_unreadable`.
    """
    with Image.open(file, formats=FORMATS) as opened:
        # lets the JPEG decoder skip detail far beyond the wanted size; other formats ignore it
        opened.draft(None, (2 * max(size), 2 * max(size)))
        return fit_image(opened, size, channels)


def fit_image(opened: Image.Image, size: tuple[int, int], channels: int | None) -> Pixels:
    """Pixels ``[channels, H, W]`` of an open image, which is left as it is; see :func:`decode_image`."""
    image = eight_bit(ImageOps.exif_transpose(opened))
    # gray levels need not be scaled three times over; in each channel the same numbers come out
    gray = channels == 1 or image.mode in ("1", "L")
    image = image.convert("L" if gray else "RGB")
    fitted: Pixels = np.asarray(ImageOps.fit(image, (size[1], size[0]), method=Image.Resampling.BICUBIC))
    if gray:
        return np.broadcast_to(fitted, (channels or 1, *size))
    pixels = fitted.transpose(2, 0, 1)
    return pixels[:1] if channels is None and bool((fitted == fitted[..., :1]).all()) else pixels


def verify_image(content: bytes) -> None:
    """Decode an image file as far as it takes to see that all of it can be decoded.

    A JPEG is decoded at an eighth of its size, which reads every byte of it in a third of the time.

    Raises:
        Exception: as :func:`decode_image`.
    """
    with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
        opened.draft(None, (1, 1))
        eight_bit(ImageOps.exif_transpose(opened))


def why_unreadable(error: Exception) -> str:
    """What is wrong with a file that :func:`decode_image` raised an error for, in a few words."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more than {Image.MAX_IMAGE_PIXELS} pixels, which a small file may claim to fill the memory"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be opened ({error.strerror})"
    return f"damaged or of an unknown kind ({reason(error) or type(error).__name__})"


def with_channels(images: Tensor, channels: int | None) -> Tensor:
    """Images ``[N, 1 or 3, H, W]`` uint8 with 1 (gray as in Pillow) or 3 channels; ``None`` keeps them."""
    if channels is None or images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1).contiguous()
    weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32)[:, None, None]
    chunks = [((c.int() * weights).sum(1, keepdim=True) + 0x8000) >> 16 for c in torch.split(images, 1024)]
    return torch.cat([chunk.to(torch.uint8) for chunk in chunks])


def eight_bit(image: Image.Image) -> Image.Image:
    """The image with 8 bits a channel and without transparency."""
    if image.mode.startswith("I"):
        levels: npt.NDArray[Any] = np.asarray(image)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("gray levels outside 0…65535; convert it to 8 or 16 bits")
        return Image.fromarray(np.round(levels / 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point gray levels; convert it to 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image
