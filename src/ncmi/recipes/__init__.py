"""Recipes: everything that defines a run, as frozen dataclasses. This package imports no torch."""

from ncmi.recipes.defaults import default_backbone, default_training
from ncmi.recipes.recipe import Augmentation, Backbone, Data, Recipe, Training
from ncmi.recipes.serialise import recipe_from_dict, recipe_to_dict

__all__ = [
    "Augmentation",
    "Backbone",
    "Data",
    "Recipe",
    "Training",
    "default_backbone",
    "default_training",
    "recipe_from_dict",
    "recipe_to_dict",
]
