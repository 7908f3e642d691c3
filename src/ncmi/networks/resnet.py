"""Residual networks for images, small and large (He et al., "Deep Residual Learning for Image Recognition", 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

from ncmi.recipes import Network
from ncmi.recipes.networks import TIMM


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut: ``[B, in_channels, H, W] → [B, channels, H/stride, W/stride]``."""

    expansion: ClassVar[int] = 1

    def __init__(self, in_channels: int, channels: int, stride: int, blurpool: bool = False) -> None:
        super().__init__()
        self.conv1 = _strided(in_channels, channels, 3, stride, blurpool)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride, blurpool)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """What the shortcut is added to."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        out = relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        return relu(out + self.downsample(x), inplace=True)


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions, a shortcut: ``[B, in_channels, H, W] → [B, 4·channels, H/stride, W/stride]``."""

    expansion: ClassVar[int] = 4

    def __init__(self, in_channels: int, channels: int, stride: int, blurpool: bool = False) -> None:
        super().__init__()
        out = self.expansion * channels
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _strided(channels, channels, 3, stride, blurpool)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = _shortcut(in_channels, out, stride, blurpool)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """What the shortcut is added to."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        out = relu(self.bn1(self.conv1(x)), inplace=True)
        out = relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        return relu(out + self.downsample(x), inplace=True)


class ResNet(nn.Module):
    """Residual network with the stem of small images or that of ImageNet: ``[B, channels, H, W] → [B, D]``.

    The first stage keeps the size that the stem leaves, each further stage halves it; D is the number of channels of
    the last stage, averaged over the image in float32 at least. Convolutions run with the channels last in memory,
    which is the faster layout both on GPUs and in bfloat16 on CPUs. Names and shapes with the large stem are those of
    torchvision, without ``fc``; the stride of a bottleneck is in its 3×3 convolution, as there.

    Args:
        channels: of the images.
        block: :class:`BasicBlock` or :class:`Bottleneck`.
        blocks: number of blocks of each stage.
        width: channels of the stem and of the first stage; each further stage doubles them.
        stem: "small": a 3×3 convolution; "large": a 7×7 convolution and 3×3 maxima, which halve the image each.
        blurpool: blur what is about to be halved by a convolution of at least 16 channels, 1-2-1 in both directions
            (R. Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019); it has no weights.
        zero_init: each block begins as its shortcut: the scale of its last normalization starts at 0 (Goyal et al.,
            "Accurate, Large Minibatch SGD", 2017).
    """

    def __init__(
        self,
        channels: int,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        width: int = 64,
        *,
        stem: Literal["small", "large"] = "small",
        blurpool: bool = False,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        kernel, stride = (7, 2) if stem == "large" else (3, 1)
        self.conv1 = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        if stem == "large":
            self.maxpool = nn.MaxPool2d(3, 2, 1)
        inner = width
        for stage, count in enumerate(blocks):
            layers: list[nn.Module] = []
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                layers.append(block(inner, width * 2**stage, stride, blurpool))
                inner = width * 2**stage * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.feature_dim = inner
        _initialize(self)
        if zero_init:
            for module in self.modules():
                if isinstance(module, BasicBlock | Bottleneck):
                    nn.init.zeros_(module.last_norm.weight)

    @classmethod
    def from_options(cls, sample_shape: tuple[int, ...], options: Network) -> ResNet:
        """The network of a recipe: resnet18, resnet34, resnet50, resnet101 or resnet_small.

        A stem that the recipe leaves open is the small one.

        Raises:
            ValueError: for samples that are not images, or options that the network does not have.
        """
        check_images(sample_shape, options)
        if options.name == "resnet_small":
            if options.stem == "large":
                raise ValueError("stem=large: resnet_small is for small images; use resnet18")
            if options.depth < 1:
                raise ValueError(f"{options}: resnet_small needs a depth of at least 1 block a stage")
        elif options.depth:
            raise ValueError(f"depth={options.depth}: the depth of {options.name} is fixed; leave it at 0")
        block, blocks = _NETWORKS.get(options.name, (BasicBlock, (options.depth,) * 3))
        net = cls(
            sample_shape[0],
            block,
            blocks,
            options.width,
            stem="large" if options.stem == "large" else "small",
            blurpool=options.blurpool,
            zero_init=options.zero_init,
        )
        if options.feature_dim != net.feature_dim:
            raise ValueError(
                f"feature_dim={options.feature_dim}: {options.name} of width {options.width} has features of "
                f"{net.feature_dim}; leave feature_dim at 0, or change the width"
            )
        return net

    def forward(self, images: Tensor) -> Tensor:
        x = images.contiguous(memory_format=torch.channels_last)
        for part in self.children():  # conv1, bn1, relu, layer1, layer2, …
            x = part(x)
        # under autocast x is in bfloat16: a mean in its 8 bits would add their rounding to the feature
        return x.mean((-2, -1), dtype=torch.promote_types(x.dtype, torch.float32))


_NETWORKS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


def check_images(sample_shape: tuple[int, ...], options: Network) -> None:
    """Reject what a network of images does not take."""
    if len(sample_shape) != 3:
        raise ValueError(
            f"{options.name} takes images, not samples of shape {list(sample_shape)}: use network 'mlp' "
            "(--network.name mlp)"
        )
    if options.width < 1 and not options.name.startswith(TIMM):
        raise ValueError(f"width={options.width}: {options.name} needs at least 1 channel; usual is 0 for its own")
    if options.dropout:
        raise ValueError(f"dropout={options.dropout}: {options.name} has none; leave it at 0")


def check_no_residual_options(options: Network) -> None:
    """Reject what residual networks alone have, for networks that are none.

    Raises:
        ValueError: naming the option.
    """
    for name, default in (("stem", "auto"), ("blurpool", False), ("zero_init", False)):
        if (value := getattr(options, name)) != default:
            raise ValueError(f"{name}={value}: {options.name} has none; use resnet18, 34, 50 or 101, or leave it out")


class _StridedConv2d(nn.Conv2d):
    """A strided 1×1 convolution, as one without stride of the pixels that it looks at.

    In the backward pass of the strided one, oneDNN (of torch 2.13, on CPUs without AVX-512) writes past its buffers
    where there are fewer than 8 channels, last in memory.
    """

    def forward(self, x: Tensor) -> Tensor:
        down, right = self.stride
        return conv2d(x[..., ::down, ::right], self.weight)


class _BlurConv2d(nn.Conv2d):
    """A strided convolution of blurred maps, with the weights of the convolution alone."""

    blur: Tensor

    def __init__(self, in_channels: int, out: int, kernel: int, stride: int) -> None:
        super().__init__(in_channels, out, kernel, stride, kernel // 2, bias=False)
        row = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("blur", torch.outer(row, row).repeat(in_channels, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size == (1, 1):  # a quarter of the work: it looks at every other pixel alone
            return conv2d(conv2d(x, self.blur, None, self.stride, 1, groups=self.in_channels), self.weight)
        blurred = conv2d(x, self.blur, None, 1, 1, groups=self.in_channels)
        return conv2d(blurred, self.weight, None, self.stride, self.padding)


_FEWEST_BLURRED = 16  # channels, as in the fast recipes for ImageNet


def _strided(in_channels: int, out: int, kernel: int, stride: int, blurpool: bool) -> nn.Conv2d:
    if blurpool and stride > 1 and in_channels >= _FEWEST_BLURRED:
        return _BlurConv2d(in_channels, out, kernel, stride)
    kind = _StridedConv2d if kernel == 1 and stride > 1 and in_channels < 8 else nn.Conv2d
    return kind(in_channels, out, kernel, stride, kernel // 2, bias=False)


def _shortcut(in_channels: int, out: int, stride: int, blurpool: bool) -> nn.Module:
    if stride == 1 and in_channels == out:
        return nn.Identity()
    return nn.Sequential(_strided(in_channels, out, 1, stride, blurpool), nn.BatchNorm2d(out))


LEAST_SIDE = 8  # pixels that ResNet9 can halve three times


class ResNet9(nn.Module):
    """Eight 3×3 convolutions, two of the stages with a residual pair: ``[B, channels, H, W] → [B, 8·width]``.

    The network of the DAWNBench CIFAR-10 entries (D. Page, "How to train your ResNet", 2018), with its feature (the
    maximum over the image) in place of the ninth, linear layer.

    Args:
        channels: of the images, which must have at least 8×8 pixels.
        width: channels of the stem; the stages have two, four and eight times as many.
        early: each stage halves the image before its first convolution instead of after it, and the second stage has
            the residual pair of the first: 45 % less arithmetic, with a seventh more weights.
    """

    def __init__(self, channels: int, width: int = 64, *, early: bool = False) -> None:
        super().__init__()
        self.feature_dim = 8 * width
        self.stem = _conv(channels, width)

        def stage(width: int, *further: nn.Module) -> nn.Sequential:
            widening, halving = _conv(width, 2 * width), nn.MaxPool2d(2)
            return nn.Sequential(*((halving, widening) if early else (widening, halving)), *further)

        self.stage1 = stage(width, *([] if early else [_Residual(2 * width)]))
        self.stage2 = stage(2 * width, *([_Residual(4 * width)] if early else []))
        self.stage3 = stage(4 * width, _Residual(8 * width))
        _initialize(self)

    @classmethod
    def from_options(cls, sample_shape: tuple[int, ...], options: Network) -> ResNet9:
        """The network of a recipe.

        Raises:
            ValueError: for samples that are not images of at least 8×8 pixels, or options that it does not have.
        """
        check_images(sample_shape, options)
        check_no_residual_options(options)
        if min(sample_shape[1:]) < LEAST_SIDE:
            raise ValueError(
                f"{options.name} halves images three times, these have {sample_shape[1:]} pixels: use resnet_small"
            )
        if options.depth or options.feature_dim != 8 * options.width:
            raise ValueError(
                f"depth={options.depth}, feature_dim={options.feature_dim}: those of {options.name} are fixed by its "
                "width; leave them out"
            )
        return cls(sample_shape[0], options.width, early=options.name == "resnet9_early")

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        features: Tensor = self.stage3(self.stage2(self.stage1(x))).amax((-2, -1))
        return features.to(torch.promote_types(features.dtype, torch.float32))


def _initialize(network: nn.Module) -> None:
    """Kaiming's weights of convolutions, and channels last."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


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
