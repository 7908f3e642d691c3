"""One row of Nyström attention: the weights with which the class token reads all tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ncmi.backbones.bags.projection import without_autocast

_AT_A_TIME = 1 << 22  # entries of the softmax: 16 MB in float32


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
        found = [torch.empty_like(weights), torch.empty_like(landmarks), torch.empty_like(keys)]
        with without_autocast(gradient):
            for part in _parts(landmarks, keys):
                weight, landmark, key, grad = weights[part], landmarks[part], keys[part], gradient[part].unsqueeze(-1)
                share = torch.softmax(landmark @ key.mT, -1)
                mean = share @ grad
                # softmax's Jacobian: share ⊙ (grad − mean), to be scaled by the landmark's weight
                share.mul_(grad.mT - mean)
                found[0][part] = mean.squeeze(-1)
                found[1][part] = weight.unsqueeze(-1) * (share @ key)
                found[2][part] = share.mT @ (weight.unsqueeze(-1) * landmark)
        return found[0], found[1], found[2]


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
