"""CIFAR-10 and CIFAR-100 in the layouts that users have, checked against what is known of them."""

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ncmi.data import cifar_sets as sets
from ncmi.data.cifar_sets import AGAIN, IMAGE_BYTES, IMAGE_COLUMNS, MODIFIED, PARQUET_AGAIN, SIDE, CifarSet, CifarSource
from ncmi.data.columns import TEST, TRAIN
from ncmi.data.dataset import Dataset
from ncmi.data.images import FORMATS
from ncmi.data.restricted_pickle import read_pickle
from ncmi.errors import listing, naming, reason

CHUNK = 2048
# a pickle holds file names and labels beside the images, hardly a tenth of their size
MAX_RATIO, MAX_EXTRA = 2, 1_000_000
MAX_MEMBERS = 64
Files = dict[str, tuple[int, Callable[[], bytes]]]
"""Of a layout, by name: size in bytes, and what reads the whole file."""


class Records(NamedTuple):
    """Labels ``[n]`` int64 and images ``[n, 3072]`` uint8: rows of the red, then green, then blue plane."""

    labels: npt.NDArray[np.int64]
    images: npt.NDArray[np.uint8]


def load_cifar(source: CifarSource, image_size: int = SIDE) -> Dataset:
    """CIFAR-10 or CIFAR-100: all training images, then all test images, which are the fixed test set.

    Records keep the order of the files. Of CIFAR-100, 10 test images also occur in the training set, 6 of them
    with another label; they stay, since published accuracies are measured with them.

    Args:
        image_size: 32, or a divisor of it; then blocks of pixels are averaged, rounded to nearest, halves up.

    Returns:
        ``inputs [60000, 3, image_size, image_size]`` uint8, ``labels [60000]`` int64 (the 100 fine classes of
        CIFAR-100), of which the last 10,000 are its test part.

    Raises:
        ValueError: naming the file and the cure, for missing, truncated or damaged files, labels out of range,
            contents other than CIFAR-100's, an image size that does not divide 32.
    """
    if image_size < 1 or SIDE % image_size:
        raise ValueError(f"image_size={image_size}: CIFAR's images have 32×32 pixels; choose 32, 16 or 8")
    cifar = source.cifar
    read = _read_parquet_parts if source.layout == "parquet" else _read_files
    (train, test), names, files = read(source)
    _check_content(cifar, (train, test), files)
    labels = np.concatenate([part.labels for part in (train, test)])
    # the known data has one spelling of its names; the hub's description of CIFAR-100 says 'cra' for crab
    class_names = cifar.class_names if cifar.content is not None else names or cifar.class_names
    images = _images(train, test, image_size)
    parts = np.repeat(np.array([TRAIN, TEST], np.int8), [len(train.labels), len(test.labels)])
    return Dataset(cifar.name, images, torch.from_numpy(labels), class_names, "image", parts=parts)


def content_sum(labels: npt.NDArray[np.int64], images: npt.NDArray[np.uint8]) -> str:
    """A checksum of labels ``[n]`` and images ``[n, 3072]`` that does not depend on their order, 32 hex digits.

    The sum, modulo 2¹²⁸, of each record's BLAKE2b digest of 128 bits over its 3,072 pixels and its label (one
    byte). Copies of CIFAR come in different orders and containers; their records are the same.

    Example:
        >>> images = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072) // 7
        >>> labels = np.array([0, 1])
        >>> content_sum(labels, images) == content_sum(labels[::-1], images[::-1])
        True
    """
    total = 0
    for start in range(0, len(labels), CHUNK):
        pixels = images[start : start + CHUNK].tobytes()
        for i, label in enumerate(labels[start : start + CHUNK].astype(np.uint8).tolist()):
            digest = hashlib.blake2b(pixels[i * IMAGE_BYTES : (i + 1) * IMAGE_BYTES], digest_size=16)
            digest.update(bytes((label,)))
            total += int.from_bytes(digest.digest(), "little")
    return f"{total % 2**128:032x}"


def _read_parquet_parts(source: CifarSource) -> tuple[list[Records], tuple[str, ...] | None, Files]:
    """Training and test records of the shards in a folder, the class names that they describe, and no other files."""
    cifar, shards = source.cifar, sets.parquet_parts(list(source.path.iterdir()))
    parts = [_read_shards(files, cifar, count) for files, count in zip(shards, cifar.counts, strict=True)]
    first = shards[0][0]
    with naming(first.name), sets.open_parquet(first) as table:
        described = sets.described_names(table, cifar)
        names = None if described is None else _checked_names(described, cifar)
    return parts, names, {}


def _read_files(source: CifarSource) -> tuple[list[Records], tuple[str, ...] | None, Files]:
    """Training and test records of the python or binary layout, the class names beside them, and the files."""
    cifar, is_python = source.cifar, source.layout.startswith("python")
    layout, read = (cifar.python, _python) if is_python else (cifar.binary, _binary)
    files = _archive(source.path, cifar) if source.layout.endswith("archive") else _folder(source.path)
    names = None
    if layout.names in files:
        with naming(layout.names):
            size, read_all = files[layout.names]
            if size > MAX_EXTRA:
                raise ValueError(f"{size:,} bytes are too many for a list of class names: {AGAIN}")
            blob = read_all()
            listed = read_pickle(blob).get(cifar.names_key) if is_python else blob.decode("utf-8", "replace").split()
            names = _checked_names(listed, cifar)
    parts = []
    for name in layout.files:
        if name not in files:
            raise ValueError(f"{name} is missing: {layout.folder} holds {', '.join(layout.files)}; {AGAIN}")
        with naming(name):
            parts.append(read(*files[name], name, cifar))
    train = Records(*(np.concatenate(arrays) for arrays in zip(*parts[:-1], strict=True)))
    return [train, parts[-1]], names, files


def _check_content(cifar: CifarSet, parts: Sequence[Records], files: Files) -> None:
    for name, part, expected in zip(("train", "test"), parts, cifar.content or (), strict=False):
        actual = content_sum(part.labels, part.images)
        # a file with the MD5 sum that was published with the data is right
        if actual != expected and (name not in files or _md5(files[name][1]()) != cifar.md5.get(name)):
            raise ValueError(
                f"the {name} part is damaged: checksum {actual} of its images and labels differs from {expected}, that "
                f"of {cifar.title}; {AGAIN}; {MODIFIED}"
            )


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _images(train: Records, test: Records, image_size: int) -> Tensor:
    """All images ``[n, 3, image_size, image_size]``, in chunks: the data is held no more than twice."""
    count, block = len(train.labels) + len(test.labels), SIDE // image_size
    images = torch.empty(count, 3, image_size, image_size, dtype=torch.uint8)
    at = 0
    for part in (train, test):
        for start in range(0, len(part.labels), CHUNK):
            pixels = np.array(part.images[start : start + CHUNK])  # a copy: the bytes of a file are read-only
            chunk = torch.from_numpy(pixels).view(-1, 3, SIDE, SIDE)
            if block > 1:  # exact in float32: sums below 2¹⁸, divided by a power of 2
                chunk = (F.avg_pool2d(chunk.float(), block) + 0.5).floor().to(torch.uint8)
            images[at : at + len(chunk)] = chunk
            at += len(chunk)
    return images


def _folder(path: Path) -> Files:
    return {file.name: (file.stat().st_size, file.read_bytes) for file in path.iterdir() if file.is_file()}


def _archive(path: Path, cifar: CifarSet) -> Files:
    """The files in a ``.tar.gz``, read in memory; ValueError for one that unfolds to more than the set can have."""
    max_bytes = MAX_RATIO * sum(cifar.counts) * (IMAGE_BYTES + 2) + 64 * MAX_EXTRA
    files: Files = {}
    try:
        with gzip.open(path) as stream:
            contents = stream.read(max_bytes + 1)
        if len(contents) > max_bytes:
            raise ValueError(f"it unfolds to more than {max_bytes:,} bytes")
        tar = tarfile.open(fileobj=io.BytesIO(contents))  # noqa: SIM115 (in memory, nothing to close)
        for _ in range(MAX_MEMBERS):
            if (member := tar.next()) is None:
                break
            if member.isreg() and not member.issparse() and 0 <= member.size <= len(contents):
                files[Path(member.name).name] = member.size, partial(_member, tar, member)
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"the archive is truncated or damaged: {AGAIN} ({error})") from error
    return files


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    return b"" if stream is None else stream.read()


def _checked_names(names: object, cifar: CifarSet) -> tuple[str, ...]:
    """Class names as text: as many as there are classes, distinct."""
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise ValueError(f"no list of class names {cifar.names_key!r}: {AGAIN}")
    texts = tuple(name if isinstance(name, str) else name.decode("utf-8", "replace") for name in names)
    if len(texts) != len(set(texts)) or len(texts) != len(cifar.class_names):
        raise ValueError(
            f"{len(set(texts))} different names for the {len(cifar.class_names)} classes of {cifar.title}: {AGAIN}"
        )
    return texts


def _checked_labels(values: object, classes: int, count: int, file: str, what: str = "label") -> npt.NDArray[np.int64]:
    """Labels ``[count]``, each a whole number in ``0…classes−1``."""
    labels = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(labels, list) or len(labels) != count:
        number = f"{len(labels):,}" if isinstance(labels, list) else "no list of"
        raise ValueError(f"{number} {what}s for {count:,} images: the file is damaged, {AGAIN}")
    wrong = next((i for i, v in enumerate(labels) if type(v) is not int or not 0 <= v < classes), None)
    if wrong is not None:
        value = labels[wrong]
        shown = value if isinstance(value, int) else f"of type {type(value).__name__}"
        raise ValueError(
            f"{what} {shown} in record {wrong} of {file}: {what}s run from 0 to {classes - 1} (records counted "
            f"from 0): {AGAIN}; {MODIFIED}"
        )
    return np.array(labels, np.int64)


def _binary(size: int, read: Callable[[], bytes], name: str, cifar: CifarSet) -> Records:
    head = 2 if cifar.coarse_classes else 1
    count, record = cifar.count(name), head + IMAGE_BYTES
    if size != count * record:
        what = "truncated" if size < count * record else "too long"
        raise ValueError(
            f"{size:,} bytes, expected {count * record:,} ({count:,} records of {record:,}): {what}; {AGAIN}; "
            f"{MODIFIED}"
        )
    records = np.frombuffer(read(), np.uint8).reshape(count, record)
    if cifar.coarse_classes:
        _checked_labels(records[:, 0], cifar.coarse_classes, count, name, "coarse label")
    labels = _checked_labels(records[:, head - 1], len(cifar.class_names), count, name)
    return Records(labels, records[:, head:])


def _python(size: int, read: Callable[[], bytes], name: str, cifar: CifarSet) -> Records:
    count = cifar.count(name)
    least = count * IMAGE_BYTES
    if not least < size <= MAX_RATIO * least + MAX_EXTRA:
        what = "truncated" if size <= least else "too long"
        raise ValueError(
            f"{size:,} bytes, expected somewhat more than {least:,} ({count:,} images of {IMAGE_BYTES:,}): {what}; "
            f"{AGAIN}; {MODIFIED}"
        )
    values = read_pickle(read())
    missing = [key for key in ("data", cifar.label_key) if key not in values]
    if missing:
        raise ValueError(f"no {missing[0]!r} among the keys {', '.join(map(repr, sorted(values)))[:300]}: {AGAIN}")
    images = values["data"]
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape != (count, IMAGE_BYTES):
        what = f"{images.dtype} {list(images.shape)}" if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(f"data is {what}, expected uint8 [{count}, {IMAGE_BYTES}]: {AGAIN}; {MODIFIED}")
    if cifar.coarse_classes and "coarse_labels" in values:
        _checked_labels(values["coarse_labels"], cifar.coarse_classes, count, name, "coarse label")
    return Records(_checked_labels(values[cifar.label_key], len(cifar.class_names), count, name), images)


def _read_shards(files: Sequence[Path], cifar: CifarSet, count: int) -> Records:
    """The records of one part, ``count`` in all its shards."""
    total = 0
    for file in files:
        with naming(file.name), sets.open_parquet(file) as table:
            total += table.metadata.num_rows
    if total != count:
        raise ValueError(
            f"{total:,} records in {', '.join(file.name for file in files)}, expected {count:,}: "
            f"{'a shard is missing or cut' if total < count else 'too many shards'}; {PARQUET_AGAIN}; {MODIFIED}"
        )
    images: npt.NDArray[np.uint8] = np.empty((count, IMAGE_BYTES), np.uint8)
    labels: list[npt.NDArray[np.int64]] = []
    at = 0
    for file in files:  # without threads: for images as small as these they wait for each other
        with naming(file.name):
            values: list[Any] = []
            for blobs, batch in _batches(file, cifar):
                for row, blob in enumerate(blobs, start=len(values)):
                    images[at] = _decode(row, blob)
                    at += 1
                values += batch
            labels.append(_checked_labels(values, len(cifar.class_names), len(values), file.name))
    return Records(np.concatenate(labels), images)


def _batches(file: Path, cifar: CifarSet) -> Iterator[tuple[list[Any], list[Any]]]:
    """Encoded images and labels, a few thousand at a time."""
    import pyarrow as pa

    with sets.open_parquet(file) as table:
        columns = table.schema_arrow.names
        image = next((name for name in IMAGE_COLUMNS if name in columns), None)
        if image is None or cifar.label_column not in columns:
            raise ValueError(
                f"columns {listing(columns)}: expected {' or '.join(IMAGE_COLUMNS)} and {cifar.label_column}"
            )
        try:
            for batch in table.iter_batches(CHUNK, columns=[image, cifar.label_column]):
                values = batch.column(image).to_pylist()
                blobs = [value.get("bytes") if isinstance(value, dict) else value for value in values]
                yield blobs, batch.column(cifar.label_column).to_pylist()
        except (pa.ArrowException, OSError, KeyError) as error:
            raise ValueError(f"damaged ({reason(error)}): {PARQUET_AGAIN}") from error


def _decode(row: int, blob: Any) -> npt.NDArray[np.uint8]:
    """Bytes of an image file → ``[3072]``."""
    if not isinstance(blob, bytes):
        raise ValueError(f"record {row} (counted from 0) holds no bytes of an image: {PARQUET_AGAIN}")
    try:
        with Image.open(io.BytesIO(blob), formats=FORMATS) as image:
            if image.size != (SIDE, SIDE):
                raise ValueError(f"{image.size[0]}×{image.size[1]} pixels, CIFAR has {SIDE}×{SIDE}")
            pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except Exception as error:  # damaged bytes raise whatever the decoder was doing
        raise ValueError(
            f"the image of record {row} (counted from 0) is corrupt or not of CIFAR ({error}): {PARQUET_AGAIN}; "
            f"{MODIFIED}"
        ) from error
    return pixels.transpose(2, 0, 1).reshape(-1)
