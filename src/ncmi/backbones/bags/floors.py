"""Mean and maximum over a bag: floors that attention has to rise above."""

from __future__ import annotations

from torch import Tensor

from ncmi.backbones.bags.packing import PackedNetwork, Pooled
from ncmi.backbones.bags.projection import without_autocast


class MeanPool(PackedNetwork):
    """The mean of ``h = ReLU(W x)`` over a bag; every instance's attention is 1/N.

    Args:
        feature_dim_in: D_feat.
        width: d of the first layer; 0 for 128, 256 or 512 by D_feat.
        dropout: after the first layer.
    """

    def __init__(self, feature_dim_in: int, *, width: int = 0, dropout: float = 0.0) -> None:
        super().__init__(feature_dim_in, width, dropout)

    def groups(self, sizes: list[int]) -> list[list[int]]:
        return [[bag] for bag in range(len(sizes))]

    def pool(self, mask: Tensor | None, *parts: Tensor) -> Pooled:
        (instances,) = parts
        count = instances.shape[1]
        return Pooled(instances.mean(1), instances.new_full((1, count), 1 / count))


class MaxPool(PackedNetwork):
    """The maximum of each component of ``h = ReLU(W x)`` over a bag.

    Attention is the share of components that an instance gives; instances with the same largest value, such as the zero
    of a component that is nowhere active, share it equally, as they share its gradient.

    Args:
        feature_dim_in: D_feat.
        width: d of the first layer; 0 for 128, 256 or 512 by D_feat.
        dropout: after the first layer.
    """

    def __init__(self, feature_dim_in: int, *, width: int = 0, dropout: float = 0.0) -> None:
        super().__init__(feature_dim_in, width, dropout)

    def groups(self, sizes: list[int]) -> list[list[int]]:
        return [[bag] for bag in range(len(sizes))]

    def pool(self, mask: Tensor | None, *parts: Tensor) -> Pooled:
        (instances,) = parts
        vector = instances.amax(1)
        largest = (instances.detach() == vector.detach()[:, None]).to(instances.dtype)
        with without_autocast(instances):
            return Pooled(vector, (largest @ (1 / largest.sum(1))[:, :, None])[..., 0] / vector.shape[1])
