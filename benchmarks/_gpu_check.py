"""Step ``check``: the loss on the device against float64 on the CPU, and its time beside linear + cross-entropy."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from _bench import Row, in_turns, of_values, ratios, wall
from _gpu_state import Session
from ncmi import NCMILoss, log_nsf, ncmi_loss, to_log_distribution

MODES = [
    (power, direction, reduction)
    for power in (1.0, -4.0)
    for direction in ("centroid_to_sample", "sample_to_centroid")
    for reduction in ("mean_of_ratios", "ratio_of_means", "log_likelihood")
    if not (reduction == "log_likelihood" and power > 0)
]
SHAPES = [(128, 100, 512, 0.2), (256, 1000, 2048, 0.2), (64, 10, 64, 0.5)]


def check_items(session: Session) -> list[tuple[str, Callable[[], Sequence[Row]]]]:
    items: list[tuple[str, Callable[[], Sequence[Row]]]] = []
    shapes = [(8, 5, 16, 0.5)] if session.rehearse else SHAPES
    for shape, (half, soft) in itertools.product(shapes, itertools.product((False, True), repeat=2)):
        name = f"loss {shape[:3]}, {'bfloat16 features' if half else 'float32'}, {'soft' if soft else 'hard'} targets"
        items.append((name, lambda s=shape, h=half, t=soft, n=name: list(_exactness(session.device, s, h, t, n))))
    for shape in [(8, 5, 16)] if session.rehearse else [(256, 1000, 2048), (128, 100, 512)]:
        for compiled in (False, True):
            name = f"time {shape}{', compiled' if compiled else ''}"
            items.append((name, lambda s=shape, c=compiled: list(_timing(session, s, c))))
    return items


def _exactness(
    device: torch.device, shape: tuple[int, int, int, float], half: bool, soft: bool, name: str
) -> Iterator[Row]:
    """Largest relative errors over all modes, functional and module."""
    batch, classes, dim, temperature = shape
    torch.manual_seed(0)
    labels = torch.randint(classes, (batch,))
    logits = 2 * torch.randn(classes, dim)
    features = torch.randn(batch, dim) + logits[labels] / 2
    if half:
        features = features.bfloat16().float()  # both see the same rounded features
    targets = torch.rand(batch, classes).softmax(-1) if soft else labels
    worst = {"value": 0.0, "feature gradient": 0.0, "centroid gradient": 0.0}
    for power, direction, reduction in MODES:
        options: dict[str, Any] = {
            "separation_power": power,
            "separation_direction": direction,
            "reduction": reduction,
        }
        for learned in (True, False):
            expected = _run(features, targets, logits, temperature, options, learned, "cpu", torch.float64)
            dtype = torch.bfloat16 if half else torch.float32
            found = _run(features, targets, logits, temperature, options, learned, device.type, dtype)
            for key, a, b in zip(worst, found, expected, strict=True):
                if b is not None and a is not None:
                    worst[key] = max(worst[key], float((a.double().cpu() - b).norm() / b.norm()))
    # a gradient of bfloat16 features is itself in bfloat16
    bars = {"value": 1e-5, "feature gradient": 5e-3 if half else 1e-4, "centroid gradient": 1e-4}
    for key, error in worst.items():
        yield Row(f"{name}: {key}, worst of {2 * len(MODES)}, × 1e-6", error * 1e6, 0, 0, unit="", bar=bars[key] * 1e6)


def _run(
    features: Tensor,
    targets: Tensor,
    logits: Tensor,
    temperature: float,
    options: dict[str, Any],
    learned: bool,
    device: str,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    f = features.clone().to(device, dtype).requires_grad_()
    z = logits.clone().to(device, wide).requires_grad_(learned)
    t = targets.to(device, wide) if targets.is_floating_point() else targets.to(device)
    with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
        value = ncmi_loss(to_log_distribution(f, None, temperature), t, log_nsf(z), **options)
    value.backward()
    return value.detach(), f.grad, z.grad


class LinearCrossEntropy(nn.Module):
    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.head = nn.Linear(dim, classes)

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.head(features), labels)


def _timing(session: Session, shape: tuple[int, int, int], compiled: bool) -> Iterator[Row]:
    """Time of forward and backward of a loss over that of a linear head with cross-entropy."""
    batch, classes, dim = shape
    device, repeats, inner = session.device, *((1, 2) if session.rehearse else (15, 50))
    features = torch.randn(batch, dim, device=device, requires_grad=True)
    labels = torch.randint(classes, (batch,), device=device)
    paper: dict[str, Any] = {
        "temperature": 0.2,
        "anchor_scale": 10.0,
        "separation_power": 1.0,
        "separation_direction": "centroid_to_sample",
        "reduction": "mean_of_ratios",
    }
    losses: dict[str, Any] = {
        "linear + cross-entropy": LinearCrossEntropy(classes, dim),
        "p = 1, fixed": NCMILoss(classes, dim, centroids="fixed", **paper),
        "p = 1, learned": NCMILoss(classes, dim, **paper),
        "default, fixed": NCMILoss(classes, dim, centroids="fixed"),
        "default, learned": NCMILoss(classes, dim),
    }

    def steps_of(module: Any) -> Callable[[], None]:
        module.to(device)
        backend = "aot_eager" if session.rehearse else "inductor"
        loss = torch.compile(module.loss, dynamic=False, backend=backend) if compiled else module.loss

        def steps() -> None:
            for _ in range(inner):
                loss(features, labels).backward()
                features.grad = None
                module.zero_grad(set_to_none=True)

        return steps

    calls: dict[str, Callable[[], object]] = {name: steps_of(module) for name, module in losses.items()}
    times = {name: wall(found) for name, found in in_turns(calls, repeats, device).items()}
    rival = times["linear + cross-entropy"]
    told = f"{shape}{', compiled' if compiled else ''}"
    for name, found in times.items():
        yield of_values(f"{name}, {told}", [1e6 * one / inner for one in found], unit="µs", digits=0)
        if found is not rival:
            yield of_values(f"{name} / linear + cross-entropy, {told}", ratios(found, rival))
