"""A small convolutional network for small images."""

from __future__ import annotations

import math

from torch import Tensor, nn

from ncmi.recipes import Backbone


class ConvNet(nn.Module):
    """Blocks of two 3×3 convolutions and a halving pool, then the mean over the image: ``[B, C, H, W] → [B, D]``.

    Group normalisation, not batch normalisation: a sample's feature depends on no other sample, so results are the same
    on one process and on several.

    Args:
        channels: of the images.
        width: channels of the first block; each further block doubles them.
        depth: blocks, at least 1. An image smaller than 2^depth pixels is pooled as long as it can be.
        feature_dim: D.
        dropout: before the last layer.
    """

    def __init__(self, channels: int, width: int, depth: int, feature_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for block in range(depth):
            out = width * 2**block
            for _ in range(2):
                layers += [
                    nn.Conv2d(channels, out, 3, padding=1, bias=False),
                    nn.GroupNorm(math.gcd(8, out), out),
                    nn.ReLU(),
                ]
                channels = out
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.blocks = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(channels, feature_dim)

    @classmethod
    def from_options(cls, sample_shape: tuple[int, ...], options: Backbone) -> ConvNet:
        """The network of a recipe.

        Raises:
            ValueError: for samples that are not images, or options out of range.
        """
        if len(sample_shape) != 3:
            raise ValueError(f"a convnet takes images, not samples of shape {list(sample_shape)}: use backbone 'mlp'")
        if options.depth < 1 or options.width < 1:
            raise ValueError(f"{options}: a convnet needs width and depth of at least 1")
        return cls(sample_shape[0], options.width, options.depth, options.feature_dim, options.dropout)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.project(self.dropout(self.blocks(images).mean((-2, -1))))
        return features
