"""Residual networks as functions of their weights by name, written from the papers, and those weights at random."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d

State = dict[str, Tensor]

# expansion (1: two 3×3 convolutions, 4: bottleneck) and blocks of each stage, He et al. 2016, Table 1
TABLE = {
    "resnet18": (1, (2, 2, 2, 2)),
    "resnet34": (1, (3, 4, 6, 3)),
    "resnet50": (4, (3, 4, 6, 3)),
    "resnet101": (4, (3, 4, 23, 3)),
}


class Reference:
    """Forward pass over weights by name; notes the names that it used and the running statistics after it."""

    def __init__(self, state: State, training: bool, blurpool: bool = False) -> None:
        self.state, self.training, self.blurpool = state, training, blurpool
        self.used: set[str] = set()
        self.running: State = {}

    def get(self, name: str) -> Tensor:
        self.used.add(name)
        return self.state[name]

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.get(f"{name}.weight")
        if self.blurpool and stride > 1 and x.shape[1] >= 16:
            x = blurred(x)
        return conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def norm(self, name: str, x: Tensor) -> Tensor:
        """Ioffe & Szegedy 2015, Algorithms 1 and 2."""
        mean, variance = self.get(f"{name}.running_mean"), self.get(f"{name}.running_var")
        if self.training:
            count = x.numel() // x.shape[1]
            mine = x.mean((0, 2, 3))
            spread = (x - mine[:, None, None]).square().mean((0, 2, 3))
            self.running[f"{name}.running_mean"] = (0.9 * mean + 0.1 * mine).detach()
            self.running[f"{name}.running_var"] = (0.9 * variance + 0.1 * spread * count / (count - 1)).detach()
            mean, variance = mine, spread
        standard = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        return standard * self.get(f"{name}.weight")[:, None, None] + self.get(f"{name}.bias")[:, None, None]

    def block(self, name: str, x: Tensor, expansion: int, stride: int) -> Tensor:
        if expansion == 1:
            out = self.norm(f"{name}.bn1", self.conv(f"{name}.conv1", x, stride)).clamp_min(0)
            out = self.norm(f"{name}.bn2", self.conv(f"{name}.conv2", out))
        else:
            out = self.norm(f"{name}.bn1", self.conv(f"{name}.conv1", x)).clamp_min(0)
            out = self.norm(f"{name}.bn2", self.conv(f"{name}.conv2", out, stride)).clamp_min(0)
            out = self.norm(f"{name}.bn3", self.conv(f"{name}.conv3", out))
        if x.shape != out.shape:
            x = self.norm(f"{name}.downsample.1", self.conv(f"{name}.downsample.0", x, stride))
        return (out + x).clamp_min(0)

    def resnet(self, images: Tensor, expansion: int, blocks: tuple[int, ...], large: bool = False) -> Tensor:
        x = self.norm("bn1", self.conv("conv1", images, 2 if large else 1)).clamp_min(0)
        if large:
            x = max_pool2d(x, 3, 2, 1)
        for stage, count in enumerate(blocks):
            for number in range(count):
                stride = 2 if number == 0 and stage > 0 else 1
                x = self.block(f"layer{stage + 1}.{number}", x, expansion, stride)
        return x.sum((-2, -1)) / (x.shape[-1] * x.shape[-2])

    def resnet9(self, images: Tensor, *, early: bool = False) -> Tensor:
        def unit(name: str, x: Tensor) -> Tensor:
            return self.norm(f"{name}.1", self.conv(f"{name}.0", x)).clamp_min(0)

        def pair(name: str, x: Tensor) -> Tensor:
            return x + unit(f"{name}.inner.1", unit(f"{name}.inner.0", x))

        if early:
            x = unit("stage1.1", max_pool2d(unit("stem", images), 2))
            for stage in ("stage2", "stage3"):
                x = pair(f"{stage}.2", unit(f"{stage}.1", max_pool2d(x, 2)))
            return x.flatten(2).max(-1).values
        x = pair("stage1.2", max_pool2d(unit("stage1.0", unit("stem", images)), 2))
        x = max_pool2d(unit("stage2.0", x), 2)
        x = pair("stage3.2", max_pool2d(unit("stage3.0", x), 2))
        return x.flatten(2).max(-1).values


def blurred(x: Tensor) -> Tensor:
    """Each pixel the mean of its neighbors and itself, weighed 1-2-1 downwards and 1-2-1 across, zeros outside."""
    for dim in (-2, -1):
        nothing = torch.zeros_like(x.narrow(dim, 0, 1))
        length = x.shape[dim]
        before = torch.cat([nothing, x.narrow(dim, 0, length - 1)], dim)
        after = torch.cat([x.narrow(dim, 1, length - 1), nothing], dim)
        x = (before + 2 * x + after) / 4
    return x


def randomize(network: nn.Module) -> None:
    """Give normalization layers weights, biases and statistics that differ, as training would."""
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.dim() == 1:
                value.uniform_(0.5, 1.5) if not name.endswith(("bias", "mean")) else value.normal_()


def running_statistics(state: State) -> State:
    return {name: value for name, value in state.items() if "running_" in name}
