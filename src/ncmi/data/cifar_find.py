"""Where CIFAR lies: layouts in a folder, in its subfolders, and anywhere below a data folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ncmi.data.cifar_parquet import parquet_parts, parquet_set
from ncmi.data.cifar_sets import CIFAR_SETS, HOME, CifarSet, Layout
from ncmi.data.folder import visible

LayoutName = Literal["python", "binary", "parquet", "python archive", "binary archive"]
# the same data in each: the first of them that is there is read
PREFERENCE: tuple[LayoutName, ...] = ("python", "binary", "parquet", "python archive", "binary archive")
MAX_DEPTH = 5


@dataclass(frozen=True)
class FoundCifar:
    """A layout of a set at a path: its folder, or its archive; incomplete where data files are missing."""

    cifar: CifarSet
    layout: LayoutName
    path: Path
    complete: bool = True

    @property
    def rank(self) -> tuple[bool, int]:
        """Smaller is read rather."""
        return not self.complete, PREFERENCE.index(self.layout)


def cifar_at(path: Path) -> FoundCifar | None:
    """The set in a folder, in its direct subfolders, or in an archive under its original name.

    Returns:
        ``None`` if the folder has nothing of CIFAR's form.

    Raises:
        ValueError: if both sets are there, or Parquet files of another form.
    """
    if path.is_file():
        return next(iter(_archives(path.parent, {path.name})), None)
    found = _best(_search(path, depth=1))
    sets = {one.cifar.name for one in found}
    if len(sets) > 1:
        where = ", ".join(str(one.path) for one in found)
        raise ValueError(f"holds more than one data set ({' and '.join(sorted(sets))}): give one of {where}")
    if not found:
        _check_parquet(path)
    return found[0] if found else None


def find_cifar(name: str, data_dir: str | None) -> FoundCifar | None:
    """The set of this name (``cifar10``, ``cifar100``): in a folder ``name`` here, or below a data folder."""
    roots = [(Path(name), 1)]
    if data_dir:
        roots.append((Path(data_dir).expanduser(), MAX_DEPTH))
    for root, depth in roots:
        for found in _best(_search(root, depth)) if root.is_dir() else []:
            if found.cifar.name == name:
                return found
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


def _best(found: Iterator[FoundCifar]) -> list[FoundCifar]:
    """The preferred layout of each set, nearest to the top; then in order of path."""
    best: dict[str, FoundCifar] = {}
    for one in found:  # a stable minimum: the search itself goes by depth, then by name
        known = best.get(one.cifar.name)
        if known is None or one.rank < known.rank:
            best[one.cifar.name] = one
    return [best[name] for name in sorted(best)]


def _search(root: Path, depth: int) -> Iterator[FoundCifar]:
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


def _layouts(folder: Path, real_name: str, names: set[str]) -> Iterator[FoundCifar]:
    for cifar in CIFAR_SETS.values():
        layouts: tuple[tuple[LayoutName, Layout], ...] = (("python", cifar.python), ("binary", cifar.binary))
        for name, layout in layouts:
            complete = names.issuperset(layout.files)
            # without the published name the class names have to be there: train.bin alone may be anything
            if real_name == layout.folder or (complete and layout.names in names):
                yield FoundCifar(cifar, name, folder, complete)
    train, test = parquet_parts([folder / name for name in names])
    if train and test:
        try:
            cifar = parquet_set(train[0])
        except ValueError:  # some other table, or told by _check_parquet where the user points at it
            return
        yield FoundCifar(cifar, "parquet", folder)


def _archives(folder: Path, names: set[str]) -> Iterator[FoundCifar]:
    for cifar in CIFAR_SETS.values():
        if cifar.python.archive in names:
            yield FoundCifar(cifar, "python archive", folder / cifar.python.archive)
        if cifar.binary.archive in names:
            yield FoundCifar(cifar, "binary archive", folder / cifar.binary.archive)


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
