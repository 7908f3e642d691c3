"""Whether runs can be made, seen before anything is written: data, splits, networks, objectives, weights, devices."""

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

from ncmi.errors import in_one_line
from ncmi.recipes import Data, Recipe, recipe_from_dict, resolve_recipe
from ncmi.recipes.names import network_label
from ncmi.training.run import build_model
from ncmi.training.session import session
from ncmi.training.sources import Source, load_data, open_source

_LOADED: dict[Data, Any] = {}
_NOT_TUNED = (
    "--tune needs a validation part beside the test part, and there is none: give --data.validation-fraction 0.15, or "
    "rows or files of that part, or leave --tune out"
)


def loaded(recipe: Recipe) -> Any:
    """The data of a recipe, read once a process; it is the same whatever the fold."""
    data = replace(recipe.data, fold=0)
    if data not in _LOADED:
        _LOADED.clear()  # one at a time: they may be large
        _LOADED[data] = load_data(data)
    return _LOADED[data]


def rehearse(contents: dict[str, dict[str, Any]], imports: Sequence[str], tuned: bool = False) -> dict[str, str]:
    """What stands against runs, by their names: nothing where all of them can be made.

    Each different data set is read, each different split drawn, each different network and objective built.

    Args:
        contents: recipes as plain values, by name.
        imports: modules that register objectives or networks of the user's own.
        tuned: whether the runs need a validation part that chooses their learning rates.

    Raises:
        FileNotFoundError, ValueError: where the data cannot be used at all.
    """
    for module in imports:
        import_module(module)
    faults: dict[str, str] = {}
    sources: dict[Any, Source | str] = {}
    models: dict[Any, str] = {}
    too_large: dict[Any, str] = {}  # networks: to see it once takes seconds
    for name, content in contents.items():
        recipe = recipe_from_dict(content)
        training = recipe.training
        data = loaded(recipe)
        split = (recipe.data, recipe.data.seed_of_split(training.seed), training.seed)
        if split not in sources:
            sources = {split: _source(recipe, data)}  # one at a time: they hold copies of labels
        source = sources[split]
        if isinstance(source, str):
            faults[name] = source
            continue
        if tuned and "validation" not in source.parts_to_judge:
            faults[name] = _NOT_TUNED
            continue
        # runs of other seeds and folds have the same model, but for its size where the training part decides
        model = (replace(recipe.data, fold=0), recipe.network, recipe.objective, replace(training, seed=0))
        if model not in models:
            models[model] = too_large.get(recipe.network) or _fault_of_model(recipe, source)
            if models[model].startswith("not enough memory"):
                too_large[recipe.network] = models[model]
        if models[model]:
            faults[name] = models[model]
    return faults


def describe(recipe: Recipe, imports: Sequence[str] = ()) -> list[str]:
    """What is understood of a recipe's data, as it is said before training, and resolved: a line each."""
    for module in imports:
        import_module(module)
    source = open_source(recipe, loaded(recipe))
    record, signature = source.record(), source.signature
    resolved = resolve_recipe(recipe, signature.sample_shape, len(signature.class_names), len(source.split.train))
    training = resolved.training
    how = f"{network_label(resolved.network.name)}, {training.epochs} epochs of batches of {training.batch_size}"
    return [f"{recipe.data.title}: {record.summary}", *record.notes, how]


def _source(recipe: Recipe, data: Any) -> Source | str:
    try:
        return open_source(recipe, data)
    except (ValueError, OSError, ArithmeticError, MemoryError, RuntimeError) as error:
        return in_one_line(error)


def _fault_of_model(recipe: Recipe, source: Source) -> str:
    signature = source.signature
    try:
        with session(recipe.training, alone=True):
            resolved = resolve_recipe(
                recipe, signature.sample_shape, len(signature.class_names), len(source.split.train)
            )
            build_model(resolved, source)
    except (ValueError, OSError, ArithmeticError, MemoryError, RuntimeError, KeyError) as error:
        return in_one_line(error)
    return ""
