"""Recipes by name."""

from __future__ import annotations

from collections.abc import Callable

from ncmi.recipes import cifar100
from ncmi.recipes.recipe import Recipe

_RECIPES: dict[str, Callable[..., Recipe]] = {
    "cifar100.paper": cifar100.paper,
    "cifar100.released": cifar100.released,
    "cifar100.fast": cifar100.fast,
    "cifar100.small": cifar100.small,
}


def recipe_names() -> tuple[str, ...]:
    """Names that :func:`named_recipe` knows."""
    return tuple(_RECIPES)


def describe_recipe(name: str) -> str:
    """What a recipe is, with its expected result: its docstring."""
    return " ".join((_find(name).__doc__ or "").split())


def named_recipe(name: str) -> Recipe:
    """The recipe of this name, with its own objective.

    Raises:
        KeyError: for an unknown name; the message lists the known ones.
    """
    return _find(name)()


def _find(name: str) -> Callable[..., Recipe]:
    if name not in _RECIPES:
        raise KeyError(f"unknown recipe {name!r}; known: {', '.join(_RECIPES)}")
    return _RECIPES[name]
