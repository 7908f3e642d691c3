"""What the bag networks' attention is made of: first layer, queries, values, full precision."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ncmi.loss.simplex import full_precision
from ncmi.recipes.defaults import bag_network_width


class Projection(nn.Module):
    """Linear without bias, ReLU: ``[M, D_feat]`` in any floating-point dtype ``→ [M, d]`` in float32 at least.

    Args:
        instance_dim: D_feat.
        width: d; 0 for :func:`ncmi.recipes.defaults.bag_network_width`.
    """

    def __init__(self, instance_dim: int, width: int = 0) -> None:
        super().__init__()
        if instance_dim < 1:
            raise ValueError(f"instance_dim={instance_dim}: must be at least 1")
        self.instance_dim = instance_dim
        self.width = width or bag_network_width(instance_dim)
        self.linear = nn.Linear(instance_dim, self.width, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        return full_precision(F.relu(self.linear(rows.to(self.linear.weight.dtype)), inplace=True))


def without_autocast(like: Tensor) -> torch.autocast:
    """A context in which matrix products keep the precision of their inputs, on the device of ``like``."""
    return torch.autocast(like.device.type, enabled=False)


class Query(nn.Module):
    """A learnable query and the key projection of its heads: scores ``q_k · (K_k h_i) / √(d/H)``.

    The query does not depend on the bag, so ``q_kᵀ K_k`` is one vector of width d for each head, made once, and keys
    are never made for the instances: 2·N·d·H operations instead of 2·N·d².

    Args:
        dim: d of the instances.
        heads: H, a divisor of d.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.heads = heads
        self.query = nn.Parameter(torch.randn(heads, dim // heads))
        self.key = nn.Linear(dim, dim, bias=False)

    def directions(self) -> Tensor:
        """``q_kᵀ K_k / √(d/H)`` of each head, ``[H, d]``: an instance's scores are its products with them."""
        keys = full_precision(self.key.weight).view(self.heads, -1, self.key.in_features)
        query = full_precision(self.query) / math.sqrt(self.query.shape[1])
        return (query[:, None] @ keys)[:, 0]


class Values(nn.Module):
    """The value and output projections of multi-head attention with one query.

    ``Σ_i a_i (V h_i + b) = V (Σ_i a_i h_i) + b`` for weights that sum to 1, so values are made of the H pooled
    instances alone.

    Args:
        dim: d of the instances and of the output.
        heads: H, a divisor of d.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.heads = heads
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, pooled: Tensor) -> Tensor:
        """``[..., d]`` of the instances' means under each head's weights, ``[..., H, d]``."""
        weight = full_precision(self.value.weight).view(self.heads, -1, self.value.in_features)
        value = (weight @ pooled[..., None]).flatten(-3) + full_precision(self.value.bias)
        return F.linear(value, full_precision(self.output.weight), full_precision(self.output.bias))


def check_heads(dim: int, heads: int) -> None:
    """Raise ValueError where ``heads`` do not divide ``dim``."""
    if heads < 1 or dim % heads:
        raise ValueError(f"width {dim} cannot be shared among {heads} heads: choose heads that divide it, such as 8")
