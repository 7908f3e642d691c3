"""Simple networks: a multi-layer perceptron for tables, a small convolutional network for small images."""

from __future__ import annotations

import math

from torch import Tensor, nn

from ncmi.networks.resnet import check_no_residual_options
from ncmi.recipes import Network


class MLP(nn.Module):
    """Hidden layers of Linear + ReLU, then a linear layer to the feature: ``[B, ...] → [B, feature_dim]``.

    Args:
        in_features: values of one sample; inputs are flattened.
        width: units of each hidden layer.
        depth: number of hidden layers, at least 0.
        feature_dim: D.
        dropout: after each hidden layer.
    """

    def __init__(self, in_features: int, width: int, depth: int, feature_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for _ in range(depth):
            layers += [nn.Linear(in_features, width), nn.ReLU()]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            in_features = width
        self.layers = nn.Sequential(*layers, nn.Linear(in_features, feature_dim))

    @classmethod
    def from_options(cls, sample_shape: tuple[int, ...], options: Network) -> MLP:
        """The network of a recipe.

        Raises:
            ValueError: for options of residual networks.
        """
        check_no_residual_options(options)
        return cls(math.prod(sample_shape), options.width, options.depth, options.feature_dim, options.dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = self.layers(inputs)
        return features


class ConvNet(nn.Module):
    """Blocks of two 3×3 convolutions and a halving pool, then the mean over the image: ``[B, C, H, W] → [B, D]``.

    Group normalization, not batch normalization: a sample's feature depends on no other sample, so results are the same
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
    def from_options(cls, sample_shape: tuple[int, ...], options: Network) -> ConvNet:
        """The network of a recipe.

        Raises:
            ValueError: for samples that are not images, or options out of range.
        """
        if len(sample_shape) != 3:
            raise ValueError(
                f"a convnet takes images, not samples of shape {list(sample_shape)}: use network 'mlp' "
                "(--network.name mlp)"
            )
        check_no_residual_options(options)
        if options.depth < 1 or options.width < 1:
            raise ValueError(f"{options}: a convnet needs width and depth of at least 1")
        return cls(sample_shape[0], options.width, options.depth, options.feature_dim, options.dropout)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.project(self.dropout(self.blocks(images).mean((-2, -1))))
        return features
