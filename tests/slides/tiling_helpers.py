"""Slides of known content: tissue discs on glass, as tiled pyramidal TIFFs that OpenSlide reads."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from ncmi.slides.tiling.tile import tile_slide
from ncmi.slides.work import SlideResult

GLASS = (243, 242, 244)
TISSUE = (190, 90, 160)


def disc(size: tuple[int, int], center: tuple[float, float], radius: float) -> np.ndarray:
    """Truth of a disc on a slide of ``size`` (width, height): ``[height, width]`` bool."""
    y, x = np.mgrid[: size[1], : size[0]]
    return (x + 0.5 - center[0]) ** 2 + (y + 0.5 - center[1]) ** 2 <= radius**2


def picture(
    tissue: np.ndarray, *, noise: float = 4.0, color: tuple[int, int, int] = TISSUE, seed: int = 0
) -> np.ndarray:
    """A noisy image ``[h, w, 3]`` uint8 of tissue on glass, no two patches of it alike."""
    image = np.where(tissue[..., None], color, GLASS) + np.random.default_rng(seed).normal(0, noise, (*tissue.shape, 1))
    return np.clip(image, 0, 255).astype(np.uint8)


def halve(image: np.ndarray) -> np.ndarray:
    """The next level: means of 2×2 pixels."""
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    return image[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3)).round().astype(np.uint8)


def write_slide(
    path: Path,
    image: np.ndarray,
    *,
    mpp: float | None = 0.5,
    levels: int = 3,
    tile: tuple[int, int] | None = (128, 128),
    **options: Any,
) -> list[np.ndarray]:
    """Write a pyramid of ``levels`` halvings; returns the images of the levels."""
    written = [image]
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            if level:
                written.append(halve(written[-1]))
            resolution = None if mpp is None else (1e4 / (mpp * 2**level),) * 2
            file.write(
                written[-1],
                tile=tile,
                photometric="rgb",
                resolution=resolution,
                resolutionunit=None if mpp is None else "CENTIMETER",
                subfiletype=1 if level else 0,
                metadata=None,
                **options,
            )
    return written


def tile_or_die(path: Path, out: Path, settings: Any) -> SlideResult:
    """The work of a process that is killed at a slide called killer."""
    if path.stem == "killer":
        os.kill(os.getpid(), signal.SIGKILL)
    return tile_slide(path, out, settings)
