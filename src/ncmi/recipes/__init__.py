"""Recipes: everything that defines a run, as frozen dataclasses, for every kind of data.

What a recipe leaves open is settled in ``defaults``; ``serialize`` writes and reads it; ``cifar100`` and ``imagenet``
have those of published experiments; ``names`` says what things are called. This package imports no torch.
"""

from ncmi.recipes.data import BagData, Data, ImageData, Kind, SampleData, TableData
from ncmi.recipes.defaults import resolve_network, resolve_recipe
from ncmi.recipes.names import describe_recipe, named_recipe, recipe_names
from ncmi.recipes.networks import BagNetwork, Network
from ncmi.recipes.recipe import Augmentation, Recipe, Training, default_training
from ncmi.recipes.serialize import DATA, recipe_from_dict, recipe_to_dict

__all__ = [
    "DATA",
    "Augmentation",
    "BagData",
    "BagNetwork",
    "Data",
    "ImageData",
    "Kind",
    "Network",
    "Recipe",
    "SampleData",
    "TableData",
    "Training",
    "default_training",
    "describe_recipe",
    "named_recipe",
    "recipe_from_dict",
    "recipe_names",
    "recipe_to_dict",
    "resolve_network",
    "resolve_recipe",
]
