"""Class weights against torch's own, and logit adjustment against its formula."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from ncmi.objectives import cross_entropy_loss
from ncmi.objectives.options import CrossEntropyOptions, make_objective

COUNTS = [1000, 100, 30, 10]
FEATURES = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 0, 0, 1, 2, 3])
weights_of_classes = st.lists(st.floats(0.05, 20), min_size=4, max_size=4)


def made(counts: list[int] | None = COUNTS, **options: Any) -> Any:
    torch.manual_seed(1)
    objective = make_objective("cross_entropy", 4, 5, **options).double()
    if counts is not None:
        objective.set_class_counts(torch.tensor(counts))
    return objective


def same_value_and_gradients(ours: Tensor, theirs: Tensor, head: nn.Module) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    mine, other = (torch.autograd.grad(loss, list(head.parameters()), retain_graph=True) for loss in (ours, theirs))
    for a, b in zip(mine, other, strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)


@given(weights_of_classes)
def test_weights_are_torchs(weights: list[float]) -> None:
    objective = made(weight=weights)
    theirs = F.cross_entropy(objective.head(FEATURES), LABELS, weight=torch.tensor(weights, dtype=torch.float64))
    # weights are kept as float32
    torch.testing.assert_close(objective(FEATURES, LABELS), theirs, rtol=1e-6, atol=0)
    double = torch.tensor(weights, dtype=torch.float64)
    same_value_and_gradients(
        cross_entropy_loss(objective.head(FEATURES), LABELS, double),
        F.cross_entropy(objective.head(FEATURES), LABELS, weight=double),
        objective.head,
    )


@given(weights_of_classes)
def test_weights_of_soft_targets_are_those_of_torch(weights: list[float]) -> None:
    """Of soft targets the mean is divided by the number of samples, not by their weights."""
    head = made().head
    logits = head(FEATURES)
    soft = torch.randn(6, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64).softmax(1)
    w = torch.tensor(weights, dtype=torch.float64)
    above = torch.zeros((), dtype=torch.float64)
    for z, row in zip(logits, soft.tolist(), strict=True):
        for label in range(4):
            above = above - row[label] * weights[label] * torch.log(torch.exp(z[label]) / torch.exp(z).sum())
    same_value_and_gradients(cross_entropy_loss(logits, soft, w), above / 6, head)
    torch.testing.assert_close(cross_entropy_loss(logits, soft, w), F.cross_entropy(logits, soft, w))


def test_balanced_weights_come_from_the_counts() -> None:
    objective = made(weight="balanced")
    balanced = sum(COUNTS) / (4 * torch.tensor(COUNTS, dtype=torch.float64))
    theirs = F.cross_entropy(objective.head(FEATURES), LABELS, weight=balanced)
    same_value_and_gradients(objective(FEATURES, LABELS), theirs, objective.head)
    assert objective.couples_samples
    assert not made().couples_samples
    # told counts are not changed by what is seen
    objective.observe(FEATURES, LABELS)
    torch.testing.assert_close(objective(FEATURES, LABELS), theirs, rtol=1e-12, atol=0)


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_logit_adjustment(tau: float) -> None:
    objective = made(logit_adjustment=tau)
    prior = torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)
    theirs = torch.zeros((), dtype=torch.float64)
    for z, label in zip(objective.head(FEATURES), LABELS.tolist(), strict=True):
        others = sum(prior[k] ** tau * torch.exp(z[k]) for k in range(4))
        theirs = theirs - torch.log(prior[label] ** tau * torch.exp(z[label]) / others) / 6
    same_value_and_gradients(objective(FEATURES, LABELS), theirs, objective.head)
    assert not objective.couples_samples
    # decisions are those of the logits themselves
    torch.testing.assert_close(objective.scores(FEATURES), objective.head(FEATURES))


def test_neither_is_plain_cross_entropy() -> None:
    plain, off = made(), made(weight=None, logit_adjustment=0.0)
    theirs = F.cross_entropy(plain.head(FEATURES), LABELS)
    for objective in (plain, off):
        assert torch.equal(objective(FEATURES, LABELS), theirs)
        assert set(objective.state_dict()) == {"head.weight", "head.bias"}
    equal = [7, 7, 7, 7]
    for options in ({"weight": "balanced"}, {"logit_adjustment": 1.5}):
        torch.testing.assert_close(made(equal, **options)(FEATURES, LABELS), theirs)


@pytest.mark.parametrize("options", [{"weight": "balanced"}, {"logit_adjustment": 1.0}])
def test_counts_that_are_not_told_are_those_seen(options: dict[str, Any]) -> None:
    told = made([3, 1, 1, 1], **options)
    called, observing = made(None, **options), made(None, **options)
    expected = told(FEATURES, LABELS)
    torch.testing.assert_close(called(FEATURES, LABELS), expected)  # counts first
    for micro in (slice(0, 2), slice(2, 6)):
        observing.observe(FEATURES[micro], F.one_hot(LABELS, 4).double()[micro])
    torch.testing.assert_close(observing.loss(FEATURES, LABELS), expected)
    # evaluation counts nothing
    before = copy.deepcopy(called.eval().state_dict())
    called(FEATURES, LABELS)
    assert all(torch.equal(value, before[name]) for name, value in called.state_dict().items())


def test_counts_belong_to_the_state_and_survive_half_precision() -> None:
    objective = made(weight="balanced", logit_adjustment=1.0)
    fresh = made(None, weight="balanced", logit_adjustment=1.0)
    fresh.load_state_dict(objective.state_dict())
    assert torch.equal(fresh(FEATURES, LABELS), objective(FEATURES, LABELS))
    half = made([2049, 1, 1, 1], weight="balanced").half()
    assert half.class_weights.counts.max() == 2049  # float16 has no such number
    assert half(FEATURES.half(), LABELS).dtype == torch.float32


def test_a_class_without_a_sample_leaves_the_loss_finite() -> None:
    for options in ({"weight": "balanced"}, {"logit_adjustment": 1.0}):
        assert made([5, 0, 1, 0], **options)(FEATURES, LABELS).isfinite()


def test_bad_weights() -> None:
    with pytest.raises(ValueError, match=r"weight \[3\]: expected \[4\], one for each class"):
        cross_entropy_loss(torch.zeros(2, 4), torch.tensor([0, 1]), torch.ones(3))


def fitted(options: CrossEntropyOptions, inputs: Tensor, labels: Tensor) -> Any:
    """Gradient descent to (near) the minimum; a model of one number: everything that it can learn is the prior."""
    torch.manual_seed(0)
    objective: Any = options.build(2, 1).double()
    objective.set_class_counts(torch.bincount(labels))
    optimizer = torch.optim.LBFGS(objective.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = objective.loss(inputs, labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    return objective


@pytest.mark.parametrize("options", [CrossEntropyOptions("balanced"), CrossEntropyOptions(logit_adjustment=1.0)])
def test_both_decide_a_rare_class_as_often_as_a_common_one(options: CrossEntropyOptions) -> None:
    """Two Gaussians at ±1: the balanced boundary is at 0, that of 50 : 1 far on the rare side."""
    quantiles = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(1000) + 0.5) / 1000).double()
    inputs = torch.cat([quantiles - 1, quantiles[10::50] + 1])[:, None]
    labels = torch.cat([torch.zeros(1000), torch.ones(20)]).long()

    def boundary(objective: Any) -> float:
        objective.requires_grad_(False)
        weight = objective.head.weight[1] - objective.head.weight[0]
        return float(-(objective.head.bias[1] - objective.head.bias[0]) / weight)

    assert boundary(fitted(CrossEntropyOptions(), inputs, labels)) > 1.5
    assert abs(boundary(fitted(options, inputs, labels))) < 0.2
