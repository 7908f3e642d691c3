"""Networks with batch normalization and channels last in memory: stopped and resumed, and started from weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from batch_normalized_driver import image_recipe, write_images
from safetensors.torch import save_file
from torch import Tensor
from training_helpers import assert_same_run, disturb_generators, metrics, results, signal_at, weights

from ncmi.data.signature import Signature
from ncmi.errors import Interrupted
from ncmi.networks import export_weights, make_network
from ncmi.recipes import Network, Recipe, Training
from ncmi.training.checkpoint import load_checkpoint
from ncmi.training.loop import Loop
from ncmi.training.model import Classifier, load_model
from ncmi.training.optimizers import make_optimizers
from ncmi.training.run import train

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.05},
    "adamw": {"optimizer": "adamw", "learning_rate": 3e-3},
}


@pytest.fixture
def images(tmp_path: Path) -> str:
    return write_images(tmp_path / "images.npz")


def cut_and_resume(recipe: Recipe, root: Path) -> None:
    """Stop in the middle of the second epoch of three steps each, then go on."""
    disturb_generators()
    with signal_at(4), pytest.raises(Interrupted, match="epoch 2 after step 1"):
        train(recipe, root)
    disturb_generators()
    train(recipe, root, resume=True)


@pytest.mark.parametrize(
    ("precision", "ema_decay"),
    [
        ("32-true", None),
        ("bf16-mixed", 0.8),
        pytest.param("32-true", 0.8, marks=pytest.mark.long),
        pytest.param("bf16-mixed", None, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resume_is_bitwise(
    optimizer: str, ema_decay: float | None, precision: str, images: str, tmp_path: Path
) -> None:
    recipe = image_recipe(images, ema_decay=ema_decay, precision=precision, **OPTIMIZERS[optimizer])
    train(recipe, tmp_path / "whole")
    cut_and_resume(recipe, tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    rows = metrics(tmp_path / "whole")
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    # it is the state of normalization and optimizer that was taken up, not nothing
    saved = weights(tmp_path / "whole")
    assert not torch.equal(saved["/model/network.bn1.running_var"], torch.ones(8))
    state = load_checkpoint(tmp_path / "cut" / "checkpoints" / "last.safetensors")["optimizers"][0]["state"]
    moments = [value for entry in state.values() for value in entry.values() if isinstance(value, Tensor)]
    assert any(value.dim() == 4 and value.shape[-1] == 3 and bool(value.any()) for value in moments)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_lost_memory_layout_would_show(
    optimizer: str, images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = image_recipe(images, **OPTIMIZERS[optimizer])
    train(recipe, tmp_path / "whole")
    monkeypatch.setattr("ncmi.training.loop._follow_layout", lambda optimizer: None)
    cut_and_resume(recipe, tmp_path / "cut")
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resumed_state_has_the_layout_of_its_parameter(
    optimizer: str, images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    resume = Loop.resume

    def watched(self: Loop) -> None:
        resume(self)
        for own in self.raw_optimizers:
            for parameter, state in own.state.items():
                for value in state.values():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        assert value.stride() == parameter.stride()
                        seen.append(parameter.dim() == 4 and not parameter.is_contiguous())

    monkeypatch.setattr(Loop, "resume", watched)
    cut_and_resume(image_recipe(images, **OPTIMIZERS[optimizer]), tmp_path / "run")
    assert any(seen)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fused_steps_equal_plain_ones(optimizer: str) -> None:
    recipe = image_recipe("none", **OPTIMIZERS[optimizer])
    signature = Signature(kind="image", sample_shape=(3, 8, 8), class_names=tuple("abcd"))
    model, plain = Classifier(recipe, signature), Classifier(recipe, signature)
    plain.load_state_dict(model.state_dict())
    plain.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    fused, _ = make_optimizers(model, recipe.training)
    other, _ = make_optimizers(plain, recipe.training)
    for group in other.param_groups:
        group.update(fused=False, foreach=False)
    inputs, labels = torch.randn(16, 3, 8, 8), torch.arange(16) % 4
    for _ in range(3):
        for net, step in ((model, fused), (plain, other)):
            step.zero_grad()
            net.objective.loss(net.network(inputs), labels).backward()
            step.step()
    for (name, one), two in zip(model.network.named_parameters(), plain.network.parameters(), strict=True):
        # AdamW divides by the size of the gradient, and so magnifies the rounding of small ones
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4, msg=name)


def start_weights(path: Path) -> dict[str, Tensor]:
    torch.manual_seed(77)
    network = make_network(Network("resnet_small", width=8, depth=1, feature_dim=32), (3, 8, 8))
    save_file(export_weights(network, "pytorch-cifar100"), path)
    return export_weights(network)


STILL = {"learning_rate": 1e-12, "centroid_learning_rate": 1e-12, "weight_decay": 0.0, "epochs": 1}


def assert_started_from(run: Path, expected: dict[str, Tensor]) -> None:
    saved = weights(run)
    for name, value in expected.items():
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(saved[f"/model/network.{name}"], value, rtol=0, atol=1e-6)


def test_a_run_starts_from_weights_and_then_needs_them_no_more(images: str, tmp_path: Path) -> None:
    path = tmp_path / "start.safetensors"
    expected = start_weights(path)
    recipe = image_recipe(images, start=str(path), **STILL)
    train(recipe, tmp_path / "run")
    assert_started_from(tmp_path / "run", expected)
    train(image_recipe(images, **STILL), tmp_path / "other")
    with pytest.raises(AssertionError):
        assert_started_from(tmp_path / "other", expected)
    path.unlink()
    load_model(tmp_path / "run")
    assert train(recipe, tmp_path / "run", resume=True) == results(tmp_path / "run")


def test_resume_does_not_read_the_weights_again(images: str, tmp_path: Path) -> None:
    path = tmp_path / "start.safetensors"
    start_weights(path)
    recipe = image_recipe(images, start=str(path))
    train(recipe, tmp_path / "whole")
    with signal_at(4), pytest.raises(Interrupted):
        train(recipe, tmp_path / "cut")
    path.unlink()
    train(recipe, tmp_path / "cut", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_stopped_before_its_first_checkpoint_it_starts_from_the_weights(
    images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = start_weights(tmp_path / "start.safetensors")
    recipe = image_recipe(images, start=str(tmp_path / "start.safetensors"), **STILL)

    def die(self: Loop, batch: Tensor) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", die)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "run")
    train(recipe, tmp_path / "run", resume=True)
    assert_started_from(tmp_path / "run", expected)


def test_the_weights_of_another_run(images: str, tmp_path: Path) -> None:
    train(image_recipe(images, epochs=1), tmp_path / "first")
    first = weights(tmp_path / "first")
    train(image_recipe(images, start=str(tmp_path / "first" / "model.safetensors"), **STILL), tmp_path / "second")
    prefix = "/model/network."
    assert_started_from(tmp_path / "second", {k.removeprefix(prefix): v for k, v in first.items() if prefix in k})


@pytest.mark.parametrize("fault", ["gone", "wrong"])
def test_weights_that_do_not_fit_leave_no_folder(fault: str, images: str, tmp_path: Path) -> None:
    path = tmp_path / "start.safetensors"
    if fault == "wrong":
        save_file({"conv1.weight": torch.zeros(8, 3, 3, 3)}, path)
    with pytest.raises(ValueError, match=r"start\.safetensors: (no such file|not weights of this network: it lacks)"):
        train(image_recipe(images, start=str(path)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_default_is_no_weights() -> None:
    assert Network().weights is None
    assert Training().ema_decay is None
