"""Writers of feature files in the layouts of the usual tools, and a source that needs no files."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import torch

from ncmi.data.bags.bag import Bag, BagError, BagSource


def values(count: int, width: int = 4, seed: int = 0, dtype: str = "f4") -> npt.NDArray[np.floating]:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(dtype)


def grid(count: int) -> npt.NDArray[np.int64]:
    return np.stack([256 * np.arange(count), 512 * np.arange(count)], axis=1)


def write_h5(
    path: Path,
    features: npt.NDArray[np.generic],
    *,
    key: str = "features",
    coords: npt.NDArray[np.generic] | None = None,
    attributes: Mapping[str, object] = {},
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[key] = features
        if coords is not None:
            file["coords"] = coords
            file["coords"].attrs.update(attributes)
    return path


def write_cohort_h5(path: Path, bags: Mapping[str, npt.NDArray[np.generic]], labels: Mapping[str, object] = {}) -> Path:
    with h5py.File(path, "w") as file:
        for name, features in bags.items():
            group = file.create_group(name)
            group["feat"] = features
            group["coords"] = grid(len(features))
            if name in labels:
                group.attrs["label"] = labels[name]
    return path


def write_table(path: Path, rows: Sequence[Sequence[object]], header: str = "slide_id,patient_id,label") -> Path:
    path.write_text("\n".join([header, *(",".join(str(field) for field in row) for row in rows)]) + "\n")
    return path


class FakeSource(BagSource):
    """Bags made on demand; ``broken`` ones complain when they are read. Counts what is read, and how often at once."""

    def __init__(self, sizes: Mapping[str, int], width: int = 4, broken: Sequence[str] = ()) -> None:
        self.path = Path("fake")
        self.names = tuple(sorted(sizes))
        self.sizes, self.width, self.broken = dict(sizes), width, set(broken)
        self.numbers = {name: float(number) for number, name in enumerate(self.names)}
        self.reads: list[str] = []
        self.lock = threading.Lock()

    def shape(self, name: str) -> tuple[int, int]:
        return self.sizes[name], self.width

    def load(self, name: str) -> Bag:
        with self.lock:
            self.reads.append(name)
        if name in self.broken:
            raise BagError(f"fake/{name}: broken")
        return Bag(name, torch.full((self.sizes[name], self.width), self.numbers[name]))
