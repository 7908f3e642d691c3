"""Attention over slides as run folders hold it, and what there is to see of a slide.

Its picture comes from the slide itself, from the thumbnail that tiling made, or there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ncmi.report.records import ReportError

if TYPE_CHECKING:
    from PIL.Image import Image

TOP = 8
"""So many patches with the highest attention are shown."""
THUMBNAIL, PATCH = 640, 112
"""Pixels on the longer side of a thumbnail, and of a patch."""
# a thumbnail of other proportions than the slide shows something else
_ASPECT = 0.02


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention over a slide's N patches.

    Attributes:
        values: ``[N]``, ≥ 0, with sum 1.
        coords: ``[N, 2]``, upper left corners in pixels of level 0; None where unknown.
        patch_size: side of a patch in pixels of level 0; estimated from the corners where the file does not say it.
    """

    slide: str
    values: NDArray[np.float64]
    coords: NDArray[np.int64] | None
    patch_size: int

    @property
    def relative(self) -> NDArray[np.float64]:
        """Attention in units of even attention, 1/N: how many times more than its share a patch counts."""
        return self.values * len(self.values)

    @property
    def effective(self) -> float:
        """How many patches would carry as much if they shared evenly: exp of the attention's entropy, 1 … N."""
        positive = self.values[self.values > 0]
        return float(np.exp(-(positive * np.log(positive)).sum()))

    def top(self, most: int = TOP) -> list[int]:
        """The patches with the highest attention, the highest first."""
        return [int(place) for place in np.argsort(-self.values, kind="stable")[:most]]


def attention_files(run: Path) -> dict[str, Path]:
    """Files of attention in a run folder, by slide."""
    folder = run / "attention"
    return {path.stem: path for path in sorted(folder.glob("*.npz"))} if folder.is_dir() else {}


def read_attention(path: Path) -> Attention:
    """Read one slide's attention; ReportError if the file is damaged, or its arrays do not belong together."""
    again = "run it again into an empty folder"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    # damaged archives make NumPy, zipfile, zlib and tokenize raise a dozen unrelated kinds of exception
    except Exception as error:
        raise ReportError(f"{path}: damaged, not an .npz archive ({error}): {again}") from None
    if "attention" not in arrays:
        raise ReportError(f"{path}: lacks 'attention': {again}")
    values = np.asarray(arrays["attention"])
    whole = values.ndim == 1 and len(values) > 0 and np.issubdtype(values.dtype, np.floating)
    if not whole or not np.isfinite(values).all() or (values < 0).any() or not values.sum() > 0:
        raise ReportError(f"{path}: 'attention' is no list of finite weights ≥ 0: {again}")
    # single precision leaves the sum a little off
    values = values.astype(np.float64) / values.astype(np.float64).sum()
    coords = arrays.get("coords", np.empty(0))
    if coords.size:
        numbers = np.issubdtype(coords.dtype, np.number)
        if coords.shape != (len(values), 2) or not numbers or not np.isfinite(coords).all():
            raise ReportError(f"{path}: coords have shape {coords.shape}, attention {values.shape}: {again}")
    corners = coords.astype(np.int64) if coords.size else None
    size = np.asarray(arrays.get("patch_size", 0)).ravel()
    known = size.size == 1 and np.issubdtype(size.dtype, np.number) and size[0] >= 1
    side = int(size[0]) if known else 1 if corners is None else _side(corners)
    return Attention(path.stem, values, corners, side)


def _side(coords: NDArray[np.int64]) -> int:
    """Spacing of the corners: the middle distance between neighboring columns and rows."""
    steps = np.concatenate([np.diff(np.unique(column)) for column in coords.T])
    return int(np.median(steps)) if len(steps) else 1


@dataclass(frozen=True, eq=False)
class Picture:
    """What there is to see of a slide.

    Attributes:
        thumbnail: of the whole slide; None where there is none.
        size: (width, height) of level 0, where there is a thumbnail.
        patches: images of the patches asked for; none where the slide itself is not at hand.
        mpp: microns per pixel of level 0; None where unknown.
        note: where it comes from, or why there is nothing.
    """

    thumbnail: Image | None = None
    size: tuple[int, int] = (0, 0)
    patches: tuple[Image, ...] = ()
    mpp: float | None = None
    note: str = ""


class Sources:
    """Folders to look for slides and for what tiling made of them.

    Args:
        slides: folder of slide files, searched with its folders.
        tiles: what `ncmi slides tile` wrote.

    Raises:
        ReportError: if a folder is none, or ``slides`` holds no slide, or two of one name.
    """

    def __init__(self, slides: Path | None = None, tiles: Path | None = None) -> None:
        self.slides, self.tiles = slides, tiles
        if tiles is not None and not tiles.is_dir():
            raise ReportError(f"{tiles}: no such folder: give the one that `ncmi slides tile` wrote, or leave it out")
        self.paths: dict[str, Path] = {}
        if slides is not None:
            from ncmi.slides.tiling.slide_file import SlideError, find_slides

            try:
                self.paths = find_slides(slides)
            except SlideError as error:
                raise ReportError(str(error)) from None

    def picture(self, name: str, corners: Sequence[tuple[int, int]], patch_size: int) -> Picture:
        """The picture of a slide with its patches at ``corners``; why a file cannot be read stands in ``note``."""
        reasons = []
        if path := self.paths.get(name):
            try:
                return _of_slide(path, corners, patch_size)
            except ValueError as error:
                reasons.append(str(error).replace(str(path), path.name))
        elif self.slides is not None:
            reasons.append(f"no slide of that name in the folder “{self.slides.name}”")
        if self.tiles is not None:
            try:
                return _of_tiles(self.tiles, name)
            except (OSError, ValueError) as error:
                reasons.append(str(error).replace(str(self.tiles), self.tiles.name))
        return Picture(note="; ".join(reasons) or "neither slides nor tiles were given to the report")


def _of_slide(path: Path, corners: Sequence[tuple[int, int]], patch_size: int) -> Picture:
    from PIL import Image

    from ncmi.slides.tiling.slide_file import Slide, SlideError, read_square
    from ncmi.slides.tiling.tissue import read_overview

    with Slide(path) as slide:
        try:
            mpp: float | None = slide.mpp
        except SlideError:
            mpp = None
    # an overview is asked for by its resolution: of a slide whose own is not known, any will do
    with Slide(path, mpp=mpp or 1.0) as slide:
        overview = read_overview(slide, max(slide.size) / (2 * THUMBNAIL) * slide.mpp)
        width, height = (side / overview.scale for side in slide.size)
        box = (0, 0, min(width, overview.image.shape[1]), min(height, overview.image.shape[0]))
        image = Image.fromarray(overview.image).resize(_fitting(slide.size), Image.Resampling.BOX, box=box)
        patches = [Image.fromarray(read_square(slide, x, y, patch_size, PATCH)) for x, y in corners]
        return Picture(image, slide.size, tuple(patches), mpp, f"picture from {path.name}")


def _of_tiles(folder: Path, name: str) -> Picture:
    from PIL import Image

    from ncmi.slides.tiling.coords import read_coords
    from ncmi.slides.tiling.tissue import LONGEST_SIDE

    path = folder / "thumbnails" / f"{name}.jpg"
    if not path.is_file():
        raise ValueError(f"no thumbnails/{name}.jpg in {folder}")
    attributes = read_coords(folder / "coords" / f"{name}.h5").attributes
    try:
        size = int(attributes["level0_width"]), int(attributes["level0_height"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"coords/{name}.h5 does not say how large level 0 is") from None
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    zoom = min(1.0, LONGEST_SIDE / max(size))
    width, height = (max(1, round(side * zoom)) for side in size)
    if image.width >= width and image.height > height:
        # tiling's own thumbnails have a line of text below the slide
        image = image.crop((0, 0, width, height))
    if abs(image.width * size[1] / (image.height * size[0]) - 1) > _ASPECT:
        raise ValueError(f"{path} does not have the slide's proportions")
    mpp = attributes.get("level0_mpp")
    known = float(mpp) if isinstance(mpp, int | float) and mpp > 0 else None
    return Picture(image.resize(_fitting(size)), size, (), known, "thumbnail from tiling, with outline and patches")


def _fitting(size: tuple[int, int]) -> tuple[int, int]:
    """The size of a thumbnail of a slide of this size."""
    zoom = min(1.0, THUMBNAIL / max(size))
    return max(1, round(size[0] * zoom)), max(1, round(size[1] * zoom))
