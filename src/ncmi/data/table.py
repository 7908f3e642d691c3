"""Tables with named columns: CSV, TSV and Parquet."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ncmi.data.dataset import Dataset, listing
from ncmi.data.labels import LABEL_NAMES, encode_labels

if TYPE_CHECKING:
    import pandas as pd

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")


def read_frame(path: Path) -> pd.DataFrame:
    """Read a CSV or TSV (UTF-8, with or without byte-order mark, header in the first line) or Parquet file.

    Raises:
        ValueError: for a broken file, rows longer than the header, no rows, nameless columns.
    """
    import pandas as pd

    try:
        if path.suffix.lower() == ".parquet":
            frame = pd.read_parquet(path)
        else:
            with warnings.catch_warnings():
                # pandas only warns when it drops fields beyond the header
                warnings.simplefilter("error", pd.errors.ParserWarning)
                separator = "\t" if path.suffix.lower() == ".tsv" else ","
                frame = pd.read_csv(
                    path,
                    sep=separator,
                    index_col=False,
                    low_memory=False,
                    skipinitialspace=True,
                )
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 ({error.reason} at byte {error.start}): save the file as UTF-8") from error
    except (ValueError, OSError, pd.errors.ParserWarning) as error:
        raise ValueError(
            f"not a readable {path.suffix.lower()} table ({' '.join(str(error).split())}): "
            "check that the file is complete, no column name occurs twice and every row fits the header"
        ) from error
    frame.columns = frame.columns.map(str)
    if len(frame) == 0:
        raise ValueError("the table has no rows: give at least one below the header")
    nameless = [i for i, name in enumerate(frame.columns) if not name.strip() or name.startswith("Unnamed: ")]
    if nameless:
        raise ValueError(
            f"column {nameless[0]} (counted from 0) has no name, as a row index written by pandas has none: "
            "remove the column (to_csv(index=False)) or name it; a row index can give the label away"
        )
    return frame


def find_label_column(columns: list[str], label_column: str | None) -> str | None:
    """The label column: the one asked for, or the only one called like a label (any case), or ``None``."""
    if label_column is not None:
        return label_column if label_column in columns else None
    found = [name for name in columns if name.strip().lower() in LABEL_NAMES]
    if len(found) > 1:
        raise ValueError(f"several columns could be the label ({listing(found)}): choose one with label_column")
    return found[0] if found else None


def numeric_columns(frame: pd.DataFrame) -> Tensor:
    """All columns as ``[N, F]`` float32; booleans become 0 and 1, missing values NaN.

    Raises:
        ValueError: naming the columns that are not numbers.
    """
    from pandas.api.types import is_bool_dtype, is_complex_dtype, is_numeric_dtype

    def is_number(column: Any) -> bool:
        return (is_numeric_dtype(column) or is_bool_dtype(column)) and not is_complex_dtype(column)

    other = [name for name in frame.columns if not is_number(frame[name])]
    if other:
        first = str(frame[other[0]].iloc[0])
        raise ValueError(
            f"columns that are not numbers: {listing(other)} (the first begins with {first!r}): "
            "remove them, or encode them as numbers (pandas.get_dummies for categories)"
        )
    with np.errstate(over="ignore"):  # what overflows float32 becomes inf, which check_finite reports by name
        values = frame.to_numpy(dtype=np.float64, na_value=np.nan).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(values))


def load_table(path: Path, label_column: str | None = None) -> Dataset:
    """A table file with a label column and otherwise only numbers.

    Raises:
        ValueError: for an unreadable file, no label column, columns that are not numbers, missing values.
    """
    frame = read_frame(path)
    columns = list(frame.columns)
    label = find_label_column(columns, label_column)
    if label is None:
        wanted = f"no column {label_column!r}" if label_column is not None else "no column is called like a label"
        hint = "; the fields seem to be separated by ';' or tab: save with commas" if _one_field(columns) else ""
        raise ValueError(f"{wanted}: choose one of {listing(columns)} with label_column{hint}")
    features = frame.drop(columns=label)
    if features.shape[1] == 0:
        raise ValueError(f"the label {label!r} is the only column: add at least one feature column")
    labels, class_names = encode_labels(np.asarray(frame[label]), frame[label].isna().to_numpy(bool))
    names = tuple(features.columns)
    return Dataset(path.stem, numeric_columns(features), labels, class_names, "table", names)


def _one_field(columns: list[str]) -> bool:
    return len(columns) == 1 and (";" in columns[0] or "\t" in columns[0])
