"""Which parameters are trained by which optimiser, with which decay."""

from __future__ import annotations

import pytest
import torch
from training_helpers import make_recipe

from ncmi.data import load_dataset
from ncmi.options import NCMIOptions, objective_names, objective_options
from ncmi.recipes import Backbone
from ncmi.training import Model
from ncmi.training.model import Signature
from ncmi.training.optimisers import make_optimisers

OPTIONS = {name: objective_options(name)() for name in objective_names()} | {
    "ncmi-fixed": NCMIOptions(centroids="fixed"),
    "ncmi-class-mean": NCMIOptions(centroids="class_mean", centre="ema"),
}


@pytest.mark.parametrize("backbone", ["mlp", "convnet"])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_trained_parameter_is_in_exactly_one_group(name: str, backbone: str) -> None:
    recipe = make_recipe(
        OPTIONS[name],
        backbone=Backbone(backbone, width=8, depth=1, feature_dim=16),
        data="digits",
        weight_decay=0.25,
        learning_rate=0.5,
        centroid_learning_rate=3.0,
    )
    model = Model(recipe, Signature.of(load_dataset("digits")))
    network, centroids = make_optimisers(model, recipe.training)
    names = {parameter: name for name, parameter in model.named_parameters()}
    grouped: dict[str, tuple[float, float]] = {}
    for optimiser in (network, centroids):
        for group in [] if optimiser is None else optimiser.param_groups:
            for parameter in group["params"]:
                assert names[parameter] not in grouped
                grouped[names[parameter]] = (group["lr"], group["weight_decay"])

    assert set(grouped) == {name for name in names.values() if not name.startswith("lp.")}
    assert (centroids is not None) == (name == "ncmi")
    for name, found in grouped.items():
        parameter = model.get_parameter(name)
        if "centroid" in name:
            assert found == (3.0, 0.0)
        else:
            assert found == (0.5, 0.25 if parameter.dim() > 1 else 0.0)
    assert any(decay == 0.25 for _, decay in grouped.values())
    assert {parameter.dim() for parameter in model.backbone.parameters()} >= {1, 2}


@pytest.mark.parametrize(("optimiser", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_kind(optimiser: str, kind: type[torch.optim.Optimizer]) -> None:
    recipe = make_recipe(optimiser=optimiser, momentum=0.8)
    model = Model(recipe, Signature.of(load_dataset("wine")))
    for made in make_optimisers(model, recipe.training):
        assert type(made) is kind
        if kind is torch.optim.SGD:
            assert made.param_groups[0]["momentum"] == 0.8
            assert made.param_groups[0]["nesterov"] is True


def test_sgd_without_momentum() -> None:
    recipe = make_recipe(optimiser="sgd", momentum=0.0)
    network, _ = make_optimisers(Model(recipe, Signature.of(load_dataset("wine"))), recipe.training)
    assert network.param_groups[0]["nesterov"] is False
