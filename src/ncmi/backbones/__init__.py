"""Networks that return features, never logits, made by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ncmi.backbones.convnet import ConvNet
from ncmi.backbones.mlp import MLP
from ncmi.backbones.resnet import ResNet
from ncmi.backbones.resnet9 import ResNet9
from ncmi.backbones.weights import export_weights, load_weights
from ncmi.recipes import Backbone

_BACKBONES: dict[str, Callable[[tuple[int, ...], Backbone], nn.Module]] = {}


def register_backbone(name: str, make: Callable[[tuple[int, ...], Backbone], nn.Module]) -> None:
    """Make a backbone known by name: ``make(sample_shape, options)`` returns a module ``[B, *sample_shape] → [B, D]``.

    Raises:
        ValueError: if the name is taken.
    """
    if name in _BACKBONES:
        raise ValueError(f"backbone {name!r} is registered already; choose another name")
    _BACKBONES[name] = make


def make_backbone(options: Backbone, sample_shape: tuple[int, ...]) -> nn.Module:
    """The network that ``options`` name, for samples of the given shape, newly initialised.

    ``options.weights`` is left to whoever starts a training: a network that is made to take up its own trained weights
    does not need the file that it once began with. See :func:`load_weights`.

    Raises:
        ValueError: for an unknown name, or a network that does not take such samples.
    """
    if options.name not in _BACKBONES:
        raise ValueError(f"unknown backbone {options.name!r}; known: {', '.join(_BACKBONES)}")
    return _BACKBONES[options.name](sample_shape, options)


register_backbone("mlp", MLP.from_options)
register_backbone("convnet", ConvNet.from_options)
for _name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet_small"):
    register_backbone(_name, ResNet.from_options)
register_backbone("resnet9", ResNet9.from_options)

__all__ = [
    "MLP",
    "ConvNet",
    "ResNet",
    "ResNet9",
    "export_weights",
    "load_weights",
    "make_backbone",
    "register_backbone",
]
