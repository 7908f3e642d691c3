"""Training is what a plain PyTorch loop does, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import seed_everything
from torch import Tensor
from training_helpers import make_recipe, metrics, weights

from ncmi.data import load_dataset, split_dataset
from ncmi.data.batches import epoch_order
from ncmi.options import CrossEntropyOptions, NCMIOptions, ObjectiveOptions
from ncmi.recipes import Recipe
from ncmi.training import Model, train
from ncmi.training.model import Signature

OBJECTIVES: dict[str, ObjectiveOptions] = {
    "ncmi": NCMIOptions(),
    "ncmi-class-mean-ema-centre": NCMIOptions(centroids="class_mean", centre="ema"),
    "cross_entropy": CrossEntropyOptions(),
}


def plain_loop(recipe: Recipe) -> tuple[dict[str, Tensor], list[float]]:
    """Weights after training and the mean loss of each epoch."""
    training, data = recipe.training, load_dataset(recipe.data.name)
    split = split_dataset(data, seed=training.seed)
    seed_everything(training.seed, verbose=False)
    model = Model(recipe, Signature.of(data))
    network, objective = model.backbone, model.objective
    inputs = data.inputs[split.train]
    labels = data.labels[split.train]
    x = ((inputs.double() - inputs.double().mean(0)) / inputs.double().std(0, correction=0)).float()
    matrices = [p for p in [*network.parameters(), *objective.network_parameters()] if p.dim() > 1]
    vectors = [p for p in [*network.parameters(), *objective.network_parameters()] if p.dim() == 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}],
        lr=training.learning_rate,
    )
    centroids = list(objective.centroid_parameters())
    other = torch.optim.AdamW(centroids, lr=training.centroid_learning_rate, weight_decay=0.0) if centroids else None
    losses = []
    for epoch in range(training.epochs):
        total = 0.0
        for batch in epoch_order(len(x), seed=training.seed, epoch=epoch).split(training.batch_size):
            features = network(x[batch])
            loss = objective.loss(features, labels[batch])
            objective.zero_grad()
            network.zero_grad()
            loss.backward()
            optimiser.step()
            if other is not None:
                other.step()
            objective.observe(features.detach(), labels[batch])
            objective.update()
            total += float(loss.detach()) * len(batch)
        losses.append(total / len(x))
    return {name: value.detach() for name, value in model.state_dict().items()}, losses


@pytest.mark.parametrize("name", OBJECTIVES)
def test_equals_a_plain_loop(name: str, tmp_path: Path) -> None:
    recipe = make_recipe(OBJECTIVES[name], schedule="constant")
    train(recipe, tmp_path / "run")
    expected, losses = plain_loop(recipe)
    found = weights(tmp_path / "run")
    for name, value in expected.items():
        if name.startswith(("backbone", "objective")):
            torch.testing.assert_close(found[f"/model/{name}"], value, rtol=1e-5, atol=1e-6)
    assert [row["train_loss"] for row in metrics(tmp_path / "run")] == pytest.approx(losses, rel=1e-5)
    assert [row["steps"] for row in metrics(tmp_path / "run")] == [4, 8, 12]
    assert {row["learning_rate"] for row in metrics(tmp_path / "run")} == {recipe.training.learning_rate}


def test_compiled_training_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    compile_ = torch.compile

    def quickly(module: Any, **options: Any) -> Any:
        calls.append(module)
        return compile_(module, backend="eager")

    monkeypatch.setattr(torch, "compile", quickly)
    for name, compiled in (("plain", False), ("compiled", True)):
        train(make_recipe(epochs=1, compile=compiled), tmp_path / name)
    assert calls
    plain, compiled_weights = weights(tmp_path / "plain"), weights(tmp_path / "compiled")
    assert list(plain) == list(compiled_weights)
    for name, value in plain.items():
        torch.testing.assert_close(compiled_weights[name], value, rtol=1e-4, atol=1e-5)


def test_validation_metrics_are_those_of_the_model_after_the_epoch(tmp_path: Path) -> None:
    recipe = make_recipe(epochs=1, schedule="constant")
    train(recipe, tmp_path / "run")
    data = load_dataset("wine")
    split = split_dataset(data)
    found = weights(tmp_path / "run")
    model = Model(recipe, Signature.of(data))
    model.load_state_dict({name.removeprefix("/model/"): value for name, value in found.items()})
    with torch.no_grad():
        features = model(data.inputs[split.validation])
        labels = data.labels[split.validation]
        # P and Q by their definitions
        p = torch.sigmoid(torch.nn.functional.normalize(features.double()) / 0.5)
        p = p / p.sum(-1, keepdim=True)
        q = torch.sigmoid(found["/model/objective.centroid_logits"].double())
        q = q / q.sum(-1, keepdim=True)
        divergence = (p[:, None] * (p[:, None].log() - q.log())).sum(-1)
        means = torch.stack([p[labels == c].mean(0) for c in range(3)])
        cmi = (p * (p.log() - means[labels].log())).sum(-1).mean()
        to_sample = (means * (means.log() - p[:, None].log())).sum(-1)
        to_sample[torch.arange(len(p)), labels] = 0
        separation = to_sample.sum(-1).mean() / 3
    (row,) = metrics(tmp_path / "run")
    assert row["validation_accuracy"] == float((divergence.argmin(-1) == labels).double().mean())
    assert row["validation_cmi"] == pytest.approx(float(cmi), rel=1e-4)
    assert row["validation_separation"] == pytest.approx(float(separation), rel=1e-4)
    assert row["validation_ncmi"] == pytest.approx(float(cmi / separation), rel=1e-4)
