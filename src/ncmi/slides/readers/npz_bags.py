"""Bags in .npz files: a whole cohort in one file, or one file a slide."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ncmi.data.dataset import listing
from ncmi.slides.bag import Bag, BagError, BagSource
from ncmi.slides.readers.arrays import UnusableBag, bag_shape, find_coords, find_features, label_text, make_bag
from ncmi.slides.readers.folder import FolderSource
from ncmi.slides.readers.npz_files import npz_array, npz_shapes

Array = npt.NDArray[Any]


class NpzCohort(BagSource):
    """A file with ``x`` ``[n, D]``, ``bag`` ``[n]`` (index 0 … B−1 of each instance's bag) and ``bag_label`` ``[B]``.

    Bags are called by their index, with as many digits as the last one has. Positions are a ``[n, 2]`` array. The
    instances are read with the first bag and kept: this form is for cohorts that fit into memory.

    Raises:
        BagError: for arrays that do not belong together.
    """

    def __init__(self, path: Path, *, features_key: str | None = None, coords_key: str | None = None) -> None:
        self.path = path
        shapes = npz_shapes(path)
        self.features_key = _features_key(shapes, features_key, path)
        self.coords_key = find_coords(shapes, coords_key, path)
        instances, self._width = bag_shape(shapes[self.features_key], path)
        bags, labels = npz_array(path, "bag"), npz_array(path, "bag_label").reshape(-1)
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
        self._labels = [label_text(value) for value in labels.tolist()]
        self._index = {name: index for index, name in enumerate(self.names)}
        self._values: tuple[Array, Array | None] | None = None
        self._lock = threading.Lock()

    def shape(self, name: str) -> tuple[int, int]:
        """(N, D_feat) of a bag."""
        return len(self._instances(name)), self._width

    def load(self, name: str) -> Bag:
        """Take a bag out of the instances."""
        chosen = self._instances(name)
        with self._lock:
            if self._values is None:
                features = npz_array(self.path, self.features_key)
                self._values = features, None if self.coords_key is None else npz_array(self.path, self.coords_key)
        features, coords = self._values
        return make_bag(name, features[chosen], None if coords is None else coords[chosen], {}, self.path)

    def label(self, name: str) -> str | None:
        """The bag's ``bag_label`` as text."""
        return self._labels[self._known(name)]

    def _instances(self, name: str) -> Array:
        index = self._known(name)
        start, end = self._ends[index - 1] if index else 0, self._ends[index]
        if start == end:
            raise UnusableBag(self.path, f"bag {name!r} is empty")
        return self._order[start:end]

    def _known(self, name: str) -> int:
        try:
            return self._index[name]
        except KeyError:
            raise BagError(f"{self.path}: no bag {name!r} (there is {listing(self.names, 5)})") from None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_values": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


class NpzFolder(FolderSource):
    """Files with ``features`` or ``x`` ``[N, D]`` and, optionally, ``coords`` ``[N, 2]``."""

    def _read_shape(self, file: Path) -> tuple[int, int]:
        shapes = npz_shapes(file)
        return bag_shape(shapes[_features_key(shapes, self.features_key, file)], file)

    def _read(self, name: str, file: Path) -> Bag:
        shapes = npz_shapes(file)
        key, coords = _features_key(shapes, self.features_key, file), find_coords(shapes, self.coords_key, file)
        bag_shape(shapes[key], file)
        positions = None if coords is None else npz_array(file, coords)
        return make_bag(name, npz_array(file, key), positions, {}, file)


def _features_key(shapes: dict[str, tuple[int, ...]], asked: str | None, path: Path) -> str:
    key = find_features({name: shape for name, shape in shapes.items() if name != "bag"}, asked, path)
    if len(shapes[key]) > 3:
        raise BagError(f"{path}: {key!r} of shape {list(shapes[key])} holds images: embed them first, as [n, D]")
    return key
