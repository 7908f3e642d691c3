"""Where the pixels of an augmented image come from: by whole pixels, or by one bilinear sampling."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

RATIO = (3 / 4, 4 / 3)  # width over height of a resized crop


def shift_and_flip(
    images: Tensor, down: Tensor, right: Tensor, mirrored: Tensor | None, shift: int, fill: float | Tensor
) -> Tensor:
    """Images mirrored, then moved by whole pixels: copies of values, never interpolated.

    Args:
        images: ``[B, C, H, W]``.
        down, right: whole pixels ``[B, 1]``, int64, in ``−shift…shift``.
        mirrored: which images to mirror left and right, ``[B, 1]``; None for none.
        shift: width of the border.
        fill: value of the border, a number or ``[C]``.
    """
    channels, height, width = images.shape[1:]
    device = images.device
    rows = torch.arange(shift, shift + height, device=device) - down  # [B, H]: where each row comes from, with border
    columns = torch.arange(width, device=device) - right
    if mirrored is not None:
        columns = torch.where(mirrored, width - 1 - columns, columns)
    padded = _pad(images, shift, fill).flatten(2)
    # one flat index a pixel, shared by the channels: several times as fast on a CPU as indexing with four tensors
    sources = (rows * (width + 2 * shift))[:, :, None] + (columns + shift)[:, None, :]
    moved: Tensor = padded.gather(2, sources.flatten(1)[:, None].expand(-1, channels, -1))
    return moved.view(images.shape)


def draw_boxes(
    batch: int, height: int, width: int, scale: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes of resized crops inside images of ``height × width``: top, left, height, width, in pixels, each ``[B, 1]``.

    The part of the area is uniform in ``scale``; width over height is log-uniform in 3/4…4/3, narrowed to what fits
    into the image at that area (where nothing of it does, the nearest that fits). So every box fits at the first
    draw and has the area drawn; the usual rule, to draw anew what does not fit, prefers smaller boxes and would make
    the number of draws depend on them. Positions are fractions of pixels.
    """
    device = generator.device
    part, shape, vertical, horizontal = torch.rand(4, batch, 1, generator=generator, device=device)
    area = (scale[0] + (scale[1] - scale[0]) * part) * (height * width)
    narrowest, widest = area.log() - 2 * math.log(height), 2 * math.log(width) - area.log()
    # at the whole area both bounds are the image's own ratio, but for rounding
    least, largest = (narrowest.clamp(min=math.log(bound)).minimum(widest) for bound in RATIO)
    half = 0.5 * torch.lerp(least, largest, shape)
    box_height = (area.sqrt() * (-half).exp()).clamp(max=height)
    box_width = (area.sqrt() * half.exp()).clamp(max=width)
    return vertical * (height - box_height), horizontal * (width - box_width), box_height, box_width


def resample(
    images: Tensor,
    *,
    mirrored: Tensor | None = None,
    offsets: tuple[Tensor, Tensor] | None = None,
    boxes: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
    radians: Tensor | None = None,
    fill: float | Tensor = 0.0,
) -> Tensor:
    """Images mirrored, moved, cropped to boxes scaled to H × W and turned, in this order, by one bilinear sampling.

    A crop repeats the image's edge where it reads half a pixel beyond it; a shift and a turn bring in ``fill``, a turn
    also where the shift had moved pixels out of sight.

    Args:
        images: ``[B, C, H, W]``, float32 or float64.
        mirrored: which images to mirror left and right, ``[B, 1]``.
        offsets: pixels down and to the right, each ``[B, 1]``.
        boxes: top, left, height and width in pixels, each ``[B, 1]``.
        radians: angles, counter-clockwise, about the centre, ``[B, 1]``.
        fill: value of the border, a number or ``[C]``.
    """
    batch, _, height, width = images.shape
    device, dtype = images.device, images.dtype
    # coordinates of pixels, followed from the result back to the images: [1 or B, 1 or H, 1 or W]
    rows = torch.arange(height, device=device, dtype=dtype)[None, :, None]
    columns = torch.arange(width, device=device, dtype=dtype)[None, None, :]
    coverage = None
    if radians is not None:
        sine, cosine = radians.to(dtype).sin()[:, None], radians.to(dtype).cos()[:, None]
        y, x = rows - (height - 1) / 2, columns - (width - 1) / 2
        rows, columns = y * cosine + x * sine + (height - 1) / 2, x * cosine - y * sine + (width - 1) / 2
        # how much of each bilinear neighbourhood lies in the image: samples of the edge times this are samples of the
        # image with zeros around it
        coverage = (_covered(rows, height) * _covered(columns, width))[:, None]
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    if boxes is not None:
        top, left, box_height, box_width = (side.to(dtype)[:, None] for side in boxes)
        rows = (top + (rows + 0.5) * (box_height / height) - 0.5).clamp(0, height - 1)
        columns = (left + (columns + 0.5) * (box_width / width) - 0.5).clamp(0, width - 1)
    if offsets is not None:
        rows, columns = rows - offsets[0][:, None], columns - offsets[1][:, None]
    if mirrored is not None:
        columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    across, along = (2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1
    shape = (batch, height, width)
    grid = torch.stack([across.expand(shape), along.expand(shape)], dim=3)
    # the border of grid_sample is zero: sample the difference from the fill
    border = None if isinstance(fill, float | int) and fill == 0 else _border(images, fill)
    sampled = F.grid_sample(images if border is None else images - border, grid, align_corners=False)
    if coverage is not None:
        sampled = sampled * coverage
    return sampled if border is None else sampled + border


def _covered(position: Tensor, size: int) -> Tensor:
    return torch.minimum(position + 1, size - position).clamp(0, 1)


def _border(images: Tensor, fill: float | Tensor) -> Tensor:
    if isinstance(fill, Tensor):
        return fill.to(images).reshape(-1, 1, 1)
    return images.new_full((1, 1, 1), fill)  # made on the device: nothing waits for a copy


def _pad(images: Tensor, shift: int, fill: float | Tensor) -> Tensor:
    if shift == 0:
        return images
    if not isinstance(fill, Tensor):
        return F.pad(images, (shift,) * 4, value=fill)
    batch, channels, height, width = images.shape
    padded = _border(images, fill).expand(batch, channels, height + 2 * shift, width + 2 * shift).clone()
    padded[:, :, shift : shift + height, shift : shift + width] = images
    return padded
