"""Attention-based pooling (Ilse, Tomczak, Welling, "Attention-based Deep Multiple Instance Learning", ICML 2018)."""

import torch
from torch import Tensor, nn

from ncmi.loss.simplex import full_precision
from ncmi.networks.bags.attention import without_autocast
from ncmi.networks.bags.packing import PackedNetwork, Pooled, outside


class ABMIL(PackedNetwork):
    """ABMIL: ``Σ_i a_i h_i`` with ``a = softmax_i(wᵀ(tanh(V h_i + v) ⊙ σ(U h_i + u)))``.

    Args:
        instance_dim, width, dropout: of a :class:`PackedNetwork`; the bag vector is ``[d]``.
        attention_dim: rows of V and U.
        gated: with the factor σ(U h_i + u); without it the plain attention.

    Source: Ilse et al. 2018 (arXiv 1802.04712), Eq. 7–9. A bias next to w would cancel in the softmax.

    Example:
        >>> output = ABMIL(instance_dim=32)(torch.randn(7, 32))
        >>> output.vector.shape, output.attention.shape, output.penalty
        (torch.Size([128]), torch.Size([7]), None)
    """

    def __init__(
        self, instance_dim: int, *, width: int = 0, dropout: float = 0.0, attention_dim: int = 128, gated: bool = True
    ) -> None:
        super().__init__(instance_dim, width, dropout)
        self.gated = gated
        # V and U in one matrix: one matrix product instead of two
        self.hidden = nn.Linear(self.feature_dim, attention_dim * (2 if gated else 1))
        self.score = nn.Linear(attention_dim, 1, bias=False)

    def encode(self, rows: Tensor) -> tuple[Tensor, ...]:
        (instances,) = super().encode(rows)
        hidden = self.hidden(instances)
        if self.gated:
            signal, gate = hidden.chunk(2, -1)
            hidden = torch.tanh(signal) * torch.sigmoid(gate)
        else:
            hidden = torch.tanh(hidden)
        with without_autocast(instances):
            return instances, full_precision(hidden) @ full_precision(self.score.weight[0])

    def pool(self, mask: Tensor | None, *parts: Tensor) -> Pooled:
        instances, scores = parts
        with without_autocast(instances):
            attention = torch.softmax(outside(scores, mask), -1)
            return Pooled((attention[:, None] @ instances)[:, 0], attention)
