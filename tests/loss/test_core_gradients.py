"""gradcheck of every autograd function that is written by hand, and what each does at its limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from ncmi import NCMIHead, NCMILoss
from ncmi.loss import equation, likelihood, sweep
from ncmi.loss.class_sums import LearnedSums
from ncmi.loss.divergence import CentroidView, pairwise_divergence, wrong_sum
from ncmi.loss.forms import FeatureLength
from ncmi.loss.functional import wrong_class_mean
from ncmi.loss.likelihood import Map, likelihood_scores, likelihood_surprisal, plain_scores, plain_surprisal
from ncmi.loss.simplex import log_nsf, log_ratio, to_log_distribution, unit_vector


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_log_nsf() -> None:
    assert gradcheck(log_nsf, (random(3, 5),))
    assert gradgradcheck(log_nsf, (random(2, 3),))


def test_unit_vector() -> None:
    center = torch.randn(5, dtype=torch.float64)
    assert gradcheck(lambda f: unit_vector(f, center), (random(3, 5),))


@pytest.mark.parametrize("length", ["own", "common", 0.7])
def test_log_nsf_of_feature(length: FeatureLength) -> None:
    center = torch.randn(5, dtype=torch.float64)
    assert gradcheck(lambda f: to_log_distribution(f, center, 0.3, "nsf", length), (random(3, 5),))


@pytest.mark.parametrize("block", [8, 2**16], ids=["many blocks", "joined"])
@pytest.mark.parametrize(
    ("temperature", "length", "looked_at"), [(0.1, None, True), (0.5, None, True), (0.5, 0.8, True), (0.5, 3.0, False)]
)
def test_likelihood_by_hand(
    monkeypatch: pytest.MonkeyPatch, block: int, temperature: float, length: float | None, looked_at: bool
) -> None:
    """Value, gradient and second derivative of loss and scores, by features and centroids, against the equation."""
    monkeypatch.setattr(likelihood, "is_looked_at", lambda x: looked_at)  # if not, as on a GPU
    monkeypatch.setattr(likelihood, "_BLOCK", block)
    monkeypatch.setattr(likelihood, "_JOINED", block)
    labels, to = torch.tensor([0, 2, 2, 1]), Map(temperature, "nsf", length, -4.0)
    features, directions = random(4, 4), random(3, 4)
    beta = log_ratio(3 * torch.randn(3, 4, dtype=torch.float64), "nsf").requires_grad_()
    p, q = (equation.distribution(x.detach(), None, temperature, "nsf", length) for x in (features, directions))
    expected = equation.likelihoods(p, q, -4.0).log()
    torch.testing.assert_close(likelihood_scores(features, directions, None, to).detach(), expected)
    own = -expected.gather(1, labels[:, None]).squeeze(1)
    torch.testing.assert_close(likelihood_surprisal(features, directions, None, labels, to).detach(), own)
    for one, plain in ((likelihood_surprisal, plain_surprisal), (likelihood_scores, plain_scores)):
        rest = (to,) if one in (likelihood_scores, plain_scores) else (labels, to)
        assert gradcheck(lambda f, w, one=one, rest=rest: one(f, w, None, *rest), (features, directions))
        assert gradcheck(lambda f, w, one=plain, rest=rest: one(f, w, None, *rest), (features, directions))
        assert gradgradcheck(lambda f, w, one=one, rest=rest: one(f, w, None, *rest), (features, directions))
        # β takes part as the distribution that it is of
        assert gradcheck(lambda f, one=one, rest=rest: one(f, None, beta.detach(), *rest), (features,))
        logits = random(3, 4)
        assert gradcheck(
            lambda z, one=one, rest=rest: one(features.detach(), None, log_ratio(z, "nsf"), *rest), (logits,)
        )


@pytest.mark.parametrize("length", [None, 1.0])
@pytest.mark.parametrize("close", [0.0, 1e-3, 1e-2])
def test_close_by_a_wrong_centroid(close: float, length: float | None) -> None:
    """float32 by hand and in ordinary operations, of loss and scores, against float64."""
    torch.manual_seed(0)
    directions, labels, to = torch.eye(10, 512), torch.arange(10), Map(0.5, "nsf", length, -4.6)
    base = directions.roll(1, 0) + close * torch.nn.functional.normalize(torch.randn(10, 512), dim=1)

    def derivatives(dtype: torch.dtype, loss: Callable[..., Tensor]) -> list[Tensor]:
        f, w = (x.to(dtype).requires_grad_() for x in (base, directions))
        value = loss(f, w)
        return [x.double() for x in (value.detach(), *torch.autograd.grad(value.sum(), (f, w)))]

    def reference(f: Tensor, w: Tensor) -> Tensor:
        p, q = (equation.distribution(x, None, 0.5, "nsf", length) for x in (f, w))
        return -equation.likelihoods(p, q, -4.6).log().diagonal()

    forms = {
        "by hand": lambda f, w: likelihood_surprisal(f, w, None, labels, to),
        "plain": lambda f, w: plain_surprisal(f, w, None, labels, to),
        "scores": lambda f, w: -likelihood_scores(f, w, None, to).diagonal(),
        "plain scores": lambda f, w: -plain_scores(f, w, None, to).diagonal(),
    }
    for loss in forms.values():
        value, *gradients = derivatives(torch.float32, loss)
        assert value.isfinite().all()
        assert all(x.isfinite().all() for x in gradients)
        if close:
            expected, *wanted = derivatives(torch.float64, reference)
            torch.testing.assert_close(value, expected, rtol=1e-3, atol=0)
            for gradient, want in zip(gradients, wanted, strict=True):
                assert (gradient - want).norm() <= (1e-3 if close >= 1e-2 else 1e-2) * want.norm()


@pytest.mark.parametrize("length", [None, 8.0])
@pytest.mark.parametrize("loss", [likelihood_surprisal, plain_surprisal])
def test_where_all_centroids_are_in_one_place_nothing_pulls(loss: Callable[..., Tensor], length: float | None) -> None:
    """Rounding is all that differs between the classes there, and it must not decide for one."""
    place, to = torch.randn(64), Map(0.5, "nsf", length, -4.0)
    # in a place by directions, or up to rounding
    features, directions = (
        (
            place * (torch.arange(1.0, n) if length is None else 1 + 1e-7 * torch.randn(n - 1)).unsqueeze(1)
        ).requires_grad_()
        for n in (7, 5)
    )
    value = loss(features, directions, None, torch.tensor([0, 1, 2, 3, 0, 1]), to)
    torch.testing.assert_close(value.detach(), torch.full((6,), 4.0).log())
    value.sum().backward()
    assert features.grad is not None
    assert directions.grad is not None
    assert features.grad.norm() + directions.grad.norm() == 0
    for scores in (likelihood_scores, plain_scores):
        log_likelihood = scores(features, directions, None, to)
        torch.testing.assert_close(log_likelihood.detach(), torch.full((6, 4), 0.25).log())
        gradients = torch.autograd.grad(log_likelihood[:, 0].sum(), (features, directions))
        assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("length", ["own", 1.0])
@pytest.mark.parametrize("distance", [0.1, 0.05, 0.02, 0.01])
def test_what_is_left_to_learn_is_not_lost_in_rounding(distance: float, length: FeatureLength) -> None:
    """Features close to their centroids: losses down to 1e-17, whose gradient float32 keeps."""
    torch.manual_seed(0)
    loss = NCMILoss(20, 256, temperature=0.1, feature_length=length, separation_power=-6.0)
    labels = torch.randint(20, (16,))
    features = torch.eye(256)[labels] + distance * torch.nn.functional.normalize(torch.randn(16, 256), dim=1)
    found = []
    for dtype in (torch.float32, torch.float64):
        f = features.to(dtype).requires_grad_()
        value = loss.to(dtype).loss(f, labels)
        found.append((value.detach().double(), torch.autograd.grad(value, f)[0].double()))
    (value, gradient), (expected, expected_gradient) = found
    assert 0 < expected < 1e-2
    assert abs(value - expected) <= 1e-5 * expected
    assert (gradient - expected_gradient).norm() <= 1e-4 * expected_gradient.norm()


@pytest.mark.parametrize("length", ["own", 1.0])
def test_a_sample_at_a_wrong_centroid_has_a_large_finite_loss(length: FeatureLength) -> None:
    """π_y down to e^−300, which float32 does not hold."""
    torch.manual_seed(0)
    loss = NCMILoss(1000, 1024, feature_length=length, separation_power=-14.0)
    labels = torch.arange(8)
    wrong = torch.eye(1024)[labels + 1] + 3e-4 * torch.randn(8, 1024)
    found = []
    for dtype in (torch.float32, torch.float64):
        f = wrong.to(dtype).requires_grad_()
        value = loss.to(dtype).loss(f, labels)
        found.append((value.detach().double(), torch.autograd.grad(value, f)[0].double()))
    (value, gradient), (expected, expected_gradient) = found
    assert expected > 100
    # the divergence from the wrong centroid is near its rounding
    torch.testing.assert_close(value, expected, rtol=1e-2, atol=0)
    assert (gradient - expected_gradient).norm() <= 0.02 * expected_gradient.norm()


def test_gradient_of_a_direction_under_autocast_is_that_without() -> None:
    gradients = []
    for enabled in (False, True):
        torch.manual_seed(0)
        f, weight = torch.randn(4, 64, requires_grad=True), torch.randn(4, 64)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            (unit_vector(f) * weight).sum().backward()
            (to_log_distribution(f, None, 0.5) * weight).sum().backward()
        gradients.append(f.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("block", [6, 2**18], ids=["many blocks", "one block"])
@pytest.mark.parametrize("scale", [0.5, 8.0], ids=["near uniform", "far from uniform"])
def test_sweep_terms(monkeypatch: pytest.MonkeyPatch, block: int, scale: float) -> None:
    """Both functions of the sweep at once; far from uniform it takes the branch for ratios close to zero."""
    monkeypatch.setattr(sweep, "_BLOCK", block)
    labels = torch.tensor([0, 2, 2, 1, 0])
    features, logits = random(5, 3), (scale * random(4, 3)).detach().requires_grad_()

    def terms(f: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        learned = LearnedSums(z, labels, Map(1.0, "nsf", 1.0, -1.0), "centroid_to_sample", len(z), None)
        return sweep.sweep_terms(f, 0.3, labels, learned)

    assert gradcheck(terms, (features, logits))
    view = CentroidView(log_ratio(logits.detach(), "nsf"), "centroid_to_sample")
    assert gradcheck(lambda f: sweep.sweep_terms(f, 0.3, labels, view), (features,))
    if block > 6:
        assert gradgradcheck(terms, (features, logits))


@pytest.mark.parametrize("direction", ["centroid_to_sample", "sample_to_centroid"])
def test_pairwise_divergence_and_power_means(direction: str) -> None:
    view = CentroidView(log_ratio(torch.randn(4, 6, dtype=torch.float64), "softmax"), direction)  # type: ignore[arg-type]

    def means(f: Tensor, power: float) -> Tensor:
        alpha = to_log_distribution(f, None, 0.5) + torch.log(torch.tensor(6.0, dtype=torch.float64))
        return wrong_class_mean(pairwise_divergence(alpha, *view.table(), view.direction), power)

    for power in (3.0, 1.0, 0.0, -4.0, -torch.inf, torch.inf):
        assert gradcheck(lambda f, power=power: means(f, power), (random(3, 6),))


FORMS: dict[str, dict[str, Any]] = {
    "default": {},
    "robust": {"robustness": 0.5},
    "smoothed": {"label_smoothing": 0.1},
    "weighted": {"weight": [1.0, 2.0, 0.5]},
    "directions": {"feature_length": "own"},
    "fixed": {"centroids": "fixed"},
    "scaled": {"anchor_scale": 3.0},
    "softmax": {"distribution": "softmax"},
    "cold": {"temperature": 0.1, "feature_length": "own"},
    "paper": {"form": "ratio_of_means", "separation_power": 1.0, "separation_direction": "centroid_to_sample"},
    "released": {
        "form": "mean_of_ratios",
        "separation_power": 1.0,
        "separation_direction": "centroid_to_sample",
        "feature_length": "own",
    },
    "released, smoothed": {
        "form": "mean_of_ratios",
        "separation_power": 1.0,
        "separation_direction": "centroid_to_sample",
        "label_smoothing": 0.1,
    },
    "power": {"form": "mean_of_ratios", "separation_power": -3.0, "separation_direction": "sample_to_centroid"},
    "geometric": {"form": "mean_of_ratios", "separation_power": 0.0},
    "other direction": {"separation_direction": "centroid_to_sample"},
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # forward over reverse, inside torch
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_second_derivatives(form: dict[str, Any]) -> None:
    """Of every form: by finite differences of the gradient, as a Hessian, and under ``torch.func``."""
    torch.manual_seed(0)
    loss = NCMILoss(3, 5, **form).double()
    features, labels = random(4, 5), torch.tensor([0, 2, 1, 1])
    parameters = tuple(loss.parameters())
    assert gradgradcheck(lambda f, *_: loss.loss(f, labels), (features, *parameters))
    hessian = torch.autograd.functional.hessian(lambda f: loss(f, labels), features.detach())
    of_func = torch.func.hessian(lambda f: loss(f, labels))(features.detach())
    torch.testing.assert_close(of_func, hessian)
    assert hessian.norm() > 1e-3
    # gradients of single samples, which mean the same where the loss is a plain mean
    one = torch.func.grad(lambda f, y: loss(f.unsqueeze(0), y.unsqueeze(0)))
    each = torch.func.vmap(one)(features.detach(), labels)
    for row, y, gradient in zip(features.detach(), labels, each, strict=True):
        f = row.unsqueeze(0).requires_grad_()
        torch.testing.assert_close(torch.autograd.grad(loss(f, y.unsqueeze(0)), f)[0][0], gradient)
    _, tangent = torch.func.jvp(lambda f: loss(f, labels), (features.detach(),), (torch.ones_like(features),))
    (gradient,) = torch.autograd.grad(loss(features, labels), features)
    torch.testing.assert_close(tangent, gradient.sum())


@pytest.mark.parametrize(
    "make", [lambda **options: NCMILoss(3, 5, **options), lambda **options: NCMIHead(5, 3, **options)]
)
@pytest.mark.parametrize(
    "options", [{"center": "ema"}, {"centroids": "class_mean"}, {"robustness": "auto"}, {"weight": "balanced"}]
)
def test_transforms_of_functions_and_statistics(options: dict[str, Any], make: Callable[..., Any]) -> None:
    """``torch.func`` does not let a call in training collect; what collects nothing works."""
    features, labels = torch.randn(4, 5), torch.tensor([0, 2, 1, 1])
    loss = make(**options)
    loss(features, labels)
    for transformed in (
        lambda: torch.func.grad(lambda f: loss(f, labels))(features),
        lambda: torch.func.vmap(lambda f, y: loss(f[None], y[None]))(features, labels),
    ):
        with pytest.raises(RuntimeError, match=r"collects statistics .* call loss\(features, labels\).*eval"):
            transformed()
    expected = torch.func.grad(lambda f: loss.loss(f, labels))(features)
    assert torch.func.vmap(lambda f, y: loss.loss(f[None], y[None]))(features, labels).shape == (4,)
    loss.eval()
    torch.testing.assert_close(torch.func.grad(lambda f: loss(f, labels))(features), expected)


def test_transforms_of_functions_with_buffers_of_their_own() -> None:
    loss, features, labels = NCMILoss(3, 5, center="ema"), torch.randn(4, 5), torch.tensor([0, 2, 1, 1])
    parameters, buffers = dict(loss.named_parameters()), dict(loss.named_buffers())

    def of(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        value: Tensor = torch.func.functional_call(loss, (parameters, buffers), (features, labels))
        return value

    gradient = torch.func.grad(of)(parameters, {name: value.clone() for name, value in buffers.items()})
    loss(features, labels).backward()
    torch.testing.assert_close(gradient["centroid_logits"], loss.centroid_logits.grad)


def test_zero_vector_has_the_gradient_of_the_identity() -> None:
    f = torch.zeros(2, 3, requires_grad=True)
    (unit_vector(f) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    torch.testing.assert_close(f.grad, torch.tensor([1.0, 2.0, 3.0]).expand(2, 3))


def test_divergences_lost_in_rounding_stay_positive() -> None:
    """A sum that rounds to zero or below keeps a finite ratio and logarithm."""
    found = wrong_sum(torch.tensor([-0.2, -0.1 - 1e-8]), torch.tensor([0.1, 0.2]), torch.tensor(0.3))
    assert (found > 0).all()
    assert (found < 1e-7).all()
    uniform = torch.zeros(1, 2)
    assert pairwise_divergence(uniform, uniform, torch.zeros(1), "sample_to_centroid").log().isfinite().all()
