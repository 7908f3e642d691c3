"""NCMILoss against the plain formulas in all its modes, in float64 and float32 and under autocast."""

from __future__ import annotations

import itertools
import math
from typing import Any

import comparison
import pytest
import torch
from torch import Tensor

import ncmi
from ncmi.loss import equation

PAPER: dict[str, Any] = {
    "anchor_scale": 10.0,
    "form": "mean_of_ratios",
    "separation_power": 1.0,
    "separation_direction": "centroid_to_sample",
}
FORMS: tuple[dict[str, Any], ...] = (
    PAPER,
    PAPER | {"form": "ratio_of_means"},
    PAPER | {"separation_direction": "sample_to_centroid"},
    PAPER | {"separation_power": -4.0},
    {},
)


def make(classes: int, dim: int, dtype: torch.dtype, **options: Any) -> ncmi.NCMILoss:
    """A loss whose centroids have left their anchors and whose center has left zero."""
    torch.manual_seed(dim)
    loss = ncmi.NCMILoss(classes, dim, **options).to(dtype)
    with torch.no_grad():
        loss.centroid_logits += 0.3 * torch.randn(classes, dim)
        if loss.running_center is not None:
            loss.running_center.mean.normal_()
        if loss.class_means is not None:
            loss.class_means.means.copy_(torch.randn(classes, dim, dtype=dtype).softmax(1))
    return loss.to(dtype)  # fixed centroids are looked at again


def expected(loss: ncmi.NCMILoss, features: Tensor, labels: Tensor) -> list[Tensor]:
    """Loss and gradients of features and centroid logits, float64."""
    f = features.detach().double().requires_grad_()
    z = loss.centroid_logits.detach().double().requires_grad_()
    p = comparison.samples(loss, f)
    q = comparison.centroids(loss, z) if loss.class_means is None else loss.class_means.means.double()
    value = equation.loss(
        p,
        labels.double() if labels.is_floating_point() else labels,
        q,
        form=loss.form,
        power=loss.separation_power,
        direction=loss.separation_direction,
    )
    learned = loss.centroid_mode == "learned"
    return [value.detach(), *torch.autograd.grad(value, (f, z) if learned else (f,))]


def found(loss: ncmi.NCMILoss, features: Tensor, labels: Tensor) -> list[Tensor]:
    f = features.detach().clone().requires_grad_()
    value = loss.loss(f, labels)
    return [value.detach(), *torch.autograd.grad(value, (f, *loss.parameters()))]


@pytest.mark.parametrize("centroids", ["fixed", "learned", "class_mean"])
@pytest.mark.parametrize("center", ["none", "ema"])
@pytest.mark.parametrize("length", comparison.LENGTHS)
@pytest.mark.parametrize("form", FORMS)
def test_all_modes(form: dict[str, Any], length: str, center: str, centroids: str) -> None:
    starts: tuple[tuple[str, float | None], ...] = (("axis", 3.0), ("etf", 3.0), ("random", 3.0), ("auto", None))
    # with a common length T = 0.05 is so far out that the plain sum itself loses digits
    temperatures = (0.05 if length == "own" else 0.3, 0.7)
    for kind, (anchors, scale), temperature in itertools.product(comparison.KINDS, starts, temperatures):
        loss = make(
            5,
            7,
            torch.float64,
            temperature=temperature,
            distribution=kind,
            centroids=centroids,
            anchors=anchors,
            center=center,
            feature_length=length,
            **form | {"anchor_scale": scale},
        )
        assert loss.as_features == (centroids == "learned" and scale is None)
        features, labels = torch.randn(6, 7, dtype=torch.float64), torch.randint(5, (6,))
        for targets in (labels, torch.rand(6, 5, dtype=torch.float64).softmax(1)):
            for one, other in zip(found(loss, features, targets), expected(loss, features, targets), strict=True):
                assert comparison.relative_error(one, other) <= 1e-10


@pytest.mark.parametrize("centroids", ["fixed", "learned"])
@pytest.mark.parametrize("length", comparison.LENGTHS)
@pytest.mark.parametrize(
    ("classes", "dim", "temperature"), [(2, 2, 0.3), (2, 2048, 0.07), (1000, 2, 0.5), (1000, 64, 0.2)]
)
def test_papers_form_from_small_to_large(
    classes: int, dim: int, temperature: float, length: str, centroids: str
) -> None:
    options = PAPER | {"temperature": temperature, "feature_length": length, "anchors": "random"}
    loss = make(classes, dim, torch.float64, centroids=centroids, **options)
    features, labels = torch.randn(5, dim, dtype=torch.float64), torch.randint(classes, (5,))
    for one, other in zip(found(loss, features, labels), expected(loss, features, labels), strict=True):
        assert comparison.relative_error(one, other) <= 1e-10


@pytest.mark.parametrize("centroids", ["fixed", "learned"])
@pytest.mark.parametrize("length", ["own", 10.0])
@pytest.mark.parametrize("shift", [0.0, -70.0], ids=["usual logits", "logits of a vanishing sigmoid"])
def test_near_convergence_and_far_logits(centroids: str, length: Any, shift: float) -> None:
    """Samples close to their own centroid, whose a is a small difference, and one at T·κ' far out in σ's tail."""
    options = PAPER | {"anchor_scale": 4.0, "feature_length": length}
    loss = ncmi.NCMILoss(4, 6, temperature=1 / 55, centroids=centroids, **options).double()
    with torch.no_grad():
        loss.centroid_logits[:, 0] += shift
    loss.to(torch.float64)
    labels = torch.tensor([0, 1, 2, 3])
    features = 10 * torch.eye(4, 6, dtype=torch.float64) + 0.01 * torch.randn(4, 6, dtype=torch.float64)
    for one, other in zip(found(loss, features, labels), expected(loss, features, labels), strict=True):
        assert comparison.relative_error(one, other) <= 1e-10


@pytest.mark.parametrize("centroids", ["fixed", "learned"])
@pytest.mark.parametrize("length", comparison.LENGTHS)
@pytest.mark.parametrize("whole_row", [False, True])
def test_sigmoids_that_float32_cannot_hold(centroids: str, length: Any, whole_row: bool) -> None:
    """σ(−200) is 0 in float32, and its logarithm −200 all the same."""
    loss = ncmi.NCMILoss(4, 6, temperature=0.1, centroids=centroids, feature_length=length, **PAPER)
    with torch.no_grad():
        loss.centroid_logits[:, 3] -= 200
        if whole_row:
            loss.centroid_logits[1] -= 120
    loss.to(torch.float32)
    features, labels = torch.randn(5, 6), torch.tensor([0, 1, 2, 3, 1])
    for one, other in zip(found(loss, features, labels), expected(loss, features, labels), strict=True):
        assert comparison.relative_error(one, other) <= 1e-5


@pytest.mark.parametrize("centroids", ["fixed", "learned"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", comparison.LENGTHS)
@pytest.mark.parametrize(("classes", "dim", "temperature"), [(1000, 512, 0.2), (100, 2048, 0.07)])
def test_float32_against_float64(
    classes: int, dim: int, temperature: float, length: str, form: dict[str, Any], centroids: str
) -> None:
    """The float64 side is the plain form, by matrix products; it is held to the B×C×D tensors elsewhere."""
    anchors = "axis" if dim >= classes else "random"
    options = form | {"temperature": temperature, "feature_length": length, "anchors": anchors}
    loss = make(classes, dim, torch.float32, centroids=centroids, **options)
    features, labels = torch.randn(256, dim), torch.randint(classes, (256,))
    value, gradient, *_ = found(loss, features, labels)

    f = features.double().requires_grad_()
    log_p = comparison.samples(loss, f).log()
    q = comparison.centroids(loss, loss.centroid_logits.detach().double())
    to_centroid = (log_p.exp() * log_p).sum(1, keepdim=True) - log_p.exp() @ q.log().T
    to_sample = (q * q.log()).sum(1) - log_p @ q.T
    divergence = to_sample if loss.separation_direction == "centroid_to_sample" else to_centroid
    own = to_centroid.gather(1, labels[:, None]).squeeze(1)
    b = equation.separation_from_others(divergence, labels, loss.separation_power)
    if loss.form == "likelihood":
        total = equation.surprisal(own / b, classes, loss.separation_power).mean()
    else:
        total = own.mean() / b.mean() if loss.form == "ratio_of_means" else (own / b).mean()
    (expected_gradient,) = torch.autograd.grad(total, f)
    assert abs(value.double() - total) <= 1e-5 * total
    assert comparison.relative_error(gradient, expected_gradient) <= 2e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("centroids", ["fixed", "learned", "class_mean"])
def test_half_precision_features_under_autocast(centroids: str, form: dict[str, Any], dtype: torch.dtype) -> None:
    """Autocast and half-precision input change nothing but the input's own rounding."""
    loss = make(6, 16, torch.float32, temperature=0.2, centroids=centroids, center="ema", **form)
    features, labels = (100 * torch.randn(8, 16)).to(dtype), torch.randint(6, (8,))
    for targets in (labels, torch.rand(8, 6).softmax(1)):
        rounded = found(loss, features.float(), targets)
        with torch.autocast("cpu", torch.bfloat16):
            half = found(loss, features, targets)
            probabilities = loss.predict_proba(features)
        assert half[0].dtype == torch.float32
        assert torch.equal(half[0], rounded[0])
        torch.testing.assert_close(half[1], rounded[1].to(dtype))
        assert all(x.isfinite().all() for x in half)
        for one, other in zip(half[2:], rounded[2:], strict=True):
            torch.testing.assert_close(one, other)
        torch.testing.assert_close(probabilities, loss.predict_proba(features.float()))


def test_autocast_leaves_the_running_statistics_alone() -> None:
    """Sums of class means by soft targets are a matrix product, which autocast would round to bfloat16."""
    losses = [ncmi.NCMILoss(4, 8, centroids="class_mean", center="ema", centroid_decay=0.5) for _ in range(2)]
    features, targets = torch.randn(32, 8), torch.rand(32, 4).softmax(1)
    losses[0](features, targets)
    with torch.autocast("cpu", torch.bfloat16):
        losses[1](features, targets)
    for name, value in losses[0].state_dict().items():
        assert torch.equal(value, losses[1].state_dict()[name]), name


def test_likelihood_is_minus_log_predict_proba() -> None:
    for power in (-0.5, -4.0, -30.0):
        loss = make(5, 9, torch.float64, separation_power=power)
        features, labels = torch.randn(7, 9, dtype=torch.float64), torch.randint(5, (7,))
        log_proba = loss.predict_log_proba(features)
        torch.testing.assert_close(log_proba.exp().sum(1), torch.ones(7, dtype=torch.float64))
        torch.testing.assert_close(loss.loss(features, labels), -log_proba[torch.arange(7), labels].mean())
        assert torch.equal(loss.scores(features).argmax(1), loss.predict_proba(features).argmax(1))


def test_predict_proba_against_its_definition() -> None:
    """In every mode π_c ∝ KL(P‖Q_c)^{−γ}; γ is 1 where training had no negative power."""
    for form in FORMS:
        loss = make(4, 6, torch.float64, temperature=0.3, **form)
        features = torch.randn(5, 6, dtype=torch.float64)
        p, q = comparison.samples(loss, features), comparison.centroids(loss, loss.centroid_logits.detach())
        power = loss.separation_power if loss.separation_power < 0 else -1.0
        torch.testing.assert_close(loss.predict_proba(features), equation.likelihoods(p, q, power))


def test_reachable_anchor_has_no_concentration() -> None:
    """At T = 1/κ a feature along its axis anchor is the anchor's distribution: a = 0 and the loss is 0."""
    features = torch.eye(3, 5) * 7
    assert ncmi.NCMILoss(3, 5, temperature=0.1, feature_length=70.0, **PAPER).loss(features, torch.arange(3)) > 1e-3
    for length in ("own", 7.0):
        loss = ncmi.NCMILoss(3, 5, temperature=0.1, feature_length=length, **PAPER)
        assert_reached(loss, features)


def assert_reached(loss: ncmi.NCMILoss, features: Tensor) -> None:
    assert loss.loss(features, torch.arange(3)).item() == pytest.approx(0.0, abs=1e-6)
    assert loss.loss(features, torch.tensor([1, 2, 0])).item() > 0.5
    assert math.isclose(loss.predict_proba(features)[0, 0].item(), 1.0, abs_tol=1e-4)
