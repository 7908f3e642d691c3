"""Bags of different sizes laid one after another, without padding."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ncmi.backbones.bags.interface import BagNetwork, BagOutput
from ncmi.backbones.bags.projection import Projection


@dataclass(frozen=True, eq=False)
class Pooled:
    """One bag's vector ``[D]``, attention ``[N]`` and, in training, penalty."""

    vector: Tensor
    attention: Tensor
    penalty: Tensor | None = None


@dataclass(frozen=True, eq=False)
class PackedBags:
    """The instances of one or several bags, and what leads back to the form in which they came.

    Attributes:
        rows: ``[M, D_feat]``, all bags' instances one after another; what stood at padding is not among them.
        sizes: N of each bag, sum M.
        mask: ``[B, N]`` where the batch is padded.
        single: one bag ``[N, D_feat]``, not a batch.
    """

    rows: Tensor
    sizes: list[int]
    mask: Tensor | None
    single: bool

    @classmethod
    def of(cls, features: Tensor, mask: Tensor | None, feature_dim_in: int) -> PackedBags:
        """Pack ``[N, D_feat]``, or ``[B, N, D_feat]`` with its mask ``[B, N]``.

        Raises:
            ValueError: for another shape, width or dtype, an empty bag, or a mask that does not fit.

        Example:
            >>> PackedBags.of(torch.ones(2, 3, 5), torch.tensor([[True] * 3, [True, False, False]]), 5).sizes
            [3, 1]
        """
        _check(features, mask, feature_dim_in)
        if features.dim() == 2:
            return cls(features, [features.shape[0]], None, single=True)
        count, longest, _ = features.shape
        sizes = [longest] * count if mask is None else mask.sum(1).tolist()
        if mask is None or sum(sizes) == count * longest:
            return cls(features.flatten(0, 1), sizes, None, single=False)
        if 0 in sizes:
            raise ValueError(f"bag {sizes.index(0)} of the batch has no instance in its mask: leave empty bags out")
        return cls(features[mask], sizes, mask, single=False)

    def output(self, pooled: Sequence[Pooled]) -> BagOutput:
        """The bags' results in the form of the input; the penalty is their mean."""
        penalties = [one.penalty for one in pooled if one.penalty is not None]
        penalty = torch.stack(penalties).mean() if penalties else None
        if self.single:
            return BagOutput(pooled[0].vector, pooled[0].attention, penalty)
        attention = torch.cat([one.attention for one in pooled])
        if self.mask is None:
            attention = attention.view(len(pooled), -1)
        else:
            attention = attention.new_zeros(self.mask.shape).masked_scatter(self.mask, attention)
        return BagOutput(torch.stack([one.vector for one in pooled]), attention, penalty)


def _check(features: Tensor, mask: Tensor | None, feature_dim_in: int) -> None:
    shape = list(features.shape)
    if features.dim() not in (2, 3) or 0 in shape[:-2]:
        raise ValueError(f"features {shape}: expected one bag [N, D_feat] or a padded batch [B, N, D_feat], B ≥ 1")
    if shape[-1] != feature_dim_in:
        raise ValueError(
            f"features {shape} are {shape[-1]} wide but the network takes {feature_dim_in}: "
            f"make it with feature_dim_in={shape[-1]}, or give it the features of the encoder that it was trained on"
        )
    if shape[-2] == 0:
        raise ValueError(f"features {shape}: a bag needs at least one instance; leave empty bags out")
    if not features.is_floating_point():
        raise ValueError(f"features are {features.dtype}: use features.float()")
    if mask is None:
        return
    if features.dim() == 2:
        raise ValueError(f"features {shape} are one bag, which takes no mask: use features[mask]")
    if mask.dtype != torch.bool or list(mask.shape) != shape[:2]:
        raise ValueError(
            f"mask is {mask.dtype} {list(mask.shape)}: it must be torch.bool {shape[:2]}, True at instances"
        )


class PackedNetwork(BagNetwork):
    """A bag network that begins with Linear + ReLU for each instance and then works bag by bag.

    The first layer, which takes most of the time, runs over the instances of all bags at once. What follows depends on
    a whole bag (softmax, landmarks, the square of TransMIL) and is taken from each bag's own instances, so a batch
    gives what its bags give one by one, and padding is never read.

    Args:
        feature_dim_in: D_feat.
        width: d of the first layer; 0 for 128, 256 or 512 by D_feat.
        dropout: after the first layer.
    """

    def __init__(self, feature_dim_in: int, width: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.projection = Projection(feature_dim_in, width)
        self.dropout = nn.Dropout(dropout)
        self.feature_dim = self.projection.width

    def forward(self, features: Tensor, mask: Tensor | None = None) -> BagOutput:
        bags = PackedBags.of(features, mask, self.projection.feature_dim_in)
        parts = [one.split(bags.sizes) for one in self.encode(bags.rows)]
        return bags.output([self.pool(*bag) for bag in zip(*parts, strict=True)])

    def encode(self, rows: Tensor) -> tuple[Tensor, ...]:
        """What each instance gives by itself: tensors ``[M, ...]`` of ``rows [M, D_feat]``."""
        return (self.dropout(self.projection(rows)),)

    @abstractmethod
    def pool(self, *parts: Tensor) -> Pooled:
        """One bag's result from its part of what :meth:`encode` gives."""
