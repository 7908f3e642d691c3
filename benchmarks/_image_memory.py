"""Peak memory of a training step, to the byte.

On CUDA it is ``torch.cuda.max_memory_allocated``. On a CPU it is the same quantity, of PyTorch's CPU allocator: the
profiler reports every allocation and every release as it happens. It is on from before the model is made, so weights,
momentum, the batch, and whatever a loss keeps, all count, and the largest running sum during the measured step is its
peak. The resident memory of the process would not do: it moves in pages, and what the C library keeps is in it. Scratch
memory inside oneDNN's convolutions is not PyTorch's and does not show; it is the network's, the same for every loss.
"""

from __future__ import annotations

import gc
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from _image_steps import Bare
from ncmi.data import Dataset
from ncmi.recipes import Recipe

_MEASURED = "measured step"


def peak_of_step(recipe: Recipe, dataset: Dataset, device: torch.device) -> int:
    """Bytes at the peak of the third step: gradients dropped, forward, loss, backward, optimiser."""
    gc.collect()
    if device.type == "cuda":
        return _on_cuda(recipe, dataset, device)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        bare = Bare(recipe, dataset, device)
        bare.steps(2)  # momentum is there after the first
        gc.collect()
        with record_function(_MEASURED):
            bare.steps(1)
    kineto = profiler.profiler
    assert kineto is not None
    assert kineto.kineto_results is not None
    events = kineto.kineto_results.events()
    begin, end = next(
        (event.start_ns(), event.start_ns() + event.duration_ns()) for event in events if event.name() == _MEASURED
    )
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    totals = accumulate(change for _, change in changes)
    return max(total for (at, _), total in zip(changes, totals, strict=True) if begin <= at <= end)


def _on_cuda(recipe: Recipe, dataset: Dataset, device: torch.device) -> int:
    # cuDNN's trials would take other workspaces each time
    with torch.backends.cudnn.flags(enabled=True, benchmark=False):
        before = torch.cuda.memory_allocated(device)
        bare = Bare(recipe, dataset, device)
        bare.steps(2)
        gc.collect()
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        bare.steps(1)
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
