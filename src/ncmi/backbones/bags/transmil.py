"""TransMIL (Shao et al., "TransMIL: Transformer based Correlated Multiple Instance Learning", NeurIPS 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ncmi.backbones.bags.nystrom import NystromAttention
from ncmi.backbones.bags.packing import TOGETHER, PackedNetwork, Pooled
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
        dim = self.feature_dim
        self.class_token = nn.Parameter(torch.randn(1, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.first = NystromAttention(dim, heads, landmarks or max(dim // 2, 1))
        self.positions = PPEG(dim)
        self.last = NystromAttention(dim, heads, landmarks or max(dim // 2, 1))

    def groups(self, sizes: list[int]) -> list[list[int]]:
        """Bags whose squares are equal have segments and pseudo-inverses of equal sizes."""
        by_side: dict[int, list[list[int]]] = {}
        for bag, size in enumerate(sizes):
            side = _side(size)
            found = by_side.setdefault(side, [[]])
            if (len(found[-1]) + 1) * side**2 > TOGETHER and found[-1]:
                found.append([])
            found[-1].append(bag)
        return [group for found in by_side.values() for group in found]

    def pool(self, mask: Tensor | None, *parts: Tensor) -> Pooled:
        (instances,) = parts
        count, longest, dim = instances.shape
        side = _side(longest)
        # the first instances again where the square is not full
        turn = torch.arange(side**2, device=instances.device)
        if mask is None:
            mask = torch.ones((count, longest), dtype=torch.bool, device=instances.device)
            places = (turn % longest).expand(count, -1)
            square = torch.cat([instances, instances[:, : side**2 - longest]], 1)
        else:
            places = turn % mask.sum(1, keepdim=True)
            square = instances.gather(1, places.unsqueeze(-1).expand(-1, -1, dim))
        tokens = torch.cat([self.class_token.to(instances.dtype).expand(count, 1, dim), square], 1)
        tokens = tokens + self.first(self.norms[0](tokens))
        class_token, square = tokens.split([1, side**2], 1)
        tokens = torch.cat([class_token, self.positions(square, side)], 1)
        read, row = self.last.class_token(self.norms[1](tokens))
        vector = self.norms[2](class_token[:, 0] + read)
        return Pooled(vector, _attention(row.detach(), places, mask))


def _side(size: int) -> int:
    """Side of the smallest square that holds a bag."""
    return math.isqrt(size - 1) + 1


def _attention(row: Tensor, places: Tensor, mask: Tensor) -> Tensor:
    """Shares of the instances ``[G, N]``, from the class tokens' rows ``[G, H, 1 + s²]``.

    Args:
        row: factors with which class tokens read themselves and the square.
        places: which of the N stands at each place of the square, ``[G, s²]``.
        mask: which of the N are instances, ``[G, N]``.
    """
    share = row.new_zeros(mask.shape).scatter_add_(1, places, row.mean(1)[:, 1:]).clamp_min_(0)
    total = share.sum(1, keepdim=True)
    # where the class token reads itself alone, to the last digit, no instance counts more than another
    return torch.where(total > 0, share / total, mask / mask.sum(1, keepdim=True).to(share.dtype))
