"""What must hold for any input: special cases, invariances, mixup, precision, edge cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import baseline_reference as reference
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import ncmi.objectives as losses
from ncmi.objectives.options import make_objective

SHIFT_INVARIANT = (
    "cross_entropy",
    "label_smoothing",
    "focal",
    "poly",
    "anticlass",
    "cmic",
    "generalized_cross_entropy",
    "symmetric_cross_entropy",
)
seeds = st.integers(0, 2**31 - 1)
# the same examples on every run, and no failure because a machine is busy
repeatable = settings(derandomize=True, deadline=None, max_examples=30)


def batch(seed: int, size: int = 7, num_classes: int = 5, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = scale * torch.randn(size, num_classes, generator=generator, dtype=torch.float64)
    return values, torch.randint(num_classes, (size,), generator=generator)


def call(name: str, logits: Tensor, labels: Tensor, **options: float) -> Tensor:
    function = getattr(losses, f"{name}_loss")
    if name == "cmic":
        return function(logits, labels, some_centroids(logits), **options)
    return function(logits, labels, **options)


def some_centroids(logits: Tensor) -> Tensor:
    width = logits.shape[1]
    return torch.randn(width, width, generator=torch.Generator().manual_seed(7)).softmax(-1)


@repeatable
@given(seeds)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("label_smoothing", {"epsilon": 0.0}),
        ("focal", {"gamma": 0.0}),
        ("poly", {"epsilon": 0.0}),
        ("anticlass", {"gamma": 0.0}),
        ("cmic", {"concentration_weight": 0.0, "separation_weight": 0.0}),
        ("generalized_cross_entropy", {"q": 1e-9}),
        ("symmetric_cross_entropy", {"alpha": 1.0, "beta": 0.0}),
    ],
)
def test_is_cross_entropy_without_its_own_term(name: str, options: dict[str, float], seed: int) -> None:
    logits, labels = batch(seed)
    torch.testing.assert_close(call(name, logits, labels, **options), losses.cross_entropy_loss(logits, labels))


@repeatable
@given(seeds, st.floats(-50, 50))
@pytest.mark.parametrize("name", SHIFT_INVARIANT)
def test_does_not_change_with_a_shift_of_the_logits(name: str, seed: int, shift: float) -> None:
    logits, labels = batch(seed)
    torch.testing.assert_close(call(name, logits + shift, labels), call(name, logits, labels), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["square", "squentropy"])
def test_changes_with_a_shift_of_the_logits(name: str) -> None:
    logits, labels = batch(0)
    assert call(name, logits + 5, labels) > call(name, logits, labels) + 1


@repeatable
@given(seeds, st.permutations(range(7)), st.floats(0.1, 10))
@pytest.mark.parametrize("name", reference.PAIRING)
def test_does_not_change_with_order_or_length(name: str, seed: int, order: list[int], length: float) -> None:
    vectors, labels = batch(seed)
    torch.testing.assert_close(call(name, length * vectors[order], labels[order]), call(name, vectors, labels))


@repeatable
@given(seeds)
@pytest.mark.parametrize("name", [name for name in reference.NAMES if name != "cmic"])
def test_is_not_negative(name: str, seed: int) -> None:
    assert call(name, *batch(seed)) >= -1e-12


@repeatable
@given(seeds, st.floats(0, 1))
@pytest.mark.parametrize("name", reference.ON_LOGITS)
def test_soft_targets_are_labels_in_expectation(name: str, seed: int, share: float) -> None:
    logits, labels = batch(seed)
    hard = torch.nn.functional.one_hot(labels, 5).float()
    other = hard.roll(1, 0)
    torch.testing.assert_close(call(name, logits, hard), call(name, logits, labels))
    if name in reference.LINEAR_IN_TARGETS:
        mixed = call(name, logits, share * hard.double() + (1 - share) * other.double())
        ends = share * call(name, logits, labels) + (1 - share) * call(name, logits, labels.roll(1))
        torch.testing.assert_close(mixed, ends)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", reference.NAMES)
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    values, labels = batch(11, size=32)
    half = values.to(dtype).requires_grad_()
    rounded = half.detach().float().requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        ours = call(name, half, labels)
    theirs = call(name, rounded, labels)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    (mine,), (other,) = torch.autograd.grad(ours, half), torch.autograd.grad(theirs, rounded)
    torch.testing.assert_close(mine, other.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("name", reference.NAMES)
def test_objective_under_autocast(name: str, problem: Callable[..., Any]) -> None:
    """The head may run in half precision; everything after it does not."""
    objective, features, labels = problem(name, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objective(features, labels)
        scores = objective.scores(features if objective.views == 1 else features[:, 0])
        if objective.views == 1:
            same = objective.criterion(objective.head(features).float(), labels)
            if name == "opl":
                same = same + losses.opl_loss(features, labels)
        else:
            embeddings = objective.projection(features).float().flatten(0, 1)
            same = losses.supcon_loss(embeddings, labels.repeat_interleave(2))
    assert loss.dtype == scores.dtype == torch.float32
    assert loss.isfinite()
    torch.testing.assert_close(loss, same, rtol=1e-6, atol=0)


@pytest.mark.parametrize("value", [0.0, 1e-20, 1e4])
@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("num_classes", [2, 50])
@pytest.mark.parametrize("name", reference.NAMES)
def test_extreme_inputs_stay_finite(name: str, num_classes: int, size: int, value: float) -> None:
    values = value * batch(3, size, num_classes, scale=1.0)[0].float()
    labels = torch.arange(size) % 2
    values.requires_grad_()
    loss = call(name, values, labels)
    (gradient,) = torch.autograd.grad(loss, values)
    assert loss.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_gradient_is_finite_where_the_probability_rounds_to_one(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(losses.focal_loss(logits, torch.tensor([0, 0]), gamma), logits)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.0], [-0.5, 0.5]]))


def test_zero_feature_gets_a_gradient_of_the_size_of_the_others() -> None:
    features = torch.eye(3)
    features[2] = 0
    features.requires_grad_()
    loss = losses.opl_loss(features, torch.tensor([0, 1, 0])) + losses.supcon_loss(features, torch.tensor([0, 1, 0]))
    (gradient,) = torch.autograd.grad(loss, features)
    assert gradient[2].norm() < 50


def test_no_separation_where_one_class_is_alone() -> None:
    logits, labels = batch(5)[0].float(), torch.full((7,), 2)
    with_separation = losses.cmic_loss(logits, labels, some_centroids(logits), separation_weight=1e6)
    assert with_separation == losses.cmic_loss(logits, labels, some_centroids(logits), separation_weight=0.0)


def test_nan_features_are_not_hidden() -> None:
    for name in reference.NAMES:
        objective = make_objective(name, 3, 4)
        features = torch.full((2, 4) if objective.views == 1 else (2, 2, 4), float("nan"))
        assert objective(features, torch.tensor([0, 1])).isnan()
