"""Steps of our loop and bare steps, one after the other."""

from __future__ import annotations

import itertools
import statistics
import time

import torch
from torch import Tensor

from _bench import Row, ratios
from _image_steps import Bare, Ours

Times = list[tuple[float, float]]


def paired_steps(what: str, ours: Ours, bare: Bare, epochs: int, bar: float) -> Row:
    """Time of a step of our loop over that of the bare step before it; CPU only.

    Everything the loop does from one step to the next counts as its step. The first epoch warms up. The median is of
    all pairs, the range of the medians of the epochs; a pair is so short that other work on the machine slows both.
    """
    loop, batches = ours.loop, itertools.cycle(bare.batches)
    inner = loop._step
    theirs: Times = []
    own: Times = []
    ended: tuple[float, float] | None = None

    def now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def step(batch: Tensor) -> None:
        nonlocal ended
        begun = now()
        if ended is not None:
            own.append(_difference(begun, ended))
        bare.step(*next(batches))
        ended = now()
        theirs.append(_difference(ended, begun))
        inner(batch)

    loop._step = step  # type: ignore[method-assign]
    found: list[list[float]] = []
    processor: list[float] = []
    spent: list[float] = []
    for epoch in range(epochs + 1):
        own.clear()
        theirs.clear()
        ended = None
        ours.epoch()
        if epoch:
            pairs = list(zip(own, theirs, strict=False))  # after an epoch's last step comes its end, which is no step
            found.append(ratios([a[0] for a, _ in pairs], [b[0] for _, b in pairs]))
            processor += ratios([a[1] for a, _ in pairs], [b[1] for _, b in pairs])
            spent += [b[0] for _, b in pairs]
    loop._step = inner  # type: ignore[method-assign]
    medians = [statistics.median(one) for one in found]
    value = statistics.median(itertools.chain.from_iterable(found))
    note = f"bare step {1e3 * statistics.median(spent):.1f} ms"
    if torch.get_num_threads() == 1:
        note += f"; processor time {statistics.median(processor):.3f} ×"
    count = sum(map(len, found))
    return Row(what, value, min(medians), max(medians), bar=bar, digits=3, repeats=count, note=note)


def _difference(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return a[0] - b[0], a[1] - b[1]
