"""NCMILoss: the module that owns the center and the centroids and replaces ``nn.CrossEntropyLoss``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ncmi.loss.centroids import CentroidClassifier, anchor_directions
from ncmi.loss.checks import check_targets
from ncmi.loss.divergence import CentroidView, pairwise_divergence, ratio_to_uniform
from ncmi.loss.forms import (
    Anchors,
    Center,
    CentroidMode,
    Direction,
    Distribution,
    NCMIForm,
    Reduction,
    check_sizes,
    likelihood_power,
)
from ncmi.loss.functional import LossForm, check_divergences, choose_path, loss_of_distributions, loss_of_terms
from ncmi.loss.kernels import sweep_terms
from ncmi.loss.simplex import centered_feature, full_precision, log_simplex, to_log_distribution
from ncmi.loss.statistics import CentroidMeans, ClassWeights, RunningCenter, before_update

_CONFIDENCE_DECAY = 0.98  # the last fifty steps or so


class NCMILoss(nn.Module):
    """Normalized conditional mutual information loss: ``loss(features, labels)`` on the network's features.

    Takes the place of ``nn.CrossEntropyLoss``; the network gives its feature and has no classifier head::

        criterion = ncmi.NCMILoss(num_classes=10, feature_dim=512)
        optimizer = torch.optim.SGD([*network.parameters(), *criterion.parameters()], lr=0.1)
        loss = criterion(network(images), labels)

    Args:
        num_classes: C ≥ 2.
        feature_dim: D ≥ 2, the width of the feature and of the simplex, which has D + 1 with ``homogeneous`` above 0.
        center_updates: number of batches that make a frozen center.
        class_weights: ``None``; ``[C]`` weights; or ``"balanced"``, N/(C·n_c), from the counts of
            :meth:`set_class_counts` or, without them, from the labels seen so far.
        anchor_seed: of random and ETF anchors.

    All other arguments are the form of the loss, with the defaults and meanings of :class:`ncmi.loss.forms.NCMIForm`.

    Center, centroids and counters are buffers or parameters and so in the ``state_dict``. Calling the module in
    training mode also updates them, once a call, from sums and counts over all processes. A loop that accumulates
    gradients calls :meth:`loss` and :meth:`observe` for each micro-batch and :meth:`update` once per step instead.

    Raises:
        ValueError: for options out of range or that exclude each other; the message names the cure.

    Source: arXiv 2601.02543; p ≠ 1, the likelihood form and the homogeneous coordinate are this library's.

    Example:
        >>> criterion = NCMILoss(num_classes=3, feature_dim=8)
        >>> criterion(torch.eye(8)[:3], torch.tensor([0, 1, 2])).isfinite()
        tensor(True)
    """

    centroid_logits: Tensor

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        temperature: float = NCMIForm.temperature,
        distribution: Distribution = NCMIForm.distribution,
        homogeneous: float = NCMIForm.homogeneous,
        centroids: CentroidMode = NCMIForm.centroids,
        anchors: Anchors = NCMIForm.anchors,
        anchor_scale: float | None = NCMIForm.anchor_scale,
        center: Center = NCMIForm.center,
        center_decay: float = NCMIForm.center_decay,
        center_updates: int = 100,
        centroid_decay: float = NCMIForm.centroid_decay,
        separation_power: float | None = NCMIForm.separation_power,
        separation_direction: Direction = NCMIForm.separation_direction,
        reduction: Reduction = NCMIForm.reduction,
        robustness: float | Literal["auto"] = NCMIForm.robustness,
        class_weights: Literal["balanced"] | Tensor | Sequence[float] | None = NCMIForm.class_weights,
        anchor_seed: int = 0,
    ) -> None:
        nn.Module.__init__(self)  # not super(): an objective stands behind it in ncmi.objectives.ncmi
        check_sizes(num_classes, feature_dim)
        if feature_dim < 2:
            raise ValueError(f"the simplex needs a feature of width D ≥ 2, got D={feature_dim}: widen the network")
        NCMIForm(  # checks them
            temperature=temperature,
            distribution=distribution,
            homogeneous=homogeneous,
            centroids=centroids,
            anchors=anchors,
            anchor_scale=anchor_scale,
            center=center,
            center_decay=center_decay,
            centroid_decay=centroid_decay,
            separation_power=separation_power,
            separation_direction=separation_direction,
            reduction=reduction,
            robustness=robustness,
            class_weights=class_weights if isinstance(class_weights, str) else None,
        )
        if separation_power is None:
            separation_power = -likelihood_power(num_classes)
        self.num_classes, self.feature_dim = num_classes, feature_dim
        self.temperature, self.homogeneous = temperature, homogeneous
        self.distribution: Distribution = distribution
        self.centroids: CentroidMode = centroids
        self.separation_power = separation_power
        self.separation_direction: Direction = separation_direction
        self.reduction: Reduction = reduction
        self.robustness: float | Literal["auto"] = robustness
        self.confidence = (
            RunningCenter(1, "ema", decay=_CONFIDENCE_DECAY, center_updates=1) if robustness == "auto" else None
        )
        # a weighted mean divides by the sum of the batch's own weights
        self.couples_samples = reduction == "ratio_of_means" or class_weights is not None

        # learned centroids without a scale are kept as directions, whose length does not count
        self.on_feature_sphere = centroids == "learned" and anchor_scale is None
        scale = 1.0 if self.on_feature_sphere else anchor_scale or 1 / temperature
        width = feature_dim + (homogeneous > 0)
        logits = scale * anchor_directions(num_classes, width, anchors, anchor_seed)
        if centroids == "learned":
            self.centroid_logits = nn.Parameter(logits)
        else:
            self.register_buffer("centroid_logits", logits)
        self.class_means = (
            CentroidMeans(log_simplex(logits, distribution).exp(), decay=centroid_decay)
            if centroids == "class_mean"
            else None
        )
        self.running_center = (
            None
            if center == "none"
            else RunningCenter(feature_dim, center, decay=center_decay, center_updates=center_updates)
        )
        self.class_weights = None if class_weights is None else ClassWeights(num_classes, class_weights)
        self._constant_view: CentroidView | None = None
        self._remember_fixed_centroids()

    @property
    def present_robustness(self) -> float | Tensor:
        """q of the next step: the option, or where that is ``"auto"``, how sure the model has lately been."""
        if self.confidence is None:
            assert not isinstance(self.robustness, str)
            return self.robustness
        return before_update(self.confidence.mean).clamp_min(1 / self.num_classes)

    @property
    def center(self) -> Tensor | None:
        """μ ``[D]``, or None without centering."""
        return None if self.running_center is None else before_update(self.running_center.mean)

    def log_centroids(self) -> Tensor:
        """Log-distributions of the training centroids, ``[C, D]``, with gradient where they are learned."""
        if self.class_means is not None:
            return self.class_means.means.log()
        return self._log_centroids(full_precision(self.centroid_logits).dtype)

    def _log_centroids(self, dtype: torch.dtype) -> Tensor:
        if self.on_feature_sphere:
            return to_log_distribution(self.centroid_logits.to(dtype), None, self.temperature, self.distribution)
        return log_simplex(self._logits().to(dtype), self.distribution)

    def _logits(self) -> Tensor:
        """Λ ``[C, D]`` in float32 at least."""
        logits = full_precision(self.centroid_logits)
        return F.normalize(logits, dim=-1) / self.temperature if self.on_feature_sphere else logits

    def check_settable(self) -> None:
        """Raise ValueError where :meth:`set_centroids` cannot be used."""
        if self.on_feature_sphere:
            raise ValueError(
                "learned centroids without anchor_scale stay where features can be, which class means are not: "
                "use anchor_scale=10, or centroids='fixed'"
            )

    @torch.no_grad()
    def set_centroids(self, centroids: Tensor) -> None:
        """Put the centroids to given distributions ``[C, D]``, e.g. the true ones: the closed-form update.

        Raises:
            ValueError: for another shape, a probability that is not positive, or centroids that may not leave the
                features' sphere.
        """
        self.check_settable()
        if centroids.shape != self.centroid_logits.shape or not bool((centroids > 0).all()):
            raise ValueError(f"centroids must be {list(self.centroid_logits.shape)} positive probabilities")
        log_q = centroids.log()
        if self.class_means is not None:
            self.class_means.means.copy_(centroids)
            return
        if self.distribution == "nsf":
            # σ(Λ) must be proportional to the centroid: its largest component gets σ = 1/2 or, near uniform, all do
            log_sigma = log_q - log_q.amax(-1, keepdim=True) - math.log(2)
            log_q = log_sigma - torch.log1p(-log_sigma.exp())
        self.centroid_logits.copy_(log_q)
        self._remember_fixed_centroids()

    def _view(self, dtype: torch.dtype) -> CentroidView:
        if self._constant_view is not None and self._constant_view.beta.dtype == dtype:
            return self._constant_view
        if self.class_means is not None:
            return CentroidView(before_update(self.class_means.means).to(dtype).log(), self.separation_direction)
        return CentroidView(self._log_centroids(dtype), self.separation_direction)

    def _remember_fixed_centroids(self) -> None:
        """Fixed centroids are constants: with what the loss derives from them, a step costs O(B·D) whatever C is."""
        if self.centroids == "fixed":
            self._constant_view = None
            # all of it now, and as normal tensors: what is first computed in inference mode cannot be trained with
            with torch.inference_mode(False), torch.no_grad():
                view = self._view(full_precision(self.centroid_logits).dtype)
                _ = view.sums(), view.table(), view.table("sample_to_centroid")
            self._constant_view = view

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> NCMILoss:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._remember_fixed_centroids()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._remember_fixed_centroids()

    def log_distribution(self, features: Tensor) -> Tensor:
        """Log-distributions of features with the present center, ``[B, D] → [B, D]`` (``[B, D + 1]`` with h > 0)."""
        return to_log_distribution(features, self.center, self.temperature, self.distribution, self.homogeneous)

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss, without any update of state: ``features [B, D]``, ``labels [B]`` or soft targets ``[B, C]``.

        Returns:
            Scalar, or ``[B]`` with ``reduction="none"``.
        """
        if features.dim() != 2 or features.shape[1] != self.feature_dim:
            raise ValueError(
                f"features {list(features.shape)}: expected [B, {self.feature_dim}]; set feature_dim to the network's"
            )
        check_targets(labels, len(features), self.num_classes)
        path = choose_path(
            features,
            labels,
            self.reduction,
            self.separation_power,
            self.separation_direction,
            distribution=self.distribution,
            temperature=self.temperature,
        )
        weights = None if self.class_weights is None else self.class_weights()
        form = LossForm(self.reduction, self.separation_power, self.present_robustness, weights)
        if path != "sweep":
            log_p = self._promote(self.log_distribution(features))
            return loss_of_distributions(log_p, labels, self._view(log_p.dtype), path, form)
        with torch.autocast("cpu", enabled=False):
            centered = self._promote(centered_feature(features, self.center, self.homogeneous))
            learned = self.centroids == "learned"
            centroids = self._logits().to(centered.dtype) if learned else self._view(centered.dtype)
            labels = labels.long()
            own, separation = sweep_terms(centered, self.temperature, labels, centroids)
            return loss_of_terms(own, separation, labels, self.num_classes, form)

    def _promote(self, x: Tensor) -> Tensor:
        """To the wider of its own dtype and the centroids', float32 at least."""
        return x.to(torch.promote_types(x.dtype, full_precision(self.centroid_logits).dtype))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss; in training mode also observes the batch and updates center and class means."""
        if not self.training:
            return self.loss(features, labels)
        if self.class_weights is not None:
            self.class_weights.observe(labels, synchronize=True)
        value = self.loss(features, labels)
        self._observe_features(features, labels)
        self.update(synchronize=True)
        return value

    def observe(self, features: Tensor, labels: Tensor) -> None:
        """Add a micro-batch's sums and counts to the statistics that :meth:`update` will use."""
        if self.class_weights is not None:
            self.class_weights.observe(labels)
        self._observe_features(features, labels)

    @torch.no_grad()
    def _observe_features(self, features: Tensor, labels: Tensor) -> None:
        if self.class_means is not None:
            self.class_means.observe(self.log_distribution(features).exp(), labels)
        if self.running_center is not None:
            self.running_center.observe(full_precision(features))
        if self.confidence is not None:
            self.confidence.observe(self.predict_proba(features).amax(-1, keepdim=True))

    def update(self, synchronize: bool = False) -> None:
        """Bring center, class means and confidence up to date; with ``synchronize``, from all processes' sums."""
        for statistics in (self.class_means, self.running_center, self.confidence):
            if statistics is not None:
                statistics.update(synchronize)

    def set_class_counts(self, counts: Tensor) -> None:
        """Tell how many training samples each class has, ``[C]``, for ``class_weights="balanced"``."""
        if self.class_weights is not None:
            self.class_weights.set_counts(counts)

    @property
    def likelihood_power(self) -> float:
        """γ of :meth:`predict_log_proba`: −p where p is negative and finite (as trained), else 1."""
        return -self.separation_power if -math.inf < self.separation_power < 0 else 1.0

    def predict_log_proba(self, features: Tensor) -> Tensor:
        """``log π_c`` with ``π_c ∝ KL(P‖Q_c)^{−γ}`` over the training centroids: ``[B, D] → [B, C]``.

        With ``reduction="log_likelihood"`` and direction ``"sample_to_centroid"`` this is the trained likelihood: the
        loss is its negative at the label.
        """
        log_p = self._promote(self.log_distribution(features))
        view = self._view(log_p.dtype)
        with torch.autocast(log_p.device.type, enabled=False):
            direction: Direction = "sample_to_centroid"
            divergence = pairwise_divergence(ratio_to_uniform(log_p), *view.table(direction), direction)
        check_divergences(divergence)
        return torch.log_softmax(-self.likelihood_power * divergence.log(), dim=-1)

    def predict_proba(self, features: Tensor) -> Tensor:
        """Class probabilities π, ``[B, D] → [B, C]``; see :meth:`predict_log_proba`."""
        return self.predict_log_proba(features).exp()

    def scores(self, features: Tensor) -> Tensor:
        """:meth:`predict_log_proba`: the class of the nearest training centroid has the highest score."""
        return self.predict_log_proba(features)

    def network_parameters(self) -> Iterator[nn.Parameter]:
        """None: the loss has no head."""
        return iter(())

    def centroid_parameters(self) -> Iterator[nn.Parameter]:
        """Learned centroids: their logits Λ, or without ``anchor_scale`` their directions, ``[C, D]``."""
        if isinstance(self.centroid_logits, nn.Parameter):
            yield self.centroid_logits

    def centroid_classifier(self, power: float | None = None) -> CentroidClassifier:
        """An unfitted :class:`ncmi.CentroidClassifier` with this loss's center, temperature and distribution."""
        classifier = CentroidClassifier(
            self.num_classes,
            self.feature_dim,
            temperature=self.temperature,
            distribution=self.distribution,
            homogeneous=self.homogeneous,
            center=self.center,
            power=power or self.likelihood_power,
        )
        return classifier.to(self.centroid_logits.device)
