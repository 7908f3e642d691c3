"""Anchors that need not be kept: random signs, each class's made from its number when it is asked for.

With fixed centroids and p = 1 a step looks at the rows of its labels and at sums over all classes. A generator whose
state is a counter makes any row alone; and a row of signs has two values, so that how many of them are positive tells
its normalization and its divergence from uniform. So sums over a million classes take seconds, and C + D numbers are
all that is kept.
"""

import math
from typing import Any

import torch
from torch import Tensor

from ncmi.loss.divergence import CentroidSums, CentroidView
from ncmi.loss.forms import Direction

_CLASSES = 4096  # whose signs are made at a time
# of splitmix64 (Steele, Lea & Flood 2014), as signed numbers
_GOLDEN, _FIRST, _SECOND = (x - 2**64 for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def sign_directions(classes: Tensor, dim: int, seed: int = 0) -> Tensor:
    """Unit vectors of random signs, each from its class's number and the seed: ``[n] → [n, D]`` float32.

    Their cosines are those of random directions, about 1/√D. The same on every machine and for every order of calls.

    Source: the generator is splitmix64, counting 64 components at a time.

    Example:
        >>> (sign_directions(torch.tensor([5, 900_000]), 64) * 8).unique()
        tensor([-1.,  1.])
    """
    return _signs(classes, dim, seed).float().mul_(2 / math.sqrt(dim)).sub_(1 / math.sqrt(dim))


def _signs(classes: Tensor, dim: int, seed: int) -> Tensor:
    """``[n, D]`` uint8, 0 or 1."""
    words = -(-dim // 64)
    counter = classes.unsqueeze(1) * words + torch.arange(words, device=classes.device)
    x = _mix(_mix(counter.new_full((), seed)) + counter)
    octets = x.view(torch.uint8)
    bits = octets.unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8, device=classes.device) & 1
    return bits.flatten(1)[:, :dim]


def _mix(x: Tensor) -> Tensor:
    def shifted(x: Tensor, by: int) -> Tensor:
        return x >> by & (1 << 64 - by) - 1

    x = (x + 1) * _GOLDEN
    x = (x ^ shifted(x, 30)) * _FIRST
    x = (x ^ shifted(x, 27)) * _SECOND
    return x ^ shifted(x, 31)


class SignView(CentroidView):
    """Fixed centroids ``NSF(κ·e_c)`` of :func:`sign_directions`, as :class:`CentroidView` has those that are kept.

    Args:
        num_classes, dim, seed: of the signs.
        scale: κ, length of the logits.
        direction: of the divergences from wrong centroids.
        dtype, device: of what is made.
    """

    def __init__(
        self, num_classes: int, dim: int, scale: float, seed: int, direction: Direction, dtype: torch.dtype, device: Any
    ) -> None:
        self.direction = direction
        self._sums: CentroidSums | None = None
        self._tables = {}
        self._classes, self._dim, self._seed = num_classes, dim, seed
        # of the two values of β, by the number of positive signs, [2, D + 1]
        positive = torch.arange(dim + 1, dtype=torch.float64)
        weight = torch.tensor([[-1.0], [1.0]], dtype=torch.float64).mul_(scale / math.sqrt(dim)).sigmoid_()
        beta = (weight * dim / (positive * weight[1] + (dim - positive) * weight[0])).log()
        excess = torch.expm1(beta)
        forward = direction == "centroid_to_sample"
        low, high = beta * excess + beta - excess if forward else excess - beta
        gap = (positive * high + (dim - positive) * low) / dim
        self._beta, self._side, self._gap = (x.to(device, dtype) for x in (beta, excess if forward else beta, gap))

    @property
    def num_classes(self) -> int:
        return self._classes

    @property
    def beta(self) -> Tensor:  # type: ignore[override]
        """``log(D·Q)`` of all classes, ``[C, D]``, made anew each time."""
        return torch.cat([self.own_rows(classes) for classes in self._numbers()])

    def _numbers(self) -> tuple[Tensor, ...]:
        numbers: tuple[Tensor, ...] = torch.arange(self._classes, device=self._gap.device).split(_CLASSES)
        return numbers

    def own_rows(self, labels: Tensor) -> Tensor:
        signs = _signs(labels, self._dim, self._seed)
        low, high = self._beta[:, signs.sum(1)].unsqueeze(-1)
        return torch.where(signs.bool(), high, low)

    def sums(self) -> CentroidSums:
        if self._sums is None:
            gap = self._gap.new_empty(self._classes)
            side_sum = torch.zeros(self._dim, dtype=torch.float64, device=gap.device)
            for classes in torch.arange(self.num_classes, device=gap.device).split(_CLASSES):
                signs = _signs(classes, self._dim, self._seed)
                count = signs.sum(1)
                gap[classes] = self._gap[count]
                low, high = self._side[:, count]
                side_sum += ((high - low) @ signs.to(gap.dtype) + low.sum()).double()
            self._sums = CentroidSums(gap, gap.double().sum().to(gap.dtype), side_sum.to(gap.dtype))
        return self._sums
