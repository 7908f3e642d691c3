"""Attention-stabilised multiple instance learning (Ye et al., "ASMIL", arXiv 2603.06658)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ncmi.backbones.bags.anchor import anchor_of, move_anchor
from ncmi.backbones.bags.packing import PackedNetwork, Pooled
from ncmi.backbones.bags.projection import without_autocast
from ncmi.backbones.bags.query_attention import Query, Values
from ncmi.simplex import log_nsf


class ASMIL(PackedNetwork):
    """Several learnable queries, each with multi-head attention of its own, and attention over the tokens they give.

    Each of S queries pools the instances into a token; in training, a random part of the tokens is left out of each
    bag; a class query's attention over the tokens gives the bag vector. An instance's attention is
    ``Σ_s b_s · mean_k α_ski``, with b the class query's weights of the tokens, α those of the instances, k the heads.

    The anchor is a moving average of the first layer and the queries, not trained by gradient. The penalty, the weight
    times ``mean_sk KL(NSF(anchor's scores) ‖ softmax(scores))``, in nats and ≥ 0, holds attention to a distribution
    that changes slowly and that the normalised sigmoid function (NSF) keeps from concentrating.

    Args:
        feature_dim_in: D_feat.
        width: d of the first layer; 0 for 128, 256 or 512 by D_feat. The bag vector is ``[d]``.
        dropout: after the first layer; not in the anchor.
        heads: of each attention, a divisor of d.
        queries: S.
        query_dropout: share of the tokens that is left out, rounded down.
        anchor_weight: of the penalty; at 0 no anchor is kept.
        anchor_decay: share of the old value that the anchor keeps at each :meth:`update`.

    Source: arXiv 2603.06658. In the authors' script the anchor never moves; here it does.

    Example:
        >>> network = ASMIL(feature_dim_in=32)
        >>> bool(network(torch.randn(7, 32)).penalty > 0)
        True
        >>> network.update()
    """

    anchor: nn.ModuleDict | None

    def __init__(
        self,
        feature_dim_in: int,
        *,
        width: int = 0,
        dropout: float = 0.0,
        heads: int = 8,
        queries: int = 4,
        query_dropout: float = 0.5,
        anchor_weight: float = 1.0,
        anchor_decay: float = 0.999,
    ) -> None:
        super().__init__(feature_dim_in, width, dropout)
        dim = self.feature_dim
        if queries < 1 or not 0 <= query_dropout < 1:
            raise ValueError(f"queries={queries}, query_dropout={query_dropout}: at least one query has to be kept")
        self.queries = nn.ModuleList(Query(dim, heads) for _ in range(queries))
        self.values = nn.ModuleList(Values(dim, heads) for _ in range(queries))
        self.class_query = Query(dim, heads)
        self.class_values = Values(dim, heads)
        self.kept = queries - int(queries * query_dropout)
        self.anchor_weight = anchor_weight
        self.anchor_decay = anchor_decay
        self.anchor = anchor_of(self._anchored()) if anchor_weight > 0 else None

    def _anchored(self) -> nn.ModuleDict:
        """The part of the network that the anchor follows."""
        return nn.ModuleDict({"projection": self.projection, "queries": self.queries})

    @torch.no_grad()
    def update(self) -> None:
        """Move the anchor towards the network; once after each optimiser step."""
        if self.anchor is not None:
            move_anchor(self.anchor, self._anchored(), self.anchor_decay)

    def encode(self, rows: Tensor) -> tuple[Tensor, ...]:
        (instances,) = super().encode(rows)
        if not self.training or self.anchor is None:
            return (instances,)
        with torch.no_grad():
            anchored = self.anchor["projection"](rows)
            with without_autocast(rows):
                return instances, anchored @ _directions(self.anchor["queries"]).T

    def pool(self, *parts: Tensor) -> Pooled:
        instances = parts[0]
        with without_autocast(instances):
            logs = torch.log_softmax(_directions(self.queries) @ instances.T, -1)
            weights = logs.exp()
            pooled = (weights @ instances).unflatten(0, (len(self.queries), -1))
            by_query = weights.unflatten(0, (len(self.queries), -1)).mean(1)
            if self.training and self.kept < len(self.queries):
                # of the CPU's generator on every device: the draw belongs to the bag, not to where it is worked out
                kept = sorted(torch.randperm(len(self.queries))[: self.kept].tolist())
            else:
                kept = list(range(len(self.queries)))
            # all of them, so that every weight has a gradient in every step, be it zero
            tokens = torch.stack([values(means) for values, means in zip(self.values, pooled, strict=True)])[kept]
            token_weights = torch.softmax(self.class_query.directions() @ tokens.T, -1)
            vector = self.class_values(token_weights @ tokens)
            attention = token_weights.mean(0) @ by_query[kept]
            return Pooled(vector, attention, self._penalty(logs, *parts[1:]) if self.training else None)

    def _penalty(self, logs: Tensor, *anchor_scores: Tensor) -> Tensor | None:
        if not anchor_scores:
            return None
        divergence = F.kl_div(logs, log_nsf(anchor_scores[0].T), reduction="sum", log_target=True)
        return self.anchor_weight * divergence / len(logs)


def _directions(queries: nn.Module) -> Tensor:
    """Of all heads of all queries, ``[S·H, d]``."""
    return torch.cat([query.directions() for query in queries.children() if isinstance(query, Query)])
