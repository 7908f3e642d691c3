"""Which epoch's weights are kept, when a run stops early, averages of weights, and limits of the gradient."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_helpers import make_recipe, metrics, weights

from ncmi.loss.alternating import AlternatingOptimizer
from ncmi.objectives.options import CrossEntropyOptions, NCMIOptions
from ncmi.training.loop import Loop
from ncmi.training.run import train

RESTLESS = {"optimizer": "sgd", "learning_rate": 0.3, "momentum": 0.9, "schedule": "constant", "epochs": 6}


def record_weights(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """The network's and objective's weights after each optimizer step."""
    history: list[dict[str, Tensor]] = []
    step = Loop._step

    def recorded(self: Loop, batch: Tensor) -> None:
        step(self, batch)
        history.append({name: p.detach().clone() for name, p in self.model.named_parameters() if name[:2] != "lp"})

    monkeypatch.setattr(Loop, "_step", recorded)
    return history


@pytest.mark.parametrize("selection", ["best", "last"])
def test_selection(selection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = record_weights(monkeypatch)
    results = train(make_recipe(CrossEntropyOptions(), selection=selection, **RESTLESS), tmp_path / "run")
    accuracies = [row["validation_accuracy"] for row in metrics(tmp_path / "run")]
    best = accuracies.index(max(accuracies))
    assert best < 5
    assert accuracies[best] > accuracies[-1]  # so that the two selections differ
    assert results.best_epoch == best + 1
    assert results.epochs == 6
    chosen = best if selection == "best" else 5
    assert results.readouts["head"].validation.accuracy.value == pytest.approx(accuracies[chosen])
    saved = weights(tmp_path / "run")
    for name, value in history[4 * (chosen + 1) - 1].items():
        assert torch.equal(saved[f"/model/{name}"], value)
    assert (tmp_path / "run" / "checkpoints" / "best.safetensors").exists() == (selection == "best")


@pytest.mark.parametrize("patience", [1, 3])
def test_patience(patience: int, tmp_path: Path) -> None:
    recipe = make_recipe(learning_rate=1e-9, centroid_learning_rate=1e-9, patience=patience, epochs=9)
    results = train(recipe, tmp_path / "run")
    assert (results.epochs, results.best_epoch) == (1 + patience, 1)
    assert len(metrics(tmp_path / "run")) == 1 + patience


def test_patience_waits_for_the_best_epoch(tmp_path: Path) -> None:
    results = train(make_recipe(CrossEntropyOptions(), patience=2, **{**RESTLESS, "epochs": 30}), tmp_path / "run")
    accuracies = [row["validation_accuracy"] for row in metrics(tmp_path / "run")]
    best, expected = -1.0, 0
    for epoch, accuracy in enumerate(accuracies, start=1):
        if accuracy > best:
            best, expected = accuracy, epoch
        assert epoch - expected < 2 or epoch == len(accuracies)
    assert (results.best_epoch, results.epochs) == (expected, len(accuracies))
    assert expected > 1


@pytest.mark.parametrize("options", [NCMIOptions(), CrossEntropyOptions()])
def test_average_of_the_weights(options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = record_weights(monkeypatch)
    results = train(make_recipe(options, ema_decay=0.7), tmp_path / "run")
    expected = {name: value.double() for name, value in history[0].items()}
    for now in history[1:]:
        expected = {name: 0.7 * expected[name] + 0.3 * value.double() for name, value in now.items()}
    saved = weights(tmp_path / "run")
    for name, value in expected.items():
        torch.testing.assert_close(saved[f"/model/{name}"].double(), value, rtol=1e-5, atol=1e-6)
    assert any(not torch.allclose(saved[f"/model/{name}"], value, atol=1e-3) for name, value in history[-1].items())
    last = metrics(tmp_path / "run")[-1]
    assert results.readouts["head"].validation.accuracy.value == pytest.approx(last["validation_accuracy"])


@pytest.mark.parametrize("clip_norm", [None, 1e-3])
def test_clipping(clip_norm: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []
    step = AlternatingOptimizer.step

    def recorded(self: AlternatingOptimizer, **where: int) -> None:
        gradients = [p.grad for optimizer in self.optimizers for g in optimizer.param_groups for p in g["params"]]
        norms.append(float(torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]).norm()))
        step(self, **where)

    monkeypatch.setattr(AlternatingOptimizer, "step", recorded)
    train(make_recipe(epochs=1, clip_norm=clip_norm, accumulate=2), tmp_path / "run")
    assert len(norms) == 4
    if clip_norm is None:
        assert min(norms) > 1e-2
    else:
        assert norms == pytest.approx([clip_norm] * 4, rel=1e-3)


@pytest.mark.parametrize("choice", [{"selection": "best"}, {"patience": 3}])
def test_nothing_is_selected_by_without_a_validation_part(choice: dict[str, Any], tmp_path: Path) -> None:
    recipe = make_recipe(epochs=1, **choice)
    with pytest.raises(ValueError, match="validation-fraction"):
        train(replace(recipe, data=replace(recipe.data, validation_fraction=0)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
