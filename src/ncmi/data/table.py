"""Tables with named columns: delimited text (CSV, TSV) and Parquet."""

from __future__ import annotations

import csv
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ncmi.data.columns import LABEL_COLUMNS, called_like
from ncmi.data.dataset import Dataset, encode_labels
from ncmi.errors import listing, reason

if TYPE_CHECKING:
    import pandas as pd

_SEPARATORS = ",;\t|"


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"not a readable {path.suffix.lower()} table ({reason(error)}): "
        "check that the file is complete, no column name occurs twice and every row fits the header"
    )


def read_delimited(path: Path, *, as_text: bool = False) -> pd.DataFrame:
    """A table of delimited text (UTF-8, with or without byte-order mark), with a header in its first line.

    The separator is the one of comma, semicolon, tab and bar that cuts the header into most columns, or the one that a
    spreadsheet's line ``sep=;`` names.

    Args:
        as_text: all fields as text without spaces around, an empty field as empty text, without rows that hold nothing
            (the index keeps their numbers); by default numbers and missing values are told as pandas tells them.
    """
    import pandas as pd

    if not path.is_file():
        raise ValueError("a folder, not a table: give a CSV" if path.is_dir() else "no such file: check the path")
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":
            raise ValueError("a spreadsheet or archive: save the table as CSV in UTF-8")
    try:
        header, separator, skipped = _first_line(path)
        text, numbers = {"dtype": str, "keep_default_na": False}, {"low_memory": False, "skipinitialspace": True}
        with warnings.catch_warnings():
            # pandas only warns when it drops fields beyond the header
            warnings.simplefilter("error", pd.errors.ParserWarning)
            options: Any = text if as_text else numbers
            frame: pd.DataFrame = pd.read_csv(
                path, sep=separator, index_col=False, encoding="utf-8-sig", skiprows=skipped, **options
            )
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 ({error.reason} at byte {error.start}): save the file as CSV in UTF-8") from error
    except (ValueError, OSError, pd.errors.ParserWarning) as error:
        raise _unreadable(path, error) from error
    frame.columns = frame.columns.map(lambda name: str(name).strip() if as_text else str(name))
    if as_text:
        named = Counter(name.strip() for name in header if name.strip())
        if twice := [name for name, count in named.items() if count > 1]:
            raise ValueError(f"{listing(twice)} names more than one column: give each a name of its own")
        frame = frame.apply(lambda column: column.str.strip())
        frame = frame[(frame != "").any(axis=1)]
    if len(frame) == 0:
        raise ValueError("the table has no rows: give at least one below the header")
    return frame


def _first_line(path: Path) -> tuple[list[str], str, int]:
    """Fields of the header, the separator, and how many lines stand before the header."""
    skipped, separator = 0, None
    with path.open(encoding="utf-8-sig", newline="") as file:
        for line in file:
            if re.fullmatch(r"sep=.\s*", line):  # written by spreadsheets for spreadsheets
                separator = line[4]
            elif line.strip():
                break
            skipped += 1
        else:
            line = ""
    fields = {sign: next(csv.reader([line], delimiter=sign), []) for sign in _SEPARATORS}
    if separator is None:
        # in a .tsv, names may hold commas
        is_tsv = path.suffix.lower() == ".tsv" and "\t" in line
        separator = "\t" if is_tsv else max(_SEPARATORS, key=lambda sign: len(fields[sign]))
    return fields.get(separator, []), separator, skipped


def read_frame(path: Path) -> pd.DataFrame:
    """A table of delimited text, see :func:`read_delimited`, or a Parquet file; no column may be nameless."""
    import pandas as pd

    if path.suffix.lower() == ".parquet":
        try:
            frame = pd.read_parquet(path)
        except (ValueError, OSError) as error:
            raise _unreadable(path, error) from error
        frame.columns = frame.columns.map(str)
        if len(frame) == 0:
            raise ValueError("the table has no rows: give at least one below the header")
    else:
        frame = read_delimited(path)
    if nameless := [i for i, name in enumerate(frame.columns) if not name.strip() or name.startswith("Unnamed: ")]:
        raise ValueError(
            f"column {nameless[0]} (counted from 0) has no name, as a row index written by pandas has none: "
            "remove the column (to_csv(index=False)) or name it; a row index can give the label away"
        )
    return frame


def find_label_column(columns: list[str], label_column: str | None) -> str | None:
    """The label column: the one asked for, or the only one called like a label (any case), or ``None``."""
    if label_column is not None:
        return label_column if label_column in columns else None
    usual = called_like(columns, LABEL_COLUMNS)
    if len(usual) > 1:
        raise ValueError(f"several columns could be the label ({listing(usual)}): choose one with label_column")
    return usual[0] if usual else None


def numeric_columns(frame: pd.DataFrame) -> Tensor:
    """All columns as ``[N, F]`` float32; booleans become 0 and 1, missing values NaN. Others are an error."""
    from pandas.api.types import is_bool_dtype, is_complex_dtype, is_numeric_dtype

    def is_number(column: Any) -> bool:
        return (is_numeric_dtype(column) or is_bool_dtype(column)) and not is_complex_dtype(column)

    if other := [name for name in frame.columns if not is_number(frame[name])]:
        first = str(frame[other[0]].iloc[0])
        raise ValueError(
            f"columns that are not numbers: {listing(other)} (the first begins with {first!r}): "
            "remove them, or encode them as numbers (pandas.get_dummies for categories; a point in decimal numbers)"
        )
    with np.errstate(over="ignore"):  # what overflows float32 becomes inf, which check_finite reports by name
        values = frame.to_numpy(dtype=np.float64, na_value=np.nan).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(values))


def load_table(path: Path, label_column: str | None = None) -> Dataset:
    """A table file with a label column and otherwise only numbers."""
    frame = read_frame(path)
    columns = list(frame.columns)
    label = find_label_column(columns, label_column)
    if label is None:
        wanted = f"no column {label_column!r}" if label_column is not None else "no column is called like a label"
        raise ValueError(f"{wanted}: choose one of {listing(columns)} with label_column")
    features = frame.drop(columns=label)
    if features.shape[1] == 0:
        raise ValueError(f"the label {label!r} is the only column: add at least one feature column")
    labels, class_names = encode_labels(np.asarray(frame[label]), frame[label].isna().to_numpy(bool))
    names = tuple(features.columns)
    return Dataset(path.stem, numeric_columns(features), labels, class_names, "table", names)
