"""The slides of a folder; a slide opened with OpenSlide, or a plain image with Pillow: pyramid, pixel size, pixels."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SUFFIXES = (
    *(".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".dcm"),
    *(".czi", ".vsi", ".isyntax", ".qptiff"),
)
"""Of whole-slide files. The last ones, which not every build of OpenSlide reads, are tried rather than passed over."""
IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
"""What is read with Pillow, whole, where OpenSlide does not know it."""
_PLAUSIBLE_MPP = (0.02, 20.0)
_MAX_ANISOTROPY = 0.05
_UNITS = {"inch": 25_400.0, "centimeter": 10_000.0}
_RESOLUTION_TAGS = {282: "tiff.XResolution", 283: "tiff.YResolution"}
_MODES = ("RGB", "RGBA", "L", "P", "CMYK", "YCbCr")


class SlideError(ValueError):
    """A slide cannot be read or tiled; the message names the file, the reason and the cure."""


class Slide:
    """An open slide; close it, or use it in a ``with`` statement.

    Args:
        path: any format that OpenSlide reads, or a plain TIFF, PNG or JPEG image.
        mpp: microns per pixel of level 0, whatever the file says.
        fallback_mpp: the same where the file does not say it.

    Attributes:
        name: the file's name without its suffix; of DICOM files, their folder's name.
        size: (width, height) of level 0 in pixels.
        level_sizes: the same of each level.
        downsamples: how many times smaller each level is than level 0, ascending from 1.
        objective_power: nominal magnification of level 0; None where the file does not say it.
        stated_mpp: microns per pixel of level 0 by the file's own words, or 10 / objective power; None without them.

    Raises:
        SlideError: if the file is missing, damaged or of an unknown format.
    """

    def __init__(self, path: str | Path, mpp: float | None = None, *, fallback_mpp: float | None = None) -> None:
        self.path = Path(path)
        self.name = self.name_of(self.path)
        self._handle, properties = _open(self.path)
        self.level_sizes = tuple((int(width), int(height)) for width, height in self._handle.level_dimensions)
        self.size = self.level_sizes[0]
        self.downsamples = tuple(float(value) for value in self._handle.level_downsamples)
        self.objective_power = _number(properties, "openslide.objective-power")
        self.stated_mpp, self._mpp_problem = _pixel_size(properties)
        self._mpp = mpp or self.stated_mpp or fallback_mpp
        self._background = "#" + properties.get("openslide.background-color", "FFFFFF")

    @staticmethod
    def name_of(path: Path) -> str:
        """A slide's name: its file's without the suffix; of DICOM slides, which are several files, their folder's."""
        return path.parent.name if path.suffix.lower() == ".dcm" else path.stem

    @property
    def mpp(self) -> float:
        """Microns per pixel of level 0: as given, by the file's own words, 10 / objective power, or the fallback."""
        if self._mpp is None:
            raise SlideError(
                f"{self.path}: {self._mpp_problem}: give the microns per pixel of its level 0 as --slide-mpp"
                " (about 0.25 for a 40x scan, 0.5 for 20x)"
            )
        return self._mpp

    def level_for(self, downsample: float) -> int:
        """The smallest level that is no coarser than ``downsample`` times level 0 (to a thousandth)."""
        fine = [level for level, factor in enumerate(self.downsamples) if factor <= downsample * 1.001]
        return max(fine, key=lambda level: self.downsamples[level], default=0)

    def read(self, x: int, y: int, level: int, width: int, height: int) -> NDArray[np.uint8]:
        """Pixels of a level, ``[height, width, 3]``; what the scanner left out has the slide's background color.

        Args:
            x, y: upper left corner in pixels of level 0.
            level: which level.
            width, height: in pixels of that level.

        Raises:
            SlideError: if the file is damaged there.
        """
        from openslide import OpenSlideError
        from PIL import Image

        try:
            region = self._handle.read_region((int(x), int(y)), level, (int(width), int(height)))
        except (OpenSlideError, OSError) as error:
            raise SlideError(
                f"{self.path}: cannot be read at x={x}, y={y} of level {level} ({error}): the file is damaged or"
                " incomplete; copy it again from its source"
            ) from None
        if region.getchannel("A").getextrema()[0] == 255:
            return np.asarray(region.convert("RGB"))
        image = Image.new("RGB", region.size, self._background)
        image.paste(region, mask=region.getchannel("A"))
        return np.asarray(image)

    def close(self) -> None:
        """Close the file."""
        self._handle.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_square(slide: Slide, x: int, y: int, side: int, pixels: int) -> NDArray[np.uint8]:
    """A square of the slide as an image ``[pixels, pixels, 3]``; SlideError where the slide is damaged there.

    Args:
        x, y: upper left corner at level 0.
        side: of the square in pixels of level 0.
        pixels: side of the image.
    """
    level = slide.level_for(side / pixels)
    at_level = max(1, round(side / slide.downsamples[level]))
    image = slide.read(x, y, level, at_level, at_level)
    if at_level == pixels:
        return image
    # Pillow's filter widens with the reduction, so that nothing aliases
    return np.asarray(Image.fromarray(image).resize((pixels, pixels), Image.Resampling.BILINEAR))


def find_slides(folder: str | Path) -> dict[str, Path]:
    """Slides by name, sorted: all files of a folder and its subfolders with the suffix of a slide, or the one file.

    Where there is none, PNG and JPEG images are the slides.

    Links to folders are followed. Names that begin with a dot are left out. The DICOM files of one folder are one
    slide.

    Raises:
        SlideError: if the folder is missing or holds no slide, or if two slides have the same name.
    """
    folder = Path(folder)
    if folder.is_file():
        return {Slide.name_of(folder): folder}
    if not folder.is_dir():
        raise SlideError(f"{folder}: no such folder: check the path")
    slides: dict[str, Path] = {}
    files = sorted(_files(folder))
    usual = _usual(files)
    for path in files:
        if path.suffix.lower() not in usual:
            continue
        name = Slide.name_of(path)
        if name not in slides:
            slides[name] = path
        elif path.suffix.lower() != ".dcm" or slides[name].parent != path.parent:
            raise SlideError(
                f"two slides are called {name}: {slides[name]} and {path}: rename one, or move it elsewhere"
            )
    if not slides:
        endings = ", ".join((*SUFFIXES, *IMAGE_SUFFIXES[2:]))
        raise SlideError(f"{folder}: holds no slide (a file ending in {endings}): check the path")
    return dict(sorted(slides.items()))


def pictures_beside_slides(folder: str | Path) -> tuple[Path, ...]:
    """PNG and JPEG images that :func:`find_slides` takes for thumbnails, as there are files of slides."""
    folder = Path(folder)
    files = sorted(_files(folder)) if folder.is_dir() else []
    slides = _usual(files)
    return tuple(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES and path.suffix.lower() not in slides)


def _usual(files: Sequence[Path]) -> tuple[str, ...]:
    # pictures beside slides are thumbnails and the like
    return SUFFIXES if any(path.suffix.lower() in SUFFIXES for path in files) else IMAGE_SUFFIXES


def _open(path: Path) -> tuple[Any, Mapping[str, str]]:
    import openslide

    if not path.is_file():
        raise SlideError(f"{path}: no such file: check the path")
    try:
        handle = openslide.OpenSlide(path)
        return handle, handle.properties
    except openslide.OpenSlideUnsupportedFormatError:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return _open_image(path)
        raise SlideError(
            f"{path}: OpenSlide cannot read it: the file is damaged, or of a format that it does not know; copy it"
            " again, or convert it to a tiled pyramidal TIFF (for example with: vips tiffsave IN OUT.tif --tile"
            " --pyramid)"
        ) from None
    except openslide.OpenSlideError as error:
        raise SlideError(f"{path}: damaged ({error}): copy it again from its source") from None


def _open_image(path: Path) -> tuple[Any, Mapping[str, str]]:
    """A plain image, read whole, with the properties that OpenSlide would give a TIFF."""
    import openslide

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as image:
                mode, tags = image.mode, dict(getattr(image, "tag_v2", {}))
                pixels = image.convert("RGB") if mode in _MODES else None
        except Image.DecompressionBombError:
            raise SlideError(
                f"{path}: too large for an image without tiles: convert it to a tiled pyramidal TIFF (for example"
                " with: vips tiffsave IN OUT.tif --tile --pyramid)"
            ) from None
        except Exception as error:  # Pillow raises nearly anything on a damaged file
            raise SlideError(f"{path}: neither OpenSlide nor Pillow can read it ({error}): copy it again") from None
    if pixels is None:
        raise SlideError(f"{path}: has pixels of kind {mode}: convert it to 8-bit RGB")
    unit = {2: "inch", 3: "centimeter"}.get(tags.get(296, 2), "none")
    properties = {"tiff.ResolutionUnit": unit}
    properties |= {name: str(float(tags[tag])) for tag, name in _RESOLUTION_TAGS.items() if tag in tags}
    return openslide.ImageSlide(pixels), properties


def _pixel_size(properties: Mapping[str, str]) -> tuple[float | None, str]:
    """Microns per pixel, or None and what is wrong."""
    x, y = (_number(properties, f"openslide.mpp-{axis}") for axis in "xy")
    unit = _UNITS.get(properties.get("tiff.ResolutionUnit", "none"))
    if x is None and unit is not None:
        resolutions = (_number(properties, name) for name in _RESOLUTION_TAGS.values())
        x, y = (unit / value if value else None for value in resolutions)
    problem = "its pixel size is not known (no openslide.mpp-x, resolution or objective power)"
    if x is not None:
        y = x if y is None else y
        if abs(x - y) > _MAX_ANISOTROPY * max(x, y):
            return None, f"its pixels are not square ({x:.4g} by {y:.4g} microns)"
        if _PLAUSIBLE_MPP[0] <= x <= _PLAUSIBLE_MPP[1]:
            return (x + y) / 2, ""
        problem = f"its resolution is said to be {x:.4g} microns per pixel, which no scanner makes"
    power = _number(properties, "openslide.objective-power")
    return (10 / power, "") if power else (None, problem)


def _number(properties: Mapping[str, str], name: str) -> float | None:
    """A positive number, or None."""
    try:
        value = float(properties.get(name, ""))
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None


def _files(folder: Path) -> Iterator[Path]:
    visited = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:  # a link to a folder above
            folders.clear()
            continue
        visited.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in files if not name.startswith("."))
