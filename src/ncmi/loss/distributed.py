"""Sums over processes, and batches gathered from all of them. With one process, everything here is the identity."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world_size() -> int:
    """Number of processes that train together; 1 where ``torch.distributed`` is not set up."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_reduce_sum(*tensors: Tensor) -> None:
    """Replace each tensor, in place, by its sum over all processes. Every process must call it."""
    if world_size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients of some parameters, in place, by their mean over all processes, as DDP does.

    One sum for all of them. A process without a gradient, as of an empty part of a batch, has one of zeros; what has
    none on any of them is left without. Every process must call it.
    """
    processes, trained = world_size(), [parameter for parameter in parameters if parameter.requires_grad]
    if processes == 1 or not trained:
        return
    filled = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    given = filled[0].new_tensor([0.0 if parameter.grad is None else 1.0 for parameter in trained])
    flat = torch.cat([given, *(gradient.flatten() for gradient in filled)])
    dist.all_reduce(flat)
    flat /= processes
    counts, *parts = flat.split([len(trained), *(parameter.numel() for parameter in trained)])
    anywhere = [True] * len(trained) if all(p.grad is not None for p in trained) else (counts > 0).tolist()
    for parameter, part, has in zip(trained, parts, anywhere, strict=True):
        if has:
            parameter.grad = part.view_as(parameter).to(parameter.dtype)


class _GatherRows(torch.autograd.Function):
    """All processes' rows, concatenated in order of rank.

    Every process goes on to compute the same loss of the whole batch, so the gradient of a process's own rows is
    complete already: no communication backwards. It is multiplied by the number of processes because DDP then
    takes the mean over processes where the sum is wanted.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: tuple[int, ...], rank: int) -> Tensor:
        start = sum(counts[:rank])
        ctx.own = slice(start, start + counts[rank])
        ctx.processes = len(counts)
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: rows.shape[0]] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0][ctx.own] * ctx.processes, None, None


def gather_rows(rows: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Rows of all processes ``[Σ counts, ...]``, with gradient; ``counts[r]`` is the number of rows of process r."""
    if world_size() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows, counts, dist.get_rank())  # type: ignore[no-untyped-call]
    return gathered


def gather_batch(rows: Tensor, labels: Tensor, gather: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Rows and labels of all processes, in order of rank, where each may have another number of them.

    ``gather`` stacks a tensor of all processes, ``[...] → [world, ...]``.
    """
    counts = tuple(int(n) for n in gather(torch.tensor([len(rows)], device=rows.device)))
    padded = labels.new_zeros(max(counts))
    padded[: len(labels)] = labels
    parts = gather(padded)
    return gather_rows(rows, counts), torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)])
