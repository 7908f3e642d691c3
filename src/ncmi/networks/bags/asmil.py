"""Attention-stabilized multiple instance learning (Ye et al., "ASMIL", arXiv 2603.06658)."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ncmi.networks.bags.attention import Query, Values, without_autocast
from ncmi.networks.bags.packing import PackedNetwork, Pooled, finite_at, outside

M = TypeVar("M", bound=nn.Module)


class ASMIL(PackedNetwork):
    """Several learnable queries, each with multi-head attention of its own, and attention over the tokens they give.

    Each of S queries pools the instances into a token; in training, a random part of the tokens is left out of each
    bag; a class query's attention over the tokens gives the bag vector. An instance's attention is
    ``Σ_s b_s · mean_k α_ski``, with b the class query's weights of the tokens, α those of the instances, k the heads.

    The anchor is a moving average of the first layer and the queries, not trained by gradient. The penalty, the weight
    times ``mean_sk KL(NSF(anchor's scores) ‖ softmax(scores))``, in nats and ≥ 0, holds attention to a distribution
    that changes slowly and that the normalized sigmoid function (NSF) keeps from concentrating.

    Args:
        instance_dim, width, dropout: of a :class:`PackedNetwork`; the anchor has no dropout.
        heads: of each attention, a divisor of d.
        queries: S.
        query_dropout: share of the tokens that is left out, rounded down.
        anchor_weight: of the penalty; at 0 no anchor is kept.
        anchor_decay: share of the old value that the anchor keeps at each :meth:`update`.

    Source: arXiv 2603.06658. In the authors' script the anchor never moves; here it does.

    Example:
        >>> network = ASMIL(instance_dim=32)
        >>> bool(network(torch.randn(7, 32)).penalty > 0)
        True
        >>> network.update()
    """

    anchor: nn.ModuleDict | None

    def __init__(
        self,
        instance_dim: int,
        *,
        width: int = 0,
        dropout: float = 0.0,
        heads: int = 8,
        queries: int = 4,
        query_dropout: float = 0.5,
        anchor_weight: float = 1.0,
        anchor_decay: float = 0.999,
    ) -> None:
        super().__init__(instance_dim, width, dropout)
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
        """Move the anchor towards the network; once after each optimizer step."""
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

    def pool(self, mask: Tensor | None, *parts: Tensor) -> Pooled:
        instances, count = parts[0], len(self.queries)
        with without_autocast(instances):
            logs = torch.log_softmax(outside(_directions(self.queries) @ instances.mT, mask), -1)
            weights = logs.exp()
            pooled = (weights @ instances).unflatten(1, (count, -1))
            by_query = weights.unflatten(1, (count, -1)).mean(2)
            # all of them, so that every weight has a gradient in every step, be it zero
            tokens = torch.stack([values(pooled[:, index]) for index, values in enumerate(self.values)], 1)
            kept = self._kept(len(instances)).to(tokens.device)[:, :, None]
            tokens = tokens.gather(1, kept.expand(-1, -1, tokens.shape[2]))
            token_weights = torch.softmax(self.class_query.directions() @ tokens.mT, -1)
            vector = self.class_values(token_weights @ tokens)
            by_query = by_query.gather(1, kept.expand(-1, -1, by_query.shape[2]))
            attention = (token_weights.mean(1)[:, None] @ by_query)[:, 0]
            penalty = self._penalty(finite_at(mask, logs), mask, *parts[1:]) if self.training else None
            return Pooled(vector, attention, penalty)

    def _kept(self, bags: int) -> Tensor:
        """Which tokens each bag keeps, ``[B, kept]``."""
        count = len(self.queries)
        if not self.training or self.kept == count:
            return torch.arange(count).expand(bags, -1)
        # of the CPU's generator on every device: the draw belongs to the bag, not to where it is worked out
        return torch.stack([torch.randperm(count)[: self.kept].sort().values for _ in range(bags)])

    def _penalty(self, logs: Tensor, mask: Tensor | None, *anchor_scores: Tensor) -> Tensor | None:
        if not anchor_scores:
            return None
        # log NSF is the log-softmax of log σ
        target = torch.log_softmax(outside(F.logsigmoid(anchor_scores[0].mT), mask), -1)
        divergence = target.exp() * (finite_at(mask, target) - logs)
        return self.anchor_weight * divergence.sum() / (logs.shape[0] * logs.shape[1])


def _directions(queries: nn.Module) -> Tensor:
    """Of all heads of all queries, ``[S·H, d]``."""
    return torch.cat([query.directions() for query in queries.children() if isinstance(query, Query)])


def anchor_of(module: M) -> M:
    """A copy of a module whose parameters are buffers: in the ``state_dict``, but nothing an optimizer could find.

    Example:
        >>> anchor = anchor_of(nn.Linear(2, 3))
        >>> list(anchor.parameters()), sorted(anchor.state_dict())
        ([], ['bias', 'weight'])
    """
    anchor = copy.deepcopy(module)
    for part in list(anchor.modules()):
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach())
    return anchor


def move_anchor(anchor: nn.Module, module: nn.Module, decay: float) -> None:
    """``anchor ← decay · anchor + (1 − decay) · module``, for each parameter of the module."""
    buffers = dict(anchor.named_buffers())
    for name, parameter in module.named_parameters():
        buffers[name].lerp_(parameter.detach(), 1 - decay)
