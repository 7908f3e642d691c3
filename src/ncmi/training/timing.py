"""Measuring on a machine that does other things as well: calls take turns, medians have intervals, peaks are exact."""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch.profiler import ProfilerActivity, profile, record_function

Times = list[tuple[float, float]]
"""Wall-clock and processor seconds of repeated calls."""
_MEASURED = "measured call"


def seconds_of(call: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Wall-clock and processor seconds of a call, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begun, processor_begun = time.perf_counter(), time.process_time()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun, time.process_time() - processor_begun


def in_turns(
    calls: Mapping[str, Callable[[], object]],
    repeats: int,
    device: torch.device,
    on_round: Callable[[int], None] = lambda number: None,
) -> dict[str, Times]:
    """Seconds (wall-clock, processor) of each call in each repetition; the first one, which warms up, is left out.

    Calls take turns, each time beginning with another one, so that a machine that slows down slows all of them.
    ``on_round`` is called after each repetition with its number, 0 for that which warms up.
    """
    times: dict[str, Times] = {name: [] for name in calls}
    names = list(calls)
    for repeat in range(repeats + 1):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            spent = seconds_of(calls[name], device)
            if repeat:
                times[name].append(spent)
        on_round(repeat)
    return times


def wall(times: Times) -> list[float]:
    """Wall-clock seconds alone."""
    return [seconds for seconds, _ in times]


def processor(times: Times) -> list[float]:
    """Processor seconds alone."""
    return [seconds for _, seconds in times]


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """An interval of the median between two of the values, whatever their distribution; None of fewer than six.

    Between the r-th smallest and the r-th largest of n values the median lies with probability 1 − 2·P(X < r), X
    binomial (n, ½); r is the largest with which that is at least ``confidence``.

    >>> median_interval([5, 1, 4, 2, 3, 6]), median_interval([1, 2, 3, 4, 5])
    ((1, 6), None)
    """
    order = sorted(values)
    below = itertools.accumulate(math.comb(len(order), number) / 2 ** len(order) for number in range(len(order)))
    rank = sum(2 * share <= 1 - confidence for share in below)
    return (order[rank - 1], order[-rank]) if rank else None


def peak_of(make: Callable[[], Callable[[], object]], device: torch.device) -> int:
    """Bytes at the peak of the third call of what ``make`` makes, with all that this holds.

    On CUDA it is ``torch.cuda.max_memory_allocated``; on a CPU the same quantity, of PyTorch's CPU allocator: the
    profiler reports every allocation and release, from before ``make`` on. The resident memory of the process would not
    do: it moves in pages, and what the C library keeps is in it. Scratch memory inside oneDNN's convolutions does not
    show: it is the network's, the same for every loss.
    """
    gc.collect()
    if device.type == "cuda":
        return _peak_on_cuda(make, device)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call = make()
        call()
        call()
        gc.collect()
        with record_function(_MEASURED):
            call()
    kineto = profiler.profiler
    assert kineto is not None
    assert kineto.kineto_results is not None
    events = kineto.kineto_results.events()
    begin, end = next(
        (event.start_ns(), event.start_ns() + event.duration_ns()) for event in events if event.name() == _MEASURED
    )
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    totals = itertools.accumulate(change for _, change in changes)
    highest: int = max(total for (at, _), total in zip(changes, totals, strict=True) if begin <= at <= end)
    return highest


def _peak_on_cuda(make: Callable[[], Callable[[], object]], device: torch.device) -> int:
    # cuDNN's trials would take other workspaces each time
    with torch.backends.cudnn.flags(enabled=True, benchmark=False):
        before = torch.cuda.memory_allocated(device)
        call = make()
        call()
        call()
        gc.collect()
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        highest: int = torch.cuda.max_memory_allocated(device)
        return highest - before
