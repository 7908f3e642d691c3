"""TransMIL (Shao et al., "TransMIL: Transformer based Correlated Multiple Instance Learning", NeurIPS 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ncmi.backbones.bags.nystrom import NystromAttention
from ncmi.backbones.bags.packing import PackedNetwork, Pooled
from ncmi.backbones.bags.ppeg import PPEG


class TransMIL(PackedNetwork):
    """Two layers of Nyström attention over a bag's instances and a class token, position encoding in between.

    Instances are made up to a square by repeating the first of them, in the order in which they come; each layer is
    ``x + attention(LayerNorm(x))``; the bag vector is the LayerNorm of the class token. Of the last layer the class
    token alone is worked out, as nothing else is read.

    Attention: the class token's row of the last layer's attention matrix as Nyström's product approximates it, that is
    the factors with which the layer really reads the instances' values; not the softmax that it stands for. They are
    averaged over heads and added up over an instance's repetitions. The approximation makes some of them negative, the
    more so the more alike landmarks are; these instances count as not attended to (0), and the others are divided by
    their sum. It says nothing of what the first layer has mixed, and has no gradient.

    Args:
        feature_dim_in: D_feat.
        width: d of the first layer; 0 for 128, 256 or 512 by D_feat. The bag vector is ``[d]``.
        dropout: after the first layer.
        heads: of the attention, a divisor of d.
        landmarks: of the attention; 0 for d/2.

    Source: arXiv 2106.00908, with the attention of arXiv 2102.03902.

    Example:
        >>> output = TransMIL(feature_dim_in=32)(torch.randn(7, 32))
        >>> output.vector.shape, output.attention.shape
        (torch.Size([128]), torch.Size([7]))
    """

    def __init__(
        self, feature_dim_in: int, *, width: int = 0, dropout: float = 0.0, heads: int = 8, landmarks: int = 0
    ) -> None:
        super().__init__(feature_dim_in, width, dropout)
        # a bag's square, segments and pseudo-inverse have its own sizes: there is nothing that two bags could share
        self.pools_together = False
        dim = self.feature_dim
        self.class_token = nn.Parameter(torch.randn(1, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.first = NystromAttention(dim, heads, landmarks or max(dim // 2, 1))
        self.positions = PPEG(dim)
        self.last = NystromAttention(dim, heads, landmarks or max(dim // 2, 1))

    def pool(self, mask: Tensor | None, *parts: Tensor) -> Pooled:
        instances = parts[0][0]
        count = len(instances)
        side = math.isqrt(count - 1) + 1
        repeated = side**2 - count
        tokens = torch.cat([self.class_token.to(instances.dtype), instances, instances[:repeated]])
        tokens = tokens + self.first(self.norms[0](tokens))
        class_token, square = tokens.split([1, side**2])
        tokens = torch.cat([class_token, self.positions(square, side)])
        read, row = self.last.class_token(self.norms[1](tokens))
        vector = self.norms[2](class_token[0] + read)
        return Pooled(vector[None], _attention(row.detach(), count)[None])


def _attention(row: Tensor, count: int) -> Tensor:
    """Shares of ``count`` instances, from the class token's row ``[H, 1 + s²]``."""
    share, repeated = row.mean(0)[1:].split([count, row.shape[1] - 1 - count])
    share[: len(repeated)] += repeated
    share = share.clamp_min(0)
    total = share.sum()
    # where the class token reads itself alone, to the last digit, no instance counts more than another
    return torch.where(total > 0, share / total, 1 / count)
