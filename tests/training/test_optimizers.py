"""Which parameters are trained by which optimizer, with which decay, and learning rates against torch's own schedulers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, MultiStepLR, OneCycleLR
from training_helpers import make_recipe, metrics

from ncmi.loss.alternating import AlternatingOptimizer, Alternation, Mode
from ncmi.objectives.options import NCMIOptions, objective_names, objective_options
from ncmi.recipes import Network, Training
from ncmi.training.model import Classifier
from ncmi.training.optimizers import learning_rate_factor, make_optimizers
from ncmi.training.run import train
from ncmi.training.sources import open_source
from ncmi.training.step import TrainingStep

STEPS = 7  # of an epoch

OPTIONS = {name: objective_options(name)() for name in objective_names()} | {
    "ncmi-fixed": NCMIOptions(centroids="fixed"),
    "ncmi-class-mean": NCMIOptions(centroids="class_mean", center="ema"),
}


@pytest.mark.parametrize("network", ["mlp", "convnet"])
@pytest.mark.parametrize("mode", ["joint", "phases"])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_trained_parameter_is_in_exactly_one_group(name: str, mode: Mode, network: str) -> None:
    recipe = make_recipe(
        OPTIONS[name],
        network=Network(network, width=8, depth=1, feature_dim=16),
        data="digits",
        weight_decay=0.25,
        learning_rate=0.5,
        centroid_learning_rate=3.0,
        alternation=Alternation(mode),
    )
    model = Classifier(recipe, open_source(recipe).signature)
    network, centroids = make_optimizers(model, recipe.training)
    names = {parameter: name for name, parameter in model.named_parameters()}
    grouped: dict[str, tuple[float, float]] = {}
    for optimizer in (network, centroids):
        for group in [] if optimizer is None else optimizer.param_groups:
            for parameter in group["params"]:
                assert names[parameter] not in grouped
                grouped[names[parameter]] = (group["lr"], group["weight_decay"])

    assert set(grouped) == {name for name in names.values() if not name.startswith("lp.")}
    assert (centroids is not None) == (name == "ncmi" and mode == "phases")
    for name, found in grouped.items():
        parameter = model.get_parameter(name)
        if "centroid" in name:
            assert found == (3.0, 0.0)
        else:
            assert found == (0.5, 0.25 if parameter.dim() > 1 else 0.0)
    assert any(decay == 0.25 for _, decay in grouped.values())
    assert {parameter.dim() for parameter in model.network.parameters()} >= {1, 2}


@pytest.mark.parametrize(("optimizer", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_kind(optimizer: str, kind: type[torch.optim.Optimizer]) -> None:
    recipe = make_recipe(optimizer=optimizer, momentum=0.8, alternation=Alternation("phases"))
    model = Classifier(recipe, open_source(recipe).signature)
    for made in make_optimizers(model, recipe.training):
        assert type(made) is kind
        if kind is torch.optim.SGD:
            assert made.param_groups[0]["momentum"] == 0.8
            assert made.param_groups[0]["nesterov"] is True


def test_sgd_without_momentum() -> None:
    recipe = make_recipe(optimizer="sgd", momentum=0.0)
    network, _ = make_optimizers(Classifier(recipe, open_source(recipe).signature), recipe.training)
    assert network.param_groups[0]["nesterov"] is False


def ours(steps: int, **options: Any) -> list[float]:
    factor = learning_rate_factor(Training(**options), STEPS)
    return [factor(step) for step in range(steps)]


def torchs(steps: int, make: Callable[[torch.optim.Optimizer], LRScheduler]) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_constant() -> None:
    assert ours(30, epochs=4, schedule="constant") == [1.0] * 30


def test_cosine_is_torchs() -> None:
    total = 5 * STEPS
    expected = torchs(total, lambda optimizer: CosineAnnealingLR(optimizer, total))
    assert ours(total, epochs=5, schedule="cosine") == pytest.approx(expected, abs=1e-12)
    assert ours(total + 3, epochs=5, schedule="cosine")[total:] == pytest.approx([0.0] * 3, abs=1e-12)


def test_step_is_torchs() -> None:
    expected = torchs(6 * STEPS, lambda optimizer: MultiStepLR(optimizer, [2 * STEPS, 5 * STEPS], gamma=0.2))
    found = ours(6 * STEPS, epochs=6, schedule="step", milestones=(2, 5), decay_factor=0.2)
    assert found == pytest.approx(expected, abs=1e-12)
    assert {round(rate, 12) for rate in found} == {1.0, 0.2, 0.04}


def test_linear_is_torchs() -> None:
    total = 5 * STEPS
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=total)
    expected = []
    for _ in range(total + 3):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert ours(total + 3, epochs=5, schedule="linear") == pytest.approx(expected, abs=1e-12)
    warmed = ours(total, epochs=5, schedule="linear", warmup_epochs=2.0)
    assert max(warmed) == warmed[2 * STEPS] == 1.0
    assert warmed[-1] == pytest.approx(1 / (3 * STEPS))


def test_one_cycle_is_torchs() -> None:
    # torch reaches its top and its end one step early: its rise takes 0.3·n − 1 steps and its fall ends at n − 1
    epochs = 200
    total = epochs * STEPS
    expected = torchs(
        total,
        lambda optimizer: OneCycleLR(
            optimizer, max_lr=1.0, total_steps=total, pct_start=0.3, div_factor=25, final_div_factor=math.inf
        ),
    )
    found = ours(total + 1, epochs=epochs, schedule="one_cycle")
    assert found[:total] == pytest.approx(expected, abs=5e-3)
    assert (found[0], max(found), found[total]) == pytest.approx((0.04, 1.0, 0.0))


def test_one_cycle_table() -> None:
    # 10 steps: up over 3, down over 7
    factor = learning_rate_factor(Training(epochs=10, schedule="one_cycle"), 1)
    rise = [0.04 + 0.96 * share for share in (0.0, 0.25, 0.75)]
    fall = [(1 + math.cos(math.pi * step / 7)) / 2 for step in range(8)]
    assert [factor(step) for step in range(11)] == pytest.approx(rise + fall)


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [
        # whole epochs: 7 steps of warm-up, each an eighth more, then the schedule from its start
        (1.0, [1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1.0]),
        (0.5, [1 / 4, 2 / 4, 3 / 4, 4 / 4]),  # 3.5 steps
    ],
)
def test_warm_up(warmup: float, expected: list[float]) -> None:
    options = {"epochs": 3, "warmup_epochs": warmup}
    assert ours(len(expected), schedule="constant", **options) == pytest.approx(expected)
    assert ours(3 * STEPS, schedule="constant", **options)[len(expected) :] == [1.0] * (3 * STEPS - len(expected))
    cosine = ours(3 * STEPS + 1, schedule="cosine", **options)
    rest = 3 * STEPS - warmup * STEPS
    for step, rate in enumerate(cosine):
        if step < warmup * STEPS:
            assert rate == pytest.approx(expected[step])
        else:
            assert rate == pytest.approx((1 + math.cos(math.pi * (step - warmup * STEPS) / rest)) / 2, abs=1e-12)


@given(
    st.builds(
        Training,
        epochs=st.integers(1, 20),
        schedule=st.sampled_from(["constant", "cosine", "linear", "one_cycle", "step"]),
        warmup_epochs=st.floats(0, 30),
        milestones=st.lists(st.floats(0, 30), max_size=3).map(tuple),
        decay_factor=st.floats(0.01, 1),
    ),
    st.integers(1, 50),
)
def test_factors_are_shares(training: Training, steps_per_epoch: int) -> None:
    factor = learning_rate_factor(training, steps_per_epoch)
    for step in range(training.epochs * steps_per_epoch + 2):
        assert 0 <= factor(step) <= 1 + 1e-12


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_one_optimizer_for_both_makes_the_same_steps_as_two(optimizer: str) -> None:
    options = {"optimizer": optimizer, "learning_rate": 0.1, "centroid_learning_rate": 0.3, "clip_norm": 1.0}
    together, apart = (make_recipe(**options, alternation=Alternation(mode)) for mode in ("joint", "phases"))
    signature = open_source(together).signature
    models = [Classifier(together, signature), Classifier(together, signature)]
    models[1].load_state_dict(models[0].state_dict())
    inputs, labels = torch.randn(16, *signature.sample_shape), torch.arange(16) % len(signature.class_names)
    for model, recipe in zip(models, (together, apart), strict=True):
        both = AlternatingOptimizer(*make_optimizers(model, recipe.training), Alternation("joint"))
        assert len(both.optimizers) == (1 if recipe is together else 2)
        factor = learning_rate_factor(recipe.training, STEPS)
        step = TrainingStep(
            model.objective,
            both,
            schedulers=[LambdaLR(each, factor) for each in both.optimizers],
            parameters=model.parameters(),
            clip_norm=1.0,
        )
        for _ in range(3):
            step(model(inputs), labels)
    start = Classifier(together, signature).state_dict()
    for (name, mine), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert torch.equal(mine, other), name
    assert not torch.equal(models[0].state_dict()["objective.centroid_logits"], start["objective.centroid_logits"])


@pytest.mark.parametrize("alternation", [Alternation(), Alternation(start_epoch=1)])
def test_all_rates_follow_the_schedule(
    alternation: Alternation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[tuple[float, float]] = []

    def record(self: Any, *, step: int, epoch: int) -> None:
        groups = [group["lr"] for optimizer in self.optimizers for group in optimizer.param_groups]
        rates.append((groups[0], groups[-1]))

    monkeypatch.setattr("ncmi.loss.alternating.AlternatingOptimizer.step", record)
    rate = {"learning_rate": 0.5, "centroid_learning_rate": 2.0, "schedule": "cosine", "warmup_epochs": 0.25}
    recipe = make_recipe(epochs=2, alternation=alternation, **rate)
    train(recipe, tmp_path / "run")
    factor = learning_rate_factor(recipe.training, 4)
    assert np.array(rates) == pytest.approx(np.array([(0.5 * factor(step), 2.0 * factor(step)) for step in range(8)]))
    assert [row["learning_rate"] for row in metrics(tmp_path / "run")] == pytest.approx([0.5 * factor(4), 0.0])
