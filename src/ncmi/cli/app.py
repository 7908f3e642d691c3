"""Parsing: typed options from the recipe's dataclasses."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from importlib import import_module
from typing import Any, get_type_hints

import tyro

import ncmi
from ncmi.cli import slide_verbs, verbs
from ncmi.options import ObjectiveOptions, objective_names, objective_options
from ncmi.recipes import Recipe, named_recipe, recipe_names

_DESCRIPTION = f"""ncmi {ncmi.__version__}: train and judge classifiers by normalised conditional mutual information.

Objectives (--objective NAME; its options are --objective.*): {", ".join(objective_names())}.
Recipes (--recipe NAME sets the defaults of train and compare; ncmi recipes tells them): {", ".join(recipe_names())}.
Start with: ncmi compare digits
Whole slides: ncmi slides --help"""
_SLIDES = """Slide classifiers: from a folder of slides, or of patch features by the usual tools, and a CSV of labels to
macro F1 and AUC with intervals over patients, attention heat maps and predictions.

slides: tile, embed; features: check, train, compare, predict, report."""

_CONFIG = (tyro.conf.PositionalRequiredArgs, tyro.conf.FlagCreatePairsOff)


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and carry out the verb; tyro exits with 2 where they cannot be parsed."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words in (["--version"], ["-V"]):
        print(f"ncmi {ncmi.__version__}")
        return
    command = ["ncmi", *words]
    words, modules = _take(words, "--imports")
    for module in modules:
        import_module(module)
    words, recipes = _take(words, "--recipe")
    recipe = named_recipe(recipes[-1]) if recipes else None
    words, names = _take(words, "--objective")
    if recipe is not None and names and names[-1] != recipe.objective.name:
        recipe = replace(recipe, objective=objective_options(names[-1])())
    options = objective_options(names[-1] if names else "ncmi")()
    verbs.COMMAND[:] = command
    verbs.IMPORTS[:] = modules
    if words[:1] == ["slides"]:
        _run_slides(words[1:], options, recipes)
        return
    tyro.extras.subcommand_cli_from_dict(
        {
            "compare": _typed(verbs.compare, options, recipe),
            "train": _typed(verbs.train, options, recipe),
            "resume": verbs.resume,
            "evaluate": verbs.evaluate,
            "predict": verbs.predict,
            "measure": verbs.measure,
            "report": verbs.report,
            "reproduce": verbs.reproduce,
            "recipes": verbs.recipes,
            "doctor": verbs.doctor,
            "slides": _slides,
        },
        prog="ncmi",
        description=_DESCRIPTION,
        args=words,
        config=_CONFIG,
    )


def _slides() -> None:
    """Whole-slide images: tile, embed, train, compare, predict, report; ncmi slides --help tells them."""
    raise AssertionError("handled before it is parsed")


def _run_slides(words: list[str], options: ObjectiveOptions, recipes: list[str]) -> None:
    if recipes:
        raise ValueError("--recipe is for images and tables: `ncmi slides` has its own defaults, see --help")
    tyro.extras.subcommand_cli_from_dict(
        {
            name: _typed(verb, options, None) if name in slide_verbs.TYPED else verb
            for name, verb in slide_verbs.VERBS.items()
        },
        prog="ncmi slides",
        description=_SLIDES,
        args=words,
        config=_CONFIG,
    )


def _take(words: list[str], option: str) -> tuple[list[str], list[str]]:
    """Take ``option VALUE`` and ``option=VALUE`` out of the arguments: what it says decides how the rest is typed."""
    rest, values = [], []
    iterator = iter(words)
    for word in iterator:
        if word == option:
            value = next(iterator, None)
            if value is None or value.startswith("--"):
                raise ValueError(f"{option} needs a value")
            values.append(value)
        elif word.startswith(f"{option}="):
            values.append(word.partition("=")[2])
        else:
            rest.append(word)
    return rest, values


def _typed(verb: Callable[..., None], objective: ObjectiveOptions, recipe: Recipe | None) -> Callable[..., None]:
    """The verb with the chosen objective's options as type and the chosen recipe as defaults, for tyro to read."""

    @wraps(verb)
    def typed(*positional: Any, **named: Any) -> None:
        verb(*positional, **named)

    chosen = {"objective": objective if recipe is None else recipe.objective}
    if recipe is not None:
        chosen |= {name: getattr(recipe, name) for name in ("data", "backbone", "training")}
    signature = inspect.signature(verb)
    parameters = [
        one.replace(kind=inspect.Parameter.KEYWORD_ONLY, default=chosen[one.name], annotation=type(chosen[one.name]))
        if one.name in chosen
        else one
        for one in signature.parameters.values()
    ]
    typed.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    typed.__annotations__ = {**get_type_hints(verb), "objective": type(chosen["objective"])}
    return typed
