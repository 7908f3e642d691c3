"""Attention entropy maximization (Zhang et al., "AEM", arXiv 2406.15303)."""

import math

import torch
from torch import Tensor

from ncmi.networks.bags.attention import Query, Values, without_autocast
from ncmi.networks.bags.packing import PackedNetwork, Pooled, finite_at, outside


class AEM(PackedNetwork):
    """Multi-head attention of a learnable query over the instances, kept from concentrating by its entropy.

    Attention is the mean over heads. The penalty is ``λ_t · mean_k Σ_i α_ki log α_ki`` over heads k, between −λ log N
    and 0, with ``λ_t = λ · (1 + cos πt)/2`` at the share t of the training that is done.

    Args:
        instance_dim, width, dropout: of a :class:`PackedNetwork`; the bag vector is ``[d]``.
        heads: of the attention, a divisor of d.
        entropy_weight: λ.
        anneal: λ falls along half a cosine, see :meth:`set_progress`; without, it stays.

    Source: arXiv 2406.15303, negative entropy loss and cosine weight annealing.

    Example:
        >>> network = AEM(instance_dim=32, entropy_weight=1.0)
        >>> bool(-math.log(7) < network(torch.randn(7, 32)).penalty < 0)
        True
        >>> network.set_progress(1.0)
        >>> bool(abs(network(torch.randn(7, 32)).penalty) < 1e-6)
        True
    """

    progress: Tensor

    def __init__(
        self,
        instance_dim: int,
        *,
        width: int = 0,
        dropout: float = 0.0,
        heads: int = 8,
        entropy_weight: float = 0.1,
        anneal: bool = True,
    ) -> None:
        super().__init__(instance_dim, width, dropout)
        self.query = Query(self.feature_dim, heads)
        self.values = Values(self.feature_dim, heads)
        self.entropy_weight = entropy_weight
        self.anneal = anneal
        self.register_buffer("progress", torch.zeros(()))

    def set_progress(self, share: float) -> None:
        """Tell how much of the training is done, 0 … 1, before a step."""
        if not 0 <= share <= 1:
            raise ValueError(f"share={share}: the part of the training that is done runs from 0 to 1")
        self.progress.fill_(share)

    def pool(self, mask: Tensor | None, *parts: Tensor) -> Pooled:
        (instances,) = parts
        with without_autocast(instances):
            logs = torch.log_softmax(outside(self.query.directions() @ instances.mT, mask), -1)
            weights = logs.exp()
            vector = self.values(weights @ instances)
            penalty = self._penalty(weights, finite_at(mask, logs)) if self.training else None
            return Pooled(vector, weights.mean(1), penalty)

    def _penalty(self, weights: Tensor, logs: Tensor) -> Tensor:
        negative_entropy = (weights * logs).sum(-1).mean()
        annealed = (1 + torch.cos(math.pi * self.progress)) / 2 if self.anneal else 1.0
        return self.entropy_weight * annealed * negative_entropy
