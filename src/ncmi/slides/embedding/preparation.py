"""From the bytes of patches to what a network takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ncmi.slides.embedding.encoder import IMAGENET_MEAN, IMAGENET_STD, EncoderOptions, check_patches


def scale_patches(images: Tensor, size: int | None) -> Tensor:
    """Images ``[B, 3, H, W]`` of floats scaled to ``size``×``size``, bilinear, smoothed where they get smaller."""
    if size is None or tuple(images.shape[2:]) == (size, size):
        return images
    return interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)


@dataclass(frozen=True)
class Preparation:
    """Scales patches and normalises their colours by ``(colour − mean) / std``.

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
        """``[B, H, W, 3]`` uint8 → ``[B, 3, size, size]`` float32 on the same device.

        Raises:
            EncoderError: for patches of another shape or type.
        """
        check_patches(patches)
        images = scale_patches(patches.permute(0, 3, 1, 2).float() / 255, self.size)
        mean, std = (torch.tensor(value, device=images.device).reshape(3, 1, 1) for value in (self.mean, self.std))
        return (images - mean) / std

    def __str__(self) -> str:
        numbers = (",".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return "{} px, mean {}, std {}".format(self.size or "any", *numbers)
