"""The data sets of the study: how each is loaded, by which recipe it is trained on, what a run costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from _study_loaders import NUCLEI_SIDE, Folders, Loaded, cifar_coarse, cifar_fine, find_in, keel, nuclei
from ncmi.options import ObjectiveOptions
from ncmi.recipes import Augmentation, Backbone, Data, Recipe, Training, cifar100, resolve_recipe


@dataclass(frozen=True)
class StudySet:
    """One data set of the study.

    Attributes:
        name: in commands and tables.
        load: from folders and the run's seed.
        recipe: for an objective; batch size and epochs are given, never left open.
        seconds: of a run with cross-entropy on one core, for estimates.
        seeds, tune_seeds: how many final and tuning seeds by default.
        by_seed: the data set itself depends on the seed (a split by groups).
        flat: samples are rows of a table or as small: a step costs about the same whatever the batch.
    """

    name: str
    load: Callable[[Folders, int], Loaded]
    recipe: Callable[[ObjectiveOptions], Recipe]
    seconds: float
    seeds: int = 10
    tune_seeds: int = 5
    by_seed: bool = False
    flat: bool = True


def usual_training(num_train: int) -> Training:
    """Training as ``ncmi train`` has it for so many training samples, with batch size and epochs spelt out."""
    training = Training(threads=1, accelerator="cpu")
    return resolve_recipe(Recipe(Data(""), training=training), (1,), 2, num_train).training


def _table(name: str, samples: int, seconds: float, *, file: str = "", drop: int = 0, seeds: int = 10) -> StudySet:
    """A table by name, or (``file``) of the KEEL collection without its first ``drop`` columns."""

    def load(folders: Folders, seed: int) -> Loaded:
        return Loaded(keel(folders, name, file, drop) if file else find_in(folders, name))

    training = usual_training(samples - round(0.15 * samples) - round(0.2 * samples))
    return StudySet(
        name,
        load,
        lambda objective: Recipe(Data(name), objective=objective, training=training),
        seconds,
        seeds=seeds,
        tune_seeds=5 if seeds > 5 else 2,
    )


def _coarse_recipe(objective: ObjectiveOptions) -> Recipe:
    recipe = cifar100.small(objective)
    return replace(recipe, data=replace(recipe.data, name="cifar100_coarse", train_per_class=400))


def _nuclei_recipe(objective: ObjectiveOptions) -> Recipe:
    training = replace(usual_training(3800), epochs=15, augmentation=Augmentation.cifar())
    # the few samples of the library's own validation part are not used: see nuclei
    data = Data("colon_nuclei", image_size=NUCLEI_SIDE, validation_fraction=0.05)
    return Recipe(data, Backbone("convnet"), objective, training)


_LISTED = (
    _table("iris", 150, 1.4),
    _table("wine", 178, 1.4),
    _table("breast_cancer", 569, 2.5),
    _table("digits", 1797, 3.5),
    _table("letter", 20_000, 14.0, seeds=5),
    StudySet("colon_nuclei", nuclei, _nuclei_recipe, 45.0, seeds=5, tune_seeds=2, by_seed=True, flat=False),
    StudySet("cifar100_coarse", cifar_coarse, _coarse_recipe, 70.0, seeds=5, tune_seeds=1, flat=False),
    StudySet("cifar100", cifar_fine, cifar100.small, 170.0, seeds=3, tune_seeds=1, flat=False),
)
_KEEL = (
    _table("vowel", 990, 2.9, file="vowel.dat", drop=3, seeds=5),  # without speaker, sex and the part they stand in
    _table("vehicle", 846, 2.9, file="vehicle.dat", seeds=5),
    _table("movement_libras", 360, 2.0, file="movement_libras.dat", seeds=5),
    _table("sonar", 208, 1.5, file="sonar.dat", seeds=5),
    _table("segment", 2310, 4.0, file="segment.dat", seeds=5),
    _table("satimage", 6435, 6.0, file="satimage.dat", seeds=5),
    _table("texture", 5500, 5.0, file="texture.dat", seeds=5),
    _table("penbased", 10_992, 8.0, file="penbased.dat", seeds=5),
    _table("spambase", 4597, 4.5, file="spambase.dat", seeds=5),
    _table("phoneme", 5404, 5.0, file="phoneme.dat", seeds=5),
)
SETS = {one.name: one for one in (*_LISTED, *_KEEL)}
GROUPS = {"usual": tuple(one.name for one in _LISTED), "keel": tuple(one.name for one in _KEEL), "all": tuple(SETS)}


def named_sets(names: Sequence[str]) -> tuple[str, ...]:
    """Names of sets, with groups (usual, keel, all) written out, each once.

    Raises:
        ValueError: for an unknown one.
    """
    found: dict[str, None] = {}
    for name in names:
        if name not in SETS and name not in GROUPS:
            raise ValueError(f"unknown set {name!r}: choose {', '.join((*GROUPS, *SETS))}")
        found.update(dict.fromkeys(GROUPS.get(name, (name,))))
    return tuple(found)


@cache
def _load_once(name: str, folders: Folders) -> Loaded:
    return SETS[name].load(folders, 0)


def load_set(name: str, folders: Sequence[Path], seed: int) -> Loaded:
    """The data set of a run; one that does not depend on the seed is read once a process."""
    one = SETS[name]
    return one.load(tuple(folders), seed) if one.by_seed else _load_once(name, tuple(folders))
