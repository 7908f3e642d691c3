"""Value and gradient of every baseline against the naive reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import baseline_reference as reference
import pytest
import torch
from sklearn.metrics import log_loss
from torch import Tensor
from torch.nn import functional as F

from ncmi.objectives import cross_entropy_loss, opl_loss, square_loss, supcon_loss
from ncmi.objectives.cmic import batch_separation
from ncmi.objectives.interface import Objective

OPTIONS: dict[str, dict[str, Any]] = {
    "label_smoothing": {"epsilon": 0.3},
    "focal": {"gamma": 1.5},
    "poly": {"epsilon": 2.0},
    "square": {"k": 3.0, "target_value": 2.0},
    "anticlass": {"gamma": 0.7},
    "opl": {"opl_weight": 0.6, "gamma": 0.8},
    "supcon": {"temperature": 0.4, "projection_dim": 3},
    "cmic": {"concentration_weight": 0.9, "separation_weight": 0.4},
    "generalized_cross_entropy": {"q": 0.4},
    "symmetric_cross_entropy": {"alpha": 0.7, "beta": 1.3, "log_zero": -3.0},
}


def expected(name: str, objective: Any, features: Tensor, targets: list[list[float]], labels: Tensor) -> Tensor:
    options = OPTIONS.get(name, {})
    if name == "supcon":
        hidden, _, out = objective.projection
        rows = features.flatten(0, 1)
        embeddings = (rows @ hidden.weight.T + hidden.bias).relu() @ out.weight.T + out.bias
        return reference.supcon(embeddings, [y for y in labels.tolist() for _ in range(2)], options["temperature"])
    logits = features @ objective.head.weight.T + objective.head.bias
    if name == "cmic":
        means = objective.centroids.means()
        assert means[3].sum() == 0  # the unseen class is part of the test
        return reference.cmic(logits, targets, means, options["concentration_weight"], options["separation_weight"])
    if name == "opl":
        pairs = reference.opl(features, labels.tolist(), options["gamma"])
        return reference.mean_loss(reference.cross_entropy, logits, targets) + options["opl_weight"] * pairs
    return reference.mean_loss(getattr(reference, name), logits, targets, **options)


def compare(objective: Objective, ours: Tensor, theirs: Tensor, features: Tensor) -> None:
    inputs = [features, *objective.parameters()]
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for mine, other in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True):
        assert mine.abs().max() > 0
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", reference.NAMES)
def test_value_and_gradient_for_labels(name: str, problem: Callable[..., Any]) -> None:
    objective, features, labels = problem(name, **OPTIONS.get(name, {}))
    features.requires_grad_()
    targets = reference.one_hot(labels, objective.num_classes)
    compare(objective, objective(features, labels), expected(name, objective, features, targets, labels), features)


@pytest.mark.parametrize("name", reference.ON_LOGITS)
def test_value_and_gradient_for_soft_targets(name: str, problem: Callable[..., Any]) -> None:
    objective, features, labels = problem(name, **OPTIONS.get(name, {}))
    features.requires_grad_()
    soft = torch.randn(len(labels), objective.num_classes, dtype=torch.float64).softmax(-1)
    soft[0] = torch.tensor([0.25, 0.0, 0.0, 0.75])
    theirs = expected(name, objective, features, soft.tolist(), labels)
    compare(objective, objective(features, soft), theirs, features)


@pytest.mark.parametrize("name", reference.NAMES)
def test_gradcheck(name: str, problem: Callable[..., Any]) -> None:
    objective, features, labels = problem(name)
    assert torch.autograd.gradcheck(lambda f: objective.loss(f, labels), features.requires_grad_())


@pytest.mark.parametrize(("num_classes", "k", "target_value"), [(41, 1.0, 1.0), (42, 15.0, 30.0), (50, 15.0, 30.0)])
def test_square_loss_takes_the_usual_values_for_the_number_of_classes(
    num_classes: int, k: float, target_value: float
) -> None:
    logits = torch.randn(2, num_classes, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.tensor([3, num_classes - 1])
    targets = reference.one_hot(labels, num_classes)
    theirs = reference.mean_loss(reference.square, logits, targets, k=k, target_value=target_value)
    torch.testing.assert_close(square_loss(logits, labels), theirs, rtol=1e-13, atol=0)
    assert square_loss(logits, labels, k=2.0) != square_loss(logits, labels)


def test_cross_entropy_is_the_log_loss_of_scikit_learn() -> None:
    logits = torch.randn(9, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0, 0])
    theirs = log_loss(labels.numpy(), logits.softmax(-1).numpy())
    assert float(cross_entropy_loss(logits, labels)) == pytest.approx(theirs, rel=1e-12)


def test_supcon_with_one_positive_each_is_a_classification_of_the_other_view() -> None:
    views = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    h = F.normalize(views.flatten(0, 1), dim=-1)
    similarities = (h @ h.T / 0.2).fill_diagonal_(float("-inf"))
    theirs = F.cross_entropy(similarities, torch.arange(10).roll(5))
    torch.testing.assert_close(supcon_loss(views.flatten(0, 1), torch.arange(5).repeat(2), 0.2), theirs)


def test_separation_equals_the_sufficient_statistics() -> None:
    """N² Γ = −(Σ_c A_c)·(Σ_c L_c) + Σ_c A_c·L_c."""
    log_p = torch.randn(20, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64).log_softmax(-1)
    labels = torch.arange(20) % 3
    a = torch.stack([log_p[labels == c].exp().sum(0) for c in range(4)])
    ell = torch.stack([log_p[labels == c].sum(0) for c in range(4)])
    theirs = ((a * ell).sum() - a.sum(0) @ ell.sum(0)) / 20**2
    torch.testing.assert_close(batch_separation(log_p, labels), theirs, rtol=1e-12, atol=0)


def test_terms_without_a_pair_are_zero() -> None:
    features = torch.randn(4, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64, requires_grad=True)
    different, alike = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 1, 1, 1])
    for labels in (different, alike):
        theirs = reference.opl(features, labels.tolist(), 0.5)
        torch.testing.assert_close(opl_loss(features, labels, 0.5), theirs, rtol=1e-12, atol=0)
    assert opl_loss(features[:1], torch.tensor([0])) == 0
    assert supcon_loss(features, different) == 0
    (gradient,) = torch.autograd.grad(supcon_loss(features, different) + opl_loss(features, alike), features)
    assert gradient.isfinite().all()
