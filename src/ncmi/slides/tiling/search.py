"""The slides of a folder, by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ncmi.slides.tiling.slide_file import SlideError, slide_name

READ = (".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".dcm")
FOREIGN = (".czi", ".vsi", ".isyntax", ".qptiff")
SUFFIXES = READ + FOREIGN
"""Of whole-slide files; foreign ones, which not every build of OpenSlide reads, are tried rather than passed over."""


def find_slides(folder: str | Path) -> dict[str, Path]:
    """Slides by name, sorted: all files of a folder and its subfolders with the suffix of a slide, or the one file.

    Links to folders are followed. Names that begin with a dot are left out. The DICOM files of one folder are one
    slide.

    Raises:
        SlideError: if the folder is missing or holds no slide, or if two slides have the same name.
    """
    folder = Path(folder)
    if folder.is_file():
        return {slide_name(folder): folder}
    if not folder.is_dir():
        raise SlideError(f"{folder}: no such folder: check the path")
    found: dict[str, Path] = {}
    for path in sorted(_files(folder)):
        if path.suffix.lower() not in SUFFIXES:
            continue
        name = slide_name(path)
        if name not in found:
            found[name] = path
        elif path.suffix.lower() != ".dcm" or found[name].parent != path.parent:
            raise SlideError(
                f"two slides are called {name}: {found[name]} and {path}: rename one, or move it elsewhere"
            )
    if not found:
        raise SlideError(f"{folder}: holds no slide (a file ending in {', '.join(SUFFIXES)}): check the path")
    return dict(sorted(found.items()))


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
