"""Image files → uint8 arrays, a folder of them with one subfolder for each class, and the channels of images."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ncmi.data.dataset import Dataset
from ncmi.data.kinds import IMAGE_SUFFIXES
from ncmi.files import visible

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")


def load_folder(root: Path, image_size: int = 32, channels: int | None = None) -> Dataset:
    """Images in ``root/<class>/<image>``, in order of name, brought to squares as :func:`decode_images` says.

    Hidden files are skipped, and so are files other than images beside the class folders.

    Raises:
        ValueError: without class folders, for an empty or nested one, a file that is corrupt or no image.
    """
    if image_size < 1:
        raise ValueError(f"image_size={image_size}: give the side of the images in pixels, at least 1")
    entries = visible(root)
    class_folders = [entry for entry in entries if entry.is_dir()]
    loose = [e for e in entries if e.is_file() and e.suffix.lower() in IMAGE_SUFFIXES]
    if not class_folders:
        there = f"{len(loose)} images but no folder" if loose else "no folder"
        raise ValueError(f"{there} inside: expected one subfolder of images for each class, <folder>/<class>/<image>")
    if loose:
        raise ValueError(f"{loose[0].name} lies beside the class folders: move it into the folder of its class")
    paths, labels = [], []
    for index, folder in enumerate(class_folders):
        files = visible(folder)
        if not files:
            raise ValueError(f"class folder {folder.name!r} is empty: add images or remove it")
        if nested := next((entry for entry in files if entry.is_dir()), None):
            raise ValueError(
                f"class folder {folder.name!r} holds the folder {nested.name!r}: give the folder whose "
                "subfolders are the classes, with the images directly in them"
            )
        paths += files
        labels += [index] * len(files)
    names = tuple(folder.name for folder in class_folders)
    if len(names) < 2:
        raise ValueError(f"only one class ({names[0]!r}): a classifier needs folders of at least two")
    inputs = decode_images(paths, (image_size, image_size), channels, root)
    return Dataset(root.resolve().name, inputs, torch.tensor(labels), names, "image")


def decode_images(paths: Sequence[Path], size: tuple[int, int], channels: int | None, root: Path) -> Tensor:
    """Image files as ``[N, channels, H, W]`` uint8, in the order of ``paths``; decoded by threads.

    Each image is turned as its EXIF entry says, laid over white where it is transparent, scaled so that it
    covers ``size = (H, W)`` and cropped in the middle. 16-bit gray levels are divided by 257. Of an animation
    the first frame is taken.

    Args:
        channels: 1 (gray, ITU-R 601), 3 (RGB) or ``None``: 1 if every image is gray, otherwise 3.
        root: folder that the names in errors are relative to.

    Raises:
        ValueError: naming the first file that is corrupt or not an image.
    """
    out: npt.NDArray[np.uint8] = np.empty((len(paths), *size, 1 if channels == 1 else 3), np.uint8)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for i, pixels in enumerate(pool.map(lambda path: _decode(path, size, channels, root), paths)):
            out[i] = pixels
    if channels is None and all(bool((image == image[..., :1]).all()) for image in out):
        out = out[..., :1]
    return torch.from_numpy(np.ascontiguousarray(out.transpose(0, 3, 1, 2)))


def with_channels(images: Tensor, channels: int | None) -> Tensor:
    """Images ``[N, 1 or 3, H, W]`` uint8 with 1 (gray as in Pillow) or 3 channels; ``None`` keeps them."""
    if channels is None or images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1).contiguous()
    weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32)[:, None, None]
    chunks = [((c.int() * weights).sum(1, keepdim=True) + 0x8000) >> 16 for c in torch.split(images, 1024)]
    return torch.cat([chunk.to(torch.uint8) for chunk in chunks])


def _decode(path: Path, size: tuple[int, int], channels: int | None, root: Path) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(path, formats=FORMATS) as file:
            # lets the JPEG decoder skip detail far beyond the wanted size; other formats ignore it
            file.draft(None, (2 * max(size), 2 * max(size)))
            image = _eight_bit(ImageOps.exif_transpose(file))
        image = image.convert("L" if channels == 1 else "RGB")
        fitted = ImageOps.fit(image, (size[1], size[0]), method=Image.Resampling.BICUBIC)
    except Exception as error:  # damaged bytes raise whatever the decoder was doing
        raise ValueError(
            f"{path.relative_to(root)} is corrupt or not an image ({error}): remove or replace it; "
            f"readable are {', '.join(FORMATS)}"
        ) from error
    return np.asarray(fitted).reshape(*size, -1)


def _eight_bit(image: Image.Image) -> Image.Image:
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
