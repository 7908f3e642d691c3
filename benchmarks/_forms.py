"""All forms of the loss against the paper's equations in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ncmi import log_nsf, ncmi_loss, to_log_distribution
from ncmi.loss import equation

MODES: list[dict[str, Any]] = [
    {"separation_power": power, "separation_direction": direction, "form": form}
    for power in (1.0, 2.0, -1.0, -4.0)
    for direction in ("centroid_to_sample", "sample_to_centroid")
    for form in ("mean_of_ratios", "ratio_of_means", "likelihood")
    if not (form == "likelihood" and power > 0)
]

# the form of the authors' script
RELEASED: dict[str, Any] = {
    "temperature": 0.2,
    "feature_length": "own",
    "anchor_scale": 10.0,
    "separation_power": 1.0,
    "separation_direction": "centroid_to_sample",
    "form": "mean_of_ratios",
}


@dataclass(frozen=True)
class Shape:
    """B samples, C classes, D components, temperature T."""

    batch: int
    classes: int
    width: int
    temperature: float

    def __str__(self) -> str:
        return f"(B,C,D,T) = ({self.batch},{self.classes},{self.width},{self.temperature})"


def sample(shape: Shape, device: torch.device, dtype: torch.dtype, soft: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Features half on their way to their class's centroid, targets, and the centroids' logits; always the same ones.

    Features are rounded to ``dtype``; logits of centroids are in float32 at least.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(shape.classes, (shape.batch,), generator=generator)
    logits = 2 * torch.randn(shape.classes, shape.width, generator=generator, dtype=torch.float64)
    noise = torch.randn(shape.batch, shape.width, generator=generator, dtype=torch.float64)
    targets = torch.rand(shape.batch, shape.classes, generator=generator, dtype=torch.float64).softmax(-1)
    wide = torch.promote_types(dtype, torch.float32)
    return (
        (noise + logits[labels] / 2).to(device, dtype),
        targets.to(device, wide) if soft else labels.to(device),
        logits.to(device, wide),
    )


def plain_loss(features: Tensor, targets: Tensor, logits: Tensor, temperature: float, **mode: Any) -> Tensor:
    """The loss by the paper's equations, from features and the logits of centroids."""
    options = {name.removeprefix("separation_"): value for name, value in mode.items()}
    p = equation.distribution(features, None, temperature)
    return equation.loss(p, targets, equation.simplex(logits), **options)


def fast_loss(features: Tensor, targets: Tensor, logits: Tensor, temperature: float, **mode: Any) -> Tensor:
    """The same by this library."""
    return ncmi_loss(to_log_distribution(features, None, temperature), targets, log_nsf(logits), **mode)


def gradients_of(loss: Callable[..., Tensor], *tensors: Tensor, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of features, targets and logits, and its gradients by features and by logits, in float64 on the CPU."""
    features, logits = (tensor.detach().clone().requires_grad_() for tensor in (tensors[0], tensors[2]))
    value = loss(features, tensors[1], logits, **options)
    found = (value.detach(), *torch.autograd.grad(value, (features, logits)))
    return tuple(tensor.double().cpu() for tensor in found)  # type: ignore[return-value]


def relative(a: Tensor, b: Tensor) -> float:
    """``‖a − b‖/‖b‖``."""
    return float((a - b).norm() / b.norm())


def errors_of(
    shape: Shape, mode: dict[str, Any], device: torch.device, dtype: torch.dtype, soft: bool = False
) -> dict[str, float]:
    """Relative errors of one form: of the loss, of its gradient by the features, and by the centroids' logits."""
    tensors = sample(shape, device, dtype, soft)
    exact = [tensor.cpu().double() if tensor.is_floating_point() else tensor.cpu() for tensor in tensors]
    options = {"temperature": shape.temperature, **mode}
    expected = gradients_of(plain_loss, *exact, **options)
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        actual = gradients_of(fast_loss, *tensors, **options)
    return dict(zip(("loss", "features", "centroids"), map(relative, actual, expected), strict=True))
