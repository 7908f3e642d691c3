"""Recipes as JSON: strict both ways, so that a misspelt or mistyped field is an error and never a default."""

import math
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

import msgspec

from ncmi.objectives.options import ObjectiveOptions, objective_options
from ncmi.recipes.data import BagData, Data, ImageData, TableData
from ncmi.recipes.networks import BagNetwork, Network
from ncmi.recipes.recipe import Recipe, Training

FORMAT = 2
DATA: dict[str, type[Data]] = {section.kind: section for section in (TableData, ImageData, BagData)}
"""The section of data by its kind."""
T = TypeVar("T")


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain JSON values."""
    return {
        "format": FORMAT,
        "data": {"kind": recipe.data.kind, **_plain(asdict(recipe.data))},
        "network": _plain(asdict(recipe.network)),
        "objective": {"name": recipe.objective.name, **_plain(asdict(recipe.objective))},
        "training": _plain(asdict(recipe.training)),
    }


def recipe_from_dict(content: dict[str, Any]) -> Recipe:
    """The recipe that :func:`recipe_to_dict` wrote.

    Raises:
        ValueError: for another format, an unknown kind of data, objective or field, or a value of another type.
    """
    if content.get("format") != FORMAT:
        raise ValueError(f"recipe format {content.get('format')!r}: this version reads format {FORMAT}")
    kind, data = _tagged(content, "data", "kind")
    if kind not in DATA:
        raise ValueError(f"recipe, section 'data': unknown kind {kind!r}: use {', '.join(DATA)}")
    name, objective = _tagged(content, "objective", "name")
    try:
        options: type[ObjectiveOptions] = objective_options(name)
    except KeyError as error:
        raise ValueError(f"recipe: {error.args[0]}; import the module that registers it first") from None
    network: type[Network | BagNetwork] = BagNetwork if kind == "bags" else Network
    return Recipe(
        data=_convert(data, DATA[kind], "data"),
        network=_convert(content.get("network"), network, "network"),
        objective=_convert(objective, options, "objective"),
        training=_convert(content.get("training"), Training, "training"),
    )


def _tagged(content: dict[str, Any], section: str, tag: str) -> tuple[str, dict[str, Any]]:
    """What says which type a section is of, and the rest of it."""
    value = content.get(section)
    if not isinstance(value, dict):
        raise ValueError(f"recipe, section {section!r}: missing, or not an object with a {tag}")
    return str(value.get(tag)), {name: child for name, child in value.items() if name != tag}


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
