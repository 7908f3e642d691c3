"""A bag of instance features, and where bags come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor


class BagError(ValueError):
    """A bag cannot be used; the message names the file, the reason and the cure."""


@dataclass(frozen=True, eq=False)
class Bag:
    """One slide's instances.

    Attributes:
        name: of the slide.
        features: ``[N, D_feat]``, N ≥ 1, finite, in the precision of the file (float16 or float32).
        coords: ``[N, 2]`` int64, x and y of each patch's upper left corner in pixels of level 0; None where unknown.
        patch_size: side of a patch in pixels of level 0; None where unknown.
    """

    name: str
    features: Tensor
    coords: Tensor | None = None
    patch_size: int | None = None


class BagSource(ABC):
    """Bags by name; opening one reads names and shapes alone. Safe to use from several threads, and to pickle.

    Attributes:
        path: file or folder.
        names: of the bags, sorted.
    """

    path: Path
    names: tuple[str, ...]

    @abstractmethod
    def shape(self, name: str) -> tuple[int, int]:
        """(N, D_feat) of a bag, without reading its features.

        Raises:
            BagError: for a bag that is missing, empty or damaged.
        """

    @abstractmethod
    def load(self, name: str) -> Bag:
        """Read a bag.

        Raises:
            BagError: for a bag that is missing, empty, damaged, or whose features are not finite.
        """

    def label(self, name: str) -> str | None:
        """The label that the features' file itself gives a bag; None where it gives none. Default: none."""
        return None
