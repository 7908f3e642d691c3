"""Colour components of the descriptor: how much of which colour and stain, and how far from the patch's middle."""

from __future__ import annotations

import numpy as np

from ncmi.slides.embedding.descriptor_planes import STAIN_NAMES, Array, Planes, correlation, spread

_MOMENTS = ("mean", "sd", "skewness")
_QUANTILES = (5, 25, 50, 75, 95)
_RINGS = 4


def rgb_moments(planes: Planes) -> Array:
    """Mean, standard deviation and skewness of red, green and blue; mean and deviation of the saturation (HSV)."""
    brightest = planes.rgb.max(1)
    saturation = 1 - planes.rgb.min(1) / np.maximum(brightest, np.float32(1 / 255))
    # black has no colour
    saturation = np.where(brightest > 0, saturation, np.float32(0))
    of_saturation = spread(saturation, (1, 2))[:2]
    return np.concatenate([*spread(planes.rgb, (2, 3)), np.stack(of_saturation, 1)], axis=1)


RGB_MOMENTS = (
    *(f"{colour} {moment}" for moment in _MOMENTS for colour in ("red", "green", "blue")),
    "saturation mean",
    "saturation sd",
)


def stain_moments(planes: Planes) -> Array:
    """Mean, standard deviation and skewness of the stains; correlation of haematoxylin and eosin."""
    together = correlation(planes.stains[:, 0], planes.stains[:, 1])
    return np.concatenate([*spread(planes.stains, (2, 3)), together[:, None]], axis=1)


STAIN_MOMENTS = (*(f"{stain} {moment}" for moment in _MOMENTS for stain in STAIN_NAMES), "haematoxylin × eosin")


def stain_quantiles(planes: Planes) -> Array:
    """Quantiles of haematoxylin and eosin over the pixels."""
    pixels = planes.stains[:, :2].reshape(len(planes.stains), 2, -1)
    found: Array = np.quantile(pixels, np.array(_QUANTILES, dtype=np.float32) / 100, axis=2)
    return np.moveaxis(found, 0, 1).reshape(len(pixels), -1)


STAIN_QUANTILES = tuple(f"{stain} {percent} %" for percent in _QUANTILES for stain in STAIN_NAMES[:2])


def rings(planes: Planes) -> Array:
    """Mean of haematoxylin and eosin, and deviation of haematoxylin, in rings around the middle; corners left out."""
    height, width = planes.grey.shape[1:]
    y, x = np.ogrid[:height, :width]
    distance = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2) / (min(height, width) / 2)
    number = (distance * _RINGS).astype(int)
    columns = []
    for ring in range(_RINGS):
        pixels = planes.stains[:, :2, number == ring]
        columns += [pixels.mean(2), pixels[:, :1].std(2)]
    return np.concatenate(columns, axis=1)


RINGS = tuple(
    f"{what} in ring {ring + 1}" for ring in range(_RINGS) for what in ("haematoxylin", "eosin", "haematoxylin sd")
)


def mass(planes: Planes) -> Array:
    """Where the haematoxylin above its median lies: its amount, its longer and shorter extent, its offset.

    Extents are standard deviations along the principal axes of that mass, the offset is the distance of its centre
    from the patch's middle, all in halves of the patch's side.
    """
    height, width = planes.grey.shape[1:]
    y, x = (
        ((np.arange(size) - (size - 1) / 2) / (min(height, width) / 2)).astype(np.float32) for size in (height, width)
    )
    haematoxylin = planes.stains[:, 0]
    weight = np.maximum(haematoxylin - np.median(haematoxylin, axis=(1, 2), keepdims=True), 0)
    total = weight.mean((1, 2))
    # a faint uniform mass keeps an empty patch's extents finite: those of the patch itself
    weight = (weight + np.float32(1e-3)) / (weight + np.float32(1e-3)).sum((1, 2), keepdims=True)
    rows, columns = weight.sum(2), weight.sum(1)
    # einsum runs on one thread, as what calls it may be one of several
    cy, cx = np.einsum("nh,h->n", rows, y), np.einsum("nw,w->n", columns, x)
    vyy = np.einsum("nh,h->n", rows, y**2) - cy**2
    vxx = np.einsum("nw,w->n", columns, x**2) - cx**2
    vxy = np.einsum("nh,h->n", np.einsum("nhw,w->nh", weight, x), y) - cy * cx
    middle, half = (vyy + vxx) / 2, np.sqrt((vyy - vxx) ** 2 / 4 + vxy**2)
    extents = [np.sqrt(np.maximum(middle + sign * half, 0)) for sign in (1, -1)]
    return np.stack([total, *extents, np.hypot(cy, cx)], axis=1)


MASS = ("haematoxylin mass", "longer extent", "shorter extent", "offset")
