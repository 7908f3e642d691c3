"""What a recipe leaves open, settled by shape and size of the data, alike for every objective."""

from __future__ import annotations

import math
from dataclasses import replace

from ncmi.recipes.recipe import Backbone, Recipe

_STEPS = 1200  # optimiser steps of a default run on small data, whatever its number of samples
_FLAT = 256  # images of no more values than this (digits: 8×8) are small enough for a perceptron
_RESIDUAL = ("resnet9", "resnet18", "resnet34", "resnet50", "resnet101")
# width, depth
_USUAL = {"mlp": (256, 2), "convnet": (32, 3), "resnet_small": (32, 1)} | dict.fromkeys(_RESIDUAL, (64, 0))
# D of the networks whose feature is their last stage, in multiples of the width
_STAGED = {"resnet_small": 4, "resnet9": 8, "resnet18": 8, "resnet34": 8, "resnet50": 32, "resnet101": 32}


def resolve_backbone(backbone: Backbone, sample_shape: tuple[int, ...], num_classes: int) -> Backbone:
    """The backbone with name, width, depth and feature width settled for samples ``(F,)`` or ``(channels, H, W)``."""
    name = backbone.name
    if name == "auto":
        name = "mlp" if len(sample_shape) == 1 or math.prod(sample_shape) <= _FLAT else "convnet"
    usual_width, usual_depth = _USUAL.get(name, (0, 0))
    width = backbone.width or usual_width
    # axis anchors need D ≥ C
    usual_dim = width * _STAGED[name] if name in _STAGED else max(128, 64 * math.ceil(num_classes / 64))
    return replace(
        backbone,
        name=name,
        width=width,
        depth=backbone.depth or usual_depth,
        feature_dim=backbone.feature_dim or usual_dim,
    )


def resolve_recipe(recipe: Recipe, sample_shape: tuple[int, ...], num_classes: int, num_train: int) -> Recipe:
    """The recipe with everything settled that it leaves open: this is what a run folder holds."""
    training = recipe.training
    batch_size = training.batch_size or (64 if num_train >= 512 else 32)
    steps_per_epoch = max(1, math.ceil(num_train / batch_size))
    epochs = training.epochs or min(100, max(40, round(_STEPS / steps_per_epoch)))
    return replace(
        recipe,
        backbone=resolve_backbone(recipe.backbone, sample_shape, num_classes),
        training=replace(training, batch_size=batch_size, epochs=epochs),
    )
