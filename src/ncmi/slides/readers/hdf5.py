"""What the readers of HDF5 files share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ncmi.slides.bag import Bag, BagError
from ncmi.slides.readers.arrays import FEATURE_KEYS, UnusableBag, bag_shape, find_coords, find_features, make_bag


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 files do, whole or not."""
    with path.open("rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """An open HDF5 file; what the library says of damage becomes an error that names the file."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except (BagError, MemoryError):
        raise
    except Exception as error:  # damage makes the library raise whatever comes
        reason = " ".join(str(error).split())
        raise UnusableBag(path, f"not a readable HDF5 file, truncated or damaged ({reason})") from error


def sets_of(group: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the data sets that lie directly in a group."""
    import h5py

    return {name: tuple(item.shape or ()) for name, item in group.items() if isinstance(item, h5py.Dataset)}


def features_name(group: Any, asked: str | None, path: Path) -> str:
    """Name of the data set of a group with the features; the name asked for may be a path inside the group."""
    if asked is not None and asked in group:
        return asked
    usual = [name for name in group if name.lower() in FEATURE_KEYS]
    # shapes are looked at, which takes longer, only where the names do not decide
    return usual[0] if asked is None and len(usual) == 1 else find_features(sets_of(group), asked, path)


def group_shape(group: Any, features_key: str | None, path: Path) -> tuple[int, int]:
    """(N, D) of the bag in a group."""
    return bag_shape(getattr(group[features_name(group, features_key, path)], "shape", None) or (), path)


def group_bag(name: str, group: Any, features_key: str | None, coords_key: str | None, path: Path) -> Bag:
    """The bag in a group, with positions and patch size where they are there."""
    features = group[features_name(group, features_key, path)]
    bag_shape(getattr(features, "shape", None) or (), path)
    coords, attributes = group_coords(group, coords_key, path)
    return make_bag(name, features[...], coords, {**features.attrs, **attributes}, path)


def group_coords(group: Any, coords_key: str | None, path: Path) -> tuple[Any, Mapping[str, Any]]:
    """Positions in a group, None where there are none, and the attributes that may tell the patch size."""
    attributes = dict(group.attrs)
    asked = coords_key is not None and coords_key in group
    found = coords_key if asked else find_coords(list(group), coords_key, path)
    if found is None:
        return None, attributes
    return group[found][...], {**attributes, **group[found].attrs}
