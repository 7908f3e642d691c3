"""Default backbone and training by shape and size of the data, the same for every objective."""

from __future__ import annotations

import math

from ncmi.recipes.recipe import Backbone, Training

_STEPS = 1200  # optimiser steps of a default run on small data, whatever its number of samples
_FLAT = 256  # images of no more values than this (digits: 8×8) are small enough for a perceptron


def default_backbone(sample_shape: tuple[int, ...]) -> Backbone:
    """A small network for samples of this shape: ``(F,)`` or ``(channels, H, W)``."""
    if len(sample_shape) == 1 or math.prod(sample_shape) <= _FLAT:
        return Backbone("mlp")
    return Backbone("convnet", width=32, depth=3, feature_dim=128)


def default_training(num_train: int, **changes: object) -> Training:
    """Epochs and batch size for the number of training samples; ``changes`` are fields of :class:`Training`."""
    batch_size = 64 if num_train >= 512 else 32
    steps_per_epoch = max(1, num_train // batch_size)
    epochs = min(100, max(40, round(_STEPS / steps_per_epoch)))
    return Training(**{"batch_size": batch_size, "epochs": epochs, **changes})  # type: ignore[arg-type]
