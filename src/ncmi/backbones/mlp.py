"""A multi-layer perceptron for tables."""

from __future__ import annotations

import math

from torch import Tensor, nn

from ncmi.recipes import Backbone


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
    def from_options(cls, sample_shape: tuple[int, ...], options: Backbone) -> MLP:
        """The network of a recipe."""
        return cls(math.prod(sample_shape), options.width, options.depth, options.feature_dim, options.dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = self.layers(inputs)
        return features
