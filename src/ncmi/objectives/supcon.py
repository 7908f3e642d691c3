"""Supervised contrastive loss."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ncmi.loss.simplex import unit_vector
from ncmi.objectives.class_means import ClassMeans
from ncmi.objectives.interface import Objective, check_hard_labels, no_autocast
from ncmi.objectives.options import SupConOptions


def supcon_loss(embeddings: Tensor, labels: Tensor, temperature: float = SupConOptions.temperature) -> Tensor:
    """Mean over anchors i of ``−(1/|P(i)|) Σ_{p∈P(i)} log[exp(h_i·h_p/τ) / Σ_{a≠i} exp(h_i·h_a/τ)]``.

    P(i) are the other rows with the label of i. An anchor without any contributes 0.

    Args:
        embeddings: ``[N, K]``, all views of all samples, one a row, of any length: h is the row at length 1.
            Half precision is computed in float32, also inside autocast.
        labels: ``[N]`` class indices; no soft targets, since pairs are made by label.
        temperature: τ > 0.

    Returns:
        Scalar in nats, ≥ 0.

    Raises:
        ValueError: for soft targets, negative labels or labels of another shape, or an empty batch.

    Source: Khosla et al. 2020, "Supervised contrastive learning", arXiv 2004.11362, Eq. 2 (L_out), with the
    mean over the anchors instead of their sum.

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
        >>> supcon_loss(embeddings, torch.tensor([0, 0, 1]))  # ⅔ log 2: the third anchor has no positive
        tensor(0.4621)
    """
    check_hard_labels(labels, embeddings.shape[0], None, "SupCon")
    h = unit_vector(embeddings)
    with no_autocast(h):
        similarities = h @ h.T / temperature
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    # the lowest number and not −∞: a row of −∞ alone (N = 1) would have no gradient
    others = similarities.masked_fill(itself, torch.finfo(similarities.dtype).min)
    log_ratios = similarities - torch.logsumexp(others, dim=-1, keepdim=True)
    positive = ((labels[:, None] == labels[None, :]) & ~itself).to(similarities.dtype)
    by_anchor = torch.where(positive > 0, log_ratios, torch.zeros_like(log_ratios)).sum(-1)
    return -(by_anchor / positive.sum(-1).clamp(min=1)).mean()


class SupConObjective(Objective):
    """:func:`supcon_loss` on two views behind a projection head Linear(D, D)–ReLU–Linear(D, K).

    Judged by a linear probe on the features, as published. So that it can be followed while it trains, its
    scores are the cosines of a sample's embedding with the running class means of the embeddings.
    """

    views: ClassVar[int] = 2
    readouts = ("lp",)
    couples_samples = True
    options_type = SupConOptions
    options: SupConOptions

    def __init__(self, num_classes: int, feature_dim: int, **options: Any) -> None:
        super().__init__(num_classes, feature_dim, **options)
        dim = self.options.projection_dim
        self.projection = nn.Sequential(nn.Linear(feature_dim, feature_dim), nn.ReLU(), nn.Linear(feature_dim, dim))
        self.prototypes = ClassMeans(num_classes, dim, self.options.prototype_decay)

    def embed(self, features: Tensor) -> Tensor:
        """Embeddings of length 1, ``[..., D] → [..., K]``; never in half precision."""
        return unit_vector(self.projection(features))

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        if features.dim() != 3:
            raise ValueError(
                f"features have shape {list(features.shape)}: SupCon takes [B, views, D]; "
                "give every sample in two augmentations"
            )
        check_hard_labels(labels, features.shape[0], self.num_classes, "SupCon")
        labels = labels.repeat_interleave(features.shape[1])
        return supcon_loss(self.embed(features).flatten(0, 1), labels, self.options.temperature)

    def scores(self, features: Tensor) -> Tensor:
        """Cosines with the class prototypes, ``[B, D] → [B, C]``; −1 for a class not observed yet."""
        embeddings = self.embed(features)
        with no_autocast(embeddings):
            cosines = embeddings @ unit_vector(self.prototypes.means()).to(embeddings.dtype).T
        return torch.where(self.prototypes.seen(), cosines, -torch.ones_like(cosines))

    def log_distribution(self, features: Tensor) -> Tensor:
        """Softmax of the cosines at the temperature of the training: ``[B, D] → [B, C]``."""
        return torch.log_softmax(self.scores(features) / self.options.temperature, dim=-1)

    @torch.no_grad()
    def observe(self, features: Tensor, labels: Tensor, synchronize: bool = False) -> None:
        embeddings = self.embed(features.reshape(len(labels), -1, self.feature_dim))
        self.prototypes.observe(embeddings.flatten(0, 1), labels.repeat_interleave(embeddings.shape[1]))

    def update(self) -> None:
        self.prototypes.update()
