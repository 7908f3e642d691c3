"""Attention over slides as run folders hold it, and what there is to see of a slide.

Its picture comes from the slide itself, from the thumbnail that tiling made, or there is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
# patches of which more are in the wrong place are in the wrong place as a whole
_LARGEST_SHARE = 0.5
_LEAST_TISSUE = 0.02


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention over a slide's N patches.

    Attributes:
        values: ``[N]``, ≥ 0, with sum 1.
        coords: ``[N, 2]``, upper left corners in pixels of level 0; None where unknown.
        patch_size: side of a patch in pixels of level 0; estimated from the corners where the file does not say it.
        microns: coords and patch_size are microns; see :meth:`in_pixels`.
        estimated: the file does not say how large a patch is.
        patient: whose slides are one bag, which this slide is of; empty where each slide is one.
        share: of the attention over the patient that the slide has, 0 … 1.
    """

    slide: str
    values: NDArray[np.float64]
    coords: NDArray[Any] | None
    patch_size: float
    microns: bool = False
    estimated: bool = False
    patient: str = ""
    share: float = 1.0

    def in_pixels(self, mpp: float) -> Attention:
        """The same with places in pixels of level 0, by its microns per pixel."""
        if self.coords is None or not self.microns:
            return self
        corners = np.round(self.coords / mpp).astype(np.int64)
        return replace(self, coords=corners, patch_size=max(1, round(self.patch_size / mpp)), microns=False)

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
    coords = arrays.get("coords", np.empty(0))
    if coords.size:
        numbers = np.issubdtype(coords.dtype, np.number)
        if coords.shape != (len(values), 2) or not numbers or not np.isfinite(coords).all():
            raise ReportError(f"{path}: coords have shape {coords.shape}, attention {values.shape}: {again}")
    size = np.asarray(arrays.get("patch_size", 0)).ravel()
    known = size.size == 1 and np.issubdtype(size.dtype, np.number) and size[0] >= 1
    return attention_of(path.stem, {**arrays, "patch_size": size[0] if known else 0})


def attention_of(slide: str, arrays: Mapping[str, Any]) -> Attention:
    """Attention from arrays that fit together: ``attention``, and maybe ``coords``, ``patch_size`` and ``unit``.

    The side of a patch, where it is unknown, is the spacing of the corners.
    """
    values = np.asarray(arrays["attention"]).astype(np.float64)
    microns = str(arrays.get("unit", "px")) == "um"
    coords = np.asarray(arrays.get("coords", ()))
    # a fraction of a micron is a pixel or two
    corners = coords.astype(np.float64 if microns else np.int64) if coords.size else None
    stated = float(arrays.get("patch_size", 0))
    side = stated or (1.0 if corners is None else _spacing(corners))
    # single precision leaves the sum a little off
    return Attention(
        slide,
        values / values.sum(),
        corners,
        side if microns else int(side),
        microns,
        estimated=corners is not None and not stated,
        patient=str(arrays.get("patient", "")),
        share=float(arrays.get("share", 1)),
    )


def _spacing(coords: NDArray[Any]) -> float:
    """The least usual distance between neighbors in a row or a column; 1 where no two patches share one.

    Regions of tissue may have grids of their own (CLAM), so that columns of different ones lie at any distance; and of
    patches that were drawn at random most neighbors are missing.
    """
    steps = []
    for along, across in (coords.T, coords.T[::-1]):
        order = np.lexsort((along, across))
        near = np.diff(across[order]) == 0
        steps.append(np.diff(along[order])[near])
    sizes, counts = np.unique(np.concatenate(steps).round(2), return_counts=True)
    sizes, counts = sizes[sizes > 0], counts[sizes > 0]
    return float(sizes[4 * counts >= counts.max()][0]) if len(counts) else 1.0


@dataclass(frozen=True, eq=False)
class Picture:
    """What there is to see of a slide.

    Attributes:
        thumbnail: of the whole slide; None where there is none.
        size: (width, height) of level 0, where there is a thumbnail.
        patches: images of the patches asked for; none where the slide itself is not at hand.
        mpp: microns per pixel of level 0; None where unknown.
        note: where it comes from, or why there is nothing.
        tissue: where on the slide there is some, at any scale; None where it was not looked for.
    """

    thumbnail: Image | None = None
    size: tuple[int, int] = (0, 0)
    patches: tuple[Image, ...] = ()
    mpp: float | None = None
    note: str = ""
    tissue: NDArray[np.bool_] | None = None


def distrust(weights: Attention, picture: Picture) -> str:
    """Why the patches do not belong on this picture; empty where they do.

    More than half of them beyond the slide's edge, or off its tissue, are of another slide, scale or unit.
    """
    from ncmi.slides.tiling.grid import tissue_shares

    if weights.coords is None or picture.thumbnail is None:
        return ""
    if weights.microns:
        return "the patches' places are in microns, and the slide does not say how large its pixels are (--slide-mpp)"
    corners, side = weights.coords, weights.patch_size
    middles = corners + side / 2
    outside = ((middles < 0) | (middles > np.array(picture.size))).any(axis=1).mean()
    if outside > _LARGEST_SHARE:
        return f"{outside:.0%} of the patches lie outside the slide: are they of this slide, in pixels of its level 0?"
    if picture.tissue is None or not picture.tissue.any():
        return ""
    scale = max(picture.size) / max(picture.tissue.shape)
    off = (tissue_shares(picture.tissue, scale, corners, round(side)) < _LEAST_TISSUE).mean()
    if off > _LARGEST_SHARE:
        return f"{off:.0%} of the patches lie where the slide has no tissue: are they of this slide, at this scale?"
    return ""


class Sources:
    """Folders to look for slides and for what tiling made of them.

    Args:
        slides: folder of slide files, searched with its folders.
        tiles: what `ncmi slides tile` wrote.
        slide_mpp: microns per pixel of slides that do not say it, or are not at hand.
        thumbnail, patch: pixels on the longer side of a thumbnail, and of a patch.

    Raises:
        ReportError: if a folder is none, or ``slides`` holds no slide, or two of one name; for a resolution
            that is none.
    """

    def __init__(
        self,
        slides: Path | None = None,
        tiles: Path | None = None,
        slide_mpp: float | None = None,
        *,
        thumbnail: int = THUMBNAIL,
        patch: int = PATCH,
    ) -> None:
        self.slides, self.tiles, self.slide_mpp = slides, tiles, slide_mpp
        self.thumbnail, self.patch = thumbnail, patch
        if slide_mpp is not None and not 0 < slide_mpp < math.inf:
            raise ReportError(f"slide_mpp={slide_mpp}: must be above 0: microns per pixel, such as 0.25")
        if tiles is not None and not tiles.is_dir():
            raise ReportError(f"{tiles}: no such folder: give the one that `ncmi slides tile` wrote, or leave it out")
        self.paths: dict[str, Path] = {}
        if slides is not None:
            from ncmi.slides.tiling.slide_file import SlideError, find_slides

            try:
                self.paths = find_slides(slides)
            except SlideError as error:
                raise ReportError(str(error)) from None

    def look(self, weights: Attention, most: int = TOP) -> tuple[Attention, Picture]:
        """Attention with its places in pixels, where these can be known, and the slide with its top patches.

        What is not to be trusted (see :func:`distrust`) is not shown; the picture's note says why.
        """
        if weights.coords is None:
            return weights, Picture()
        if weights.microns and (mpp := self.mpp(weights.slide)):
            weights = weights.in_pixels(mpp)
        assert weights.coords is not None
        corners = [] if weights.microns else [(int(x), int(y)) for x, y in weights.coords[weights.top(most)]]
        picture = self.picture(weights.slide, corners, round(weights.patch_size))
        reason = distrust(weights, picture)
        return weights, Picture(note=f"{picture.note}, but {reason}") if reason else picture

    def mpp(self, name: str) -> float | None:
        """Microns per pixel of a slide's level 0, by itself, its tiling or ``slide_mpp``; None where none says it."""
        from ncmi.slides.tiling.coords import read_coords
        from ncmi.slides.tiling.slide_file import Slide

        with suppress(ValueError):
            if path := self.paths.get(name):
                with Slide(path, fallback_mpp=self.slide_mpp) as slide:
                    return slide.mpp
        with suppress(ValueError):
            if self.tiles is not None and (mpp := read_coords(self.tiles / "coords" / f"{name}.h5").level0_mpp):
                return mpp
        return self.slide_mpp

    def picture(self, name: str, corners: Sequence[tuple[int, int]], patch_size: int) -> Picture:
        """The picture of a slide with its patches at ``corners``; why a file cannot be read stands in ``note``."""
        reasons = []
        if path := self.paths.get(name):
            try:
                return self._of_slide(path, corners, patch_size)
            except ValueError as error:
                reasons.append(str(error).replace(str(path), path.name))
        elif self.slides is not None:
            reasons.append(f"no slide of that name in the folder “{self.slides.name}”")
        if self.tiles is not None:
            try:
                return _of_tiles(self.tiles, name, self.thumbnail)
            except (OSError, ValueError) as error:
                reasons.append(str(error).replace(str(self.tiles), self.tiles.name))
        return Picture(note="; ".join(reasons) or "neither slides nor tiles are given (--slides, --tiles)")

    def _of_slide(self, path: Path, corners: Sequence[tuple[int, int]], patch_size: int) -> Picture:
        from PIL import Image

        from ncmi.slides.tiling.slide_file import Slide, SlideError, read_square
        from ncmi.slides.tiling.tissue import read_overview, tissue_mask

        with Slide(path, fallback_mpp=self.slide_mpp) as slide:
            try:
                mpp: float | None = slide.mpp
            except SlideError:
                mpp = None
        # an overview is asked for by its resolution: of a slide whose own is not known, any will do
        with Slide(path, mpp=mpp or 1.0) as slide:
            overview = read_overview(slide, max(slide.size) / (2 * self.thumbnail) * slide.mpp)
            width, height = (side / overview.scale for side in slide.size)
            box = (0, 0, min(width, overview.image.shape[1]), min(height, overview.image.shape[0]))
            image = Image.fromarray(overview.image).resize(
                _fitting(slide.size, self.thumbnail), Image.Resampling.BOX, box=box
            )
            patches = [Image.fromarray(read_square(slide, x, y, patch_size, self.patch)) for x, y in corners]
            tissue = tissue_mask(read_overview(slide)) if mpp else None
            return Picture(image, slide.size, tuple(patches), mpp, f"picture from {path.name}", tissue)


def _of_tiles(folder: Path, name: str, longest: int) -> Picture:
    from PIL import Image

    from ncmi.slides.tiling.coords import read_coords
    from ncmi.slides.tiling.tissue import LONGEST_SIDE

    path = folder / "thumbnails" / f"{name}.jpg"
    if not path.is_file():
        raise ValueError(f"no thumbnails/{name}.jpg in {folder}")
    coords = read_coords(folder / "coords" / f"{name}.h5")
    attributes = coords.attributes
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
    shown = image.resize(_fitting(size, longest))
    tissue, scale = np.zeros((shown.height, shown.width), dtype=bool), max(size) / max(shown.size)
    for x, y in (coords.xy / scale).tolist():
        far = coords.patch_size_level0 / scale
        tissue[math.floor(y) : math.ceil(y + far), math.floor(x) : math.ceil(x + far)] = True
    return Picture(shown, size, (), known, "thumbnail from tiling, with outline and patches", tissue)


def _fitting(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """The size of a thumbnail of a slide of this size."""
    zoom = min(1.0, longest / max(size))
    return max(1, round(size[0] * zoom)), max(1, round(size[1] * zoom))
