"""Networks that return features, never logits, made by name.

``simple`` and ``resnet`` have those of tables and images, ``timm`` takes them from timm, ``bags`` has those of bags,
``weights`` their files.
"""

from collections.abc import Callable

from torch import nn

from ncmi.networks.resnet import ResNet, ResNet9
from ncmi.networks.simple import MLP, ConvNet
from ncmi.networks.timm import make_timm_network
from ncmi.networks.weights import export_weights, load_weights
from ncmi.recipes import Network
from ncmi.recipes.networks import TIMM

_NETWORKS: dict[str, Callable[[tuple[int, ...], Network], nn.Module]] = {}


def register_network(name: str, make: Callable[[tuple[int, ...], Network], nn.Module]) -> None:
    """Make a network known by name: ``make(sample_shape, options)`` returns a module ``[B, *sample_shape] → [B, D]``.

    Raises:
        ValueError: if the name is taken.
    """
    if name in _NETWORKS:
        raise ValueError(f"network {name!r} is registered already; choose another name")
    _NETWORKS[name] = make


def make_network(options: Network, sample_shape: tuple[int, ...]) -> nn.Module:
    """The network that ``options`` name, for samples of the given shape, newly initialized.

    ``options.weights`` is left to whoever starts a training: a network that is made to take up its own trained weights
    does not need the file that it once began with. See :func:`load_weights`.

    Raises:
        ValueError: for an unknown name, or a network that does not take such samples.
    """
    if options.name.startswith(TIMM):
        return make_timm_network(sample_shape, options)
    if options.name not in _NETWORKS:
        raise ValueError(f"unknown network {options.name!r}; known: {', '.join(_NETWORKS)}, and {TIMM}NAME")
    return _NETWORKS[options.name](sample_shape, options)


register_network("mlp", MLP.from_options)
register_network("convnet", ConvNet.from_options)
for _name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet_small"):
    register_network(_name, ResNet.from_options)
for _name in ("resnet9", "resnet9_early"):
    register_network(_name, ResNet9.from_options)

__all__ = ["MLP", "ConvNet", "ResNet", "ResNet9", "export_weights", "load_weights", "make_network", "register_network"]
