"""Colour of a batch of images varied on its device: jitter of four kinds, and grey."""

from __future__ import annotations

import torch
from torch import Tensor

_CONTRAST, _SATURATION, _HUE = 1, 2, 3  # 0 is brightness


def augment_colours(
    images: Tensor,
    generator: torch.Generator,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    jitter_probability: float = 0.8,
    grey: float = 0.0,
) -> Tensor:
    """Images in other colours: another tensor of the same shape, type and device, with values in 0…1.

    Colour jitter, then grey, as in SimCLR and SupCon (Khosla et al., 2020): a factor is drawn for each kind and image,
    and each image has the four kinds in its own random order. Brightness multiplies; contrast and saturation draw
    pixels towards or away from the image's mean grey and their own grey; hue turns the colours of HSV; results are cut
    to 0…1. Grey is 0.299 R + 0.587 G + 0.114 B.

    Args:
        images: ``[B, 3, H, W]``, RGB in 0…1, floating point.
        generator: source of all randomness, on the device of the images.
        brightness, contrast, saturation: factors are uniform in ``max(0, 1 − x)…1 + x``; 0 or larger.
        hue: the turn is uniform in ``−hue…hue``, in parts of a full turn; 0 to ½.
        jitter_probability: of an image to be jittered at all.
        grey: probability of an image to become grey.

    Raises:
        ValueError: for other shapes or types, or options out of range.

    Example:
        >>> images = torch.rand(8, 3, 32, 32)
        >>> grey = augment_colours(images, torch.Generator().manual_seed(0), brightness=0.4, grey=1.0)
        >>> torch.equal(grey[:, 0], grey[:, 2])
        True
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"images of shape {list(images.shape)}: colours vary in RGB images [B, 3, H, W] only; for others set "
            "brightness, contrast, saturation, hue and grey to 0"
        )
    if not images.is_floating_point():
        raise ValueError(f"images of type {images.dtype}: give floating point in 0…1, e.g. images.float() / 255")
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, strength in strengths.items():
        if not 0 <= strength < float("inf"):
            raise ValueError(f"{name}={strength}: choose 0 or larger (usual: 0.4)")
    if not 0 <= hue <= 0.5:
        raise ValueError(f"hue={hue}: choose 0 to 0.5, a part of a full turn (usual: 0.1)")
    for name, probability in (("jitter_probability", jitter_probability), ("grey", grey)):
        if not 0 <= probability <= 1:
            raise ValueError(f"{name}={probability}: choose a probability from 0 to 1")

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=images.device)

    batch, varied = len(images), images
    if hue or any(strengths.values()):
        order = uniform(batch, 4).argsort(1)
        draws = uniform(batch, 5)
        ranges = [(max(0.0, 1 - x), 1 + x) for x in strengths.values()] + [(-hue, hue)]
        factors = torch.stack([low + (high - low) * draws[:, kind] for kind, (low, high) in enumerate(ranges)], 1)
        chosen = draws[:, 4] < jitter_probability
        varied = torch.where(chosen[:, None, None, None], jitter_colour(images, order, factors.to(images)), images)
    if grey:
        chosen = uniform(batch, 1, 1, 1) < grey
        varied = torch.where(chosen, _grey(varied), varied)
    return images.clone() if varied is images else varied


def jitter_colour(images: Tensor, order: Tensor, factors: Tensor) -> Tensor:
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
    grey = _grey(images)
    # black for brightness
    reference = grey * (kind == _SATURATION) + grey.mean((2, 3), keepdim=True) * (kind == _CONTRAST)
    return torch.lerp(reference, images, factor).clamp_(0, 1)


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.split(1, dim=1)
    grey: Tensor = (0.299 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114)
    return grey


def _turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Hue turned by parts of a full turn ``[B, 1, 1]``, saturation and value kept."""
    # kornia.enhance.adjust_hue gives the same, but goes through all of HSV, which is slower; and its other functions
    # know one order of the four kinds for a whole batch
    red, green, blue = images.unbind(1)
    value = red.maximum(green).maximum(blue)
    chroma = value - red.minimum(green).minimum(blue)
    divisor = torch.where(chroma == 0, 1.0, chroma)  # greys have no hue, and chroma 0 takes out whatever stands for it
    of_green, of_blue = (blue - red).add_(divisor, alpha=2), (red - green).add_(divisor, alpha=4)
    sixths = torch.where(value == red, green - blue, torch.where(value == green, of_green, of_blue)) / divisor
    sixths = sixths + 6 * turn
    # each channel is value − chroma·f(its distance from the hue): f rises over one sixth, stays 1 over two, falls
    offsets = torch.arange(5, 0, -2, device=images.device)[:, None, None]
    distance = (sixths[:, None] + offsets).remainder_(6).sub_(2).abs_()
    return torch.addcmul(value[:, None], chroma[:, None], (2 - distance).clamp_(0, 1), value=-1)
