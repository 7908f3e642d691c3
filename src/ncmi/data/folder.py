"""A folder of image files: one subfolder for each class, or, without labels, of any shape."""

from __future__ import annotations

from pathlib import Path

import torch

from ncmi.data.dataset import Dataset
from ncmi.data.images import decode_images

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_SYSTEM_FILES = ("thumbs.db", "desktop.ini", "__macosx")


def visible(folder: Path) -> list[Path]:
    """Entries of a folder in order of name, without hidden ones and what operating systems leave behind."""
    entries = (e for e in folder.iterdir() if not e.name.startswith(".") and e.name.lower() not in _SYSTEM_FILES)
    return sorted(entries, key=lambda entry: entry.name)


def all_files(folder: Path) -> list[Path]:
    """All visible files below a folder, in order of their path."""
    files: list[Path] = []
    for entry in visible(folder):
        files.extend(all_files(entry) if entry.is_dir() else [entry])
    return files


def load_folder(root: Path, image_size: int = 32, channels: int | None = None) -> Dataset:
    """Images in ``root/<class>/<image>``, brought to squares as :func:`ncmi.data.images.decode_images` says.

    Classes and files are in order of name. Hidden files are skipped, and so are files other than images
    beside the class folders.

    Raises:
        ValueError: for a folder without class folders, an empty or nested class folder, a corrupt or
            non-image file.
    """
    if image_size < 1:
        raise ValueError(f"image_size={image_size}: give the side of the images in pixels, at least 1")
    entries = visible(root)
    class_folders = [entry for entry in entries if entry.is_dir()]
    loose = [e for e in entries if e.is_file() and e.suffix.lower() in IMAGE_SUFFIXES]
    if not class_folders:
        found = f"{len(loose)} images but no folder" if loose else "no folder"
        raise ValueError(f"{found} inside: expected one subfolder of images for each class, <folder>/<class>/<image>")
    if loose:
        raise ValueError(f"{loose[0].name} lies beside the class folders: move it into the folder of its class")
    paths, labels = [], []
    for index, folder in enumerate(class_folders):
        files = visible(folder)
        if not files:
            raise ValueError(f"class folder {folder.name!r} is empty: add images or remove it")
        nested = next((entry for entry in files if entry.is_dir()), None)
        if nested is not None:
            raise ValueError(
                f"class folder {folder.name!r} holds the folder {nested.name!r}: give the folder whose "
                "subfolders are the classes, with the images directly in them"
            )
        paths += files
        labels += [index] * len(files)
    names = tuple(folder.name for folder in class_folders)
    if len(names) < 2:
        raise ValueError(f"only one class ({names[0]!r}): a classifier needs folders of at least two")
    inputs = decode_images(paths, (image_size, image_size), channels, root)
    return Dataset(root.resolve().name, inputs, torch.tensor(labels), names, "image")
