"""Robustness "auto": q is the running mean of the highest probability, against plain numpy, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
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


@pytest.mark.parametrize("options", [{}, {"centroids": "fixed"}, {"separation_direction": "centroid_to_sample"}])
def test_as_large_as_the_model_is_sure(options: dict[str, Any]) -> None:
    """The first step takes q = 1/C; each uses what was known before it, and its own probabilities come after."""
    loss, sure = make(**options), 0.25
    for number, (features, labels) in enumerate(steps()):
        assert present(loss) == pytest.approx(max(sure, 0.25), rel=1e-12)
        plain = ncmi.NCMILoss(4, 6, robustness=present(loss), **options).double()
        plain.load_state_dict({"centroid_logits": loss.centroid_logits}, strict=False)
        targets = torch.rand(len(labels), 4, dtype=torch.float64).softmax(1)
        torch.testing.assert_close(loss.loss(features, targets), plain.loss(features, targets))
        highest = loss.predict_proba(features).detach().amax(1).mean().item()
        results = []
        for one in (loss, plain):
            f = features.clone().requires_grad_()
            value = one(f, labels)
            results.append((value.detach(), *torch.autograd.grad(value, (f, *one.parameters()))))
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected)
        loss.update()
        sure = highest if number == 0 else DECAY * sure + (1 - DECAY) * highest


def test_never_below_the_chance_of_a_class() -> None:
    """Nothing observed, or a model that takes every class for as likely."""
    for features in (None, torch.zeros(3, 6, dtype=torch.float64)):
        loss = make()
        if features is not None:
            loss(features, torch.tensor([0, 1, 2]))
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
    with pytest.raises(RuntimeError, match="confidence"):
        ncmi.NCMILoss(4, 6).load_state_dict(loss.state_dict())


def test_the_robust_setting_by_name() -> None:
    loss = NCMIOptions.robust().build(5, 8)
    assert isinstance(loss, ncmi.NCMILoss)
    assert loss.robustness == "auto"
    assert np.isclose(present(loss), 0.2)
    fixed = ncmi.make_objective("ncmi", 5, 8, robustness=0.7)
    assert isinstance(fixed, ncmi.NCMILoss)
    assert fixed.present_robustness == fixed.robustness == 0.7
    assert fixed.confidence is None
