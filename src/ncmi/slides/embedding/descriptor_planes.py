"""What the descriptor sees of patches: colour, stains and brightness of every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
STAIN_NAMES = ("haematoxylin", "eosin", "residual")
_GREY = (2125, 7154, 721)  # ten-thousandths of red, green and blue in brightness, as in skimage's rgb2gray
_EPSILON = 1e-4  # variance of a spread of 1/100: below it a patch counts more and more as without structure


@dataclass(frozen=True)
class Planes:
    """Views of patches.

    Attributes:
        rgb: ``[N, 3, H, W]`` float32 in [0, 1].
        stains: ``[N, 3, H, W]`` float32, amounts of haematoxylin, eosin and a third stain by colour deconvolution of
            the optical density −ln(RGB), in which black counts as the grey value 1; some are below 0 (Ruifrok and
            Johnston, "Quantification of histochemical staining by color deconvolution", 2001; the matrix is that of
            :func:`skimage.color.rgb2hed`).
        grey: ``[N, H, W]`` uint8 brightness.
    """

    rgb: Array
    stains: Array
    grey: NDArray[np.uint8]

    @classmethod
    def of(cls, patches: NDArray[np.uint8]) -> Planes:
        """The planes of patches ``[N, H, W, 3]``; each pixel's values are the same in any company."""
        from skimage.color import hed_from_rgb

        colours = np.ascontiguousarray(patches.transpose(0, 3, 1, 2))
        # a byte has but 256 values to take the logarithm of: tables [colour, byte, stain]
        density = -np.log(np.maximum(np.arange(256), 1) / 255)
        tables = (density[:, None] * hed_from_rgb[:, None, :]).astype(np.float32)
        stains = np.empty(colours.shape, dtype=np.float32)
        for stain in range(3):
            stains[:, stain] = sum(tables[colour, :, stain][colours[:, colour]] for colour in range(3))
        red, green, blue = (np.int32(weight) * colours[:, colour] for colour, weight in enumerate(_GREY))
        grey = (red + green + blue + np.int32(5000)) // np.int32(10000)
        return cls(colours.astype(np.float32) / np.float32(255), stains, grey.astype(np.uint8))


def spread(values: Array, axis: int | tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Mean, standard deviation and skewness along axes; the skewness of what does not vary is 0."""
    mean = values.mean(axis, keepdims=True)
    centred = values - mean
    squares = centred * centred
    variance = squares.mean(axis)
    skewness = (squares * centred).mean(axis) / (variance + np.float32(_EPSILON)) ** np.float32(1.5)
    return mean.squeeze(axis), np.sqrt(variance), skewness


def correlation(first: Array, second: Array) -> Array:
    """Correlation of the pixels ``[N, H, W]`` of two planes, ``[N]``; 0 where either does not vary."""
    first = first - first.mean((1, 2), keepdims=True)
    second = second - second.mean((1, 2), keepdims=True)
    variances = [(values * values).mean((1, 2)) + np.float32(_EPSILON) for values in (first, second)]
    result: Array = (first * second).mean((1, 2)) / np.sqrt(variances[0] * variances[1])
    return result
