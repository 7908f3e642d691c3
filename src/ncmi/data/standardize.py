"""Standardization: zero mean and unit spread of every column or channel, from the training part only.

Mean and scale over rows are computed here and nowhere else; :class:`RunningScale` takes the rows in chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ncmi.recipes.data import Kind

if TYPE_CHECKING:
    from ncmi.data.image_files import ImageFiles


class RunningScale:
    """Mean and standard deviation of columns, over rows that come in chunks.

    In float64, about the first row, so that a small spread about a large mean keeps its digits: each chunk about its
    own mean, chunks put together by their means' differences (Chan, Golub, LeVeque, 1983). Equal values have spread 0.

    Example:
        >>> moments = RunningScale()
        >>> moments.update(torch.tensor([[1.0, 5.0]]))
        >>> moments.update(torch.tensor([[3.0, 5.0], [5.0, 5.0]]))
        >>> [column.tolist() for column in moments.result()]
        [[3.0, 5.0], [1.632993161855452, 1.0]]
    """

    def __init__(self) -> None:
        self.count = 0
        # the first row; mean of the rows so far about it; sum of squares about their mean
        self._first = self._mean = self._squares = torch.zeros((), dtype=torch.float64)

    def update(self, rows: Tensor) -> None:
        """Take in rows ``[n, D]`` of numbers."""
        if len(rows) == 0:
            return
        offsets = rows.to(torch.float64, copy=True)
        if self.count == 0:
            self._first = offsets[0].clone()
        offsets -= self._first
        mean = offsets.mean(0)
        offsets -= mean
        squares = torch.linalg.vector_norm(offsets, dim=0).square()  # with images several times as fast as var_mean
        step, total = mean - self._mean, self.count + len(rows)
        self._mean = self._mean + step * (len(rows) / total)
        self._squares = self._squares + squares + step.square() * (self.count * len(rows) / total)
        self.count = total

    def result(self, rounding: float = 0.0) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (over N) ``[D]``, float64; constant columns have scale 1.

        Args:
            rounding: columns whose spread is at most this part of their mean's size count as constant too, since it
                may be nothing but the rounding of what was computed: 1e-7 for float32; 0 for exact inputs.

        Raises:
            ValueError: if there were no rows.
        """
        if self.count == 0:
            raise ValueError("no rows to take mean and scale of: give at least one")
        mean, scale = self._first + self._mean, (self._squares / self.count).sqrt()
        return mean, torch.where(scale > rounding * mean.abs(), scale, 1.0)


class Standardizer(nn.Module):
    """``(inputs − mean) / scale`` of each column of a table or each channel of images; at first the identity.

    Args:
        width: F columns (of bags: of their instances), or number of channels.
        kind: of data; images have channels.

    Attributes:
        mean, scale: buffers ``[F]`` or ``[channels, 1, 1]``, float32, in the ``state_dict``.

    Example:
        >>> standardize = Standardizer.fit(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), "table")
        >>> standardize(torch.tensor([[3.0, 5.0]]))
        tensor([[1., 0.]])
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, kind: Kind) -> None:
        super().__init__()
        shape = (width, 1, 1) if kind == "image" else (width,)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    @classmethod
    def fit(cls, inputs: Tensor | ImageFiles, kind: Kind) -> Standardizer:
        """Mean and standard deviation (over N) of training inputs ``[N, F]`` or ``[N, channels, H, W]``.

        In float64; constant columns keep scale 1. Images in files are each decoded once.

        Raises:
            ValueError: for inputs of another shape, or none.
        """
        images = kind == "image"
        if inputs.ndim != (4 if images else 2) or inputs.numel() == 0:
            raise ValueError(
                f"inputs of shape {list(inputs.shape)} do not fit kind {kind!r}: give [N, F] or [N, channels, H, W]"
            )
        if images and inputs.dtype != torch.uint8:
            raise ValueError(f"images of type {inputs.dtype}: give uint8, 0…255")
        moments = RunningScale()
        # of large images fewer at a time: in float64 they take eight times their size
        rows = max(1, min(128, 2**22 // inputs.shape[1:].numel())) if images else len(inputs)
        for chunk in inputs.split(rows):
            moments.update(chunk.transpose(0, 1).flatten(1).T if images else chunk)
        mean, scale = moments.result()
        standardizer = cls(inputs.shape[1], kind).to(mean.device)
        standardizer.mean.copy_(mean.reshape(standardizer.mean.shape))
        standardizer.scale.copy_(scale.reshape(standardizer.scale.shape))
        return standardizer

    def leave_out(self, columns: Sequence[bool]) -> None:
        """Keep some columns as they are, such as those of categories: a rare one would become a large number."""
        left = torch.tensor(columns)
        self.mean[left], self.scale[left] = 0.0, 1.0

    def forward(self, inputs: Tensor) -> Tensor:
        """Standardized inputs, float32, shape unchanged ``[N, F]`` or ``[N, channels, H, W]``."""
        if inputs.ndim != self.mean.ndim + 1 or inputs.shape[1] != self.mean.shape[0]:
            raise ValueError(
                f"inputs of shape {list(inputs.shape)}, but standardized for [N, {self.mean.shape[0]}"
                f"{', H, W' if self.mean.ndim == 3 else ''}]: give inputs like the training inputs"
            )
        return (inputs.float() - self.mean) / self.scale
