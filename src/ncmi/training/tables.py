"""A table in a run: its columns become features by what the training part shows of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from ncmi.data.dataset import Dataset, check_finite
from ncmi.data.signature import Signature
from ncmi.data.standardize import Standardizer
from ncmi.data.tables.preprocessing import Preprocessing, fit_preprocessing
from ncmi.data.tables.table import LabeledTable
from ncmi.recipes import Recipe
from ncmi.training.identity import contents_of_table
from ncmi.training.model import Classifier
from ncmi.training.samples import SampleSource
from ncmi.training.schema import Contents

_PLURALS = {"number": "numbers", "boolean": "booleans", "category": "categories", "date": "dates"}


def _readings(columns: tuple[str, ...]) -> tuple[str, ...]:
    """How notes begin that say how columns are read."""
    return tuple(f"{begin}{name!r} " for name in columns for begin in ("", "numbers in ", "dates in "))


def with_fitted(notes: Sequence[str], preprocessing: Preprocessing) -> tuple[str, ...]:
    """Notes of how columns are read, and of what fitting the preprocessing has left out or numbered."""
    # how a column is read is of no use where it is not used
    kept = [note for note in notes if not note.startswith(_readings(preprocessing.constant))]
    if preprocessing.constant:
        kept.append(f"left out, since the training part has no two values of it: {', '.join(preprocessing.constant)}")
    if numbered := [each.column for each in preprocessing.categories if each.ordinal]:
        kept.append(f"categories by number, since there are very many: {', '.join(numbered)}")
    return tuple(kept)


class TableSource(SampleSource):
    """Rows of a table file.

    Args:
        recipe: of the run.
        table: as it is read; it is left as it is.
    """

    def __init__(self, recipe: Recipe, table: LabeledTable) -> None:
        self.table = table
        super().__init__(recipe, table)

    def encode(self, samples: Dataset | LabeledTable) -> Dataset:
        table = self.table
        frame = table.rows.frame
        training_part = frame.iloc[self.split.train.numpy()]
        preprocessing = fit_preprocessing(training_part, table.columns, len(table), table.writing)
        features = preprocessing.transform(frame)
        check_finite(features, preprocessing.feature_names)
        self.signature = Signature(
            kind="table",
            sample_shape=(features.shape[1],),
            class_names=table.class_names,
            feature_names=preprocessing.feature_names,
            label_column=table.label_column,
            preprocessing=preprocessing,
        )
        self.notes = with_fitted(self.notes, preprocessing)
        return Dataset(table.name, features, table.labels, table.class_names, "table", preprocessing.feature_names)

    def groups(self, indices: Tensor) -> list[str] | None:  # type: ignore[override]
        of_rows = self.table.groups
        return None if of_rows is None else [str(group) for group in of_rows[indices.numpy()]]

    def names(self, indices: Tensor) -> list[str]:
        names = self.table.rows.names
        return [names[index] for index in indices.tolist()]

    def fit_standardizer(self, model: Classifier) -> None:
        preprocessing = self.signature.preprocessing
        assert preprocessing is not None
        standardizer = Standardizer.fit(self.dataset.inputs[self.split.train], "table")
        standardizer.leave_out(preprocessing.is_flag)
        model.standardize.load_state_dict(standardizer.state_dict())

    def contents(self) -> Contents:
        return contents_of_table(self.table)

    def describe_inputs(self) -> str:
        counts = Counter(str(column.kind) for column in self.table.columns)
        kinds = [f"{counts[one]} {one if counts[one] == 1 else many}" for one, many in _PLURALS.items() if counts[one]]
        width = self.signature.sample_shape[0]
        features = f"{', '.join(kinds)} → {width} {'feature' if width == 1 else 'features'}"
        return f"{len(self.table):,} rows; {features}; label {self.table.label_column!r}"
