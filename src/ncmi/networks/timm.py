"""Networks of timm (PyTorch Image Models) as backbones: ``timm:NAME``, without their classifier."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from ncmi.networks.resnet import check_images, check_no_residual_options
from ncmi.recipes.networks import TIMM, Network


def make_timm_network(sample_shape: tuple[int, ...], options: Network) -> nn.Module:
    """timm's network of a recipe, newly initialized: ``[B, channels, H, W] → [B, D]``, in float32 at least.

    It has timm's own names, so that timm's checkpoints load by ``options.weights``, without their classifier; nothing
    is fetched. ``feature_dim`` is D. Images go through it with the channels last in memory.

    Raises:
        ValueError: where timm is not installed, does not make the network, or options are given that it does not have.
    """
    check_images(sample_shape, options)
    check_no_residual_options(options)
    if options.width or options.depth or options.feature_dim:
        raise ValueError(
            f"width={options.width}, depth={options.depth}, feature_dim={options.feature_dim}: those of {options.name} "
            "are in its name; leave them out"
        )
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"network {options.name} needs timm ({error}): pip install timm") from None
    try:
        network: Any = timm.create_model(
            options.name.removeprefix(TIMM), pretrained=False, num_classes=0, in_chans=sample_shape[0]
        )
    except (RuntimeError, TypeError, ValueError) as error:
        said = re.sub(r"\s+", " ", str(error))
        raise ValueError(f"network {options.name}: {said}: timm.list_models() lists the names") from None
    # of networks with a layer between their maps and their classifier it is that layer's
    network.feature_dim = getattr(network, "head_hidden_size", None) or network.num_features
    network.register_forward_pre_hook(_with_channels_last)
    network.register_forward_hook(_in_float32)
    made: nn.Module = network.to(memory_format=torch.channels_last)
    return made


def _with_channels_last(network: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].contiguous(memory_format=torch.channels_last),)


def _in_float32(network: nn.Module, inputs: tuple[Tensor], features: Tensor) -> Tensor:
    return features.to(torch.promote_types(features.dtype, torch.float32))
