"""Every objective learns what can be learned, and nothing else; a run that diverges says so and names the cure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_helpers import make_recipe, metrics

from ncmi.data.dataset import Dataset
from ncmi.data.load import load_dataset
from ncmi.loss.alternating import Alternation
from ncmi.objectives.options import NCMIOptions, objective_names, objective_options
from ncmi.recipes import Network
from ncmi.training.checkpoint import CheckpointError
from ncmi.training.loop import Loop
from ncmi.training.model import load_model
from ncmi.training.run import train
from ncmi.training.run_folder import RunFolder

OPTIONS = {name: (objective_options(name)(), Alternation()) for name in objective_names()} | {
    "ncmi-phases": (NCMIOptions(), Alternation("phases")),
    "ncmi-class-means": (NCMIOptions(anchor_scale=10.0), Alternation("class_means")),
    "ncmi-robust": (NCMIOptions.robust(), Alternation()),
    "ncmi-fixed": (NCMIOptions(centroids="fixed"), Alternation()),
    "ncmi-class-mean": (NCMIOptions(centroids="class_mean", center="ema"), Alternation()),
    "ncmi-paper": (
        NCMIOptions(
            centroids="fixed",
            anchor_scale=10.0,
            separation_power=1.0,
            form="mean_of_ratios",
            separation_direction="centroid_to_sample",
        ),
        Alternation(),
    ),
}


def rings(samples: int = 240) -> Dataset:
    """Three classes on three rings: no straight line parts them."""
    labels = torch.arange(samples) % 3
    angle = torch.linspace(0, 40, samples)
    radius = labels + 0.2 + 0.1 * torch.randn(samples)
    inputs = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    return Dataset("rings", inputs, labels, ("inner", "middle", "outer"), "table")


@pytest.mark.parametrize("name", OPTIONS)
def test_learns_rings(name: str, tmp_path: Path) -> None:
    options, alternation = OPTIONS[name]
    recipe = make_recipe(
        options,
        data="rings",
        network=Network("mlp", width=64, depth=2, feature_dim=16),
        epochs=25,
        learning_rate=1e-2,
        alternation=alternation,
    )
    results = train(recipe, tmp_path / "run", data=rings())
    for readout in results.primary_readouts:
        assert results.readouts[readout].test.accuracy.value > 0.93, results.readouts
    rows = metrics(tmp_path / "run")
    # SupCon's loss cannot fall below the logarithm of the number of positives, here about 3
    assert rows[-1]["train_loss"] < (0.9 if name == "supcon" else 0.7) * rows[0]["train_loss"]
    # classes come closer together, and further from each other
    assert rows[-1]["validation_ncmi"] < rows[0]["validation_ncmi"]


def test_random_labels_are_not_learned(tmp_path: Path) -> None:
    data = rings()
    shuffled = Dataset("noise", data.inputs, data.labels[torch.randperm(len(data))], data.class_names, "table")
    results = train(make_recipe(data="noise", epochs=5), tmp_path / "run", data=shuffled)
    assert all(readout.test.accuracy.value < 0.6 for readout in results.readouts.values())


def test_learns_images(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    some = slice(0, 400)
    data = Dataset("digits-400", digits.inputs[some], digits.labels[some], digits.class_names, "image")
    recipe = make_recipe(
        data="digits", network=Network("convnet", width=8, depth=2, feature_dim=16), epochs=6, learning_rate=1e-2
    )
    results = train(recipe, tmp_path / "run", data=data)
    assert results.readouts["cc"].test.accuracy.value > 0.75
    assert results.readouts["cc"].test.top5_accuracy > 0.95


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", objective_names())
def test_a_huge_learning_rate(name: str, optimizer: str, tmp_path: Path) -> None:
    recipe = make_recipe(objective_options(name)(), learning_rate=1e6, optimizer=optimizer, epochs=4)
    with pytest.raises((FloatingPointError, ValueError), match="lower the learning rate") as caught:
        train(recipe, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    folder = RunFolder.open(tmp_path / "run")
    assert not folder.finished
    assert list(folder.path.rglob("*.partial")) == []
    with pytest.raises(CheckpointError, match="not finished"):
        load_model(folder.path)
    # it diverges again, and does not finish by being resumed
    with pytest.raises((FloatingPointError, ValueError), match="lower the learning rate"):
        train(recipe, tmp_path / "run", resume=True)


@pytest.mark.parametrize("mode", ["joint", "class_means"])
def test_weights_that_break_in_the_last_step_are_seen(
    mode: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Loop._step

    def broken(self: Loop, batch: Any) -> None:
        original(self, batch)
        if self.progress.step == 3:
            next(iter(self.model.network.parameters())).detach().fill_(float("nan"))

    monkeypatch.setattr(Loop, "_step", broken)
    recipe = make_recipe(NCMIOptions(anchor_scale=10.0), alternation=Alternation(mode))
    with pytest.raises(FloatingPointError, match="features are not finite in epoch 1: lower the learning rate"):
        train(recipe, tmp_path / "run")
