"""Coordinates and slides to features files: written as patches are read, whole or not at all, and recognized again."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from ncmi.errors import reason
from ncmi.files import PARTIAL, write_atomically
from ncmi.slides.embedding.encoder import Encoder, EncoderError
from ncmi.slides.tiling.coords import Coords, CoordsError, read_coords, read_patch
from ncmi.slides.tiling.slide_file import Slide, SlideError, find_slides
from ncmi.slides.work import SlideResult, write_summary
from ncmi.training.workers import processors

Precision = Literal["float16", "float32"]
ENCODER, VERSION = "encoder", "encoder_version"
"""Root attributes that say what made the features."""
_AHEAD = 2  # batches that are read while the one before them is in use
_FOLDERS = ("coords", "patches", ".")  # ours; TRIDENT's and CLAM's; the folder itself
_ENDING = "_patches"  # of TRIDENT's names
_SIZE = ("level0_width", "level0_height")


class EmbedError(ValueError):
    """Slides cannot be embedded; the message names the file, the reason and the cure."""


@dataclass(frozen=True)
class _Work:
    """One slide: its name, its coordinates file and its own, None where it has none."""

    slide: str
    coords: Path | None
    path: Path | None

    def read_coords(self) -> Coords:
        if self.coords is None:
            raise EmbedError(
                f"{self.path}: has no coordinates: tile it first (the tiling's summary.csv says if that failed)"
            )
        return read_coords(self.coords)


@dataclass(frozen=True)
class _Settings:
    """How slides are embedded; see :func:`ncmi.slides.embedding.embed_slides`."""

    encoder: Encoder
    batch_size: int
    workers: int
    precision: Precision
    on_patches: Callable[[str, int, int], None]


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
    on_slide: Callable[[SlideResult], None] = lambda result: None,
    on_patches: Callable[[str, int, int], None] = lambda slide, done, total: None,
) -> list[SlideResult]:
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
    settings = _Settings(encoder, batch_size, workers or processors(), precision, on_patches)
    work, out = _find_work(Path(tiles), Path(slides)), Path(out)
    features = out / "features"
    done: list[SlideResult] = []
    with _locked(features):
        kept = {} if overwrite else _kept(work, features, encoder, precision)
        try:
            for item in work:
                result = kept.get(item.slide)
                if result is None:
                    path = features / f"{item.slide}.h5"
                    result = _embed_slide(item, path, settings)
                    if overwrite and result.status != "embedded":
                        path.unlink(missing_ok=True)  # of another encoder, perhaps: it would be taken for this one's
                done.append(result)
                on_slide(result)
        finally:
            write_summary(out / "embed_summary.csv", done)
    return done


def _kept(work: list[_Work], features: Path, encoder: Encoder, precision: Precision) -> dict[str, SlideResult]:
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
        _check_made(path, coords, encoder, precision)
        kept[item.slide] = SlideResult(item.slide, "embedded", len(coords), made=False, path=item.path)
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


def _embed_slide(work: _Work, path: Path, settings: _Settings) -> SlideResult:
    """Write a features file. A slide that cannot be read or encoded is a result like any other, with its reason."""
    start = time.perf_counter()

    def result(status: Literal["embedded", "no patches", "failed"], patches: int = 0, reason: str = "") -> SlideResult:
        seconds = time.perf_counter() - start
        return SlideResult(work.slide, status, patches, reason, path=work.path, seconds=seconds)

    try:
        coords = work.read_coords()
        if work.path is None:
            raise EmbedError(
                f"{work.coords}: there is no slide {work.slide} in the folder of slides: add it, or remove this file"
            )
        if not len(coords):
            return result("no patches", reason=f"{work.coords}: holds no patches: see its thumbnail")
        with Slide(work.path) as slide:
            _check_size(slide, coords)
            # closed before the slide, from which its threads read
            with closing(_features(slide, coords, work.slide, settings)) as features:
                _write_features(path, coords, settings.encoder, features, settings.precision)
    except (CoordsError, SlideError, EmbedError, EncoderError) as error:
        return result("failed", reason=str(error))
    except MemoryError:
        return result("failed", reason=f"{work.path}: out of memory: give a smaller batch_size, or smaller patches")
    return result("embedded", len(coords))


def _features(slide: Slide, coords: Coords, name: str, settings: _Settings) -> Generator[Tensor, None, None]:
    """Features ``[b, D]`` of one batch after the other."""
    encoder, done = settings.encoder, 0
    with closing(patch_batches(slide, coords, settings.batch_size, settings.workers)) as batches:
        for batch in batches:
            features = encoder.encode(torch.from_numpy(batch))
            shape = (len(batch), encoder.feature_dim)
            if tuple(features.shape) != shape:
                what = f"{encoder.name} returned {list(features.shape)}, not {list(shape)}"
                raise EncoderError(f"{what}: its encode must give one row of feature_dim values a patch")
            done += len(batch)
            del batch  # before the next one is read
            yield features
            settings.on_patches(name, done, len(coords))


def _check_size(slide: Slide, coords: Coords) -> None:
    """Reject coordinates that are not of this slide."""
    tiled = tuple(coords.attributes.get(key, length) for key, length in zip(_SIZE, slide.size, strict=True))
    last = tuple(int(value) for value in coords.xy.max(0))
    side = max(coords.patch_size, coords.patch_size_level0)
    if tiled != slide.size:
        mismatch = f"its coordinates are of {tiled[0]} by {tiled[1]}"
    elif side > max(slide.size):
        mismatch = f"less than a patch, whose side is {side}"
    elif last[0] >= slide.size[0] or last[1] >= slide.size[1]:  # a patch may reach over the border, where CLAM pads
        mismatch = f"its coordinates go to {last}"
    else:
        return
    raise EmbedError(f"{slide.path}: has {slide.size[0]} by {slide.size[1]} pixels, {mismatch}: tile this slide")


def _find_work(tiles: Path, slides: Path) -> list[_Work]:
    """All slides and all coordinates (of a tiling of ours, TRIDENT or CLAM, or in ``tiles`` itself), by name."""
    folder = next((tiles / name for name in _FOLDERS if any((tiles / name).glob("*.h5"))), None)
    if folder is None:
        raise EmbedError(f"{tiles}: holds no coordinates (coords/SLIDE.h5): tile the slides into it first")
    coords: dict[str, Path] = {}
    for path in sorted(folder.glob("*.h5")):
        name = path.stem.removesuffix(_ENDING)
        if name in coords:
            raise EmbedError(f"{coords[name]} and {path} are of one slide, {name}: remove one of them")
        coords[name] = path
    paths = find_slides(slides)
    return [_Work(name, coords.get(name), paths.get(name)) for name in sorted(coords | paths)]


def _write_features(
    path: Path, coords: Coords, encoder: Encoder, batches: Iterable[Tensor], precision: Precision = "float16"
) -> None:
    """Write ``features`` [N, D] and ``coords`` [N, 2] with its attributes; each batch ``[b, D]`` as it comes."""
    import h5py

    def write(temporary: Path) -> None:
        with h5py.File(temporary, "w") as file:
            file.attrs.update({ENCODER: encoder.name, VERSION: encoder.version})
            data = file.create_dataset("features", (len(coords), encoder.feature_dim), precision)
            start = 0
            for batch in batches:
                _check_finite(path, coords, start, batch, precision)
                data[start : start + len(batch)] = batch.numpy().astype(precision)
                start += len(batch)
            if start != len(coords):
                raise RuntimeError(f"{path}: {start} features for {len(coords)} patches")
            file.create_dataset("coords", data=coords.xy).attrs.update(coords.attributes)

    write_atomically(path, write)


def _check_made(path: Path, coords: Coords, encoder: Encoder, precision: Precision) -> None:
    """Reject a features file of another encoder, precision or coordinates, or a damaged one."""
    import h5py

    cure = "pass overwrite=True to make it anew, or choose another out folder"
    try:
        with h5py.File(path, "r") as file:
            maker = tuple(str(file.attrs.get(key, "unknown")) for key in (ENCODER, VERSION))
            dtype, shape = str(file["features"].dtype), file["features"].shape
            xy = file["coords"][()]
    except Exception as error:  # h5py raises nearly anything on a damaged file
        raise EmbedError(f"{path}: damaged, or no features file of ncmi ({reason(error)}): {cure}") from None
    if maker != (encoder.name, encoder.version):
        raise EmbedError(
            f"{path}: made by the encoder {maker[0]} ({maker[1]}), not by {encoder.name} ({encoder.version}): {cure}"
        )
    if dtype != precision:
        raise EmbedError(f"{path}: holds {dtype}, not {precision}: {cure}")
    if shape != (len(coords), encoder.feature_dim) or not np.array_equal(xy, coords.xy):
        raise EmbedError(f"{path}: made of other coordinates than there are now: {cure}")


def _check_finite(path: Path, coords: Coords, start: int, batch: Tensor, precision: Precision) -> None:
    """Reject features that are not finite in the file; the first such patch is named."""
    largest = torch.finfo(getattr(torch, precision)).max
    # what rounds to the largest number is still finite; NaN compares as false
    bad = ~(batch.abs() <= largest)
    if not bool(bad.any()):
        return
    row, column = (int(index) for index in bad.nonzero()[0])
    value = float(batch[row, column])
    x, y = coords.xy[start + row]
    where = f"{path.stem}: the patch at x={x}, y={y} has the value {value:g} in feature {column}"
    if np.isfinite(value):
        raise EmbedError(
            f"{where}, above {largest:g}, the largest of {precision}: pass precision='float32', or take the features "
            "before or after another layer"
        )
    raise EmbedError(
        f"{where}: check that the encoder has whole weights and the mean, std and image size of its training"
    )


def patch_batches(
    slide: Slide, coords: Coords, batch_size: int, workers: int
) -> Generator[NDArray[np.uint8], None, None]:
    """All patches in the order of their coordinates, in batches ``[b, patch_size, patch_size, 3]`` with b ≤ batch_size.

    Reading and decoding run in threads, where Python's lock is not held. Whatever the slide's size, no more than three
    batches are in memory: the one in use and two that are being read.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="patches")
    waiting: deque[tuple[NDArray[np.uint8], list[Future[None]]]] = deque()
    try:
        for start in range(0, len(coords), batch_size):
            indices = range(start, min(start + batch_size, len(coords)))
            batch = np.empty((len(indices), coords.patch_size, coords.patch_size, 3), dtype=np.uint8)
            reads = [pool.submit(_read, slide, coords, index, batch[row]) for row, index in enumerate(indices)]
            waiting.append((batch, reads))
            del batch, reads
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
