"""Weights of a network from a file, and to the names of other code bases.

Residual networks have the names of torchvision. Those of the usual code bases for CIFAR are mapped to them (S from 1 is
the stage, B from 0 the block in it, N from 1 the layer in that; what follows, such as ``.weight``, stays):

=============================  =======================================  =====================================
here, torchvision, timm        kuangliu/pytorch-cifar                   weiaicunzai/pytorch-cifar100
=============================  =======================================  =====================================
``conv1``, ``bn1``             the same                                 ``conv1.0``, ``conv1.1``
``layerS.B.convN``             the same                                 ``conv{S+1}_x.B.residual_function.{3N-3}``
``layerS.B.bnN``               the same                                 ``conv{S+1}_x.B.residual_function.{3N-2}``
``layerS.B.downsample.0, .1``  ``layerS.B.shortcut.0, .1``              ``conv{S+1}_x.B.shortcut.0, .1``
no classifier (there ``fc``)   ``linear``                               ``fc``
=============================  =======================================  =====================================

All of them expect images that are standardised by the channels' mean and standard deviation, as here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ncmi.backbones.resnet import ResNet
from ncmi.backbones.weight_files import read_weights, strip_prefixes

Style = Literal["torchvision", "pytorch-cifar", "pytorch-cifar100"]

_CLASSIFIERS = ("fc", "linear", "head", "classifier")
_COUNTER = "num_batches_tracked"  # by batch normalisation; files of before PyTorch 0.4.1 have none
_SHOWN = 3  # names in an error


def load_weights(backbone: nn.Module, path: str | Path) -> list[str]:
    """Put the weights of a file into a network: all of them or, after an error, none.

    Args:
        backbone: any network for a file with its own names; a :class:`ResNet` for the names above too.
        path: of a safetensors file (also ``model.safetensors`` of a run folder), or one that ``torch.save`` wrote with
            a ``state_dict()``, of which nothing is run: objects in it are an error.

    Returns:
        The names in the file that were left out: the classifier, and what stands beside the backbone in a larger model.

    Raises:
        ValueError: if the file is missing, damaged or holds objects; or if a name, shape or type in it does not fit.
    """
    own = backbone.state_dict()
    found, left_out = strip_prefixes(read_weights(Path(path)), own)
    state: dict[str, Tensor] = {}
    unknown = []
    for name, value in found.items():
        ours = name if name in own or not isinstance(backbone, ResNet) else _our_name(name)
        if ours in state:
            raise ValueError(f"{path}: {name} is in it under two names, both for {ours}: remove one of them")
        if ours in own:
            _check_tensor(path, name, value, own[ours])
            state[ours] = value
        elif name.split(".")[0] in _CLASSIFIERS:
            left_out.append(name)
        else:
            unknown.append(name)
    missing = [name for name in own if name not in state and not name.endswith(_COUNTER)]
    if missing or unknown:
        lacks = f"it lacks {_listed(missing)}" if missing else ""
        more = f"the network does not have {_listed(unknown)}" if unknown else ""
        raise ValueError(
            f"{path}: not weights of this network: {' and '.join(filter(None, (lacks, more)))}: "
            "choose the backbone, width and depth that they were trained with"
        )
    backbone.load_state_dict({**own, **state})
    return left_out


def export_weights(backbone: nn.Module, style: Style = "torchvision") -> dict[str, Tensor]:
    """Copies of a network's weights and buffers on the CPU, under the names of a code base; without a classifier.

    Raises:
        ValueError: for a style that is unknown, or that has no names for the network.

    Example:
        >>> from ncmi.backbones import make_backbone
        >>> from ncmi.recipes import Backbone
        >>> net = make_backbone(Backbone("resnet_small", width=8, depth=1, feature_dim=32), (3, 8, 8))
        >>> [name for name in export_weights(net, "pytorch-cifar100") if name.startswith("conv3_x.0.shortcut.0")]
        ['conv3_x.0.shortcut.0.weight']
    """
    if style not in ("torchvision", "pytorch-cifar", "pytorch-cifar100"):
        raise ValueError(f"unknown style {style!r}: use 'torchvision', 'pytorch-cifar' or 'pytorch-cifar100'")
    if style != "torchvision" and not isinstance(backbone, ResNet):
        raise ValueError(
            f"{style} has no names for a {type(backbone).__name__}: use 'torchvision', which keeps its own"
        )
    return {
        _their_name(name, style): value.detach().clone(memory_format=torch.contiguous_format).cpu()
        for name, value in backbone.state_dict().items()
    }


def _our_name(name: str) -> str:
    name = re.sub(r"^conv1\.0\.", "conv1.", name)
    name = re.sub(r"^conv1\.1\.", "bn1.", name)
    name = re.sub(r"^conv(\d+)_x\.", lambda found: f"layer{int(found[1]) - 1}.", name)
    name = re.sub(r"\.residual_function\.(\d+)\.", lambda found: f".{_layer(int(found[1]))}.", name)
    return name.replace(".shortcut.", ".downsample.")


def _layer(place: int) -> str:
    """The layer at a place of convolution, normalisation, ReLU, convolution, …"""
    return f"{('conv', 'bn', 'relu')[place % 3]}{place // 3 + 1}"


def _their_name(name: str, style: Style) -> str:
    if style != "torchvision":
        name = name.replace(".downsample.", ".shortcut.")
    if style == "pytorch-cifar100":
        name = re.sub(r"^(conv|bn)1\.", lambda found: "conv1.0." if found[1] == "conv" else "conv1.1.", name)
        name = re.sub(r"^layer(\d+)\.", lambda found: f"conv{int(found[1]) + 1}_x.", name)
        first = {"conv": -3, "bn": -2}
        name = re.sub(
            r"\.(conv|bn)(\d)\.", lambda found: f".residual_function.{3 * int(found[2]) + first[found[1]]}.", name
        )
    return name


def _check_tensor(path: str | Path, name: str, value: Tensor, own: Tensor) -> None:
    if value.shape != own.shape:
        cure = "choose the backbone, width and number of channels that it was trained with"
        if name.startswith("conv1.") and value.shape[2:] == (7, 7):
            cure = "networks for ImageNet have this stem; take weights of one with a 3×3 stem, trained on small images"
        raise ValueError(f"{path}: {name} has shape {list(value.shape)}, this network {list(own.shape)}: {cure}")
    if own.is_floating_point() and not (value.is_floating_point() and value.layout == torch.strided):
        raise ValueError(f"{path}: {name} holds {value.dtype} ({value.layout}): save the weights as dense floats")
    if own.is_floating_point() and not bool(value.isfinite().all()):
        raise ValueError(f"{path}: {name} has values that are not finite: the training diverged; take other weights")


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
