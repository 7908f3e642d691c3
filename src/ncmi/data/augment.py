"""Augmentation of a batch, on its device: each sample by itself, all randomness from one generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def augment_images(
    images: Tensor,
    generator: torch.Generator,
    *,
    shift: int = 0,
    flip: bool = False,
    noise: float = 0.0,
    fill: float | Tensor = 0.0,
) -> Tensor:
    """Shifted, flipped and noisy copies of images: another tensor of the same shape, type and device.

    Args:
        images: ``[B, C, H, W]``, floating point.
        generator: source of all randomness, on the device of the images.
        shift: each image moves by its own whole number of pixels in ``−shift…shift``, vertically and
            horizontally (the same as padding by ``shift`` and cropping at random); below H and W.
        flip: mirror left and right with probability ½. Not for digits or letters.
        noise: standard deviation of Gaussian noise, in the units of the images, 0 or larger.
        fill: what moves in at the border, a number or one for each channel ``[C]``; 0 is the mean of
            standardised images.

    Raises:
        ValueError: for other shapes or types, or options out of range.

    Example:
        >>> images = torch.rand(8, 1, 28, 28)
        >>> augment_images(images, torch.Generator().manual_seed(0), shift=2, noise=0.1).shape
        torch.Size([8, 1, 28, 28])
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"images of type {images.dtype} and shape {list(images.shape)}: give floating point "
            "[B, C, H, W], e.g. standardised"
        )
    _check_noise(noise)
    batch, channels, height, width = images.shape
    if not 0 <= shift < min(height, width):
        raise ValueError(f"shift={shift} for images of {height}×{width}: choose 0…{min(height, width) - 1}")
    device = images.device
    if shift or flip:
        down, right = torch.randint(-shift, shift + 1, (2, batch, 1), generator=generator, device=device)
        rows = torch.arange(height, device=device) - down  # [B, H]: where each output row comes from
        columns = torch.arange(width, device=device) - right
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
        if flip:
            mirrored = torch.rand(batch, 1, generator=generator, device=device) < 0.5
            columns = torch.where(mirrored, width - 1 - columns, columns)
        samples = torch.arange(batch, device=device)[:, None, None, None]
        planes = torch.arange(channels, device=device)[:, None, None]
        moved = images[samples, planes, rows[:, None, :, None], columns[:, None, None, :]]
        border = torch.as_tensor(fill, dtype=images.dtype, device=device).reshape(-1, 1, 1)
        images = torch.where(inside[:, None], moved, border)
    return _add_noise(images, generator, noise)


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
    x = _add_noise(x, generator, noise)
    if mask > 0:
        masked = torch.rand(x.shape, generator=generator, device=x.device) < mask
        x = x.masked_fill(masked, 0.0)
    return x


def _check_noise(noise: float) -> None:
    if not (noise >= 0 and math.isfinite(noise)):
        raise ValueError(f"noise={noise}: choose a standard deviation of 0 or larger")


def _add_noise(x: Tensor, generator: torch.Generator, noise: float) -> Tensor:
    if noise == 0:
        return x.clone()
    return x + noise * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
