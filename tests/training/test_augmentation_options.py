"""The recipe's section on augmentation: defaults of older recipes, JSON both ways, ranges, the command line."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import msgspec
import pytest
import tyro

from ncmi.recipes import Augmentation, Data, Recipe, Training, recipe_from_dict, recipe_to_dict


def test_sets() -> None:
    cifar, supcon = Augmentation.cifar(), Augmentation.supcon()
    assert (cifar.enabled, cifar.shift, cifar.flip, cifar.noise) == (True, None, True, 0.0)
    assert not cifar.varies_colour
    assert not Augmentation().varies_colour
    assert supcon.varies_colour
    assert (supcon.crop_scale, supcon.jitter_probability, supcon.grey) == ((0.2, 1.0), 0.8, 0.2)
    assert (supcon.brightness, supcon.contrast, supcon.saturation, supcon.hue) == (0.4, 0.4, 0.4, 0.1)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue", "grey"])
def test_each_kind_varies_colour(name: str) -> None:
    assert Augmentation(**{name: 0.1}).varies_colour  # type: ignore[arg-type]


@pytest.mark.parametrize("augmentation", [Augmentation.supcon(), replace(Augmentation.cifar(), rotation=15.0)])
def test_comes_back_from_json(augmentation: Augmentation) -> None:
    recipe = Recipe(Data("digits"), training=Training(augmentation=augmentation))
    found = recipe_from_dict(json.loads(json.dumps(recipe_to_dict(recipe))))
    assert found == recipe
    assert found.training.augmentation.crop_scale == augmentation.crop_scale


def test_older_recipes_load() -> None:
    content: dict[str, Any] = json.loads(json.dumps(recipe_to_dict(Recipe(Data("digits")))))
    old = {"enabled": True, "shift": 2, "flip": False, "noise": 0.1, "mask": 0.1}
    content["training"]["augmentation"] = old
    found = recipe_from_dict(content).training.augmentation
    assert found == Augmentation(enabled=True, shift=2)


def test_types_are_strict() -> None:
    for field, value in (("rotation", "15"), ("crop_scale", [0.2]), ("crop_scale", 0.2), ("grey", True)):
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
        ({"grey": -0.1}, "grey=-0.1: must be at least 0 and at most 1"),
        ({"crop_scale": (0.0, 1.0)}, r"crop_scale=\(0.0, 1.0\): give least and largest part, above 0 and up to 1"),
        ({"crop_scale": (0.2, 1.5)}, r"crop_scale=\(0.2, 1.5\): give least and largest part"),
    ],
)
def test_out_of_range(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**fields)


def test_command_line() -> None:
    arguments = ["--training.augmentation.rotation", "15", "--training.augmentation.crop-scale", "0.2", "1"]
    arguments += ["--data.name", "digits", "--training.augmentation.hue", "0.1"]

    def verb(data: Data, training: Training) -> Augmentation:
        return training.augmentation

    found = tyro.cli(verb, args=arguments)
    assert asdict(found) == asdict(Augmentation(rotation=15.0, crop_scale=(0.2, 1.0), hue=0.1))
