"""Parsing: typed options from the recipe's dataclasses. Which they are follows from the data that is named."""

import inspect
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module
from typing import Any, get_type_hints

import tyro

import ncmi
from ncmi.cli import slides, verbs
from ncmi.data.kinds import kind_of
from ncmi.objectives.options import ObjectiveOptions, objective_names, objective_options
from ncmi.recipes import DATA, BagNetwork, Kind, Network, default_training, named_recipe, recipe_names

_DESCRIPTION = f"""ncmi {ncmi.__version__}: train and judge classifiers by normalized conditional mutual information.

DATA is a name (digits, wine, breast_cancer, iris, cifar10, cifar100), a table, a folder of images, or features of
slides; `ncmi train DATA --help` shows the options of its kind.
Objectives (--objective NAME; its options are --objective.*): {", ".join(objective_names())}.
Recipes (--recipe NAME sets the defaults of train and compare; ncmi recipes tells them): {", ".join(recipe_names())}.
Start with: ncmi compare digits"""
_SLIDES = """From a folder of slides to features of their patches, a look at a cohort, and simulated cohorts.

Then, as for other data: ncmi train FEATURES --data.labels labels.csv, compare, evaluate, predict, report."""

_CONFIG = (tyro.conf.PositionalRequiredArgs, tyro.conf.FlagCreatePairsOff)


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and carry out the verb; tyro exits with 2 where they cannot be parsed."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words in (["--version"], ["-V"]):
        print(f"ncmi {ncmi.__version__}")
        return
    verbs.COMMAND[:] = ["ncmi", *words]
    words, modules = _take(words, "--imports")
    for module in modules:
        try:
            import_module(module)
        except ImportError as error:
            raise ValueError(f"--imports {module}: {error}: is it installed, or its folder in PYTHONPATH?") from error
    verbs.IMPORTS[:] = modules
    words, recipes = _take(words, "--recipe")
    words, names = _take(words, "--objective")
    if words[:1] == ["slides"]:
        table, prog, description, words = slides.VERBS, "ncmi slides", _SLIDES, words[1:]
    else:
        prog, description = "ncmi", _DESCRIPTION
        defaults = _defaults(words, recipes[-1] if recipes else None, names[-1] if names else None)
        table = verbs.VERBS | {name: _typed(verbs.VERBS[name], defaults) for name in ("compare", "train")}
        table["slides"] = _slides
    if words[:1] and words[0] in table:  # the verb alone: its errors name options as they are typed
        tyro.cli(table[words[0]], prog=f"{prog} {words[0]}", args=words[1:], config=_CONFIG)
    else:
        tyro.extras.subcommand_cli_from_dict(table, prog=prog, description=description, args=words, config=_CONFIG)


def _slides() -> None:
    """Whole-slide images: tile, embed, check, simulate; ncmi slides --help tells them."""
    raise AssertionError("handled before it is parsed")


def _defaults(words: list[str], recipe_name: str | None, objective: str | None) -> dict[str, Any]:
    """Type and default of each section of the recipe: by the named recipe, else by the kind of the data."""
    recipe = None if recipe_name is None else named_recipe(recipe_name)
    options: ObjectiveOptions = objective_options(objective or "ncmi")()
    if recipe is not None:
        if objective in (None, recipe.objective.name):
            options = recipe.objective
        return {"data": recipe.data, "network": recipe.network, "objective": options, "training": recipe.training}
    kind = _kind_of_data(words)
    return {
        "data": DATA[kind],
        "network": BagNetwork() if kind == "bags" else Network(),
        "objective": options,
        "training": default_training(kind),
    }


def _kind_of_data(words: list[str]) -> Kind:
    """The kind of the data that ``train`` or ``compare`` is given; images where none is named, as for --help."""
    if words[:1] not in (["train"], ["compare"]):
        return "image"
    folder = next((_take(words, option)[1] for option in ("--data.data-dir", "--data.data_dir")), [])
    places = [place for place, word in enumerate(words) if place and not word.startswith("-")]
    # first behind the verb, or no value of an option before it; else a flag may stand before it
    names = [words[place] for place in places if place == 1 or not words[place - 1].startswith("--")]
    names = names or [words[place] for place in places]
    for number, name in enumerate(names, 1):
        try:
            return kind_of(name, folder[-1] if folder else None)
        except (ValueError, OSError):
            # a value of an option may stand where the data does
            if number == len(names) and not {"-h", "--help"} & set(words):
                raise
    return "image"


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


def _typed(verb: Callable[..., None], defaults: dict[str, Any]) -> Callable[..., None]:
    """The verb with the sections of the recipe as types and defaults, for tyro to read."""

    @wraps(verb)
    def typed(*positional: Any, **named: Any) -> None:
        verb(*positional, **named)

    signature = inspect.signature(verb)
    types = get_type_hints(verb)
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.name in defaults:
            default = defaults[parameter.name]
            types[parameter.name] = default if isinstance(default, type) else type(default)
            if isinstance(default, type):  # the data that is named
                parameter = parameter.replace(annotation=default)
            else:
                keyword = inspect.Parameter.KEYWORD_ONLY
                parameter = parameter.replace(kind=keyword, default=default, annotation=type(default))
        parameters.append(parameter)
    typed.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    typed.__annotations__ = types
    del typed.__wrapped__  # or its types would be read in place of these
    return typed
