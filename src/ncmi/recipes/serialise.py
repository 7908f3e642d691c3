"""Recipes as JSON: strict both ways, so that a misspelt or mistyped field is an error and never a default."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any, TypeVar

import msgspec

from ncmi.options import objective_options
from ncmi.recipes.recipe import Backbone, Data, Recipe, Training

FORMAT = 1
T = TypeVar("T")


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain JSON values."""
    return {
        "format": FORMAT,
        "data": asdict(recipe.data),
        "backbone": asdict(recipe.backbone),
        "objective": {"name": recipe.objective.name, **asdict(recipe.objective)},
        "training": asdict(recipe.training),
    }


def recipe_from_dict(content: dict[str, Any]) -> Recipe:
    """The recipe that :func:`recipe_to_dict` wrote.

    Raises:
        ValueError: for another format, an unknown objective or field, or a value of another type.
    """
    if content.get("format") != FORMAT:
        raise ValueError(f"recipe format {content.get('format')!r}: this version reads format {FORMAT}")
    objective = dict(content.get("objective", {}))
    try:
        options = objective_options(str(objective.pop("name", None)))
    except KeyError as error:
        raise ValueError(f"recipe: {error.args[0]}; import the module that registers it first") from None
    return Recipe(
        data=_convert(content.get("data"), Data, "data"),
        backbone=_convert(content.get("backbone"), Backbone, "backbone"),
        objective=_convert(objective, options, "objective"),
        training=_convert(content.get("training"), Training, "training"),
    )


def _convert(content: Any, kind: type[T], section: str) -> T:
    if isinstance(content, dict):
        unknown = set(content) - {field.name for field in fields(kind)}  # type: ignore[arg-type]
        if unknown:
            raise ValueError(f"recipe, section {section!r}: unknown field {', '.join(sorted(unknown))}")
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"recipe, section {section!r}: {error}") from None
