"""From a network's feature to a point of the probability simplex, in the log domain.

Feature f → center ``f − μ`` → divide by a length, its own or one for all, and by the temperature T → normalized sigmoid
(NSF) or softmax → log P.
Half-precision input is taken to float32 first, also inside autocast: the differences that matter are of order 1e-3.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ncmi.loss.forms import Distribution, FeatureLength, check_choice, check_map, common_length


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
    return F.log_softmax(_log_sigmoid(full_precision(z)), dim=-1)


def _log_sigmoid(z: Tensor) -> Tensor:
    if not torch.compiler.is_exporting():
        return F.logsigmoid(z)
    # ONNX has the logarithm of a sigmoid that has become 0; minimum() halves the gradient of a tie, as it must at 0
    return torch.minimum(z, z.new_zeros(())) - torch.log1p(torch.exp(-z.abs()))


def length(f: Tensor) -> Tensor:
    """Divisor that takes rows of f to unit length, ``[..., 1]``: 1 for a zero row, NaN where ‖f‖₂ overflows."""
    norm: Tensor = torch.linalg.vector_norm(f, dim=-1, keepdim=True)
    # infinity times 0 is NaN
    return norm * 0 + norm + (norm == 0)


def log_ratio(z: Tensor, kind: Distribution) -> Tensor:
    """``α = log(D·P)`` of logits ``[..., D]``: as exact near uniform, where it is small, as far from it.

    A log-distribution plus ``log D`` would have the rounding of ``log D``, which is 1e-5 of a usual α.
    """
    log_weight = _log_sigmoid(z) if kind == "nsf" else z
    log_weight = log_weight - log_weight.amax(-1, keepdim=True).detach()
    return log_weight - log_weight.exp().mean(-1, keepdim=True).log()


def unit_vector(feature: Tensor, center: Tensor | None = None) -> Tensor:
    """Centered feature at unit length, ``(f − μ)/‖f − μ‖₂``: ``[..., D] → [..., D]``; a zero vector stays zero."""
    centered = centered_feature(feature, center)
    return centered / length(centered)


def centered_feature(feature: Tensor, center: Tensor | None) -> Tensor:
    """``f − μ``, ``[..., D]``, in float32 at least; ``f`` where there is no center."""
    feature = full_precision(feature)
    return feature if center is None else feature - full_precision(center)


def logits_of(centered: Tensor, temperature: float | Tensor, feature_length: float | None) -> Tensor:
    """What the distribution is made of, ``[..., D]``: features over T and over a length, each one's own for None.

    NaN where they overflow.
    """
    if feature_length is None:
        return centered / (length(centered) * temperature)
    z = centered / (feature_length * temperature)
    # the sigmoid of infinity would be as good as any
    return z + (z - z)


def to_log_distribution(
    feature: Tensor,
    center: Tensor | None,
    temperature: float | Tensor,
    kind: Distribution = "nsf",
    feature_length: FeatureLength = "own",
) -> Tensor:
    """Log-distribution of a feature: center, divide by its length and by the temperature, NSF or softmax.

    Divided by its own length (L2-normalized), a feature tells its direction; by a common one, all.

    Args:
        feature: ``[..., D]``, any floating dtype.
        center: μ, ``[D]``, or None for no centering.
        temperature: T > 0.
        kind: ``"nsf"`` (the paper) or ``"softmax"`` (its ablation).
        feature_length: ``"own"`` (the paper), ``"common"`` for 0.3·√D, or a length above 0.

    Returns:
        ``[..., D]`` log-probabilities, float32 (float64 for float64 features), also inside autocast. A feature that
        equals the center gives the uniform distribution.

    Raises:
        ValueError: for a temperature or length that is not positive, an unknown kind, or D < 2.

    Source: arXiv 2601.02543, centering, L2 normalization and NSF; the common length is this library's.
    """
    if feature.shape[-1] < 2:
        raise ValueError(f"the simplex needs a feature of width D ≥ 2, got D={feature.shape[-1]}: widen the network")
    check_map(temperature, kind, feature_length)
    centered = centered_feature(feature, center)
    return log_simplex(logits_of(centered, temperature, common_length(feature_length, feature.shape[-1])), kind)


def log_simplex(z: Tensor, kind: Distribution) -> Tensor:
    """Log-distribution of logits ``[..., D]`` by the named map, as features and centroids both use it."""
    check_choice("distribution", kind, Distribution)
    return log_nsf(z) if kind == "nsf" else F.log_softmax(full_precision(z), dim=-1)
