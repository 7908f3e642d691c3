"""Nyström attention (Xiong et al., "Nyströmformer", AAAI 2021), for one sequence of tokens."""

from __future__ import annotations

import math

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
        """``[n, d] → [n, d]``."""
        q, k, v = full_precision(self.qkv(tokens)).view(1, len(tokens), 3, self.heads, -1).transpose(1, 3).unbind(2)
        with without_autocast(tokens):
            q_landmarks, k_landmarks = segment_means(q, self.landmarks), segment_means(k, self.landmarks)
            # attention's fused kernel keeps no table [H, n, m] for the gradient
            read = F.scaled_dot_product_attention(q_landmarks, k, v)
            read = self._inverse(q_landmarks, k_landmarks) @ read
            out = F.scaled_dot_product_attention(q, k_landmarks, read) + self.neighbours(v)
        return self.output(out.transpose(1, 2).reshape(tokens.shape))  # type: ignore[no-any-return]

    def class_token(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The first token's output ``[d]`` alone, and the weights with which it reads the values, ``[H, n]``.

        They are the first row of the approximated attention matrix: some can be negative, and their sum is about 1.
        Costs less than half of all tokens' outputs: queries are needed at the landmarks alone, and as
        projections are linear, a segment's mean query is the query of its mean token.
        """
        w_q, w_kv = self.qkv.weight.split([self.dim, 2 * self.dim])
        places = torch.cat([tokens[:1], segment_means(tokens, self.landmarks)])
        q = full_precision(F.linear(places, w_q)).view(len(places), self.heads, -1).transpose(0, 1)
        kv = full_precision(F.linear(tokens, w_kv)).view(len(tokens), 2, self.heads, -1)
        k, v = kv.permute(1, 2, 0, 3)
        with without_autocast(tokens):
            q = q / math.sqrt(q.shape[-1])
            k_landmarks = segment_means(k, self.landmarks)
            own = torch.softmax(q[:, :1] @ k_landmarks.mT, -1)
            inverse = pseudo_inverse(torch.softmax(q[:, 1:] @ k_landmarks.mT, -1), self.iterations)
            row = class_row((own @ inverse)[:, 0], q[:, 1:], k)
            # the convolution reaches no further from the first token
            near = self.neighbours(v[:, : _TAPS // 2 + 1])[:, 0]
            out = (row[:, None] @ v)[:, 0] + near
        return self.output(out.flatten()), row

    def _inverse(self, q_landmarks: Tensor, k_landmarks: Tensor) -> Tensor:
        logits = q_landmarks @ k_landmarks.mT / math.sqrt(q_landmarks.shape[-1])
        return pseudo_inverse(torch.softmax(logits, -1), self.iterations)


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
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    absolute = matrices.abs()
    norms = absolute.sum(-2).amax(-1) * absolute.sum(-1).amax(-1)
    z = matrices.mT / norms[..., None, None]
    for _ in range(iterations):
        az = matrices @ z
        z = z @ (13 * identity - az @ (15 * identity - az @ (7 * identity - az))) / 4
    return z
