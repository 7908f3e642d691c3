"""Generalized and symmetric cross-entropy: their limits, and the property that makes them bear wrong labels."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ncmi.objectives import cross_entropy_loss, generalized_cross_entropy_loss, symmetric_cross_entropy_loss

seeds = st.integers(0, 2**31 - 1)
C = 5


def batch(seed: int, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(7, C, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(C, (7,), generator=generator)


def absolute_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the samples of the sum over the classes."""
    target = torch.eye(C, dtype=logits.dtype)[labels]
    return (logits.exp() / logits.exp().sum(1, keepdim=True) - target).abs().sum(1).mean()


def same_value_and_gradient(ours: Tensor, theirs: Tensor, logits: Tensor, rtol: float = 1e-9) -> None:
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=1e-12)
    (mine,), (other,) = (torch.autograd.grad(loss, logits) for loss in (ours, theirs))
    assert mine.abs().max() > 0
    torch.testing.assert_close(mine, other, rtol=rtol, atol=1e-12)


@given(seeds)
def test_limits(seed: int) -> None:
    logits, labels = batch(seed)
    half = absolute_error(logits, labels) / 2
    same_value_and_gradient(generalized_cross_entropy_loss(logits, labels, q=1.0), half, logits)
    nearly = generalized_cross_entropy_loss(logits, labels, q=1e-8)
    same_value_and_gradient(nearly, cross_entropy_loss(logits, labels), logits, rtol=1e-6)
    only_reverse = symmetric_cross_entropy_loss(logits, labels, alpha=0.0, beta=1.0, log_zero=-2.0)
    same_value_and_gradient(only_reverse, absolute_error(logits, labels), logits)
    only_forward = symmetric_cross_entropy_loss(logits, labels, alpha=0.3, beta=0.0)
    same_value_and_gradient(only_forward, 0.3 * cross_entropy_loss(logits, labels), logits)


@given(seeds, st.floats(0.01, 1))
def test_gradient_is_that_of_cross_entropy_weighed_by_the_power_of_the_probability(seed: int, q: float) -> None:
    logits, labels = batch(seed)
    (ours,) = torch.autograd.grad(generalized_cross_entropy_loss(logits, labels, q), logits)
    (of_cross_entropy,) = torch.autograd.grad(cross_entropy_loss(logits, labels), logits)
    p = logits.detach().softmax(1)[torch.arange(7), labels]
    torch.testing.assert_close(ours, p[:, None] ** q * of_cross_entropy)


def sum_over_labels(loss: Callable[..., Tensor], logits: Tensor, **options: float) -> float:
    return float(sum(loss(logits[:1], torch.tensor([label]), **options) for label in range(C)))


@given(seeds, st.floats(0.01, 1), st.floats(-9, -0.1))
def test_losses_of_all_labels_add_up_to_a_bounded_sum(seed: int, q: float, log_zero: float) -> None:
    """Uniform label noise adds a multiple of this sum: where it is constant, noise does not move the minimum."""
    logits = batch(seed, scale=8.0)[0].detach()
    found = sum_over_labels(generalized_cross_entropy_loss, logits, q=q)
    assert (C - C ** (1 - q)) / q <= found * (1 + 1e-9)
    assert found <= (C - 1) / q * (1 + 1e-9)
    reverse = sum_over_labels(symmetric_cross_entropy_loss, logits, alpha=0.0, beta=1.0, log_zero=log_zero)
    assert reverse == pytest.approx(-log_zero * (C - 1), rel=1e-9)


def test_a_confident_mistake_costs_little() -> None:
    logits, labels = torch.tensor([[30.0, 0.0, 0.0]]), torch.tensor([1])
    assert float(cross_entropy_loss(logits, labels)) == pytest.approx(30, rel=1e-6)
    assert float(generalized_cross_entropy_loss(logits, labels)) == pytest.approx(1 / 0.7, rel=1e-6)
    assert float(symmetric_cross_entropy_loss(logits, labels)) == pytest.approx(0.1 * 30 + 4, rel=1e-6)


@pytest.mark.parametrize("q", [1e-4, 0.7, 1.0])
def test_small_powers_keep_their_digits(q: float) -> None:
    """In float32 1 − p^q has an error of 10 % here where q is 1e-4."""
    p = 1 / (1 + math.exp(-5))
    found = generalized_cross_entropy_loss(torch.tensor([[5.0, 0.0]]), torch.tensor([0]), q)
    assert float(found) == pytest.approx((1 - p**q) / q, rel=3e-5)
