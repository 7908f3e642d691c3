"""The descriptor of one patch, written pixel by pixel from the definitions, in float64."""

from __future__ import annotations

import colorsys
import math

import numpy as np

# Ruifrok and Johnston 2001: optical density of red, green and blue of haematoxylin, eosin and DAB
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
EPSILON = 1e-4


def density(patch: np.ndarray) -> np.ndarray:
    """Amounts of the stains, ``[H, W, 3]``."""
    return -np.log(np.maximum(patch.astype(float), 1) / 255) @ np.linalg.inv(STAINS)


def brightness(patch: np.ndarray) -> np.ndarray:
    """Rec. 709 weights as in scikit-image, to the nearest byte."""
    return np.floor(patch.astype(float) @ [0.2125, 0.7154, 0.0721] + 0.5 + 1e-9).astype(int)


def moments(values: np.ndarray) -> tuple[float, float, float]:
    mean = float(np.mean(values))
    variance = float(np.mean((values - mean) ** 2))
    return mean, math.sqrt(variance), float(np.mean((values - mean) ** 3)) / (variance + EPSILON) ** 1.5


def describe(patch: np.ndarray) -> dict[str, float]:
    """All components of a patch ``[H, W, 3]`` by name, in natural units."""
    found: dict[str, float] = {}
    stain = density(patch)
    haematoxylin, eosin = stain[..., 0], stain[..., 1]
    planes = dict(zip(("red", "green", "blue"), np.moveaxis(patch / 255, -1, 0), strict=True))
    planes |= dict(zip(("haematoxylin", "eosin", "residual"), np.moveaxis(stain, -1, 0), strict=True))
    for name, plane in planes.items():
        for what, value in zip(("mean", "sd", "skewness"), moments(plane), strict=True):
            found[f"{name} {what}"] = value
    saturation = np.array([colorsys.rgb_to_hsv(*pixel)[1] for pixel in patch.reshape(-1, 3) / 255])
    found["saturation mean"], found["saturation sd"], _ = moments(saturation)
    covariance = np.mean((haematoxylin - haematoxylin.mean()) * (eosin - eosin.mean()))
    found["haematoxylin × eosin"] = covariance / math.sqrt((haematoxylin.var() + EPSILON) * (eosin.var() + EPSILON))
    for percent in (5, 25, 50, 75, 95):
        for name, plane in (("haematoxylin", haematoxylin), ("eosin", eosin)):
            found[f"{name} {percent} %"] = float(np.percentile(plane, percent))
    for describe_group in (rings, mass, gradients, bands):
        found |= describe_group(haematoxylin, eosin)
    for radius in (1, 3):
        found |= patterns(brightness(patch), radius)
    levels = np.rint(np.clip(haematoxylin / 2, 0, 1) * 15).astype(int)
    for name, plane in (("brightness", brightness(patch) // 16), ("haematoxylin", levels)):
        for distance in (1, 3):
            for what, value in co_occurrence(plane, distance).items():
                found[f"{name} {what} at distance {distance}"] = value
    return found


def rings(haematoxylin: np.ndarray, eosin: np.ndarray) -> dict[str, float]:
    height, width = haematoxylin.shape
    members: list[list[tuple[int, int]]] = [[], [], [], []]
    for y in range(height):
        for x in range(width):
            distance = math.dist((y, x), ((height - 1) / 2, (width - 1) / 2)) / (min(height, width) / 2)
            if distance < 1:
                members[math.floor(4 * distance)].append((y, x))
    found = {}
    for number, pixels in enumerate(members, start=1):
        inside = np.array([haematoxylin[pixel] for pixel in pixels])
        found[f"haematoxylin in ring {number}"] = inside.mean()
        found[f"eosin in ring {number}"] = np.mean([eosin[pixel] for pixel in pixels])
        found[f"haematoxylin sd in ring {number}"] = inside.std()
    return found


def mass(haematoxylin: np.ndarray, eosin: np.ndarray) -> dict[str, float]:
    height, width = haematoxylin.shape
    half = min(height, width) / 2
    weight = np.maximum(haematoxylin - np.median(haematoxylin), 0)
    points = np.array(
        [((y - (height - 1) / 2) / half, (x - (width - 1) / 2) / half) for y, x in np.ndindex(height, width)]
    )
    weights = (weight + 1e-3).ravel() / (weight + 1e-3).sum()
    center = weights @ points
    shorter, longer = np.sqrt(np.linalg.eigvalsh((points - center).T @ (weights[:, None] * (points - center))))
    return {
        "haematoxylin mass": weight.mean(),
        "longer extent": longer,
        "shorter extent": shorter,
        "offset": math.hypot(*center),
    }


def patterns(gray: np.ndarray, radius: int) -> dict[str, float]:
    """Ojala et al. 2002: number of ones where there are at most two changes around the circle, otherwise 9."""
    height, width = gray.shape
    counts = [0] * 10
    for y in range(radius, height - radius):
        for x in range(radius, width - radius):
            bits = []
            for point in range(8):
                down = round(-radius * math.sin(math.tau * point / 8), 5)
                right = round(radius * math.cos(math.tau * point / 8), 5)
                bits.append(bilinear(gray, y + down, x + right) >= gray[y, x])
            changes = sum(bits[point] != bits[point - 1] for point in range(8))
            counts[sum(bits) if changes <= 2 else 9] += 1
    return {f"pattern {code} at radius {radius}": count / sum(counts) for code, count in enumerate(counts)}


def bilinear(gray: np.ndarray, y: float, x: float) -> float:
    above, left = math.floor(y), math.floor(x)
    below, right = math.ceil(y), math.ceil(x)
    top = (1 - (x - left)) * gray[above, left] + (x - left) * gray[above, right]
    bottom = (1 - (x - left)) * gray[below, left] + (x - left) * gray[below, right]
    return (1 - (y - above)) * top + (y - above) * bottom


def co_occurrence(levels: np.ndarray, distance: int) -> dict[str, float]:
    """Haralick et al. 1973; means over four directions of the symmetric matrix."""
    height, width = levels.shape
    found: dict[str, list[float]] = {}
    for angle in (0, 45, 90, 135):
        down = round(distance * math.sin(math.radians(angle)))
        right = round(distance * math.cos(math.radians(angle)))
        matrix = np.zeros((16, 16))
        for y in range(height):
            for x in range(width):
                if 0 <= y + down < height and 0 <= x + right < width:
                    matrix[levels[y, x], levels[y + down, x + right]] += 1
                    matrix[levels[y + down, x + right], levels[y, x]] += 1
        matrix /= matrix.sum()
        i, j = np.mgrid[:16, :16]
        mean = (matrix * i).sum()
        variance = (matrix * (i - mean) ** 2).sum()
        values = {
            "contrast": (matrix * (i - j) ** 2).sum() / 225,
            "dissimilarity": (matrix * abs(i - j)).sum() / 15,
            "homogeneity": (matrix / (1 + (i - j) ** 2)).sum(),
            "energy": math.sqrt((matrix**2).sum()),
            "correlation": 1.0 if variance < 1e-15 else (matrix * (i - mean) * (j - mean)).sum() / variance,
        }
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def smooth(plane: np.ndarray, scale: int, along: int | None = None) -> np.ndarray:
    """By a Gaussian of four standard deviations, the border repeated; its derivative along an axis."""
    reach = 4 * scale
    offsets = np.arange(-reach, reach + 1)
    bell = np.exp(-(offsets**2) / (2 * scale**2))
    bell /= bell.sum()
    for axis in (0, 1):
        kernel = bell * offsets / scale**2 if axis == along else bell
        padded = np.pad(plane, [(reach, reach) if axis == other else (0, 0) for other in (0, 1)], mode="edge")
        size = plane.shape[axis]
        plane = sum(
            value * np.take(padded, range(reach + offset, reach + offset + size), axis)
            for offset, value in zip(offsets, kernel, strict=True)
        )
    return plane


def gradients(haematoxylin: np.ndarray, eosin: np.ndarray) -> dict[str, float]:
    found = {}
    for scale in (1, 2, 4):
        down, right = (scale * smooth(haematoxylin, scale, along) for along in (0, 1))
        magnitude = np.sqrt(down**2 + right**2)
        tensor = np.array([[np.mean(down**2), np.mean(down * right)], [np.mean(down * right), np.mean(right**2)]])
        smaller, larger = np.linalg.eigvalsh(tensor)
        found[f"gradient mean at scale {scale}"] = magnitude.mean()
        found[f"gradient sd at scale {scale}"] = magnitude.std()
        found[f"gradient 95 % at scale {scale}"] = np.percentile(magnitude, 95)
        found[f"gradient coherence at scale {scale}"] = (larger - smaller) / (larger + smaller + 1e-6)
    return found


def bands(haematoxylin: np.ndarray, eosin: np.ndarray) -> dict[str, float]:
    found = {}
    finer = haematoxylin
    for scale in (1, 2, 4):
        coarser = smooth(haematoxylin, scale)
        _, found[f"band {scale} sd"], found[f"band {scale} skewness"] = moments(finer - coarser)
        finer = coarser
    return found
