"""Weights of a network: from files (safetensors, or PyTorch's own without objects), and to others' names.

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

All of them expect images that are standardized by the channels' mean and standard deviation, as here. Checkpoints of
torchvision's own ResNets, trained on ImageNet, are for the large stem.
"""

import pickle
import re
import warnings
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ncmi.errors import listing
from ncmi.networks.resnet import ResNet

Style = Literal["torchvision", "pytorch-cifar", "pytorch-cifar100"]

_CLASSIFIERS = ("fc", "linear", "head", "classifier")
_COUNTER = "num_batches_tracked"  # by batch normalization; files of before PyTorch 0.4.1 have none
_SHOWN = 3  # names in an error
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
# of a run's own file; of data-parallel and compiled networks; of networks inside a larger model
_PREFIXES = ("/model/network.", "module.", "_orig_mod.", "model.", "net.", "network.", "encoder.")
_SAVE = "save_file(model.state_dict(), 'weights.safetensors') of safetensors.torch"


def load_weights(network: nn.Module, path: str | Path) -> list[str]:
    """Put the weights of a file into a network: all of them or, after an error, none.

    Args:
        network: any network for a file with its own names; a :class:`ResNet` for the names above too.
        path: of a safetensors file (also ``model.safetensors`` of a run folder), or one that ``torch.save`` wrote with
            a ``state_dict()``, of which nothing is run: objects in it are an error.

    Returns:
        The names in the file that were left out: the classifier, and what stands beside the network in a larger model.

    Raises:
        ValueError: if the file is missing, damaged or holds objects; or if a name, shape or type in it does not fit.
    """
    current = network.state_dict()
    tensors, left_out = strip_prefixes(read_weights(Path(path)), current)
    state: dict[str, Tensor] = {}
    unknown = []
    for name, value in tensors.items():
        ours = name if name in current or not isinstance(network, ResNet) else _our_name(name)
        if ours in state:
            raise ValueError(f"{path}: {name} is in it under two names, both for {ours}: remove one of them")
        if ours in current:
            _check_tensor(path, name, value, current[ours])
            state[ours] = value
        elif name.split(".")[0] in _CLASSIFIERS:
            left_out.append(name)
        else:
            unknown.append(name)
    missing = [name for name in current if name not in state and not name.endswith(_COUNTER)]
    if missing or unknown:
        lacks = f"it lacks {listing(missing, _SHOWN)}" if missing else ""
        more = f"the network does not have {listing(unknown, _SHOWN)}" if unknown else ""
        raise ValueError(
            f"{path}: not weights of this network: {' and '.join(filter(None, (lacks, more)))}: "
            "choose the network, width and depth that they were trained with"
        )
    network.load_state_dict({**current, **state})
    return left_out


def export_weights(network: nn.Module, style: Style = "torchvision") -> dict[str, Tensor]:
    """Copies of a network's weights and buffers on the CPU, under the names of a code base; without a classifier.

    Raises:
        ValueError: for a style that is unknown, or that has no names for the network.

    Example:
        >>> from ncmi.networks import make_network
        >>> from ncmi.recipes import Network
        >>> net = make_network(Network("resnet_small", width=8, depth=1, feature_dim=32), (3, 8, 8))
        >>> [name for name in export_weights(net, "pytorch-cifar100") if name.startswith("conv3_x.0.shortcut.0")]
        ['conv3_x.0.shortcut.0.weight']
    """
    if style not in ("torchvision", "pytorch-cifar", "pytorch-cifar100"):
        raise ValueError(f"unknown style {style!r}: use 'torchvision', 'pytorch-cifar' or 'pytorch-cifar100'")
    if style != "torchvision" and not isinstance(network, ResNet):
        raise ValueError(f"{style} has no names for a {type(network).__name__}: use 'torchvision', which keeps its own")
    return {
        _their_name(name, style): value.detach().clone(memory_format=torch.contiguous_format).cpu()
        for name, value in network.state_dict().items()
    }


def _our_name(name: str) -> str:
    name = re.sub(r"^conv1\.0\.", "conv1.", name)
    name = re.sub(r"^conv1\.1\.", "bn1.", name)
    name = re.sub(r"^conv(\d+)_x\.", lambda match: f"layer{int(match[1]) - 1}.", name)
    name = re.sub(r"\.residual_function\.(\d+)\.", lambda match: f".{_layer(int(match[1]))}.", name)
    return name.replace(".shortcut.", ".downsample.")


def _layer(place: int) -> str:
    """The layer at a place of convolution, normalization, ReLU, convolution, …"""
    return f"{('conv', 'bn', 'relu')[place % 3]}{place // 3 + 1}"


def _their_name(name: str, style: Style) -> str:
    if style != "torchvision":
        name = name.replace(".downsample.", ".shortcut.")
    if style == "pytorch-cifar100":
        name = re.sub(r"^(conv|bn)1\.", lambda match: "conv1.0." if match[1] == "conv" else "conv1.1.", name)
        name = re.sub(r"^layer(\d+)\.", lambda match: f"conv{int(match[1]) + 1}_x.", name)
        first = {"conv": -3, "bn": -2}
        name = re.sub(
            r"\.(conv|bn)(\d)\.", lambda match: f".residual_function.{3 * int(match[2]) + first[match[1]]}.", name
        )
    return name


def _check_tensor(path: str | Path, name: str, value: Tensor, current: Tensor) -> None:
    if value.shape != current.shape:
        cure = "choose the network, width and number of channels that it was trained with"
        if name.startswith("conv1.") and value.shape[2:] != current.shape[2:]:
            stem = "large" if value.shape[2:] == (7, 7) else "small"
            cure = f"they were trained with another stem: give stem={stem}"
        raise ValueError(f"{path}: {name} has shape {list(value.shape)}, this network {list(current.shape)}: {cure}")
    if current.is_floating_point() and not (value.is_floating_point() and value.layout == torch.strided):
        raise ValueError(f"{path}: {name} holds {value.dtype} ({value.layout}): save the weights as dense floats")
    if current.is_floating_point() and not bool(value.isfinite().all()):
        raise ValueError(f"{path}: {name} has values that are not finite: the training diverged; take other weights")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a file by name, on the CPU: a ``.safetensors`` file, or one that ``torch.save`` wrote.

    Weights inside ``{"state_dict": …}`` or the like are found.

    Raises:
        ValueError: if the file is missing, damaged, or holds objects: they are never made, so nothing of it is run.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file: give a .safetensors or .pth file with weights")
    content: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    while isinstance(content, Mapping):
        inner = [content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path}: holds no weights by name: write them by {_SAVE}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{path}: {name!r} is a {type(value).__name__}, no tensor: write the file by {_SAVE}")
    return dict(content)


def strip_prefixes(tensors: dict[str, Tensor], names: Container[str]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the network in a larger model, with prefixes as ``module.`` or ``network.`` cut off their names.

    Args:
        tensors: by name.
        names: of the network; nothing is cut off where one of them is there.

    Returns:
        Those tensors, and the names of the others.
    """
    others: list[str] = []
    cut = ""
    while not any(name in names for name in tensors):
        prefix = next((prefix for prefix in _PREFIXES if any(name.startswith(prefix) for name in tensors)), None)
        if prefix is None:
            break
        others += [cut + name for name in tensors if not name.startswith(prefix)]
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        cut += prefix
    return tensors, others


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path}: damaged ({error}): restore the file or fetch it again") from None


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats, before the error that says more
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # it is read by an interpreter of its own, which fails on damage in as many ways as there are bytes
        match = re.search(r"GLOBAL ([\w.]+)|TorchScript", str(error))
        if isinstance(error, pickle.UnpicklingError | RuntimeError) and match:
            what = match[1] or "a TorchScript program"
            raise ValueError(
                f"{path}: holds objects ({what}), not weights alone, and was not read, since they could run anything: "
                f"where you trust it, write its weights by {_SAVE}"
            ) from None
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"{path}: damaged, or no file of weights ({reason}): fetch it again, or write it by {_SAVE}"
        ) from None
