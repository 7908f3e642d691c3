"""Training in float64, and in bfloat16 under autocast."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from training_helpers import make_recipe, metrics, weights

from ncmi.data.load import load_dataset
from ncmi.data.splits import split_dataset
from ncmi.objectives.options import CrossEntropyOptions, NCMIOptions, ObjectiveOptions, SupConOptions
from ncmi.training.environment import precision_note
from ncmi.training.model import load_model
from ncmi.training.run import train
from ncmi.training.run_folder import RunFolder

OBJECTIVES: dict[str, ObjectiveOptions] = {
    "ncmi": NCMIOptions(),
    "ncmi-class-mean": NCMIOptions(centroids="class_mean", center="ema"),
    "cross_entropy": CrossEntropyOptions(),
    "supcon": SupConOptions(projection_dim=8),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_bf16_mixed_is_finite_and_near(name: str, tmp_path: Path) -> None:
    for precision in ("32-true", "bf16-mixed"):
        train(make_recipe(OBJECTIVES[name], precision=precision), tmp_path / precision)
    saved = weights(tmp_path / "bf16-mixed")
    assert all(bool(value.isfinite().all()) for value in saved.values())
    assert {value.dtype for value in saved.values()} <= {torch.float32, torch.float64, torch.int64}
    full, half = (metrics(tmp_path / precision) for precision in ("32-true", "bf16-mixed"))
    for one, other in zip(full, half, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=0.02)
        assert math.isfinite(other["validation_ncmi"])
    assert full[-1]["train_loss"] != half[-1]["train_loss"]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_float64_is_float64_throughout(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    loss_of = type(OBJECTIVES[name].build(2, 8)).loss

    def recorded(self: object, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = loss_of(self, features, labels)  # type: ignore[arg-type]
        seen.update((features.dtype, loss.dtype))
        return loss

    monkeypatch.setattr(type(OBJECTIVES[name].build(2, 8)), "loss", recorded)
    for precision in ("32-true", "64-true"):
        seen.clear()
        train(make_recipe(OBJECTIVES[name], precision=precision), tmp_path / precision)
    assert seen == {torch.float64}
    saved = weights(tmp_path / "64-true")
    assert {value.dtype for key, value in saved.items() if "network" in key or "lp." in key} == {torch.float64}
    # not float32 numbers in a wide coat
    last = saved["/model/network.layers.1.weight"]
    assert not torch.equal(last, last.float().double())
    full, double = (metrics(tmp_path / precision) for precision in ("32-true", "64-true"))
    for one, other in zip(full, double, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=2e-2)


def test_a_float64_model_is_loaded_as_such(tmp_path: Path) -> None:
    train(make_recipe(CrossEntropyOptions(), precision="64-true"), tmp_path / "run")
    model, data = load_model(tmp_path / "run"), load_dataset("wine")
    assert next(model.parameters()).dtype == torch.float64
    with torch.no_grad():
        features = model(data.inputs[split_dataset(data).test])
    assert features.dtype == torch.float64
    predicted = RunFolder(tmp_path / "run").outputs().predictions["head"]
    np.testing.assert_array_equal(predicted, model.log_proba(features, "head").argmax(-1))


@pytest.mark.parametrize(
    ("capability", "precision", "device", "is_slow"),
    [
        ("AVX2", "bf16-mixed", "cpu", True),
        ("DEFAULT", "bf16-mixed", "cpu", True),
        ("AVX512", "bf16-mixed", "cpu", False),
        ("AVX2", "32-true", "cpu", False),
        ("AVX2", "bf16-mixed", "cuda", False),
    ],
)
def test_emulated_bfloat16_is_told(
    capability: str, precision: str, device: str, is_slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    note = precision_note(precision, torch.device(device))
    assert (note is not None) == is_slow
    assert note is None or "--training.precision 32-true" in note
