"""Robustness "auto": q is how sure the model is, at most the square of 15 times the share of labels that it contradicts,
both running means, against plain numpy, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import ncmi
from ncmi.objectives.options import NCMIOptions

DECAY = 0.98


def make(**options: Any) -> ncmi.NCMILoss:
    return ncmi.NCMILoss(4, 6, robustness="auto", **options).double()


def steps() -> list[tuple[Tensor, Tensor]]:
    """Uneven batches."""
    return [(torch.randn(n, 6, dtype=torch.float64) + 1, torch.randint(4, (n,))) for n in (5, 1, 7, 3)]


def present(loss: ncmi.NCMILoss) -> float:
    """The q of the next step."""
    q = loss.present_robustness
    assert isinstance(q, Tensor)
    assert not q.requires_grad
    return float(q)


def doubt(loss: ncmi.NCMILoss, features: Tensor, classes: Tensor) -> NDArray[np.float64]:
    """Mean highest probability, and share of samples that are taken for another class."""
    probabilities = loss.predict_proba(features).detach().numpy()
    return np.array([probabilities.max(1).mean(), (probabilities.argmax(1) != classes.numpy()).mean()])


@pytest.mark.parametrize("options", [{}, {"centroids": "fixed"}, {"separation_direction": "centroid_to_sample"}])
@pytest.mark.parametrize("right", [0.0, 0.9, 1.0])
def test_as_large_as_the_model_is_sure_and_contradicts_labels(options: dict[str, Any], right: float) -> None:
    """The first step is that of the likelihood; each uses what was known before it, and its own sums come after."""
    loss, known = make(**options), np.zeros(2)
    for number, (features, labels) in enumerate(steps()):
        # labels that the model agrees with, but for some
        agrees = torch.rand(len(labels)) < right
        labels = torch.where(agrees, loss.predict_proba(features).argmax(1), labels)
        assert present(loss) == pytest.approx(max(min(known[0], (15 * known[1]) ** 2), 1e-3), rel=1e-12)
        plain = ncmi.NCMILoss(4, 6, robustness=present(loss), **options).double()
        plain.load_state_dict({"centroid_logits": loss.centroid_logits}, strict=False)
        targets = torch.rand(len(labels), 4, dtype=torch.float64).softmax(1)
        torch.testing.assert_close(loss.loss(features, targets), plain.loss(features, targets))
        new = doubt(loss, features, labels)
        results = []
        for one in (loss, plain):
            f = features.clone().requires_grad_()
            value = one(f, labels)
            results.append((value.detach(), *torch.autograd.grad(value, (f, *one.parameters()))))
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected)
        loss.update()
        known = new if number == 0 else DECAY * known + (1 - DECAY) * new


def test_where_no_label_is_contradicted_it_is_the_likelihood() -> None:
    """Value and gradient, to three digits, however sure the model is."""
    loss, plain = make(), ncmi.NCMILoss(4, 6).double()
    features = 3 * torch.randn(32, 6, dtype=torch.float64)
    labels = loss.predict_proba(features).argmax(1)
    loss(features, labels)
    loss.update()
    results = []
    for one in (loss, plain):
        f = features.clone().requires_grad_()
        value = one(f, labels)
        results.append((value.detach(), *torch.autograd.grad(value, f)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=5e-3, atol=1e-6)


def test_soft_targets_are_contradicted_at_their_highest_share() -> None:
    loss = make()
    features, targets = torch.randn(20, 6, dtype=torch.float64), torch.rand(20, 4, dtype=torch.float64).softmax(1)
    loss(features, targets)
    loss.update()
    sure, contradicted = doubt(loss, features, targets.argmax(1))
    assert contradicted > 0
    assert present(loss) == pytest.approx(min(sure, (15 * contradicted) ** 2), rel=1e-12)


@pytest.mark.parametrize(("wrong", "least", "most"), [(0.0, 0.0, 0.05), (0.4, 0.6, 1.0)])
def test_wrong_labels_are_told_from_right_ones(wrong: float, least: float, most: float) -> None:
    """Four clusters far apart, in which a share of the labels is wrong: q after training says so."""
    torch.manual_seed(0)
    classes = torch.arange(4).repeat_interleave(64)
    inputs = 4 * torch.eye(4)[classes] + 0.3 * torch.randn(256, 4)
    labels = torch.where(torch.rand(256) < wrong, (classes + torch.randint(1, 4, (256,))) % 4, classes)
    network, loss = torch.nn.Linear(4, 6), ncmi.NCMILoss(4, 6, robustness="auto")
    optimizer = torch.optim.Adam([*network.parameters(), *loss.parameters()], lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        loss(network(inputs), labels).backward()
        optimizer.step()
    loss.update()
    assert least <= present(loss) <= most
    assert (loss.predict(network(inputs)) == classes).all()


def test_nothing_observed() -> None:
    """q is as good as 0, without a division by it."""
    loss = make()
    assert present(loss) == pytest.approx(1e-3)
    loss(torch.zeros(3, 6, dtype=torch.float64), torch.tensor([0, 1, 2]))  # every class is as likely
    loss.update()
    assert present(loss) == pytest.approx(0.25)


def test_accumulation() -> None:
    """Uneven micro-batches equal the whole: the same q in all of them, the same q after them."""
    whole, accumulated = make(), make()
    for _ in range(3):
        features, labels = torch.randn(16, 6, dtype=torch.float64), torch.randint(4, (16,))
        value = whole(features, labels)
        whole.update()
        parts = zip(features.split([9, 1, 6]), labels.split([9, 1, 6]), strict=True)
        total = torch.zeros((), dtype=torch.float64)
        for part, part_labels in parts:
            total = total + accumulated.loss(part, part_labels) * len(part) / 16
            accumulated.observe(part, part_labels)
        accumulated.update()
        torch.testing.assert_close(total, value)
        assert present(accumulated) == pytest.approx(present(whole), rel=1e-12)


def test_evaluation_leaves_it_alone_and_the_state_carries_it() -> None:
    loss = make()
    for features, labels in steps():
        loss(features, labels)
        loss.update()
    before = present(loss)
    assert before > 0.3
    loss.eval()
    loss(*steps()[0])
    loss.predict_proba(steps()[0][0])
    assert present(loss) == before
    fresh = make()
    fresh.load_state_dict(loss.state_dict())
    assert present(fresh) == before
    with pytest.raises(RuntimeError, match="doubt"):
        ncmi.NCMILoss(4, 6).load_state_dict(loss.state_dict())


def test_the_robust_setting_by_name() -> None:
    loss = NCMIOptions.robust().build(5, 8)
    assert isinstance(loss, ncmi.NCMILoss)
    assert loss.robustness == "auto"
    assert np.isclose(present(loss), 1e-3)
    fixed = ncmi.make_objective("ncmi", 5, 8, robustness=0.7)
    assert isinstance(fixed, ncmi.NCMILoss)
    assert fixed.present_robustness == fixed.robustness == 0.7
    assert fixed.doubt is None
