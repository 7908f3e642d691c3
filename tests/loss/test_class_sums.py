"""Sums over centroids that are looked at in blocks, or never kept, are those of the centroids themselves."""

from __future__ import annotations

from typing import Any

import comparison
import pytest
import torch

import ncmi
from ncmi.loss import class_sums, equation, signs
from ncmi.loss.forms import FeatureLength

PAPER: dict[str, Any] = {"separation_power": 1.0, "form": "mean_of_ratios"}


@pytest.mark.parametrize("direction", comparison.DIRECTIONS)
@pytest.mark.parametrize("length", comparison.LENGTHS)
@pytest.mark.parametrize("scale", [None, 6.0])
def test_learned(direction: str, length: FeatureLength, scale: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_sums, "_BLOCK", 100)
    torch.manual_seed(0)
    options = {**PAPER, "separation_direction": direction, "feature_length": length, "anchor_scale": scale}
    loss = ncmi.NCMILoss(23, 9, anchors="random", **options).double()  # type: ignore[arg-type]
    features = (torch.randn(8, 9, dtype=torch.float64) * (loss.feature_length or 1)).requires_grad_()
    labels = torch.tensor([3, 22, 3, 0, 11, 5, 5, 5])
    f, w = (x.detach().clone().requires_grad_() for x in (features, loss.centroid_logits))
    p, q = comparison.samples(loss, f), comparison.centroids(loss, w)
    expected = equation.loss(p, labels, q, power=1.0, direction=direction)
    value = loss.loss(features, labels)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    parts = torch.autograd.grad(value, (features, loss.centroid_logits))
    for part, other in zip(parts, torch.autograd.grad(expected, (f, w)), strict=True):
        assert comparison.relative_error(part, other) <= 1e-12
    few = features.detach()[:2].requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda x, _: loss.loss(x, labels[:2]), (few, loss.centroid_logits), fast_mode=True
    )


@pytest.mark.parametrize("direction", comparison.DIRECTIONS)
def test_signs_on_demand_are_the_signs_that_are_kept(direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signs, "_CLASSES", 10)
    torch.manual_seed(0)
    options = {**PAPER, "separation_direction": direction, "anchors": "signs", "anchor_seed": 3, "anchor_scale": 4.0}
    fixed = ncmi.NCMILoss(37, 70, centroids="fixed", **options).double()  # type: ignore[arg-type]
    learned = ncmi.NCMILoss(37, 70, **options).double()  # type: ignore[arg-type]
    assert fixed.centroid_logits.numel() == 0
    torch.testing.assert_close(fixed.centroids, learned.centroids.detach(), rtol=1e-6, atol=0)
    features, labels = torch.randn(6, 70, dtype=torch.float64), torch.tensor([0, 36, 5, 5, 9, 10])
    torch.testing.assert_close(fixed(features, labels), learned.loss(features, labels).detach(), rtol=1e-6, atol=0)
    soft = torch.nn.functional.one_hot(labels, 37).double()
    torch.testing.assert_close(fixed(features, soft), fixed(features, labels), rtol=1e-9, atol=0)
    other = ncmi.NCMILoss(37, 70, centroids="fixed", **options | {"anchor_seed": 4})  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="anchor_seed"):
        other.load_state_dict(fixed.state_dict())


def test_signs_are_random_and_of_their_number_alone() -> None:
    directions = signs.sign_directions(torch.arange(2000), 128)
    assert torch.equal(signs.sign_directions(torch.tensor([1999, 4]), 128), directions[[1999, 4]])
    assert torch.equal(ncmi.anchor_directions(2000, 128, "signs"), directions)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(2000))
    cosines = (directions @ directions.T).fill_diagonal_(0)
    assert abs(cosines.mean().item()) < 1e-3
    assert 0.9 < cosines.std().item() * 128**0.5 < 1.1
    assert cosines.abs().max().item() < 6 / 128**0.5
    assert not torch.equal(signs.sign_directions(torch.arange(5), 128, seed=1), directions[:5])
