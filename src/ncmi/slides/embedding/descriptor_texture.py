"""Texture components of the descriptor: local binary patterns, co-occurrence, gradients, energy by scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ncmi.slides.embedding.descriptor_planes import Array, Planes, spread

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
_DARKEST = 2.0  # haematoxylin of the last grey level of its co-occurrence matrix
_SCALES = (1, 2, 4)


def binary_patterns(planes: Planes) -> Array:
    """Histograms of uniform local binary patterns of the brightness, at 8 points of two radii (10 values each).

    Ojala et al., "Multiresolution gray-scale and rotation invariant texture classification with local binary
    patterns", 2002. Pixels nearer to the border than the radius are left out.
    """
    from skimage.feature import local_binary_pattern

    columns = []
    for radius in _RADII:
        inner = np.s_[radius:-radius, radius:-radius]
        # one by one: in a stack, equal neighbours fall to either side by their place in it
        codes = np.stack([local_binary_pattern(patch, _POINTS, radius, "uniform")[inner] for patch in planes.grey])
        columns += [(codes == code).mean((1, 2), dtype=np.float32) for code in range(_POINTS + 2)]
    return np.stack(columns, axis=1)


BINARY_PATTERNS = tuple(f"pattern {code} at radius {radius}" for radius in _RADII for code in range(_POINTS + 2))


def co_occurrence(planes: Planes) -> Array:
    """Properties of grey level co-occurrence matrices (Haralick et al., 1973) of brightness and haematoxylin.

    16 levels, two distances, mean over four directions.
    """
    from skimage.feature import graycomatrix, graycoprops

    haematoxylin = np.clip(planes.stains[:, 0] / _DARKEST, 0, 1) * (_LEVELS - 1)
    columns = []
    for levels in (planes.grey // (256 // _LEVELS), np.rint(haematoxylin).astype(np.uint8)):
        matrices = np.empty((_LEVELS, _LEVELS, len(levels), len(_DISTANCES), len(_ANGLES)), dtype=np.float32)
        for index, patch in enumerate(levels):
            matrices[:, :, index] = graycomatrix(patch, _DISTANCES, _ANGLES, _LEVELS, symmetric=True, normed=True)
        # to the library patches are further distances, so that one call serves all
        flat = matrices.reshape(_LEVELS, _LEVELS, -1, len(_ANGLES))
        for name, largest in _PROPERTIES.items():
            found = graycoprops(flat, name)
            columns.append(found.mean(1).reshape(len(levels), -1) / largest)
    return np.concatenate(columns, axis=1).astype(np.float32)


CO_OCCURRENCE = tuple(
    f"{plane} {name} at distance {distance}"
    for plane in ("brightness", "haematoxylin")
    for name in _PROPERTIES
    for distance in _DISTANCES
)


def gradients(planes: Planes) -> Array:
    """Gradient magnitude of haematoxylin at three scales: mean, standard deviation, 95 % quantile, and coherence.

    The coherence is that of the patch's structure tensor: 1 where all gradients lie along one line, 0 where there is no
    preferred direction. Magnitudes are multiplied by the scale, so that edges of every width count alike.
    """
    columns = []
    for scale in _SCALES:
        down, right = _derivatives(planes.stains[:, 0], scale)
        magnitude = np.hypot(down, right).reshape(len(down), -1)
        tensor = [(a * b).mean((1, 2)) for a, b in ((down, down), (right, right), (down, right))]
        coherence = np.hypot(tensor[0] - tensor[1], 2 * tensor[2]) / (tensor[0] + tensor[1] + np.float32(1e-6))
        columns += [*spread(magnitude, 1)[:2], np.quantile(magnitude, np.float32(0.95), axis=1), coherence]
    return np.stack(columns, axis=1)


GRADIENTS = tuple(
    f"gradient {what} at scale {scale}" for scale in _SCALES for what in ("mean", "sd", "95 %", "coherence")
)


def bands(planes: Planes) -> Array:
    """Standard deviation and skewness of haematoxylin in bands of scale: between Gaussians of 0, 1, 2 and 4 pixels."""
    columns: list[Array] = []
    finer = planes.stains[:, 0]
    for scale in _SCALES:
        coarser = _smooth(planes.stains[:, 0], scale)
        columns += spread(finer - coarser, (1, 2))[1:]
        finer = coarser
    return np.stack(columns, axis=1)


BANDS = tuple(f"band {scale} {what}" for scale in _SCALES for what in ("sd", "skewness"))


def _smooth(plane: Array, scale: float, order: tuple[int, int, int] = (0, 0, 0)) -> Array:
    from scipy.ndimage import gaussian_filter

    result: NDArray[np.float32] = gaussian_filter(plane, (0, scale, scale), order=order, mode="nearest")
    return result


def _derivatives(plane: Array, scale: float) -> tuple[Array, Array]:
    return _smooth(plane, scale, (0, 1, 0)) * np.float32(scale), _smooth(plane, scale, (0, 0, 1)) * np.float32(scale)
