"""Patches stream: no more than a few batches are alive, whatever the number of patches."""

from __future__ import annotations

import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from embedding_helpers import Means
from numpy.typing import NDArray
from tiling_helpers import write_slide
from torch import Tensor

from ncmi.slides.embedding import embed, embed_slides
from ncmi.slides.tiling.coords import Coords, write_coords
from ncmi.slides.tiling.slide_file import Slide, SlideError

SIDE, BATCH = 64, 16
BATCH_BYTES = BATCH * SIDE * SIDE * 3


def slide_of(folder: Path, patches: int) -> tuple[Path, Path]:
    """A small slide with so many coordinates, all of its one corner."""
    slides, tiles = folder / "slides", folder / str(patches)
    slides.mkdir(exist_ok=True)
    write_slide(slides / "a.tif", np.full((128, 128, 3), 180, dtype=np.uint8), levels=1)
    write_coords(tiles / "coords" / "a.h5", np.zeros((patches, 2)), {"patch_size": SIDE, "patch_size_level0": SIDE})
    return tiles, slides


def test_memory_does_not_grow_with_the_slide(tmp_path: Path) -> None:
    class Slow(Means):
        """Leaves the readers time to run ahead, if they did."""

        def encode(self, patches: Tensor) -> Tensor:
            time.sleep(0.003)
            return super().encode(patches)

    peaks = []
    for batches in (8, 60):
        tiles, slides = slide_of(tmp_path, batches * BATCH)
        tracemalloc.start()
        (result,) = embed_slides(tiles, slides, tiles, Slow(), batch_size=BATCH, workers=3)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (result.status, result.patches) == ("embedded", batches * BATCH)
    # three batches, what the encoder makes of one (in floats, four times as large; torch's own memory is not counted),
    # single patches on their way, and the libraries' own
    assert peaks[1] < peaks[0] + BATCH_BYTES
    assert peaks[1] < 60 * BATCH_BYTES / 5


@pytest.mark.parametrize("workers", [1, 4])
def test_two_batches_are_read_ahead_and_no_more(workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def note(slide: Slide, coords: Coords, index: int) -> NDArray[np.uint8]:
        read.append(index)
        return np.full((SIDE, SIDE, 3), index % 251, dtype=np.uint8)

    monkeypatch.setattr(embed, "read_patch", note)
    coords = Coords("a", np.zeros((50, 2), dtype=np.int64), SIDE, SIDE)
    stream = embed.patch_batches(None, coords, 8, workers)  # type: ignore[arg-type]
    seen = 0
    for batch in stream:
        assert (batch[:, 0, 0, 0] == np.arange(seen, seen + len(batch))).all()
        seen += len(batch)
        deadline = time.monotonic() + 10
        while len(read) < min(seen + 16, 50) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.01)
        assert len(read) == min(seen + 16, 50)
    assert seen == 50
    assert sorted(read) == list(range(50))


def test_a_patch_that_cannot_be_read_ends_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(slide: Slide, coords: Coords, index: int) -> NDArray[np.uint8]:
        if index == 20:
            raise SlideError("a.tif: damaged")
        return np.zeros((SIDE, SIDE, 3), dtype=np.uint8)

    monkeypatch.setattr(embed, "read_patch", fail)
    coords = Coords("a", np.zeros((1000, 2), dtype=np.int64), SIDE, SIDE)
    stream = embed.patch_batches(None, coords, 8, 2)  # type: ignore[arg-type]
    assert len(next(stream)) == len(next(stream)) == 8
    with pytest.raises(SlideError, match=r"a.tif: damaged"):
        next(stream)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("patches")]
