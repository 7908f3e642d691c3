"""NCMILoss, which takes features and labels, and NCMIHead, which takes the last layer's place: one state, two calls."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from ncmi.loss.autograd import by_hand, full_products, is_transformed
from ncmi.loss.centroids import CentroidClassifier, anchor_directions
from ncmi.loss.checks import IGNORE, SUM_TOLERANCE, Batch, as_rows, check_tensor
from ncmi.loss.chunked import WORTH, ChunkPlan, Reduce, Skips, can_chunk, chunk_size, chunked_surprisal, sample_classes
from ncmi.loss.class_sums import LearnedSums
from ncmi.loss.distributed import gather_batch, world_size
from ncmi.loss.divergence import CentroidView, ratio_to_uniform
from ncmi.loss.forms import (
    Anchors,
    Center,
    CentroidMode,
    Direction,
    Distribution,
    FeatureLength,
    Form,
    NCMIForm,
    Reduction,
    check_number,
    check_reduction,
    check_sizes,
    check_whole,
    common_length,
    likelihood_power,
)
from ncmi.loss.functional import Terms, check_divergences, choose_path, loss_of_ratios, loss_of_surprisal, loss_of_terms
from ncmi.loss.likelihood import Map, likelihood_scores, likelihood_surprisal, mean_surprisal
from ncmi.loss.signs import SignView
from ncmi.loss.simplex import centered_feature, full_precision, log_ratio, logits_of, to_log_distribution
from ncmi.loss.statistics import CentroidMeans, ClassWeights, RunningCenter, StepWatch, as_it_is, is_recomputation, put
from ncmi.loss.sweep import sweep_terms

_DOUBT_DECAY = 0.98  # the last fifty steps or so
# of labels that the model contradicts: from here on "auto" takes them for wrong. Below, q falls with the square, as
# labels that are merely not learned yet are to be learned; chosen by validation on development sets
_MANY_CONTRADICTED = 1 / 15
_LEAST_ROBUSTNESS = 1e-3  # the likelihood, to three digits
# options that are words, in a state by their number
_WORDS: dict[str, tuple[str, ...]] = {
    "separation_direction": get_args(Direction),
    "form": get_args(Form),
    "distribution": get_args(Distribution),
}
_FINGERPRINT = 4096  # values of fixed centroids that are looked at for a change that left no other trace


class NCMIBase(nn.Module):
    """What :class:`NCMILoss` and :class:`NCMIHead` are alike: centroids, center, their state, and all that is computed.

    Center, centroids and counters are buffers or parameters and so in the ``state_dict``; so are the options that
    change what it means. Calling the module in training mode, with gradients enabled, collects statistics, which move
    once per optimizer step, from sums and counts over all processes. A loop of one's own may call :meth:`loss` and
    :meth:`observe` for each micro-batch and :meth:`update` once per step instead.
    """

    centroid_logits: Tensor
    dim = 1  # of the features, in a call

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        center_updates: int = 100,
        weight: Literal["balanced"] | Tensor | Sequence[float] | None = None,
        ignore_index: int = IGNORE,
        reduction: Reduction = "mean",
        anchor_seed: int = 0,
        chunk_classes: int | Literal["auto"] = "auto",
        negligible: float | None = None,
        sampled_classes: int | None = None,
        sparse_gradient: bool = False,
        **form: Any,
    ) -> None:
        nn.Module.__init__(self)  # not super(): an objective stands behind it in ncmi.objectives.ncmi
        check_sizes(num_classes, feature_dim)
        if feature_dim < 2:
            raise ValueError(f"the simplex needs a feature of width D ≥ 2, got D={feature_dim}: widen the network")
        check_whole(center_updates=center_updates, ignore_index=ignore_index, anchor_seed=anchor_seed)
        options = NCMIForm(weight=weight if isinstance(weight, str) else None, **form)  # checks them
        check_reduction(options.form, reduction)
        self.num_classes, self.feature_dim = num_classes, feature_dim
        self.temperature = options.temperature
        self.feature_length = common_length(options.feature_length, feature_dim)
        self.distribution: Distribution = options.distribution
        self.centroid_mode: CentroidMode = options.centroids
        self.anchors: Anchors = options.anchors
        self.anchor_scale, self.anchor_seed = options.anchor_scale, anchor_seed
        power = options.separation_power
        if power is None:
            power = -likelihood_power(num_classes, own_length=self.feature_length is None)
        self.separation_power = power
        self.separation_direction: Direction = options.separation_direction
        self.form: Form = options.form
        self.robustness: float | Literal["auto"] = options.robustness
        self.reduction: Reduction = reduction
        self.ignore_index, self.label_smoothing = ignore_index, options.label_smoothing
        # a weighted mean divides by the sum of the batch's own weights
        self.couples_samples = options.form == "ratio_of_means" or weight is not None
        # learned centroids without a scale are kept as features are: points, or directions whose length does not count
        self.as_features = options.centroids == "learned" and options.anchor_scale is None

        self.chunk_classes, self.negligible = chunk_classes, negligible
        self.sampled_classes, self.sparse_gradient = sampled_classes, sparse_gradient
        self.skips: Skips | None = None
        self._check_many_classes()
        # with p = 1 a step needs no more of fixed anchors than can be made anew each time
        self._on_demand = (
            options.centroids == "fixed" and self.anchors == "signs" and power == 1 and self.distribution == "nsf"
        )

        shape = (0 if self._on_demand else num_classes), feature_dim
        if options.centroids == "learned":
            self.centroid_logits = nn.Parameter(torch.empty(shape))
        else:
            self.register_buffer("centroid_logits", torch.empty(shape))
        self.class_means = (
            CentroidMeans(shape, decay=options.centroid_decay) if options.centroids == "class_mean" else None
        )
        self.running_center = (
            None
            if options.center == "none"
            else RunningCenter(feature_dim, options.center, decay=options.center_decay, center_updates=center_updates)
        )
        # how sure the model is, and how many labels it contradicts
        self.doubt = (
            RunningCenter(2, "ema", decay=_DOUBT_DECAY, center_updates=1) if options.robustness == "auto" else None
        )
        self.class_weights = None if weight is None else ClassWeights(num_classes, weight)
        # the default form without anything that is weighed or counted; see _short
        self._is_plain = (
            self.as_features
            and self.distribution == "nsf"
            and self.form == "likelihood"
            and self.separation_direction == "sample_to_centroid"
            and self.reduction == "mean"
            and (self.robustness, self.label_smoothing) == (0, 0)
            and self.class_weights is None
            and not self._moves
            and not 0 <= ignore_index < num_classes
        )
        self.shard: Reduce | None = None  # see ncmi.loss.shards
        self._watch = StepWatch()
        self._constant: tuple[Tensor, tuple[Any, ...], CentroidView] | None = None
        self._averages_gradient = self._had_labels = False
        self.reset_parameters()

    # State

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Put centroids to their anchors, and forget center, counts and averages."""
        for statistics in (self.running_center, self.doubt, self.class_weights):
            if statistics is not None:
                statistics.reset_parameters()
        if self.centroid_logits.device.type == "meta":
            return
        if self._on_demand:
            return
        if self.shard is not None:
            raise RuntimeError("centroids that are spread over processes are put to their anchors by making them anew")
        scale = self.anchor_length
        anchors = anchor_directions(self.num_classes, self.centroid_logits.shape[1], self.anchors, self.anchor_seed)
        put(self.centroid_logits, scale * anchors)
        if self.class_means is not None:
            self.class_means.reset(torch.exp(log_ratio(scale * anchors, self.distribution)) / anchors.shape[1])

    @property
    def anchor_length(self) -> float:
        """Length of the anchors as the parameter or buffer has them."""
        return (self.feature_length or 1.0) if self.as_features else self.anchor_scale or 1 / self.temperature

    @property
    def _is_likelihood(self) -> bool:
        """Whether the loss is the surprisal of what is predicted."""
        return self.form == "likelihood" and self.separation_direction == "sample_to_centroid"

    def _check_many_classes(self) -> None:
        likely = self._is_likelihood and self.distribution == "nsf"
        for name, least, unset in (("chunk_classes", 1, "auto"), ("sampled_classes", 1, None)):
            value = getattr(self, name)
            if value == unset:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r}: use a number of classes of at least {least}, or {unset!r}")
            if not likely:
                raise ValueError(
                    f"{name}={value} is for form='likelihood' with separation_direction='sample_to_centroid' and "
                    f"distribution='nsf': leave it at {unset!r}; with p = 1 no B×C table is made in any case"
                )
        if self.negligible is not None:
            check_number("negligible", self.negligible)
            if not 0 <= self.negligible < 1:
                raise ValueError(
                    f"negligible={self.negligible}: a share of the gradient's weight, 0 to 1; None for rounding"
                )
        if self.sampled_classes is not None and (self.label_smoothing or self.centroid_mode == "class_mean"):
            raise ValueError(
                "sampled_classes with smoothed labels or class means, which need all classes: leave it out"
            )
        if self.sparse_gradient and (self.sampled_classes is None or self.centroid_mode != "learned"):
            raise ValueError(
                "sparse_gradient needs sampled_classes and learned centroids: without samples every centroid has a "
                "gradient"
            )

    def check_shardable(self) -> None:
        """Raise ValueError where :func:`ncmi.loss.shards.shard_centroids` cannot be used."""
        linear = self.separation_power == 1
        reasons = {
            "centroids that are not learned": self.centroid_mode != "learned" or self.shard is not None,
            "distribution='softmax'": self.distribution != "nsf",
            "another form than the likelihood or p = 1": not linear and not self._is_likelihood,
            "a free length of the centroids, anchor_scale": not self.as_features and not linear,
            "smoothed labels": self.label_smoothing > 0,
            "sampled_classes": self.sampled_classes is not None,
            "a center or robustness='auto', whose statistics are of one process": self._moves,
            "weight": self.class_weights is not None,
            "ignore_index among the classes": 0 <= self.ignore_index < self.num_classes,
        }
        for reason, holds in reasons.items():
            if holds:
                raise ValueError(
                    f"centroids cannot be spread over processes with {reason}: leave it out, or do not shard"
                )

    def get_extra_state(self) -> Tensor:
        """The options that change what the state means, as numbers, which every format of checkpoints can hold."""
        numbers = [_WORDS[name].index(value) if name in _WORDS else float(value) for name, value in self._meaning()]
        return torch.tensor(numbers, dtype=torch.float64, device="cpu")

    def _meaning(self) -> list[tuple[str, Any]]:
        names = ("num_classes", "temperature", "separation_power", *_WORDS)
        values = [(name, getattr(self, name)) for name in names]
        if self._on_demand:
            values += [("anchor_seed", self.anchor_seed), ("anchor_scale", self.anchor_length)]
        # no length is 0
        return [*values, ("feature_length", self.feature_length or 0.0), ("anchor_scale=None", self.as_features)]

    def set_extra_state(self, state: Tensor) -> None:
        """Compare the options of a checkpoint with this module's.

        Raises:
            RuntimeError: where they differ, as for any state that does not fit; the message names them.
        """
        if state.device.type == "meta":
            return
        own, theirs = (x.to("cpu", torch.float64).tolist() for x in (self.get_extra_state(), state))
        if len(theirs) != len(own):
            raise RuntimeError(f"the state of another version, with {len(theirs)} options: train it once more")
        if theirs[0] != own[0]:
            return  # no tensor fits, which is said of them, or wanted: a body that is trained on for other classes
        different = [
            f"{name}={_as_given(name, value, number)} (here {_as_given(name, value, here)})"
            for (name, value), number, here in zip(self._meaning(), theirs, own, strict=True)
            if not math.isclose(number, here, rel_tol=1e-12)
        ]
        if different:
            raise RuntimeError(
                f"this state was trained with other options: {', '.join(different)}; make the module with them"
            )

    def extra_repr(self) -> str:
        shown: dict[str, Any] = {"centroids": self.centroid_mode, "T": self.temperature, "form": self.form}
        shown |= {"direction": self.separation_direction, "p": round(self.separation_power, 4)}
        defaults = {field.name: field.default for field in fields(NCMIForm)}
        shown |= {name: getattr(self, name) for name in ("distribution", "robustness")
                  if getattr(self, name) != defaults[name]}  # fmt: skip
        shown["length"] = "own" if self.feature_length is None else round(self.feature_length, 4)
        if self.running_center is not None:
            shown["center"] = self.running_center.mode
        sizes = f"num_classes={self.num_classes}, feature_dim={self.feature_dim}"
        return ", ".join([sizes, *(f"{name}={value}" for name, value in shown.items())])

    @property
    def present_robustness(self) -> float | Tensor:
        """q of the next step: the option, or where that is ``"auto"``, what the model has lately made of its labels."""
        if self.doubt is None:
            assert not isinstance(self.robustness, str)
            return self.robustness
        sure, contradicted = as_it_is(self.doubt.mean).split(1)
        return torch.minimum(sure, (contradicted / _MANY_CONTRADICTED).square()).clamp_min(_LEAST_ROBUSTNESS)

    @property
    def center(self) -> Tensor | None:
        """μ ``[D]``, or None without centering."""
        return None if self.running_center is None else as_it_is(self.running_center.mean)

    @property
    def centroids(self) -> Tensor:
        """Distributions of the training centroids, ``[C, D]``, with gradient where they are learned."""
        return self.log_centroids().exp()

    def log_centroids(self) -> Tensor:
        """Log-distributions of the training centroids, ``[C, D]``, with gradient where they are learned."""
        beta = self._beta(self._dtype())
        return beta - math.log(beta.shape[1])

    def _dtype(self) -> torch.dtype:
        return full_precision(self.centroid_logits).dtype

    def _beta(self, dtype: torch.dtype) -> Tensor:
        """``log(D·Q)``, ``[C, D]``."""
        if self.class_means is not None:
            return ratio_to_uniform(as_it_is(self.class_means.means).to(dtype).log())
        if self._on_demand:
            return self._view(dtype).beta
        return log_ratio(self._logits(dtype), self.distribution)

    def _logits(self, dtype: torch.dtype) -> Tensor:
        """Λ ``[C, D]``."""
        self._check_whole()
        logits = self.centroid_logits.to(dtype)
        return logits_of(logits, self.temperature, self.feature_length) if self.as_features else logits

    def state_tensors(self) -> Iterator[Tensor]:
        """What the centroids are computed from."""
        yield self.centroid_logits if self.class_means is None else self.class_means.means

    @torch.no_grad()
    def beta_rows(self, rows: slice) -> tuple[Tensor, Tensor]:
        """``log(D·Q)`` of some classes, ``[n, D]``, and which of them there are, ``[n]``, all."""
        dtype = self._dtype()
        if self._on_demand:
            beta = self._view(dtype).own_rows(torch.arange(self.num_classes, device=self.centroid_logits.device)[rows])
        elif self.class_means is not None:
            beta = ratio_to_uniform(self.class_means.means[rows].to(dtype).log())
        else:
            self._check_whole()
            logits = self.centroid_logits[rows].to(dtype)
            if self.as_features:
                logits = logits_of(logits, self.temperature, self.feature_length)
            beta = log_ratio(logits, self.distribution)
        return beta, torch.ones(len(beta), dtype=torch.bool, device=beta.device)

    def _view(self, dtype: torch.dtype) -> CentroidView:
        """The centroids as the loss looks at them.

        Fixed centroids are constants: with what the loss derives from them a step costs O(B·D), whatever C is. That is
        kept for as long as the buffer is the same, by identity, version and a sample of its values.
        """
        if self._on_demand:
            device = self.centroid_logits.device
            made_for = (dtype, device)
            if self._constant is None or self._constant[1] != made_for:
                sizes = self.num_classes, self.feature_dim, self.anchor_length, self.anchor_seed
                with torch.inference_mode(False), torch.no_grad():
                    made = SignView(*sizes, self.separation_direction, dtype, device)
                    _ = made.sums()
                self._constant = (self.centroid_logits, made_for, made)
            return self._constant[2]
        if self.centroid_mode != "fixed" or not by_hand(self.centroid_logits) or self.centroid_logits.is_cuda:
            return CentroidView(self._beta(dtype), self.separation_direction)
        logits = self.centroid_logits.detach()
        few = logits.flatten()[:: max(1, logits.numel() // _FINGERPRINT)]
        version = 0 if logits.is_inference() else logits._version
        key = (version, logits.data_ptr(), dtype, logits.shape, float(few.double().sum()))
        if self._constant is None or self._constant[0] is not self.centroid_logits or self._constant[1] != key:
            # as normal tensors: what is first computed in inference mode cannot be trained with
            with torch.inference_mode(False), torch.no_grad():
                view = CentroidView(self._beta(dtype).clone(), self.separation_direction)
                _ = view.sums(), view.table(), view.table("sample_to_centroid")
            self._constant = (self.centroid_logits, key, view)
        return self._constant[2]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_constant": None, "_averages_gradient": False}

    def check_settable(self) -> None:
        """Raise ValueError where :meth:`set_centroids` cannot be used."""
        if self.as_features and self.feature_length is None:
            raise ValueError(
                "learned centroids without anchor_scale are directions where each feature has its own length, which "
                "class means are not: use anchor_scale=10, centroids='fixed', or feature_length='common'"
            )

    @torch.no_grad()
    def set_centroids(self, centroids: Tensor) -> None:
        """Put the centroids to given distributions ``[C, D]``, e.g. the true ones: the closed-form update.

        Raises:
            ValueError: for another shape, a probability that is not positive, rows that do not sum to 1, or centroids
                that are directions.
        """
        self.check_settable()
        if self._on_demand:
            raise ValueError("anchors='signs' with p = 1 keep no centroids to be set: use anchors='random'")
        check_tensor(centroids, "centroids")
        if centroids.shape != self.centroid_logits.shape or not bool((centroids > 0).all()):
            raise ValueError(f"centroids must be {list(self.centroid_logits.shape)} positive probabilities")
        total = centroids.sum(-1, keepdim=True)
        if not bool(((total - 1).abs() <= SUM_TOLERANCE).all()):
            raise ValueError("centroids are distributions, but their rows do not sum to 1: divide each row by its sum")
        log_q = centroids.log()
        if self.class_means is not None:
            self.class_means.means.copy_(centroids / total)
            return
        if self.distribution == "nsf":
            # σ(Λ) must be proportional to the centroid: its largest component gets σ = 1/2 or, near uniform, all do
            log_sigma = log_q - log_q.amax(-1, keepdim=True) - math.log(2)
            log_q = log_sigma - torch.log1p(-log_sigma.exp())
        if self.as_features and self.feature_length is not None:
            log_q = log_q * (self.feature_length * self.temperature)
        self.centroid_logits.copy_(log_q)

    # What is computed

    def log_distribution(self, features: Tensor) -> Tensor:
        """Log-distributions of features with the present center, ``[..., D]``."""
        length: FeatureLength = self.feature_length or "own"
        return to_log_distribution(features, self.center, self.temperature, self.distribution, length)

    def _centered(self, rows: Tensor) -> Tensor:
        """``f − μ`` in the wider of its own dtype and the centroids', float32 at least."""
        if rows.dtype != self.centroid_logits.dtype or rows.dtype not in (torch.float32, torch.float64):
            rows = rows.to(torch.promote_types(full_precision(rows).dtype, self._dtype()))
        return centered_feature(rows, self.center)

    def _targets_of_likelihood(self, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None, Map]:
        """Directions or β of the centroids, and the map."""
        to = Map(self.temperature, self.distribution, self.feature_length, -self.likelihood_power)
        if self.as_features:
            return self._points().to(dtype), None, to
        return None, self._view(dtype).beta, to

    def _batch(self, features: Tensor, labels: Tensor, may_be_empty: bool = False) -> Batch:
        return as_rows(
            features,
            labels,
            self.num_classes,
            width=self.feature_dim,
            ignore_index=self.ignore_index,
            last=self.dim == -1,
            may_be_empty=may_be_empty,
        )

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss, without any update of state; arguments and result are those of a call."""
        value = self._short(features, labels)
        return self._loss(self._batch(features, labels)) if value is None else value

    def _loss(self, batch: Batch) -> Tensor:
        path = choose_path(
            batch.rows,
            batch.labels,
            self.form,
            self.separation_power,
            self.separation_direction,
            label_smoothing=self.label_smoothing,
            distribution=self.distribution,
            temperature=self.temperature,
            own_length=self.feature_length is None,
        )
        weight = None if self.class_weights is None else self.class_weights()
        terms = Terms(
            self.form, self.separation_power, self.present_robustness, weight, self.label_smoothing, self.reduction
        )
        with full_products(batch.rows):
            if self.shard is not None:
                batch = self._batch_of_all(batch, self.shard)
            centered = self._centered(batch.rows)
            if path in ("surprisal", "scores"):
                value = self._over_chunks(centered, batch, terms)
                if value is not None:
                    return value
            if path == "surprisal":
                directions, beta, to = self._targets_of_likelihood(centered.dtype)
                values = likelihood_surprisal(centered, directions, beta, batch.labels, to).unsqueeze(-1)
                return loss_of_surprisal(values, batch, self.num_classes, terms)
            if path == "scores":
                return loss_of_surprisal(-self._scores(centered), batch, self.num_classes, terms)
            if path == "sweep":
                view = self._linear_view(batch.labels, centered.dtype)
                own, separation = sweep_terms(centered, self.temperature, batch.labels, view)
                return loss_of_terms(own, separation, batch, self.num_classes, terms)
            alpha = log_ratio(logits_of(centered, self.temperature, self.feature_length), self.distribution)
            linear = path == "linear" and can_chunk(self._map, self._points(), alpha, batch.labels)
            view = self._linear_view(batch.labels, alpha.dtype) if linear else self._view(alpha.dtype)
            return loss_of_ratios(alpha, batch, view, path, terms)

    @property
    def _map(self) -> Map:
        """From learned centroids' parameter to them, and to likelihoods."""
        if self.as_features:
            return Map(self.temperature, self.distribution, self.feature_length, -self.likelihood_power)
        return Map(1.0, self.distribution, 1.0, -self.likelihood_power)

    def _linear_view(self, labels: Tensor, dtype: torch.dtype) -> CentroidView:
        """What p = 1 looks at; of learned centroids, whose distribution is NSF, in passes that keep nothing."""
        if self.centroid_mode != "learned":
            return self._view(dtype)
        points, direction = self._points().to(dtype), self.separation_direction
        return LearnedSums(points, labels, self._map, direction, self.num_classes, self.shard)

    def _points(self) -> Tensor:
        """The centroids' parameter; of those that are spread over processes this one's rows, with gradient."""
        if self.shard is None:
            return self.centroid_logits
        local: Tensor = self.centroid_logits.to_local()  # type: ignore[attr-defined]
        return local

    def _plan(self, samples: int) -> ChunkPlan | None:
        """How to go through the classes in chunks, or None where a table of all of them is small."""
        size = self.chunk_classes
        if size == "auto":
            if samples * self.num_classes < WORTH and not self._samples_classes and self.shard is None:
                return None
            size = chunk_size(samples, self.feature_dim)
        return ChunkPlan(size, self.negligible, self.label_smoothing > 0, self._report, self.shard)

    @property
    def _samples_classes(self) -> bool:
        """Whether a step looks at some of the classes alone; validating always looks at all."""
        return self.sampled_classes is not None and self.training and torch.is_grad_enabled()

    def _report(self, skips: Skips) -> None:
        self.skips = skips

    def _check_whole(self) -> None:
        if self.shard is not None:
            raise RuntimeError(
                "the centroids are spread over processes: make a loss without shard_centroids and load their "
                "checkpoint, or centroid_logits.full_tensor(), into it"
            )

    def _batch_of_all(self, batch: Batch, shard: Reduce) -> Batch:
        """The samples of all processes, each of which has some of the centroids."""
        rows, labels = batch.rows, batch.labels
        if labels.is_floating_point() or self.reduction == "none" or not by_hand(rows, labels):
            raise ValueError("centroids that are spread over processes need labels, eager mode and a reduced loss")
        rows, labels = gather_batch(rows, labels, shard.gather)
        return Batch(rows, labels, None, None, labels.shape)

    def _over_chunks(self, centered: Tensor, batch: Batch, terms: Terms) -> Tensor | None:
        """The likelihood form in chunks of classes, or of a sample of them; None where it is computed at once."""
        sampled = self._samples_classes
        plan = self._plan(len(centered))
        if plan is None:
            return None
        forced = sampled or self.chunk_classes != "auto"
        soft = batch.labels.is_floating_point()
        if soft or (plan.smooth and self.robustness != 0):
            if forced:
                raise ValueError(
                    "chunk_classes and sampled_classes are for labels, not for soft targets or for smoothed labels "
                    "with robustness, which need a table of all classes: leave them out"
                )
            return None
        directions, beta, to = self._targets_of_likelihood(centered.dtype)
        if not can_chunk(to, centered, directions, beta, batch.labels):
            if sampled:
                raise RuntimeError("sampled_classes works in eager mode alone: leave torch.compile and torch.func out")
            if forced:
                warnings.warn(
                    f"chunk_classes={self.chunk_classes} works in eager mode alone: under torch.compile and torch.func "
                    "a table of all samples and classes is made; call the loss outside of them "
                    "(torch.compiler.disable), or leave chunk_classes out",
                    stacklevel=2,
                )
            return None
        if sampled:
            assert self.sampled_classes is not None
            table = directions if beta is None else beta
            assert table is not None
            sample = sample_classes(batch.labels, self.num_classes, self.sampled_classes)
            rows = F.embedding(sample.classes, table, sparse=self.sparse_gradient)
            directions, beta = (rows, None) if beta is None else (None, rows)
            surprisal, _ = chunked_surprisal(centered, directions, beta, sample.labels, to, plan, offset=sample.offset)
        else:
            weight = None if terms.weight is None or not plan.smooth else terms.weight.to(centered)
            surprisal, uniform = chunked_surprisal(centered, directions, beta, batch.labels, to, plan, weight=weight)
            if uniform is not None:
                check_divergences(surprisal, uniform)
                return terms.smoothed_loss(batch, surprisal, uniform)
        return loss_of_surprisal(surprisal.unsqueeze(-1), batch, self.num_classes, terms)

    def _scores(self, centered: Tensor) -> Tensor:
        self._check_whole()
        directions, beta, to = self._targets_of_likelihood(centered.dtype)
        return likelihood_scores(centered, directions, beta, to)

    @property
    def likelihood_power(self) -> float:
        """γ of :meth:`predict_log_proba`: −p where p is negative and finite (as trained), else 1."""
        return -self.separation_power if -math.inf < self.separation_power < 0 else 1.0

    def scores(self, features: Tensor) -> Tensor:
        """``log π_c`` with ``π_c ∝ KL(P‖Q_c)^{−γ}`` over the training centroids: ``[..., D] → [..., C]``.

        The class of the nearest training centroid has the highest score. With ``form="likelihood"`` and direction
        ``"sample_to_centroid"`` this is the trained likelihood: the loss is its negative at the label.
        """
        check_tensor(features, "features")
        if features.dim() == 0 or features.shape[-1] != self.feature_dim:
            raise ValueError(
                f"features {list(features.shape)}: expected [..., {self.feature_dim}], the width that this was made for"
            )
        rows = features.reshape(-1, self.feature_dim) if features.dim() != 2 else features
        with full_products(rows):
            log_likelihood = self._scores(self._centered(rows))
        check_divergences(log_likelihood)
        return log_likelihood if features.dim() == 2 else log_likelihood.reshape(*features.shape[:-1], -1)

    def predict_log_proba(self, features: Tensor) -> Tensor:
        """Log-probabilities of the classes, ``[..., D] → [..., C]``: :meth:`scores`."""
        return self.scores(features)

    def predict_proba(self, features: Tensor) -> Tensor:
        """Class probabilities π, ``[..., D] → [..., C]``; see :meth:`scores`."""
        return self.scores(features).exp()

    def predict(self, features: Tensor) -> Tensor:
        """Class of the nearest training centroid, ``[..., D] → [...]``."""
        return self.scores(features).argmax(-1)

    # Training

    @property
    def _collects(self) -> bool:
        """Whether this call is one of training, and counts."""
        return self.training and torch.is_grad_enabled() and not is_recomputation()

    def _short(self, features: Tensor, labels: Tensor) -> Tensor | None:
        """The loss of a usual batch in the default form, or None for :meth:`_call` to go all the way.

        For a few samples a step's time is that of its number of operations, checks included. What they would find
        wrong shows here as well: a label out of range in the operation that uses it, a NaN in the mean.
        """
        directions = self.centroid_logits
        if not (
            self._is_plain
            and by_hand(features, labels, directions)
            and features.dim() == 2
            and features.shape[1] == self.feature_dim
            and features.dtype == directions.dtype == torch.float32
            and features.device.type == "cpu"
            and labels.dtype == torch.int64
            and labels.shape == features.shape[:1]
            and self._plan(len(features)) is None
        ):
            return None
        to = Map(self.temperature, self.distribution, self.feature_length, self.separation_power)
        try:
            mean = mean_surprisal(features, directions, labels, to)
        except (IndexError, RuntimeError):
            return None
        return None if mean is None or not math.isfinite(mean.item()) else mean

    def _call(self, features: Tensor, labels: Tensor) -> Tensor:
        self._keep_replicas_equal()
        value = self._short(features, labels)
        if value is not None:
            return value
        batch = self._batch(features, labels)
        if not self._collects:
            return self._loss(batch)
        self._had_labels = True
        if self.class_weights is not None:
            _collect(self.class_weights.observe, batch, True)
        if self._moves and self._watch.ask(self.centroid_logits, features):
            _collect(self.update)
        value = self._loss(batch)
        _collect(self._observe, batch, True)
        return value

    @property
    def _moves(self) -> bool:
        return self.class_means is not None or self.running_center is not None or self.doubt is not None

    def observe(self, features: Tensor, labels: Tensor, synchronize: bool = False) -> None:
        """Add a micro-batch's sums and counts, with ``synchronize`` those of all processes, for :meth:`update`."""
        if not self._moves and self.class_weights is None:
            return
        batch = self._batch(features, labels, may_be_empty=synchronize)
        if self.class_weights is not None:
            self.class_weights.observe(batch, synchronize)
        self._observe(batch, synchronize)

    @torch.no_grad()
    def _observe(self, batch: Batch, synchronize: bool) -> None:
        rows = batch.rows.detach()
        if self.class_means is not None:
            self.class_means.observe(self.log_distribution(rows).exp(), batch, synchronize)
        if self.running_center is not None:
            self.running_center.observe(full_precision(rows), batch.ignored, synchronize)
        if self.doubt is not None:
            sure, guess = self.predict_proba(rows).max(-1)
            labels = batch.labels.argmax(-1) if batch.labels.is_floating_point() else batch.labels
            contradicted = (guess != labels).to(sure)
            self.doubt.observe(torch.stack((sure, contradicted), -1), batch.ignored, synchronize)

    def update(self) -> None:
        """Bring center, class means and doubt up to date from what was observed."""
        for statistics in (self.class_means, self.running_center, self.doubt):
            if statistics is not None:
                statistics.update()

    def set_class_counts(self, counts: Tensor) -> None:
        """Tell how many training samples each class has, ``[C]``, for ``weight="balanced"``."""
        if self.class_weights is not None:
            self.class_weights.set_counts(counts)

    def _keep_replicas_equal(self) -> None:
        """Average the centroids' gradient over processes where nobody else does, as DDP does for what it wraps."""
        if (
            self._averages_gradient
            or not self.training
            or torch.compiler.is_compiling()
            or world_size() == 1
            or type(self.centroid_logits) is not nn.Parameter
            or not self.centroid_logits.requires_grad
            or getattr(DistributedDataParallel, "_active_ddp_module", None) is not None
        ):
            return
        self.centroid_logits.register_post_accumulate_grad_hook(_average_gradient)
        self._averages_gradient = True

    def network_parameters(self) -> Iterator[nn.Parameter]:
        """None: the loss has no head."""
        return iter(())

    def centroid_parameters(self) -> Iterator[nn.Parameter]:
        """Learned centroids ``[C, D]``: their logits Λ, else points or directions of features."""
        if isinstance(self.centroid_logits, nn.Parameter):
            yield self.centroid_logits

    def centroid_classifier(self, power: float | None = None) -> CentroidClassifier:
        """An unfitted :class:`ncmi.CentroidClassifier` with this loss's center, temperature and distribution."""
        classifier = CentroidClassifier(
            self.num_classes,
            self.feature_dim,
            temperature=self.temperature,
            distribution=self.distribution,
            feature_length=self.feature_length or "own",
            center=self.center,
            power=power or self.likelihood_power,
        )
        return classifier.to(self.centroid_logits.device)


def _collect(step: Callable[..., None], *arguments: Any) -> None:
    """Do what moves a statistic. Transforms of ``torch.func`` refuse it, but where the buffers are their own arguments.

    Raises:
        RuntimeError: where they do; the message names the cure.
    """
    if torch.compiler.is_compiling() or not is_transformed():
        step(*arguments)
        return
    try:
        step(*arguments)
    except RuntimeError as error:
        raise RuntimeError(
            "a call in training mode collects statistics (a center, class means, robustness='auto', "
            "weight='balanced'), which torch.func does not allow: inside it call loss(features, labels), which "
            "collects nothing, or use eval(); outside of it observe(features, labels) and update() collect"
        ) from error


def _as_given(name: str, value: Any, number: float) -> Any:
    """An option as an argument would have it: its number in a state, and a value of its type."""
    if name == "feature_length" and number == 0:
        return "own"
    return _WORDS[name][int(number)] if name in _WORDS else type(value)(number)


def _average_gradient(parameter: Tensor) -> None:
    if parameter.grad is not None:
        dist.all_reduce(parameter.grad)
        parameter.grad /= world_size()


class NCMILoss(NCMIBase):
    """Normalized conditional mutual information loss: ``loss(features, labels)`` on the network's features.

    Takes the place of ``nn.CrossEntropyLoss``; the network gives its feature and has no classifier head::

        criterion = ncmi.NCMILoss(num_classes=10, feature_dim=512)
        optimizer = torch.optim.SGD([*network.parameters(), *criterion.parameters()], lr=0.1)
        loss = criterion(network(images), labels)

    To put it inside the network, as its last layer, see :class:`ncmi.NCMIHead`.

    Args:
        num_classes: C ≥ 2.
        feature_dim: D ≥ 2, the width of the feature and of the simplex.
        center_updates: number of batches that make a frozen center.
        weight: ``None``; ``[C]`` weights of the classes; or ``"balanced"``, N/(C·n_c), from the counts of
            :meth:`set_class_counts` or, without them, from the labels seen so far.
        ignore_index, reduction, label_smoothing: with the meaning that they have for ``nn.CrossEntropyLoss``. Where all
            samples are ignored the loss is 0.
        anchor_seed: of random and ETF anchors and of signs.
        chunk_classes: classes that the likelihood form looks at at a time; by default as many as take a few MB where
            a table of all samples and classes were large, and all at once where it is small. In eager mode alone:
            elsewhere a number is answered by a warning, and by that table.
        negligible: share of the batch's weight that gradients in chunks may leave out, the lightest samples and
            centroids first; by default one rounding error of their dtype, 0 for none. ``skips`` has what the last
            backward pass left out.
        sampled_classes: number of wrong classes, besides those of the batch's labels, that a training step looks at,
            drawn anew each time from torch's generator, each standing for its share of all. By default all.
        sparse_gradient: with sampled classes, a sparse gradient of the centroids, for ``torch.optim.SparseAdam``, SGD
            and Adagrad.

    All other arguments are the form of the loss, with the defaults and meanings of :class:`ncmi.loss.forms.NCMIForm`.

    A call takes ``features [B, D]`` or ``[B, D, d1, …]``, and ``labels [B]`` (``[B, d1, …]``) or soft targets
    ``[B, C]`` (``[B, C, d1, …]``), and gives a scalar, or with ``reduction="none"`` the labels' shape. Center,
    centroids and counters are in the ``state_dict``. In training mode, with gradients enabled, a call also collects
    statistics, which move once per optimizer step, from sums and counts over all processes. A loop of one's own may
    call :meth:`loss` and :meth:`observe` for each micro-batch and :meth:`update` once per step instead.

    Raises:
        ValueError: for options out of range or that exclude each other; the message names the cure.

    Source: arXiv 2601.02543; p ≠ 1, the likelihood form and the common length of features are this library's.

    Example:
        >>> criterion = NCMILoss(num_classes=3, feature_dim=8)
        >>> criterion(torch.eye(8)[:3], torch.tensor([0, 1, 2])).isfinite()
        tensor(True)
    """

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        temperature: float = NCMIForm.temperature,
        distribution: Distribution = NCMIForm.distribution,
        feature_length: FeatureLength = NCMIForm.feature_length,
        centroids: CentroidMode = NCMIForm.centroids,
        anchors: Anchors = NCMIForm.anchors,
        anchor_scale: float | None = NCMIForm.anchor_scale,
        center: Center = NCMIForm.center,
        center_decay: float = NCMIForm.center_decay,
        center_updates: int = 100,
        centroid_decay: float = NCMIForm.centroid_decay,
        separation_power: float | None = NCMIForm.separation_power,
        separation_direction: Direction = NCMIForm.separation_direction,
        form: Form = NCMIForm.form,
        robustness: float | Literal["auto"] = NCMIForm.robustness,
        weight: Literal["balanced"] | Tensor | Sequence[float] | None = NCMIForm.weight,
        ignore_index: int = IGNORE,
        reduction: Reduction = "mean",
        label_smoothing: float = NCMIForm.label_smoothing,
        anchor_seed: int = 0,
        chunk_classes: int | Literal["auto"] = "auto",
        negligible: float | None = None,
        sampled_classes: int | None = None,
        sparse_gradient: bool = False,
    ) -> None:
        NCMIBase.__init__(
            self,
            num_classes,
            feature_dim,
            temperature=temperature,
            distribution=distribution,
            feature_length=feature_length,
            centroids=centroids,
            anchors=anchors,
            anchor_scale=anchor_scale,
            center=center,
            center_decay=center_decay,
            center_updates=center_updates,
            centroid_decay=centroid_decay,
            separation_power=separation_power,
            separation_direction=separation_direction,
            form=form,
            robustness=robustness,
            weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
            anchor_seed=anchor_seed,
            chunk_classes=chunk_classes,
            negligible=negligible,
            sampled_classes=sampled_classes,
            sparse_gradient=sparse_gradient,
        )

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss; in training mode, with gradients enabled, also collects statistics."""
        return self._call(features, labels)


class NCMIHead(NCMIBase):
    """The last layer: in the place of ``nn.Linear(in_features, num_classes)``, and nothing else has to change.

    ``head(features)`` gives scores ``[..., C]``, the log-probabilities ``log π_c``, ``π_c ∝ KL(P‖Q_c)^{−γ}``, of the
    trained centroids. Their cross-entropy is the likelihood form of NCMI, so that ``nn.CrossEntropyLoss`` with all its
    options, mixup, distillation, ``argmax`` and every metric of ``[B, C]`` scores work as with a linear layer::

        network.fc = ncmi.NCMIHead(512, 10)  # was nn.Linear(512, 10)
        loss = nn.CrossEntropyLoss()(network(images), labels)

    ``head(features, labels)`` gives the loss itself, by a way that loses no digit of the gradient where a sample is
    close by its centroid, and for the paper's forms the only way. A checkpoint of :class:`ncmi.NCMILoss` with the same
    options loads into the head, and the other way round.

    Args:
        in_features: D ≥ 2, the width of the feature.
        num_classes: C ≥ 2.
        dim: of features and scores: -1, or 1 in the place of a 1×1 convolution, for maps ``[B, D, d1, …]``.
        **options: all other options of :class:`ncmi.NCMILoss`. Class means move by calls with labels alone; a center
            moves by all calls in training, without labels by all features, padding included.

    A call takes ``features [..., D]``, and with them ``labels [...]`` or soft targets ``[..., C]``.

    Raises:
        ValueError: for options out of range or that exclude each other; the message names the cure.

    Source: arXiv 2601.02543; the likelihood form is this library's.

    Example:
        >>> head = NCMIHead(8, 3)
        >>> features, labels = torch.eye(8)[:3], torch.tensor([0, 1, 2])
        >>> head(features).shape, head(features).argmax(-1)
        (torch.Size([3, 3]), tensor([0, 1, 2]))
        >>> torch.allclose(nn.functional.cross_entropy(head(features), labels), head(features, labels), atol=1e-6)
        True
    """

    def __init__(self, in_features: int, num_classes: int, *, dim: int = -1, **options: Any) -> None:
        if dim not in (-1, 1):
            raise ValueError(f"dim={dim}: features are the last dimension, -1, or the second, 1")
        check_whole(in_features=in_features)
        super().__init__(num_classes, in_features, **options)
        self.dim = dim

    @property
    def in_features(self) -> int:
        """D, as of ``nn.Linear``."""
        return self.feature_dim

    @property
    def out_features(self) -> int:
        """C, as of ``nn.Linear``."""
        return self.num_classes

    @property
    def weight(self) -> Tensor:
        """The centroids' parameter or buffer ``[C, D]``: what is tied to an embedding as a linear layer's weight is."""
        return self.centroid_logits

    bias = None

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """As of every module; ``head.weight = embedding.weight`` sets the centroids' parameter."""
        super().register_parameter("centroid_logits" if name == "weight" else name, param)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Scores ``[..., C]``, or with labels the loss."""
        if labels is not None:
            return self._call(features, labels)
        self._keep_replicas_equal()
        if not self._collects or not self._moves:
            return self.scores(features)
        if self.class_means is not None and not self._had_labels and not torch.compiler.is_compiling():
            self._had_labels = True  # said once
            warnings.warn(
                "class means stay at their anchors without labels: train with the loss that head(features, labels) "
                "gives, or with centroids='learned'",
                stacklevel=2,
            )
        if self.running_center is None:
            return self.scores(features)
        if self._watch.ask(self.centroid_logits, features):
            _collect(self.update)
        scores = self.scores(features)
        rows = features.detach().movedim(self._axis(features), -1).reshape(-1, self.feature_dim)
        _collect(self.running_center.observe, full_precision(rows), None, True)
        return scores

    def _axis(self, features: Tensor) -> int:
        return self.dim if features.dim() > 1 else -1

    def scores(self, features: Tensor) -> Tensor:
        """``log π_c``, ``[..., D] → [..., C]``, or with ``dim=1`` ``[B, D, d1, …] → [B, C, d1, …]``."""
        check_tensor(features, "features")
        if self._axis(features) == -1:
            return super().scores(features)
        return super().scores(features.movedim(1, -1)).movedim(-1, 1)

    def predict(self, features: Tensor) -> Tensor:
        """Class of the nearest training centroid: the scores' shape without C."""
        return self.scores(features).argmax(self._axis(features))

    def loss_module(self) -> NCMILoss:
        """An :class:`ncmi.NCMILoss` with the same parameters and buffers: not a copy, the same."""
        loss = NCMILoss.__new__(NCMILoss)
        # the dictionaries of parameters, buffers and submodules are shared, and so is what becomes of them
        loss.__dict__ = {name: value for name, value in self.__dict__.items() if name != "dim"}
        return loss
