"""The interface of all bag networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn


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


class BagNetwork(nn.Module, ABC):
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
        """Bring what follows the weights (an anchor) up to date; once after each optimiser step. Default: nothing."""
