"""The interface of all bag networks, and bags of different sizes laid one after another, without padding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ncmi.networks.bags.attention import Projection, without_autocast

TOGETHER = 1 << 16  # instances, with padding, of bags that are pooled at once: for larger ones it saves nothing


class BagOutput(NamedTuple):
    """What a network makes of a bag ``[N, D_feat]``, or of a padded batch of bags ``[B, N, D_feat]``.

    Attributes:
        vector: the bag's feature, ``[D]`` or ``[B, D]``.
        attention: how much each instance counts, ``[N]`` or ``[B, N]``: ≥ 0, sums to 1 over a bag, 0 at padding.
        penalty: auxiliary term of the network, in training added to any objective's loss; a scalar, mean over the
            bags, None where the network has none or is not training.
    """

    vector: Tensor
    attention: Tensor
    penalty: Tensor | None = None


class BagModule(nn.Module, ABC):
    """A network from bags of instance features to bag vectors.

    Attributes:
        feature_dim: D, width of the bag vector.
    """

    feature_dim: int

    @abstractmethod
    def forward(self, features: Tensor, mask: Tensor | None = None) -> BagOutput:
        """Bag vector and attention.

        Args:
            features: ``[N, D_feat]``, N ≥ 1, or a padded batch ``[B, N, D_feat]``.
            mask: with a batch, ``[B, N]`` bool, True at instances; None where no bag is padded.
        """

    def set_progress(self, share: float) -> None:
        """Tell how much of the training is done, 0 … 1, before a step. Default: not used."""

    def update(self) -> None:
        """Bring what follows the weights (an anchor) up to date; once after each optimizer step. Default: nothing."""


@dataclass(frozen=True, eq=False)
class Pooled:
    """Of B bags: vectors ``[B, D]``, attention ``[B, N]``, 0 at padding, and in training the mean penalty."""

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
    def of(cls, features: Tensor, mask: Tensor | None, instance_dim: int) -> PackedBags:
        """Pack ``[N, D_feat]``, or ``[B, N, D_feat]`` with its mask ``[B, N]``.

        Raises:
            ValueError: for another shape, width or dtype, an empty bag, or a mask that does not fit.

        Example:
            >>> PackedBags.of(torch.ones(2, 3, 5), torch.tensor([[True] * 3, [True, False, False]]), 5).sizes
            [3, 1]
        """
        _check(features, mask, instance_dim)
        if features.dim() == 2:
            return cls(features, [features.shape[0]], None, single=True)
        count, longest, _ = features.shape
        sizes = [longest] * count if mask is None else mask.sum(1).tolist()
        if mask is None or sum(sizes) == count * longest:
            return cls(features.flatten(0, 1), sizes, None, single=False)
        if 0 in sizes:
            raise ValueError(f"bag {sizes.index(0)} of the batch has no instance in its mask: leave empty bags out")
        return cls(features[mask], sizes, mask, single=False)

    def mask_of(self, group: Sequence[int]) -> Tensor | None:
        """``[G, N]``, True at the instances of some bags that begin their rows; None where all are as long."""
        sizes = [self.sizes[bag] for bag in group]
        if min(sizes) == max(sizes):
            return None
        return (torch.tensor(sizes)[:, None] > torch.arange(max(sizes))).to(self.rows.device)

    def rows_of(self, group: Sequence[int], part: Tensor) -> Tensor:
        """Of ``part [M, ...]`` what belongs to some bags."""
        chunks = part.split(self.sizes)
        # a large bag by itself is not copied
        return chunks[group[0]] if len(group) == 1 else torch.cat([chunks[bag] for bag in group])

    def is_as_pooled(self, group: Sequence[int]) -> bool:
        """Whether the batch came as a group's rows are: all bags in their order, padded behind and no further."""
        mask = self.mask_of(group)
        if list(group) != list(range(len(self.sizes))) or (mask is None) != (self.mask is None):
            return False
        return mask is None or self.mask is None or torch.equal(mask, self.mask)

    def output(self, groups: Sequence[Sequence[int]], pooled: Sequence[Pooled]) -> BagOutput:
        """The results of groups of bags, which together are all bags, in the form of the input; penalties' mean."""
        penalties = [
            result.penalty * (len(group) / len(self.sizes))
            for group, result in zip(groups, pooled, strict=True)
            if result.penalty is not None
        ]
        penalty = torch.stack(penalties).sum() if penalties else None
        if self.single:
            return BagOutput(pooled[0].vector[0], pooled[0].attention[0], penalty)
        if len(groups) == 1 and self.is_as_pooled(groups[0]):
            return BagOutput(pooled[0].vector, pooled[0].attention, penalty)
        order = torch.tensor([bag for group in groups for bag in group]).argsort()
        vector = torch.cat([result.vector for result in pooled])
        vector = vector.index_select(0, order.to(vector.device))
        rows = [row for result in pooled for row in result.attention]
        flat = torch.cat([rows[place][: self.sizes[bag]] for bag, place in enumerate(order.tolist())])
        if self.mask is None:
            return BagOutput(vector, flat.view(len(self.sizes), -1), penalty)
        return BagOutput(vector, flat.new_zeros(self.mask.shape).masked_scatter(self.mask, flat), penalty)


def _check(features: Tensor, mask: Tensor | None, instance_dim: int) -> None:
    shape = list(features.shape)
    if features.dim() not in (2, 3) or 0 in shape[:-2]:
        raise ValueError(f"features {shape}: expected one bag [N, D_feat] or a padded batch [B, N, D_feat], B ≥ 1")
    if shape[-1] != instance_dim:
        raise ValueError(
            f"features {shape} are {shape[-1]} wide but the network takes {instance_dim}: "
            f"make it with instance_dim={shape[-1]}, or give it the features of the encoder that it was trained on"
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


class PackedNetwork(BagModule):
    """A bag network that begins with Linear + ReLU for each instance and then pools each bag.

    The first layer, which takes most of the time, runs over the instances of all bags at once. What follows depends on
    a whole bag (softmax, landmarks, the square of TransMIL) and is taken from each bag's own instances, so a batch
    gives what its bags give one by one, and what stands at padding is never read. Small bags are pooled in groups, see
    :meth:`groups`, with zeros at their padding; large ones one by one, without any.

    Args:
        instance_dim: D_feat.
        width: d of the first layer, ``h = ReLU(W x)``; 0 for 128, 256 or 512 by D_feat.
        dropout: after the first layer.

    Attributes:
        output_layer: None, or what the bag vector goes through at last, see :meth:`add_output_layer`.
    """

    def __init__(self, instance_dim: int, width: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.output_layer: nn.Linear | None = None
        self.projection = Projection(instance_dim, width)
        self.dropout = nn.Dropout(dropout)
        self.feature_dim = self.projection.width

    def forward(self, features: Tensor, mask: Tensor | None = None) -> BagOutput:
        bags = PackedBags.of(features, mask, self.projection.instance_dim)
        parts = self.encode(bags.rows)
        groups = self.groups(bags.sizes)
        pooled = []
        for group in groups:
            inside = bags.mask_of(group)
            rows = parts if len(groups) == 1 else [bags.rows_of(group, part) for part in parts]
            pooled.append(self.pool(inside, *(_in_rows(part, inside, len(group)) for part in rows)))
        output = bags.output(groups, pooled)
        if self.output_layer is None:
            return output
        with without_autocast(output.vector):
            return output._replace(vector=self.output_layer(output.vector))

    def add_output_layer(self) -> None:
        """From now on the bag vector goes through a linear layer d → d with bias, newly initialized."""
        self.output_layer = nn.Linear(self.feature_dim, self.feature_dim)

    def groups(self, sizes: list[int]) -> list[list[int]]:
        """Which bags are pooled at once, given the N of each: by default all, or where they are large, none."""
        bags = list(range(len(sizes)))
        # a single bag is asked no size: an exported network takes bags of any
        return [bags] if len(bags) == 1 or len(sizes) * max(sizes) <= TOGETHER else [[bag] for bag in bags]

    def encode(self, rows: Tensor) -> tuple[Tensor, ...]:
        """What each instance gives by itself: tensors ``[M, ...]`` of ``rows [M, D_feat]``."""
        return (self.dropout(self.projection(rows)),)

    @abstractmethod
    def pool(self, mask: Tensor | None, *parts: Tensor) -> Pooled:
        """The result of B bags from their part of what :meth:`encode` gives, ``[B, N, ...]``, 0 outside the mask.

        Each bag begins its row, and the longest fills it; there is no mask where all do.
        """


def _in_rows(part: Tensor, mask: Tensor | None, count: int) -> Tensor:
    """``[M, ...]`` of some bags as ``[G, N, ...]``, zero at padding."""
    if mask is None:
        return part.view(count, -1, *part.shape[1:])
    return part.new_zeros((*mask.shape, *part.shape[1:])).index_put((mask,), part)


def outside(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Logits ``[B, ..., N]`` with −∞ at padding."""
    return _filled(logits, mask, -torch.inf)


def finite_at(mask: Tensor | None, logs: Tensor) -> Tensor:
    """Logarithms ``[B, ..., N]`` with 0 at padding, where they are −∞: for sums of products with zeros."""
    return _filled(logs, mask, 0.0)


def _filled(values: Tensor, mask: Tensor | None, padding: float) -> Tensor:
    return (
        values if mask is None else values.masked_fill(~mask.view(len(mask), *(1,) * (values.dim() - 2), -1), padding)
    )
