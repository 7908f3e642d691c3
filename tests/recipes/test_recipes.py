"""Recipes: JSON both ways, strict about names, types and ranges; defaults by the shape of the data; augmentation."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
import tyro

from ncmi.files import write_json
from ncmi.loss.alternating import Alternation
from ncmi.objectives.options import (
    CrossEntropyOptions,
    NCMIOptions,
    ObjectiveOptions,
    objective_names,
    objective_options,
    register_objective,
)
from ncmi.recipes import (
    Augmentation,
    BagData,
    BagNetwork,
    ImageData,
    Network,
    Recipe,
    TableData,
    Training,
    describe_recipe,
    named_recipe,
    recipe_from_dict,
    recipe_names,
    recipe_to_dict,
    resolve_network,
    resolve_recipe,
)

FULL = Recipe(
    TableData(
        "table.csv",
        label_column="y",
        data_dir="/data",
        validation_fraction=0.1,
        split_seed=3,
        imbalance=100,
        label_noise=0.4,
        noise_kind="pair",
    ),
    Network("convnet", width=16, depth=2, feature_dim=64, dropout=0.5),
    NCMIOptions(separation_power=-math.inf, form="mean_of_ratios", weight="balanced"),
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


BAGS = Recipe(
    BagData("cohort/features", labels="labels.csv", classes=("a", "b"), holdout_column="center", holdout=("3", "4")),
    BagNetwork("transmil", width=64, landmarks=8),
    CrossEntropyOptions(),
    Training(sampling="balanced", selection="best", patience=2),
)


def through_a_file(recipe: Recipe, path: Path) -> Recipe:
    write_json(path, recipe_to_dict(recipe))
    # JSON as everybody reads it: no NaN, no infinities
    return recipe_from_dict(json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name)))


@pytest.mark.parametrize("name", objective_names())
def test_every_objective_comes_back(name: str, tmp_path: Path) -> None:
    recipe = Recipe(ImageData("digits"), objective=objective_options(name)())
    assert through_a_file(recipe, tmp_path / "recipe.json") == recipe


@pytest.mark.parametrize("recipe", [FULL, BAGS], ids=["table", "bags"])
def test_it_is_plain_json(recipe: Recipe) -> None:
    content = recipe_to_dict(recipe)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert (content["format"], content["data"]["kind"]) == (2, recipe.data.kind)


def test_every_field_comes_back(tmp_path: Path) -> None:
    found = through_a_file(FULL, tmp_path / "recipe.json")
    assert found == FULL
    assert isinstance(found.training.milestones, tuple)
    assert found.objective.build(3, 8).separation_power == -math.inf
    assert through_a_file(BAGS, tmp_path / "bags.json") == BAGS


def test_text_that_looks_like_infinity_stays_text(tmp_path: Path) -> None:

    @register_objective("mine")
    @dataclass(frozen=True)
    class MineOptions(ObjectiveOptions):
        word: str = "inf"
        bound: float = math.inf
        target: ClassVar[str] = "nowhere:Nothing"

    recipe = Recipe(ImageData("digits"), objective=MineOptions())
    assert through_a_file(recipe, tmp_path / "recipe.json") == recipe


def changed(section: str, **fields: Any) -> dict[str, Any]:
    content = json.loads(json.dumps(recipe_to_dict(Recipe(ImageData("digits")))))
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
        ({**changed("data"), "format": 1}, "recipe format 1: this version reads format 2"),
        ({**changed("data"), "data": None}, "section 'data': missing, or not an object with a kind"),
        ({**changed("data"), "network": None}, "section 'network': Expected `object`, got `null`"),
        (changed("data", kind="video"), "section 'data': unknown kind 'video': use table, image, bags"),
        (changed("data", holdout=[]), "section 'data': unknown field holdout"),
        ({**changed("data"), "objective": "ncmi"}, "section 'objective': missing, or not an object"),
        ({"format": 2}, "section 'data': missing"),
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
        (Training, {"ema_decay": 1.0}, r"ema_decay=1.0: must be at least 0 and below 1, usually 0.999"),
        (Training, {"momentum": 1.0}, r"momentum=1.0: must be at least 0 and below 1, usually 0.9"),
        (ImageData, {"name": "digits", "test_fraction": 2.0}, "test_fraction=2.0: must be at least 0 and below 1"),
        (ImageData, {"name": "digits", "image_size": 0}, "image_size=0: must be at least 1"),
        (BagData, {"name": "x", "folds": 1}, "folds=1, fold=0: at least 2 folds, of which fold is one from 0 on"),
        (BagData, {"name": "x", "holdout": ("3",)}, "holdout_column and holdout belong together"),
        (Network, {"width": -1}, "width=-1: must be at least 0"),
        (Network, {"depth": -1}, "depth=-1: must be at least 0"),
        (Network, {"feature_dim": -1}, "feature_dim=-1: must be at least 0"),
        (Network, {"dropout": 1.0}, "dropout=1.0: must be at least 0 and below 1"),
    ],
)
def test_out_of_range(section: type[Any], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        section(**fields)


@pytest.mark.parametrize(
    ("shape", "classes", "expected"),
    [
        ((13,), 3, Network("mlp", 256, 2, 128)),
        ((5000,), 300, Network("mlp", 256, 2, 320)),
        ((1, 8, 8), 10, Network("mlp", 256, 2, 128)),
        ((3, 32, 32), 129, Network("convnet", 32, 3, 192)),
    ],
)
def test_default_network(shape: tuple[int, ...], classes: int, expected: Network) -> None:
    assert resolve_network(Network(), shape, classes) == expected
    assert resolve_network(expected, shape, classes) == expected
    assert resolve_network(Network(width=7), shape, classes) == replace(expected, width=7)


@pytest.mark.parametrize(
    ("num_train", "batch_size", "epochs"),
    [(98, 32, 100), (511, 32, 75), (512, 64, 100), (1168, 64, 63), (13000, 64, 40)],
)
def test_default_training(num_train: int, batch_size: int, epochs: int) -> None:
    found = resolve_recipe(Recipe(TableData("x")), (4,), 3, num_train)
    assert (found.training.batch_size, found.training.epochs) == (batch_size, epochs)
    assert resolve_recipe(found, (4,), 3, num_train) == found
    asked = Recipe(TableData("x"), objective=CrossEntropyOptions(), training=Training(epochs=5, batch_size=7))
    resolved = resolve_recipe(asked, (4,), 3, num_train)
    assert (resolved.training, resolved.objective, resolved.data) == (asked.training, asked.objective, asked.data)


@pytest.mark.parametrize(
    ("recipe", "shape", "length"),
    [
        (Recipe(TableData("t")), (5,), "common"),
        (Recipe(ImageData("i")), (3, 32, 32), "common"),
        (Recipe(BagData("b")), (512,), "common"),
        (Recipe(ImageData("i"), Network("resnet_small")), (3, 32, 32), "own"),
        (Recipe(TableData("t"), training=Training(optimizer="sgd")), (5,), "own"),
        (Recipe(TableData("t"), objective=NCMIOptions(feature_length="own")), (5,), "own"),
        (Recipe(ImageData("i"), Network("resnet_small"), NCMIOptions(feature_length=2.0)), (3, 32, 32), 2.0),
    ],
)
def test_length_of_features_by_network_and_optimizer(recipe: Recipe, shape: tuple[int, ...], length: Any) -> None:
    objective = resolve_recipe(recipe, shape, 3, 600).objective
    assert isinstance(objective, NCMIOptions)
    assert objective.feature_length == length
    assert objective == replace(recipe.objective, feature_length=length)


def test_other_losses_are_left_as_they_are() -> None:
    recipe = Recipe(TableData("t"), objective=CrossEntropyOptions())
    assert resolve_recipe(recipe, (5,), 3, 600).objective == recipe.objective


@pytest.mark.parametrize(
    ("network", "objective", "layer"),
    [
        (BagNetwork("abmil"), NCMIOptions(), "linear"),
        (BagNetwork("mean"), NCMIOptions(), "linear"),
        (BagNetwork("abmil"), CrossEntropyOptions(), "none"),  # has a linear layer of its own
        (BagNetwork("aem"), NCMIOptions(), "none"),  # ends in one
        (BagNetwork("abmil", output_layer="none"), NCMIOptions(), "none"),
        (BagNetwork("aem", output_layer="linear"), CrossEntropyOptions(), "linear"),
    ],
)
def test_output_layer_by_network_and_objective(network: BagNetwork, objective: ObjectiveOptions, layer: str) -> None:
    settled = resolve_recipe(Recipe(BagData("bags"), network, objective), (24,), 2, 60).network
    assert isinstance(settled, BagNetwork)
    assert settled.output_layer == layer


@pytest.mark.parametrize("name", recipe_names())
def test_named_recipes_survive_json_and_say_what_to_expect(name: str, tmp_path: Path) -> None:
    recipe = named_recipe(name)
    assert through_a_file(recipe, tmp_path / "recipe.json") == recipe
    told = describe_recipe(name)
    assert "%" in told or "minutes" in told
    settled = resolve_recipe(recipe, (3, 32, 32), 100, 50_000)
    assert settled.network.feature_dim >= 100  # axis anchors


def test_published_recipes_are_as_published() -> None:
    paper, released = named_recipe("cifar100.paper").training, named_recipe("cifar100.released").training
    for training in (paper, released):
        assert (training.optimizer, training.learning_rate, training.momentum) == ("sgd", 0.1, 0.9)
        assert (training.weight_decay, training.decay_all, training.nesterov) == (5e-4, True, False)
        assert (training.schedule, training.milestones, training.selection) == ("step", (60, 120, 160), "last")
    assert (paper.epochs, paper.batch_size, paper.decay_factor) == (240, 64, 0.1)
    assert (released.epochs, released.batch_size, released.decay_factor) == (200, 128, 0.2)
    assert (released.warmup_epochs, released.augmentation.rotation) == (1, 15)
    form = named_recipe("cifar100.released").objective
    assert isinstance(form, NCMIOptions)
    assert (form.temperature, form.centroids, form.center, form.separation_power) == (0.2, "fixed", "frozen", 1)


def test_recipes_for_imagenet_are_as_published() -> None:
    paper, short, tiny = (named_recipe(f"imagenet.{name}") for name in ("paper", "short", "tiny"))
    for recipe in (paper, short):
        assert (recipe.network.name, recipe.data.train_on_all, recipe.training.selection) == ("resnet50", True, "last")  # type: ignore[union-attr]
        assert recipe.training.augmentation.crop_scale == (0.08, 1.0)
    training = paper.training
    assert (training.optimizer, training.learning_rate, training.weight_decay) == ("sgd", 0.5, 5e-5)
    assert (training.batch_size, training.epochs, training.schedule) == (1024, 1000, "cosine")
    training, network = short.training, short.network
    assert (training.epochs, training.precision, training.compile) == (16, "bf16-mixed", True)
    assert training.image_sizes == (160, 160, 160, 192)
    assert isinstance(network, Network)
    assert isinstance(short.data, ImageData)
    assert (network.stem, network.blurpool, network.test_flip, short.data.image_size) == ("large", True, True, 256)
    assert getattr(short.objective, "label_smoothing", None) == 0.1
    assert isinstance(tiny.data, ImageData)
    assert (tiny.data.image_size, tiny.training.image_sizes[-1], tiny.data.train_on_all) == (64, 64, False)


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
        Recipe(ImageData("digits", train_on_all=True), training=Training(selection="best"))
    with pytest.raises(ValueError, match="train_on_all leaves nothing to select by"):
        Recipe(ImageData("digits", train_on_all=True), training=Training(patience=3))


def test_sets_of_augmentation() -> None:
    cifar, supcon = Augmentation.cifar(), Augmentation.supcon()
    assert (cifar.enabled, cifar.shift, cifar.flip, cifar.noise) == (True, None, True, 0.0)
    assert not cifar.varies_color
    assert not Augmentation().varies_color
    assert supcon.varies_color
    assert (supcon.crop_scale, supcon.jitter_probability, supcon.gray) == ((0.2, 1.0), 0.8, 0.2)
    assert (supcon.brightness, supcon.contrast, supcon.saturation, supcon.hue) == (0.4, 0.4, 0.4, 0.1)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue", "gray"])
def test_each_kind_varies_color(name: str) -> None:
    assert Augmentation(**{name: 0.1}).varies_color  # type: ignore[arg-type]


@pytest.mark.parametrize("augmentation", [Augmentation.supcon(), replace(Augmentation.cifar(), rotation=15.0)])
def test_augmentation_comes_back_from_json(augmentation: Augmentation) -> None:
    recipe = Recipe(ImageData("digits"), training=Training(augmentation=augmentation))
    found = recipe_from_dict(json.loads(json.dumps(recipe_to_dict(recipe))))
    assert found == recipe
    assert found.training.augmentation.crop_scale == augmentation.crop_scale


def test_what_is_left_out_of_augmentation_has_its_default() -> None:
    content: dict[str, Any] = json.loads(json.dumps(recipe_to_dict(Recipe(ImageData("digits")))))
    content["training"]["augmentation"] = {"enabled": True, "shift": 2, "flip": False, "noise": 0.1, "mask": 0.1}
    found = recipe_from_dict(content).training.augmentation
    assert found == Augmentation(enabled=True, shift=2)


def test_types_of_augmentation_are_strict() -> None:
    for field, value in (("rotation", "15"), ("crop_scale", [0.2]), ("crop_scale", 0.2), ("gray", True)):
        with pytest.raises(msgspec.ValidationError, match=field):
            msgspec.convert({field: value}, Augmentation)
    with pytest.raises(msgspec.ValidationError, match=r"crop_scale=\(0.5, 0.2\)"):
        msgspec.convert({"crop_scale": [0.5, 0.2]}, Augmentation)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shift": -1}, "shift=-1: must be at least 0"),
        ({"noise": -0.1}, "noise=-0.1: must be at least 0"),
        ({"mask": 1.0}, "mask=1.0: must be at least 0 and below 1"),
        ({"rotation": 181.0}, "rotation=181.0: must be at least 0 and at most 180"),
        ({"rotation": float("nan")}, "rotation=nan: must be at least 0"),
        ({"brightness": -0.1}, "brightness=-0.1: must be at least 0"),
        ({"contrast": -0.1}, "contrast=-0.1: must be at least 0"),
        ({"saturation": -0.1}, "saturation=-0.1: must be at least 0"),
        ({"hue": 0.6}, "hue=0.6: must be at least 0 and at most 0.5"),
        ({"jitter_probability": 1.1}, "jitter_probability=1.1: must be at least 0 and at most 1"),
        ({"gray": -0.1}, "gray=-0.1: must be at least 0 and at most 1"),
        ({"crop_scale": (0.0, 1.0)}, r"crop_scale=\(0.0, 1.0\): give least and largest part, above 0 and up to 1"),
        ({"crop_scale": (0.2, 1.5)}, r"crop_scale=\(0.2, 1.5\): give least and largest part"),
    ],
)
def test_augmentation_out_of_range(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**fields)


def test_augmentation_on_the_command_line() -> None:
    arguments = ["--training.augmentation.rotation", "15", "--training.augmentation.crop-scale", "0.2", "1"]
    arguments += ["--data.name", "digits", "--training.augmentation.hue", "0.1"]

    def verb(data: ImageData, training: Training) -> Augmentation:
        return training.augmentation

    found = tyro.cli(verb, args=arguments)
    assert asdict(found) == asdict(Augmentation(rotation=15.0, crop_scale=(0.2, 1.0), hue=0.1))
