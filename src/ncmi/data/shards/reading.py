"""Batches of images from shards, in any order, exact on any number of processes and workers.

A sample is asked for by its number and its place in the epoch, and what becomes of it depends on nothing else: neither
on the process nor on the worker that reads it. So a position in the data is a number of steps, and no state is kept.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import zlib
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ncmi.data.dataset import Dataset
from ncmi.data.image_files import ImageFiles
from ncmi.data.image_layouts import ImageLayout, settle_parts
from ncmi.data.images import Pixels, why_unreadable
from ncmi.data.shards.decoding import center_box, codecs, decode_square, random_box, uniform_draws
from ncmi.data.shards.index import ShardIndex, open_file, read_index
from ncmi.files import write_atomically
from ncmi.recipes.data import ImageData

_CHUNK = 64  # images that a worker decodes at a time
_AHEAD_BYTES = 512 * 2**20  # of all workers of a process
_ATTEMPTS = 100
_OPEN_FILES = 512  # of local shards, of a process
_KEPT_SHARDS = 3
"""Windows of remote shards whose files are kept: the present one, the next, and one that a slow worker may be in."""
_CROP, _REPLACEMENT = 11, 12
"""What a draw is for, in its seed."""
_LOG = logging.getLogger("ncmi")


class BrokenImage(Exception):
    """The bytes of an image are not what they were, or cannot be decoded."""


class ShardFiles(ImageFiles):
    """Images of shards ``[N, 3, H, W]`` uint8 as they are evaluated: decoded when they are asked for.

    Args:
        index: of the shards.
        side: of the squares, in pixels.
        crop_fraction: part of the shorter side that the square in the middle has.
        window: remote shards that are shuffled together.
        rows: numbers of the images in the index; by default all.
    """

    are_shards = True

    def __init__(
        self,
        index: ShardIndex,
        side: int,
        crop_fraction: float,
        window: int = 1,
        rows: npt.NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__(Path(), (), (side, side), 3)
        self.names = index.names if rows is None else index.names.take(rows)
        self.index, self.crop_fraction, self.window = index, crop_fraction, window
        self.rows = np.arange(len(index)) if rows is None else rows
        self.store = ShardStore(index, window)

    def __getitem__(self, indices: Tensor) -> ShardFiles:
        chosen = indices.nonzero().flatten() if indices.dtype == torch.bool else indices
        rows = self.rows[chosen.cpu().numpy()]
        return ShardFiles(self.index, self.size[0], self.crop_fraction, self.window, rows)

    def read(self, number: int) -> bytes:
        """The bytes of an image.

        Raises:
            BrokenImage: where they are not what they were when the shards were made.
        """
        return self.store.read(int(self.rows[number]))

    def _decode(self, indices: list[int], out: Pixels) -> None:
        for index, place in zip(indices, out, strict=True):
            try:
                square = decode_square(self.read(index), center_box(self.crop_fraction), self.size[0])
            except Exception as error:  # damaged bytes raise whatever the decoder was doing
                raise ValueError(f"{self.index.place}: {self.names[index]}: {_why(error)}: shard it anew") from error
            place[:] = square.transpose(2, 0, 1)


class _OpenFile:
    """A file that is closed when nobody reads it any more."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class ShardStore:
    """The bytes of shards, by ``os.pread``; remote ones are fetched whole into a folder for all processes of a machine.

    Args:
        index: of the shards.
        window: remote shards that are shuffled together.
    """

    def __init__(self, index: ShardIndex, window: int) -> None:
        self.index, self.kept = index, window * _KEPT_SHARDS
        self._open: dict[int, _OpenFile] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def read(self, row: int) -> bytes:
        """The bytes of an image; see :meth:`ShardFiles.read`."""
        index = self.index
        size, shard = int(index.size[row]), int(index.shard[row])
        try:
            file = self._file(shard)  # held while it is read, so that it stays open
            content = os.pread(file.descriptor, size, int(index.offset[row]))
        except OSError as error:
            raise BrokenImage(f"cannot be read ({error.strerror})") from None
        if len(content) < size:
            raise BrokenImage(f"{index.record.shards[shard].name} is cut off")
        if zlib.crc32(content) != int(index.crc32[row]):
            raise BrokenImage("its checksum is another: the bytes have changed")
        return content

    def _file(self, shard: int) -> _OpenFile:
        """An open shard. Threads may ask at once: whoever holds a file reads on where another one has dropped it."""
        file = self._open.get(shard)
        if file is None:
            is_remote, name = self.index.is_remote, self.index.record.shards[shard].name
            file = self._opened(shard) if is_remote else _OpenFile(Path(self.index.place) / name)
            self._open[shard] = file
            for other in list(self._open)[: -self.kept if is_remote else -_OPEN_FILES]:
                self._open.pop(other, None)
        return file

    @property
    def folder(self) -> Path:
        """Where remote shards are kept while they are needed."""
        return Path(tempfile.gettempdir()) / f"ncmi-shards-{os.getuid()}-{self.index.record.digest}"

    def _opened(self, shard: int) -> _OpenFile:
        """A remote shard, fetched where it is not there."""
        record = self.index.record.shards[shard]
        path = self.folder / record.name
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f".{record.name}.lock"):
            file, is_fresh = None, False
            while file is None:
                # other processes remove files at any time to make room
                with suppress(FileNotFoundError):
                    file = _OpenFile(path)
                if file is None or (os.fstat(file.descriptor).st_size != record.size and not is_fresh):
                    write_atomically(path, lambda temporary: self._copy(record.name, temporary))
                    file, is_fresh = None, True
            os.utime(file.descriptor)
        # the longest unused go; whoever has one open goes on reading it
        used: dict[Path, int] = {}
        for each in self.folder.glob("*.tar"):
            with suppress(FileNotFoundError):
                used[each] = each.stat().st_mtime_ns
        for other in sorted(used, key=lambda each: used[each])[: -self.kept]:
            other.unlink(missing_ok=True)
        return file

    def _copy(self, name: str, path: Path) -> None:
        with open_file(self.index.place, name) as source, path.open("wb") as file:
            while block := source.read(2**22):
                file.write(block)


def load_shards(place: str, data: ImageData) -> Dataset:
    """A folder of shards as a data set, of which nothing but the index is read.

    Raises:
        OSError, ValueError: where the index cannot be read, or packages are missing; the message names the cure.
    """
    codecs()
    index = read_index(place)
    layout = ImageLayout(Path(), parts=index.part.tolist())
    settle_parts(layout)
    broken = index.record.broken
    told = [f"{broken} broken images were left out when the shards were made: see broken.csv there"] if broken else []
    return Dataset(
        Path(place).name,
        ShardFiles(index, data.test_size or data.image_size, data.crop_fraction, data.shard_window),
        torch.from_numpy(index.label.astype(np.int64)),
        tuple(index.record.classes),
        "image",
        parts=None if layout.parts is None else np.array(layout.parts, np.int8),
        notes=(*index.record.notes, *told, *layout.notes),
        names=index.names,
        contents=index.record.digest,
    )


@dataclass(frozen=True)
class Variation:
    """How training images are varied while they are read.

    Attributes:
        seed, epoch: of the run; with the place of a sample all that randomness depends on.
        side: of the squares, in pixels.
        crop_scale: least and largest part of the area of a crop that is scaled to the square; None for the middle.
        flip: mirror half of them.
        views: of each image.
    """

    seed: int
    epoch: int
    side: int
    crop_scale: tuple[float, float] | None
    flip: bool
    views: int = 1


class Share(NamedTuple):
    """Samples to be read: their numbers, and their places in the epoch."""

    rows: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]


class Chunk(NamedTuple):
    """Images ``[n·views, H, W, 3]`` uint8, sample by sample; which samples they are of; and what was broken."""

    images: Tensor
    usable: Tensor
    broken: list[tuple[int, str]]


class ShardImages(TorchDataset[Chunk]):
    """What a worker does: reads and decodes a share of samples.

    In training a broken image is replaced by another of the same label, drawn by seed, epoch and place: so batches keep
    their size and labels on all processes, and a run that goes on finds the same. In evaluation it is left out.

    Args:
        files: the images.
        labels: by which broken ones are replaced, ``[N]``.
        train: samples that replace them.
        variation: of training images; None to evaluate.
    """

    def __init__(
        self,
        files: ShardFiles,
        labels: npt.NDArray[np.int64],
        train: npt.NDArray[np.int64],
        variation: Variation | None,
    ) -> None:
        self.files, self.labels, self.train, self.variation = files, labels, train, variation

    def __getitems__(self, share: Share) -> Chunk:
        variation = self.variation
        side, views = (self.files.size[0], 1) if variation is None else (variation.side, variation.views)
        images = torch.empty((len(share.rows) * views, side, side, 3), dtype=torch.uint8)
        pixels = images.numpy().reshape(len(share.rows), views, side, side, 3)
        usable: list[int] = []
        broken: list[tuple[int, str]] = []
        for row, place in zip(share.rows.tolist(), share.places.tolist(), strict=True):
            out = pixels[len(usable)]
            if self._put(row, place, out, broken) or (variation is not None and self._replace(row, place, out, broken)):
                usable.append(len(usable) if variation is not None else place)
        return Chunk(images[: len(usable) * views], torch.tensor(usable, dtype=torch.int64), broken)

    def _put(self, row: int, place: int, out: Pixels, broken: list[tuple[int, str]]) -> bool:
        try:
            content = self.files.read(row)
            for view in range(len(out)):
                out[view] = self._square(content, place, view)
        except Exception as error:  # damaged bytes raise whatever the decoder was doing
            broken.append((row, _why(error)))
            return False
        return True

    def _replace(self, row: int, place: int, out: Pixels, broken: list[tuple[int, str]]) -> bool:
        assert self.variation is not None
        alike = self.train[(self.labels[self.train] == self.labels[row]) & (self.train != row)]
        raw = np.random.PCG64(
            np.random.SeedSequence((self.variation.seed, self.variation.epoch, place, _REPLACEMENT))
        ).random_raw(_ATTEMPTS)
        draws = [int(alike[draw % len(alike)]) for draw in raw.tolist() if len(alike)]
        if any(self._put(other, place, out, broken) for other in draws):
            return True
        raise ValueError(f"{self.files.names[row]} is broken, and so is all that could replace it: shard the data anew")

    def _square(self, content: bytes, place: int, view: int) -> Pixels:
        variation = self.variation
        if variation is None:
            return decode_square(content, center_box(self.files.crop_fraction), self.files.size[0])
        draws = uniform_draws(5, variation.seed, variation.epoch, place, view, _CROP)
        fraction, scale = self.files.crop_fraction, variation.crop_scale
        box = center_box(fraction) if scale is None else random_box(scale, draws[:4].tolist())
        square = decode_square(content, box, variation.side)
        return square[:, ::-1] if variation.flip and draws[4] < 0.5 else square


def read_ahead(
    images: ShardImages, shares: Sequence[Share], *, workers: int, pin_memory: bool = False
) -> Generator[list[Chunk], None, None]:
    """Chunks of one share after the other, decoded ahead by worker processes; 0 workers decode in this process."""
    pieces = [
        Share(share.rows[first : first + _CHUNK], share.places[first : first + _CHUNK])
        for share in shares
        for first in range(0, len(share.rows), _CHUNK)
    ]
    side = images.files.size[0] if images.variation is None else images.variation.side
    views = 1 if images.variation is None else images.variation.views
    workers = min(workers, len(pieces))
    ahead = max(1, min(4, _AHEAD_BYTES // max(1, workers * _CHUNK * views * side * side * 3)))
    loader = DataLoader(
        images,
        batch_sampler=pieces,  # type: ignore[arg-type]  # a share is what __getitems__ takes
        collate_fn=_as_it_is,  # type: ignore[arg-type]  # the same
        num_workers=workers,
        prefetch_factor=ahead if workers else None,
        worker_init_fn=_begin_worker,
        pin_memory=pin_memory,
        # of its own: else the run's random state would depend on how often it was stopped
        generator=torch.Generator(),
    )
    chunks = iter(loader)
    try:
        for share in shares:
            yield [next(chunks) for _ in range(0, len(share.rows), _CHUNK)]
    finally:
        del chunks  # ends the workers


def _as_it_is(chunk: Chunk) -> Chunk:
    return chunk


def _begin_worker(worker: int) -> None:
    # the process that asked for images decides when to stop, and its end is seen
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    codecs()[1].setNumThreads(1)


class BrokenImages:
    """Counts the broken images that a process has met or heard of, and says each that it has met once.

    Args:
        files: of the images.
        limit: how many there may be.
    """

    def __init__(self, files: ShardFiles, limit: int) -> None:
        self.files, self.limit = files, limit
        self.reasons: dict[int, str] = {}

    def add(self, broken: Sequence[tuple[int, str]]) -> None:
        """Take in what a chunk was without.

        Raises:
            ValueError: for more than the limit.
        """
        for row, why in broken:
            if row in self.reasons:
                continue
            self.reasons[row] = why
            _LOG.warning("%s: %s", self.files.names[row], why)
            self._check_limit(f"{self.files.names[row]}: {why}")

    def hear(self, rows: Sequence[int]) -> None:
        """Take in numbers of what any process has met, the same on all of them.

        Raises:
            ValueError: for more than the limit.
        """
        for row in rows:
            self.reasons.setdefault(row, "broken, as another process found")
        if rows:
            self._check_limit(self.files.names[rows[-1]])

    def _check_limit(self, example: str) -> None:
        if len(self.reasons) > self.limit:
            raise ValueError(
                f"{self.files.index.place}: {len(self.reasons)} broken images, such as {example}: make the shards "
                "anew by `ncmi data shard`, or allow more (--data.broken-limit)"
            )

    def listed(self) -> list[tuple[str, str]]:
        """(name, reason) of each."""
        return [(self.files.names[row], why) for row, why in sorted(self.reasons.items())]


def windowed_order(
    shards: npt.NDArray[np.int32], samples: npt.NDArray[np.int64], window: int, *, seed: int, epoch: int
) -> npt.NDArray[np.int64]:
    """Samples in an order that needs few shards at a time and depends on seed and epoch alone.

    Shards come in a random order, so many at a time, and their samples in a random order among them.

    Args:
        shards: of each sample of the data set, ``[N]``.
        samples: those that are wanted.
        window: shards at a time.

    Example:
        >>> windowed_order(np.array([0, 0, 1, 1, 2, 2]), np.arange(6), 1, seed=0, epoch=0).tolist()
        [5, 4, 3, 2, 1, 0]
    """
    generator = np.random.PCG64(np.random.SeedSequence((seed, epoch, 3)))
    turn = np.argsort(generator.random_raw(int(shards.max()) + 1), kind="stable")
    place = np.empty_like(turn)
    place[turn] = np.arange(len(turn))
    keys = generator.random_raw(len(samples))
    return samples[np.lexsort((keys, place[shards[samples]] // window))]


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, BrokenImage) else why_unreadable(error)
