"""Standardisation: zero mean and unit spread of every column or channel, from the training part only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ncmi.data.dataset import Kind


class Standardiser(nn.Module):
    """``(inputs − mean) / scale`` of each column of a table or each channel of images; at first the identity.

    Args:
        width: F columns or number of channels.
        kind: ``"table"`` or ``"image"``.

    Attributes:
        mean, scale: buffers ``[F]`` or ``[channels, 1, 1]``, float32, in the ``state_dict``.

    Example:
        >>> standardise = Standardiser.fit(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), "table")
        >>> standardise(torch.tensor([[3.0, 5.0]]))
        tensor([[1., 0.]])
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, kind: Kind) -> None:
        super().__init__()
        shape = (width,) if kind == "table" else (width, 1, 1)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    @classmethod
    def fit(cls, inputs: Tensor, kind: Kind) -> Standardiser:
        """Mean and standard deviation (over N) of training inputs ``[N, F]`` or ``[N, channels, H, W]``.

        Accumulated in float64 for tables, exactly for uint8 images. Constant columns keep scale 1.

        Raises:
            ValueError: for inputs of another shape, or none.
        """
        if inputs.ndim != (2 if kind == "table" else 4) or inputs.numel() == 0:
            raise ValueError(
                f"inputs of shape {list(inputs.shape)} do not fit kind {kind!r}: give [N, F] or [N, channels, H, W]"
            )
        mean, variance = _table_moments(inputs) if kind == "table" else _image_moments(inputs)
        standardiser = cls(inputs.shape[1], kind).to(inputs.device)
        standardiser.mean.copy_(mean.reshape(standardiser.mean.shape))
        scale = torch.where(variance > 0, variance.sqrt(), torch.ones_like(variance))
        standardiser.scale.copy_(scale.reshape(standardiser.scale.shape))
        return standardiser

    def forward(self, inputs: Tensor) -> Tensor:
        """Standardised inputs, float32, shape unchanged ``[N, F]`` or ``[N, channels, H, W]``."""
        if inputs.ndim != self.mean.ndim + 1 or inputs.shape[1] != self.mean.shape[0]:
            raise ValueError(
                f"inputs of shape {list(inputs.shape)}, but standardised for [N, {self.mean.shape[0]}"
                f"{', H, W' if self.mean.ndim == 3 else ''}]: give inputs like the training inputs"
            )
        return (inputs.float() - self.mean) / self.scale


def _table_moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    # float64 sums of equal float32 numbers do not round: constant columns have variance 0 exactly
    variance, mean = torch.var_mean(inputs.double(), dim=0, correction=0)
    return mean, variance


def _image_moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    if inputs.dtype != torch.uint8:
        raise ValueError(f"images of type {inputs.dtype}: give uint8, 0…255")
    channels = inputs.shape[1]
    sums, squares = [0] * channels, [0] * channels
    for chunk in torch.split(inputs, 1024):
        pixels = chunk.transpose(0, 1).flatten(1).long()
        sums = [a + b for a, b in zip(sums, pixels.sum(1).tolist(), strict=True)]
        squares = [a + b for a, b in zip(squares, (pixels * pixels).sum(1).tolist(), strict=True)]
    n = inputs.numel() // channels
    mean = [s / n for s in sums]
    variance = [(n * q - s * s) / n**2 for s, q in zip(sums, squares, strict=True)]  # in whole numbers: exact
    return (
        torch.tensor(mean, dtype=torch.float64, device=inputs.device),
        torch.tensor(variance, dtype=torch.float64, device=inputs.device),
    )
