"""A color and texture descriptor of patches that needs no weights: colors, stains and texture of every patch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ncmi.slides.embedding.encoder import Encoder, EncoderError, EncoderOptions, check_patches, scale_patches

Array = NDArray[np.float32]
STAIN_NAMES = ("haematoxylin", "eosin", "residual")
_GRAY = (2125, 7154, 721)  # ten-thousandths of red, green and blue in brightness, as in skimage's rgb2gray
_EPSILON = 1e-4  # variance of a spread of 1/100: below it a patch counts more and more as without structure
_MOMENTS = ("mean", "sd", "skewness")
_QUANTILES = (5, 25, 50, 75, 95)
_RINGS = 4
_RADII = (1, 3)
_POINTS = 8
_LEVELS = 16
_DISTANCES = (1, 3)
_ANGLES = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
# property of the matrix, and what it is divided by to lie in [0, 1], or in [−1, 1] for the correlation
_PROPERTIES = {
    "contrast": (_LEVELS - 1) ** 2,
    "dissimilarity": _LEVELS - 1,
    "homogeneity": 1,
    "energy": 1,
    "correlation": 1,
}
_DARKEST = 2.0  # haematoxylin of the last gray level of its co-occurrence matrix
_SCALES = (1, 2, 4)


@dataclass(frozen=True)
class Planes:
    """Views of patches.

    Attributes:
        rgb: ``[N, 3, H, W]`` float32 in [0, 1].
        stains: ``[N, 3, H, W]`` float32, amounts of haematoxylin, eosin and a third stain by color deconvolution of
            the optical density −ln(RGB), in which black counts as the gray value 1; some are below 0 (Ruifrok and
            Johnston, "Quantification of histochemical staining by color deconvolution", 2001; the matrix is that of
            :func:`skimage.color.rgb2hed`).
        gray: ``[N, H, W]`` uint8 brightness.
    """

    rgb: Array
    stains: Array
    gray: NDArray[np.uint8]

    @classmethod
    def of(cls, patches: NDArray[np.uint8]) -> Planes:
        """The planes of patches ``[N, H, W, 3]``; each pixel's values are the same in any company."""
        from skimage.color import hed_from_rgb

        colors = np.ascontiguousarray(patches.transpose(0, 3, 1, 2))
        # a byte has but 256 values to take the logarithm of: tables [color, byte, stain]
        density = -np.log(np.maximum(np.arange(256), 1) / 255)
        tables = (density[:, None] * hed_from_rgb[:, None, :]).astype(np.float32)
        stains = np.empty(colors.shape, dtype=np.float32)
        for stain in range(3):
            stains[:, stain] = sum(tables[color, :, stain][colors[:, color]] for color in range(3))
        red, green, blue = (np.int32(weight) * colors[:, color] for color, weight in enumerate(_GRAY))
        gray = (red + green + blue + np.int32(5000)) // np.int32(10000)
        return cls(colors.astype(np.float32) / np.float32(255), stains, gray.astype(np.uint8))


Describe = Callable[[Planes], Array]
_GROUPS: list[tuple[Describe, tuple[str, ...], str]] = []
"""What computes components, their names, and of each the mean and standard deviation that are usual.

The last, to two digits, are those of patches of H&E-stained tissue at 0.5 microns per pixel, over nuclei of 27 pixels
and tissue of 64, 128 and 256 pixels, each size with the same weight. They are part of the descriptor and stay as they
are, whatever it is used on: they bring its components, which are shares, optical densities and skewnesses, to one order
of magnitude, and need not be right for a cohort.
"""


def _group(usual: str, names: Iterable[str]) -> Callable[[Describe], Describe]:
    def register(describe: Describe) -> Describe:
        _GROUPS.append((describe, tuple(names), usual))
        return describe

    return register


def moments(values: Array, axis: int | tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Mean, standard deviation and skewness along axes; the skewness of what does not vary is 0."""
    mean = values.mean(axis, keepdims=True)
    centered = values - mean
    squares = centered * centered
    variance = squares.mean(axis)
    skewness = (squares * centered).mean(axis) / (variance + np.float32(_EPSILON)) ** np.float32(1.5)
    return mean.squeeze(axis), np.sqrt(variance), skewness


def correlation(first: Array, second: Array) -> Array:
    """Correlation of the pixels ``[N, H, W]`` of two planes, ``[N]``; 0 where either does not vary."""
    first = first - first.mean((1, 2), keepdims=True)
    second = second - second.mean((1, 2), keepdims=True)
    variances = [(values * values).mean((1, 2)) + np.float32(_EPSILON) for values in (first, second)]
    result: Array = (first * second).mean((1, 2)) / np.sqrt(variances[0] * variances[1])
    return result


@_group(
    "0.69 0.12, 0.52 0.13, 0.67 0.13, 0.19 0.051, 0.23 0.066, 0.17 0.057, -0.65 0.64, 0.23 0.66, -0.12 0.54, "
    "0.34 0.086, 0.18 0.051",
    (
        *(f"{color} {moment}" for moment in _MOMENTS for color in ("red", "green", "blue")),
        "saturation mean",
        "saturation sd",
    ),
)
def rgb_moments(planes: Planes) -> Array:
    """Mean, standard deviation and skewness of red, green and blue; mean and deviation of the saturation (HSV)."""
    brightest = planes.rgb.max(1)
    saturation = 1 - planes.rgb.min(1) / np.maximum(brightest, np.float32(1 / 255))
    # black has no color
    saturation = np.where(brightest > 0, saturation, np.float32(0))
    of_saturation = moments(saturation, (1, 2))[:2]
    return np.concatenate([*moments(planes.rgb, (2, 3)), np.stack(of_saturation, 1)], axis=1)


@_group(
    "0.54 0.31, 0.27 0.11, 0.37 0.21, 0.64 0.29, 0.3 0.15, 0.26 0.13, 3.4 2.1, 1.1 1.6, 0.88 0.91, 0.14 0.38",
    (*(f"{stain} {moment}" for moment in _MOMENTS for stain in STAIN_NAMES), "haematoxylin × eosin"),
)
def stain_moments(planes: Planes) -> Array:
    """Mean, standard deviation and skewness of the stains; correlation of haematoxylin and eosin."""
    together = correlation(planes.stains[:, 0], planes.stains[:, 1])
    return np.concatenate([*moments(planes.stains, (2, 3)), together[:, None]], axis=1)


@_group(
    "-0.0023 0.13, -0.049 0.2, 0.17 0.21, 0.11 0.1, 0.36 0.3, 0.23 0.12, 0.7 0.42, 0.39 0.13, 1.6 0.76, 0.67 0.21",
    [f"{stain} {percent} %" for percent in _QUANTILES for stain in STAIN_NAMES[:2]],
)
def stain_quantiles(planes: Planes) -> Array:
    """Quantiles of haematoxylin and eosin over the pixels."""
    pixels = planes.stains[:, :2].reshape(len(planes.stains), 2, -1)
    quantiles: Array = np.quantile(pixels, np.array(_QUANTILES, dtype=np.float32) / 100, axis=2)
    return np.moveaxis(quantiles, 0, 1).reshape(len(pixels), -1)


@_group(
    "0.65 0.45, 0.29 0.16, 0.52 0.38, 0.58 0.36, 0.28 0.13, 0.59 0.34, 0.54 0.34, 0.27 0.11, 0.6 0.33, 0.52 "
    "0.31, 0.26 0.11, 0.62 0.31",
    [f"{what} in ring {ring + 1}" for ring in range(_RINGS) for what in ("haematoxylin", "eosin", "haematoxylin sd")],
)
def rings(planes: Planes) -> Array:
    """Mean of haematoxylin and eosin, and deviation of haematoxylin, in rings around the middle; corners left out."""
    height, width = planes.gray.shape[1:]
    y, x = np.ogrid[:height, :width]
    distance = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2) / (min(height, width) / 2)
    number = (distance * _RINGS).astype(int)
    columns = []
    for ring in range(_RINGS):
        pixels = planes.stains[:, :2, number == ring]
        columns += [pixels.mean(2), pixels[:, :1].std(2)]
    return np.concatenate(columns, axis=1)


@_group(
    "0.28 0.13, 0.59 0.067, 0.44 0.081, 0.24 0.14",
    ("haematoxylin mass", "longer extent", "shorter extent", "offset"),
)
def mass(planes: Planes) -> Array:
    """Where the haematoxylin above its median lies: its amount, its longer and shorter extent, its offset.

    Extents are standard deviations along the principal axes of that mass, the offset is the distance of its center
    from the patch's middle, all in halves of the patch's side.
    """
    height, width = planes.gray.shape[1:]
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


@_group(
    "0.043 0.014, 0.074 0.014, 0.062 0.014, 0.12 0.02, 0.22 0.046, 0.13 0.018, 0.071 0.012, 0.074 0.013, 0.11 "
    "0.1, 0.095 0.024, 0.083 0.016, 0.095 0.016, 0.046 0.012, 0.052 0.013, 0.083 0.029, 0.069 0.022, 0.056 "
    "0.013, 0.1 0.012, 0.12 0.077, 0.29 0.049",
    [f"pattern {code} at radius {radius}" for radius in _RADII for code in range(_POINTS + 2)],
)
def binary_patterns(planes: Planes) -> Array:
    """Histograms of uniform local binary patterns of the brightness, at 8 points of two radii (10 values each).

    Ojala et al., "Multiresolution gray-scale and rotation invariant texture classification with local binary
    patterns", 2002. Pixels nearer to the border than the radius are left out.
    """
    from skimage.feature import local_binary_pattern

    columns = []
    for radius in _RADII:
        inner = np.s_[radius:-radius, radius:-radius]
        # one by one: in a stack, equal neighbors fall to either side by their place in it
        codes = np.stack([local_binary_pattern(patch, _POINTS, radius, "uniform")[inner] for patch in planes.gray])
        columns += [(codes == code).mean((1, 2), dtype=np.float32) for code in range(_POINTS + 2)]
    return np.stack(columns, axis=1)


@_group(
    "0.014 0.0056, 0.04 0.016, 0.077 0.02, 0.13 0.034, 0.59 0.089, 0.45 0.1, 0.21 0.1, 0.18 0.1, 0.84 0.091, "
    "0.57 0.2, 0.022 0.01, 0.051 0.025, 0.088 0.025, 0.14 0.043, 0.58 0.086, 0.46 0.1, 0.26 0.11, 0.23 0.11, "
    "0.78 0.088, 0.5 0.16",
    [
        f"{plane} {name} at distance {distance}"
        for plane in ("brightness", "haematoxylin")
        for name in _PROPERTIES
        for distance in _DISTANCES
    ],
)
def co_occurrence(planes: Planes) -> Array:
    """Properties of gray level co-occurrence matrices (Haralick et al., 1973) of brightness and haematoxylin.

    16 levels, two distances, mean over four directions.
    """
    from skimage.feature import graycomatrix, graycoprops

    haematoxylin = np.clip(planes.stains[:, 0] / _DARKEST, 0, 1) * (_LEVELS - 1)
    columns = []
    for levels in (planes.gray // (256 // _LEVELS), np.rint(haematoxylin).astype(np.uint8)):
        matrices = np.empty((_LEVELS, _LEVELS, len(levels), len(_DISTANCES), len(_ANGLES)), dtype=np.float32)
        for index, patch in enumerate(levels):
            matrices[:, :, index] = graycomatrix(patch, _DISTANCES, _ANGLES, _LEVELS, symmetric=True, normed=True)
        # to the library patches are further distances, so that one call serves all
        flat = matrices.reshape(_LEVELS, _LEVELS, -1, len(_ANGLES))
        for name, largest in _PROPERTIES.items():
            values = graycoprops(flat, name)
            columns.append(values.mean(1).reshape(len(levels), -1) / largest)
    return np.concatenate(columns, axis=1).astype(np.float32)


@_group(
    "0.15 0.062, 0.18 0.086, 0.5 0.25, 0.34 0.16, 0.16 0.069, 0.18 0.081, 0.52 0.24, 0.34 0.17, 0.15 0.068, "
    "0.14 0.067, 0.44 0.2, 0.34 0.17",
    [f"gradient {what} at scale {scale}" for scale in _SCALES for what in ("mean", "sd", "95 %", "coherence")],
)
def gradients(planes: Planes) -> Array:
    """Gradient magnitude of haematoxylin at three scales: mean, standard deviation, 95 % quantile, and coherence.

    The coherence is that of the patch's structure tensor: 1 where all gradients lie along one line, 0 where there is no
    preferred direction. Magnitudes are multiplied by the scale, so that edges of every width count alike.
    """
    columns = []
    for scale in _SCALES:
        orders = ((0, 1, 0), (0, 0, 1))
        down, right = (_smooth(planes.stains[:, 0], scale, order) * np.float32(scale) for order in orders)
        magnitude = np.hypot(down, right).reshape(len(down), -1)
        tensor = [(a * b).mean((1, 2)) for a, b in ((down, down), (right, right), (down, right))]
        coherence = np.hypot(tensor[0] - tensor[1], 2 * tensor[2]) / (tensor[0] + tensor[1] + np.float32(1e-6))
        columns += [*moments(magnitude, 1)[:2], np.quantile(magnitude, np.float32(0.95), axis=1), coherence]
    return np.stack(columns, axis=1)


@_group(
    "0.26 0.13, 4.7 2.8, 0.16 0.069, 2.1 1.2, 0.16 0.069, 1.9 1.3",
    [f"band {scale} {what}" for scale in _SCALES for what in ("sd", "skewness")],
)
def bands(planes: Planes) -> Array:
    """Standard deviation and skewness of haematoxylin in bands of scale: between Gaussians of 0, 1, 2 and 4 pixels."""
    columns: list[Array] = []
    finer = planes.stains[:, 0]
    for scale in _SCALES:
        coarser = _smooth(planes.stains[:, 0], scale)
        columns += moments(finer - coarser, (1, 2))[1:]
        finer = coarser
    return np.stack(columns, axis=1)


def _smooth(plane: Array, scale: float, order: tuple[int, int, int] = (0, 0, 0)) -> Array:
    from scipy.ndimage import gaussian_filter

    result: NDArray[np.float32] = gaussian_filter(plane, (0, scale, scale), order=order, mode="nearest")
    return result


DESCRIPTOR_NAMES: tuple[str, ...] = tuple(name for _, names, _ in _GROUPS for name in names)
"""Names of the components, in their order."""
_NUMBERS = [float(number) for _, _, usual in _GROUPS for number in usual.replace(",", "").split()]
USUAL = dict(zip(DESCRIPTOR_NAMES, zip(_NUMBERS[::2], _NUMBERS[1::2], strict=True), strict=True))
"""Usual mean and standard deviation by component."""
MIN_SIDE = 9
"""Patches are at least that high and wide."""
_VERSION = 1  # of numbers: any change to what a component is makes it another
_PIXELS = 1 << 18  # at a time: the views of more no longer fit into a processor's cache
_CENTER, _SCALE = np.array(list(USUAL.values()), dtype=np.float32).T


def describe_patches(patches: NDArray[np.uint8], natural_units: bool = False) -> Array:
    """Color and texture of patches stained with haematoxylin and eosin.

    Components are, by group, the moments of colors and stains, quantiles of the stains, their radial profile around
    the middle and the extents of the haematoxylin, local binary patterns, co-occurrence of gray levels, gradients, and
    energy by scale: :data:`DESCRIPTOR_NAMES`. None changes where a patch is mirrored or turned by 90° (local binary
    patterns and co-occurrence: but for rounding). Sizes in pixels (of patterns, gradients, scales) are those of the
    patch as given: patches of one data set have one pixel size.

    Args:
        patches: ``[N, H, W, 3]``, RGB of 0…255, H and W at least 9; N may be 0.
        natural_units: give colors in [0, 1], optical densities and shares; by default each component is centered and
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
        result[start : start + step] = np.concatenate([describe(planes) for describe, _, _ in _GROUPS], axis=1)
    return result if natural_units else (result - _CENTER) / _SCALE


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
