"""Augmentation of a batch, on its device: place, noise and colors of each sample by itself, all from one generator."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ncmi.recipes import Augmentation

RATIO = (3 / 4, 4 / 3)  # width over height of a resized crop
_CONTRAST, _SATURATION, _HUE = 1, 2, 3  # kinds of jitter; 0 is brightness


def augment_images(
    images: Tensor, generator: torch.Generator, options: Augmentation, fill: float | Tensor = 0.0
) -> Tensor:
    """Shifted, cropped, flipped, rotated, noisy and cut copies of images: a tensor of the same shape, type and device.

    Shifts and flips alone move whole pixels. With rotation or resized crops everything is composed — flip, shift,
    crop, rotation, in this order — and each image is interpolated once, bilinearly. Each image has its own shift (the
    same as padding and cropping at random), turn about its center, and box, whose part of the area is uniform and
    whose aspect ratio is log-uniform in 3/4…4/3 as far as it fits.

    Args:
        images: ``[B, C, H, W]``, floating point; with rotation or resized crops float32 or float64.
        generator: source of all randomness, on the device of the images.
        options: shift (below H and W), flip, rotation, crop_scale, cutout, and noise in the units of the images.
        fill: what moves in at the border and where a square is cut out, a number or one for each channel ``[C]``;
            0 is the mean of standardized images.

    Raises:
        ValueError: for other shapes or types, or a shift that is not smaller than the images.

    Example:
        >>> images = torch.rand(8, 1, 28, 28)
        >>> options = Augmentation(shift=2, rotation=15, noise=0.1)
        >>> augment_images(images, torch.Generator().manual_seed(0), options).shape
        torch.Size([8, 1, 28, 28])
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"images of type {images.dtype} and shape {list(images.shape)}: give floating point "
            "[B, C, H, W], e.g. standardized"
        )
    batch, _, height, width = images.shape
    shift, rotation, crop_scale = options.shift, options.rotation, options.crop_scale
    if shift is None:
        shift = 0 if crop_scale else max(1, min(height, width) // 8)
    if shift >= min(height, width):
        raise ValueError(f"shift={shift} for images of {height}×{width}: choose 0…{min(height, width) - 1}")
    interpolates = rotation > 0 or crop_scale is not None
    if interpolates and images.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"rotation and crop_scale of images of type {images.dtype}: give float32 or float64")
    device, moved = images.device, images
    if shift or options.flip or interpolates:
        down, right = torch.randint(-shift, shift + 1, (2, batch, 1), generator=generator, device=device)
        mirrored = torch.rand(batch, 1, generator=generator, device=device) < 0.5 if options.flip else None
        if interpolates:
            boxes = draw_boxes(batch, height, width, crop_scale, generator) if crop_scale else None
            turns = torch.rand(batch, 1, generator=generator, device=device) * 2 - 1 if rotation else None
            radians = None if turns is None else turns * math.radians(rotation)
            offsets = (down, right) if shift else None
            moved = resample(images, mirrored=mirrored, offsets=offsets, boxes=boxes, radians=radians, fill=fill)
        else:
            moved = shift_and_flip(images, down, right, mirrored, shift, fill)
    varied = moved if moved is not images and not options.noise else _noisy(moved, generator, options.noise)
    return cut_out(varied, generator, options.cutout, fill) if options.cutout else varied


def cut_out(images: Tensor, generator: torch.Generator, part: float, fill: float | Tensor = 0.0) -> Tensor:
    """Images ``[B, C, H, W]`` with a square filled about a pixel of each: copies.

    A square reaches beyond the border where its center is close to it: less is cut out then.

    Args:
        part: side of the square as a part of the shorter side, at least a pixel.
        fill: a number or ``[C]``.
    """
    batch, _, height, width = images.shape
    side = max(1, round(part * min(height, width)))

    def covered(length: int) -> Tensor:
        centers = torch.randint(length, (batch, 1), generator=generator, device=images.device)
        first = centers - side // 2
        places = torch.arange(length, device=images.device)
        return (places >= first) & (places < first + side)

    square = (covered(height)[:, :, None] & covered(width)[:, None, :])[:, None]
    return torch.where(square, _border(images, fill), images)


def augment_table(x: Tensor, generator: torch.Generator, options: Augmentation) -> Tensor:
    """Noisy copies of standardized rows with some values replaced by 0, the mean of their column.

    Args:
        x: ``[B, F]``, floating point, standardized.
        generator: source of all randomness, on the device of ``x``.
        options: noise and mask.

    Returns:
        Another tensor of the same shape, type and device.

    Raises:
        ValueError: for other shapes or types.

    Example:
        >>> augment_table(torch.ones(1, 8), torch.Generator().manual_seed(0), Augmentation(noise=0, mask=0.5))
        tensor([[0., 1., 0., 0., 0., 1., 0., 1.]])
    """
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"table of type {x.dtype} and shape {list(x.shape)}: give floating point [B, F]")
    x, mask = _noisy(x, generator, options.noise), options.mask
    return x.masked_fill(torch.rand(x.shape, generator=generator, device=x.device) < mask, 0.0) if mask else x


def _noisy(x: Tensor, generator: torch.Generator, noise: float) -> Tensor:
    return x + noise * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype) if noise else x.clone()


def shift_and_flip(
    images: Tensor, down: Tensor, right: Tensor, mirrored: Tensor | None, shift: int, fill: float | Tensor
) -> Tensor:
    """Images ``[B, C, H, W]`` mirrored, then moved by whole pixels: copies of values, never interpolated.

    Args:
        down, right: whole pixels ``[B, 1]``, int64, in ``−shift…shift``.
        mirrored: which images to mirror left and right, ``[B, 1]``; None for none.
        shift: width of the border, which holds ``fill``, a number or ``[C]``.
    """
    channels, height, width = images.shape[1:]
    device = images.device
    rows = torch.arange(shift, shift + height, device=device) - down  # [B, H]: where each row comes from, with border
    columns = torch.arange(width, device=device) - right
    if mirrored is not None:
        columns = torch.where(mirrored, width - 1 - columns, columns)
    sides = (height + 2 * shift, width + 2 * shift)
    padded = _border(images, fill).expand(len(images), channels, *sides).clone()
    padded[:, :, shift : shift + height, shift : shift + width] = images
    # one flat index a pixel, shared by the channels: several times as fast on a CPU as indexing with four tensors
    sources = (rows * (width + 2 * shift))[:, :, None] + (columns + shift)[:, None, :]
    moved: Tensor = padded.flatten(2).gather(2, sources.flatten(1)[:, None].expand(-1, channels, -1))
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
        offsets, boxes: pixels down and to the right; top, left, height and width in pixels, each ``[B, 1]``.
        radians: angles, counter-clockwise, about the center, ``[B, 1]``; ``fill``, a number or ``[C]``, comes in.
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
        # how much of each bilinear neighborhood lies in the image: samples of the edge times this are samples of the
        # image with zeros around it
        down, across = torch.minimum(rows + 1, height - rows), torch.minimum(columns + 1, width - columns)
        coverage = (down.clamp(0, 1) * across.clamp(0, 1))[:, None]
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


def _border(images: Tensor, fill: float | Tensor) -> Tensor:
    if isinstance(fill, Tensor):
        return fill.to(images).reshape(-1, 1, 1)
    return images.new_full((1, 1, 1), fill)  # made on the device: nothing waits for a copy


def augment_colors(images: Tensor, generator: torch.Generator, options: Augmentation) -> Tensor:
    """Images in other colors: another tensor of the same shape, type and device, with values in 0…1.

    Color jitter, then gray, as in SimCLR and SupCon (Khosla et al., 2020): a factor is drawn for each kind and image,
    and each image has the four kinds in its own random order. Brightness multiplies; contrast and saturation draw
    pixels towards or away from the image's mean gray and their own gray; hue turns the colors of HSV; results are cut
    to 0…1. Gray is 0.299 R + 0.587 G + 0.114 B.

    Args:
        images: ``[B, 3, H, W]``, RGB in 0…1, floating point.
        generator: source of all randomness, on the device of the images.
        options: brightness, contrast, saturation, hue, jitter_probability and gray.

    Raises:
        ValueError: for other shapes or types.

    Example:
        >>> images = torch.rand(8, 3, 32, 32)
        >>> gray = augment_colors(images, torch.Generator().manual_seed(0), Augmentation(brightness=0.4, gray=1.0))
        >>> torch.equal(gray[:, 0], gray[:, 2])
        True
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"images of shape {list(images.shape)}: colors vary in RGB images [B, 3, H, W] only; for others set "
            "brightness, contrast, saturation, hue and gray to 0"
        )
    if not images.is_floating_point():
        raise ValueError(f"images of type {images.dtype}: give floating point in 0…1, e.g. images.float() / 255")

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=images.device)

    batch, varied = len(images), images
    strengths, hue = (options.brightness, options.contrast, options.saturation), options.hue
    if hue or any(strengths):
        order = uniform(batch, 4).argsort(1)
        draws = uniform(batch, 5)
        ranges = [(max(0.0, 1 - x), 1 + x) for x in strengths] + [(-hue, hue)]
        factors = torch.stack([low + (high - low) * draws[:, kind] for kind, (low, high) in enumerate(ranges)], 1)
        chosen = draws[:, 4] < options.jitter_probability
        varied = torch.where(chosen[:, None, None, None], jitter_color(images, order, factors.to(images)), images)
    if options.gray:
        chosen = uniform(batch, 1, 1, 1) < options.gray
        varied = torch.where(chosen, _gray(varied), varied)
    return images.clone() if varied is images else varied


def jitter_color(images: Tensor, order: Tensor, factors: Tensor) -> Tensor:
    """Brightness (0), contrast (1), saturation (2) and hue (3) of each image changed in its own order.

    Args:
        images: ``[B, 3, H, W]``, RGB in 0…1.
        order: a permutation of the four kinds for each image, ``[B, 4]``.
        factors: factors of the first three kinds, and the part of a full turn of the hue, ``[B, 4]``.
    """
    # hue, much the dearest, is turned once for all: what comes before it in an image's order is done before and what
    # comes after it after, with factors of 1, which change nothing, in the other places
    place = (order == _HUE).long().argmax(1, keepdim=True)  # [B, 1]
    by_place = factors.gather(1, order)
    for number in (0, 1, 2):
        images = _blend(images, order, torch.where(number < place, by_place, 1.0), number)
    images = _turn_hue(images, factors[:, _HUE, None, None])
    for number in (1, 2, 3):
        images = _blend(images, order, torch.where(number > place, by_place, 1.0), number)
    return images


def _blend(images: Tensor, order: Tensor, factors: Tensor, number: int) -> Tensor:
    kind, factor = (of_all[:, number, None, None, None] for of_all in (order, factors))
    gray = _gray(images)
    # black for brightness
    reference = gray * (kind == _SATURATION) + gray.mean((2, 3), keepdim=True) * (kind == _CONTRAST)
    return torch.lerp(reference, images, factor).clamp_(0, 1)


def _gray(images: Tensor) -> Tensor:
    red, green, blue = images.split(1, dim=1)
    gray: Tensor = (0.299 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114)
    return gray


def _turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Hue turned by parts of a full turn ``[B, 1, 1]``, saturation and value kept."""
    # kornia.enhance.adjust_hue gives the same, but goes through all of HSV, which is slower; and its other functions
    # know one order of the four kinds for a whole batch
    red, green, blue = images.unbind(1)
    value = red.maximum(green).maximum(blue)
    chroma = value - red.minimum(green).minimum(blue)
    divisor = torch.where(chroma == 0, 1.0, chroma)  # grays have no hue, and chroma 0 takes out whatever stands for it
    of_green, of_blue = (blue - red).add_(divisor, alpha=2), (red - green).add_(divisor, alpha=4)
    sixths = torch.where(value == red, green - blue, torch.where(value == green, of_green, of_blue)) / divisor
    sixths = sixths + 6 * turn
    # each channel is value − chroma·f(its distance from the hue): f rises over one sixth, stays 1 over two, falls
    offsets = torch.arange(5, 0, -2, device=images.device)[:, None, None]
    distance = (sixths[:, None] + offsets).remainder_(6).sub_(2).abs_()
    return torch.addcmul(value[:, None], chroma[:, None], (2 - distance).clamp_(0, 1), value=-1)
