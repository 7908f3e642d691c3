"""A slide's patches in batches, read ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ncmi.slides.tiling.coords_file import Coords
from ncmi.slides.tiling.patches import read_patch
from ncmi.slides.tiling.slide_file import Slide

_AHEAD = 2  # batches that are read while the one before them is in use


def patch_batches(
    slide: Slide, coords: Coords, batch_size: int, workers: int
) -> Generator[NDArray[np.uint8], None, None]:
    """All patches in the order of their coordinates, in batches ``[b, patch_size, patch_size, 3]`` with b ≤ batch_size.

    Reading and decoding run in threads, where Python's lock is not held. Whatever the slide's size, no more than three
    batches are in memory: the one in use and two that are being read.

    Args:
        slide: open; several threads read from it.
        coords: of this slide.
        batch_size: at least 1.
        workers: threads, at least 1.

    Raises:
        SlideError: when it comes to a batch that cannot be read.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="patches")
    waiting: deque[tuple[NDArray[np.uint8], list[Future[None]]]] = deque()
    try:
        for start in range(0, len(coords), batch_size):
            indices = range(start, min(start + batch_size, len(coords)))
            batch = np.empty((len(indices), coords.patch_size, coords.patch_size, 3), dtype=np.uint8)
            waiting.append(
                (batch, [pool.submit(_read, slide, coords, index, batch[row]) for row, index in enumerate(indices)])
            )
            del batch
            if len(waiting) > _AHEAD:
                yield _finished(waiting)
        while waiting:
            yield _finished(waiting)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read(slide: Slide, coords: Coords, index: int, row: NDArray[np.uint8]) -> None:
    row[:] = read_patch(slide, coords, index)


def _finished(waiting: deque[tuple[NDArray[np.uint8], list[Future[None]]]]) -> NDArray[np.uint8]:
    batch, reads = waiting.popleft()
    for read in reads:
        read.result()
    return batch
