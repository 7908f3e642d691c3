"""The python and binary layouts of CIFAR: records and class names, from a folder or from the archive."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ncmi.data.cifar_sets import HOME, IMAGE_BYTES, MODIFIED, CifarSet, Layout
from ncmi.data.restricted_pickle import read_pickle

AGAIN = f"download it again from {HOME}"
# a pickle holds file names and labels beside the images, hardly a tenth of their size
MAX_RATIO, MAX_EXTRA = 2, 1_000_000
MAX_MEMBERS = 64


class Records(NamedTuple):
    """Labels ``[n]`` int64 and images ``[n, 3072]`` uint8: rows of the red, then green, then blue plane."""

    labels: npt.NDArray[np.int64]
    images: npt.NDArray[np.uint8]


@contextmanager
def in_file(name: str) -> Iterator[None]:
    """Put the name of a file in front of every complaint about its contents."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


class Folder:
    """The files of a layout in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def size(self, name: str) -> int | None:
        """Bytes of a file, ``None`` if it is not there."""
        file = self.path / name
        return file.stat().st_size if file.is_file() else None

    def read(self, name: str) -> bytes:
        """The whole file."""
        return (self.path / name).read_bytes()


class Archive:
    """The files of a layout in a ``.tar.gz``, read in memory; nothing is written to disk.

    Raises:
        ValueError: for a truncated or damaged archive, or one that unfolds to more than CIFAR can have.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.members: dict[str, tarfile.TarInfo] = {}
        damaged = f"the archive is truncated or damaged: {AGAIN}"
        try:
            with gzip.open(path) as stream:
                contents = stream.read(max_bytes + 1)
            if len(contents) > max_bytes:
                raise ValueError(f"it unfolds to more than {max_bytes:,} bytes")
            self.tar = tarfile.open(fileobj=io.BytesIO(contents))  # noqa: SIM115 (in memory, nothing to close)
            for _ in range(MAX_MEMBERS):
                member = self.tar.next()
                if member is None:
                    break
                if member.isreg() and not member.issparse() and 0 <= member.size <= len(contents):
                    self.members[Path(member.name).name] = member
        except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(f"{damaged} ({error})") from error

    def size(self, name: str) -> int | None:
        """Bytes of a file, ``None`` if it is not there."""
        return self.members[name].size if name in self.members else None

    def read(self, name: str) -> bytes:
        """The whole file."""
        stream = self.tar.extractfile(self.members[name])
        return b"" if stream is None else stream.read()


Files = Folder | Archive


def open_archive(path: Path, cifar: CifarSet) -> Archive:
    """The archive of a set, bounded by the size that the set can have."""
    return Archive(path, MAX_RATIO * sum(cifar.counts) * (IMAGE_BYTES + 2) + 64 * MAX_EXTRA)


def read_file(files: Files, name: str, cifar: CifarSet, layout: Layout) -> Records:
    """The records of one data file, in its order, each checked.

    Raises:
        ValueError: naming the file, for one that is missing, truncated, damaged, or of another size, and for
            labels out of range.
    """
    size = files.size(name)
    if size is None:
        raise ValueError(f"{name} is missing: {layout.folder} holds {', '.join(layout.files)}; {AGAIN}")
    with in_file(name):
        return (_python if layout is cifar.python else _binary)(files, name, size, cifar)


def read_names(files: Files, cifar: CifarSet, layout: Layout) -> tuple[str, ...] | None:
    """The class names that lie beside the data, ``None`` if none do."""
    size = files.size(layout.names)
    if size is None:
        return None
    with in_file(layout.names):
        if size > MAX_EXTRA:
            raise ValueError(f"{size:,} bytes are too many for a list of class names: {AGAIN}")
        blob = files.read(layout.names)
        if layout is cifar.binary:
            return checked_names(blob.decode("utf-8", "replace").split(), cifar)
        return checked_names(read_pickle(blob).get(cifar.names_key), cifar)


def checked_names(names: object, cifar: CifarSet) -> tuple[str, ...]:
    """Class names as text: as many as there are classes, distinct."""
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise ValueError(f"no list of class names {cifar.names_key!r}: {AGAIN}")
    texts = tuple(name if isinstance(name, str) else name.decode("utf-8", "replace") for name in names)
    if len(texts) != len(set(texts)) or len(texts) != len(cifar.class_names):
        raise ValueError(
            f"{len(set(texts))} different names for the {len(cifar.class_names)} classes of {cifar.title}: {AGAIN}"
        )
    return texts


def checked_labels(values: object, classes: int, count: int, file: str, what: str = "label") -> npt.NDArray[np.int64]:
    """Labels ``[count]``, each a whole number in ``0…classes−1``."""
    found = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(found, list) or len(found) != count:
        number = f"{len(found):,}" if isinstance(found, list) else "no list of"
        raise ValueError(f"{number} {what}s for {count:,} images: the file is damaged, {AGAIN}")
    wrong = next((i for i, v in enumerate(found) if type(v) is not int or not 0 <= v < classes), None)
    if wrong is not None:
        value = found[wrong]
        shown = value if isinstance(value, int) else f"of type {type(value).__name__}"
        raise ValueError(
            f"{what} {shown} in record {wrong} of {file}: {what}s run from 0 to {classes - 1} (records counted "
            f"from 0): {AGAIN}; {MODIFIED}"
        )
    return np.array(found, np.int64)


def _binary(files: Files, name: str, size: int, cifar: CifarSet) -> Records:
    head = 2 if cifar.coarse_classes else 1
    count, record = cifar.count(name), head + IMAGE_BYTES
    if size != count * record:
        what = "truncated" if size < count * record else "too long"
        raise ValueError(
            f"{size:,} bytes, expected {count * record:,} ({count:,} records of {record:,}): {what}; {AGAIN}; "
            f"{MODIFIED}"
        )
    records = np.frombuffer(files.read(name), np.uint8).reshape(count, record)
    if cifar.coarse_classes:
        checked_labels(records[:, 0], cifar.coarse_classes, count, name, "coarse label")
    labels = checked_labels(records[:, head - 1], len(cifar.class_names), count, name)
    return Records(labels, records[:, head:])


def _python(files: Files, name: str, size: int, cifar: CifarSet) -> Records:
    count = cifar.count(name)
    least = count * IMAGE_BYTES
    if not least < size <= MAX_RATIO * least + MAX_EXTRA:
        what = "truncated" if size <= least else "too long"
        raise ValueError(
            f"{size:,} bytes, expected somewhat more than {least:,} ({count:,} images of {IMAGE_BYTES:,}): {what}; "
            f"{AGAIN}; {MODIFIED}"
        )
    values = read_pickle(files.read(name))
    missing = [key for key in ("data", cifar.label_key) if key not in values]
    if missing:
        raise ValueError(f"no {missing[0]!r} among the keys {', '.join(map(repr, sorted(values)))[:300]}: {AGAIN}")
    images = values["data"]
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape != (count, IMAGE_BYTES):
        found = f"{images.dtype} {list(images.shape)}" if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(f"data is {found}, expected uint8 [{count}, {IMAGE_BYTES}]: {AGAIN}; {MODIFIED}")
    if cifar.coarse_classes and "coarse_labels" in values:
        checked_labels(values["coarse_labels"], cifar.coarse_classes, count, name, "coarse label")
    return Records(checked_labels(values[cifar.label_key], len(cifar.class_names), count, name), images)
