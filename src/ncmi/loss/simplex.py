"""From a network's feature to a point of the probability simplex, in the log domain.

Feature f → center ``f − μ`` → unit length → divide by the temperature T → normalized sigmoid (NSF) or softmax → log P.
Half-precision input is taken to float32 first, also inside autocast: the differences that matter are of order 1e-3.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ncmi.loss.forms import Distribution, check_choice, check_map


def full_precision(x: Tensor) -> Tensor:
    """``x`` in float32 at least: half-precision tensors are converted, float32 and float64 stay."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


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
    return F.log_softmax(F.logsigmoid(full_precision(z)), dim=-1)


def length(f: Tensor) -> Tensor:
    """Divisor that takes rows of f to unit length, ``[..., 1]``: 1 for a zero row, NaN where ‖f‖₂ overflows."""
    norm: Tensor = torch.linalg.vector_norm(f, dim=-1, keepdim=True)
    # infinity times 0 is NaN
    return norm * 0 + norm + (norm == 0)


def log_ratio(z: Tensor, kind: Distribution) -> Tensor:
    """``α = log(D·P)`` of logits ``[..., D]``: as exact near uniform, where it is small, as far from it.

    A log-distribution plus ``log D`` would have the rounding of ``log D``, which is 1e-5 of a usual α.
    """
    log_weight = F.logsigmoid(z) if kind == "nsf" else z
    log_weight = log_weight - log_weight.amax(-1, keepdim=True).detach()
    return log_weight - log_weight.exp().mean(-1, keepdim=True).log()


def unit_vector(feature: Tensor, center: Tensor | None = None) -> Tensor:
    """Centered feature at unit length, ``(f − μ)/‖f − μ‖₂``: ``[..., D] → [..., D]``; a zero vector stays zero."""
    centered = centered_feature(feature, center)
    return centered / length(centered)


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
    return log_simplex(centered / length(centered) / temperature, kind)


def log_simplex(z: Tensor, kind: Distribution) -> Tensor:
    """Log-distribution of logits ``[..., D]`` by the named map, as features and centroids both use it."""
    check_choice("distribution", kind, Distribution)
    return log_nsf(z) if kind == "nsf" else F.log_softmax(full_precision(z), dim=-1)
