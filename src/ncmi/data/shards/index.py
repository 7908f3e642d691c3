"""The index of a folder of shards: which image lies where, of which class and part, with which checksum.

``shards.json`` holds the classes, the shards with their sizes and how they were made; ``index.parquet`` has a line for
each image. The tars are WebDataset's (``000000012.jpg`` and ``000000012.cls``) and can be read without either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import msgspec
import numpy as np
import numpy.typing as npt

from ncmi.errors import reason

SHARDS_FILE, INDEX_FILE = "shards.json", "index.parquet"
_FORMAT = 1
_COLUMNS = ("shard", "offset", "size", "label", "part", "crc32")


class Shard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tar file: its name below the folder, how many images it holds, and its size in bytes."""

    name: str
    images: int
    size: int


class ShardsRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``shards.json``.

    Attributes:
        classes: their names, in the order of the labels.
        images: how many there are.
        broken: images that were left out; ``broken.csv`` names them.
        short_side, quality: how images were made smaller; a short side of 0 for all as they were.
        notes: what might have been understood otherwise.
        digest: of the index.
    """

    format: int = _FORMAT
    classes: list[str]
    images: int
    broken: int
    short_side: int
    quality: int
    notes: list[str]
    shards: list[Shard]
    digest: str


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Where the images of a folder of shards lie.

    Attributes:
        place: the folder, or its address (``s3://…``, ``https://…``).
        record: what is said of the whole.
        shard, offset, size: place of the bytes of each image, ``[N]``.
        label, part: ``[N]``; parts are 0 training, 1 validation, 2 test, -1 none.
        crc32: checksum of the bytes of each, ``[N]``.
        names: what each image was called, ``[N]``.
    """

    place: str
    record: ShardsRecord
    shard: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    size: npt.NDArray[np.int32]
    label: npt.NDArray[np.int32]
    part: npt.NDArray[np.int8]
    crc32: npt.NDArray[np.uint32]
    names: ArrowNames

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def is_remote(self) -> bool:
        """Whether the shards are fetched before they are read."""
        return is_address(self.place)


class ArrowNames(Sequence[str]):
    """Names that stay in Arrow's memory: a million of Python's strings take ten times as much."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):  # where a loop over a sequence ends
            raise IndexError(place)
        return str(self.array[place % len(self)].as_py())

    def __iter__(self) -> Iterator[str]:
        return (str(name) for name in self.array)

    def take(self, indices: npt.NDArray[np.int64]) -> ArrowNames:
        """The names of some images."""
        return ArrowNames(self.array.take(indices))


def is_address(name: str) -> bool:
    """Whether a name is an address of files elsewhere.

    >>> is_address("s3://bucket/shards"), is_address("data/shards")
    (True, False)
    """
    return "://" in name


def is_shards(place: str | Path) -> bool:
    """Whether a folder holds shards; what has an address can hold nothing else."""
    return is_address(str(place)) or (Path(place) / SHARDS_FILE).is_file()


def write_index(
    folder: Path, record: ShardsRecord, arrays: dict[str, npt.NDArray[Any]], names: Sequence[str]
) -> ShardsRecord:
    """Write both files; the record comes last, so that what was interrupted is no folder of shards."""
    import pyarrow as pa
    from pyarrow import parquet

    from ncmi.files import write_atomically, write_text

    table = pa.table({"name": pa.array(names, pa.string()), **{column: arrays[column] for column in _COLUMNS}})
    record = msgspec.structs.replace(record, digest=_digest(arrays))
    # without what depends on the day or the machine
    write_atomically(folder / INDEX_FILE, lambda path: parquet.write_table(table, path, compression="zstd"))
    text = msgspec.json.format(msgspec.json.encode(record), indent=1).decode()
    write_text(folder / SHARDS_FILE, text + "\n")
    return record


def read_index(place: str) -> ShardIndex:
    """Read the index of a folder of shards, here or elsewhere.

    Raises:
        OSError: where it cannot be read.
        ValueError: for a damaged index, or shards that are not as long as it says; the message names the cure.
    """
    record = _read_record(place)
    from pyarrow import ArrowException, parquet

    try:
        with open_file(place, INDEX_FILE) as file:
            table = parquet.read_table(file)
        arrays = {column: table[column].to_numpy() for column in _COLUMNS}
        names = ArrowNames(table["name"].combine_chunks())
    except (ArrowException, KeyError) as error:
        raise ValueError(f"{INDEX_FILE} is damaged ({reason(error)}): {_CURE}") from None
    if _digest(arrays) != record.digest or len(names) != record.images:
        raise ValueError(f"{INDEX_FILE} and {SHARDS_FILE} do not belong together: {_CURE}")
    if not is_address(place):
        for shard in record.shards:
            path = Path(place) / shard.name
            if not path.is_file() or path.stat().st_size != shard.size:
                raise ValueError(f"{shard.name} is missing, or not {shard.size:,} bytes long: {_CURE}")
    return ShardIndex(place, record, **arrays, names=names)


_CURE = "bring it back, or make the shards anew by `ncmi data shard`"


def _read_record(place: str) -> ShardsRecord:
    with open_file(place, SHARDS_FILE) as file:
        content = file.read()
    try:
        version = msgspec.json.decode(content).get("format")
        if version != _FORMAT:
            raise ValueError(f"{SHARDS_FILE} has format {version!r}, this version reads {_FORMAT}: shard the data anew")
        return msgspec.json.decode(content, type=ShardsRecord)
    except (msgspec.DecodeError, AttributeError) as error:
        raise ValueError(f"{SHARDS_FILE} is damaged ({reason(error)}): {_CURE}") from None


def open_file(place: str, name: str) -> Any:
    """A file of a folder of shards, open for reading in binary, here or elsewhere.

    Raises:
        ValueError: where a package for this kind of address is not installed.
    """
    if not is_address(place):
        return (Path(place) / name).open("rb")
    import fsspec

    try:
        return fsspec.open(f"{place.rstrip('/')}/{name}", "rb").open()
    except ImportError as error:
        raise ValueError(f"{reason(error)}: pip install it, or give a folder on this machine") from None


def _digest(arrays: dict[str, npt.NDArray[Any]]) -> str:
    whole = hashlib.blake2b(digest_size=16)
    for column in _COLUMNS:
        whole.update(np.ascontiguousarray(arrays[column]).data)
    return whole.hexdigest()
