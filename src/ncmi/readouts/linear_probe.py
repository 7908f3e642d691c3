"""The linear probe (LP): a linear classifier with cross-entropy on frozen features."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ncmi.loss.autograd import by_hand
from ncmi.loss.centroids import FeatureClassifier
from ncmi.loss.checks import check_labels, check_tensor
from ncmi.loss.distributed import all_reduce_sum
from ncmi.loss.forms import check_range, check_whole
from ncmi.loss.simplex import full_precision

_EXACT_WORK = 30_000_000
"""Samples × classes × features up to which each step of the solver looks at all samples."""
_WORK, _STEPS, _BATCH = 200_000_000_000, 1000, 1024
"""Of larger problems: samples × classes × features over all steps at most, steps at most, samples of a step."""
_ROWS = 2**18
"""Of larger problems, samples at most: more change nothing that so many steps could find, but cost time and memory."""
_RATE, _BETAS = 0.1, (0.9, 0.99)
_TOLERANCE = 1e-3


def check_frozen_features(features: Tensor, labels: Tensor, num_classes: int) -> None:
    """Check what a read-out is fitted to: ``features [N, D]``, finite, and ``labels [N]`` in range.

    Raises:
        ValueError: where they are not; the message names the cure.
    """
    check_tensor(features, "features")
    check_labels(labels, num_classes)
    if features.dim() != 2 or len(features) != len(labels):
        raise ValueError(f"features {list(features.shape)} and {len(labels)} labels: give [N, D] and one label a row")
    if not bool(features.isfinite().all()):
        raise ValueError("features hold NaN or infinity: the network that made them has diverged")


def stratified_sample(labels: Tensor, most: int) -> Tensor:
    """Rows of about ``most`` samples at most, ascending: each class by its share, and at least one.

    The same for the same labels: sorted by class, samples at even distances are taken.
    """
    if len(labels) <= most:
        return torch.arange(len(labels), device=labels.device)
    order = labels.argsort(stable=True)
    places = (torch.arange(most, device=labels.device, dtype=torch.float64) + 0.5) * (len(labels) / most)
    sorted_labels = labels[order]
    first = torch.ones_like(sorted_labels, dtype=torch.bool)
    first[1:] = sorted_labels[1:] != sorted_labels[:-1]
    rows: Tensor = torch.cat([order[places.long()], order[first]]).unique()
    return rows


class Moments:
    """Count, mean and products of columns over features that come in batches, of all processes; in float64.

    Args:
        feature_dim: D; D² numbers are kept.
        device: where they are.
    """

    def __init__(self, feature_dim: int, device: torch.device | None = None) -> None:
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.sums = torch.zeros(feature_dim, dtype=torch.float64, device=device)
        self.products = torch.zeros(feature_dim, feature_dim, dtype=torch.float64, device=device)

    def update(self, features: Tensor) -> None:
        """Take in features ``[n, D]``."""
        x = features.double()
        self.count += len(x)
        self.sums += x.sum(0)
        self.products.addmm_(x.T, x)

    def gather(self) -> None:
        """Add up over processes; each must call it, once."""
        all_reduce_sum(self.count, self.sums, self.products)

    def standard(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and scale ``[D]``, and the correlations ``[D, D]``; a constant column has scale 1 and correlation 0."""
        mean = self.sums / self.count
        covariance = self.products / self.count - torch.outer(mean, mean)
        variance = covariance.diagonal().clamp_min(0)
        # what is left of features of float32 by their own rounding is no spread
        varies = variance.sqrt() > torch.finfo(torch.float32).eps * mean.abs()
        scale = torch.where(varies, variance.sqrt(), 1.0)
        both = varies.unsqueeze(1) & varies
        return mean, scale, torch.where(both, covariance / torch.outer(scale, scale), 0.0)


class LinearProbe(FeatureClassifier):
    """Linear classifier on frozen features, trained by cross-entropy.

    Features are standardized with the training features' mean and standard deviation (NCMI does not fix the scale of a
    feature), so one regularization fits networks of any loss.

    Args:
        num_classes: C ≥ 2.
        feature_dim: D ≥ 1.
        solver: ``"lbfgs"``: full-batch L-BFGS on the convex objective ``mean CE + (l2/2)·‖W‖²``, deterministic.
            ``"batches"``: the same objective by Adam on mini-batches in decorrelated columns, with a bound on its work:
            at most 1,000 steps of 1,024 samples, and 2·10¹¹ samples × classes × features, on at most 262,144 samples,
            each class by its share.
            ``"sgd"``: the published protocol, SGD with momentum 0.9 and cosine learning rate on mini-batches.
            ``"auto"``: L-BFGS up to 3·10⁷ samples × classes × features, where a step takes hundredths of a second;
            of more, batches.
        l2: weight of the penalty on the weights (weight decay for SGD), not on the bias.
        max_iterations: of L-BFGS.
        epochs, learning_rate, batch_size: of SGD.
        seed: of the order of mini-batches.

    Attributes:
        samples: that the last fit was to.
        iterations: of the last fit; 0 before.
        converged: whether it came to the minimum before it reached its bound: the objective's gradient is, of L-BFGS,
            below its tolerance, else nowhere above 10⁻³ of a nat.

    Example:
        >>> features, labels = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.1, 0.9]]), torch.tensor([0, 1, 0])
        >>> LinearProbe(2, 2).fit(features, labels).predict(features)
        tensor([0, 1, 0])
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        solver: Literal["auto", "lbfgs", "batches", "sgd"] = "auto",
        l2: float = 1e-3,
        max_iterations: int = 500,
        epochs: int = 100,
        learning_rate: float = 0.1,
        batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if solver not in ("auto", "lbfgs", "batches", "sgd"):
            raise ValueError(f"unknown solver {solver!r}: use 'auto', 'lbfgs', 'batches' or 'sgd'")
        check_whole(num_classes=num_classes, feature_dim=feature_dim, seed=seed)
        if num_classes < 2 or feature_dim < 1:
            raise ValueError(
                f"num_classes={num_classes}, feature_dim={feature_dim}: needs at least 2 classes and 1 feature"
            )
        given = SimpleNamespace(
            l2=l2, max_iterations=max_iterations, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size
        )
        check_range(given, "l2", least=0, below=math.inf)
        check_range(given, "max_iterations", "epochs", "batch_size", least=1)
        check_range(given, "learning_rate", above=0, below=math.inf)
        check_whole(max_iterations=max_iterations, epochs=epochs, batch_size=batch_size)
        self.num_classes, self.solver, self.l2, self.max_iterations = num_classes, solver, l2, max_iterations
        self.epochs, self.learning_rate, self.batch_size, self.seed = epochs, learning_rate, batch_size, seed
        self.samples, self.iterations, self.converged = 0, 0, False
        self.linear = nn.Linear(feature_dim, num_classes)
        self._reset()
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("scale", torch.ones(feature_dim))

    def _reset(self) -> None:
        """The objective is convex: zero is as good as any start, and repeatable."""
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def fit(self, features: Tensor, labels: Tensor, sample_weight: Tensor | None = None) -> LinearProbe:
        """Fit to ``features [N, D]`` and ``labels [N]``; forgets earlier fits. The features get no gradient.

        With ``sample_weight [N]``, ≥ 0, not all 0, the cross-entropy is the weighted mean; standardization is without.

        Raises:
            ValueError: for labels out of range or of another number, or features that are not finite.
        """
        check_frozen_features(features, labels, self.num_classes)
        solver = self.solver
        if solver == "auto":
            solver = "lbfgs" if len(labels) * self.linear.weight.numel() <= _EXACT_WORK else "batches"
        if solver == "batches" and len(labels) > _ROWS:
            rows = stratified_sample(labels, _ROWS)
            features, labels = features[rows], labels[rows]
            sample_weight = None if sample_weight is None else sample_weight[rows]
        self.samples = len(labels)
        x, labels = full_precision(features.detach()), labels.long()
        with torch.no_grad():
            variance, mean = torch.var_mean(x.double(), dim=0, correction=0)
            # a column whose spread is below its own rounding is constant
            varies = variance.sqrt() > torch.finfo(x.dtype).eps * mean.abs()
            self.mean.copy_(mean)
            self.scale.copy_(torch.where(varies, variance.sqrt(), 1.0))
            self._reset()
        x = (x.to(self.mean) - self.mean) / self.scale
        weights = x.new_ones(len(x)) if sample_weight is None else sample_weight.to(x)
        weights = weights / weights.mean()
        fit = {"lbfgs": self._fit_lbfgs, "batches": self._fit_batches, "sgd": self._fit_sgd}[solver]
        with torch.enable_grad():
            fit(x, labels, weights)
        return self

    def _basis(self, x: Tensor) -> Tensor:
        """Decorrelated columns ``x @ basis``: the optimum stays the same, and the way to it is shorter."""
        return self._basis_of((x.T @ x).double() / len(x))

    def _basis_of(self, correlation: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(correlation)
        basis: Tensor = vectors * (values.clamp_min(0) + 1e-4 * values.max().clamp_min(1e-300) + self.l2).rsqrt()
        return basis

    def _fit_lbfgs(self, x: Tensor, labels: Tensor, weights: Tensor) -> None:
        x = x.double()
        basis = self._basis(x)
        # the search is four times shorter in these
        x = x @ basis
        weight = x.new_zeros(self.linear.weight.shape, requires_grad=True)
        bias = x.new_zeros(self.linear.bias.shape, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weight, bias],
            max_iter=self.max_iterations,
            tolerance_grad=1e-7,
            tolerance_change=1e-10,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            penalty = 0.5 * self.l2 * (weight @ basis.T).square().sum()
            objective: Tensor = _weighted_mean(F.linear(x, weight, bias), labels, weights) + penalty
            objective.backward()
            return objective

        optimizer.step(closure)  # type: ignore[no-untyped-call, unused-ignore]
        state = optimizer.state[weight]
        self.iterations = int(state["n_iter"])
        # torch stops at so many iterations, or at a quarter more evaluations
        self.converged = self.iterations < self.max_iterations and state["func_evals"] < self.max_iterations * 5 // 4
        with torch.no_grad():
            self.linear.weight.copy_(weight @ basis.T)
            self.linear.bias.copy_(bias)

    def _fit_batches(self, x: Tensor, labels: Tensor, weights: Tensor) -> None:
        basis = self._basis(x).to(x)
        # these columns are orthogonal: of the weights in them each has its own share in the penalty
        x, shares = x @ basis, basis.square().sum(0)
        weight = x.new_zeros(self.linear.weight.shape, requires_grad=True)
        bias = x.new_zeros(self.linear.bias.shape, requires_grad=True)
        size = min(_BATCH, len(x))
        steps = max(1, min(_STEPS, _WORK // (size * weight.numel())))
        optimizer = torch.optim.Adam([weight, bias], lr=_RATE, betas=_BETAS, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        generator = torch.Generator().manual_seed(self.seed)

        def penalty() -> Tensor:
            return 0.5 * self.l2 * (weight.square() * shares).sum()

        self.iterations = 0
        while self.iterations < steps:
            for index in (
                torch.randperm(len(x), generator=generator).to(x.device).split(size)[: steps - self.iterations]
            ):
                optimizer.zero_grad()
                rows = x.index_select(0, index)
                (_weighted_mean(F.linear(rows, weight, bias), labels[index], weights[index]) + penalty()).backward()
                optimizer.step()
                schedule.step()
                self.iterations += 1
        optimizer.zero_grad()
        # the gradient of the whole objective tells whether this is its minimum
        for rows, targets, of_rows in zip(*(value.split(64 * size) for value in (x, labels, weights)), strict=True):
            (_weighted_mean(F.linear(rows, weight, bias), targets, of_rows) * (len(rows) / len(x))).backward()
        penalty().backward()
        gradients = [value.grad for value in (weight, bias) if value.grad is not None]
        self.converged = all(float(gradient.abs().max()) <= _TOLERANCE for gradient in gradients)
        with torch.no_grad():
            self.linear.weight.copy_(weight @ basis.T)
            self.linear.bias.copy_(bias)

    def _fit_sgd(self, x: Tensor, labels: Tensor, weights: Tensor) -> None:
        optimizer = torch.optim.SGD(
            [
                {"params": [self.linear.weight], "weight_decay": self.l2},
                {"params": [self.linear.bias], "weight_decay": 0.0},
            ],
            lr=self.learning_rate,
            momentum=0.9,
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs)
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.epochs):
            order = torch.randperm(len(x), generator=generator).to(x.device)
            for index in order.split(self.batch_size):
                optimizer.zero_grad()
                _weighted_mean(self.linear(x[index]), labels[index], weights[index]).backward()
                optimizer.step()
            schedule.step()
        # a fixed number of epochs: nothing tells whether they were enough
        self.iterations, self.converged = self.epochs, False

    @torch.no_grad()
    def fit_stream(
        self,
        batches: Callable[[], Iterable[tuple[Tensor, Tensor]]],
        moments: Moments,
        *,
        passes: int,
        batches_per_pass: int,
        batches_per_step: int = 1,
    ) -> LinearProbe:
        """Fit to features that are made anew in each pass and kept by nobody, by Adam in decorrelated columns.

        Where several processes train together, each gives its own part of each batch, and gradients are added up.

        Args:
            batches: gives the batches of a pass, features ``[n, D]`` and labels ``[n]``, in a random order; on every
                process as many, of which some may be empty.
            moments: of all features, added up over all processes.
            passes: over the features.
            batches_per_pass: how many there are.
            batches_per_step: whose gradients are added up before a step.
        """
        device, dtype = self.linear.weight.device, self.linear.weight.dtype
        self.samples, self.converged = int(moments.count), False
        mean, scale, correlation = moments.standard()
        self.mean.copy_(mean)
        self.scale.copy_(scale)
        self._reset()
        basis = self._basis_of(correlation).to(device=device, dtype=dtype)
        shares = basis.square().sum(0)
        weight, bias = torch.zeros_like(self.linear.weight), torch.zeros_like(self.linear.bias)
        gradients = [torch.zeros_like(weight), torch.zeros_like(bias), bias.new_zeros(1)]
        optimizer = torch.optim.Adam([weight, bias], lr=_RATE, betas=_BETAS)
        steps = passes * -(-batches_per_pass // batches_per_step)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        self.iterations = 0
        for _ in range(passes):
            for number, (features, labels) in enumerate(batches(), 1):
                x = ((full_precision(features).to(self.mean) - self.mean) / self.scale) @ basis
                # the gradient of the sum of cross-entropies
                errors = torch.softmax(F.linear(x, weight, bias), dim=1)
                errors[torch.arange(len(x), device=device), labels.to(device)] -= 1
                for gradient, own in zip(
                    gradients, (errors.T @ x, errors.sum(0), bias.new_tensor([len(x)])), strict=True
                ):
                    gradient += own
                if number % batches_per_step and number < batches_per_pass:
                    continue
                all_reduce_sum(*gradients)
                of_weight, of_bias, count = gradients
                weight.grad = of_weight / count.clamp_min(1) + self.l2 * weight * shares
                bias.grad = of_bias / count.clamp_min(1)
                optimizer.step()
                schedule.step()
                self.iterations += 1
                for gradient in gradients:
                    gradient.zero_()
        self.linear.weight.copy_(weight @ basis.T)
        self.linear.bias.copy_(bias)
        return self

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """Logits of features, ``[B, D] → [B, C]``.

        Raises:
            RuntimeError: before :meth:`fit`, or where an unfitted state was loaded.
        """
        # the weights tell of a state that was loaded; a graph that is compiled or exported cannot look at values
        fitted = self.samples > 0 or not by_hand(self.linear.weight)
        if not fitted and not any(bool(x.any()) for x in (self.linear.weight, self.linear.bias, self.mean)):
            raise RuntimeError("this LinearProbe is not fitted yet: call fit(features, labels) first")
        logits: Tensor = self.linear((full_precision(features).to(self.mean) - self.mean) / self.scale)
        return logits

    evidence = logits

    def forward(self, features: Tensor) -> Tensor:
        """Log-probabilities, ``[B, D] → [B, C]``."""
        return torch.log_softmax(self.logits(features), dim=-1)


def _weighted_mean(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of samples whose weights are 1 on average."""
    return (F.cross_entropy(logits, labels, reduction="none") * weights).mean()
