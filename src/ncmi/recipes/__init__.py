"""Recipes: everything that defines a run, as frozen dataclasses. This package imports no torch."""

from ncmi.recipes.defaults import resolve_backbone, resolve_recipe
from ncmi.recipes.named import describe_recipe, named_recipe, recipe_names
from ncmi.recipes.recipe import Augmentation, Backbone, Data, Recipe, Training
from ncmi.recipes.serialise import recipe_from_dict, recipe_to_dict, slide_recipe_from_dict
from ncmi.recipes.slides import BagNetwork, NetworkName, SlideData, SlideRecipe, slide_training

__all__ = [
    "Augmentation",
    "Backbone",
    "BagNetwork",
    "Data",
    "NetworkName",
    "Recipe",
    "SlideData",
    "SlideRecipe",
    "Training",
    "describe_recipe",
    "named_recipe",
    "recipe_from_dict",
    "recipe_names",
    "recipe_to_dict",
    "resolve_backbone",
    "resolve_recipe",
    "slide_recipe_from_dict",
    "slide_training",
]
