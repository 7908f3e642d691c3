"""What a run needs of its data, whatever kind it is: labels, parts, a loop that feeds the network, further outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ncmi.data.signature import Signature
from ncmi.data.splits import Split
from ncmi.errors import on_one_line
from ncmi.recipes import BagData, Data, ImageData, Recipe, TableData
from ncmi.training.identity import check_same, paths_of
from ncmi.training.judging import Features, Judgment, Outcome, Stages, information, judge_readouts
from ncmi.training.loop import Loop, Setup
from ncmi.training.mistakes import find_mistakes
from ncmi.training.model import Classifier
from ncmi.training.run_folder import RunFolder
from ncmi.training.schema import Contents, DataRecord, Skipped

if TYPE_CHECKING:
    from ncmi.data.bags.cohort import Cohort
    from ncmi.data.dataset import Dataset
    from ncmi.data.tables.table import LabeledTable
    from ncmi.training.streams import Stream

_FEW_CLASSES = 8


class Source(ABC):
    """The data of a run, read and split.

    Attributes:
        signature: what it looks like.
        labels: as the training is given them, ``[N]``.
        split: its parts.
        simulation: whether the data is simulated.
        skipped: (name, reason) of what could not be used.
        notes: a line each of what might have been understood otherwise.
    """

    data: Data

    signature: Signature
    labels: Tensor
    split: Split
    simulation: bool = False
    skipped: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()

    @property
    def parts(self) -> dict[str, Tensor]:
        """Indices of each part that is not empty."""
        return {name: indices for name, indices in self.split.parts.items() if len(indices)}

    @property
    def judged_part(self) -> Literal["test", "validation", "train"]:
        """The part that a run is judged by: the test part, or where there is none validation, or training itself."""
        return "test" if len(self.split.test) else "validation" if len(self.split.validation) else "train"

    @property
    def judged(self) -> Tensor:
        """Indices of the part that a run is judged by."""
        return self.parts[self.judged_part]

    @property
    def parts_to_judge(self) -> dict[str, Tensor]:
        """Training part, validation part, if it is not itself what is judged, and as ``"test"`` what is judged."""
        others = {name: indices for name, indices in self.parts.items() if name in ("train", "validation")}
        if self.judged_part == "validation":
            del others["validation"]
        return {**others, "test": self.judged}

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
    def ood_features(self, model: Classifier, name: str) -> Tensor:
        """Features ``[M, D]`` of data that is none of the run's, by its name or path; labels are not looked at."""

    def streams(self, model: Classifier) -> dict[str, Stream] | None:
        """Features of the parts to judge, made batch by batch; None where they are few enough to be kept. Default."""
        return None

    def outcome(self, loop: Loop, neighbors_limit: int | None, on_stage: Stages) -> Outcome:
        """Fit and judge the read-outs of a trained model."""
        on_stage(f"making features of {sum(map(len, self.parts_to_judge.values())):,} samples …")
        parts = {
            name: replace(loop.extract(indices), groups=self.groups(indices))
            for name, indices in self.parts_to_judge.items()
        }
        model, class_names = loop.evaluated.eval(), self.signature.class_names
        judgment = judge_readouts(model, parts, class_names, neighbors_limit, on_stage)
        test = parts["test"]
        return Outcome(
            judgment=judgment,
            test=test,
            places=torch.arange(len(test.labels)),
            information=information(model, test),
            class_counts={
                name: torch.bincount(part.labels.cpu(), minlength=len(class_names)).tolist()
                for name, part in parts.items()
            },
            mistakes=find_mistakes(judgment.log_p["test"][model.objective.readouts[0]], test.labels),
            parts=parts,
        )

    def check(self, recipe: Recipe, model: Classifier) -> None:
        """Raise ValueError where a recipe asks for what this data does not have."""
        return None

    def contents(self) -> Contents | None:
        """Digests of the data; None where the source tells changes by other means."""
        return None

    @abstractmethod
    def describe_inputs(self) -> str:
        """How many samples, of what, in a few words."""

    def record(self) -> DataRecord:
        """What is known of the data, as ``data.json`` holds it."""
        names, labels = self.signature.class_names, self.given_labels
        by_part = {
            part: torch.bincount(labels[indices], minlength=len(names)).tolist() for part, indices in self.parts.items()
        }
        counts = torch.bincount(labels[labels >= 0], minlength=len(names)).tolist()
        sizes = ", ".join(f"{part} {len(indices):,}" for part, indices in self.parts.items())
        return DataRecord(
            kind=self.signature.kind,
            summary=f"{self.describe_inputs()}; {_classes_in_words(names, counts)}; {sizes}",
            paths=paths_of(self.data),
            samples=len(labels),
            classes=dict(zip(names, counts, strict=True)),
            parts=by_part,
            contents=self.contents(),
            notes=list(self.notes),
            skipped=[Skipped(name=name, reason=reason) for name, reason in self.skipped],
        )

    @property
    def given_labels(self) -> Tensor:
        """Labels ``[N]`` as the data has them, whatever damage a recipe does to them; -1 for none."""
        return self.labels

    def begin(self, folder: RunFolder, record: DataRecord) -> None:
        """Write into a new run's folder what it is trained on."""
        folder.write_data_record(record)

    def check_unchanged(self, folder: RunFolder, record: DataRecord) -> None:
        """Raise RunFolderError where a run was begun with other data than this, ``record``."""
        if (earlier := folder.data_record()) is not None:
            check_same(earlier, record, folder)

    def write_outputs(
        self, folder: RunFolder, model: Classifier, judgment: Judgment, parts: dict[str, Features]
    ) -> None:
        """Write further outputs of a finished run. Default: nothing."""
        return None

    def output_arrays(self, judgment: Judgment) -> dict[str, Any]:
        """What ``test_outputs.npz`` holds besides labels, features and predictions. Default: nothing."""
        return {}


def _classes_in_words(names: Sequence[str], counts: Sequence[int]) -> str:
    """The classes with their counts, the first of them; or how many and how large they are."""
    if len(names) <= _FEW_CLASSES:
        each = (f"{on_one_line(name)} {count:,}" for name, count in zip(names, counts, strict=True))
        return f"{len(names)} classes: {', '.join(each)}"
    return f"{len(names)} classes of {min(counts):,} to {max(counts):,}"


def load_data(data: Data) -> Dataset | LabeledTable | Cohort:
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


def other_features(model: Classifier, data: Data) -> tuple[Features, tuple[str, ...]]:
    """Features of other labeled data, of classes and inputs that a finished model knows; and what to know of it.

    Raises:
        FileNotFoundError, ValueError: for other classes or inputs; the message names the cure.
    """
    if isinstance(data, BagData):
        from ncmi.training.bags import other_bags

        return other_bags(model, data)
    from ncmi.training.samples import other_samples

    return other_samples(model, data)


def open_source(recipe: Recipe, data: Dataset | LabeledTable | Cohort | None = None, *, read: bool = True) -> Source:
    """The data of a recipe, read and split.

    Args:
        recipe: as it was asked for, or resolved.
        data: from :func:`load_data`, where it has been read already.
        read: False for data that has been read through before, by a run that was stopped.
    """
    if isinstance(recipe.data, BagData):
        from ncmi.training.bags import CohortSource

        return CohortSource(recipe, data, read=read)  # type: ignore[arg-type]
    from ncmi.data.tables.table import LabeledTable
    from ncmi.training.samples import SampleSource
    from ncmi.training.tables import TableSource

    samples = load_data(recipe.data) if data is None else data
    if isinstance(samples, LabeledTable):
        return TableSource(recipe, samples)
    from ncmi.data.image_files import ImageFiles

    if isinstance(samples.inputs, ImageFiles) and samples.inputs.are_shards:  # type: ignore[union-attr]
        from ncmi.training.shards import ShardSource

        return ShardSource(recipe, samples)  # type: ignore[arg-type]
    return SampleSource(recipe, samples)  # type: ignore[arg-type]
