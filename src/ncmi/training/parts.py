"""The data set of a recipe, and its parts."""

from __future__ import annotations

from ncmi.data import Dataset, Split, load_dataset, split_dataset
from ncmi.recipes import Data, Recipe


def dataset_of(data: Data) -> Dataset:
    """Read the data set that a recipe names.

    Raises:
        FileNotFoundError, ValueError: see :func:`ncmi.data.load_dataset`.
    """
    return load_dataset(data.name, label_column=data.label_column, image_size=data.image_size, data_dir=data.data_dir)


def split_of(recipe: Recipe, dataset: Dataset) -> Split:
    """The training, validation and test parts of a recipe, the same whenever it is asked for."""
    data = recipe.data
    return split_dataset(
        dataset,
        validation_fraction=data.validation_fraction,
        test_fraction=data.test_fraction,
        train_per_class=data.train_per_class,
        train_on_all=data.train_on_all,
        seed=recipe.training.seed if data.split_seed is None else data.split_seed,
    )
