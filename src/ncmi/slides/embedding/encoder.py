"""What makes features of patches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class EncoderError(ValueError):
    """An encoder cannot be made or used; the message names the cause and the cure."""


class Encoder(ABC):
    """A function from patches to features that do not depend on the other patches of the batch.

    Attributes:
        name: what it was asked for by, such as ``"resnet18"`` or ``"onnx:uni.onnx"``.
        version: tells encoders of one name apart: a hash of the weights, size and normalisation of the patches.
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
        mean, std: of the red, green and blue of the patches, in [0, 1], by which they are normalised.
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
            raise EncoderError(f"mean={self.mean}, std={self.std}: of colours in [0, 1]: divide values of 0…255 by 255")

    def refuse(self, encoder: str, *names: str) -> None:
        """Reject options that an encoder would ignore.

        Raises:
            EncoderError: if one of them is given.
        """
        for name in names:
            if getattr(self, name):
                raise EncoderError(f"{name}={getattr(self, name)!s}: {encoder} has no use for it: leave it out")


def check_patches(patches: Tensor, square: bool = True) -> None:
    """Reject what no encoder takes.

    Raises:
        EncoderError: for anything but ``[B, H, W, 3]`` uint8 with B ≥ 1, and H = W where ``square``.
    """
    if patches.ndim != 4 or patches.shape[3] != 3 or 0 in patches.shape or patches.dtype != torch.uint8:
        raise EncoderError(
            f"patches of shape {list(patches.shape)} and type {patches.dtype}: give RGB of 0…255, [B, H, W, 3] uint8"
        )
    if square and patches.shape[1] != patches.shape[2]:
        raise EncoderError(f"patches of {patches.shape[1]}×{patches.shape[2]} pixels: this encoder takes square ones")
