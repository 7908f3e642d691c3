"""Writers of small CIFAR sets of random pixels in every layout; no tests in here."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ncmi.data.cifar_sets import CIFAR_SETS, CifarSet

COUNTS = (50, 20)
Records = tuple[np.ndarray, np.ndarray]


def naive_sum(labels: np.ndarray, images: np.ndarray) -> str:
    """The checksum of records as its description says, one record after the other."""
    total = 0
    for label, image in zip(labels, images, strict=True):
        record = image.tobytes() + bytes([int(label)])
        total += int.from_bytes(hashlib.blake2b(record, digest_size=16).digest(), "little")
    return f"{total % 2**128:032x}"


def random_records(classes: int, seed: int = 0) -> tuple[Records, Records]:
    rng = np.random.default_rng(seed)
    train, test = ((rng.integers(0, classes, n), rng.integers(0, 256, (n, 3072), dtype=np.uint8)) for n in COUNTS)
    return train, test


def small_set(monkeypatch: pytest.MonkeyPatch, name: str, parts: tuple[Records, Records]) -> CifarSet:
    """Make the set of this name one of 50 + 20 records; of CIFAR-100 the contents are known."""
    content = tuple(naive_sum(*part) for part in parts) if name == "cifar100" else None
    small = dataclasses.replace(CIFAR_SETS[name], counts=COUNTS, content=content, md5={})
    monkeypatch.setitem(CIFAR_SETS, name, small)
    return small


def python2_pickle(values: dict[bytes, Any]) -> bytes:
    """A pickle as Python 2 wrote it for the original archives: protocol 2, byte strings, ``numpy.core``."""

    def put(value: Any) -> bytes:
        if isinstance(value, bytes):
            small = len(value) < 256
            return (b"U" + bytes([len(value)]) if small else b"T" + struct.pack("<i", len(value))) + value
        if isinstance(value, int):
            return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)
        if isinstance(value, list):
            return b"](" + b"".join(map(put, value)) + b"e"
        rows, columns = value.shape
        head = b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87R("
        kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"
        return head + b"K\x01" + put(rows) + put(columns) + b"\x86" + kind + b"\x89" + put(value.tobytes()) + b"tb"

    items = b"".join(put(key) + b"q" + bytes([10 + i]) + put(value) for i, (key, value) in enumerate(values.items()))
    return b"\x80\x02}q\x01(" + items + b"u."


def pickled(values: dict[bytes, Any], protocol: int | str) -> bytes:
    if protocol == "python 2":
        return python2_pickle(values)
    if protocol == 5:  # as people write it today: text keys
        return pickle.dumps({key.decode(): value for key, value in values.items()}, protocol=5)
    return pickle.dumps(values, protocol=int(protocol))


def by_file(cifar: CifarSet, files: tuple[str, ...], parts: tuple[Records, Records]) -> dict[str, Records]:
    """The records of each data file: training files share the training part."""
    (labels, images), test = parts
    shares = len(files) - 1
    split = zip(np.array_split(labels, shares), np.array_split(images, shares), strict=True)
    return dict(zip(files, [*split, test], strict=True))


def write_python(root: Path, cifar: CifarSet, parts: tuple[Records, Records], protocol: int | str = 4) -> Path:
    folder = root / cifar.python.folder
    folder.mkdir(parents=True)
    for name, (labels, images) in by_file(cifar, cifar.python.files, parts).items():
        values = {b"batch_label": name.encode(), b"data": images, cifar.label_key.encode(): labels.tolist()}
        if cifar.coarse_classes:
            values[b"coarse_labels"] = (labels % 20).tolist()
        (folder / name).write_bytes(pickled(values, protocol))
    names = [name.encode() for name in cifar.class_names]
    (folder / cifar.python.names).write_bytes(pickled({cifar.names_key.encode(): names}, protocol))
    return folder


def write_binary(root: Path, cifar: CifarSet, parts: tuple[Records, Records]) -> Path:
    folder = root / cifar.binary.folder
    folder.mkdir(parents=True)
    for name, (labels, images) in by_file(cifar, cifar.binary.files, parts).items():
        heads = [labels % 20, labels] if cifar.coarse_classes else [labels]
        records = np.concatenate([np.stack(heads, axis=1).astype(np.uint8), images], axis=1)
        (folder / name).write_bytes(records.tobytes())
    (folder / cifar.binary.names).write_text("\n".join(cifar.class_names) + "\n\n")
    return folder


def png(image: np.ndarray, **options: Any) -> bytes:
    """``[3072]`` → the bytes of a file."""
    stream = io.BytesIO()
    Image.fromarray(image.reshape(3, 32, 32).transpose(1, 2, 0)).save(stream, **({"format": "PNG"} | options))
    return stream.getvalue()


def write_parquet(
    folder: Path,
    cifar: CifarSet,
    parts: tuple[Records, Records],
    *,
    shards: int = 1,
    column: str = "img",
    plain: bool = False,
    names: list[str] | None = None,
) -> Path:
    """As the hub has it: images as a struct of bytes and path (or plain bytes), names in the schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    for part, (labels, images) in zip(("train", "test"), parts, strict=True):
        split = zip(np.array_split(labels, shards), np.array_split(images, shards), strict=True)
        for i, (some, pixels) in enumerate(split):
            blobs: list[Any] = [png(image) for image in pixels]
            if not plain:
                blobs = [{"bytes": blob, "path": None} for blob in blobs]
            kind = pa.binary() if plain else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            columns = {column: pa.array(blobs, kind), cifar.label_column: pa.array(some, pa.int64())}
            if cifar.coarse_classes:
                columns["coarse_label"] = pa.array(some % 20, pa.int64())
            table = pa.table(columns)
            if names is not None:
                features = {column: {"_type": "Image"}, cifar.label_column: {"names": names, "_type": "ClassLabel"}}
                described = json.dumps({"info": {"features": features}})
                table = table.replace_schema_metadata({"huggingface": described})
            pq.write_table(table, folder / f"{part}-{i:05}-of-{shards:05}.parquet")
    return folder


def pack(folder: Path, archive: Path) -> Path:
    """The folder as a ``.tar.gz``; the folder is removed from disk by the caller, if at all."""
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(folder, folder.name)
    return archive
