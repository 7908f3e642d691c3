"""From a network's feature to a point of the probability simplex, in the log domain.

Feature f → center ``f − μ`` → unit length → divide by the temperature T → normalized sigmoid (NSF) or softmax → log P.
Half-precision input is taken to float32 first, also inside autocast: the differences that matter are of order 1e-3.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ncmi.loss.forms import Distribution, check_choice, check_map


def full_precision(x: Tensor) -> Tensor:
    """``x`` in float32 at least: half-precision tensors are converted, float32 and float64 stay."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class _LogNSF(torch.autograd.Function):
    """``log softmax(log σ(z))``: two fused, stable kernels; the gradient takes half the passes of autograd's."""

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return F.log_softmax(F.logsigmoid(z), dim=-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        z, log_p = ctx.saved_tensors
        gradient = gradients[0]
        total = gradient.sum(-1, keepdim=True)
        return torch.sigmoid(-z) * torch.addcmul(gradient, log_p.exp(), total, value=-1)


def log_nsf(z: Tensor) -> Tensor:
    """Logarithm of the normalized sigmoid function, ``log(σ(z_i) / Σ_j σ(z_j))``.

    Args:
        z: logits ``[..., D]``, any finite values.

    Returns:
        Log-distribution ``[..., D]``, ≤ 0; ``exp`` of it sums to one over the last dimension.

    Source: arXiv 2601.02543, the NSF activation.

    Example:
        >>> import torch
        >>> log_nsf(torch.zeros(4)).exp()
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    log_p: Tensor = _LogNSF.apply(full_precision(z))  # type: ignore[no-untyped-call]
    return log_p


class _LogNSFOfDirection(torch.autograd.Function):
    """``log NSF(f/‖f‖₂/T)`` as one function: for a small batch, the time of a step is that of the number of kernels."""

    @staticmethod
    def forward(ctx: Any, f: Tensor, temperature: float) -> Tensor:
        norm = length(f)
        unit = f / norm
        log_p = F.log_softmax(F.logsigmoid(unit / temperature), dim=-1)
        ctx.save_for_backward(unit, norm, log_p)
        ctx.temperature = temperature
        return log_p

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        unit, norm, log_p = ctx.saved_tensors
        gradient = gradients[0]
        by_logit = torch.addcmul(gradient, log_p.exp(), gradient.sum(-1, keepdim=True), value=-1)
        by_logit *= torch.sigmoid(unit / -ctx.temperature)
        return _across(by_logit, unit) / (norm * ctx.temperature), None


def _across(gradient: Tensor, unit: Tensor) -> Tensor:
    """The part of a gradient that is at right angles to the unit vectors, row by row."""
    # not vecdot, which autocast runs in half precision
    return torch.addcmul(gradient, unit, (unit * gradient).sum(-1, keepdim=True), value=-1)


def length(f: Tensor) -> Tensor:
    """Divisor that takes rows of f to unit length, ``[..., 1]``: 1 for a zero row, NaN where ‖f‖₂ overflows."""
    norm: Tensor = torch.linalg.vector_norm(f, dim=-1, keepdim=True)
    # infinity times 0 is NaN
    return norm * 0 + norm + (norm == 0)


class _UnitVector(torch.autograd.Function):
    """``f/‖f‖₂`` over the last dimension; 0 stays 0, with the gradient of the identity there.

    Written by hand since autograd's broadcast division is slower, and divides by an epsilon at zero.
    """

    @staticmethod
    def forward(f: Tensor) -> tuple[Tensor, Tensor]:
        norm = length(f)
        return f / norm, norm

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        unit, norm = output
        ctx.mark_non_differentiable(norm)
        ctx.save_for_backward(unit, norm)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        unit, norm = ctx.saved_tensors
        across: Tensor = _across(gradients[0], unit) / norm
        return across


def unit_vector(feature: Tensor, center: Tensor | None = None) -> Tensor:
    """Centered feature at unit length, ``(f − μ)/‖f − μ‖₂``: ``[..., D] → [..., D]``; a zero vector stays zero."""
    unit: Tensor = _UnitVector.apply(centered_feature(feature, center))[0]  # type: ignore[no-untyped-call]
    return unit


def centered_feature(feature: Tensor, center: Tensor | None, homogeneous: float = 0.0) -> Tensor:
    """``f − μ`` in float32 at least, with the homogeneous coordinate ``h·√D`` behind it where h > 0.

    Args:
        feature: ``[..., D]``.
        center: μ, ``[D]``, or None.
        homogeneous: h, in units of √D, the length of a feature whose components are about 1.

    Returns:
        ``[..., D]``, or with h > 0 ``[..., D + 1]``.
    """
    centered = full_precision(feature)
    if center is not None:
        centered = centered - full_precision(center)
    if homogeneous == 0:
        return centered
    return F.pad(centered, (0, 1), value=homogeneous * math.sqrt(feature.shape[-1]))


def to_log_distribution(
    feature: Tensor,
    center: Tensor | None,
    temperature: float | Tensor,
    kind: Distribution = "nsf",
    homogeneous: float = 0.0,
) -> Tensor:
    """Log-distribution of a feature: center, L2-normalize, divide by the temperature, NSF or softmax.

    The length of a feature is lost, unless a homogeneous coordinate goes with it: the direction of ``(f − μ, h·√D)``
    tells all of f.

    Args:
        feature: ``[..., D]``, any floating dtype.
        center: μ, ``[D]``, or None for no centering.
        temperature: T > 0.
        kind: ``"nsf"`` (the paper) or ``"softmax"`` (its ablation).
        homogeneous: h ≥ 0; 0 is the paper.

    Returns:
        ``[..., D]`` (with h > 0 ``[..., D + 1]``) log-probabilities, float32 (float64 for float64 features), also
        inside autocast. A feature that equals the center has no direction and, with h = 0, gives the uniform
        distribution.

    Raises:
        ValueError: for a temperature that is not positive, an unknown kind, h < 0, or D < 2.

    Source: arXiv 2601.02543, centering, L2 normalization and NSF; the homogeneous coordinate is this library's.
    """
    if feature.shape[-1] < 2:
        raise ValueError(f"the simplex needs a feature of width D ≥ 2, got D={feature.shape[-1]}: widen the network")
    check_map(temperature, kind, homogeneous)
    centered = centered_feature(feature, center, homogeneous)
    if kind == "nsf" and not isinstance(temperature, Tensor):
        log_p: Tensor = _LogNSFOfDirection.apply(centered, temperature)  # type: ignore[no-untyped-call]
        return log_p
    return log_simplex(unit_vector(centered) / temperature, kind)


def log_simplex(z: Tensor, kind: Distribution) -> Tensor:
    """Log-distribution of logits ``[..., D]`` by the named map, as features and centroids both use it."""
    check_choice("distribution", kind, Distribution)
    return log_nsf(z) if kind == "nsf" else F.log_softmax(full_precision(z), dim=-1)
