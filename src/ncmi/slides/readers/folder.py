"""A folder of one file a slide."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from ncmi.data.dataset import listing
from ncmi.slides.bag import Bag, BagError, BagSource


class FolderSource(BagSource):
    """Bags in one file each, called like the slide. Shapes are read once and remembered.

    Args:
        path: the folder, or the only file.
        files: of the bags.
        features_key, coords_key: names of data sets in a file; by default guessed.
    """

    def __init__(
        self, path: Path, files: Sequence[Path], *, features_key: str | None = None, coords_key: str | None = None
    ) -> None:
        self.path = path
        self.files = {file.stem: file for file in sorted(files)}
        self.names = tuple(sorted(self.files))
        self.features_key = features_key
        self.coords_key = coords_key
        self._shapes: dict[str, tuple[int, int]] = {}

    def shape(self, name: str) -> tuple[int, int]:
        """(N, D_feat) of a bag, without reading its features."""
        found = self._shapes.get(name)
        if found is None:
            found = self._shapes[name] = self._read_shape(self._file(name))
        return found

    def load(self, name: str) -> Bag:
        """Read a bag."""
        return self._read(name, self._file(name))

    @abstractmethod
    def _read_shape(self, file: Path) -> tuple[int, int]: ...

    @abstractmethod
    def _read(self, name: str, file: Path) -> Bag: ...

    def _file(self, name: str) -> Path:
        try:
            return self.files[name]
        except KeyError:
            raise BagError(f"{self.path}: no bag {name!r} (there is {listing(self.names, 5)})") from None
