"""The k-nearest-neighbor read-out: how a feature space decides without any training."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ncmi.loss.centroids import FeatureClassifier
from ncmi.loss.forms import check_number, check_whole
from ncmi.loss.simplex import unit_vector
from ncmi.readouts.linear_probe import check_frozen_features

_COMPARISONS = 500_000_000
"""Training samples × neighbors up to which neighbors are looked for among all training samples."""
_FEWEST, _OF_A_CLASS = 1000, 10


def usual_neighbors(samples: int, num_classes: int) -> int:
    """Among how many of the training samples neighbors are looked for, where nothing else is said.

    Who asks grows with who answers, so that comparing all with all is quadratic. Up to 22,360 samples it is all of
    them; of more, 5·10⁸ / samples, but 1,000 and 10 of a class at least.

    >>> usual_neighbors(1_000, 10), usual_neighbors(100_000, 10), usual_neighbors(1_000_000, 500)
    (1000, 5000, 5000)
    """
    return min(samples, max(_COMPARISONS // max(samples, 1), _FEWEST, _OF_A_CLASS * num_classes))


class NearestNeighbors(FeatureClassifier):
    """k nearest neighbors by cosine similarity, votes weighted by ``exp(similarity/temperature)``.

    Args:
        num_classes: C ≥ 2.
        k: neighbors that vote; fewer where the training set is smaller.
        temperature: of the votes, above 0.
        chunk: queries compared at a time; bounds memory at ``chunk × N``.

    Source: the protocol of Wu et al. 2018 (1805.01978), usual for self-supervised features.
    """

    features: Tensor
    labels: Tensor

    def __init__(self, num_classes: int, *, k: int = 20, temperature: float = 0.1, chunk: int = 1024) -> None:
        super().__init__()
        check_whole(num_classes=num_classes, k=k, chunk=chunk)
        check_number("temperature", temperature)
        if num_classes < 2 or k < 1 or chunk < 1 or not 0 < temperature < math.inf:
            raise ValueError(
                f"num_classes={num_classes}, k={k}, chunk={chunk}, temperature={temperature}: "
                "needs at least 2 classes, 1 neighbor, chunks of 1 and a temperature above 0, finite"
            )
        self.num_classes, self.k, self.temperature, self.chunk = num_classes, k, temperature, chunk
        self.register_buffer("features", torch.empty(0))
        self.register_buffer("labels", torch.empty(0, dtype=torch.long))

    def fit(self, features: Tensor, labels: Tensor) -> NearestNeighbors:
        """Keep ``features [N, D]`` at unit length, and ``labels [N]``; forgets earlier fits.

        Raises:
            ValueError: for labels out of range or of another number, or features that are not finite.
        """
        check_frozen_features(features, labels, self.num_classes)
        self.features = unit_vector(features.detach())
        self.labels = labels.to(torch.long, copy=True)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, kept in (("features", self.features), ("labels", self.labels)):  # of as many samples as there are
            if prefix + name in state_dict:
                shape = state_dict[prefix + name].shape
                setattr(self, name, kept if kept.shape == shape else kept.new_empty(shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @torch.no_grad()
    def votes(self, features: Tensor) -> Tensor:
        """Share of the votes for each class, ``[B, D] → [B, C]``, rows sum to one."""
        if len(self.labels) == 0:
            raise RuntimeError("no neighbors yet: call fit(features, labels) first")
        parts = []
        rows = unit_vector(features)
        # the number of chunks of a graph that is exported would hold for one size of batch
        for queries in (rows,) if torch.compiler.is_compiling() else rows.split(self.chunk):
            nearest = (queries @ self.features.T).topk(min(self.k, len(self.labels)))
            weights = torch.softmax(nearest.values / self.temperature, dim=-1)
            none = weights.new_zeros(weights.shape[0], self.num_classes)  # len() would fix the size of a batch
            parts.append(none.scatter_add_(1, self.labels[nearest.indices], weights))
        return torch.cat(parts)

    evidence = votes
    predict_proba = votes

    def forward(self, features: Tensor) -> Tensor:
        """Logarithms of the votes, ``[B, D] → [B, C]``; that of no vote is finite, about −87 in float32."""
        votes = self.votes(features)
        return votes.clamp_min(torch.finfo(torch.float32).tiny).log()
