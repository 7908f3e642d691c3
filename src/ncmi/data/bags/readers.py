"""Bags from whatever is at a path, recognized by content: .h5, .pt and .npz files of one slide each or of a cohort."""

from __future__ import annotations

import math
import pickle
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ncmi.data.arrays import archive_shapes, read_array
from ncmi.data.bags.bag import Bag, BagError, BagSource, UnusableBag, bag_shape, make_bag
from ncmi.data.bags.zarr_stores import TileFeatures, zarr_content
from ncmi.data.columns import COORDS_KEYS, ENCODER_ATTRIBUTES, FEATURE_KEYS
from ncmi.data.kinds import INNER_FOLDERS, ZARR, bag_in, is_bag_file, locate
from ncmi.errors import listing, reason
from ncmi.files import visible

Array = npt.NDArray[Any]
Content = Mapping[str, Any]
"""What a file or a group holds: something with a shape by name, and perhaps attributes."""
_ALONE = "the tensor"
"""Name of a tensor that is all of a .pt file, whatever was asked for."""
LAYOUTS = (
    "a folder of one .h5 file a slide (TRIDENT, CLAM: features [N, D], coords), of one .pt tensor a slide (CLAM) or "
    "of one .npz file a slide (features, coords); an .h5 file with one group a slide (AEM, ASMIL: feat, coords, "
    "attribute label); a folder of one .npy file a slide (torchmil), of one .h5ad file or .zarr store a slide "
    "(LazySlide) or of one folder a slide with its features.h5; an .npz file with x [n, D], bag [n] and bag_label [B]"
)


def open_bags(path: str | Path, *, features_key: str | None = None, coords_key: str | None = None) -> BagSource:
    """Open bags of features; which of the usual layouts it is shows by itself. Reads names and at most shapes.

    Args:
        path: folder of one file a slide, file of a whole cohort, or file of one slide; or a name below NCMI_DATA.
        features_key, coords_key: names of data sets; by default guessed by their usual names.

    Raises:
        BagError: where there is nothing, or none of the layouts, which it then lists.
    """
    path, keys = locate(path), _Keys(features_key, coords_key)
    if path.suffix.lower() == ZARR and path.is_dir():
        return _zarr_source(path, {path.stem: path}, keys)
    if path.is_dir():
        return _open_folder(path, keys)
    if not path.exists():
        raise BagError(
            f"{path}: no such file or folder: check the path of the features (a run keeps it as it was given: where "
            "that is relative, start from the same folder)"
        )
    if _is_hdf5(path):
        with _h5(path) as file:
            one_slide = bool(_shapes(file)) or (features_key is not None and features_key in file)
        if path.suffix.lower() == ".h5ad":
            return FolderSource(path, {path.stem: path}, _h5ad, keys)
        return FolderSource(path, {path.stem: path}, _h5, keys) if one_slide else H5Cohort(path, keys)
    if path.suffix.lower() in (".pt", ".pth"):
        return FolderSource(path, {path.stem: path}, _pt, keys)
    if zipfile.is_zipfile(path):
        with _npz(path) as arrays:
            cohort = {"bag", "bag_label"} <= arrays.keys()
        return NpzCohort(path, keys) if cohort else FolderSource(path, {path.stem: path}, _npz, keys)
    raise BagError(f"{path}: not bags of features, or damaged: give {LAYOUTS}")


def _open_folder(path: Path, keys: _Keys) -> BagSource:
    # hidden files are leftovers of a write that was stopped
    files = [file for file in path.iterdir() if is_bag_file(file) and not file.name.startswith(".")]
    files = sorted(files, key=lambda file: (file.suffix.lower(), file))
    if not files:
        folders = [entry for entry in visible(path) if entry.is_dir()]
        own = {folder.name: bag for folder in folders if (bag := bag_in(folder)) is not None}
        if own and len(own) == len(folders) and len({bag.suffix for bag in own.values()}) == 1:
            return FolderSource(path, own, _READERS[next(iter(own.values())).suffix.lower()], keys)
        for inner in INNER_FOLDERS:
            if (path / inner).is_dir():
                return _open_folder(path / inner, keys)
        if inside := sorted({str(file.parent) for file in path.glob("*/*") if file.suffix.lower() in _READERS}):
            raise BagError(
                f"{path}: no bags of features here, but in {listing(inside, 3)}: give that folder, or bring all files "
                "into one"
            )
        raise BagError(f"{path}: no bags of features here: give {LAYOUTS}")
    suffixes = sorted({file.suffix.lower() for file in files})
    if len({_READERS.get(suffix) for suffix in suffixes}) > 1:
        raise BagError(f"{path}: files of several kinds ({', '.join(suffixes)}): keep one kind in a folder")
    stems: dict[str, Path] = {}
    for file in files:
        if stems.setdefault(file.stem, file) is not file:
            raise BagError(f"{path}: {stems[file.stem].name} and {file.name} are one slide: keep one of them")
    if suffixes == [ZARR]:
        return _zarr_source(path, stems, keys)
    return FolderSource(path, stems, _READERS[suffixes[0]], keys)


def _zarr_source(path: Path, stores: Mapping[str, Path], keys: _Keys) -> FolderSource:
    """Zarr stores of one slide each; which of a store's tables are the features is settled where it is opened."""
    return FolderSource(path, stores, partial(_zarr, table=keys.features), _Keys())


@dataclass(frozen=True)
class _Keys:
    """Names of data sets that were asked for, and what they are called where nothing was."""

    features: str | None = None
    coords: str | None = None

    def features_in(self, content: Content, path: Path) -> str:
        if list(content) == [_ALONE]:
            return _ALONE
        if self.features is not None:
            return _asked(content, self.features, "features", path)
        usual = [name for name in content if name.lower() in FEATURE_KEYS]
        if len(usual) != 1:  # shapes are looked at, which takes longer, only where the names do not decide
            usual = [name for name in usual if len(_shape(content[name])) > 1]
        if len(usual) == 1:
            return usual[0]
        which = "several data sets could be" if usual else "no data set is called like"
        there = listing([f"{name} {list(shape)}" for name, shape in _shapes(content).items()]) or "none"
        raise BagError(f"{path}: {which} the features; there is {there}: choose one (--data.features-key)")

    def coords_in(self, content: Content, path: Path) -> str | None:
        if self.coords is not None:
            return _asked(content, self.coords, "coords", path)
        return next((name for name in content if name.lower() in COORDS_KEYS), None)

    def shape(self, content: Content, path: Path) -> tuple[int, int]:
        """(N, D) of the features in a file or group."""
        key = self.features_in(content, path)
        shape = _shape(content[key])
        if hasattr(content[key], "keys"):
            inside = listing([f"{key}/{name}" for name in content[key]]) or "nothing"
            raise BagError(f"{path}: {key!r} is a group of {inside}: choose one (--data.features-key)")
        if len(shape) > 3:
            raise BagError(f"{path}: {key!r} of shape {list(shape)} holds images: embed them first, as [n, D]")
        return bag_shape(shape, path)

    def bag(self, name: str, content: Content, path: Path, positions: Content | None = None) -> Bag:
        """The bag in a file or group, with positions and patch size where they are there, or in another place."""
        self.shape(content, path)
        features = content[self.features_in(content, path)]
        positions = content if positions is None else positions
        coords = None if (key := self.coords_in(positions, path)) is None else positions[key]
        merged = {key: value for part in (features, positions, coords) for key, value in _attributes(part).items()}
        return make_bag(name, _values(features), None if coords is None else _values(coords), merged, path)


def _asked(content: Content, name: str, role: str, path: Path) -> str:
    if name not in content:  # in an .h5 file it may be a path
        there = listing(list(_shapes(content) if role == "features" else content))
        raise BagError(f"{path}: no data set {name!r} (there is {there}): see --data.{role}-key")
    return name


def _attributes(item: Any) -> Mapping[str, Any]:
    """What an HDF5 file, group or data set says of itself; nothing of anything else."""
    return getattr(item, "attrs", {})


def _encoder_in(content: Content, features: str) -> str | None:
    """What made the features of a file or group, with its version where there is one; None where it does not say."""
    said = {**_attributes(content), **_attributes(content[features])}
    name = next(filter(None, (attribute_text(said.get(key, "")) for key in ENCODER_ATTRIBUTES)), "")
    if not name:  # TRIDENT names the folder it writes to by the encoder: features_uni_v1
        folder = Path(attribute_text(_attributes(content[features]).get("savetodir", ""))).name
        name = folder.removeprefix("features_") if folder.startswith("features_") else ""
    version = attribute_text(said.get("encoder_version", ""))
    return (f"{name} ({version})" if version else name) or None


def attribute_text(value: Any) -> str:
    """An attribute as text, however it was written: of an array its first value, of nothing an empty text."""
    values = np.asarray(value).ravel()
    first = values[0] if values.size else ""
    return (first.decode(errors="replace") if isinstance(first, bytes) else str(first)).strip()


def _values(item: Any) -> Any:
    # a copy of a tensor: pages of the mapping would be read where the bag is used
    if isinstance(item, Tensor):
        return item.detach().clone()
    return np.array(item) if isinstance(item, np.memmap) else item[...]


def _shape(item: Any) -> tuple[int, ...]:
    return tuple(getattr(item, "shape", None) or ())


def _shapes(content: Content) -> dict[str, tuple[int, ...]]:
    """Shapes of the data sets that lie directly in a file or group."""
    return {name: _shape(item) for name, item in content.items() if hasattr(item, "shape")}


@contextmanager
def _readable(path: Path, what: str) -> Iterator[None]:
    """Make an error that names the file of whatever a parser says of damage."""
    try:
        yield
    except (BagError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and (isinstance(error, BlockingIOError) or "unable to lock file" in str(error)):
            raise BagError(
                f"{path}: another program has it open and locked, perhaps writes it: wait until that is done; where no "
                "program does and the file system has no locks, set HDF5_USE_FILE_LOCKING=FALSE"
            ) from error
        message = f"not a readable {what} file, truncated or damaged ({reason(error)[:300]})"
        raise UnusableBag(path, message) from error


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


@contextmanager
def _h5(path: Path) -> Iterator[Content]:
    import h5py

    with _readable(path, "HDF5"), h5py.File(path, "r") as file:
        yield file


@contextmanager
def _h5ad(path: Path) -> Iterator[Content]:
    """AnnData of one slide's tiles as LazySlide writes it: X, corners at level 0 in obsm/spatial, uns/tile_spec."""
    with _h5(path) as file:
        if not hasattr(file.get("X"), "shape"):
            raise UnusableBag(path, "no X that is a matrix [N, D], which .h5ad files of features have")
        spec = file.get("uns/tile_spec", {})
        sides = (spec[key] for key in ("base_width", "raw_width") if key in spec)
        side = next((np.asarray(value[()]).item() for value in sides if value.shape == ()), None)
        content: dict[str, Any] = {"X": TileFeatures(file["X"], {} if side is None else {"patch_size_level0": side})}
        yield content | ({"coords": file["obsm/spatial"]} if "obsm/spatial" in file else {})


@contextmanager
def _zarr(path: Path, table: str | None) -> Iterator[Content]:
    with _readable(path, "Zarr"):
        yield zarr_content(path, table)


@contextmanager
def _npy(path: Path) -> Iterator[Content]:
    """One array; its positions lie in a folder coords beside the features' folder, as torchmil has them."""
    with _readable(path, ".npy"):
        content = {"features": np.load(path, mmap_mode="r", allow_pickle=False)}
        coords = path.parent.parent / "coords" / path.name
        yield content | ({"coords": np.load(coords, allow_pickle=False)} if coords.is_file() else {})


@contextmanager
def _npz(path: Path) -> Iterator[Content]:
    with _readable(path, ".npz"):
        yield {name: _NpzArray(path, name, shape) for name, shape in archive_shapes(path).items()}


@dataclass(frozen=True)
class _NpzArray:
    """An array that is read where it is asked for."""

    path: Path
    name: str
    shape: tuple[int, ...]

    def __getitem__(self, chosen: Any) -> Array:
        return np.asarray(read_array(self.path, self.name)[chosen])


@contextmanager
def _pt(path: Path) -> Iterator[Content]:
    """The tensors of a .pt file, memory-mapped; no other Python object is made of it."""
    if path.stat().st_size == 0:
        raise UnusableBag(path, "an empty file")
    with _readable(path, "PyTorch"):
        try:
            try:
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError as error:
                if "mmap" not in str(error):
                    raise
                content = torch.load(path, map_location="cpu", weights_only=True)  # written before PyTorch 1.6
        except pickle.UnpicklingError as error:
            message = "damaged, or holds Python objects, which are not read for safety; save the tensor alone"
            raise UnusableBag(path, message) from error
        content = {_ALONE: content} if isinstance(content, Tensor) else content
        if not isinstance(content, dict):
            raise UnusableBag(path, f"holds a {type(content).__name__} instead of a tensor or a dict with one")
        yield {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


_READERS: dict[str, Callable[[Path], AbstractContextManager[Content]]] = {
    **dict.fromkeys((".h5", ".hdf5"), _h5),
    **dict.fromkeys((".pt", ".pth"), _pt),
    ".h5ad": _h5ad,
    ".npz": _npz,
    ".npy": _npy,
}


class FolderSource(BagSource):
    """Bags in one file each, by the slides' names. Shapes are read once and remembered.

    A file holds ``features`` (or ``x`` …) ``[N, D]`` or ``[1, N, D]`` and, optionally, ``coords`` ``[N, 2]``. Positions
    of a .pt file may lie in the .h5 file of the same name, beside it or in ``../h5_files``.
    """

    def __init__(
        self,
        path: Path,
        files: Mapping[str, Path],
        reader: Callable[[Path], AbstractContextManager[Content]],
        keys: _Keys,
    ) -> None:
        self.path = path
        self.files = dict(files)
        self.names = tuple(sorted(self.files))
        self._reader, self._keys = reader, keys
        self._known: dict[str, tuple[tuple[int, int], str | None]] = {}

    def shape(self, name: str) -> tuple[int, int]:
        return self._look(name)[0]

    def encoder(self, name: str) -> str | None:
        return self._look(name)[1]

    def label(self, name: str) -> str | None:
        """Of .npy files the one number in a folder labels beside the features' folder, as torchmil has it."""
        file = self.entry(self.files, name)
        path = file.parent.parent / "labels" / file.name
        if self._reader is not _npy or not path.is_file():
            return None
        with _readable(path, ".npy"):
            values = np.load(path, allow_pickle=False).ravel().tolist()
        return label_text(values[0]) if len(values) == 1 else None

    def _look(self, name: str) -> tuple[tuple[int, int], str | None]:
        """Shape and encoder, from one opening of the file."""
        if name not in self._known:
            file = self.entry(self.files, name)
            with self._reader(file) as content:
                shape = self._keys.shape(content, file)
                self._known[name] = shape, _encoder_in(content, self._keys.features_in(content, file))
        return self._known[name]

    def load(self, name: str) -> Bag:
        file, keys = self.entry(self.files, name), self._keys
        with self._reader(file) as content:
            if self._reader is not _pt:
                return keys.bag(name, content, file)
            inside = _Keys(keys.features, keys.coords if keys.coords in content else None)
            companions = (folder / f"{file.stem}.h5" for folder in (file.parent, file.parent.parent / "h5_files"))
            companion = next((path for path in companions if path.is_file()), None)
            if companion is None or inside.coords_in(content, file) is not None:
                return inside.bag(name, content, file)
            with _h5(companion) as positions:
                return keys.bag(name, content, file, positions)


class H5Cohort(BagSource):
    """A file with ``SLIDE/feat`` ``[N, D]``, ``SLIDE/coords`` ``[N, 2]`` and the attribute ``label`` of ``SLIDE``.

    Opening reads the shapes and labels of all groups at once.
    """

    def __init__(self, path: Path, keys: _Keys) -> None:
        self.path, self._keys = path, keys
        self._shapes: dict[str, tuple[int, int] | BagError] = {}
        self._labels: dict[str, str | None] = {}
        self._encoders: dict[str, str | None] = {}
        with _h5(path) as file:
            for name in sorted(file):
                group: Any = file.get(name)  # None for a link to nowhere
                if hasattr(group, "keys"):
                    try:
                        self._shapes[name] = keys.shape(group, path / name)
                        inside = _encoder_in(group, keys.features_in(group, path / name))
                        self._encoders[name] = inside or attribute_text(_attributes(file).get("encoder", "")) or None
                    except BagError as error:
                        self._shapes[name] = error
                    values = np.asarray(group.attrs.get("label", ())).ravel().tolist()
                    self._labels[name] = label_text(values[0]) if len(values) == 1 else None
            there = listing(list(_shapes(file)))
        self.names = tuple(self._shapes)
        if not self.names:
            raise BagError(f"{path}: no group a slide (there is {there or 'nothing'})")

    def shape(self, name: str) -> tuple[int, int]:
        shape = self.entry(self._shapes, name)
        if isinstance(shape, BagError):
            raise shape
        return shape

    def load(self, name: str) -> Bag:
        self.entry(self._shapes, name)
        with _h5(self.path) as file:
            return self._keys.bag(name, file[name], self.path / name)

    def label(self, name: str) -> str | None:
        """The group's attribute ``label`` as text."""
        return self.entry(self._labels, name)

    def encoder(self, name: str) -> str | None:
        return self._encoders.get(name)


class NpzCohort(BagSource):
    """A file with ``x`` ``[n, D]``, ``bag`` ``[n]`` (index 0 … B−1 of each instance's bag) and ``bag_label`` ``[B]``.

    Bags are called by their index, with as many digits as the last one has. Positions are a ``[n, 2]`` array. The
    instances are read with the first bag and kept: this form is for cohorts that fit into memory.
    """

    def __init__(self, path: Path, keys: _Keys) -> None:
        self.path = path
        with _npz(path) as arrays:
            instances, self._width = keys.shape(arrays, path)
            self._features, coords = arrays[keys.features_in(arrays, path)], keys.coords_in(arrays, path)
            self._coords = None if coords is None else arrays[coords]
            bags, labels = arrays["bag"][...], arrays["bag_label"][...].reshape(-1)
        if bags.dtype.kind not in "iu" or bags.shape != (instances,):
            raise BagError(f"{path}: 'bag' must hold the whole number of each of the {instances} instances' bags")
        bags = bags.astype(np.int64)
        if bags.min() < 0 or bags.max() >= len(labels):
            raise BagError(f"{path}: 'bag' runs from {bags.min()} to {bags.max()}, but 'bag_label' has {len(labels)}")
        # instances of a bag side by side, in their order
        self._order = np.argsort(bags, kind="stable")
        self._ends = np.cumsum(np.bincount(bags, minlength=len(labels)))
        digits = len(str(len(labels) - 1))
        self.names = tuple(f"{index:0{digits}d}" for index in range(len(labels)))
        self._labels = dict(zip(self.names, map(label_text, labels.tolist()), strict=True))
        self._values: tuple[Array, Array | None] | None = None
        self._lock = threading.Lock()

    def shape(self, name: str) -> tuple[int, int]:
        return len(self._instances(name)), self._width

    def load(self, name: str) -> Bag:
        chosen = self._instances(name)
        with self._lock, _readable(self.path, ".npz"):
            if self._values is None:
                self._values = self._features[...], None if self._coords is None else self._coords[...]
        features, coords = self._values
        return make_bag(name, features[chosen], None if coords is None else coords[chosen], {}, self.path)

    def label(self, name: str) -> str | None:
        """The bag's ``bag_label`` as text."""
        return self.entry(self._labels, name)

    def _instances(self, name: str) -> Array:
        self.entry(self._labels, name)
        start, end = (self._ends[index] if index >= 0 else 0 for index in (int(name) - 1, int(name)))
        if start == end:
            raise UnusableBag(self.path, f"bag {name!r} is empty")
        return self._order[start:end]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_values": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


def label_text(value: Any) -> str | None:
    """A label stored beside the features as text: whole numbers without a fraction; None for none, NaN or nothing.

    Example:
        >>> label_text(1.0), label_text(0.5), label_text(b" tumor "), label_text(float("nan"))
        ('1', '0.5', 'tumor', None)
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return text.strip() or None
