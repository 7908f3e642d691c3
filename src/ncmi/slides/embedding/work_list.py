"""Which slides there are to embed: coordinates files matched with slides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ncmi.slides.embedding.features_file import EmbedError
from ncmi.slides.tiling.coords_file import Coords, read_coords
from ncmi.slides.tiling.search import find_slides

_FOLDERS = ("coords", "patches", ".")  # ours; TRIDENT's and CLAM's; the folder itself
_ENDING = "_patches"  # of TRIDENT's names


@dataclass(frozen=True)
class Work:
    """One slide.

    Attributes:
        slide: its name.
        coords: its coordinates file; None where it has none.
        path: of the slide; None where there is none.
    """

    slide: str
    coords: Path | None
    path: Path | None

    def read_coords(self) -> Coords:
        """Its coordinates.

        Raises:
            EmbedError: if they are missing.
            CoordsError: if their file is damaged.
        """
        if self.coords is None:
            raise EmbedError(
                f"{self.path}: has no coordinates: tile it first (the tiling's summary.csv says if that failed)"
            )
        return read_coords(self.coords)


def find_work(tiles: Path, slides: Path) -> list[Work]:
    """All slides and all coordinates, matched by name, sorted.

    Args:
        tiles: the folder that tiling wrote, with ``coords`` in it, or such a folder of TRIDENT or CLAM (``patches``),
            or a folder of coordinates files itself.
        slides: folder of slides, with its subfolders.

    Raises:
        ValueError: if there are no coordinates or no slides at all, or two of the same name.
    """
    folder = next((tiles / name for name in _FOLDERS if any((tiles / name).glob("*.h5"))), None)
    if folder is None:
        raise EmbedError(f"{tiles}: holds no coordinates (coords/SLIDE.h5): tile the slides into it first")
    coords: dict[str, Path] = {}
    for path in sorted(folder.glob("*.h5")):
        name = path.stem.removesuffix(_ENDING)
        if name in coords:
            raise EmbedError(f"{coords[name]} and {path} are of one slide, {name}: remove one of them")
        coords[name] = path
    found = find_slides(slides)
    return [Work(name, coords.get(name), found.get(name)) for name in sorted(coords | found)]
