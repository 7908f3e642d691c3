"""Pyramid position encoding generator (Shao et al., "TransMIL", NeurIPS 2021)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

_SIZES = (7, 5, 3)


class PPEG(nn.Module):
    """``x + C₇ x + C₅ x + C₃ x`` with depth-wise convolutions over a square of tokens: ``[G, s², d] → [G, s², d]``.

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
