"""A colour and texture descriptor of patches that needs no weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ncmi.slides.embedding import descriptor_colour as colour
from ncmi.slides.embedding import descriptor_texture as texture
from ncmi.slides.embedding.descriptor_planes import Array, Planes
from ncmi.slides.embedding.descriptor_usual import USUAL
from ncmi.slides.embedding.encoder import Encoder, EncoderError, EncoderOptions, check_patches
from ncmi.slides.embedding.preparation import scale_patches

_GROUPS = (
    (colour.rgb_moments, colour.RGB_MOMENTS),
    (colour.stain_moments, colour.STAIN_MOMENTS),
    (colour.stain_quantiles, colour.STAIN_QUANTILES),
    (colour.rings, colour.RINGS),
    (colour.mass, colour.MASS),
    (texture.binary_patterns, texture.BINARY_PATTERNS),
    (texture.co_occurrence, texture.CO_OCCURRENCE),
    (texture.gradients, texture.GRADIENTS),
    (texture.bands, texture.BANDS),
)
DESCRIPTOR_NAMES: tuple[str, ...] = tuple(name for _, names in _GROUPS for name in names)
"""Names of the components, in their order."""
MIN_SIDE = 9
"""Patches are at least that high and wide."""
_VERSION = 1  # of numbers: any change to what a component is makes it another
_PIXELS = 1 << 18  # at a time: the views of more no longer fit into a processor's cache
_CENTRE, _SCALE = np.array([USUAL[name] for name in DESCRIPTOR_NAMES], dtype=np.float32).T


def describe_patches(patches: NDArray[np.uint8], natural_units: bool = False) -> Array:
    """Colour and texture of patches stained with haematoxylin and eosin.

    Components are, by group, the moments of colours and stains, quantiles of the stains, their radial profile around
    the middle and the extents of the haematoxylin, local binary patterns, co-occurrence of grey levels, gradients, and
    energy by scale: :data:`DESCRIPTOR_NAMES`. None changes where a patch is mirrored or turned by 90° (local binary
    patterns and co-occurrence: but for rounding). Sizes in pixels (of patterns, gradients, scales) are those of the
    patch as given: patches of one data set have one pixel size.

    Args:
        patches: ``[N, H, W, 3]``, RGB of 0…255, H and W at least 9; N may be 0.
        natural_units: give colours in [0, 1], optical densities and shares; by default each component is centred and
            divided by what is usual for it, always the same, so that all are of one order of magnitude.

    Returns:
        ``[N, D]`` float32, finite, D = ``len(DESCRIPTOR_NAMES)``.

    Raises:
        EncoderError: for patches of another shape, size or type.

    Example:
        >>> white = np.full((2, 27, 27, 3), 255, dtype=np.uint8)
        >>> described = dict(zip(DESCRIPTOR_NAMES, describe_patches(white, natural_units=True)[0].tolist()))
        >>> described["red mean"], described["haematoxylin mean"]
        (1.0, 0.0)
    """
    if patches.ndim != 4 or patches.shape[3] != 3 or patches.dtype != np.uint8:
        raise EncoderError(
            f"patches of shape {list(patches.shape)} and type {patches.dtype}: give RGB of 0…255, [N, H, W, 3] uint8"
        )
    number, height, width, _ = patches.shape
    if min(height, width) < MIN_SIDE:
        raise EncoderError(f"patches of {height}×{width} pixels: the descriptor needs at least {MIN_SIDE}×{MIN_SIDE}")
    result = np.empty((number, len(DESCRIPTOR_NAMES)), dtype=np.float32)
    step = max(1, _PIXELS // (height * width))
    for start in range(0, number, step):
        planes = Planes.of(patches[start : start + step])
        result[start : start + step] = np.concatenate([describe(planes) for describe, _ in _GROUPS], axis=1)
    return result if natural_units else (result - _CENTRE) / _SCALE


class Descriptor(Encoder):
    """:func:`describe_patches` as an encoder, on as many threads as torch has.

    Args:
        options: with ``image_size``, patches are scaled to it first, which makes large ones faster; by default not.

    Raises:
        EncoderError: for options that it does not have.
    """

    def __init__(self, options: EncoderOptions | None = None) -> None:
        options = options or EncoderOptions()
        options.refuse("the descriptor", "weights", "mean", "std", "extra")
        if options.image_size is not None and options.image_size < MIN_SIDE:
            raise EncoderError(f"image_size={options.image_size}: the descriptor needs at least {MIN_SIDE}")
        self.name, self.image_size = "descriptor", options.image_size
        self.version = f"{_VERSION}, {options.image_size or 'any'} px"
        self.feature_dim = len(DESCRIPTOR_NAMES)

    def encode(self, patches: Tensor) -> Tensor:
        check_patches(patches, square=self.image_size is not None)
        if self.image_size is not None:
            images = scale_patches(patches.permute(0, 3, 1, 2).float(), self.image_size)
            patches = images.round().clamp(0, 255).byte().permute(0, 2, 3, 1)
        parts = np.array_split(patches.numpy(), min(torch.get_num_threads(), len(patches)))
        with ThreadPoolExecutor(len(parts)) as pool:  # most of the time no Python runs
            return torch.from_numpy(np.concatenate(list(pool.map(describe_patches, parts))))
