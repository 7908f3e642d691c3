"""What makes features of patches: encoders by name, their options, and what a network is given of a patch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

_KINDS = (
    "descriptor, resnet18|resnet34|resnet50|resnet101 (with weights), run:FOLDER (a run of ncmi), timm:MODEL, onnx:FILE"
)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class EncoderError(ValueError):
    """An encoder cannot be made or used; the message names the cause and the cure."""


class Encoder(ABC):
    """A function from patches to features that do not depend on the other patches of the batch.

    Attributes:
        name: what it was asked for by, such as ``"resnet18"`` or ``"onnx:uni.onnx"``.
        version: tells encoders of one name apart: a hash of the weights, size and normalization of the patches.
        feature_dim: D.
        image_size: side to which it scales patches itself; None where it takes them as they are.
    """

    name: str
    version: str
    feature_dim: int
    image_size: int | None

    @abstractmethod
    def encode(self, patches: Tensor) -> Tensor:
        """Features ``[B, D]`` float32, on the CPU, of RGB patches ``[B, H, W, 3]`` uint8 of any size, B ≥ 1.

        Raises:
            EncoderError: for patches of another shape or type.
        """


@dataclass(frozen=True)
class EncoderOptions:
    """What the user may say of an encoder; None leaves it to the encoder.

    Attributes:
        weights: file of weights, or run folder.
        image_size: side to which patches are scaled.
        mean, std: of the red, green and blue of the patches, in [0, 1], by which they are normalized.
        device: such as "cpu" or "cuda".
        extra: further options by name, as text; of the kind of encoder.
    """

    weights: Path | None = None
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    device: str = "cpu"
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.image_size is not None and self.image_size < 1:
            raise EncoderError(f"image_size={self.image_size}: must be at least 1 pixel, such as 224")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != 3:
                raise EncoderError(f"{name}={values}: give three values, of red, green and blue, such as 0.5 0.5 0.5")
        if self.std is not None and not min(self.std) > 0:
            raise EncoderError(f"std={self.std}: must be above 0: give the standard deviations of the training images")
        if max((self.mean or ()) + (self.std or ()), default=0) > 1:
            raise EncoderError(f"mean={self.mean}, std={self.std}: of colors in [0, 1]: divide values of 0…255 by 255")

    def refuse(self, encoder: str, *names: str) -> None:
        """Reject options that an encoder would ignore."""
        for name in names:
            if getattr(self, name):
                raise EncoderError(f"{name}={getattr(self, name)!s}: {encoder} has no use for it: leave it out")


def check_patches(patches: Tensor, square: bool = True) -> None:
    """Reject what no encoder takes."""
    if patches.ndim != 4 or patches.shape[3] != 3 or 0 in patches.shape or patches.dtype != torch.uint8:
        raise EncoderError(
            f"patches of shape {list(patches.shape)} and type {patches.dtype}: give RGB of 0…255, [B, H, W, 3] uint8"
        )
    if square and patches.shape[1] != patches.shape[2]:
        raise EncoderError(f"patches of {patches.shape[1]}×{patches.shape[2]} pixels: this encoder takes square ones")


def scale_patches(images: Tensor, size: int | None) -> Tensor:
    """Images ``[B, 3, H, W]`` of floats scaled to ``size``×``size``, bilinear, smoothed where they get smaller."""
    if size is None or tuple(images.shape[2:]) == (size, size):
        return images
    return interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)


@dataclass(frozen=True)
class Preparation:
    """Scales patches and normalizes their colors by ``(color − mean) / std``.

    Attributes:
        size: side of the result; None for that of the patches.
        mean, std: of red, green and blue in [0, 1]; by default ImageNet's.

    Example:
        >>> Preparation(2, mean=(0, 0, 0), std=(1, 1, 1))(torch.full((1, 4, 4, 3), 255, dtype=torch.uint8)).shape
        torch.Size([1, 3, 2, 2])
    """

    size: int | None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @classmethod
    def of(
        cls,
        options: EncoderOptions,
        size: int | None,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> Preparation:
        """What the options say, and for what they leave open the values given here."""
        return cls(options.image_size or size, options.mean or mean, options.std or std)

    def __call__(self, patches: Tensor) -> Tensor:
        """``[B, H, W, 3]`` uint8 → ``[B, 3, size, size]`` float32 on the same device."""
        check_patches(patches)
        images = scale_patches(patches.permute(0, 3, 1, 2).float() / 255, self.size)
        mean, std = (torch.tensor(value, device=images.device).reshape(3, 1, 1) for value in (self.mean, self.std))
        return (images - mean) / std

    def __str__(self) -> str:
        numbers = (",".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return "{} px, mean {}, std {}".format(self.size or "any", *numbers)


def make_encoder(
    spec: str,
    weights: str | Path | None = None,
    *,
    image_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    device: str = "cpu",
) -> Encoder:
    """The encoder that a text names.

    ====================================  ============================================================================
    spec                                  what it is
    ====================================  ============================================================================
    ``descriptor``                        color and texture without weights; :mod:`ncmi.slides.embedding.descriptor`
    ``resnet18``, …, ``resnet101``        weights of a local file; :mod:`ncmi.slides.embedding.networks`
    ``resnet50:layer3``                   the mean over its third stage
    ``run:FOLDER``                        the network of an image classifier that ``ncmi train`` made
    ``timm:MODEL``                        weights of a local file, or timm's; :mod:`ncmi.slides.embedding.networks`
    ``timm:MODEL,init_values=1e-5``       the same, with options of ``timm.create_model``
    ``onnx:FILE``                         :mod:`ncmi.slides.embedding.onnx`
    ``onnx:FILE,output=NAME``             one of several outputs; ``tokens=mean`` for the mean of tokens
    ====================================  ============================================================================

    Args:
        spec: as above.
        weights: file of weights; for ``run`` and ``onnx`` the same as the path behind the colon.
        image_size: side in pixels to which patches are scaled; by default the encoder's own.
        mean, std: of red, green and blue in [0, 1] by which patches are normalized; by default the encoder's own, or
            ImageNet's.
        device: "cpu" or "cuda".

    Raises:
        ValueError: for an unknown spec, missing or damaged weights, or options that the encoder does not have.

    Example:
        >>> encoder = make_encoder("descriptor")
        >>> encoder.name, encoder.feature_dim
        ('descriptor', 105)
    """
    kind, _, rest = spec.partition(":")
    argument, extra = _split(spec, rest)
    path = None if weights is None else Path(weights)
    if kind in ("onnx", "run"):
        if bool(argument) == (path is not None):
            raise EncoderError(f"{spec}: which file? Give either {kind}:PATH or weights=PATH")
        path = path or Path(argument)
    options = EncoderOptions(path, image_size, mean, std, device, extra)
    if kind == "descriptor" and not argument:
        from ncmi.slides.embedding.descriptor import Descriptor

        return Descriptor(options)
    if kind == "onnx" and path is not None:
        from ncmi.slides.embedding.onnx import OnnxEncoder

        return OnnxEncoder(path, replace(options, weights=None))
    from ncmi.slides.embedding import networks

    if kind == "run":
        return networks.make_run_encoder(options)
    if kind == "timm":
        return networks.make_timm_encoder(argument, options)
    if kind in networks.RESNETS:
        return networks.make_resnet(kind, argument, options)
    raise EncoderError(f"unknown encoder {spec!r}: use {_KINDS}")


def _split(spec: str, rest: str) -> tuple[str, dict[str, str]]:
    """``NAME,key=value,…`` in name and options; a comma in front of no ``key=value`` belongs to the name."""
    extra: dict[str, str] = {}
    while True:
        front, comma, last = rest.rpartition(",")
        key, equals, value = last.partition("=")
        if not comma or not equals or not key.isidentifier():
            return rest, extra
        if key in extra:
            raise EncoderError(f"{spec}: {key} is given twice: leave one out")
        extra[key] = value
        rest = front
