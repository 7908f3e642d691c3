"""A table that has been read: its columns by kind, labels, groups and given parts, before anything is fitted to it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ncmi.recipes.data import Kind

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    from torch import Tensor

ColumnKind = Literal["number", "boolean", "category", "date"]


class Writing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the text file of training is written. New files are read the same way, whatever rows they hold.

    Attributes:
        separator: one sign; a blank for runs of blanks and tabs.
        quote: sign around fields that hold a separator or a new line.
        decimal: point or comma.
    """

    separator: str
    quote: str
    decimal: Literal[".", ","]


class TableColumn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a feature column is read, in training and in any new data; part of a run's signature.

    Attributes:
        name: as in the header.
        kind: "number", also where numbers stand as text ("1,234", "12 %", "$5"); "boolean" (yes/no, true/false, …);
            "category"; "date".
        decimal: point or comma of numbers, as training found it or was told; new data is read by it.
        true, false: of a boolean, the texts that mean 1 and 0, in any case.
        date_format: of a date, as strftime writes it; None for ISO 8601.
        marks_kept: of a category, usual marks of missing values that are values here, such as "-" beside "+".
    """

    name: str
    kind: ColumnKind
    decimal: Literal[".", ","] = "."
    true: str | None = None
    false: str | None = None
    date_format: str | None = None
    marks_kept: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a file, read as a list of columns says.

    Attributes:
        frame: the feature columns in their order; numbers and booleans float64 with NaN where missing, categories text
            (pandas' str) with missing values, dates datetime64 with NaT. Index 0…N−1.
        numbers: ``[N]`` int64, of each row in its file, counted from 0 without header; rows without a label that are
            left out leave gaps.
        ids: names of the rows by the id column; None without one.
    """

    frame: pd.DataFrame
    numbers: npt.NDArray[np.int64]
    ids: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def names(self) -> list[str]:
        """What outputs call each row: its id, else its number in the file."""
        return list(self.ids) if self.ids is not None else [str(number) for number in self.numbers.tolist()]


@dataclass(frozen=True, eq=False)
class LabeledTable:
    """A table with labels.

    Attributes:
        name: what reports call it.
        label_column: where the labels stood.
        rows: of features.
        columns: how each feature column is read.
        labels: ``[N]`` int64, in ``0…C−1``.
        class_names: the C names, in order of value where all are numbers, else of code points.
        groups: what each row belongs to, as text ``[N]``; None without a group column.
        times: ``[N]``, anything that sorts; None without a time column.
        parts: ``[N]`` int8: 0 training, 1 validation, 2 test, -1 none; what files or a split column of their own say;
            None where nothing says it. Where no row is in validation, that part is still to be drawn from training.
        left_out: (name, reason) of rows and classes that could not be used.
        notes: a line each of what was understood and might have been understood otherwise.
        writing: of a file of delimited text, how it is written; None for all else.
    """

    name: str
    label_column: str
    rows: Rows
    columns: tuple[TableColumn, ...]
    labels: Tensor
    class_names: tuple[str, ...]
    groups: npt.NDArray[Any] | None = None
    times: npt.NDArray[Any] | None = None
    parts: npt.NDArray[np.int8] | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    writing: Writing | None = None

    @property
    def kind(self) -> Kind:
        return "table"

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, rows: npt.NDArray[np.int64], class_names: tuple[str, ...], labels: Tensor) -> LabeledTable:
        """Some of the rows, with labels ``[n]`` among these classes."""
        by_row = {"groups": self.groups, "times": self.times, "parts": self.parts}
        kept: dict[str, Any] = {name: None if each is None else each[rows] for name, each in by_row.items()}
        of_rows = Rows(
            frame=self.rows.frame.iloc[rows].reset_index(drop=True),
            numbers=self.rows.numbers[rows],
            ids=None if self.rows.ids is None else tuple(self.rows.ids[row] for row in rows.tolist()),
        )
        return dataclasses.replace(self, rows=of_rows, labels=labels, class_names=class_names, **kept)
