"""One .h5 file a slide, as TRIDENT, CLAM and ``ncmi slides embed`` write them."""

from __future__ import annotations

from pathlib import Path

from ncmi.slides.bag import Bag
from ncmi.slides.readers.folder import FolderSource
from ncmi.slides.readers.hdf5 import group_bag, group_shape, reading


class H5Folder(FolderSource):
    """Files with ``features`` ``[N, D]`` or ``[1, N, D]`` and, optionally, ``coords`` ``[N, 2]``."""

    def _read_shape(self, file: Path) -> tuple[int, int]:
        with reading(file) as opened:
            return group_shape(opened, self.features_key, file)

    def _read(self, name: str, file: Path) -> Bag:
        with reading(file) as opened:
            return group_bag(name, opened, self.features_key, self.coords_key, file)
