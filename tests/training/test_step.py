"""A step of training: what a plain PyTorch loop does; 4×16 equals 1×64 where a loss does not couple samples, only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import seed_everything
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from training_helpers import make_recipe, metrics, weights

from ncmi.data.batches import epoch_order
from ncmi.data.load import load_dataset
from ncmi.data.splits import split_dataset
from ncmi.loss.alternating import AlternatingOptimizer, Alternation
from ncmi.loss.forms import common_length
from ncmi.objectives.ncmi import NCMIObjective
from ncmi.objectives.options import (
    CMICOptions,
    CrossEntropyOptions,
    NCMIOptions,
    ObjectiveOptions,
    SupConOptions,
    objective_names,
    objective_options,
)
from ncmi.recipes import Recipe
from ncmi.training.model import Classifier
from ncmi.training.optimizers import learning_rate_factor, make_optimizers
from ncmi.training.run import train
from ncmi.training.samples import ViewMaker, split_views
from ncmi.training.sources import open_source
from ncmi.training.step import TrainingStep

NCMI = {
    "ncmi-class-mean-ema-center": NCMIOptions(centroids="class_mean", center="ema", center_decay=0.5),
    "ncmi-paper": NCMIOptions(anchor_scale=10.0, separation_power=1.0, form="mean_of_ratios"),
    "ncmi-ratio-of-means": NCMIOptions(anchor_scale=10.0, separation_power=1.0, form="ratio_of_means"),
    "ncmi-robust": NCMIOptions.robust(),
    "ncmi-balanced": NCMIOptions(weight="balanced"),
}
LONG_TAILS = {
    "cross-entropy-balanced": CrossEntropyOptions(weight="balanced"),
    "cross-entropy-adjusted": CrossEntropyOptions(logit_adjustment=1.0),
}
OPTIONS = {name: objective_options(name)() for name in objective_names()} | NCMI | LONG_TAILS
OPTIONS["cmic"] = CMICOptions(separation_weight=0.1)  # by default it couples samples too weakly to be seen here


def parameters(options: ObjectiveOptions, accumulate: int, folder: Path) -> torch.Tensor:
    """All that was trained or gathered in an epoch, as one vector."""
    recipe = make_recipe(
        options, batch_size=64, accumulate=accumulate, epochs=1, precision="64-true", optimizer="sgd", learning_rate=0.1
    )
    train(recipe, folder)
    found = {
        name: tensor
        for name, tensor in weights(folder).items()
        if name.startswith(("/model/network", "/model/objective")) and tensor.is_floating_point()
    }
    return torch.cat([tensor.flatten().double() for tensor in found.values()])


@pytest.mark.parametrize("name", OPTIONS)
def test_accumulation_equals_one_batch_unless_samples_are_coupled(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # each micro-batch is varied by itself: without variation, two-view objectives see the same in both runs
    monkeypatch.setattr("ncmi.training.samples.ViewMaker._vary", lambda self, standard, generator: standard)
    options = OPTIONS[name]
    whole, parts = (parameters(options, accumulate, tmp_path / str(accumulate)) for accumulate in (1, 4))
    difference = float((whole - parts).abs().max())
    if options.build(3, 8).couples_samples:
        assert difference > 1e-6
    else:
        assert difference < 1e-12


def test_which_losses_couple_samples() -> None:
    coupled = {name for name, options in OPTIONS.items() if options.build(3, 8).couples_samples}
    assert coupled == {"opl", "supcon", "cmic", "ncmi-ratio-of-means", "ncmi-balanced", "cross-entropy-balanced"}


def test_more_micro_batches_than_samples(tmp_path: Path) -> None:
    # the last batch has 1 sample: 115 = 3·38 + 1
    results = train(make_recipe(batch_size=38, accumulate=50, epochs=1), tmp_path / "run")
    assert results.epochs == 1


def moved_by_steps(options: ObjectiveOptions, sizes: tuple[int, ...]) -> Tensor:
    """All of network and objective after three steps in float64 on micro-batches of these sizes, as one vector."""
    generator = torch.Generator().manual_seed(4)
    inputs = torch.randn(3, 16, 13, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (3, 16), generator=generator)
    torch.manual_seed(5)
    network, objective = torch.nn.Linear(13, 8).double(), options.build(3, 8).double()
    objective.set_class_counts(torch.bincount(labels.flatten(), minlength=3))
    parameters = [*network.parameters(), *objective.parameters()]
    step = TrainingStep(objective, torch.optim.SGD(parameters, lr=0.1), parameters=parameters, clip_norm=10.0)
    for batch, batch_labels in zip(inputs, labels, strict=True):
        if len(sizes) == 1:
            step(network(batch), batch_labels)
            continue
        step.begin()
        for x, y in zip(batch.split(sizes), batch_labels.split(sizes), strict=True):
            step.add(network(x), y, share=len(x) / 16)
        step.finish()
    state = [*network.state_dict().values(), *objective.state_dict().values()]
    return torch.cat([tensor.flatten() for tensor in state if tensor.is_floating_point()])


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in ("supcon",)])  # of two views
def test_a_step_on_two_micro_batches_equals_one_on_the_batch(name: str) -> None:
    options = OPTIONS[name]
    start = moved_by_steps(options, (16,))
    for sizes in ((8, 8), (10, 6)):
        difference = float((moved_by_steps(options, sizes) - start).abs().max())
        if options.build(3, 8).couples_samples:
            assert difference > 1e-6
        else:
            assert difference < 1e-12


def test_a_penalty_is_trained_on_and_not_told() -> None:
    features = torch.randn(4, 8, requires_grad=True)
    objective, labels = CrossEntropyOptions().build(3, 8), torch.tensor([0, 1, 2, 0])
    step = TrainingStep(objective, torch.optim.SGD(objective.parameters(), lr=0.1))
    expected = objective.loss(features, labels)
    (gradient,) = torch.autograd.grad(expected, features)
    step.begin()
    loss = step.add(features, labels, share=0.5, penalty=3 * features.sum())
    assert not loss.requires_grad
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(features.grad, 0.5 * (gradient + 3))


def test_a_step_needs_one_number() -> None:
    objective = NCMIObjective(3, 8, reduction="none")
    step = TrainingStep(objective, torch.optim.SGD(objective.parameters(), lr=0.1))
    with pytest.raises(ValueError, match=r"the loss has shape \[4\]: training needs a reduction to one number"):
        step(torch.randn(4, 8), torch.tensor([0, 1, 2, 0]))


OBJECTIVES: dict[str, ObjectiveOptions] = {
    "ncmi": NCMIOptions(),
    "ncmi-class-mean-ema-center": NCMIOptions(centroids="class_mean", center="ema"),
    "cross_entropy": CrossEntropyOptions(),
}


def plain_loop(recipe: Recipe) -> tuple[dict[str, Tensor], list[float]]:
    """Weights after training and the mean loss of each epoch."""
    training, data = recipe.training, load_dataset(recipe.data.name)
    split = split_dataset(data, seed=training.seed)
    seed_everything(training.seed, verbose=False)
    model = Classifier(recipe, open_source(recipe).signature)
    network, objective = model.network, model.objective
    inputs = data.inputs[split.train]
    labels = data.labels[split.train]
    x = ((inputs.double() - inputs.double().mean(0)) / inputs.double().std(0, correction=0)).float()
    matrices = [p for p in [*network.parameters(), *objective.network_parameters()] if p.dim() > 1]
    vectors = [p for p in [*network.parameters(), *objective.network_parameters()] if p.dim() == 1]
    optimizer = torch.optim.AdamW(
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
            optimizer.step()
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
        if name.startswith(("network", "objective")):
            torch.testing.assert_close(found[f"/model/{name}"], value, rtol=1e-5, atol=1e-6)
    assert [row["train_loss"] for row in metrics(tmp_path / "run")] == pytest.approx(losses, rel=1e-5)
    assert [row["steps"] for row in metrics(tmp_path / "run")] == [4, 8, 12]
    assert {row["learning_rate"] for row in metrics(tmp_path / "run")} == {recipe.training.learning_rate}


@pytest.mark.parametrize("name", [*OBJECTIVES, "supcon", "ncmi-phases"])
def test_steps_in_a_loop_of_ones_own_are_bitwise_those_of_a_run(name: str, tmp_path: Path) -> None:
    options = OBJECTIVES.get(name) or {"supcon": SupConOptions(projection_dim=8)}.get(name) or NCMIOptions()
    alternation = Alternation("phases" if name == "ncmi-phases" else "joint")
    recipe = make_recipe(options, schedule="cosine", clip_norm=0.5, alternation=alternation)
    train(recipe, tmp_path / "run")

    training, source = recipe.training, open_source(recipe)
    inputs, labels = source.dataset.inputs[source.split.train], source.labels[source.split.train]
    torch.manual_seed(training.seed)
    model = Classifier(recipe, source.signature)
    source.fit_standardizer(model)
    model.objective.set_class_counts(torch.bincount(labels))
    optimizer = AlternatingOptimizer(*make_optimizers(model, training), training.alternation)
    factor = learning_rate_factor(training, 4)
    step = TrainingStep(
        model.objective,
        optimizer,
        schedulers=[LambdaLR(each, factor) for each in optimizer.optimizers],
        parameters=model.parameters(),
        clip_norm=training.clip_norm,
    )
    views = ViewMaker(training.augmentation, "table", model.objective.views, training.seed)
    losses, taken = [], 0
    for epoch in range(training.epochs):
        total = 0.0
        batches = epoch_order(len(labels), seed=training.seed, epoch=epoch).split(training.batch_size)
        for number, batch in enumerate(batches):
            varied = views(inputs[batch], slice(None), model.standardize, torch.float32, (epoch, number, 0))
            features = split_views(model.network(varied), model.objective.views)
            loss = step(features, labels[batch], step=taken, epoch=epoch)
            total, taken = total + float(loss) * len(batch), taken + 1
        losses.append(total / len(labels))
    saved = weights(tmp_path / "run")
    for key, value in model.state_dict().items():
        if key.startswith(("standardize", "network", "objective")):
            assert torch.equal(saved[f"/model/{key}"], value), key
    assert [row["train_loss"] for row in metrics(tmp_path / "run")] == losses


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
    model = Classifier(recipe, open_source(recipe).signature)
    model.load_state_dict({name.removeprefix("/model/"): value for name, value in found.items()})
    with torch.no_grad():
        features = model(data.inputs[split.validation])
        labels = data.labels[split.validation]
        # P and Q by their definitions
        unit = 0.5 * common_length("common", features.shape[1])  # type: ignore[operator]
        p = torch.sigmoid(features.double() / unit)
        p = p / p.sum(-1, keepdim=True)
        q = torch.sigmoid(found["/model/objective.centroid_logits"].double() / unit)
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
