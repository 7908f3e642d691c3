"""One .h5 file of a whole cohort with a group a slide, as AEM and ASMIL read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ncmi.data.dataset import listing
from ncmi.slides.bag import Bag, BagError, BagSource
from ncmi.slides.readers.arrays import label_text
from ncmi.slides.readers.hdf5 import group_bag, group_shape, reading, sets_of


class H5Cohort(BagSource):
    """A file with ``SLIDE/feat`` ``[N, D]``, ``SLIDE/coords`` ``[N, 2]`` and the attribute ``label`` of ``SLIDE``.

    Opening reads the shapes and labels of all groups at once.

    Raises:
        BagError: for a file that cannot be read, or without groups.
    """

    def __init__(self, path: Path, *, features_key: str | None = None, coords_key: str | None = None) -> None:
        self.path = path
        self.features_key = features_key
        self.coords_key = coords_key
        self._shapes: dict[str, tuple[int, int] | BagError] = {}
        self._labels: dict[str, str | None] = {}
        with reading(path) as file:
            for name in sorted(file):
                if hasattr(file.get(name), "keys"):
                    self._shapes[name] = self._shape_in(file, name)
                    self._labels[name] = _text(file[name].attrs.get("label"))
            there = sets_of(file)
        self.names = tuple(self._shapes)
        if not self.names:
            raise BagError(f"{path}: no group a slide (there is {listing(list(there)) or 'nothing'})")

    def shape(self, name: str) -> tuple[int, int]:
        """(N, D_feat) of a bag, as found at opening."""
        found = self._shapes[self._known(name)]
        if isinstance(found, BagError):
            raise found
        return found

    def load(self, name: str) -> Bag:
        """Read a bag."""
        with reading(self.path) as file:
            return group_bag(name, file[self._known(name)], self.features_key, self.coords_key, self._place(name))

    def label(self, name: str) -> str | None:
        """The group's attribute ``label`` as text."""
        return self._labels[self._known(name)]

    def _shape_in(self, file: Any, name: str) -> tuple[int, int] | BagError:
        try:
            return group_shape(file[name], self.features_key, self._place(name))
        except BagError as error:
            return error

    def _place(self, name: str) -> Path:
        return self.path / name

    def _known(self, name: str) -> str:
        if name not in self._shapes:
            raise BagError(f"{self.path}: no bag {name!r} (there is {listing(self.names, 5)})")
        return name


def _text(label: Any) -> str | None:
    """The one value of an attribute as text; None for none, or several."""
    if label is None:
        return None
    values = np.asarray(label).ravel().tolist()
    return label_text(values[0]) if len(values) == 1 else None
