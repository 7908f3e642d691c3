"""Residual networks with the names of other code bases, for checkpoints as those would write them."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn.functional import relu

WIDTH = 4
BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}


def layers(inner: int, channels: int, stride: int, bottleneck: bool) -> list[tuple[nn.Module, nn.Module]]:
    """Convolutions with their normalizations."""
    sizes = [(inner, channels, 3, stride), (channels, channels, 3, 1)]
    if bottleneck:
        sizes = [(inner, channels, 1, 1), (channels, channels, 3, stride), (channels, 4 * channels, 1, 1)]
    return [(nn.Conv2d(i, o, k, s, k // 2, bias=False), nn.BatchNorm2d(o)) for i, o, k, s in sizes]


class Block(nn.Module):
    """conv1, bn1, conv2, …; the shortcut is called ``shortcut``, or ``downsample`` and only there where it is one."""

    def __init__(self, style: str, inner: int, channels: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        self.style = style
        chain = layers(inner, channels, stride, bottleneck)
        self.count = len(chain)
        if style == "pytorch-cifar100":
            parts = [part for conv, norm in chain for part in (conv, norm, nn.ReLU())]
            self.residual_function = nn.Sequential(*parts[:-1])
        else:
            for number, (conv, norm) in enumerate(chain):
                self.add_module(f"conv{number + 1}", conv)
                self.add_module(f"bn{number + 1}", norm)
        out = channels * (4 if bottleneck else 1)
        short = nn.Sequential()
        if stride > 1 or inner != out:
            short = nn.Sequential(nn.Conv2d(inner, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.add_module("downsample" if style == "torchvision" else "shortcut", short)

    def forward(self, x: Tensor) -> Tensor:
        short = self.downsample(x) if self.style == "torchvision" else self.shortcut(x)
        if self.style == "pytorch-cifar100":
            return relu(self.residual_function(x) + short)
        for number in range(1, self.count + 1):
            x = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x))
            x = relu(x) if number < self.count else relu(x + short)
        return x


class Foreign(nn.Module):
    """A whole classifier; :meth:`features` are what its last layer takes."""

    def __init__(self, style: str, name: str, classes: int = 7) -> None:
        super().__init__()
        self.style = style
        stem = nn.Conv2d(3, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH)
        if style == "pytorch-cifar100":
            self.conv1 = nn.Sequential(*stem, nn.ReLU())
        else:
            self.conv1, self.bn1 = stem
        inner, bottleneck = WIDTH, name == "resnet50"
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        for stage, count in enumerate(BLOCKS[name]):
            blocks = []
            for number in range(count):
                channels = WIDTH * 2**stage
                blocks.append(Block(style, inner, channels, 2 if stage and not number else 1, bottleneck))
                inner = channels * (4 if bottleneck else 1)
            stages[f"conv{stage + 2}_x" if style == "pytorch-cifar100" else f"layer{stage + 1}"] = nn.Sequential(
                *blocks
            )
        for stage_name, stage_part in stages.items():
            self.add_module(stage_name, stage_part)
        self.stage_names = list(stages)
        self.add_module("linear" if style == "pytorch-cifar" else "fc", nn.Linear(inner, classes))

    def features(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        if self.style != "pytorch-cifar100":
            x = relu(self.bn1(x))
        for name in self.stage_names:
            x = getattr(self, name)(x)
        return x.mean((2, 3))
