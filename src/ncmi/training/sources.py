"""What a run needs of its data, whatever kind it is: labels, parts, a loop that feeds the network, further outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ncmi.data.splits import Split
from ncmi.recipes import BagData, Data, ImageData, Recipe, TableData
from ncmi.training.judging import Features, Judgment
from ncmi.training.loop import Loop, Setup
from ncmi.training.model import Classifier
from ncmi.training.run_folder import RunFolder
from ncmi.training.schema import Signature

if TYPE_CHECKING:
    from ncmi.data.bags.cohort import Cohort
    from ncmi.data.dataset import Dataset


class Source(ABC):
    """The data of a run, read and split.

    Attributes:
        signature: what it looks like.
        labels: as the training is given them, ``[N]``.
        split: its parts.
        simulation: whether the data is simulated.
        skipped: (name, reason) of what could not be used.
    """

    signature: Signature
    labels: Tensor
    split: Split
    simulation: bool = False
    skipped: Sequence[tuple[str, str]] = ()

    @property
    def parts(self) -> dict[str, Tensor]:
        """Indices of each part that is not empty."""
        return {name: indices for name, indices in self.split.parts.items() if len(indices)}

    def groups(self, indices: Tensor) -> list[Hashable] | None:
        """What each sample belongs to, such as its patient; None where each stands for itself."""
        return None

    def names(self, indices: Tensor) -> list[str]:
        """What each sample is called in tables. Default: its row, counted from 0."""
        return [str(index) for index in indices.tolist()]

    def pictures(self, indices: Tensor) -> Tensor | None:
        """Images ``[n, channels, H, W]`` (uint8) of some samples; None where they are no images. Default: None."""
        return None

    @abstractmethod
    def fit_standardizer(self, model: Classifier) -> None:
        """Fit the model's standardizer to the training part."""

    @abstractmethod
    def loop(self, setup: Setup) -> Loop:
        """The loop that trains a model on this data."""

    @abstractmethod
    def features(self, model: Classifier, indices: Tensor) -> Features:
        """Features of some samples by a finished model, on the CPU."""

    @abstractmethod
    def other_features(self, model: Classifier, data: Data) -> Features:
        """Features of other labeled data of the same classes and inputs by a finished model.

        Raises:
            ValueError: for other classes or inputs; the message names the cure.
        """

    @abstractmethod
    def ood_features(self, model: Classifier, name: str) -> Tensor:
        """Features ``[M, D]`` of data that is none of the run's, by its name or path; labels are not looked at."""

    def check(self, recipe: Recipe, model: Classifier) -> None:
        """Raise ValueError where a recipe asks for what this data does not have."""
        return None

    def begin(self, folder: RunFolder) -> None:
        """Write into a new run's folder what it is trained on, where that is not in the recipe. Default: nothing."""
        return None

    def check_unchanged(self, folder: RunFolder) -> None:
        """Raise RunFolderError where a stopped run was begun with other data. Default: nothing."""
        return None

    def write_outputs(
        self, folder: RunFolder, model: Classifier, judgment: Judgment, parts: dict[str, Features]
    ) -> None:
        """Write further outputs of a finished run. Default: nothing."""
        return None

    def output_arrays(self, judgment: Judgment) -> dict[str, Any]:
        """What ``test_outputs.npz`` holds besides labels, features and predictions. Default: nothing."""
        return {}


def load_data(data: Data) -> Dataset | Cohort:
    """Read the data that a recipe names, without the damage that a recipe may ask for.

    Raises:
        FileNotFoundError, ValueError: where it cannot be used; the message names the cure.
    """
    if isinstance(data, BagData):
        # packages for bags are an extra
        from ncmi.data.bags.cohort import load_cohort

        return load_cohort(data)
    from ncmi.data.load import load_samples

    assert isinstance(data, TableData | ImageData)
    return load_samples(data)


def open_source(recipe: Recipe, data: Dataset | Cohort | None = None, *, read: bool = True) -> Source:
    """The data of a recipe, read and split.

    Args:
        recipe: as it was asked for, or resolved.
        data: from :func:`load_data`, where it has been read already.
        read: False for data that has been read through before, by a run that was stopped.
    """
    if isinstance(recipe.data, BagData):
        from ncmi.training.bags import CohortSource

        return CohortSource(recipe, data, read=read)  # type: ignore[arg-type]
    from ncmi.training.samples import SampleSource

    return SampleSource(recipe, data)  # type: ignore[arg-type]
