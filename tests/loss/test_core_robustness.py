"""The bounded likelihood (1 − π^q)/q, between −log π at q = 0 and 1 − π at q = 1."""

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
from ncmi.loss import equation

sizes = st.tuples(st.integers(1, 6), st.integers(2, 7), st.integers(2, 9))  # B, C, D
seeds = st.integers(0, 2**31)
qs = st.sampled_from([0.05, 0.3, 0.7, 1.0])


def problem(size: tuple[int, int, int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, labels, directions of centroids; float64."""
    batch, classes, dim = size
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"dtype": torch.float64, "generator": generator}
    directions = torch.randn(classes, dim, **options)
    return torch.randn(batch, dim, **options), torch.randint(classes, (batch,), generator=generator), directions


def make(directions: Tensor, **options: Any) -> ncmi.NCMILoss:
    loss = ncmi.NCMILoss(*directions.shape, **options).to(directions.dtype)
    with torch.no_grad():
        loss.centroid_logits.copy_(directions)
    return loss


def each(loss: ncmi.NCMILoss, features: Tensor, labels: Tensor) -> Tensor:
    """The loss of every sample by itself, ``[B]``."""
    return torch.stack([loss.loss(f[None], y[None]) for f, y in zip(features, labels, strict=True)])


@pytest.mark.parametrize("direction", comparison.DIRECTIONS)
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5, 3.0]])
@pytest.mark.parametrize("robustness", [0.0, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("length", comparison.LENGTHS)
def test_all_paths_against_the_plain_formula(
    length: str, robustness: float, weights: list[float] | None, direction: str
) -> None:
    """Labels, the same labels as one-hot targets, mixed targets: values, and gradients of features and directions."""
    features, labels, directions = problem((9, 4, 6), 1)
    loss = make(
        directions,
        feature_length=length,
        robustness=robustness,
        weight=weights,
        separation_power=-5.0,
        separation_direction=direction,
    )
    one_hot = torch.eye(4, dtype=torch.float64)[labels]
    mixed = 0.7 * one_hot + 0.3 * one_hot.roll(1, 0)
    for targets, plain in ((labels, labels), (one_hot, one_hot), (mixed, mixed)):
        f, w = features.clone().requires_grad_(), directions.clone().requires_grad_()
        p, q = comparison.samples(loss, f), comparison.centroids(loss, w)
        expected = equation.loss(
            p,
            plain,
            q,
            form="likelihood",
            power=-5.0,
            direction=direction,
            robustness=robustness,
            weight=None if weights is None else torch.tensor(weights, dtype=torch.float64),
        )
        g = features.clone().requires_grad_()
        value = loss.loss(g, targets)
        found = [value.detach(), *torch.autograd.grad(value, (g, loss.centroid_logits))]
        for one, other in zip(found, [expected.detach(), *torch.autograd.grad(expected, (f, w))], strict=True):
            assert comparison.relative_error(one, other) <= 1e-10


@given(sizes, seeds)
def test_between_the_likelihood_and_one_minus_it(size: tuple[int, int, int], seed: int) -> None:
    features, labels, directions = problem(size, seed)
    pi = make(directions).predict_proba(features).detach()[torch.arange(size[0]), labels]
    close = {"rtol": 1e-6, "atol": 1e-12}
    torch.testing.assert_close(make(directions, robustness=1.0).loss(features, labels), (1 - pi).mean(), **close)
    surprisal = each(make(directions), features, labels)
    torch.testing.assert_close(surprisal, -pi.log(), rtol=1e-6, atol=1e-9)
    small = 1e-6
    almost = each(make(directions, robustness=small), features, labels)
    assert ((almost - surprisal).abs() <= small * surprisal**2 + 1e-9).all()


@given(sizes, seeds, qs)
def test_bounded_and_less_the_more_robust(size: tuple[int, int, int], seed: int, robustness: float) -> None:
    features, labels, directions = problem(size, seed)
    losses = each(make(directions, robustness=robustness), features, labels)
    assert (losses >= 0).all()
    assert (losses <= 1 / robustness).all()
    assert (losses <= each(make(directions, robustness=robustness / 2), features, labels) + 1e-12).all()
    assert (losses <= each(make(directions), features, labels) + 1e-12).all()


@given(sizes, seeds, qs)
def test_a_sample_pulls_by_its_likelihood_to_the_power_of_q(
    size: tuple[int, int, int], seed: int, robustness: float
) -> None:
    """The gradient is π_y^q times that of −log π_y: the less likely its label, the less a sample moves anything."""
    features, labels, directions = problem(size, seed)
    plain, robust = make(directions), make(directions, robustness=robustness)
    pull = plain.predict_proba(features).detach()[torch.arange(size[0]), labels] ** robustness
    gradients = []
    for loss in (plain, robust):
        f = features.clone().requires_grad_()
        gradients.append(torch.autograd.grad(loss.loss(f, labels), f)[0])
    torch.testing.assert_close(gradients[1], pull.unsqueeze(1) * gradients[0], rtol=1e-7, atol=1e-10)


@given(sizes, seeds, qs)
def test_soft_targets_are_an_expectation(size: tuple[int, int, int], seed: int, robustness: float) -> None:
    features, _, directions = problem(size, seed)
    loss = make(directions, robustness=robustness)
    targets = torch.rand(size[0], size[1], dtype=torch.float64).softmax(1)
    of_class = torch.stack([each(loss, features, torch.full((size[0],), c)) for c in range(size[1])], dim=1)
    torch.testing.assert_close(loss.loss(features, targets), (targets * of_class).sum(1).mean(), rtol=1e-7, atol=1e-10)


@given(sizes, seeds)
def test_symmetric_at_one(size: tuple[int, int, int], seed: int) -> None:
    """Over all labels that a sample might have the losses add up to C − 1, whatever the feature and the centroids.

    Ghosh et al. 2017: of such a loss uniformly wrong labels change neither the minimum nor the direction of a step.
    """
    features, labels, directions = problem(size, seed)
    classes = size[1]
    loss = make(directions, robustness=1.0)
    total = sum(each(loss, features, torch.full((size[0],), c)) for c in range(classes))
    torch.testing.assert_close(total, torch.full((size[0],), classes - 1.0, dtype=torch.float64), rtol=1e-7, atol=0)

    share = 0.4  # of labels that are another class, drawn evenly
    one_hot = torch.eye(classes, dtype=torch.float64)[labels]
    noisy = (1 - share) * one_hot + share / (classes - 1) * (1 - one_hot)
    values, gradients = [], []
    for targets in (labels, noisy):
        f = features.clone().requires_grad_()
        value = loss.loss(f, targets)
        values.append(value.detach())
        gradients.append(torch.autograd.grad(value, (f, loss.centroid_logits)))
    shrunk = 1 - share * classes / (classes - 1)
    torch.testing.assert_close(values[1], shrunk * values[0] + share, rtol=1e-7, atol=1e-10)
    for clean, wrong in zip(*gradients, strict=True):
        torch.testing.assert_close(wrong, shrunk * clean, rtol=1e-6, atol=1e-9)


def test_the_likelihood_is_not_symmetric() -> None:
    features, _, directions = problem((5, 4, 6), 0)
    for robustness, least in ((0.0, 0.5), (0.5, 0.05)):
        loss = make(directions, robustness=robustness)
        total = torch.stack([each(loss, features, torch.full((5,), c)) for c in range(4)]).sum(0)
        assert total.max() - total.min() > least


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("robustness", [0.0, 0.05, 0.7, 1.0])
@pytest.mark.parametrize("power", [-4.0, -60.0])
@pytest.mark.parametrize("length", ["own", 1.0])
def test_gradients_are_finite_at_certainty(length: Any, power: float, robustness: float, dtype: torch.dtype) -> None:
    """Samples at their own centroid, where π_y is 1, and at a wrong one, where π_y underflows; hard and soft."""
    loss = make(torch.eye(4, 6, dtype=dtype), robustness=robustness, separation_power=power, feature_length=length)
    features, right = (3 if length == "own" else 1) * torch.eye(4, 6, dtype=dtype), torch.arange(4)
    for labels, expected in ((right, 0.0), (right.roll(1), 1 / robustness if robustness else math.inf)):
        for targets in (labels, torch.eye(4, dtype=dtype)[labels]):
            loss.zero_grad()
            f = features.clone().requires_grad_()
            value = loss.loss(f, targets)
            value.backward()
            if math.isinf(expected):
                assert 25 < value.item() < math.inf
            else:
                assert value.item() == pytest.approx(expected, rel=0.3 if robustness == 0.05 else 1e-3, abs=1e-6)
            for gradient in (f.grad, loss.centroid_logits.grad):
                assert gradient is not None
                assert gradient.isfinite().all()
    assert float(loss.predict_proba(features).detach()[0, 1]) < 1e-6


@pytest.mark.parametrize("robustness", [-0.1, 1.5, math.nan])
def test_errors_name_the_range(robustness: float) -> None:
    message = rf"robustness={robustness}: choose 0 \(clean labels\) to 1, for the module also 'auto'"
    with pytest.raises(ValueError, match=message):
        ncmi.NCMILoss(3, 6, robustness=robustness)
    log_p, log_q = torch.randn(2, 6).log_softmax(1), torch.randn(3, 6).log_softmax(1)
    with pytest.raises(ValueError, match=message):
        ncmi.ncmi_loss(
            log_p,
            torch.tensor([0, 1]),
            log_q,
            form="likelihood",
            separation_power=-4.0,
            robustness=robustness,
        )


@pytest.mark.parametrize("form", ["mean_of_ratios", "ratio_of_means"])
def test_it_bounds_a_likelihood_alone(form: Any) -> None:
    with pytest.raises(ValueError, match=r"robustness=0.7 bounds a likelihood: use it with form='likelihood'"):
        ncmi.NCMILoss(3, 6, robustness=0.7, form=form)
    with pytest.raises(ValueError, match="bounds a likelihood"):
        ncmi.ncmi_loss(torch.zeros(1, 6), torch.tensor([0]), torch.zeros(3, 6), form=form, robustness=0.7)


def test_an_unknown_word_lists_the_known() -> None:
    with pytest.raises(ValueError, match="unknown robustness 'strong': use 0 to 1, or auto"):
        ncmi.NCMILoss(3, 6, robustness="strong")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bounds a likelihood"):
        ncmi.NCMILoss(3, 6, robustness="auto", form="mean_of_ratios")
