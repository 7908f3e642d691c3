"""The length that features are divided by: one for all, so that their own lengths count, or each one's own."""

from __future__ import annotations

import math
from typing import Any

import comparison
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import ncmi
from ncmi.loss import equation, likelihood
from ncmi.loss.forms import FeatureLength, common_length
from ncmi.objectives.options import make_objective

B, C, D = 7, 4, 9
PAPER: dict[str, Any] = {
    "form": "ratio_of_means",
    "separation_power": 1.0,
    "separation_direction": "centroid_to_sample",
}
FORMS: dict[str, dict[str, Any]] = {
    "default": {},
    "center": {"center": "ema"},
    "softmax": {"distribution": "softmax"},
    "fixed": {"centroids": "fixed"},
    "class means": {"centroids": "class_mean"},
    "scaled": {"anchor_scale": 5.0},
    "robust": {"robustness": 0.5},
    "power": {"form": "mean_of_ratios", "separation_power": -3.0},
    "paper": PAPER | {"anchor_scale": 5.0, "center": "ema"},
    "paper, points": PAPER,
}
LENGTHS: tuple[FeatureLength, ...] = ("own", "common", 0.7)


def make(length: FeatureLength, dtype: torch.dtype = torch.float64, **form: Any) -> ncmi.NCMILoss:
    """A loss whose centroids have left their anchors and whose center has left zero."""
    loss = ncmi.NCMILoss(C, D, feature_length=length, **form).to(dtype)
    with torch.no_grad():
        loss.centroid_logits += 0.2 * torch.randn(C, D)
        if loss.running_center is not None:
            loss.running_center.mean.normal_()
        if loss.class_means is not None:
            loss.class_means.means.copy_(torch.randn(C, D, dtype=torch.float64).softmax(1))
    return loss


def derivatives(value: Tensor, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Value, gradient, and the Hessian's product with a vector that is the same each time."""
    gradient = torch.autograd.grad(value, inputs, create_graph=True)
    along = sum((g * torch.linspace(-1, 2, g.numel(), dtype=g.dtype).view(g.shape)).sum() for g in gradient)
    assert isinstance(along, Tensor)
    return [x.detach() for x in (value, *gradient, *torch.autograd.grad(along, inputs))]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("form", FORMS)
def test_all_paths_and_derivatives(form: str, length: FeatureLength) -> None:
    """By hand, in ordinary operations and as a head: each by the equation, for labels and soft targets."""
    loss = make(length, **FORMS[form])
    head = ncmi.NCMIHead(D, C, feature_length=length, **FORMS[form]).double()
    head.load_state_dict(loss.state_dict())
    head.eval()
    learned = loss.centroid_mode == "learned"
    features = torch.randn(B, D, dtype=torch.float64)
    for targets in (torch.randint(C, (B,)), torch.rand(B, C, dtype=torch.float64).softmax(1)):
        f, w = features.clone().requires_grad_(), loss.centroid_logits.detach().clone().requires_grad_()
        p = comparison.samples(loss, f)
        q = comparison.centroids(loss, w) if loss.class_means is None else loss.class_means.means
        options = {"form": loss.form, "power": loss.separation_power, "direction": loss.separation_direction}
        expected = equation.loss(p, targets, q, robustness=loss.robustness, **options)  # type: ignore[arg-type]
        wanted = derivatives(expected, (f, w) if learned else (f,))
        for module in (loss, head):
            found = derivatives(module.loss(f, targets), (f, *module.parameters()))
            for one, other in zip(found, wanted, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)

        def plain(f: Tensor, targets: Tensor = targets) -> Tensor:
            return loss.loss(f, targets)

        gradient, value = torch.func.grad_and_value(plain)(features)
        torch.testing.assert_close(value, expected.detach())
        torch.testing.assert_close(gradient, wanted[1])
        power = -1.0 if loss.separation_power == 1 else loss.separation_power
        torch.testing.assert_close(head(features).exp(), equation.likelihoods(p, q, power).detach())
        torch.testing.assert_close(
            torch.func.vmap(head.predict_proba)(features[:, None]).squeeze(1), head(features).exp()
        )


sizes = st.tuples(st.integers(1, 6), st.integers(2, 7), st.integers(2, 9))  # B, C, D
seeds = st.integers(0, 2**31)


@given(sizes, seeds, st.floats(0.2, 5.0), st.floats(-3, 3))
def test_features_centroids_and_length_have_one_unit(
    size: tuple[int, int, int], seed: int, length: float, log_factor: float
) -> None:
    batch, classes, dim = size
    torch.manual_seed(seed)
    factor = 10**log_factor
    features, centroids = (torch.randn(n, dim, dtype=torch.float64) for n in (batch, classes))
    labels, found = torch.randint(classes, (batch,)), []
    for k in (1.0, factor):
        loss = ncmi.NCMILoss(classes, dim, feature_length=k * length).double()
        torch.testing.assert_close(loss.centroid_logits.norm(dim=1), torch.full((classes,), k * length).double())
        with torch.no_grad():
            loss.centroid_logits.copy_(k * centroids)
        f = (k * features).requires_grad_()
        value = loss(f, labels)
        gradients = torch.autograd.grad(value, (f, loss.centroid_logits))
        found.append((value.detach(), *(k * g for g in gradients)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_lengths_count_or_do_not() -> None:
    for length, counts in (("own", False), ("common", True), (3.0, True)):
        loss = make(length)
        features, labels = torch.randn(B, D, dtype=torch.float64), torch.randint(C, (B,))
        once, twice = loss.loss(features, labels), loss.loss(2 * features, labels)
        assert bool((once - twice).abs() > 1e-3) is counts
        assert torch.allclose(loss.predict_proba(features), loss.predict_proba(2 * features)) is not counts


def test_classes_along_one_ray() -> None:
    """No direction tells them apart; neither a learned centroid nor a true one."""
    ray = torch.rand(D)
    lengths = torch.cat([1 + torch.rand(40), 4 + torch.rand(40)])
    features, labels = lengths[:, None] * ray, torch.arange(2).repeat_interleave(40)
    right = {}
    for length in comparison.LENGTHS:
        loss = ncmi.NCMILoss(2, D, feature_length=length)
        optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
        for _ in range(200):
            optimizer.zero_grad()
            loss(features, labels).backward()
            optimizer.step()
        classifier = loss.centroid_classifier().fit(features, labels)
        guesses = loss.scores(features).argmax(1), classifier.predict(features)
        right[length] = [float((guess == labels).float().mean()) for guess in guesses]
    assert right["common"] == [1.0, 1.0]
    assert max(right["own"]) < 0.9


def single(loss: ncmi.NCMILoss, features: Tensor, labels: Tensor) -> list[Tensor]:
    """Value and gradients, in float64."""
    f = features.detach().clone().requires_grad_()
    value = loss.loss(f, labels)
    return [x.detach().double() for x in (value, *torch.autograd.grad(value, (f, *loss.parameters())))]


@pytest.mark.parametrize("looked_at", [True, False])
@pytest.mark.parametrize("times", [0.0, 1e-4, 40.0, 100.0, 1e4, 1e30])
def test_near_and_far_features_in_float32(monkeypatch: pytest.MonkeyPatch, times: float, looked_at: bool) -> None:
    """A sigmoid of e^−100, or 0, has its logarithm all the same; where the values are not looked at, by hand as well."""
    monkeypatch.setattr(likelihood, "is_looked_at", lambda x: looked_at)
    for form in ({}, {"centroids": "fixed"}, {"centroids": "class_mean"}, PAPER):
        loss = make("common", torch.float32, **form)
        s = loss.feature_length
        assert s is not None
        features, labels = torch.randn(B, D), torch.randint(C, (B,))
        features[1] = -features[1].abs()
        features[:3] *= times * s / features[:3].norm(dim=1, keepdim=True)
        found = single(loss, features, labels)
        scores = loss.scores(features).double()
        expected = single(loss.double(), features.double(), labels)
        for one, other in zip(found, expected, strict=True):
            assert one.isfinite().all()
            assert (one - other).norm() <= 1e-4 * other.norm() + 1e-12
        torch.testing.assert_close(scores, loss.scores(features.double()), rtol=1e-4, atol=1e-4)
        if 1 < times <= 100:  # a plain sum that float64 holds
            p, q = comparison.samples(loss, features.double()), loss.centroids.detach()
            options = {"form": loss.form, "power": loss.separation_power, "direction": loss.separation_direction}
            torch.testing.assert_close(expected[0], equation.loss(p, labels, q, **options))  # type: ignore[arg-type]


def test_one_sample_far_out_leaves_the_others_as_they_are() -> None:
    """It takes the whole batch to ordinary operations, which must not differ."""
    loss = make("common", torch.float32)
    features, labels = torch.randn(B, D), torch.randint(C, (B,))
    value, gradient, _ = single(loss, features, labels)
    far = torch.cat([features, torch.full((1, D), 1e3) * torch.arange(-4.0, 5.0)])
    with_far, gradient_with_far, _ = single(loss, far, torch.cat([labels, labels[:1]]))
    torch.testing.assert_close(gradient_with_far[:B] * (B + 1) / B, gradient, rtol=1e-4, atol=1e-6)
    rest = single(loss, far[B:], labels[:1])[0]
    torch.testing.assert_close((with_far * (B + 1) - rest) / B, value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", ["default", "fixed", "robust", "power", "paper"])
def test_nothing_to_learn_from(form: str) -> None:
    """All samples are ignored, or there are none to score."""
    loss = make("common", torch.float32, **FORMS[form])
    features = torch.randn(B, D, requires_grad=True)
    value = loss(features, torch.full((B,), -100))
    value.backward()
    assert value == 0
    assert features.grad is not None
    assert not features.grad.any()
    assert loss.scores(torch.zeros(0, D)).shape == (0, C)


@pytest.mark.parametrize("looked_at", [True, False])
@pytest.mark.parametrize("far", [math.inf, -math.inf, 3e38])
def test_features_that_overflow_are_said(monkeypatch: pytest.MonkeyPatch, far: float, looked_at: bool) -> None:
    """A sigmoid takes infinity for a number as good as any."""
    monkeypatch.setattr(likelihood, "is_looked_at", lambda x: looked_at)
    for form in FORMS.values():
        loss = make(0.7, torch.float32, **form).eval()
        features, labels = torch.randn(B, D), torch.randint(C, (B,))
        features[2, 3] = far
        for refuse in (lambda: loss(features, labels), lambda: loss.scores(features)):  # noqa: B023
            with pytest.raises(ValueError, match=r"row 2.*infinite"):
                refuse()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    loss = make("common", torch.float32)
    features, labels = (3 * torch.randn(B, D)).to(dtype), torch.randint(C, (B,))
    for one, other in zip(single(loss, features, labels), single(loss, features.float(), labels), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)
    assert torch.equal(loss.loss(features, labels), loss.loss(features.float(), labels))


def test_a_feature_at_the_center_is_uniform() -> None:
    for length in LENGTHS:
        found = ncmi.to_log_distribution(torch.ones(1, D), torch.ones(D), 0.5, "nsf", length).exp()
        torch.testing.assert_close(found, torch.full((1, D), 1 / D))


def test_true_centroids_have_the_loss_s_length() -> None:
    loss = ncmi.NCMILoss(C, D, feature_length=1.3, center="frozen", center_updates=2)
    features, labels = torch.randn(40, D, dtype=torch.float64), torch.randint(C, (40,))
    loss(features.float(), labels)
    classifier = loss.centroid_classifier().double().fit(features, labels)
    p = equation.distribution(features, classifier.center, 0.5, "nsf", 1.3)
    means = torch.stack(list(equation.true_centroids(p, labels).values()))
    torch.testing.assert_close(classifier.centroids, means)
    torch.testing.assert_close(classifier.divergences(features), equation.divergences(p, means, "sample_to_centroid"))
    by_default = ncmi.CentroidClassifier(C, D).double().fit(features, labels)
    torch.testing.assert_close(by_default.predict_proba(features), by_default.predict_proba(3 * features))


def test_moving_means_are_of_the_loss_s_distributions() -> None:
    loss = ncmi.NCMILoss(C, D, feature_length=1.3, centroids="class_mean", centroid_decay=0.0).double()
    features, labels = torch.randn(40, D, dtype=torch.float64), torch.randint(C, (40,))
    loss(features, labels)
    loss.update()
    means = equation.true_centroids(equation.distribution(features, None, 0.5, "nsf", 1.3), labels)
    torch.testing.assert_close(loss.centroids, torch.stack([means[c] for c in range(C)]))


def test_reset_after_a_device_without_values() -> None:
    for length in LENGTHS:
        with torch.device("meta"):
            loss = ncmi.NCMILoss(C, D, feature_length=length)
        loss.to_empty(device="cpu").reset_parameters()
        here = ncmi.NCMILoss(C, D, feature_length=length)
        assert torch.equal(loss.centroid_logits, here.centroid_logits)
        expected = (common_length(length, D) or 1.0) * torch.eye(C, D)
        torch.testing.assert_close(loss.centroid_logits.detach(), expected)


@pytest.mark.parametrize("trained", LENGTHS)
@pytest.mark.parametrize("here", LENGTHS)
def test_a_state_of_another_length_is_refused(trained: FeatureLength, here: FeatureLength) -> None:
    """All have the same power, so that the length alone differs."""
    one, other = (ncmi.NCMILoss(C, D, feature_length=length, separation_power=-3.0) for length in (trained, here))
    if trained == here:
        other.load_state_dict(one.state_dict())
        return
    with pytest.raises(RuntimeError) as error:
        other.load_state_dict(one.state_dict())
    for length in (trained, here):
        argument = f"{common_length(length, D)}" if length != "own" else "own"
        assert argument in str(error.value).split("feature_length=")[1]


@pytest.mark.parametrize("distribution", comparison.KINDS)
@pytest.mark.parametrize("length", ["common", 0.7])
def test_points_can_be_put_to_any_distribution(length: FeatureLength, distribution: Any) -> None:
    loss = ncmi.NCMILoss(C, D, feature_length=length, distribution=distribution)
    for wanted in (torch.randn(C, D).softmax(1), (5 * torch.randn(C, D)).softmax(1), torch.full((C, D), 1 / D)):
        loss.set_centroids(wanted)
        torch.testing.assert_close(loss.centroids.detach(), wanted)
        # and a feature that is where the centroid is has its distribution
        torch.testing.assert_close(loss.log_distribution(loss.centroid_logits.detach()).exp(), wanted)


@pytest.mark.parametrize("length", [-1.0, 0.0, math.inf, math.nan, "unit", None, True])
def test_not_a_length(length: Any) -> None:
    for refuse in (
        lambda: ncmi.NCMILoss(C, D, feature_length=length),
        lambda: ncmi.CentroidClassifier(C, D, feature_length=length),
        lambda: ncmi.to_log_distribution(torch.ones(1, D), None, 0.5, "nsf", length),
    ):
        with pytest.raises(ValueError, match=r"feature_length.*own"):
            refuse()


def test_an_option_by_name() -> None:
    features = torch.randn(2, D)
    log_p = make_objective("ncmi", C, D, feature_length=2.0).log_distribution(features)
    torch.testing.assert_close(log_p, ncmi.log_nsf(features / (2.0 * 0.5)))
