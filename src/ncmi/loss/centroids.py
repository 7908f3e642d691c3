"""Anchors that centroids start from, and prediction by comparison with the true centroids (CC)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ncmi.loss.checks import check_labels
from ncmi.loss.distributed import all_reduce_sum
from ncmi.loss.divergence import centroid_table, pairwise_divergence, ratio_to_uniform
from ncmi.loss.forms import Anchors, Distribution, NCMIForm, check_choice, check_map
from ncmi.loss.simplex import to_log_distribution

_ROUNDS = 100  # of driving anchors apart, fewer where C²·D is so large that they would take more than seconds
_MOST_WORK = 4e10


def anchor_directions(num_classes: int, dim: int, anchors: Anchors, seed: int = 0) -> Tensor:
    """Unit vectors for the classes to start from, ``[C, D]`` float32.

    Args:
        num_classes: C.
        dim: D.
        anchors: ``"axis"``: the first C coordinate axes, needs D ≥ C. ``"etf"``: cosines as low as D allows. A simplex
            equiangular tight frame, all cosines −1/(C−1), where D ≥ C − 1. For smaller D none exists; up to C = 2D a
            cross-polytope, cosines 0 or −1, has the least possible largest cosine (Rankin 1955), and beyond that
            random directions are driven apart. ``"random"``: independent random directions, whose cosines are about
            1/√D.
        seed: of the random rotation or the random directions; the same on every process.

    Raises:
        ValueError: for axis anchors with D < C, or an unknown name.

    Example:
        >>> (anchor_directions(4, 8, "etf") @ anchor_directions(4, 8, "etf").T)[0, 1].round(decimals=3)
        tensor(-0.3330)
    """
    check_choice("anchors", anchors, Anchors)
    if anchors == "auto":
        anchors = "axis" if dim >= num_classes else "etf"
    if anchors == "axis":
        if dim < num_classes:
            raise ValueError(
                f"D={dim} is smaller than C={num_classes}: axis anchors need D ≥ C; use anchors='etf' or 'random'"
            )
        return torch.eye(num_classes, dim, device="cpu")
    generator = torch.Generator("cpu").manual_seed(seed)
    directions = torch.randn(num_classes, dim, generator=generator, dtype=torch.float64, device="cpu")
    if anchors == "random":
        return F.normalize(directions, dim=1).float()
    if num_classes > 2 * dim:
        return _driven_apart(F.normalize(directions, dim=1).float())
    if num_classes > dim + 1:
        axes = torch.linalg.qr(directions[:dim]).Q
        return torch.cat([axes, -axes])[:num_classes].float()
    # Helmert's matrix: a simplex in the C − 1 dimensions orthogonal to (1, …, 1); a random isometry takes it into D
    simplex = torch.ones(num_classes, num_classes - 1, dtype=torch.float64, device="cpu").triu()
    simplex.diagonal(-1).copy_(-torch.arange(1, num_classes, device="cpu"))
    isometry = torch.linalg.qr(directions.T[:, : num_classes - 1]).Q
    return F.normalize(F.normalize(simplex, dim=0) @ isometry.T, dim=1).float()


def _driven_apart(directions: Tensor) -> Tensor:
    """Each of the unit vectors steps away from its nearest neighbors, round by round more sharply and less far."""
    rounds = min(_ROUNDS, int(_MOST_WORK / (len(directions) ** 2 * directions.shape[1])))
    for sharpness, step in zip(torch.logspace(0.3, 2.6, rounds), torch.logspace(-0.3, -1.7, rounds), strict=True):
        cosines = (directions @ directions.T).fill_diagonal_(-torch.inf)
        neighbors = (cosines * sharpness).softmax(1) @ directions
        directions = F.normalize(directions - step * neighbors, dim=1)
    return directions


class CentroidClassifier(nn.Module):
    """Prediction by centroid comparison (CC): the class whose true centroid ``S_c`` has the least ``KL(P‖S_c)``.

    Fitted in one pass over the training features; ``S_c`` is the mean of class c's distributions.

    Args:
        num_classes: C ≥ 2.
        feature_dim: D ≥ 2.
        temperature, distribution, homogeneous, center: of the map from feature to distribution; those of training.
        power: γ of :meth:`predict_log_proba`, ``π_c ∝ KL(P‖S_c)^{−γ}``.
        chunk_classes: classes compared at a time; bounds memory at ``B × chunk_classes``.

    Example:
        >>> features, labels = torch.tensor([[3.0, 0.0], [2.0, 0.5], [0.0, 1.0]]), torch.tensor([0, 0, 1])
        >>> CentroidClassifier(2, 2).fit(features, labels).predict(torch.tensor([[9.0, 1.0]]))
        tensor([0])
    """

    sums: Tensor
    counts: Tensor
    center: Tensor

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        temperature: float = NCMIForm.temperature,
        distribution: Distribution = NCMIForm.distribution,
        homogeneous: float = NCMIForm.homogeneous,
        center: Tensor | None = None,
        power: float = 4.0,
        chunk_classes: int = 4096,
    ) -> None:
        super().__init__()
        if num_classes < 2 or chunk_classes < 1 or not power > 0:
            raise ValueError(
                f"num_classes={num_classes}, chunk_classes={chunk_classes}, power={power}: "
                "needs at least 2 classes, chunks of at least 1 and a power above 0"
            )
        check_map(temperature, distribution, homogeneous)
        self.num_classes, self.power, self.chunk_classes = num_classes, power, chunk_classes
        self.temperature, self.homogeneous = temperature, homogeneous
        self.distribution: Distribution = distribution
        width = feature_dim + (homogeneous > 0)
        self.register_buffer("sums", torch.zeros(num_classes, width, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.float64))
        self.register_buffer("center", torch.zeros(feature_dim) if center is None else center.detach().clone())

    def log_distribution(self, features: Tensor) -> Tensor:
        """Log-distributions of features, ``[B, D] → [B, D]``, with h > 0 ``[B, D + 1]``."""
        return to_log_distribution(features, self.center, self.temperature, self.distribution, self.homogeneous)

    @torch.no_grad()
    def partial_fit(self, features: Tensor, labels: Tensor) -> CentroidClassifier:
        """Add a batch, ``features [B, D]`` and ``labels [B]``, to the class sums of this process."""
        check_labels(labels, self.num_classes)
        labels = labels.long()
        self.sums.index_add_(0, labels, self.log_distribution(features).exp().double())
        self.counts += torch.bincount(labels, minlength=self.num_classes)
        return self

    def fit(
        self, features: Tensor | Iterable[tuple[Tensor, Tensor]], labels: Tensor | None = None
    ) -> CentroidClassifier:
        """Fit to ``features [N, D]`` and ``labels [N]``, or to an iterable of such batches; forgets earlier fits.

        Where several processes train together, each gives its own part and the sums are added up.

        Raises:
            ValueError: for labels out of range or a tensor of features without labels.
        """
        self.sums.zero_()
        self.counts.zero_()
        if isinstance(features, Tensor):
            if labels is None:
                raise ValueError("fit(features) needs labels: fit(features, labels)")
            features = [(features, labels)]
        for batch, batch_labels in features:
            self.partial_fit(batch, batch_labels)
        all_reduce_sum(self.sums, self.counts)
        return self

    @property
    def centroids(self) -> Tensor:
        """True centroids ``S_c``, ``[C, D]`` float64; a class without samples has the uniform distribution.

        Raises:
            RuntimeError: before :meth:`fit`.
        """
        if not bool(self.counts.any()):
            raise RuntimeError("this CentroidClassifier has no centroids yet: call fit(features, labels) first")
        present = (self.counts > 0).unsqueeze(-1)
        return torch.where(present, self.sums / self.counts.clamp_min(1).unsqueeze(-1), 1 / self.sums.shape[1])

    @torch.no_grad()
    def divergences(self, features: Tensor) -> Tensor:
        """``KL(P‖S_c)`` in nats, ``[B, D] → [B, C]``; +inf for a class that had no sample in :meth:`fit`."""
        alpha = ratio_to_uniform(self.log_distribution(features))
        beta = ratio_to_uniform(self.centroids.log()).to(alpha.dtype)
        with torch.autocast(alpha.device.type, enabled=False):
            parts = [
                pairwise_divergence(alpha, *centroid_table(rows, "sample_to_centroid"), "sample_to_centroid")
                for rows in beta.split(self.chunk_classes)
            ]
        return torch.cat(parts, dim=1).masked_fill(self.counts == 0, torch.inf)

    def predict_log_proba(self, features: Tensor) -> Tensor:
        """``log π_c`` with ``π_c ∝ KL(P‖S_c)^{−γ}``: ``[B, D] → [B, C]``; its largest entry is :meth:`predict`'s."""
        return torch.log_softmax(-self.power * self.divergences(features).log(), dim=-1)

    def predict(self, features: Tensor) -> Tensor:
        """Class of the nearest centroid: ``[B, D] → [B]``."""
        return self.divergences(features).argmin(-1)

    def top_k(self, features: Tensor, k: int) -> Tensor:
        """The k nearest classes, nearest first: ``[B, D] → [B, k]``, 1 ≤ k ≤ C."""
        if not 1 <= k <= self.num_classes:
            raise ValueError(f"k={k}: choose 1 to {self.num_classes}, the number of classes")
        return self.divergences(features).topk(k, largest=False).indices
