"""CIFAR as the Hugging Face hub stores it: Parquet files of encoded images and labels."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ncmi.data.cifar_files import Records, checked_labels, checked_names, in_file
from ncmi.data.cifar_sets import CIFAR_SETS, IMAGE_BYTES, MODIFIED, SIDE, CifarSet
from ncmi.data.dataset import listing
from ncmi.data.images import FORMATS

IMAGE_COLUMNS = ("img", "image")
BATCH = 2048
AGAIN = "download the file again"


def parquet_parts(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Shards of the train and the test part among the files of a folder, each in order of name."""
    names = sorted(file for file in files if file.suffix.lower() == ".parquet")
    train, test = ([file for file in names if file.name.startswith(part)] for part in ("train", "test"))
    return train, test


def parquet_set(file: Path) -> CifarSet:
    """Which set a Parquet file is a part of, by its columns and, where it has them, its class names.

    Raises:
        ValueError: naming the file, for an unreadable one or one of another form.
    """
    with in_file(file.name), _open(file) as table:
        columns = table.schema_arrow.names
        if any(name in columns for name in IMAGE_COLUMNS):
            for cifar in CIFAR_SETS.values():
                if cifar.label_column in columns and _plausible(_names(table, cifar), cifar):
                    return cifar
        raise ValueError(
            f"columns {listing(columns)} are not those of CIFAR: an image column {' or '.join(IMAGE_COLUMNS)} and "
            "the labels, fine_label (CIFAR-100) or label (CIFAR-10, with its class names)"
        )


def parquet_names(file: Path, cifar: CifarSet) -> tuple[str, ...] | None:
    """Class names in the file's Hugging Face description, ``None`` if it has none."""
    with in_file(file.name), _open(file) as table:
        names = _names(table, cifar)
        return None if names is None else checked_names(names, cifar)


def read_parquet(files: Sequence[Path], cifar: CifarSet, count: int) -> Records:
    """The records of one part, ``count`` in all its shards.

    Raises:
        ValueError: naming the file, for a wrong number of records, absent columns or values, images that
            cannot be decoded or are not 32×32, labels out of range.
    """
    total = 0
    for file in files:
        with in_file(file.name), _open(file) as table:
            total += table.metadata.num_rows
    if total != count:
        raise ValueError(
            f"{total:,} records in {', '.join(file.name for file in files)}, expected {count:,}: "
            f"{'a shard is missing or cut' if total < count else 'too many shards'}; {AGAIN}; {MODIFIED}"
        )
    images: npt.NDArray[np.uint8] = np.empty((count, IMAGE_BYTES), np.uint8)
    labels: list[npt.NDArray[np.int64]] = []
    at = 0
    for file in files:  # without threads: for images as small as these they wait for each other
        with in_file(file.name):
            values: list[Any] = []
            for blobs, batch in _batches(file, cifar):
                for row, blob in enumerate(blobs, start=len(values)):
                    images[at] = _decode(row, blob)
                    at += 1
                values += batch
            labels.append(checked_labels(values, len(cifar.class_names), len(values), file.name))
    return Records(np.concatenate(labels), images)


def _open(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not a readable .parquet file ({' '.join(str(error).split())}): {AGAIN}") from error


def _batches(file: Path, cifar: CifarSet) -> Iterator[tuple[list[bytes | None], list[Any]]]:
    """Encoded images and labels, a few thousand at a time."""
    import pyarrow as pa

    with _open(file) as table:
        columns = table.schema_arrow.names
        image = next((name for name in IMAGE_COLUMNS if name in columns), None)
        if image is None or cifar.label_column not in columns:
            raise ValueError(
                f"columns {listing(columns)}: expected {' or '.join(IMAGE_COLUMNS)} and {cifar.label_column}"
            )
        try:
            for batch in table.iter_batches(BATCH, columns=[image, cifar.label_column]):
                blobs = [_bytes(value) for value in batch.column(image).to_pylist()]
                yield blobs, batch.column(cifar.label_column).to_pylist()
        except (pa.ArrowException, OSError, KeyError) as error:
            raise ValueError(f"damaged ({' '.join(str(error).split())}): {AGAIN}") from error


def _bytes(value: Any) -> bytes | None:
    found = value.get("bytes") if isinstance(value, dict) else value
    return found if isinstance(found, bytes) else None


def _decode(row: int, blob: bytes | None) -> npt.NDArray[np.uint8]:
    """Bytes of an image file → ``[3072]``."""
    from PIL import Image

    if blob is None:
        raise ValueError(f"record {row} (counted from 0) holds no bytes of an image: {AGAIN}")
    try:
        with Image.open(io.BytesIO(blob), formats=FORMATS) as image:
            if image.size != (SIDE, SIDE):
                raise ValueError(f"{image.size[0]}×{image.size[1]} pixels, CIFAR has {SIDE}×{SIDE}")
            pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except Exception as error:  # damaged bytes raise whatever the decoder was doing
        raise ValueError(
            f"the image of record {row} (counted from 0) is corrupt or not of CIFAR ({error}): {AGAIN}; {MODIFIED}"
        ) from error
    return pixels.transpose(2, 0, 1).reshape(-1)


def _names(table: Any, cifar: CifarSet) -> list[Any] | None:
    """The ``names`` of the label column in the schema's JSON key ``huggingface``; ``None`` if absent or broken."""
    try:
        description = json.loads((table.schema_arrow.metadata or {})[b"huggingface"])
        names = description["info"]["features"][cifar.label_column]["names"]
    except (KeyError, ValueError, TypeError, IndexError, RecursionError):
        return None
    return names if isinstance(names, list) else None


def _plausible(names: list[Any] | None, cifar: CifarSet) -> bool:
    """Whether these may be the class names: many data sets have columns ``image`` and ``label``."""
    if names is None:
        return True
    spelling = {str(name) for name in names}
    return len(names) == len(cifar.class_names) and len(spelling & set(cifar.class_names)) > len(names) // 2
