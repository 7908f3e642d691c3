"""Coordinates and slides to features files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ncmi.files import PARTIAL
from ncmi.slides.embedding.encoder import Encoder
from ncmi.slides.embedding.features_file import EmbedError, Precision, is_made
from ncmi.slides.embedding.one_slide import Settings, embed_slide
from ncmi.slides.embedding.result import EmbedResult, write_summary
from ncmi.slides.embedding.work_list import Work, find_work
from ncmi.slides.tiling.coords_file import CoordsError


def embed_slides(
    tiles: str | Path,
    slides: str | Path,
    out: str | Path,
    encoder: Encoder,
    *,
    batch_size: int = 64,
    workers: int = 0,
    precision: Precision = "float16",
    overwrite: bool = False,
    on_slide: Callable[[EmbedResult], None] = lambda result: None,
    on_patches: Callable[[str, int, int], None] = lambda slide, done, total: None,
) -> list[EmbedResult]:
    """Make features of all patches of all slides.

    Writes OUT/features/SLIDE.h5 of each slide (``features`` [N, D], ``coords`` [N, 2] with the attributes of the
    coordinates file, root attributes ``encoder`` and ``encoder_version``) and OUT/embed_summary.csv (slide, status,
    patches, reason). Slides that an earlier call has finished are kept, whether or not their pictures are still there;
    slides that failed are tried again. A slide's patches are read while those before them are encoded; its size does
    not matter to the memory.

    Args:
        tiles: the folder that tiling wrote; may be ``out``.
        slides: folder of the slides, with its subfolders.
        out: the folder to write.
        encoder: see :func:`ncmi.slides.embedding.make_encoder`.
        batch_size: patches that are encoded at once.
        workers: threads that read patches; 0 for one a processor.
        precision: of the features in the file.
        overwrite: make all files anew, also those of another encoder.
        on_slide: called with each slide's result.
        on_patches: called after each batch with the slide's name, patches done, and all its patches.

    Returns:
        The result of each slide, by name. A slide or coordinates file that is missing or cannot be read, and features
        that are not finite in ``precision``, have the status "failed" and their reason.

    Raises:
        EmbedError: if there are no coordinates; if OUT holds features of another encoder, precision or coordinates
            (without ``overwrite``); or if another process embeds into it.
        SlideError: if the folder of slides is missing or holds none.
        OSError: if the files cannot be written.
        KeyboardInterrupt: on Ctrl-C; finished slides are kept, and the same call goes on.
    """
    if batch_size < 1 or workers < 0:
        raise ValueError(f"batch_size={batch_size}, workers={workers}: at least 1 patch, and 0 workers or more")
    settings = Settings(encoder, batch_size, workers or _processors(), precision, on_patches)
    work, out = find_work(Path(tiles), Path(slides)), Path(out)
    features = out / "features"
    done: list[EmbedResult] = []
    with _locked(features):
        kept = {} if overwrite else _kept(work, features, encoder, precision)
        try:
            for item in work:
                result = kept.get(item.slide)
                if result is None:
                    path = features / f"{item.slide}.h5"
                    result = embed_slide(item, path, settings)
                    if overwrite and result.status != "embedded":
                        path.unlink(missing_ok=True)  # of another encoder, perhaps: it would be taken for this one's
                done.append(result)
                on_slide(result)
        finally:
            write_summary(out / "embed_summary.csv", done)
    return done


def _kept(work: list[Work], features: Path, encoder: Encoder, precision: Precision) -> dict[str, EmbedResult]:
    """What is finished already. Files that are in the way are an error before any work is done."""
    kept = {}
    for item in work:
        path = features / f"{item.slide}.h5"
        if not path.exists():
            continue
        try:
            coords = item.read_coords()
        except (EmbedError, CoordsError):
            continue  # reported in its turn
        if is_made(path, coords, encoder, precision):
            kept[item.slide] = EmbedResult(item.slide, "embedded", len(coords), made=False)
    return kept


@contextmanager
def _locked(features: Path) -> Iterator[None]:
    """Keep other processes out, and remove what one that was killed left half-written."""
    features.mkdir(parents=True, exist_ok=True)
    lock = FileLock(features / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise EmbedError(
            f"{features}: another process embeds into this folder: wait until it has finished, or choose another out"
        ) from None
    try:
        for leftover in features.glob(f".*{PARTIAL}"):
            leftover.unlink()
        yield
    finally:
        lock.release()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
