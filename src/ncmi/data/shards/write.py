"""Shards made of images: side by side, gone on with where they were stopped, to the same bytes."""

from __future__ import annotations

import csv
import hashlib
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
from filelock import FileLock, Timeout

from ncmi.data.batches import epoch_order
from ncmi.data.columns import TEST, TRAIN, VALIDATION
from ncmi.data.images import why_unreadable
from ncmi.data.shards.decoding import codecs, suffix_of, with_short_side
from ncmi.data.shards.index import Shard, ShardsRecord, read_index, write_index
from ncmi.data.shards.origins import Origin, Origins, list_origins, read_origins
from ncmi.files import PARTIAL, inert_cell, write_atomically, write_text

BROKEN_FILE = "broken.csv"
_PREFIXES = {TRAIN: "train", VALIDATION: "val", TEST: "test"}
_STATE = ".state"
"""Folder of what is known of finished shards, until all are."""


class _Written(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished shard holds: a list each of its images' columns, and what was broken."""

    shard: Shard
    names: list[str]
    offset: list[int]
    size: list[int]
    label: list[int]
    crc32: list[int]
    broken: list[tuple[str, str]]


@dataclass(frozen=True)
class _Task:
    """A shard to be written."""

    folder: str
    name: str
    part: int
    first: int  # number of its first image in its part
    samples: tuple[Origin, ...]
    short_side: int
    quality: int


def write_shards(
    path: Path,
    out: Path,
    *,
    short_side: int = 256,
    quality: int = 90,
    images_per_shard: int = 5000,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> ShardsRecord:
    """Write images as shards: see :func:`ncmi.data.shards.origins.list_origins` for what they are made of.

    What an earlier call has finished is kept, and what comes out is the same, byte by byte. Images that cannot be
    decoded are left out and named in ``broken.csv``. Samples that come class by class are put in a random order, always
    the same, so that each shard has all classes.

    Args:
        path: folder or file.
        out: folder of the shards.
        short_side: images whose shorter side is longer are scaled to it and become JPEGs of such a ``quality``; others
            keep their bytes. 0 keeps all as they are.
        quality: 1…100.
        images_per_shard: 5000 of about 45 kB are 220 MB.
        workers: processes.
        progress: called with the number of images seen and of all.

    Raises:
        ValueError: where no class can be told, or shards of other data or by other options lie in ``out``.
    """
    if short_side < 0 or not 1 <= quality <= 100 or images_per_shard < 1:
        raise ValueError(
            f"short_side={short_side}, quality={quality}, images_per_shard={images_per_shard}: give a side of at least "
            "0, a quality of 1…100 and at least 1 image"
        )
    codecs()
    if out.resolve() == path.resolve() or (path.is_dir() and out.resolve().is_relative_to(path.resolve())):
        raise ValueError(f"{out} lies in the folder that is read: choose another --out")
    origins = list_origins(path)
    tasks = list(_tasks(origins, out, short_side, quality, images_per_shard))
    state = out / _STATE
    _begin(state, _plan(origins, short_side, quality, images_per_shard))
    try:
        with FileLock(state / "lock", timeout=0):
            if (record := _finished(out)) is not None:
                return record
            for rest in out.glob(f".*{PARTIAL}"):
                rest.unlink()
            written: dict[str, _Written] = {}
            done = 0
            for task, result in _in_processes(tasks, workers):
                written[task.name] = result
                done += len(task.samples)
                progress(done, len(origins.samples))
            record = _finish(out, origins, [(task, written[task.name]) for task in tasks], short_side, quality)
            for kept in state.glob("*.json"):
                kept.unlink()
            return record
    except Timeout:
        raise ValueError(
            f"{out}: another process is writing these shards: wait for it, or choose another --out"
        ) from None


def _finished(out: Path) -> ShardsRecord | None:
    """What an earlier call has finished, if all of it is still there."""
    try:
        return read_index(str(out)).record
    except (OSError, ValueError):
        return None


def _tasks(origins: Origins, out: Path, short_side: int, quality: int, images_per_shard: int) -> Iterator[_Task]:
    parts = np.array(origins.parts)
    for part, prefix in _PREFIXES.items():
        rows = np.flatnonzero(parts == part)
        if origins.is_sorted:
            rows = rows[epoch_order(len(rows), seed=0, epoch=0).numpy()]
        for first in range(0, len(rows), images_per_shard):
            samples = tuple(origins.samples[row] for row in rows[first : first + images_per_shard].tolist())
            name = f"{prefix}-{first // images_per_shard:06d}.tar"
            yield _Task(str(out), name, part, first, samples, short_side, quality)


def _plan(origins: Origins, *options: int) -> str:
    """What tells whether a folder was begun with the same images and options."""
    whole = hashlib.blake2b(repr((options, origins.classes)).encode(), digest_size=16)
    for sample, part in zip(origins.samples, origins.parts, strict=True):
        whole.update(f"{part}\0{sample.label}\0{sample.size}\0{sample.name}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def _begin(state: Path, plan: str) -> None:
    path = state / "plan"
    if path.is_file():
        if path.read_text() != plan:
            raise ValueError(
                f"{state.parent} holds shards of other images or by other options: give these again, or another --out"
            )
        return
    if state.parent.is_dir() and any(state.parent.iterdir()):
        raise ValueError(f"{state.parent} exists and is not empty: choose another --out")
    write_text(path, plan)


def _in_processes(tasks: Sequence[_Task], workers: int) -> Iterator[tuple[_Task, _Written]]:
    if min(workers, len(tasks)) <= 1:
        for task in tasks:
            yield task, _write_shard(task)
        return
    # fresh processes: a fork of one with threads may wait for ever
    executor = ProcessPoolExecutor(min(workers, len(tasks)), mp_context=get_context("spawn"))
    try:
        futures = {executor.submit(_write_shard, task): task for task in tasks}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _write_shard(task: _Task) -> _Written:
    """Write a shard, unless an earlier call has."""
    folder = Path(task.folder)
    path, kept = folder / task.name, folder / _STATE / f"{task.name}.json"
    if kept.is_file() and path.is_file():
        written = msgspec.json.decode(kept.read_bytes(), type=_Written)
        if path.stat().st_size == written.shard.size:
            return written
    columns: dict[str, list[Any]] = {name: [] for name in ("names", "offset", "size", "label", "crc32")}
    broken: list[tuple[str, str]] = []

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for place, (sample, content) in enumerate(zip(task.samples, read_origins(task.samples), strict=True)):
                try:
                    if isinstance(content, OSError):
                        raise content
                    if not content:
                        raise ValueError("no bytes")
                    content = with_short_side(content, task.short_side, task.quality)
                except Exception as error:  # damaged bytes raise whatever the decoder was doing
                    broken.append((sample.name, why_unreadable(error)))
                    continue
                key = f"{task.first + place:09d}"
                _add(file, f"{key}.cls", str(sample.label).encode())
                offset = _add(file, f"{key}.{suffix_of(content)}", content)
                values = (sample.name, offset, len(content), sample.label, zlib.crc32(content))
                for column, value in zip(columns.values(), values, strict=True):
                    column.append(value)
            file.write(bytes(2 * tarfile.BLOCKSIZE))

    write_atomically(path, write)
    shard = Shard(name=task.name, images=len(columns["names"]), size=path.stat().st_size)
    written = _Written(shard=shard, broken=broken, **columns)
    write_atomically(kept, lambda temporary: _write_bytes(temporary, msgspec.json.encode(written)))
    return written


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _add(file: BinaryIO, name: str, content: bytes) -> int:
    """Add a file to a tar, with nothing in it of the day or the user; where its bytes begin."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    file.write(entry.tobuf(tarfile.USTAR_FORMAT))
    offset = file.tell()
    file.write(content)
    file.write(bytes(-len(content) % tarfile.BLOCKSIZE))
    return offset


def _finish(
    out: Path, origins: Origins, shards: Sequence[tuple[_Task, _Written]], short_side: int, quality: int
) -> ShardsRecord:
    """Write index, list of broken images and record."""
    broken = [*origins.bad, *(each for _, written in shards for each in written.broken)]
    kinds = {"shard": np.int32, "offset": np.int64, "size": np.int32, "label": np.int32, "part": np.int8}
    columns: dict[str, list[int]] = {name: [] for name in (*kinds, "crc32")}
    names: list[str] = []
    for number, (task, written) in enumerate(shards):
        names += written.names
        columns["shard"] += [number] * len(written.names)
        columns["part"] += [task.part] * len(written.names)
        for column in ("offset", "size", "label", "crc32"):
            columns[column] += getattr(written, column)
    if not names:
        raise ValueError(f"none of {len(broken)} images can be decoded: {': '.join(broken[0])}")
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["image", "reason"])
    rows.writerows([inert_cell(name), inert_cell(why)] for name, why in broken)
    write_text(out / BROKEN_FILE, text.getvalue())
    record = ShardsRecord(
        classes=origins.classes,
        images=len(names),
        broken=len(broken),
        short_side=short_side,
        quality=quality,
        notes=origins.notes,
        shards=[written.shard for _, written in shards],
        digest="",
    )
    arrays = {name: np.array(values, kinds.get(name, np.uint32)) for name, values in columns.items()}
    return write_index(out, record, arrays, names)
