"""Recipes as JSON: strict both ways, so that a misspelt or mistyped field is an error and never a default."""

from __future__ import annotations

import math
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

import msgspec

from ncmi.options import ObjectiveOptions, objective_options
from ncmi.recipes.recipe import Backbone, Data, Recipe, Training
from ncmi.recipes.slides import BagNetwork, SlideData, SlideRecipe

FORMAT = 1
T = TypeVar("T")


def recipe_to_dict(recipe: Recipe | SlideRecipe) -> dict[str, Any]:
    """A recipe as plain JSON values."""
    if isinstance(recipe, SlideRecipe):
        return {
            "format": FORMAT,
            "kind": "slides",
            "data": _plain(asdict(recipe.data)),
            "network": _plain(asdict(recipe.network)),
            "objective": {"name": recipe.objective.name, **_plain(asdict(recipe.objective))},
            "training": _plain(asdict(recipe.training)),
            "sampling": recipe.sampling,
        }
    return {
        "format": FORMAT,
        "data": _plain(asdict(recipe.data)),
        "backbone": _plain(asdict(recipe.backbone)),
        "objective": {"name": recipe.objective.name, **_plain(asdict(recipe.objective))},
        "training": _plain(asdict(recipe.training)),
    }


def recipe_from_dict(content: dict[str, Any]) -> Recipe:
    """The recipe of images or tables that :func:`recipe_to_dict` wrote.

    Raises:
        ValueError: for another format, an unknown objective or field, or a value of another type.
    """
    _check_format(content)
    if content.get("kind") == "slides":
        raise ValueError("this is a slide classifier's recipe: use the commands of `ncmi slides`")
    objective = _objective(content)
    return Recipe(
        data=_convert(content.get("data"), Data, "data"),
        backbone=_convert(content.get("backbone"), Backbone, "backbone"),
        objective=objective,
        training=_convert(content.get("training"), Training, "training"),
    )


def slide_recipe_from_dict(content: dict[str, Any]) -> SlideRecipe:
    """The recipe of a slide classifier that :func:`recipe_to_dict` wrote.

    Raises:
        ValueError: as :func:`recipe_from_dict`.
    """
    _check_format(content)
    if content.get("kind") != "slides":
        raise ValueError("this is no slide classifier's recipe: use `ncmi train` and the like")
    sampling = content.get("sampling")
    if sampling not in ("all", "balanced"):
        raise ValueError(f"recipe, sampling={sampling!r}: use 'all' or 'balanced'")
    return SlideRecipe(
        data=_convert(content.get("data"), SlideData, "data"),
        network=_convert(content.get("network"), BagNetwork, "network"),
        objective=_objective(content),
        training=_convert(content.get("training"), Training, "training"),
        sampling=sampling,
    )


def _check_format(content: dict[str, Any]) -> None:
    if content.get("format") != FORMAT:
        raise ValueError(f"recipe format {content.get('format')!r}: this version reads format {FORMAT}")


def _objective(content: dict[str, Any]) -> ObjectiveOptions:
    objective = content.get("objective")
    if not isinstance(objective, dict):
        raise ValueError("recipe, section 'objective': missing, or not an object with a name")
    objective = dict(objective)
    try:
        options = objective_options(str(objective.pop("name", None)))
    except KeyError as error:
        raise ValueError(f"recipe: {error.args[0]}; import the module that registers it first") from None
    return _convert(objective, options, "objective")


def _plain(value: Any) -> Any:
    """The same in what JSON has: lists for tuples, and text for infinities (a separation power may be −∞)."""
    if isinstance(value, dict):
        return {name: _plain(child) for name, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child) for child in value]
    return str(value) if value in (math.inf, -math.inf) else value


def _convert(content: Any, kind: type[T], section: str) -> T:
    try:
        return msgspec.convert(_checked(content, kind, section), kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"recipe, section {section!r}: {error}") from None


def _checked(content: Any, kind: Any, section: str) -> Any:
    """The content with infinities as numbers; unknown names are an error in it and in the sections inside it."""
    if not isinstance(content, dict) or not is_dataclass(kind):
        return content
    types = get_type_hints(kind)
    unknown = set(content) - {field.name for field in fields(kind)}
    if unknown:
        raise ValueError(f"recipe, section {section!r}: unknown field {', '.join(sorted(unknown))}")
    return {
        name: float(value)
        if value in ("inf", "-inf") and types[name] is not str
        else _checked(value, types[name], f"{section}.{name}")
        for name, value in content.items()
    }
