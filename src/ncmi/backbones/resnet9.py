"""A residual network of nine layers for short runs on 32×32 images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ncmi.backbones.resnet import check_images
from ncmi.recipes import Backbone


class ResNet9(nn.Module):
    """Eight 3×3 convolutions, two of the stages with a residual pair: ``[B, channels, H, W] → [B, 8·width]``.

    The network of the DAWNBench CIFAR-10 entries (D. Page, "How to train your ResNet", 2018), with its feature (the
    maximum over the image) in place of the ninth, linear layer.

    Args:
        channels: of the images, which must have at least 8×8 pixels.
        width: channels of the stem; the stages have two, four and eight times as many.
    """

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.feature_dim = 8 * width
        self.stem = _conv(channels, width)
        self.stage1 = nn.Sequential(_conv(width, 2 * width), nn.MaxPool2d(2), _Residual(2 * width))
        self.stage2 = nn.Sequential(_conv(2 * width, 4 * width), nn.MaxPool2d(2))
        self.stage3 = nn.Sequential(_conv(4 * width, 8 * width), nn.MaxPool2d(2), _Residual(8 * width))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def from_options(cls, sample_shape: tuple[int, ...], options: Backbone) -> ResNet9:
        """The network of a recipe.

        Raises:
            ValueError: for samples that are not images of at least 8×8 pixels, or options that it does not have.
        """
        check_images(sample_shape, options)
        if min(sample_shape[1:]) < 8:
            raise ValueError(
                f"resnet9 halves images three times, these have {sample_shape[1:]} pixels: use resnet_small"
            )
        if options.depth or options.feature_dim != 8 * options.width:
            raise ValueError(f"{options}: depth and feature_dim of resnet9 are fixed by its width; leave them at 0")
        return cls(sample_shape[0], options.width)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        features: Tensor = self.stage3(self.stage2(self.stage1(x))).amax((-2, -1))
        return features.to(torch.promote_types(features.dtype, torch.float32))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(_conv(channels, channels), _conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)  # type: ignore[no-any-return]


def _conv(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
    )
