"""From a backbone's feature to a point of the probability simplex, in the log domain.

Feature f → centre ``f − μ`` → unit length → divide by the temperature T → normalised sigmoid (NSF) or softmax → log P.
Half-precision input is taken to float32 first, also inside autocast: the differences that matter are of order 1e-3.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


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
    """Logarithm of the normalised sigmoid function, ``log(σ(z_i) / Σ_j σ(z_j))``.

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


def length(f: Tensor) -> Tensor:
    """Divisor that takes rows of f to unit length, ``[..., 1]``: 1 for a zero row, NaN where ‖f‖₂ overflows."""
    norm = torch.linalg.vector_norm(f, dim=-1, keepdim=True)
    return torch.where(norm == 0, 1.0, torch.where(norm < torch.inf, norm, torch.nan))


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
        gradient = gradients[0]
        along = torch.linalg.vecdot(unit, gradient).unsqueeze(-1)
        result: Tensor = torch.addcmul(gradient, unit, along, value=-1) / norm
        return result


def unit_vector(feature: Tensor, centre: Tensor | None = None) -> Tensor:
    """Centred feature at unit length, ``(f − μ)/‖f − μ‖₂``: ``[..., D] → [..., D]``; a zero vector stays zero."""
    centred = full_precision(feature)
    if centre is not None:
        centred = centred - full_precision(centre)
    unit: Tensor = _UnitVector.apply(centred)[0]  # type: ignore[no-untyped-call]
    return unit


def to_log_distribution(
    feature: Tensor,
    centre: Tensor | None,
    temperature: float | Tensor,
    kind: Literal["nsf", "softmax"] = "nsf",
) -> Tensor:
    """Log-distribution of a feature: centre, L2-normalise, divide by the temperature, NSF or softmax.

    Args:
        feature: ``[..., D]``, any floating dtype.
        centre: μ, ``[D]``, or None for no centring.
        temperature: T > 0.
        kind: ``"nsf"`` (the paper) or ``"softmax"`` (its ablation).

    Returns:
        ``[..., D]`` log-probabilities, float32 (float64 for float64 features), also inside autocast. A feature that
        equals the centre has no direction and gives the uniform distribution.

    Raises:
        ValueError: for a temperature that is not positive, an unknown kind, or D < 2.

    Source: arXiv 2601.02543, centring, L2 normalisation and NSF.
    """
    if feature.shape[-1] < 2:
        raise ValueError(f"the simplex needs a feature of width D ≥ 2, got D={feature.shape[-1]}: widen the backbone")
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ValueError(f"temperature={temperature}: it divides the feature and must be above 0 (usual: 0.05 to 2)")
    z = unit_vector(feature, centre) / temperature
    return log_simplex(z, kind)


def log_simplex(z: Tensor, kind: Literal["nsf", "softmax"]) -> Tensor:
    """Log-distribution of logits ``[..., D]`` by the named map, as features and centroids both use it."""
    if kind == "nsf":
        return log_nsf(z)
    if kind == "softmax":
        return F.log_softmax(full_precision(z), dim=-1)
    raise ValueError(f"unknown distribution {kind!r}: use 'nsf' or 'softmax'")
