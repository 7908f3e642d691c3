"""Center, class means and balanced weights against plain numpy, step by step."""

from __future__ import annotations

from typing import Any

import comparison
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import ncmi
from ncmi.loss import equation

BATCHES = (5, 1, 7, 3, 4)
Steps = list[tuple[Tensor, Tensor]]


def steps(classes: int = 4, dim: int = 6) -> Steps:
    """Uneven batches, some classes absent from most."""
    return [(torch.randn(n, dim, dtype=torch.float64) + 2, torch.randint(classes, (n,))) for n in BATCHES]


def make(**options: Any) -> ncmi.NCMILoss:
    return ncmi.NCMILoss(4, 6, **options).double()


def step(loss: ncmi.NCMILoss, features: Tensor, labels: Tensor) -> Tensor:
    """A call, and what a step after it does to the statistics."""
    value = loss(features, labels)
    loss.update()
    return value


def test_moving_average_center() -> None:
    loss, mean = make(center="ema", center_decay=0.9), np.zeros(6)
    for number, (features, labels) in enumerate(steps()):
        before = loss.loss(features, labels)
        torch.testing.assert_close(step(loss, features, labels), before)  # the center of before the step is used
        batch_mean = features.numpy().mean(0)
        mean = batch_mean if number == 0 else 0.9 * mean + 0.1 * batch_mean
        np.testing.assert_allclose(loss.center, mean, rtol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.999999])
def test_extreme_decays_in_float32(decay: float) -> None:
    loss, mean = ncmi.NCMILoss(4, 6, center="ema", center_decay=decay), np.zeros(6)
    for number, (features, labels) in enumerate(steps()):
        step(loss, features.float(), labels)
        batch_mean = features.numpy().mean(0)
        mean = batch_mean if number == 0 else decay * mean + (1 - decay) * batch_mean
    assert loss.center is not None
    np.testing.assert_allclose(loss.center, mean, rtol=1e-5)


def test_frozen_center_is_the_mean_of_the_first_samples() -> None:
    """Of samples, not of batches, which differ in size."""
    loss, data = make(center="frozen", center_updates=3), steps()
    for number, (features, labels) in enumerate(data):
        step(loss, features, labels)
        seen = torch.cat([f for f, _ in data[: min(number + 1, 3)]])
        np.testing.assert_allclose(loss.center, seen.numpy().mean(0), rtol=1e-12)


@pytest.mark.parametrize("soft", [False, True])
def test_moving_class_means(soft: bool) -> None:
    loss = make(centroids="class_mean", centroid_decay=0.8, temperature=0.3, anchor_scale=3.0)
    means = equation.simplex(3.0 * torch.eye(4, 6, dtype=torch.float64), "nsf").numpy()
    np.testing.assert_allclose(loss.log_centroids().exp(), means, rtol=1e-6)
    means = loss.log_centroids().exp().numpy()
    for features, labels in steps():
        targets = torch.rand(len(labels), 4, dtype=torch.float64).softmax(1) if soft else torch.eye(4).double()[labels]
        step(loss, features, targets if soft else labels)
        p = comparison.samples(loss, features).numpy()
        weights = targets.numpy()
        for c in range(4):
            if weights[:, c].sum() > 0:
                batch_mean = (weights[:, c, None] * p).sum(0) / weights[:, c].sum()
                means[c] = 0.8 * means[c] + 0.2 * batch_mean
        np.testing.assert_allclose(loss.log_centroids().exp(), means, rtol=1e-12)


def test_balanced_weights_of_labels_seen_so_far() -> None:
    loss, counts = make(weight="balanced"), np.zeros(4)
    for features, labels in steps():
        value = loss(features, labels)
        counts += np.bincount(labels.numpy(), minlength=4)
        weights = torch.from_numpy(counts.sum() / (4 * np.maximum(counts, 1)))
        given = make(weight=weights)
        torch.testing.assert_close(value, given.loss(features, labels), rtol=1e-6, atol=0)
    soft = torch.rand(3, 4, dtype=torch.float64).softmax(1)
    loss(torch.randn(3, 6), soft)
    assert loss.class_weights is not None
    np.testing.assert_allclose(loss.class_weights.counts, counts + soft.sum(0).numpy())


def test_balanced_weights_of_known_counts() -> None:
    loss = make(weight="balanced")
    loss.set_class_counts(torch.tensor([10, 1, 5, 4]))
    features, labels = steps()[0]
    given = make(weight=[20 / 40, 20 / 4, 20 / 20, 20 / 16])
    for _ in range(2):
        torch.testing.assert_close(loss(features, labels), given(features, labels))
    make(weight=None).set_class_counts(torch.ones(4))  # others have no use for it


@pytest.mark.parametrize("options", [{"center": "ema"}, {"center": "frozen", "center_updates": 2}, {}])
@pytest.mark.parametrize("parts", [(16, 16, 16, 16), (30, 2, 31, 1)])
def test_accumulation(options: dict[str, Any], parts: tuple[int, ...]) -> None:
    """4×16 micro-batches, or uneven ones, equal 1×64: the loss's gradients and the state after the update."""
    whole, accumulated = (
        make(centroids="class_mean", weight="balanced", centroid_decay=0.5, **options) for _ in range(2)
    )
    for _ in range(3):
        features, labels = torch.randn(64, 6, dtype=torch.float64) + 1, torch.randint(4, (64,))
        for loss in (whole, accumulated):
            loss.set_class_counts(torch.bincount(labels, minlength=4))
        f = features.clone().requires_grad_()
        value = step(whole, f, labels)
        (gradient,) = torch.autograd.grad(value, f)
        total = torch.zeros((), dtype=torch.float64)
        g = features.clone().requires_grad_()
        weights = accumulated.class_weights() if accumulated.class_weights else None
        assert weights is not None
        for part, part_labels in zip(g.split(list(parts)), labels.split(list(parts)), strict=True):
            # the mean is a weighted one: each part counts by its weights' sum
            total = total + accumulated.loss(part, part_labels) * weights[part_labels].sum()
            accumulated.observe(part, part_labels)
        total = total / weights[labels].sum()
        accumulated.update()
        torch.testing.assert_close(total, value)
        torch.testing.assert_close(torch.autograd.grad(total, g)[0], gradient)
        for name, state in whole.state_dict().items():
            torch.testing.assert_close(accumulated.state_dict()[name], state)


def test_evaluation_changes_nothing() -> None:
    loss = make(centroids="class_mean", center="ema", weight="balanced")
    features, labels = steps()[0]
    step(loss, features, labels)
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    loss.eval()
    loss(features, labels)
    loss.train()
    with torch.no_grad():
        loss(features, labels)
    loss.loss(features, labels)
    loss.predict_proba(features)
    loss.log_distribution(features)
    loss.update()  # nothing was observed
    for name, value in loss.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_gradients_do_not_reach_the_statistics() -> None:
    loss = make(centroids="class_mean", center="ema")
    features, labels = steps()[0]
    for _ in range(2):
        loss(features.clone().requires_grad_(), labels).backward()
    assert not any(value.requires_grad for value in loss.state_dict(keep_vars=True).values())


class Counted(torch.nn.Module):
    """A network of one layer, with a loss that has a center, as its last one."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(6, 6)
        self.head = ncmi.NCMIHead(6, 4, center="ema", **options)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        loss: Tensor = self.head(self.layer(x), labels)
        return loss

    @property
    def steps(self) -> int:
        assert self.head.running_center is not None
        return int(self.head.running_center.updates)


CENTROIDS = ("learned", "fixed", "class_mean")
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "loop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}


@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("centroids", CENTROIDS)
def test_statistics_move_once_a_step_however_many_calls_make_it(centroids: str, options: dict[str, Any]) -> None:
    model = Counted(centroids=centroids)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, **options)
    batches = [(torch.randn(5, 6) + 1, torch.randint(4, (5,))) for _ in range(12)]
    features: list[Tensor] = []
    for number, (x, labels) in enumerate(batches):
        features.append(model.layer(x).detach())
        model(x, labels).backward()
        if number % 3 == 2:
            # the three batches of the step before are one mean, and move the center at the first call after it
            assert model.steps == number // 3
            optimizer.step()
            optimizer.zero_grad()
        if number == 3:
            torch.testing.assert_close(model.head.center, torch.cat(features[:3]).mean(0))
    model(*batches[0])
    assert model.steps == 4


def test_a_loop_without_an_optimizer_counts_as_well() -> None:
    model = Counted()
    for _ in range(3):
        model(torch.randn(5, 6), torch.randint(4, (5,))).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
    assert model.steps == 2


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_is_none(fused: bool) -> None:
    model = Counted()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    for number in range(4):
        scaler.scale(model(torch.randn(5, 6), torch.randint(4, (5,)))).backward()
        if number == 1:
            assert model.layer.weight.grad is not None
            model.layer.weight.grad[0, 0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert model.steps == 2


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_a_checkpoint_computes_again_is_not_counted_again(reentrant: bool) -> None:
    model = Counted()
    x = torch.randn(5, 6, requires_grad=True)
    checkpoint(model, x, torch.randint(4, (5,)), use_reentrant=reentrant).backward()
    assert model.head.running_center is not None
    assert model.head.running_center.pending == 5


def test_ignored_samples_are_in_no_statistic() -> None:
    features, labels = torch.randn(6, 6, dtype=torch.float64), torch.tensor([0, 1, -100, 2, -100, 1])
    kept = labels >= 0
    options: dict[str, Any] = {"centroids": "class_mean", "center": "ema", "weight": "balanced", "robustness": "auto"}
    some, all_of_them = make(**options), make(**options)
    value = step(some, features, labels)
    torch.testing.assert_close(value, step(all_of_them, features[kept], labels[kept]))
    for name, state in some.state_dict().items():
        torch.testing.assert_close(all_of_them.state_dict()[name], state)
