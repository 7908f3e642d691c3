"""Many image files: all are checked first; they then lie in memory if they fit, else are decoded ahead of their use."""

from __future__ import annotations

import hashlib
import io
import math
import mmap
import os
import stat
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ncmi.data.images import FORMATS, Pixels, decode_image, verify_image, why_unreadable
from ncmi.files import all_files

MEMORY_GIGABYTES = 1.0
_AHEAD_BYTES = 128 * 2**20
_CHUNK = 16  # images that a thread decodes at a time
_DIGEST_BYTES = 16
_SHOWN = 20
Decoder = Callable[[Path | BinaryIO, tuple[int, int], int | None], Pixels]
"""What makes pixels ``[channels, H, W]`` of a file; see :func:`ncmi.data.images.decode_image`."""


class ImageFiles:
    """Images ``[N, channels, H, W]`` uint8 that are decoded when they are asked for, and held by nobody.

    What works alike on a tensor: ``len``, ``shape``, ``ndim``, ``dtype``, ``numel``, indexing by a tensor, which
    decodes nothing, and ``split``, which does.

    Args:
        root: folder that the names are relative to.
        names: of the files, in order.
        size: (H, W).
        channels: 1 or 3.
        as_found: that they have one channel was seen from the files, all gray, not asked for.
        decode: how files become pixels; see :func:`ncmi.data.images.decode_image`.

    Example:
        ``for images in files.batches([torch.tensor([3, 1]), torch.tensor([2])]): network(images.float())``
    """

    dtype = torch.uint8
    ndim = 4
    are_shards = False

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        size: tuple[int, int],
        channels: int,
        as_found: bool = False,
        decode: Decoder = decode_image,
    ) -> None:
        self.root, self.size, self.channels, self.as_found = root, size, channels, as_found
        self.decode = decode
        self.names: Sequence[str] = tuple(names)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> torch.Size:
        """(N, channels, H, W)."""
        return torch.Size((len(self), self.channels, *self.size))

    def numel(self) -> int:
        """Values of all pixels."""
        return self.shape.numel()

    def __getitem__(self, indices: Tensor) -> ImageFiles:
        """The files of some images, by int64 indices or a mask ``[N]``; nothing is decoded."""
        chosen = indices.nonzero().flatten() if indices.dtype == torch.bool else indices
        names = [self.names[i] for i in chosen.tolist()]
        return ImageFiles(self.root, names, self.size, self.channels, self.as_found, self.decode)

    def select(self, indices: Tensor) -> Tensor:
        """Images ``[n, channels, H, W]`` uint8 of some indices, in their order."""
        (images,) = self.batches([indices])
        return images

    def split(self, size: int) -> Generator[Tensor, None, None]:
        """All images in order, ``size`` at a time, decoded ahead."""
        yield from self.batches(torch.arange(len(self)).split(size))

    def batches(self, batches: Iterable[Tensor]) -> Generator[Tensor, None, None]:
        """Images of one batch of indices after the other; threads decode the next ones while one is used.

        What is decoded ahead takes no more than 128 MiB, or is one batch where that is larger. The threads end with the
        iteration: when it is through, is closed, or Python lets go of it.

        Raises:
            ValueError: for a file that can no longer be read.
        """
        executor = ThreadPoolExecutor(decoding_threads(), thread_name_prefix="ncmi-images")
        ahead: deque[tuple[Pixels, list[Future[None]]]] = deque()
        waiting, ahead_bytes = iter(batches), 0
        try:
            while True:
                while not ahead or ahead_bytes < _AHEAD_BYTES:
                    indices = next(waiting, None)
                    if indices is None:
                        break
                    chosen = indices.tolist()
                    images = _own_memory((len(chosen), *self.shape[1:]))
                    parts = range(0, len(chosen), _CHUNK)
                    futures = [
                        executor.submit(self._decode, chosen[i : i + _CHUNK], images[i : i + _CHUNK]) for i in parts
                    ]
                    ahead.append((images, futures))
                    ahead_bytes += images.nbytes
                if not ahead:
                    return
                images, futures = ahead.popleft()
                ahead_bytes -= images.nbytes
                for future in futures:
                    future.result()
                yield torch.from_numpy(images)
        finally:
            executor.shutdown(wait=True, cancel_futures=True)

    def _decode(self, indices: list[int], out: Pixels) -> None:
        for index, place in zip(indices, out, strict=True):
            path = self.root / self.names[index]
            try:
                place[:] = self.decode(path, self.size, None if self.as_found else self.channels)
            except Exception as error:  # damaged bytes raise whatever the decoder was doing
                raise ValueError(
                    f"{path}: {why_unreadable(error)}, but it could be read before: restore it, or begin a new run"
                ) from error


def _own_memory(shape: tuple[int, ...]) -> Pixels:
    """An array beside the heap, which goes back to the system with its last view.

    On the heap, batches that live for a while between the larger arrays computed from others leave holes that nothing
    fits into: the process grew by gigabytes.
    """
    size = math.prod(shape)
    return np.ndarray(shape, np.uint8, buffer=mmap.mmap(-1, size)) if size else np.empty(shape, np.uint8)


@dataclass(frozen=True, eq=False)
class OpenImages:
    """Image files that have been checked.

    Attributes:
        inputs: of those that can be used, ``[N, channels, H, W]`` uint8.
        kept: their places in what was asked for.
        digests: hash of the bytes of each, ``[N, 16]`` uint8.
        left_out: (name, reason) of the others.
    """

    inputs: Tensor | ImageFiles
    kept: list[int]
    digests: npt.NDArray[np.uint8]
    left_out: tuple[tuple[str, str], ...]


def list_images(path: Path) -> list[Path]:
    """The file itself, or all visible files below a folder in order of their path; links in a circle end."""
    return all_files(path) if path.is_dir() else [path]


def open_images(
    paths: Sequence[Path],
    size: tuple[int, int],
    channels: int | None,
    root: Path,
    *,
    memory_gigabytes: float = MEMORY_GIGABYTES,
    bad: Literal["error", "skip"] = "error",
    decode: Decoder = decode_image,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> OpenImages:
    """Check image files, every one of them, and decode them into memory if they fit there.

    Each file is read once. Where the pixels of all do not fit, it is only seen whether they can be decoded, and they
    are decoded when they are used. What comes out is the same.

    Args:
        paths: of the files.
        size: (H, W): see :func:`ncmi.data.images.decode_image`.
        channels: 1 (gray), 3 (RGB) or ``None``: 1 if every image is gray, otherwise 3.
        root: folder that names in messages are relative to.
        memory_gigabytes: limit of the pixels in memory, in 10⁹ bytes.
        bad: "error", or "skip", which leaves out what cannot be used.
        decode: how files become pixels.
        progress: called with the number of files seen and of all.

    Raises:
        ValueError: naming all files that cannot be used, unless they are to be skipped.
    """
    count = len(paths)
    shape = (count, channels or 3, *size)
    fits = float(np.prod(shape, dtype=np.float64)) <= memory_gigabytes * 1e9
    images = np.empty(shape, np.uint8) if fits else None
    digests = np.zeros((count, _DIGEST_BYTES), np.uint8)
    gray = np.ones(count, bool)
    reasons: dict[int, str] = {}
    colored = threading.Event()

    def look(start: int) -> None:
        for index in range(start, min(start + _CHUNK, count)):
            try:
                content = _content(paths[index])
                digests[index] = np.frombuffer(hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest(), np.uint8)
                if images is None:
                    verify_image(content)
                if images is not None or (channels is None and not colored.is_set()):
                    pixels = decode(io.BytesIO(content), size, channels)
                    gray[index] = len(pixels) == 1
                    if not gray[index]:
                        colored.set()
                    if images is not None:
                        images[index] = pixels
            except Exception as error:  # damaged bytes raise whatever the decoder was doing
                reasons[index] = error.args[0] if isinstance(error, _NoFile) else why_unreadable(error)

    # for all threads, and here alone: a bomb is an error, and what Pillow has to say of metadata is no one's matter
    with warnings.catch_warnings(), ThreadPoolExecutor(decoding_threads(), thread_name_prefix="ncmi-images") as pool:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for start, _ in zip(range(0, count, _CHUNK), pool.map(look, range(0, count, _CHUNK)), strict=True):
            progress(min(start + _CHUNK, count), count)
    left_out = tuple((_relative(paths[index], root), reasons[index]) for index in sorted(reasons))
    if left_out and bad == "error":
        raise ValueError(unusable(left_out))
    kept = [index for index in range(count) if index not in reasons]
    all_gray = channels is None and bool(gray[kept].all())
    names = [_relative(paths[index], root) for index in kept]
    inputs: Tensor | ImageFiles
    if images is None:
        inputs = ImageFiles(root, names, size, 1 if all_gray else shape[1], all_gray, decode)
    else:
        for place, index in enumerate(kept):
            if place != index:
                images[place] = images[index]
        images = images[: len(kept)]
        inputs = torch.from_numpy(images[:, :1].copy() if all_gray else images)
    return OpenImages(inputs, kept, digests[kept], left_out)


def unusable(left_out: Sequence[tuple[str, str]]) -> str:
    """The message that names files that cannot be used, the first of them, and the cure."""
    count = len(left_out)
    shown = "; ".join(f"{name}: {why}" for name, why in left_out[:_SHOWN])
    more = f"; and {count - _SHOWN} more" if count > _SHOWN else ""
    what = "1 file or folder" if count == 1 else f"{count} files or folders"
    return (
        f"{what} cannot be used: {shown}{more}. Remove or replace them, or leave them out (--data.bad skip); "
        f"readable are {', '.join(FORMATS)}"
    )


def decoding_threads() -> int:
    """How many threads decode images: as many as this process may use processors, up to 8."""
    usable_here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, usable_here)


class _NoFile(Exception):
    """What is never opened, because it is no regular file."""


def _content(path: Path) -> bytes:
    """Bytes of an image file; of what is none, no more than its beginning is read, and of a pipe nothing."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise _NoFile("a link to nothing" if path.is_symlink() else "does not exist") from None
    except OSError as error:
        raise _NoFile(f"cannot be opened ({error.strerror})") from None
    if not stat.S_ISREG(status.st_mode):
        raise _NoFile("a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device, no file")
    if status.st_size == 0:
        raise _NoFile("an empty file")
    with path.open("rb") as file:
        with Image.open(file, formats=FORMATS):
            pass
        file.seek(0)
        return file.read()


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
