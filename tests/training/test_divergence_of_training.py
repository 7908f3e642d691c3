"""A run that diverges says so, names the cure, and has no results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_helpers import make_recipe

from ncmi.options import Alternation, NCMIOptions, objective_names, objective_options
from ncmi.training import RunFolder, train
from ncmi.training.checkpoint import CheckpointError
from ncmi.training.loop import Loop
from ncmi.training.model import load_model


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("name", objective_names())
def test_a_huge_learning_rate(name: str, optimiser: str, tmp_path: Path) -> None:
    recipe = make_recipe(objective_options(name)(), learning_rate=1e6, optimiser=optimiser, epochs=4)
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
            next(iter(self.model.backbone.parameters())).detach().fill_(float("nan"))

    monkeypatch.setattr(Loop, "_step", broken)
    recipe = make_recipe(NCMIOptions(anchor_scale=10.0), alternation=Alternation(mode))
    with pytest.raises(FloatingPointError, match="features are not finite in epoch 1: lower the learning rate"):
        train(recipe, tmp_path / "run")


def test_a_loss_for_each_sample_cannot_be_trained_on(tmp_path: Path) -> None:
    recipe = make_recipe(NCMIOptions(reduction="none", separation_power=1.0))
    with pytest.raises(ValueError, match=r"the loss has shape \[32\]: training needs a reduction to one number"):
        train(recipe, tmp_path / "run")
