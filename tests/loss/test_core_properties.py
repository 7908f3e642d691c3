"""Properties that hold for any input."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import ncmi
from ncmi.loss.functional import wrong_class_mean

PAPER: dict[str, Any] = {"reduction": "none", "separation_power": 1.0, "separation_direction": "centroid_to_sample"}

sizes = st.tuples(st.integers(1, 6), st.integers(2, 7), st.integers(2, 9))  # B, C, D
seeds = st.integers(0, 2**31)
powers = st.sampled_from([1.0, 2.0, 0.0, -1.0, -4.0, -12.0, math.inf, -math.inf])
directions = st.sampled_from(["centroid_to_sample", "sample_to_centroid"])
temperatures = st.floats(0.05, 3.0)


def draw(size: tuple[int, int, int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, labels, log-centroids, float64."""
    batch, classes, dim = size
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"dtype": torch.float64, "generator": generator}
    log_q = ncmi.log_nsf(torch.randn(classes, dim, **options))
    return torch.randn(batch, dim, **options), torch.randint(classes, (batch,), generator=generator), log_q


def losses(features: Tensor, labels: Tensor, log_q: Tensor, temperature: float, **options: Any) -> Tensor:
    return ncmi.ncmi_loss(ncmi.to_log_distribution(features, None, temperature), labels, log_q, **options)


@given(sizes, seeds, powers, directions, temperatures, st.floats(-4, 4))
def test_sign_scale_and_order(
    size: tuple[int, int, int], seed: int, power: float, direction: str, temperature: float, log_scale: float
) -> None:
    """The loss is not negative; only a feature's direction counts; samples and classes have no order."""
    features, labels, log_q = draw(size, seed)
    options = {"reduction": "none", "separation_power": power, "separation_direction": direction}
    value = losses(features, labels, log_q, temperature, **options)
    assert (value >= 0).all()
    close = {"rtol": 1e-7, "atol": 1e-10}
    scaled = losses(features * 10**log_scale, labels, log_q, temperature, **options)
    torch.testing.assert_close(scaled, value, **close)
    order = torch.randperm(len(features))
    torch.testing.assert_close(
        losses(features[order], labels[order], log_q, temperature, **options), value[order], **close
    )
    classes = torch.randperm(len(log_q))
    renamed = losses(features, classes.argsort()[labels], log_q[classes], temperature, **options)
    torch.testing.assert_close(renamed, value, **close)


@given(sizes, seeds, powers, directions, st.floats(0, 1))
def test_soft_targets_are_an_expectation(
    size: tuple[int, int, int], seed: int, power: float, direction: str, share: float
) -> None:
    """Mixup: a mixed target's loss is the mixture of the losses; a one-hot target's is the label's."""
    features, labels, log_q = draw(size, seed)
    one_hot = torch.eye(len(log_q), dtype=torch.float64)
    partners = labels.roll(1)
    options = {"reduction": "none", "separation_power": power, "separation_direction": direction}
    first, second = (losses(features, x, log_q, 0.5, **options) for x in (labels, partners))
    mixed = share * one_hot[labels] + (1 - share) * one_hot[partners]
    close = {"rtol": 1e-7, "atol": 1e-9}
    torch.testing.assert_close(
        losses(features, mixed, log_q, 0.5, **options), share * first + (1 - share) * second, **close
    )


@given(sizes, seeds, powers, directions)
def test_sample_at_its_centroid(size: tuple[int, int, int], seed: int, power: float, direction: str) -> None:
    _, labels, log_q = draw(size, seed)
    options: dict[str, Any] = {"separation_power": power, "separation_direction": direction}
    assert (ncmi.ncmi_loss(log_q[labels], labels, log_q, reduction="none", **options) <= 1e-12).all()
    if -math.inf < power < 0:
        assert ncmi.ncmi_loss(log_q[labels], labels, log_q, form="likelihood", **options) <= 1e-5


@given(sizes, seeds, st.floats(-20, -0.25), temperatures)
def test_likelihood(size: tuple[int, int, int], seed: int, power: float, temperature: float) -> None:
    """In the direction of CC the likelihood form is −log π_y of π_c ∝ KL(P‖Q_c)^p, over all classes a distribution."""
    features, _, log_q = draw(size, seed)
    options: dict[str, Any] = {"separation_power": power, "separation_direction": "sample_to_centroid"}
    everyone = torch.stack(
        [
            torch.stack(
                [
                    losses(row[None], torch.tensor([c]), log_q, temperature, form="likelihood", **options)
                    for c in range(len(log_q))
                ]
            )
            for row in features
        ]
    )
    torch.testing.assert_close(
        (-everyone).exp().sum(1), torch.ones(len(features), dtype=torch.float64), rtol=1e-6, atol=1e-9
    )


@given(seeds, st.integers(2, 8), st.lists(st.floats(-30, 30), min_size=2, max_size=2))
def test_power_mean_is_monotone_in_p(seed: int, classes: int, pair: list[float]) -> None:
    divergence = torch.rand(3, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 1e-3
    low, high = sorted(pair)
    if min(abs(low), abs(high)) < 1e-3:
        low, high = 0.0, max(high, 1e-3)
    slack = 1 + 1e-9
    assert (wrong_class_mean(divergence, low) <= wrong_class_mean(divergence, high) * slack).all()
    assert (wrong_class_mean(divergence, -math.inf) <= wrong_class_mean(divergence, low) * slack).all()
    assert (wrong_class_mean(divergence, high) <= wrong_class_mean(divergence, math.inf) * slack).all()


@pytest.mark.parametrize("power", [-math.inf, 0.0, math.inf])
def test_power_mean_is_continuous_at_its_limits(power: float) -> None:
    divergence = torch.rand(5, 7, dtype=torch.float64) + 0.1
    near = 1e-5 if power == 0 else math.copysign(3000, power)
    torch.testing.assert_close(
        wrong_class_mean(divergence, near), wrong_class_mean(divergence, power), rtol=1e-3, atol=0
    )


def test_paper_and_power_mean_differ_by_the_classes_counted() -> None:
    """p = 1 divides by C, as the paper does; every other p takes the mean over the C − 1 wrong classes."""
    features, labels, log_q = draw((5, 4, 6), 0)
    at_one = losses(features, labels, log_q, 0.5, **PAPER)
    near_one = losses(features, labels, log_q, 0.5, **PAPER | {"separation_power": 1 + 1e-9})
    torch.testing.assert_close(at_one * 3 / 4, near_one)


@given(sizes, seeds, powers, directions)
def test_reductions_agree_with_none(size: tuple[int, int, int], seed: int, power: float, direction: str) -> None:
    features, labels, log_q = draw(size, seed)
    options: dict[str, Any] = {"separation_power": power, "separation_direction": direction}
    each = losses(features, labels, log_q, 0.5, reduction="none", **options)
    torch.testing.assert_close(losses(features, labels, log_q, 0.5, form="mean_of_ratios", **options), each.mean())
    weights = torch.arange(1.0, len(log_q) + 1, dtype=torch.float64)
    weighted = losses(features, labels, log_q, 0.5, form="mean_of_ratios", weight=weights, **options)
    torch.testing.assert_close(weighted, (weights[labels] * each).sum() / weights[labels].sum())
