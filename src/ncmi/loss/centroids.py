"""Anchors that centroids start from, and prediction by comparison with the true centroids (CC)."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ncmi.loss.checks import check_labels, check_tensor
from ncmi.loss.distributed import all_reduce_sum
from ncmi.loss.divergence import (
    centroid_table,
    concentration,
    divergence_from_uniform,
    least_exactly,
    pairwise_divergence,
    ratio_to_uniform,
    rounding_of,
)
from ncmi.loss.forms import (
    Anchors,
    Distribution,
    FeatureLength,
    NCMIForm,
    check_choice,
    check_map,
    check_number,
    check_whole,
)
from ncmi.loss.signs import sign_directions
from ncmi.loss.simplex import to_log_distribution

# Of driving anchors apart: rounds, and the log10 of how sharply neighbors are told at the start.
_ROUNDS, _SHARPNESS = 100, 0.3
# Where there are more classes, fewer rounds that begin sharper reach the same cosines, as many as take seconds.
_MANY_CLASSES, _FEWER_ROUNDS, _SHARPER = 1000, 30, 1.3
_MOST_WORK, _LEAST_ROUNDS = 6e10, 5
_BLOCK = 2**18  # cosines in memory at once
_ROWS = 65536  # samples whose distributions are in memory at once


def anchor_directions(num_classes: int, dim: int, anchors: Anchors, seed: int = 0) -> Tensor:
    """Unit vectors for the classes to start from, ``[C, D]`` float32.

    Args:
        num_classes: C.
        dim: D.
        anchors: ``"axis"``: the first C coordinate axes, needs D ≥ C. ``"etf"``: cosines as low as D allows. A simplex
            equiangular tight frame, all cosines −1/(C−1), where D ≥ C − 1. For smaller D none exists; up to C = 2D a
            cross-polytope, cosines 0 or −1, has the least possible largest cosine (Rankin 1955). Beyond that, random
            directions are driven apart; above 1000 classes waves with polynomial phases take their place, largest
            cosine about √(2/D), as far as they go (C ≤ D²), and where D is small and C so large that driving would take
            more than seconds. ``"random"``: independent random directions, whose cosines are about 1/√D. ``"signs"``:
            the like of random signs, each from its class's number alone, see :func:`ncmi.loss.signs.sign_directions`.
        seed: of the random rotation or the random directions; the same on every process.

    Raises:
        ValueError: for axis anchors with D < C, or an unknown name.

    Warns:
        UserWarning: where ``"etf"`` is left at random directions, C being too large for D.

    Source: waves: Wootters & Fields 1989, "Optimal state-determination by mutually unbiased measurements", for degree
    2; Weil's bound of exponential sums for higher ones.

    Example:
        >>> (anchor_directions(4, 8, "etf") @ anchor_directions(4, 8, "etf").T)[0, 1].round(decimals=3)
        tensor(-0.3330)
    """
    check_choice("anchors", anchors, Anchors)
    check_whole(num_classes=num_classes, dim=dim, seed=seed)
    if anchors == "auto":
        anchors = "axis" if dim >= num_classes else "etf"
    if anchors == "axis":
        if dim < num_classes:
            raise ValueError(
                f"D={dim} is smaller than C={num_classes}: axis anchors need D ≥ C; use anchors='etf' or 'random'"
            )
        return torch.eye(num_classes, dim, device="cpu")
    if anchors == "signs":
        directions = torch.empty(num_classes, dim, device="cpu")
        for rows, classes in zip(directions.split(_ROWS), torch.arange(num_classes).split(_ROWS), strict=True):
            rows.copy_(sign_directions(classes, dim, seed))
        return directions
    generator = torch.Generator("cpu").manual_seed(seed)
    if anchors == "etf" and num_classes > max(2 * dim, _MANY_CLASSES):
        return _many_directions(num_classes, dim, generator)
    directions = torch.randn(num_classes, dim, generator=generator, dtype=torch.float64, device="cpu")
    if anchors == "random":
        return F.normalize(directions, dim=1).float()
    if num_classes > 2 * dim:
        return _driven_apart(F.normalize(directions, dim=1).float(), _ROUNDS, _SHARPNESS)
    if num_classes > dim + 1:
        axes = torch.linalg.qr(directions[:dim]).Q
        return torch.cat([axes, -axes])[:num_classes].float()
    # Helmert's matrix: a simplex in the C − 1 dimensions orthogonal to (1, …, 1); a random isometry takes it into D
    simplex = torch.ones(num_classes, num_classes - 1, dtype=torch.float64, device="cpu").triu()
    simplex.diagonal(-1).copy_(-torch.arange(1, num_classes, device="cpu"))
    isometry = torch.linalg.qr(directions.T[:, : num_classes - 1]).Q
    return F.normalize(F.normalize(simplex, dim=0) @ isometry.T, dim=1).float()


def _many_directions(num_classes: int, dim: int, generator: torch.Generator) -> Tensor:
    """Directions with low cosines where driving apart by the usual rounds would take long."""
    prime, degree = _wave_family(num_classes, dim)
    # a round takes about 0.07·(D + 45) ns a pair
    rounds = min(_FEWER_ROUNDS, int(_MOST_WORK / (num_classes**2 * (dim + 45))))
    by_chance = math.sqrt(2 * math.log(num_classes**2 / 2) / dim)  # the largest cosine of random directions
    if degree == 2 or (rounds < _LEAST_ROUNDS and (degree - 1) / math.sqrt(prime) < 0.8 * by_chance):
        basis = torch.randn(dim, 2 * prime, generator=generator, dtype=torch.float64, device="cpu")
        return _waves(num_classes, prime, degree, torch.linalg.qr(basis).Q.float())
    if rounds == 0:
        warnings.warn(
            f"{num_classes} classes are too many to drive their anchors apart in {dim} dimensions: anchors='etf' is "
            "near 'random' here; take a larger feature_dim, or say 'random'",
            stacklevel=3,
        )
    directions = torch.randn(num_classes, dim, generator=generator, device="cpu")
    return _driven_apart(F.normalize(directions, dim=1), rounds, _SHARPER)


def _driven_apart(directions: Tensor, rounds: int, sharpness: float) -> Tensor:
    """Each of the unit vectors steps away from its nearest neighbors, round by round more sharply and less far."""
    rows = max(1, _BLOCK // len(directions))
    for scale, step in zip(torch.logspace(sharpness, 2.6, rounds), torch.logspace(-0.3, -1.7, rounds), strict=True):
        steps = []
        for start in range(0, len(directions), rows):
            cosines = directions[start : start + rows] @ directions.T
            cosines.diagonal(start).fill_(-torch.inf)
            steps.append(cosines.mul_(scale).softmax(1) @ directions)
        directions = F.normalize(directions - step * torch.cat(steps), dim=1)
    return directions


def _wave_family(num_classes: int, dim: int) -> tuple[int, int]:
    """Length of waves that D dimensions hold, a prime p ≤ D/2, and the degree k whose 4·p^k waves are enough."""
    prime = max(dim // 2, 2)
    while any(prime % divisor == 0 for divisor in range(2, math.isqrt(prime) + 1)):
        prime -= 1
    degree = 2
    while 4 * prime**degree < num_classes:
        degree += 1
    return prime, degree


def _waves(num_classes: int, prime: int, degree: int, isometry: Tensor) -> Tensor:
    """The first C of the waves ``i^t·exp(2πi·f(x)/p)/√p``, as real vectors of twice the length, taken to D dimensions.

    f runs over the polynomials of a degree k without constant term and t over quarter turns; the number of a wave has
    them as its digits. By Weil's bound cosines are at most (k − 1)/√p; waves whose polynomials differ in the linear
    term alone are orthogonal, so that each 4p together are a cross-polytope.
    """
    x = torch.arange(prime, dtype=torch.int32, device="cpu")
    circle = torch.arange(8 * prime, dtype=torch.float64, device="cpu") * (math.pi / (2 * prime))  # twice around
    cosine, sine = (circle.cos() / math.sqrt(prime)).float(), (circle.sin() / math.sqrt(prime)).float()
    directions = torch.empty(num_classes, len(isometry), device="cpu")
    for number in torch.arange(num_classes, device="cpu").split(max(1, _BLOCK // prime)):
        turn, polynomial = number // prime % 4, number // (4 * prime) * prime + number % prime
        phase = torch.zeros(len(number), prime, dtype=torch.int32, device="cpu")
        for power in reversed(range(degree)):
            coefficient = (polynomial // prime**power % prime).int().unsqueeze(1)
            phase = (phase + coefficient) * x % prime
        place = 4 * phase + (prime * turn).int().unsqueeze(1)
        waves = torch.cat([cosine[place], sine[place]], dim=1)
        directions[number[0] : number[-1] + 1] = F.normalize(waves @ isometry.T, dim=1)
    return directions


class FeatureClassifier(nn.Module, ABC):
    """What decides on features: centroid comparison, linear probe, neighbors. All of it without gradient.

    Subclasses give :meth:`evidence` and :meth:`forward`; features are ``[B, D]`` everywhere.
    """

    num_classes: int

    @abstractmethod
    def evidence(self, features: Tensor) -> Tensor:
        """What the classes are ranked by, ``[B, D] → [B, C]``, the higher the likelier."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Scores that are log-probabilities, ``[B, D] → [B, C]``."""

    def predict_log_proba(self, features: Tensor) -> Tensor:
        """Log-probabilities, ``[B, D] → [B, C]``; the largest entry is :meth:`predict`'s."""
        log_p: Tensor = self(features)
        return log_p

    def predict_proba(self, features: Tensor) -> Tensor:
        """Probabilities, ``[B, D] → [B, C]``; rows sum to one."""
        return self.predict_log_proba(features).exp()

    def predict(self, features: Tensor) -> Tensor:
        """Most probable class, ``[B, D] → [B]``."""
        return self.evidence(features).argmax(-1)

    def top_k(self, features: Tensor, k: int) -> Tensor:
        """The k most probable classes, most probable first: ``[B, D] → [B, k]``, 1 ≤ k ≤ C.

        Raises:
            ValueError: for another k.
        """
        if not 1 <= k <= self.num_classes:
            raise ValueError(f"k={k}: choose 1 to {self.num_classes}, the number of classes")
        return self.evidence(features).topk(k).indices


class CentroidClassifier(FeatureClassifier):
    """Prediction by centroid comparison (CC): the class whose true centroid ``S_c`` has the least ``KL(P‖S_c)``.

    Fitted in one pass over the training features; ``S_c`` is the mean of class c's distributions.

    Args:
        num_classes: C ≥ 2.
        feature_dim: D ≥ 2.
        temperature, distribution, feature_length, center: of the map from feature to distribution; those of
            training. By default each feature is divided by its own length, as in the paper.
        power: γ of the probabilities, ``π_c ∝ KL(P‖S_c)^{−γ}``.
        chunk_classes: classes compared at a time; bounds memory at ``B × chunk_classes``.

    Example:
        >>> features, labels = torch.tensor([[3.0, 0.0], [2.0, 0.5], [0.0, 1.0]]), torch.tensor([0, 0, 1])
        >>> CentroidClassifier(2, 2).fit(features, labels).predict(torch.tensor([[9.0, 1.0]]))
        tensor([0])
    """

    sums: Tensor
    counts: Tensor
    center: Tensor
    _kept: tuple[tuple[Any, ...], tuple[Tensor, list[tuple[Tensor, Tensor]]]] | None = None

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        temperature: float = NCMIForm.temperature,
        distribution: Distribution = NCMIForm.distribution,
        feature_length: FeatureLength = "own",
        center: Tensor | None = None,
        power: float = 4.0,
        chunk_classes: int = 4096,
    ) -> None:
        super().__init__()
        check_whole(num_classes=num_classes, feature_dim=feature_dim, chunk_classes=chunk_classes)
        check_number("power", power)
        if num_classes < 2 or chunk_classes < 1 or not 0 < power < math.inf:
            raise ValueError(
                f"num_classes={num_classes}, chunk_classes={chunk_classes}, power={power}: "
                "needs at least 2 classes, chunks of at least 1 and a finite power above 0"
            )
        check_map(temperature, distribution, feature_length)
        self.num_classes, self.power, self.chunk_classes = num_classes, power, chunk_classes
        self.temperature, self.feature_length = temperature, feature_length
        self.distribution: Distribution = distribution
        self.register_buffer("sums", torch.zeros(num_classes, feature_dim, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.float64))
        self.register_buffer("center", torch.zeros(feature_dim) if center is None else center.detach().clone())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}

    def log_distribution(self, features: Tensor) -> Tensor:
        """Log-distributions of features, ``[B, D] → [B, D]``."""
        return to_log_distribution(features, self.center, self.temperature, self.distribution, self.feature_length)

    @torch.no_grad()
    def partial_fit(self, features: Tensor, labels: Tensor, sample_weight: Tensor | None = None) -> CentroidClassifier:
        """Add a batch, ``features [B, D]`` and ``labels [B]``, to the class sums of this process.

        With ``sample_weight [B]``, ≥ 0, a sample counts as so many.
        """
        check_tensor(features, "features")
        check_labels(labels, self.num_classes)
        labels = labels.long()
        weights = torch.ones_like(labels) if sample_weight is None else sample_weight
        # by parts: the distributions of all samples in float64 may be larger than everything else
        for rows, classes, of_rows in zip(
            features.split(_ROWS), labels.split(_ROWS), weights.to(self.sums).split(_ROWS), strict=True
        ):
            p = self.log_distribution(rows).exp().double()
            self.sums.index_add_(0, classes, p * of_rows.unsqueeze(1))
            self.counts.index_add_(0, classes, of_rows)
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
        # a graph that is compiled or exported cannot look at values
        if not torch.compiler.is_compiling() and not bool(self.counts.any()):
            raise RuntimeError("this CentroidClassifier has no centroids yet: call fit(features, labels) first")
        present = (self.counts > 0).unsqueeze(-1)
        return torch.where(present, self.sums / self.counts.clamp_min(1).unsqueeze(-1), 1 / self.sums.shape[1])

    @property
    def feature_dim(self) -> int:
        """D."""
        return self.sums.shape[1]

    def state_tensors(self) -> Iterator[Tensor]:
        """What the centroids are computed from."""
        yield from (self.sums, self.counts)

    @torch.no_grad()
    def beta_rows(self, rows: slice) -> tuple[Tensor, Tensor]:
        """``log(D·S_c)`` of some classes, ``[n, D]``, uniform without samples; and which have any, ``[n]``."""
        present = self.counts[rows] > 0
        ratio = self.sums[rows] * (self.sums.shape[1] / self.counts[rows].clamp_min(1).unsqueeze(-1))
        return torch.where(present.unsqueeze(-1), ratio.log(), 0.0), present

    def _tables(self, dtype: torch.dtype) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """β, and by chunks side and gap of the centroids; kept while the buffers that they come from are unchanged."""
        if torch.compiler.is_compiling() or self.sums.is_inference() or self.counts.is_inference():
            return self._new_tables(dtype)
        source = (self.sums, self.counts, self.sums._version, self.counts._version, self.chunk_classes, dtype)
        if self._kept is None or any(
            a is not b if isinstance(a, Tensor) else a != b for a, b in zip(self._kept[0], source, strict=True)
        ):
            self._kept = source, self._new_tables(dtype)
        return self._kept[1]

    def _new_tables(self, dtype: torch.dtype) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        beta = ratio_to_uniform(self.centroids.log()).to(dtype)
        return beta, [centroid_table(rows, "sample_to_centroid") for rows in beta.split(self.chunk_classes)]

    @torch.no_grad()
    def divergences(self, features: Tensor) -> Tensor:
        """``KL(P‖S_c)`` in nats, ``[B, D] → [B, C]``; +inf for a class that had no sample in :meth:`fit`.

        The nearest centroid's is exact also where it is small.
        """
        alpha = ratio_to_uniform(self.log_distribution(features))
        with torch.autocast(alpha.device.type, enabled=False):
            beta, tables = self._tables(alpha.dtype)
            parts = [pairwise_divergence(alpha, *table, "sample_to_centroid") for table in tables]
            divergence = torch.cat(parts, dim=1).masked_fill(self.counts == 0, torch.inf)
            nearest = divergence.argmin(1, keepdim=True)
            exact = concentration(alpha, beta.index_select(0, nearest.squeeze(1))).unsqueeze(-1)
            farthest = torch.stack([gap.amax(0) for _, gap in tables]).amax(0)
            apart = farthest + divergence_from_uniform(alpha, torch.expm1(alpha), forward=True).unsqueeze(-1)
            return least_exactly(divergence, nearest, exact, rounding_of(apart))

    def evidence(self, features: Tensor) -> Tensor:
        """``−KL(P‖S_c)``: the class of the nearest centroid is the likeliest, ``[B, D] → [B, C]``."""
        return -self.divergences(features)

    def forward(self, features: Tensor) -> Tensor:
        """``log π_c`` with ``π_c ∝ KL(P‖S_c)^{−γ}``: ``[B, D] → [B, C]``."""
        return torch.log_softmax(-self.power * self.divergences(features).log(), dim=-1)
