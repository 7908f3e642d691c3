"""The data set of a recipe, and its parts."""

from __future__ import annotations

from dataclasses import replace

from ncmi.data import Dataset, Split, load_dataset, noisy_labels, split_dataset
from ncmi.recipes import Data, Recipe


def dataset_of(data: Data) -> Dataset:
    """Read the data set that a recipe names, as it is: without the damage that a recipe may ask for.

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
        imbalance=data.imbalance,
        seed=_split_seed(recipe),
    )


def parts_of(recipe: Recipe, dataset: Dataset) -> tuple[Dataset, Split]:
    """The data set as a run knows it, with the recipe's wrong labels in its training part, and its parts.

    Args:
        recipe: of the run.
        dataset: from :func:`dataset_of`; it is left as it is.

    Returns:
        The same data set, or one of the same inputs with other labels; and the parts. The same whenever asked for.
    """
    data, split = recipe.data, split_of(recipe, dataset)
    if data.label_noise == 0:
        return dataset, split
    noisy = noisy_labels(dataset.labels, dataset.num_classes, data.label_noise, data.noise_kind, _split_seed(recipe))
    labels = dataset.labels.clone()
    labels[split.train] = noisy[split.train]
    return replace(dataset, labels=labels), split


def _split_seed(recipe: Recipe) -> int:
    return recipe.training.seed if recipe.data.split_seed is None else recipe.data.split_seed
