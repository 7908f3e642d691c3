"""Recipes: JSON both ways, strict about names, types and ranges; defaults by the shape of the data."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ncmi import options as options_module
from ncmi.files import write_json
from ncmi.options import (
    Alternation,
    CrossEntropyOptions,
    NCMIOptions,
    ObjectiveOptions,
    objective_names,
    objective_options,
    register_objective,
)
from ncmi.recipes import (
    Augmentation,
    Backbone,
    Data,
    Recipe,
    Training,
    describe_recipe,
    named_recipe,
    recipe_from_dict,
    recipe_names,
    recipe_to_dict,
    resolve_backbone,
    resolve_recipe,
)

FULL = Recipe(
    Data(
        "table.csv",
        label_column="y",
        data_dir="/data",
        validation_fraction=0.1,
        split_seed=3,
        imbalance=100,
        label_noise=0.4,
        noise_kind="pair",
    ),
    Backbone("convnet", width=16, depth=2, feature_dim=64, dropout=0.5),
    NCMIOptions(separation_power=-math.inf, reduction="mean_of_ratios", class_weights="balanced"),
    Training(
        epochs=3,
        schedule="step",
        milestones=(1, 2.5),
        clip_norm=1.0,
        ema_decay=0.99,
        alternation=Alternation("phases", network_steps=4),
        augmentation=Augmentation(enabled=True, shift=2),
        patience=4,
        precision="bf16-mixed",
        threads=2,
    ),
)


def through_a_file(recipe: Recipe, path: Path) -> Recipe:
    write_json(path, recipe_to_dict(recipe))
    # JSON as everybody reads it: no NaN, no infinities
    return recipe_from_dict(json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name)))


@pytest.mark.parametrize("name", objective_names())
def test_every_objective_comes_back(name: str, tmp_path: Path) -> None:
    recipe = Recipe(Data("digits"), objective=objective_options(name)())
    assert through_a_file(recipe, tmp_path / "recipe.json") == recipe


def test_it_is_plain_json() -> None:
    content = recipe_to_dict(FULL)
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_every_field_comes_back(tmp_path: Path) -> None:
    found = through_a_file(FULL, tmp_path / "recipe.json")
    assert found == FULL
    assert isinstance(found.training.milestones, tuple)
    assert found.objective.build(3, 8).separation_power == -math.inf


def test_text_that_looks_like_infinity_stays_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options_module, "_REGISTRY", dict(options_module._REGISTRY))

    @register_objective("mine")
    @dataclass(frozen=True)
    class MineOptions(ObjectiveOptions):
        word: str = "inf"
        bound: float = math.inf
        target: ClassVar[str] = "nowhere:Nothing"

    recipe = Recipe(Data("digits"), objective=MineOptions())
    assert through_a_file(recipe, tmp_path / "recipe.json") == recipe


def changed(section: str, **fields: Any) -> dict[str, Any]:
    content = json.loads(json.dumps(recipe_to_dict(Recipe(Data("digits")))))
    content[section].update(fields)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed("training", epoch=3), "section 'training': unknown field epoch"),
        (changed("data", path="x", folder="y"), "section 'data': unknown field folder, path"),
        (changed("objective", temprature=1.0), "section 'objective': unknown field temprature"),
        (changed("objective", gamma=1.0), "section 'objective': unknown field gamma"),
        (changed("training", epochs="3"), r"section 'training': Expected `int`, got `str` - at `\$.epochs`"),
        (changed("training", epochs=2.5), "section 'training': Expected `int`, got `float`"),
        (changed("training", epochs=True), "section 'training': Expected `int`, got `bool`"),
        (changed("training", learning_rate=None), "section 'training': Expected `float`, got `null`"),
        (changed("training", learning_rate="fast"), "section 'training': Expected `float`, got `str`"),
        (changed("training", schedule="cosin"), "section 'training': Invalid enum value 'cosin'"),
        (changed("training", alternation={"mode": "both"}), "section 'training': Invalid enum value 'both'"),
        (changed("training", epochs=-1), "section 'training': epochs=-1: must be at least 0"),
        (changed("objective", centroids="moving"), "section 'objective': Invalid enum value 'moving'"),
        (changed("objective", name="hinge"), "recipe: unknown objective 'hinge'; known: ncmi, .*import the module"),
        (changed("objective", name=None), "recipe: unknown objective 'None'"),
        ({**changed("data"), "format": 2}, "recipe format 2: this version reads format 1"),
        ({**changed("data"), "data": None}, "section 'data': Expected `object`, got `null`"),
        ({**changed("data"), "objective": "ncmi"}, "section 'objective': missing, or not an object"),
        ({"format": 1}, "section 'objective': missing"),
    ],
)
def test_misspelt_and_mistyped(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe_from_dict(content)


@pytest.mark.parametrize(
    ("section", "fields", "message"),
    [
        (Training, {"epochs": -1}, "epochs=-1: must be at least 0"),
        (Training, {"batch_size": -1}, "batch_size=-1: must be at least 0"),
        (Training, {"seed": -1}, "seed=-1: must be at least 0"),
        (Training, {"accumulate": 0}, "accumulate=0: must be at least 1"),
        (Training, {"devices": 0}, "devices=0: must be at least 1"),
        (Training, {"patience": 0}, "patience=0: must be at least 1"),
        (Training, {"threads": 0}, "threads=0: must be at least 1"),
        (Training, {"checkpoint_steps": 0}, "checkpoint_steps=0: must be at least 1"),
        (Training, {"warmup_epochs": -0.5}, "warmup_epochs=-0.5: must be at least 0"),
        (Training, {"weight_decay": -1.0}, "weight_decay=-1.0: must be at least 0"),
        (Training, {"weight_decay": math.nan}, "weight_decay=nan: must be at least 0"),
        (Training, {"learning_rate": 0.0}, "learning_rate=0.0: must be above 0"),
        (Training, {"learning_rate": math.nan}, "learning_rate=nan: must be above 0"),
        (Training, {"centroid_learning_rate": -1.0}, "centroid_learning_rate=-1.0: must be above 0"),
        (Training, {"clip_norm": 0.0}, "clip_norm=0.0: must be above 0"),
        (Training, {"decay_factor": 0.0}, "decay_factor=0.0: must be above 0"),
        (Training, {"ema_decay": 1.0}, r"ema_decay=1.0: must be at least 0 and below 1 \(usual: 0.999\)"),
        (Training, {"momentum": 1.0}, r"momentum=1.0: must be at least 0 and below 1 \(usual: 0.9\)"),
        (Backbone, {"width": -1}, "width=-1: must be at least 0"),
        (Backbone, {"depth": -1}, "depth=-1: must be at least 0"),
        (Backbone, {"feature_dim": -1}, "feature_dim=-1: must be at least 0"),
        (Backbone, {"dropout": 1.0}, "dropout=1.0: must be at least 0 and below 1"),
    ],
)
def test_out_of_range(section: type[Any], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        section(**fields)


@pytest.mark.parametrize(
    ("shape", "classes", "expected"),
    [
        ((13,), 3, Backbone("mlp", 256, 2, 128)),
        ((5000,), 300, Backbone("mlp", 256, 2, 320)),
        ((1, 8, 8), 10, Backbone("mlp", 256, 2, 128)),
        ((3, 32, 32), 129, Backbone("convnet", 32, 3, 192)),
    ],
)
def test_default_backbone(shape: tuple[int, ...], classes: int, expected: Backbone) -> None:
    assert resolve_backbone(Backbone(), shape, classes) == expected
    assert resolve_backbone(expected, shape, classes) == expected
    assert resolve_backbone(Backbone(width=7), shape, classes) == replace(expected, width=7)


@pytest.mark.parametrize(
    ("num_train", "batch_size", "epochs"),
    [(98, 32, 100), (511, 32, 75), (512, 64, 100), (1168, 64, 63), (13000, 64, 40)],
)
def test_default_training(num_train: int, batch_size: int, epochs: int) -> None:
    found = resolve_recipe(Recipe(Data("x")), (4,), 3, num_train)
    assert (found.training.batch_size, found.training.epochs) == (batch_size, epochs)
    assert resolve_recipe(found, (4,), 3, num_train) == found
    asked = Recipe(Data("x"), objective=CrossEntropyOptions(), training=Training(epochs=5, batch_size=7))
    resolved = resolve_recipe(asked, (4,), 3, num_train)
    assert (resolved.training, resolved.objective, resolved.data) == (asked.training, asked.objective, asked.data)


@pytest.mark.parametrize("name", recipe_names())
def test_named_recipes_survive_json_and_say_what_to_expect(name: str, tmp_path: Path) -> None:
    recipe = named_recipe(name)
    assert through_a_file(recipe, tmp_path / "recipe.json") == recipe
    told = describe_recipe(name)
    assert "%" in told or "minutes" in told
    settled = resolve_recipe(recipe, (3, 32, 32), 100, 50_000)
    assert settled.backbone.feature_dim >= 100  # axis anchors


def test_published_recipes_are_as_published() -> None:
    paper, released = named_recipe("cifar100.paper").training, named_recipe("cifar100.released").training
    for training in (paper, released):
        assert (training.optimiser, training.learning_rate, training.momentum) == ("sgd", 0.1, 0.9)
        assert (training.weight_decay, training.decay_all, training.nesterov) == (5e-4, True, False)
        assert (training.schedule, training.milestones, training.selection) == ("step", (60, 120, 160), "last")
    assert (paper.epochs, paper.batch_size, paper.decay_factor) == (240, 64, 0.1)
    assert (released.epochs, released.batch_size, released.decay_factor) == (200, 128, 0.2)
    assert (released.warmup_epochs, released.augmentation.rotation) == (1, 15)
    form = named_recipe("cifar100.released").objective
    assert isinstance(form, NCMIOptions)
    assert (form.temperature, form.centroids, form.centre, form.separation_power) == (0.2, "fixed", "frozen", 1)


def test_unknown_recipe() -> None:
    with pytest.raises(KeyError, match=r"unknown recipe 'cifar'; known: cifar100\.paper"):
        named_recipe("cifar")


def test_misspelt_fields_inside_a_section_are_errors() -> None:
    content = recipe_to_dict(FULL)
    content["training"]["augmentation"]["rotatoin"] = 3
    with pytest.raises(ValueError, match=r"section 'training\.augmentation': unknown field rotatoin"):
        recipe_from_dict(content)


def test_nothing_to_select_by() -> None:
    with pytest.raises(ValueError, match="train_on_all leaves nothing to select by"):
        Recipe(Data("digits", train_on_all=True), training=Training(selection="best"))
    with pytest.raises(ValueError, match="train_on_all leaves nothing to select by"):
        Recipe(Data("digits", train_on_all=True), training=Training(patience=3))
