"""Augmentation of a batch, on its device: each sample by itself, all randomness from one generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ncmi.data.augment_geometry import draw_boxes, resample, shift_and_flip


def augment_images(
    images: Tensor,
    generator: torch.Generator,
    *,
    shift: int = 0,
    flip: bool = False,
    noise: float = 0.0,
    fill: float | Tensor = 0.0,
    rotation: float = 0.0,
    crop_scale: tuple[float, float] | None = None,
) -> Tensor:
    """Shifted, cropped, flipped, rotated and noisy copies of images: another tensor of the same shape, type and device.

    Shifts and flips alone move whole pixels. With rotation or resized crops everything is composed — flip, shift,
    crop, rotation, in this order — and each image is interpolated once, bilinearly.

    Args:
        images: ``[B, C, H, W]``, floating point.
        generator: source of all randomness, on the device of the images.
        shift: each image moves by its own whole number of pixels in ``−shift…shift``, vertically and
            horizontally (the same as padding by ``shift`` and cropping at random); below H and W.
        flip: mirror left and right with probability ½. Not for digits or letters.
        noise: standard deviation of Gaussian noise, in the units of the images, 0 or larger.
        fill: what moves in at the border, a number or one for each channel ``[C]``; 0 is the mean of
            standardised images.
        rotation: each image turns about its centre by its own angle, uniform in ``−rotation…rotation`` degrees;
            0 to 180. Always bilinear, in float32 or float64.
        crop_scale: least and largest part of the area, in (0, 1], of a resized crop: the part is uniform, the aspect
            ratio log-uniform in 3/4…4/3, as far as such a box fits into the image, and the box anywhere inside.

    Raises:
        ValueError: for other shapes or types, or options out of range.

    Example:
        >>> images = torch.rand(8, 1, 28, 28)
        >>> augment_images(images, torch.Generator().manual_seed(0), shift=2, rotation=15, noise=0.1).shape
        torch.Size([8, 1, 28, 28])
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"images of type {images.dtype} and shape {list(images.shape)}: give floating point "
            "[B, C, H, W], e.g. standardised"
        )
    _check_noise(noise)
    batch, _, height, width = images.shape
    if not 0 <= shift < min(height, width):
        raise ValueError(f"shift={shift} for images of {height}×{width}: choose 0…{min(height, width) - 1}")
    if not 0 <= rotation <= 180:
        raise ValueError(f"rotation={rotation}: choose 0 to 180 degrees")
    if crop_scale is not None and not 0 < crop_scale[0] <= crop_scale[1] <= 1:
        raise ValueError(f"crop_scale={crop_scale}: choose parts of the area, least and largest, above 0 and up to 1")
    interpolates = rotation > 0 or crop_scale is not None
    if interpolates and images.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"rotation and crop_scale of images of type {images.dtype}: give float32 or float64")
    device, moved = images.device, images
    if shift or flip or interpolates:
        down, right = torch.randint(-shift, shift + 1, (2, batch, 1), generator=generator, device=device)
        mirrored = torch.rand(batch, 1, generator=generator, device=device) < 0.5 if flip else None
        if interpolates:
            boxes = draw_boxes(batch, height, width, crop_scale, generator) if crop_scale else None
            turns = torch.rand(batch, 1, generator=generator, device=device) * 2 - 1 if rotation else None
            radians = None if turns is None else turns * math.radians(rotation)
            offsets = (down, right) if shift else None
            moved = resample(images, mirrored=mirrored, offsets=offsets, boxes=boxes, radians=radians, fill=fill)
        else:
            moved = shift_and_flip(images, down, right, mirrored, shift, fill)
    if noise > 0:
        return _add_noise(moved, generator, noise)
    return images.clone() if moved is images else moved


def augment_table(x: Tensor, generator: torch.Generator, *, noise: float = 0.0, mask: float = 0.0) -> Tensor:
    """Noisy copies of standardised rows with some values replaced by 0, the mean of their column.

    Args:
        x: ``[B, F]``, floating point, standardised.
        generator: source of all randomness, on the device of ``x``.
        noise: standard deviation of Gaussian noise, 0 or larger.
        mask: probability of each value to be replaced, in [0, 1).

    Returns:
        Another tensor of the same shape, type and device.

    Raises:
        ValueError: for other shapes or types, or options out of range.

    Example:
        >>> augment_table(torch.ones(1, 8), torch.Generator().manual_seed(0), mask=0.5)
        tensor([[0., 1., 0., 0., 0., 1., 0., 1.]])
    """
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"table of type {x.dtype} and shape {list(x.shape)}: give floating point [B, F]")
    _check_noise(noise)
    if not 0 <= mask < 1:
        raise ValueError(f"mask={mask}: choose a probability from 0 to below 1")
    x = _add_noise(x, generator, noise) if noise > 0 else x.clone()
    if mask > 0:
        masked = torch.rand(x.shape, generator=generator, device=x.device) < mask
        x = x.masked_fill(masked, 0.0)
    return x


def _check_noise(noise: float) -> None:
    if not (noise >= 0 and math.isfinite(noise)):
        raise ValueError(f"noise={noise}: choose a standard deviation of 0 or larger")


def _add_noise(x: Tensor, generator: torch.Generator, noise: float) -> Tensor:
    return x + noise * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
