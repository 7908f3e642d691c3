"""Bags from whatever is at a path, recognised by content."""

from __future__ import annotations

import zipfile
from pathlib import Path

from ncmi.data.dataset import listing
from ncmi.slides.bag import BagError, BagSource
from ncmi.slides.readers.h5_cohort import H5Cohort
from ncmi.slides.readers.h5_folder import H5Folder
from ncmi.slides.readers.hdf5 import is_hdf5, reading, sets_of
from ncmi.slides.readers.npz_bags import NpzCohort, NpzFolder
from ncmi.slides.readers.npz_files import npz_shapes
from ncmi.slides.readers.pt_folder import PtFolder

LAYOUTS = (
    "a folder of one .h5 file a slide (TRIDENT, CLAM: features [N, D], coords), of one .pt tensor a slide (CLAM) or "
    "of one .npz file a slide (features, coords); an .h5 file with one group a slide (AEM, ASMIL: feat, coords, "
    "attribute label); an .npz file with x [n, D], bag [n] and bag_label [B]"
)
_KINDS: dict[str, type[H5Folder] | type[PtFolder] | type[NpzFolder]] = {
    ".h5": H5Folder,
    ".hdf5": H5Folder,
    ".pt": PtFolder,
    ".pth": PtFolder,
    ".npz": NpzFolder,
}


def open_bags(path: str | Path, *, features_key: str | None = None, coords_key: str | None = None) -> BagSource:
    """Open bags of features; which of the usual layouts it is shows by itself. Reads names and at most shapes.

    Args:
        path: folder of one file a slide, file of a whole cohort, or file of one slide.
        features_key, coords_key: names of data sets; by default guessed by their usual names.

    Raises:
        BagError: where there is nothing, or none of the layouts, which it then lists.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, features_key, coords_key)
    if not path.exists():
        raise BagError(
            f"{path}: no such file or folder: check the path of the features (a run keeps it as it was given: where "
            "that is relative, start from the same folder)"
        )
    if is_hdf5(path):
        with reading(path) as file:
            one_slide = bool(sets_of(file)) or (features_key is not None and features_key in file)
        if not one_slide:
            return H5Cohort(path, features_key=features_key, coords_key=coords_key)
        return H5Folder(path, [path], features_key=features_key, coords_key=coords_key)
    if path.suffix.lower() in (".pt", ".pth"):
        return PtFolder(path, [path], features_key=features_key, coords_key=coords_key)
    if zipfile.is_zipfile(path) and (shapes := npz_shapes(path)):
        if {"bag", "bag_label"} <= set(shapes):
            return NpzCohort(path, features_key=features_key, coords_key=coords_key)
        return NpzFolder(path, [path], features_key=features_key, coords_key=coords_key)
    raise BagError(f"{path}: not bags of features, or damaged: give {LAYOUTS}")


def _open_folder(path: Path, features_key: str | None, coords_key: str | None) -> BagSource:
    files: dict[str, list[Path]] = {}
    for file in path.iterdir():
        # hidden files are leftovers of a write that was stopped
        if file.suffix.lower() in _KINDS and not file.name.startswith(".") and file.is_file():
            files.setdefault(file.suffix.lower(), []).append(file)
    if not files:
        for inner in ("pt_files", "h5_files", "features"):
            if (path / inner).is_dir():
                return _open_folder(path / inner, features_key, coords_key)
        inside = sorted({file.parent for file in path.glob("*/*") if file.suffix.lower() in _KINDS})
        if inside:
            raise BagError(
                f"{path}: no bags of features here, but in {listing([str(one) for one in inside], 3)}: give that "
                "folder, or bring all files into one"
            )
        raise BagError(f"{path}: no bags of features here: give {LAYOUTS}")
    kinds = {_KINDS[suffix] for suffix in files}
    if len(kinds) > 1:
        raise BagError(f"{path}: files of several kinds ({', '.join(sorted(files))}): keep one kind in a folder")
    found = [file for suffix in sorted(files) for file in files[suffix]]
    stems: dict[str, Path] = {}
    for file in found:
        if stems.setdefault(file.stem, file) is not file:
            raise BagError(f"{path}: {stems[file.stem].name} and {file.name} are one slide: keep one of them")
    return kinds.pop()(path, found, features_key=features_key, coords_key=coords_key)
