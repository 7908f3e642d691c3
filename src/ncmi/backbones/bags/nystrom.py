"""Nyström attention (Xiong et al., "Nyströmformer", AAAI 2021), for sequences of tokens of one length."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ncmi.backbones.bags.class_row import class_row
from ncmi.backbones.bags.projection import without_autocast
from ncmi.backbones.bags.query_attention import check_heads
from ncmi.simplex import full_precision

_TAPS = 33  # of the convolution over values


class NystromAttention(nn.Module):
    """Self-attention ``softmax(Q K̃ᵀ) · pinv(softmax(Q̃ K̃ᵀ)) · softmax(Q̃ Kᵀ) · V`` plus a convolution of V.

    Q̃ and K̃ are landmarks, means of segments of Q and K; logits are divided by √(d/H). Segments are as equal as they
    can be, and a sequence of no more tokens than landmarks is its own landmarks: no padding takes part. Outputs of the
    heads are joined by a linear layer. Everything after Q, K, V is in float32 at least, also inside autocast: the
    iteration for the pseudo-inverse would not bear less.

    Args:
        dim: d of the tokens.
        heads: H, a divisor of d.
        landmarks: m.
        iterations: of the pseudo-inverse.

    Source: arXiv 2102.03902, Eq. 13–15 and the skip connection by a depth-wise convolution of V.
    """

    def __init__(self, dim: int, heads: int = 8, landmarks: int = 256, iterations: int = 6) -> None:
        super().__init__()
        check_heads(dim, heads)
        if landmarks < 1:
            raise ValueError(f"landmarks={landmarks}: must be at least 1")
        self.dim, self.heads, self.landmarks, self.iterations = dim, heads, landmarks, iterations
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.neighbours = nn.Conv2d(heads, heads, (_TAPS, 1), padding=(_TAPS // 2, 0), groups=heads, bias=False)
        self.output = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[G, n, d] → [G, n, d]``: each of G sequences by itself."""
        q, k, v = self._by_head(self.qkv(tokens), 3)
        with without_autocast(tokens):
            q_landmarks, k_landmarks = segment_means(q, self.landmarks), segment_means(k, self.landmarks)
            # attention's fused kernel keeps no table [H, n, m] for the gradient
            read = F.scaled_dot_product_attention(q_landmarks, k, v)
            landmarks = torch.softmax(q_landmarks @ k_landmarks.mT / math.sqrt(q.shape[-1]), -1)
            read = pseudo_inverse_times(landmarks, read, self.iterations)
            out = F.scaled_dot_product_attention(q, k_landmarks, read) + self.neighbours(v)
        return self.output(out.transpose(1, 2).reshape(tokens.shape))  # type: ignore[no-any-return]

    def _by_head(self, projected: Tensor, parts: int) -> Sequence[Tensor]:
        """``[G, n, parts · d]`` as ``parts`` tensors ``[G, H, n, d/H]``."""
        whole = full_precision(projected).view(*projected.shape[:2], parts, self.heads, -1)
        return whole.permute(2, 0, 3, 1, 4).unbind()

    def class_token(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The first tokens' outputs ``[G, d]`` alone, and the weights with which they read the values, ``[G, H, n]``.

        They are the first row of the approximated attention matrix: some can be negative, and their sum is about 1.
        Costs less than half of all tokens' outputs: queries are needed at the landmarks alone, and as
        projections are linear, a segment's mean query is the query of its mean token.
        """
        w_q, w_kv = self.qkv.weight.split([self.dim, 2 * self.dim])
        places = torch.cat([tokens[:, :1], segment_means(tokens, self.landmarks)], 1)
        (q,) = self._by_head(F.linear(places, w_q), 1)
        k, v = self._by_head(F.linear(tokens, w_kv), 2)
        with without_autocast(tokens):
            q = q / math.sqrt(q.shape[-1])
            k_landmarks = segment_means(k, self.landmarks)
            own, q = q.split([1, q.shape[2] - 1], 2)
            own = torch.softmax(own @ k_landmarks.mT, -1)
            # the transpose of the pseudo-inverse is that of the transpose
            landmarks = torch.softmax(q @ k_landmarks.mT, -1).mT
            own = pseudo_inverse_times(landmarks, own.mT, self.iterations).squeeze(-1)
            row = class_row(own, q, k)
            # the convolution reaches no further from the first token
            near = self.neighbours(v[:, :, : _TAPS // 2 + 1])[:, :, 0]
            out = (row.unsqueeze(2) @ v).squeeze(2) + near
        return self.output(out.flatten(1)), row


def segment_means(tokens: Tensor, segments: int) -> Tensor:
    """Means of ``segments`` successive parts, ``[..., n, k] → [..., min(segments, n), k]``; the first are the longer.

    Example:
        >>> segment_means(torch.arange(5.0)[:, None], 2).flatten()
        tensor([1.0000, 3.5000])
    """
    count = tokens.shape[-2]
    if count <= segments:
        return tokens
    length, longer = divmod(count, segments)
    first, rest = tokens.split([longer * (length + 1), count - longer * (length + 1)], -2)
    means = [first.unflatten(-2, (longer, length + 1)).mean(-2)] if longer else []
    return torch.cat([*means, rest.unflatten(-2, (segments - longer, length)).mean(-2)], -2)


def pseudo_inverse(matrices: Tensor, iterations: int) -> Tensor:
    """Iteration for the pseudo-inverse of each matrix ``[..., m, m]``, from ``Aᵀ / (‖A‖₁ ‖A‖_∞)`` of that matrix.

    ``Z ← Z (13 − A Z (15 − A Z (7 − A Z))) / 4`` converges cubically. Source: arXiv 2102.03902, Eq. 11.
    """
    count, shape = matrices.shape[-1], matrices.shape
    matrices = matrices.reshape(-1, count, count)
    absolute = matrices.abs()
    norms = absolute.sum(-2).amax(-1) * absolute.sum(-1).amax(-1)
    z = matrices.mT / norms[..., None, None]
    identity = torch.eye(count, dtype=matrices.dtype, device=matrices.device)
    seven, fifteen, thirteen = 7 * identity, 15 * identity, -13 * identity
    for _ in range(iterations):
        az = matrices @ z
        # product and multiple of I in one kernel, signs so that nothing is left to scale: small bags wait for kernels
        negative = torch.baddbmm(thirteen, az, torch.baddbmm(fifteen, az, az - seven))
        z = (z / -4) @ negative
    return z.view(shape)


def pseudo_inverse_times(matrices: Tensor, right: Tensor, iterations: int) -> Tensor:
    """``pseudo_inverse(matrices, iterations) @ right``, ``[..., m, k]``.

    The last iteration is never made for a whole matrix: for narrow ``right`` it then costs nearly nothing.
    """
    if iterations == 0:
        return pseudo_inverse(matrices, 0) @ right
    z = pseudo_inverse(matrices, iterations - 1)
    once = matrices @ (z @ right)
    twice = matrices @ (z @ once)
    thrice = matrices @ (z @ twice)
    return z @ (13 * right - 15 * once + 7 * twice - thrice) / 4
