"""TransMIL (Shao et al., NeurIPS 2021) and its attention, Nyströmformer's (Xiong et al., AAAI 2021)."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ncmi.loss.simplex import full_precision
from ncmi.networks.bags.attention import check_heads, without_autocast
from ncmi.networks.bags.packing import TOGETHER, PackedNetwork, Pooled

_SIZES = (7, 5, 3)  # of the kernels of the position encoding
_TAPS = 33  # of the convolution over values
_AT_A_TIME = 1 << 22  # entries of the softmax of class_row: 16 MB in float32


class TransMIL(PackedNetwork):
    """Two layers of Nyström attention over a bag's instances and a class token, position encoding in between.

    Instances are made up to a square by repeating the first of them, in the order in which they come; each layer is
    ``x + attention(LayerNorm(x))``; the bag vector is the LayerNorm of the class token. Of the last layer the class
    token alone is worked out, as nothing else is read.

    Attention: the class token's row of the last layer's attention matrix as Nyström's product approximates it, that is
    the factors with which the layer really reads the instances' values; not the softmax that it stands for. They are
    averaged over heads and added up over an instance's repetitions. The approximation makes some of them negative, the
    more so the more alike landmarks are; these instances count as not attended to (0), and the others are divided by
    their sum. It says nothing of what the first layer has mixed, and has no gradient.

    Args:
        instance_dim, width, dropout: of a :class:`PackedNetwork`; the bag vector is ``[d]``.
        heads: of the attention, a divisor of d.
        landmarks: of the attention; 0 for d/2.

    Source: arXiv 2106.00908, with the attention of arXiv 2102.03902.

    Example:
        >>> output = TransMIL(instance_dim=32)(torch.randn(7, 32))
        >>> output.vector.shape, output.attention.shape
        (torch.Size([128]), torch.Size([7]))
    """

    def __init__(
        self, instance_dim: int, *, width: int = 0, dropout: float = 0.0, heads: int = 8, landmarks: int = 0
    ) -> None:
        super().__init__(instance_dim, width, dropout)
        dim = self.feature_dim
        self.class_token = nn.Parameter(torch.randn(1, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.first = NystromAttention(dim, heads, landmarks or max(dim // 2, 1))
        self.positions = PPEG(dim)
        self.last = NystromAttention(dim, heads, landmarks or max(dim // 2, 1))

    def groups(self, sizes: list[int]) -> list[list[int]]:
        """Bags whose squares are equal have segments and pseudo-inverses of equal sizes."""
        by_side: dict[int, list[list[int]]] = {}
        for bag, size in enumerate(sizes):
            side = _side(size)
            groups = by_side.setdefault(side, [[]])
            if (len(groups[-1]) + 1) * side**2 > TOGETHER and groups[-1]:
                groups.append([])
            groups[-1].append(bag)
        return [group for groups in by_side.values() for group in groups]

    def pool(self, mask: Tensor | None, *parts: Tensor) -> Pooled:
        (instances,) = parts
        count, longest, dim = instances.shape
        side = _side(longest)
        # the first instances again where the square is not full
        turn = torch.arange(side**2, device=instances.device)
        if mask is None:
            mask = torch.ones((count, longest), dtype=torch.bool, device=instances.device)
            places = (turn % longest).expand(count, -1)
            square = torch.cat([instances, instances[:, : side**2 - longest]], 1)
        else:
            places = turn % mask.sum(1, keepdim=True)
            square = instances.gather(1, places.unsqueeze(-1).expand(-1, -1, dim))
        tokens = torch.cat([self.class_token.to(instances.dtype).expand(count, 1, dim), square], 1)
        tokens = tokens + self.first(self.norms[0](tokens))
        class_token, square = tokens.split([1, side**2], 1)
        tokens = torch.cat([class_token, self.positions(square, side)], 1)
        read, row = self.last.class_token(self.norms[1](tokens))
        vector = self.norms[2](class_token[:, 0] + read)
        return Pooled(vector, _attention(row.detach(), places, mask))


def _side(size: int) -> int:
    """Side of the smallest square that holds a bag."""
    return math.isqrt(size - 1) + 1


def _attention(row: Tensor, places: Tensor, mask: Tensor) -> Tensor:
    """Shares of the instances ``[G, N]``, from the class tokens' rows ``[G, H, 1 + s²]``.

    Args:
        row: factors with which class tokens read themselves and the square.
        places: which of the N stands at each place of the square, ``[G, s²]``.
        mask: which of the N are instances, ``[G, N]``.
    """
    share = row.new_zeros(mask.shape).scatter_add_(1, places, row.mean(1)[:, 1:]).clamp_min_(0)
    total = share.sum(1, keepdim=True)
    # where the class token reads itself alone, to the last digit, no instance counts more than another
    return torch.where(total > 0, share / total, mask / mask.sum(1, keepdim=True).to(share.dtype))


class PPEG(nn.Module):
    """Pyramid position encoding generator: ``x + C₇ x + C₅ x + C₃ x``, ``[G, s², d] → [G, s², d]``.

    C are depth-wise convolutions over a square of tokens.
    The sum of the three is one convolution with the sum of their kernels, so it is worked out as one.

    Args:
        dim: d.

    Source: arXiv 2106.00908, position encoding by convolutions of several sizes.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(dim, dim, size, padding=size // 2, groups=dim) for size in _SIZES)

    def forward(self, tokens: Tensor, side: int) -> Tensor:
        weight, bias = tokens.new_zeros(()), tokens.new_zeros(())
        for part in self.convolutions:
            assert isinstance(part, nn.Conv2d)
            assert part.bias is not None
            margin = (_SIZES[0] - part.kernel_size[0]) // 2
            weight = weight + F.pad(part.weight, (margin,) * 4)
            bias = bias + part.bias
        square = tokens.view(len(tokens), side, side, -1).permute(0, 3, 1, 2)  # as it lies: channels last
        moved = F.conv2d(square, weight, bias, padding=_SIZES[0] // 2, groups=tokens.shape[2])
        return tokens + moved.permute(0, 2, 3, 1).reshape(tokens.shape)


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
        self.neighbors = nn.Conv2d(heads, heads, (_TAPS, 1), padding=(_TAPS // 2, 0), groups=heads, bias=False)
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
            out = F.scaled_dot_product_attention(q, k_landmarks, read) + self.neighbors(v)
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
            first, q = q.split([1, q.shape[2] - 1], 2)
            first = torch.softmax(first @ k_landmarks.mT, -1)
            # the transpose of the pseudo-inverse is that of the transpose
            landmarks = torch.softmax(q @ k_landmarks.mT, -1).mT
            first = pseudo_inverse_times(landmarks, first.mT, self.iterations).squeeze(-1)
            row = class_row(first, q, k)
            # the convolution reaches no further from the first token
            near = self.neighbors(v[:, :, : _TAPS // 2 + 1])[:, :, 0]
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


class _ClassRow(torch.autograd.Function):
    """``row_k = weights_k · softmax(landmarks_k · keys_kᵀ)`` head by head, several at a time where they are small.

    A head's softmax ``[m, n]`` is made again for the gradient instead of being kept: for 50,000 tokens, 256 landmarks
    and 8 heads that is 51 MB at a time instead of 410 MB held, and less time than autograd takes with its copies.
    """

    @staticmethod
    def forward(weights: Tensor, landmarks: Tensor, keys: Tensor) -> Tensor:
        row = keys.new_empty(keys.shape[:-1])
        for part in _parts(landmarks, keys):
            share = torch.softmax(landmarks[part] @ keys[part].mT, -1)
            torch.matmul(weights[part].unsqueeze(1), share, out=row[part].unsqueeze(1))
        return row

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weights, landmarks, keys = ctx.saved_tensors
        gradients = [torch.empty_like(weights), torch.empty_like(landmarks), torch.empty_like(keys)]
        with without_autocast(gradient):
            for part in _parts(landmarks, keys):
                weight, landmark, key, grad = weights[part], landmarks[part], keys[part], gradient[part].unsqueeze(-1)
                share = torch.softmax(landmark @ key.mT, -1)
                mean = share @ grad
                # softmax's Jacobian: share ⊙ (grad − mean), to be scaled by the landmark's weight
                share.mul_(grad.mT - mean)
                gradients[0][part] = mean.squeeze(-1)
                gradients[1][part] = weight.unsqueeze(-1) * (share @ key)
                gradients[2][part] = share.mT @ (weight.unsqueeze(-1) * landmark)
        return gradients[0], gradients[1], gradients[2]


def _parts(landmarks: Tensor, keys: Tensor) -> Iterator[slice]:
    """Slices of the first dimension whose softmax is small enough to be made at once; of one entry at least."""
    step = max(1, _AT_A_TIME // (landmarks.shape[1] * keys.shape[1]))
    for start in range(0, len(keys), step):
        yield slice(start, start + step)


def class_row(weights: Tensor, landmarks: Tensor, keys: Tensor) -> Tensor:
    """``weights [..., m]``, ``landmarks [..., m, k]``, ``keys [..., n, k] → [..., n]``; logits are taken as they are.

    Example:
        >>> row = class_row(torch.ones(2, 1), torch.zeros(2, 1, 3), torch.randn(2, 5, 3))
        >>> row[0]
        tensor([0.2000, 0.2000, 0.2000, 0.2000, 0.2000])
    """
    inputs = weights.flatten(0, -2), landmarks.flatten(0, -3), keys.flatten(0, -3)
    row: Tensor = _ClassRow.apply(*inputs)  # type: ignore[no-untyped-call]
    return row.view(keys.shape[:-1])
