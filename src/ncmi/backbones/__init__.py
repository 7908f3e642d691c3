"""Networks that return features, never logits, made by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ncmi.backbones.convnet import ConvNet
from ncmi.backbones.mlp import MLP
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
    """The network that ``options`` name, for samples of the given shape.

    Raises:
        ValueError: for an unknown name, or a network that does not take such samples.
    """
    if options.name not in _BACKBONES:
        raise ValueError(f"unknown backbone {options.name!r}; known: {', '.join(_BACKBONES)}")
    return _BACKBONES[options.name](sample_shape, options)


register_backbone("mlp", MLP.from_options)
register_backbone("convnet", ConvNet.from_options)

__all__ = ["MLP", "ConvNet", "make_backbone", "register_backbone"]
