"""Torch networks as encoders: residual networks of a file, the network of a run, any model of timm."""

import ast
import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ncmi.errors import reason
from ncmi.networks import load_weights
from ncmi.networks.resnet import ResNet
from ncmi.networks.weights import read_weights, strip_prefixes
from ncmi.recipes import Network
from ncmi.recipes.defaults import resolve_network
from ncmi.slides.embedding.encoder import Encoder, EncoderError, EncoderOptions, Preparation

_PROBE = 64  # pixels of the patch that asks a network for its width, where it takes any size
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
_STEM, _STEM_AS_PUBLISHED = "conv1.weight", "conv1.0.weight"
_IMAGENET = 224


class NetworkEncoder(Encoder):
    """A network ``[B, 3, S, S] → [B, D]`` without classifier, in evaluation mode; on a GPU in half precision.

    Raises:
        EncoderError: if there is no such device, or the network returns something else.
    """

    def __init__(self, name: str, network: nn.Module, preparation: Preparation, device: str = "cpu") -> None:
        self.name, self.image_size = name, preparation.size
        self.version = f"sha256:{weights_hash(network)}, {preparation}"
        self._prepare = preparation
        self._device = _device(device)
        self._network = network.eval().to(self._device)
        side = preparation.size or _PROBE
        self.feature_dim = int(self.encode(torch.zeros(1, side, side, 3, dtype=torch.uint8)).shape[1])

    @torch.inference_mode()
    def encode(self, patches: Tensor) -> Tensor:
        images = self._prepare(patches.to(self._device))
        try:
            with torch.autocast("cuda", dtype=torch.float16, enabled=self._device.type == "cuda"):
                features = self._network(images)
        except RuntimeError as error:
            raise EncoderError(
                f"{self.name} failed on images of shape {list(images.shape)} ({reason(error)}): "
                "give the image_size that it was trained with; where memory ran out, a smaller batch_size"
            ) from None
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            what = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise EncoderError(f"{self.name} returned {what}, not [{len(images)}, D]: choose a network of features")
        return features.float().cpu()


def weights_hash(network: nn.Module) -> str:
    """The first 16 digits of the SHA-256 of a network's weights and buffers, whatever file they came from."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise EncoderError(
            f"device={name!r} cannot be used ({first}): use 'cpu', or a torch with that device"
        ) from None
    return device


def make_resnet(name: str, layer: str, options: EncoderOptions) -> NetworkEncoder:
    """An encoder of ResNet-18, -34, -50 or -101: torchvision's or timm's for ImageNet, or one of :mod:`ncmi.networks`.

    Which of the two forms it is, and how wide, the file's first convolution says: 7×7 for ImageNet, 3×3 for small
    images. Names of weights are those of :mod:`ncmi.networks.weights`.

    Args:
        name: of :data:`RESNETS`.
        layer: ``"layer3"`` for the mean over the third stage (1024 values of ResNet-50, as CLAM takes them), ``""``
            for all stages.
        options: with ``weights``. The image size is 224 for ImageNet's form by default, and must be given for the
            other; colors are normalized by ImageNet's mean and standard deviation by default.

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
    network = ResNet.from_options((3, 8, 8), resolve_network(Network(name, width=width), (3, 8, 8), 2))
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
    weights = read_weights(path)
    if any(name.startswith("/model/") for name in weights):
        raise EncoderError(f"{path}: the model of a run of ncmi: use 'run' with the run's folder as weights")
    inner, _ = strip_prefixes(weights, (_STEM, _STEM_AS_PUBLISHED))
    stem = inner.get(_STEM, inner.get(_STEM_AS_PUBLISHED))
    if stem is None or stem.ndim != 4 or stem.shape[1] != 3:
        what = "no conv1.weight" if stem is None else f"conv1.weight of shape {list(stem.shape)}"
        raise EncoderError(f"{path}: {what}: no residual network of color images: choose another file or encoder")
    return stem


class _Features(nn.Module):
    """Standardizer and network of a trained model, for colors in [0, 1]."""

    def __init__(self, standardize: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.standardize, self.network = standardize, network

    def forward(self, images: Tensor) -> Tensor:
        # the images that the standardizer was fitted on were of 0…255
        features: Tensor = self.network(self.standardize(images * 255))
        return features


def make_run_encoder(options: EncoderOptions) -> NetworkEncoder:
    """The features of a finished run of ``ncmi train`` on color images; patches are scaled to the size of these.

    Args:
        options: with ``weights``, the run's folder. Colors are standardized as in the training.

    Raises:
        ValueError: if the folder holds no finished run, or one on other data than color images.
    """
    from ncmi.training.model import load_model  # the one thing here that knows of runs

    options.refuse("the encoder 'run', which standardizes as in its training,", "mean", "std", "extra")
    if options.weights is None:
        raise EncoderError("the encoder 'run' needs the folder of a run: give weights=")
    model = load_model(options.weights)
    shape = model.signature.sample_shape
    if model.signature.kind != "image" or len(shape) != 3 or shape[0] != 3:
        raise EncoderError(
            f"{options.weights}: trained on samples of shape {list(shape)}: take a run on color images, [3, H, W]"
        )
    preparation = Preparation(options.image_size or shape[1], (0.0,) * 3, (1.0,) * 3)
    # rows of 32-bit features: a run in float64 gains nothing here
    return NetworkEncoder(
        f"run:{options.weights.resolve().name}",
        _Features(model.standardize, model.network).float(),
        preparation,
        options.device,
    )


def make_timm_encoder(model: str, options: EncoderOptions) -> NetworkEncoder:
    """The features of a model of timm, without its classifier.

    Args:
        model: timm's name, such as ``"vit_small_patch16_224"``.
        options: with ``weights``, a local file of that model's weights; without, those that timm has itself for this
            name are taken, from its cache or from where it keeps them. Image size and normalization are the model's
            own by default. Further options go to ``timm.create_model``, such as ``init_values=1e-5``.

    Raises:
        ValueError: where timm cannot be imported or does not know the model, or the file does not fit.
    """
    timm = import_timm()
    if not model:
        raise EncoderError("timm: which model? Give timm:NAME, such as timm:vit_small_patch16_224")
    arguments = {name: _value(text) for name, text in options.extra.items()}
    try:
        network = timm.create_model(model, pretrained=options.weights is None, num_classes=0, **arguments)
        config: dict[str, Any] = timm.data.resolve_model_data_config(network)
    except Exception as error:  # an unknown name, an unknown argument, no network: each its own kind
        what = f"{type(error).__name__}: {reason(error)}"
        cure = "check name and options (timm.list_models()), or give weights= a local file of its weights"
        raise EncoderError(f"timm:{model} cannot be made ({what}): {cure}") from None
    if options.weights is not None:
        load_weights(network, options.weights)
    size = int(config["input_size"][-1])
    preparation = Preparation.of(options, size, tuple(config["mean"]), tuple(config["std"]))
    name = ",".join([f"timm:{model}", *(f"{key}={value}" for key, value in sorted(options.extra.items()))])
    return NetworkEncoder(name, network, preparation, options.device)


def _value(text: str) -> Any:
    """A number, truth value or None that text stands for; otherwise the text."""
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError):
        return text


def import_timm() -> Any:
    """The module ``timm``."""
    try:
        import timm  # type: ignore[import-not-found, unused-ignore]
    except Exception as error:  # torchvision, which it imports, fails beside another torch in several ways
        first = f"{type(error).__name__}: {error}".splitlines()[0]
        raise EncoderError(
            f"timm cannot be imported ({first}): install timm and the torchvision that fits "
            f"torch {torch.__version__}, or export the model to ONNX where timm works and use onnx:FILE"
        ) from None
    return timm
