"""Residual networks with weights of a local file, of ImageNet's form or of that for small images."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from ncmi.backbones import load_weights
from ncmi.backbones.resnet import ResNet
from ncmi.backbones.weight_files import read_weights, strip_prefixes
from ncmi.recipes import Backbone
from ncmi.recipes.defaults import resolve_backbone
from ncmi.slides.embedding.encoder import EncoderError, EncoderOptions
from ncmi.slides.embedding.network import NetworkEncoder
from ncmi.slides.embedding.preparation import Preparation

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
_STEM, _STEM_AS_PUBLISHED = "conv1.weight", "conv1.0.weight"
_IMAGENET = 224


def make_resnet(name: str, layer: str, options: EncoderOptions) -> NetworkEncoder:
    """An encoder of ResNet-18, -34, -50 or -101: torchvision's or timm's for ImageNet, or one of :mod:`ncmi.backbones`.

    Which of the two forms it is, and how wide, the file's first convolution says: 7×7 for ImageNet, 3×3 for small
    images. Names of weights are those of :mod:`ncmi.backbones.weights`.

    Args:
        name: of :data:`RESNETS`.
        layer: ``"layer3"`` for the mean over the third stage (1024 values of ResNet-50, as CLAM takes them), ``""``
            for all stages.
        options: with ``weights``. The image size is 224 for ImageNet's form by default, and must be given for the
            other; colours are normalised by ImageNet's mean and standard deviation by default.

    Raises:
        ValueError: if the file is missing, damaged or holds another network; or an option is missing.
    """
    options.refuse(name, "extra")
    if options.weights is None:
        raise EncoderError(f"{name} has no weights: give weights=, a .safetensors or .pth file, or use 'descriptor'")
    if options.weights.is_dir():
        raise EncoderError(f"{options.weights} is a folder: for a run of ncmi use 'run'; else give a file of weights")
    if layer not in ("", "layer1", "layer2", "layer3", "layer4"):
        raise EncoderError(f"{name}:{layer}: no such stage: use {name}, or {name}:layer3 for its third stage's mean")
    stem = _stem(options.weights)
    size, width = stem.shape[2], stem.shape[0]
    if size != 7 and options.image_size is None:
        raise EncoderError(
            f"{options.weights}: a network for small images (its first convolution is {size}×{size}), which does not "
            "say their size: give image_size=, that of its training images, such as 32"
        )
    network = ResNet.from_options((3, 8, 8), resolve_backbone(Backbone(name, width=width), (3, 8, 8), 2))
    if size == 7:
        # as published for ImageNet: a coarse first convolution, then pooling
        network.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        network.relu = nn.Sequential(nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))  # type: ignore[assignment]
    load_weights(network, options.weights)
    for number in range(int(layer.removeprefix("layer") or 4) + 1, 5):
        delattr(network, f"layer{number}")
    preparation = Preparation.of(options, _IMAGENET if size == 7 else None)
    return NetworkEncoder(f"{name}:{layer}" if layer else name, network, preparation, options.device)


def _stem(path: Path) -> Tensor:
    """The weights of the first convolution, ``[width, 3, size, size]``."""
    found = read_weights(path)
    if any(name.startswith("/model/") for name in found):
        raise EncoderError(f"{path}: the model of a run of ncmi: use 'run' with the run's folder as weights")
    inner, _ = strip_prefixes(found, (_STEM, _STEM_AS_PUBLISHED))
    stem = inner.get(_STEM, inner.get(_STEM_AS_PUBLISHED))
    if stem is None or stem.ndim != 4 or stem.shape[1] != 3:
        what = "no conv1.weight" if stem is None else f"conv1.weight of shape {list(stem.shape)}"
        raise EncoderError(f"{path}: {what}: no residual network of colour images: choose another file or encoder")
    return stem
