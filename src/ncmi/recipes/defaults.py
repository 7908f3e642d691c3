"""What a recipe leaves open, settled by shape and size of the data, and by what the objective does with features."""

import math
from dataclasses import replace
from typing import Literal

from ncmi.recipes.data import BagData
from ncmi.recipes.networks import TIMM, BagNetwork, Network
from ncmi.recipes.recipe import Recipe, Training

_STEPS = 1200  # optimizer steps of a default run on small data, whatever its number of samples
_FLAT = 256  # images of no more values than this (digits: 8×8) are small enough for a perceptron
_RESIDUAL = ("resnet9", "resnet9_early", "resnet18", "resnet34", "resnet50", "resnet101")
# width, depth
_USUAL = {"mlp": (256, 2), "convnet": (32, 3), "resnet_small": (32, 1)} | dict.fromkeys(_RESIDUAL, (64, 0))
_STEMMED = ("resnet18", "resnet34", "resnet50", "resnet101")
_LARGE = 96  # pixels of the shorter side from which ImageNet's stem, which divides it by 4, is the usual one
_RECTIFIED = ("abmil", "mean", "max")  # bag networks whose vector is a mean of rectified values
# D of the networks whose feature is their last stage, in multiples of the width
_STAGED = {"resnet_small": 4, "resnet50": 32, "resnet101": 32} | dict.fromkeys(
    ("resnet9", "resnet9_early", "resnet18", "resnet34"), 8
)


def resolve_network(network: Network, sample_shape: tuple[int, ...], num_classes: int) -> Network:
    """The network with name, width, depth and feature width settled for samples ``(F,)`` or ``(channels, H, W)``."""
    name = network.name
    if name == "auto":
        name = "mlp" if len(sample_shape) == 1 or math.prod(sample_shape) <= _FLAT else "convnet"
    usual_width, usual_depth = _USUAL.get(name, (0, 0))
    if name.startswith(TIMM):  # its width is known to timm alone
        return network
    stem = network.stem
    if stem == "auto" and name in _STEMMED and len(sample_shape) == 3:
        stem = "large" if min(sample_shape[1:]) >= _LARGE else "small"
    width = network.width or usual_width
    # axis anchors need D ≥ C
    usual_dim = width * _STAGED[name] if name in _STAGED else max(128, 64 * math.ceil(num_classes / 64))
    depth, feature_dim = network.depth or usual_depth, network.feature_dim or usual_dim
    return replace(network, name=name, width=width, depth=depth, feature_dim=feature_dim, stem=stem)


def bag_network_width(instance_dim: int) -> int:
    """d of a bag network's first layer: 128 for instance features up to 384 wide, 256 up to 512, else 512."""
    return 128 if instance_dim <= 384 else 256 if instance_dim <= 512 else 512


def takes_common_length(recipe: Recipe) -> bool:
    """Whether NCMI divides features by one length for all where its options leave that open.

    So it does better for perceptrons and bag networks. For residual networks, whose features are averages of rectified
    maps, and for SGD, whose steps do not follow the scale of features, it learns more slowly (docs/findings.md).
    """
    name = recipe.network.name
    is_free = isinstance(recipe.network, BagNetwork) or name in ("mlp", "convnet")
    return is_free and recipe.training.optimizer == "adamw"


def resolve_recipe(recipe: Recipe, sample_shape: tuple[int, ...], num_classes: int, num_train: int) -> Recipe:
    """The recipe with everything settled that it leaves open: this is what a run folder holds.

    Args:
        recipe: as it was asked for.
        sample_shape: ``(F,)`` of a table, ``(channels, H, W)`` of images, ``(D_feat,)`` of the instances of bags.
        num_classes: C.
        num_train: samples of the training part.

    Raises:
        ValueError: for settings that bags do not have.
    """
    if isinstance(recipe.network, BagNetwork):
        network = replace(
            recipe.network,
            width=recipe.network.width or bag_network_width(sample_shape[0]),
            output_layer=_output_layer(recipe),
        )
        return _settled(replace(recipe, network=network, training=_resolve_bag_training(recipe)))
    training = recipe.training
    batch_size = training.batch_size or (64 if num_train >= 512 else 32)
    steps_per_epoch = max(1, math.ceil(num_train / batch_size))
    epochs = training.epochs or min(100, max(40, round(_STEPS / steps_per_epoch)))
    return _settled(
        replace(
            recipe,
            network=resolve_network(recipe.network, sample_shape, num_classes),
            training=replace(training, batch_size=batch_size, epochs=epochs),
        )
    )


def _output_layer(recipe: Recipe) -> Literal["none", "linear"]:
    network = recipe.network
    assert isinstance(network, BagNetwork)
    if network.output_layer != "auto":
        return network.output_layer
    # centroids in a space of which features reach one corner alone have little room; other losses have a linear head
    return "linear" if recipe.objective.compares_features and network.name in _RECTIFIED else "none"


def _settled(recipe: Recipe) -> Recipe:
    return replace(recipe, objective=recipe.objective.settled(common_length=takes_common_length(recipe)))


def _resolve_bag_training(recipe: Recipe) -> Training:
    training = recipe.training
    assert isinstance(recipe.data, BagData)
    if training.augmentation.enabled or training.compile or training.image_sizes:
        raise ValueError(
            "slide classifiers have neither augmentation nor compile nor image sizes: leave --training.augmentation, "
            "--training.compile and --training.image-sizes out"
        )
    if training.readouts == "own":
        raise ValueError("slides are judged by all read-outs, side by side: leave --training.readouts out")
    if recipe.data.validation_fraction == 0 and (training.selection == "best" or training.patience is not None):
        has_own = recipe.data.splits is not None or recipe.data.split_column is not None
        if not has_own or recipe.data.folds:
            raise ValueError(
                "validation_fraction=0 leaves nothing to select by: give --training.selection last, without patience"
            )
    return replace(training, epochs=training.epochs or 50, batch_size=training.batch_size or training.devices)
