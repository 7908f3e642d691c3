"""What NCMILoss remembers: it travels with the state_dict, casts and copies, and fixed centroids never go stale."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import ncmi

FREE: dict[str, Any] = {"anchor_scale": 10.0}
ROBUST: dict[str, Any] = {"robustness": "auto"}
DIRECTIONS: dict[str, Any] = ROBUST | {"feature_length": "own"}
PAPER: dict[str, Any] = FREE | {
    "form": "mean_of_ratios",
    "separation_power": 1.0,
    "separation_direction": "centroid_to_sample",
}
MODES = [
    {"centroids": centroids, "center": center, "weight": weights, "anchors": "random", **form}
    for centroids, center, weights, form in itertools.product(
        ("fixed", "learned", "class_mean"),
        ("none", "ema", "frozen"),
        (None, "balanced"),
        (ROBUST, DIRECTIONS, PAPER),
    )
]


def trained(seed: int = 0, **options: Any) -> ncmi.NCMILoss:
    """A loss after some steps, some observed samples pending, its fixed centroids moved from their anchors."""
    loss = ncmi.NCMILoss(5, 7, anchor_seed=seed, **options)
    for _ in range(3):
        loss(torch.randn(8, 7) + 1, torch.randint(5, (8,)))
    if loss.as_features and loss.feature_length is None:
        with torch.no_grad():
            loss.centroid_logits.normal_()
    else:
        loss.set_centroids(torch.randn(5, 7).softmax(1))
    loss.observe(torch.randn(4, 7), torch.tensor([0, 1, 1, 4]))
    return loss


def same_behavior(one: ncmi.NCMILoss, other: ncmi.NCMILoss, **close: float) -> None:
    """Equal losses, probabilities and gradients now, and again after a training step of both."""
    features, labels = torch.randn(6, 7), torch.randint(5, (6,))
    for targets in (labels, torch.rand(6, 5).softmax(1), labels):
        results = []
        for loss in (one, other):
            loss.update()  # a copy cannot know whether there was a step since the last call
            f = features.clone().requires_grad_()
            value = loss(f, targets)
            results.append((value.detach(), *torch.autograd.grad(value, f), loss.predict_log_proba(features).detach()))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a.double(), b.double(), **(close or {"rtol": 0.0, "atol": 0.0}))


def by_state_dict(loss: ncmi.NCMILoss, options: dict[str, Any]) -> ncmi.NCMILoss:
    fresh = ncmi.NCMILoss(5, 7, anchor_seed=99, **options)
    fresh.load_state_dict(loss.state_dict())
    return fresh


def by_assigned_state_dict(loss: ncmi.NCMILoss, options: dict[str, Any]) -> ncmi.NCMILoss:
    fresh = ncmi.NCMILoss(5, 7, anchor_seed=99, **options)
    fresh.load_state_dict(copy.deepcopy(loss.state_dict()), assign=True)
    return fresh


def by_deepcopy(loss: ncmi.NCMILoss, options: dict[str, Any]) -> ncmi.NCMILoss:
    return copy.deepcopy(loss)


def by_pickle(loss: ncmi.NCMILoss, options: dict[str, Any]) -> ncmi.NCMILoss:
    copied = pickle.loads(pickle.dumps(loss))
    assert isinstance(copied, ncmi.NCMILoss)
    return copied


@pytest.mark.parametrize("copied", [by_state_dict, by_assigned_state_dict, by_deepcopy, by_pickle])
def test_copies_behave_the_same(copied: Callable[..., ncmi.NCMILoss]) -> None:
    for options in MODES:
        loss = trained(**options)
        other = copied(loss, options)
        same_behavior(other, loss)
        for name, value in loss.state_dict().items():
            assert torch.equal(other.state_dict()[name], value), name


def test_state_dict_survives_a_file() -> None:
    loss = trained(**MODES[-1])
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    fresh = ncmi.NCMILoss(5, 7, anchor_seed=99, **MODES[-1])
    fresh.load_state_dict(torch.load(file, weights_only=True))
    same_behavior(fresh, loss)


@pytest.mark.parametrize("options", MODES)
def test_casts(options: dict[str, Any]) -> None:
    loss = trained(**options)
    same_behavior(copy.deepcopy(loss).double(), loss, rtol=1e-4, atol=1e-5)
    assert copy.deepcopy(loss).double().loss(torch.randn(2, 7), torch.tensor([0, 1])).dtype == torch.float64
    there_and_back = copy.deepcopy(loss).double().float()
    same_behavior(there_and_back, loss)
    half = copy.deepcopy(loss).to(torch.bfloat16)
    for name, value in half.state_dict().items():
        if name == "centroid_logits":
            assert value.dtype == torch.bfloat16
        else:  # a running average cannot move by a thousandth of itself in bfloat16
            assert torch.equal(value, loss.state_dict()[name]), name
    reference = copy.deepcopy(half).float()
    features, labels = torch.randn(6, 7), torch.randint(5, (6,))
    # computed in float32 from the rounded centroids
    assert half.loss(features, labels).dtype == torch.float32
    assert torch.equal(half.loss(features, labels), reference.loss(features, labels))
    assert torch.equal(half.predict_proba(features), reference.predict_proba(features))
    assert half(features.bfloat16(), labels).isfinite()


def test_fixed_centroids_are_never_stale() -> None:
    """Constants derived from them follow every way of changing them."""
    features, labels = torch.randn(6, 7), torch.randint(5, (6,))
    for form in (FREE, PAPER, PAPER | {"separation_power": -2.0}):
        fixed = ncmi.NCMILoss(5, 7, centroids="fixed", **form)
        learned = ncmi.NCMILoss(5, 7, centroids="learned", **form)

        def agree(fixed: ncmi.NCMILoss = fixed, learned: ncmi.NCMILoss = learned) -> None:
            torch.testing.assert_close(fixed.loss(features, labels), learned.loss(features, labels))
            torch.testing.assert_close(fixed.predict_proba(features), learned.predict_proba(features))
            torch.testing.assert_close(fixed.log_centroids(), learned.log_centroids())

        agree()
        distributions = torch.randn(5, 7).softmax(1)
        for loss in (fixed, learned):
            loss.set_centroids(distributions)
        agree()
        fixed.load_state_dict(ncmi.NCMILoss(5, 7, centroids="fixed", anchors="random", **form).state_dict())
        learned.load_state_dict(ncmi.NCMILoss(5, 7, centroids="learned", anchors="random", **form).state_dict())
        agree()


@pytest.mark.parametrize("distribution", ["nsf", "softmax"])
@pytest.mark.parametrize("centroids", ["fixed", "learned", "class_mean"])
def test_set_centroids(centroids: Any, distribution: Any) -> None:
    loss = ncmi.NCMILoss(3, 6, centroids=centroids, distribution=distribution, anchor_scale=10.0)
    for wanted in (torch.randn(3, 6).softmax(1), (5 * torch.randn(3, 6)).softmax(1), torch.full((3, 6), 1 / 6)):
        loss.set_centroids(wanted)
        torch.testing.assert_close(loss.log_centroids().exp(), wanted)
    assert [p.shape for p in loss.centroid_parameters()] == ([(3, 6)] if centroids == "learned" else [])


def test_whose_parameters() -> None:
    """Two optimizers can share the work: a network's with network_parameters, the centroids' own."""
    learned = ncmi.NCMILoss(3, 6, centroids="learned")
    assert list(learned.network_parameters()) == []
    assert [id(p) for p in learned.centroid_parameters()] == [id(learned.centroid_logits)]
    assert [name for name, _ in learned.named_parameters()] == ["centroid_logits"]
    fixed = ncmi.NCMILoss(3, 6, centroids="fixed", center="ema")
    assert list(fixed.parameters()) == []
    assert "centroid_logits" in fixed.state_dict()


def test_one_line_in_an_existing_loop() -> None:
    """The head goes, the criterion comes: the rest of the loop stays, and it learns."""
    centers = 3 * torch.randn(4, 5)
    labels = torch.randint(4, (200,))
    inputs = centers[labels] + torch.randn(200, 5)
    network = torch.nn.Sequential(torch.nn.Linear(5, 32), torch.nn.ReLU(), torch.nn.Linear(32, 16))
    criterion = ncmi.NCMILoss(num_classes=4, feature_dim=16)
    optimizer = torch.optim.SGD([*network.parameters(), *criterion.parameters()], lr=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        loss = criterion(network(inputs), labels)
        loss.backward()
        optimizer.step()
    criterion.eval()
    accuracy = (criterion.predict_proba(network(inputs)).argmax(1) == labels).float().mean()
    assert accuracy > 0.9


def test_loss_needs_no_extra_memory_of_classes_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """p = 1 takes the linear-time path: no matrix of samples by classes, let alone by features."""
    from ncmi.loss import divergence, functional

    def refuse(*args: Any, **kwargs: Any) -> Tensor:
        raise AssertionError("a B×C matrix")

    monkeypatch.setattr(functional, "pairwise_divergence", refuse)
    monkeypatch.setattr(divergence, "pairwise_divergence", refuse)
    features, labels = torch.randn(6, 7), torch.randint(5, (6,))
    for direction in ("centroid_to_sample", "sample_to_centroid"):
        for centroids in ("fixed", "learned", "class_mean"):
            options = PAPER | {"separation_direction": direction}
            ncmi.NCMILoss(5, 7, centroids=centroids, **options)(features, labels)  # type: ignore[arg-type]
