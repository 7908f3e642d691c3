"""One .pt file a slide, as CLAM writes them: a tensor, or a dict that holds one."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ncmi.slides.bag import Bag
from ncmi.slides.readers.arrays import UnusableBag, bag_shape, find_coords, find_features, make_bag
from ncmi.slides.readers.folder import FolderSource
from ncmi.slides.readers.hdf5 import group_coords, reading


class PtFolder(FolderSource):
    """Files with a tensor ``[N, D]`` or ``[1, N, D]``, memory-mapped; no other Python object is made of a file.

    Positions are taken from the dict, or from the .h5 file of the same name, beside or in ``../h5_files``.
    """

    def _read_shape(self, file: Path) -> tuple[int, int]:
        features, _ = self._tensors(file)
        return bag_shape(features.shape, file)

    def _read(self, name: str, file: Path) -> Bag:
        features, coords = self._tensors(file)
        bag_shape(features.shape, file)
        attributes: Mapping[str, Any] = {}
        companion = None if coords is not None else _companion(file)
        if companion is not None:
            with reading(companion) as opened:
                coords, attributes = group_coords(opened, self.coords_key, companion)
        # a copy: pages of the mapping would be read where the bag is used
        return make_bag(name, features.detach().clone(), coords, attributes, file)

    def _tensors(self, file: Path) -> tuple[Tensor, Any]:
        content = _read_pt(file)
        if isinstance(content, Tensor):
            return content, None
        if not isinstance(content, dict):
            raise UnusableBag(file, f"holds a {type(content).__name__} instead of a tensor or a dict with one")
        tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        shapes = {key: tuple(value.shape) for key, value in tensors.items()}
        coords = find_coords(shapes, self.coords_key if self.coords_key in shapes else None, file)
        return tensors[find_features(shapes, self.features_key, file)], None if coords is None else tensors[coords]


def _read_pt(file: Path) -> Any:
    if file.stat().st_size == 0:
        raise UnusableBag(file, "an empty file")
    try:
        try:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            return torch.load(file, map_location="cpu", weights_only=True)  # written before PyTorch 1.6
    except pickle.UnpicklingError as error:
        raise UnusableBag(
            file, "damaged, or holds Python objects, which are not read for safety; save the tensor alone"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # damage makes the unpickler raise whatever comes
        reason = " ".join(str(error).split())[:200]
        raise UnusableBag(file, f"not a readable PyTorch file, truncated or damaged ({reason})") from error


def _companion(file: Path) -> Path | None:
    """The .h5 file with the positions of a .pt file's instances."""
    for folder in (file.parent, file.parent.parent / "h5_files"):
        if (found := folder / f"{file.stem}.h5").is_file():
            return found
    return None
