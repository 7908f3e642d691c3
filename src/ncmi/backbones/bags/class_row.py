"""One row of Nyström attention: the weights with which the class token reads all tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ncmi.backbones.bags.projection import without_autocast


class _ClassRow(torch.autograd.Function):
    """``row_k = weights_k · softmax(landmarks_k · keys_kᵀ)`` head by head.

    A head's softmax ``[m, n]`` is made again for the gradient instead of being kept: for 50,000 tokens, 256 landmarks
    and 8 heads that is 51 MB at a time instead of 410 MB held, and less time than autograd takes with its copies.
    """

    @staticmethod
    def forward(weights: Tensor, landmarks: Tensor, keys: Tensor) -> Tensor:
        rows = [
            weight @ torch.softmax(landmark @ key.T, -1)
            for weight, landmark, key in zip(weights, landmarks, keys, strict=True)
        ]
        return torch.stack(rows)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weights, landmarks, keys = ctx.saved_tensors
        found = [torch.empty_like(weights), torch.empty_like(landmarks), torch.empty_like(keys)]
        with without_autocast(gradient):
            for head, (weight, landmark, key, grad) in enumerate(zip(weights, landmarks, keys, gradient, strict=True)):
                share = torch.softmax(landmark @ key.T, -1)
                mean = share @ grad
                # softmax's Jacobian: share ⊙ (grad − mean), to be scaled by the landmark's weight
                share.mul_(grad - mean[:, None])
                found[0][head] = mean
                found[1][head] = weight[:, None] * (share @ key)
                found[2][head] = share.T @ (weight[:, None] * landmark)
        return found[0], found[1], found[2]


def class_row(weights: Tensor, landmarks: Tensor, keys: Tensor) -> Tensor:
    """``weights [H, m]``, ``landmarks [H, m, k]``, ``keys [H, n, k] → [H, n]``; logits are taken as they are.

    Example:
        >>> row = class_row(torch.ones(2, 1), torch.zeros(2, 1, 3), torch.randn(2, 5, 3))
        >>> row[0]
        tensor([0.2000, 0.2000, 0.2000, 0.2000, 0.2000])
    """
    row: Tensor = _ClassRow.apply(weights, landmarks, keys)  # type: ignore[no-untyped-call]
    return row
