"""What CIFAR-10 and CIFAR-100 are (class names, counts, files of each layout, checksums), and where they lie.

Nothing but names is read here, and of Parquet files their schema.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from ncmi.errors import listing, naming, reason
from ncmi.files import visible

HOME = "www.cs.toronto.edu/~kriz/cifar.html"
SIDE = 32
IMAGE_BYTES = 3 * SIDE * SIDE
IMAGE_COLUMNS = ("img", "image")
AGAIN = f"download it again from {HOME}"
PARQUET_AGAIN = "download the file again"
MODIFIED = "give smaller or modified sets (other labels, fewer images) as .npz or as a folder of images"

LayoutName = Literal["python", "binary", "parquet", "python archive", "binary archive"]
# the same data in each: the first of them that is there is read
PREFERENCE: tuple[LayoutName, ...] = ("python", "binary", "parquet", "python archive", "binary archive")
MAX_DEPTH = 5


@dataclass(frozen=True)
class Layout:
    """File names of one layout: the folder and archive as published, data files, file of class names."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    names: str

    @property
    def files(self) -> tuple[str, ...]:
        """All data files, training files first."""
        return (*self.train, self.test)


@dataclass(frozen=True)
class CifarSet:
    """One of the two sets.

    Args:
        title: what messages call it.
        class_names: in order of the labels.
        label_key: key of the labels in the pickles; without the final s the column of the Parquet layout.
        names_key: key of the class names in the pickles.
        coarse_classes: number of superclasses; 0 where there are none.
        counts: records in each part, train and test.
        content: checksums of the parts as :func:`ncmi.data.cifar.content_sum` makes them; ``None`` if unknown.
        md5: published MD5 sums of the original pickles: a file with its sum is right whatever ``content`` says.
    """

    name: str
    title: str
    class_names: tuple[str, ...]
    label_key: str
    names_key: str
    coarse_classes: int
    python: Layout
    binary: Layout
    counts: tuple[int, int] = (50_000, 10_000)
    content: tuple[str, str] | None = None
    md5: Mapping[str, str] = field(default_factory=dict)

    @property
    def label_column(self) -> str:
        """Column of the labels in the Parquet layout."""
        return self.label_key.removesuffix("s")

    def count(self, file: str) -> int:
        """Records in a data file of the python or binary layout."""
        is_test = file in (self.python.test, self.binary.test)
        return self.counts[1] if is_test else self.counts[0] // len(self.python.train)


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_NAMES_10 = "airplane automobile bird cat deer dog frog horse ship truck"
_NAMES_100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

CIFAR_SETS = {
    "cifar10": CifarSet(
        name="cifar10",
        title="CIFAR-10",
        class_names=tuple(_NAMES_10.split()),
        label_key="labels",
        names_key="label_names",
        coarse_classes=0,
        python=Layout("cifar-10-batches-py", "cifar-10-python.tar.gz", _BATCHES, "test_batch", "batches.meta"),
        binary=Layout(
            *("cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
            tuple(f"{batch}.bin" for batch in _BATCHES),
            *("test_batch.bin", "batches.meta.txt"),
        ),
    ),
    "cifar100": CifarSet(
        name="cifar100",
        title="CIFAR-100",
        class_names=tuple(_NAMES_100.split()),
        label_key="fine_labels",
        names_key="fine_label_names",
        coarse_classes=20,
        python=Layout("cifar-100-python", "cifar-100-python.tar.gz", ("train",), "test", "meta"),
        binary=Layout(
            "cifar-100-binary", "cifar-100-binary.tar.gz", ("train.bin",), "test.bin", "fine_label_names.txt"
        ),
        # measured: the images and labels published in 2009, from a copy stored without loss
        content=("749f102036837502545722c5ef8621c1", "5591f7f24fd1c1b69f3cfec182975831"),
        md5={"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    ),
}


@dataclass(frozen=True)
class CifarSource:
    """A layout of a set at a path: its folder, or its archive; incomplete where data files are missing."""

    cifar: CifarSet
    layout: LayoutName
    path: Path
    complete: bool = True

    @property
    def rank(self) -> tuple[bool, int]:
        """Smaller is read rather."""
        return not self.complete, PREFERENCE.index(self.layout)


def cifar_at(path: Path) -> CifarSource | None:
    """The set in a folder, in its direct subfolders, or in an archive under its original name.

    Returns:
        ``None`` if the folder has nothing of CIFAR's form.
    """
    if path.is_file():
        return next(iter(_archives(path.parent, {path.name})), None)
    sources = _best(_search(path, depth=1))
    sets = {source.cifar.name for source in sources}
    if len(sets) > 1:
        where = ", ".join(str(source.path) for source in sources)
        raise ValueError(f"holds more than one data set ({' and '.join(sorted(sets))}): give one of {where}")
    if not sources:
        _check_parquet(path)
    return sources[0] if sources else None


def find_cifar(name: str, data_dir: str | None) -> CifarSource | None:
    """The set of this name (``cifar10``, ``cifar100``): in a folder ``name`` here, or below a data folder."""
    roots = [(Path(name), 1)]
    if data_dir:
        roots.append((Path(data_dir).expanduser(), MAX_DEPTH))
    for root, depth in roots:
        for source in _best(_search(root, depth)) if root.is_dir() else []:
            if source.cifar.name == name:
                return source
    return None


def not_found(name: str, data_dir: str | None) -> str:
    """What to do where a set is nowhere."""
    cifar = CIFAR_SETS[name]
    where = f"no layout of it below {data_dir}" if data_dir else "no data folder is set"
    return (
        f"no data set {name!r} ({where}): {cifar.title} is read from a folder {cifar.python.folder} or "
        f"{cifar.binary.folder}, from {cifar.python.archive} or {cifar.binary.archive} ({HOME}), or from a folder "
        f"of train*.parquet and test*.parquet with the columns img and {cifar.label_column}; set NCMI_DATA or "
        "data_dir to a folder that holds one of them, or give its path"
    )


def _best(sources: Iterator[CifarSource]) -> list[CifarSource]:
    """The preferred layout of each set, nearest to the top; then in order of path."""
    # a stable sort: the search itself goes by depth, then by name
    ranked = sorted(sources, key=lambda source: (source.cifar.name, source.rank))
    return [next(of_set) for _, of_set in groupby(ranked, key=lambda source: source.cifar.name)]


def _search(root: Path, depth: int) -> Iterator[CifarSource]:
    """All layouts in a folder and so many levels of subfolders, nearest first."""
    level, seen = [root], set()
    for _ in range(depth + 1):
        deeper: list[Path] = []
        for folder in level:
            real = folder.resolve()
            if real in seen:
                continue
            seen.add(real)
            try:
                with os.scandir(folder) as entries:
                    listed = sorted((entry.name, entry.is_dir()) for entry in entries)
            except OSError:  # not ours to read
                continue
            names = {name for name, is_dir in listed if not is_dir}
            yield from _layouts(folder, real.name, names)
            yield from _archives(folder, names)
            deeper += [folder / name for name, is_dir in listed if is_dir and not name.startswith(".")]
        level = deeper


def _layouts(folder: Path, real_name: str, names: set[str]) -> Iterator[CifarSource]:
    for cifar in CIFAR_SETS.values():
        layouts: tuple[tuple[LayoutName, Layout], ...] = (("python", cifar.python), ("binary", cifar.binary))
        for name, layout in layouts:
            complete = names.issuperset(layout.files)
            # without the published name the class names have to be there: train.bin alone may be anything
            if real_name == layout.folder or (complete and layout.names in names):
                yield CifarSource(cifar, name, folder, complete)
    train, test = parquet_parts([folder / name for name in names])
    if train and test:
        try:
            cifar = parquet_set(train[0])
        except ValueError:  # some other table, or told by _check_parquet where the user points at it
            return
        yield CifarSource(cifar, "parquet", folder)


def _archives(folder: Path, names: set[str]) -> Iterator[CifarSource]:
    for cifar in CIFAR_SETS.values():
        if cifar.python.archive in names:
            yield CifarSource(cifar, "python archive", folder / cifar.python.archive)
        if cifar.binary.archive in names:
            yield CifarSource(cifar, "binary archive", folder / cifar.binary.archive)


def _check_parquet(path: Path) -> None:
    """Tell why Parquet files that the user points at are not CIFAR; class folders of images are left alone."""
    folders = [entry for entry in visible(path) if entry.is_dir()]
    if len(folders) > 1:
        return
    for folder in (path, *folders):
        train, test = parquet_parts(visible(folder))
        if train and test:
            parquet_set(train[0])
        elif train or test:
            raise ValueError(f"{'test' if train else 'train'}*.parquet is missing beside {(train or test)[0].name}")


def parquet_parts(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Shards of the train and the test part among the files of a folder, each in order of name."""
    names = sorted(file for file in files if file.suffix.lower() == ".parquet")
    train, test = ([file for file in names if file.name.startswith(part)] for part in ("train", "test"))
    return train, test


def parquet_set(file: Path) -> CifarSet:
    """Which set a Parquet file is a part of, by columns and class names; ValueError for one of another form."""
    with naming(file.name), open_parquet(file) as table:
        columns = table.schema_arrow.names
        if any(name in columns for name in IMAGE_COLUMNS):
            for cifar in CIFAR_SETS.values():
                described = described_names(table, cifar)
                names = cifar.class_names if described is None else described
                # more than half of them known: many data sets have columns ``image`` and ``label``
                plausible = len(set(map(str, names)) & set(cifar.class_names)) > len(names) // 2
                if cifar.label_column in columns and plausible and len(names) == len(cifar.class_names):
                    return cifar
        raise ValueError(
            f"columns {listing(columns)} are not those of CIFAR: an image column {' or '.join(IMAGE_COLUMNS)} and "
            "the labels, fine_label (CIFAR-100) or label (CIFAR-10, with its class names)"
        )


def open_parquet(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not a readable .parquet file ({reason(error)}): {PARQUET_AGAIN}") from error


def described_names(table: Any, cifar: CifarSet) -> list[Any] | None:
    """The ``names`` of the label column in the schema's JSON key ``huggingface``; ``None`` if absent or broken."""
    try:
        description = json.loads((table.schema_arrow.metadata or {})[b"huggingface"])
        names = description["info"]["features"][cifar.label_column]["names"]
    except (KeyError, ValueError, TypeError, IndexError, RecursionError):
        return None
    return names if isinstance(names, list) else None
