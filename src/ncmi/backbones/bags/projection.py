"""The first layer of all bag networks, and arithmetic in full precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ncmi.simplex import full_precision


def default_width(feature_dim_in: int) -> int:
    """d of the first layer: 128 for features up to 384 wide, 256 up to 512, else 512."""
    return 128 if feature_dim_in <= 384 else 256 if feature_dim_in <= 512 else 512


class Projection(nn.Module):
    """Linear without bias, ReLU: ``[M, D_feat]`` in any floating-point dtype ``→ [M, d]`` in float32 at least.

    Args:
        feature_dim_in: D_feat.
        width: d; 0 for :func:`default_width`.
    """

    def __init__(self, feature_dim_in: int, width: int = 0) -> None:
        super().__init__()
        if feature_dim_in < 1:
            raise ValueError(f"feature_dim_in={feature_dim_in}: must be at least 1")
        self.feature_dim_in = feature_dim_in
        self.width = width or default_width(feature_dim_in)
        self.linear = nn.Linear(feature_dim_in, self.width, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        return full_precision(F.relu(self.linear(rows.to(self.linear.weight.dtype)), inplace=True))


def without_autocast(like: Tensor) -> torch.autocast:
    """A context in which matrix products keep the precision of their inputs, on the device of ``like``."""
    return torch.autocast(like.device.type, enabled=False)
