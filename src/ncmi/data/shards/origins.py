"""What shards are made of: images of a folder, of Parquet files or of tars, with class and part, none opened yet."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ncmi.data.columns import LABEL_COLUMNS, NONE, TRAIN, called_like
from ncmi.data.image_labels import IMAGE_SUFFIXES
from ncmi.data.image_layouts import in_order, part_of_folder, read_layout
from ncmi.data.shards.index import is_shards
from ncmi.errors import listing, naming, reason
from ncmi.files import all_files

_PARQUET, _TAR = (".parquet", ".pq"), (".tar",)
_NUMBERS = re.compile(r"[-_.]?\d+(-of-\d+)?$")
"""What is behind the part in the name of one file of several, such as train-00003-of-00257."""
_IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "bytes")
_CLASS_FILES = (".cls", ".json")
"""WebDataset's files of labels."""


@dataclass(frozen=True)
class Origin:
    """Where the bytes of an image are: in a file of its own, at a place in a tar, or in a row of a Parquet file.

    Attributes:
        name: what it is called in lists and messages.
        label: number of its class.
        path: of the file.
        offset: of its first byte in a tar, or number of its row; 0 in a file of its own.
        size: in bytes, in a tar; -1 of others.
        group: of a Parquet file, the row group; -1 of others.
    """

    name: str
    label: int
    path: str
    offset: int = 0
    size: int = -1
    group: int = -1


@dataclass(eq=False)
class Origins:
    """All images that shards are to be made of.

    Attributes:
        samples: in order.
        parts: of each: 0 training, 1 validation, 2 test.
        classes: their names.
        bad: (name, reason) of what looks like an image of the data and cannot be one.
        notes: what might have been understood otherwise.
        is_sorted: whether samples come class by class, as in folders, so that their order is to be changed.
    """

    samples: list[Origin] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_sorted: bool = True


def list_origins(path: Path) -> Origins:
    """The images of a folder (see :func:`ncmi.data.image_layouts.read_layout`), of Parquet files, or of tars.

    Parquet files have a column of images (bytes, or Hugging Face's struct of them) and one of labels. In tars the class
    is the folder of an image, or stands in a .cls or .json beside it, or is the name of a tar of one class, as in
    ImageNet's own tar of tars. Their names say the part: train-00000-of-00257.parquet, val-000.tar.

    Raises:
        ValueError: where no class can be told.
    """
    if is_shards(path):
        raise ValueError("holds shards already: give the images that they were made of, or train on it (ncmi train)")
    files = [path] if path.is_file() else all_files(path)
    files, notes, bad = _without_links([file for file in files if file.suffix.lower() in _PARQUET + _TAR], path)
    if parquet := [file for file in files if file.suffix.lower() in _PARQUET]:
        origins = _of_parquet(parquet)
    elif files:
        origins = _of_tars(files)
    else:
        try:
            layout = read_layout(path)
        except ValueError as error:
            if "(--data." not in str(error):  # options that shards are made without
                raise
            what = str(error).rpartition(": ")[0]
            raise ValueError(
                f"{what}: give a folder with one folder for each class, or with a table of columns 'image' and 'label'"
            ) from None
        number = {name: place for place, name in enumerate(layout.classes)}
        origins = Origins(classes=layout.classes, bad=layout.bad, notes=layout.notes)
        parts = layout.parts or [TRAIN] * len(layout.names)
        for name, label, part in zip(layout.names, layout.labels, parts, strict=True):
            if part != NONE and label in number:
                origins.samples.append(Origin(name, number[label], str(layout.root / name)))
                origins.parts.append(part)
    origins.notes += notes
    origins.bad += bad
    if not origins.samples or len(origins.classes) < 2:
        raise ValueError(f"{len(origins.samples)} images of {len(origins.classes)} classes: at least two are needed")
    return origins


def _without_links(files: Sequence[Path], top: Path) -> tuple[list[Path], list[str], list[tuple[str, str]]]:
    """Files below a folder, less what is a second name of one of them by a link, what is to be said of it, and names
    that say another part than the file's own.

    Each counts under its own name, which may say its part, else under the first.
    """
    names: dict[Path, Path] = {}
    for file in files:
        real = file.resolve()
        if real not in names or real == top.resolve() / file.relative_to(top):
            names[real] = file
    kept = set(names.values())
    repeats = [file for file in files if file not in kept]
    pairs = [(file, names[file.resolve()]) for file in repeats]
    bad = [(str(file), f"links to {own}, another part") for file, own in pairs if _say_different_parts(file, own)]
    notes = []
    if same := [pair for pair in pairs if not _say_different_parts(*pair)]:
        notes.append(f"{len(same)} files are links to others and count once (such as {same[0][0]} of {same[0][1]})")
    return [file for file in files if file in kept], notes, bad


def read_origins(samples: Sequence[Origin]) -> Iterator[bytes | OSError]:
    """The bytes of each image; the error where a file cannot be read. Row groups are read once where rows follow."""
    kept: tuple[tuple[str, int], Any] | None = None
    for sample in samples:
        try:
            if sample.group >= 0:
                place = (sample.path, sample.group)
                if kept is None or kept[0] != place:
                    kept = place, _images_of_group(*place)
                yield kept[1][sample.offset]
            else:
                with Path(sample.path).open("rb") as file:
                    file.seek(sample.offset)
                    yield file.read(sample.size)
        except OSError as error:
            yield error


def _say_different_parts(one: Path, other: Path) -> bool:
    said = {_part_said(one), _part_said(other)}
    return len(said) == 2 and None not in said


def _part_of_file(file: Path) -> int:
    """The part that a file is of; training where its name does not say it."""
    said = _part_said(file)
    return TRAIN if said is None else said


def _part_said(file: Path) -> int | None:
    """The part that the name of a file means, or of the folder that it lies in; None where neither says it."""
    parts = (part_of_folder(name) for name in (_NUMBERS.sub("", file.stem), file.parent.name))
    return next((part for part in parts if part is not None), None)


def _of_parquet(files: Sequence[Path]) -> Origins:
    from pyarrow import parquet

    origins = Origins(is_sorted=False)
    labels: list[Any] = []
    names: list[str] | None = None
    for path in files:
        with naming(path), parquet.ParquetFile(path) as file:
            _, label = _columns(file.schema_arrow.names)
            names = names or _names_in_metadata(file.schema_arrow, label)
            for group in range(file.num_row_groups):
                values = file.read_row_group(group, columns=[label])[label].to_pylist()
                labels += values
                origins.samples += [
                    Origin(f"{path.name}:{group}:{row}", 0, str(path), row, group=group) for row in range(len(values))
                ]
                origins.parts += [_part_of_file(path)] * len(values)
    if names is None:
        names = in_order({str(label) for label in labels if label is not None})
        number: dict[Any, int] = {name: place for place, name in enumerate(names)}
        numbers = [-1 if label is None else number[str(label)] for label in labels]
    else:
        numbers = [-1 if label is None else int(label) for label in labels]
    origins.classes = names
    return _with_labels(origins, numbers)


def _columns(names: Sequence[str]) -> tuple[str, str]:
    """The columns of images and of labels."""
    images, labels = called_like(names, _IMAGE_COLUMNS), called_like(names, LABEL_COLUMNS)
    if not images or not labels:
        raise ValueError(
            f"columns {listing(names)}: call one {' or '.join(_IMAGE_COLUMNS)} and one {' or '.join(LABEL_COLUMNS)}"
        )
    return images[0], labels[0]


def _names_in_metadata(schema: Any, label: str) -> list[str] | None:
    """Names of the classes as the Hugging Face hub's files hold them."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[label]["names"]]
    except (KeyError, TypeError, ValueError):
        return None


def _images_of_group(path: str, group: int) -> list[bytes]:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            image, _ = _columns(file.schema_arrow.names)
            values = file.read_row_group(group, columns=[image])[image].to_pylist()
    except ArrowException as error:
        raise OSError(f"damaged ({reason(error)})") from None
    return [(value.get("bytes") if isinstance(value, dict) else value) or b"" for value in values]


def _with_labels(origins: Origins, numbers: Sequence[int]) -> Origins:
    """The same with labels; what has none, or one out of range, is bad."""
    rows = zip(origins.samples, origins.parts, numbers, strict=True)
    kept = []
    for sample, part, number in rows:
        if 0 <= number < len(origins.classes):
            kept.append((Origin(sample.name, number, sample.path, sample.offset, sample.size, sample.group), part))
        else:
            origins.bad.append((sample.name, "no label, or none of the classes"))
    origins.samples, origins.parts = [sample for sample, _ in kept], [part for _, part in kept]
    return origins


@dataclass(frozen=True)
class _Member:
    """A file in a tar: its name, the name of the tar, and where its bytes are."""

    name: str
    tar: str
    offset: int
    size: int


class _Window(io.RawIOBase):
    """A part of a file, read as a file of its own: a tar in a tar."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._place = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._place)
        self._file.seek(self._offset + self._place)
        content = self._file.read(left if size < 0 else min(size, left))
        self._place += len(content)
        return content


def _members(file: BinaryIO, tar: str, offset: int, size: int) -> Iterator[_Member]:
    """All files in a tar, and in the tars that lie in it."""
    try:
        # tarfile asks for no more than reading and seeking
        with tarfile.open(fileobj=_Window(file, offset, size), mode="r:") as archive:
            for member in archive:
                if member.isfile() and member.name.lower().endswith(_TAR):
                    yield from _members(file, Path(member.name).stem, offset + member.offset_data, member.size)
                elif member.isfile():
                    yield _Member(member.name, tar, offset + member.offset_data, member.size)
    except tarfile.TarError as error:
        raise ValueError(f"a damaged tar ({reason(error)}), or a packed one: unpack or replace it") from None


def _of_tars(files: Sequence[Path]) -> Origins:
    origins = Origins()
    words: list[str] = []
    for path in files:
        with naming(path), path.open("rb") as file:
            members = list(_members(file, path.stem, 0, path.stat().st_size))
            beside = {_key(m.name): m for m in members if m.name.lower().endswith(_CLASS_FILES)}
            for member in members:
                if not member.name.lower().endswith(IMAGE_SUFFIXES):
                    continue
                name = f"{member.tar}/{member.name}"
                word = _class_of(file, member, beside.get(_key(member.name)), path.stem)
                if word is None:
                    origins.bad.append((name, "no class: neither a folder, nor a .cls or .json beside it"))
                    continue
                origins.samples.append(Origin(name, 0, str(path), member.offset, member.size))
                origins.parts.append(_part_of_file(path))
                words.append(word)
    origins.classes = in_order(set(words))
    number = {name: place for place, name in enumerate(origins.classes)}
    return _with_labels(origins, [number[word] for word in words])


def _key(name: str) -> str:
    """What the files of one sample have in common in WebDataset's format: the name up to its first point."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.partition('.')[0]}"


def _class_of(file: BinaryIO, member: _Member, label: _Member | None, tar: str) -> str | None:
    if label is not None:
        file.seek(label.offset)
        text = file.read(label.size).decode("utf-8", "replace").strip()
        if label.name.lower().endswith(".cls"):
            return text
        try:
            values = json.loads(text)
            names = called_like(list(values), ("cls", *LABEL_COLUMNS))
            return str(values[names[0]]) if names else None
        except (ValueError, TypeError):
            return None
    folder = Path(member.name).parent.name
    return folder or (member.tar if member.tar != tar or part_of_folder(_NUMBERS.sub("", tar)) is None else None)
