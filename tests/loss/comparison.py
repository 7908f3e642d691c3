"""What the tests that hold the loss against :mod:`ncmi.loss.equation` share."""

from __future__ import annotations

import math

from torch import Tensor

from ncmi.loss import equation

POWERS = (1.0, 2.0, 0.0, -1.0, -4.0, -12.0, math.inf, -math.inf)
DIRECTIONS = ("centroid_to_sample", "sample_to_centroid")
KINDS = ("nsf", "softmax")


def centroids(logits: Tensor, temperature: float | None, kind: str) -> Tensor:
    """Centroids of free logits, or with a temperature of directions on the features' sphere."""
    if temperature is None:
        return equation.simplex(logits, kind)
    return equation.distribution(logits, None, temperature, kind)


def relative_error(value: Tensor, expected: Tensor) -> float:
    """Norm of the difference by the norm of what was expected."""
    return ((value.double() - expected).norm() / expected.norm()).item()
