"""Tables for training, from a file or a frame, and rows of new data that are read as training was."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from ncmi.data.columns import PART_WORDS
from ncmi.data.tables.columns import column_named, dates_or_numbers, parse_columns, profile_of, understand_columns
from ncmi.data.tables.dialect import Known
from ncmi.data.tables.labels import as_classes, choose_label, encode_texts, give_aways, label_texts
from ncmi.data.tables.reading import RawTable, raw_table_from_frame, read_raw_table
from ncmi.data.tables.table import LabeledTable, Rows, TableColumn, Writing
from ncmi.errors import listing, naming

if TYPE_CHECKING:
    import pandas as pd

    from ncmi.recipes.data import TableData


@dataclass(frozen=True, eq=False)
class NewRows:
    """Rows of new data, such as to predict.

    Attributes:
        rows: features as in training, ids and numbers.
        labels: ``[N]`` of each row its label as text, None where it has none; None without the label's column. Of the
            classes of training the names of training, others as they are written.
        groups: ``[N]`` of text; None without a group column.
        notes: a line each of what could not be read as in training, with counts.
    """

    rows: Rows
    labels: tuple[str | None, ...] | None = None
    groups: npt.NDArray[Any] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)


def load_table(
    path: Path, data: TableData, *, test: Path | None = None, validation: Path | None = None
) -> LabeledTable:
    """A table file: columns told by kind, the label chosen, test and validation files of the same columns appended.

    Args:
        data: what is told of it.
        test, validation: files of these parts, as ``data.test`` and ``data.validation`` name them.

    Raises:
        ValueError: for what cannot be read or told; the message names the file and the option that decides.
    """
    with naming(path):
        raw = read_raw_table(path, data)
        # Path("a.csv.gz").stem still has an ending
        table = _understand(raw, data, re.sub(r"\.(gz|zip|xz|bz2)$", "", path.name, flags=re.IGNORECASE))
    table = dataclasses.replace(table, name=Path(table.name).stem)
    for part, file in ((2, test), (1, validation)):
        if file is not None:
            with naming(file):
                table = _append(table, file, part, data)
    return table


def table_from_frame(frame: Any, data: TableData) -> LabeledTable:
    """A pandas or polars frame as a table, without its index.

    Raises:
        ValueError: as :func:`load_table`.
    """
    return _understand(raw_table_from_frame(frame), data, data.title)


def features_of_frame(frame: Any, data: TableData) -> tuple[tuple[TableColumn, ...], pd.DataFrame, tuple[str, ...]]:
    """How to read each column of a pandas or polars frame of features alone, and its rows read so.

    With them comes a line each of what is left out, of what could not be read, and of what could be meant otherwise.
    """
    raw = raw_table_from_frame(frame)
    names = [str(name) for name in raw.frame.columns]
    profiles = {name: profile_of(raw.frame[name], data.missing) for name in names}
    columns, notes = understand_columns(raw, names, profiles, data)
    parsed, parse_notes = parse_columns(raw, columns, data.missing)
    return columns, parsed, (*notes, *_new_notes(parse_notes, notes))


def read_rows(
    path: Path | Any,
    columns: Sequence[TableColumn],
    data: TableData,
    *,
    label_column: str,
    class_names: Sequence[str] | None = None,
    writing: Writing | None = None,
) -> NewRows:
    """Rows of a file or a frame, with the columns of training in any order; other columns are ignored.

    What a row holds does not depend on the other rows: separator, decimal sign, dates and words are those of training.

    Args:
        path: of a file; or a pandas or polars frame, whose index is looked into only for columns that it lacks.
        columns, label_column: of the table of training.
        data: what was told of that table.
        class_names: of training, by which labels are recognized.
        writing: of the text file of training.

    Raises:
        ValueError: for columns that are missing, files that cannot be read, and another decimal sign than in training.
    """
    roles = [name for name in (data.id_column, data.group_column) if name and not re.fullmatch(r"[-+]?\d+", name)]
    known = Known((*(column.name for column in columns), label_column, *roles), writing)
    if isinstance(path, Path):
        with naming(path):
            return _new_rows(read_raw_table(path, data, known), known, columns, data, label_column, class_names)
    return _new_rows(raw_table_from_frame(path, known, known.names), known, columns, data, label_column, class_names)


def _understand(raw: RawTable, data: TableData, name: str) -> LabeledTable:
    everything = [str(column) for column in raw.frame.columns]
    if len(everything) < 2:
        raise ValueError(
            f"only one column ({listing(everything)}): a table needs features and a label; is the separator right "
            "(--data.separator)?"
        )
    roles = {
        role: column_named(asked, everything, f"--data.{role}-column")
        for role, asked in (
            ("id", data.id_column),
            ("group", data.group_column),
            ("split", data.split_column),
            ("time", data.time_column),
        )
        if asked is not None
    }
    dropped = [column_named(column, everything, "--data.drop") for column in data.drop]
    asked_label = (
        None if data.label_column is None else column_named(data.label_column, everything, "--data.label-column")
    )
    for role, column in (*roles.items(), *(("drop", column) for column in dropped)):
        if column == asked_label:
            raise ValueError(f"column {column!r} is the label and the {role} column: name another")
    free = [column for column in everything if column not in dropped and column not in roles.values()]
    profiles = {column: profile_of(raw.frame[column], data.missing) for column in free}
    if not free:
        raise ValueError("no column is left for features and label: drop fewer (--data.drop)")
    choice = choose_label(
        profiles, has_header=raw.has_header, asked=asked_label, last_is_class=bool(raw.categorical) and raw.nominal_last
    )
    # one column may have two roles, such as a patient's number
    told = dict.fromkeys(roles[role] for role in ("id", "group", "split") if role in roles)
    texts = raw.texts(choice.name, *told)
    label_of_rows = label_texts(texts[choice.name], data.missing)
    usable, left_out, label_notes = _labeled(label_of_rows, choice.name, raw.numbers, data)
    labels = encode_texts([label_of_rows[i] for i in usable.tolist()])
    features = [column for column in free if column != choice.name]
    if not features:
        raise ValueError(f"the label {choice.name!r} is the only column: add at least one feature column")
    columns, notes = understand_columns(raw, features, profiles, data)
    if not columns:
        raise ValueError(f"no feature column is left: {'; '.join(notes)}")
    frame, parse_notes = parse_columns(raw, columns, data.missing)
    frame, texts = _rows(frame, usable), _rows(texts, usable)
    also = f" (also possible: {listing(choice.others, 8)}; otherwise say --data.label-column)" if choice.others else ""
    label_note = f"label {choice.name!r}, since {choice.reason}{also}"
    repeats = give_aways(frame, profiles, labels.indices, [column.name for column in columns])
    repeat_notes = (
        [
            f"{listing(repeats)} gives the label away: each value occurs with one class only; "
            "leave it out with --data.drop"
        ]
        if repeats
        else []
    )
    parts = _parts(texts[roles["split"]], roles["split"]) if "split" in roles else None
    times = None
    if "time" in roles:
        times = _rows_of(dates_or_numbers(raw.frame[roles["time"]], roles["time"]), usable)
    return LabeledTable(
        name=name,
        label_column=choice.name,
        rows=Rows(frame, raw.numbers[usable], _ids(texts, roles.get("id"))),
        columns=columns,
        labels=labels.indices,
        class_names=labels.class_names,
        groups=_groups(texts, roles.get("group"), raw.numbers[usable]),
        times=times,
        parts=parts,
        left_out=left_out,
        notes=(
            *raw.notes,
            label_note,
            *label_notes,
            *labels.notes,
            *notes,
            *_new_notes(parse_notes, notes),
            *repeat_notes,
        ),
        writing=raw.writing,
    )


def _new_notes(notes: Sequence[str], known: Sequence[str]) -> list[str]:
    """Of values that could not be read, those columns that no other note speaks of."""
    names = [match[1] for note in known if (match := re.match(r"\d+ values of ('.*?') are", note))]
    return [note for note in notes if not any(f"values of {name} are" in note for name in names)]


def _rows(frame: pd.DataFrame, usable: npt.NDArray[np.int64]) -> pd.DataFrame:
    return frame if len(usable) == len(frame) else frame.iloc[usable].reset_index(drop=True)


def _rows_of(values: npt.NDArray[Any], usable: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    return values[usable]


def _labeled(
    texts: Sequence[str | None], column: str, numbers: npt.NDArray[np.int64], data: TableData
) -> tuple[npt.NDArray[np.int64], tuple[tuple[str, str], ...], list[str]]:
    """Rows that have a label; those that have none are an error, or left out."""
    absent = [i for i, text in enumerate(texts) if text is None]
    usable = np.array([i for i, text in enumerate(texts) if text is not None], np.int64)
    if not absent:
        return usable, (), []
    if data.bad != "skip":
        raise ValueError(
            f"{len(absent)} of {len(texts)} rows have no label in column {column!r}, the first of them row "
            f"{numbers[absent[0]]} (counted from 0): label them, or leave them out with --data.bad skip (where NA or "
            "the like is a class, give it another name)"
        )
    return (
        usable,
        tuple((str(numbers[i]), "no label") for i in absent),
        [f"{len(absent)} rows without a label are left out"],
    )


def _ids(texts: pd.DataFrame, column: str | None) -> tuple[str, ...] | None:
    return None if column is None else tuple(map(str, texts[column]))


def _groups(texts: pd.DataFrame, column: str | None, numbers: npt.NDArray[np.int64]) -> npt.NDArray[Any] | None:
    """What each row belongs to; a row that says nothing is refused, since it could belong to any."""
    if column is None:
        return None
    groups = np.array([str(text) for text in texts[column]], dtype=object)
    if (empty := groups == "").any():
        raise ValueError(
            f"{int(empty.sum())} rows have no group in column {column!r}, the first of them row "
            f"{numbers[empty.argmax()]} (counted from 0): fill in"
        )
    return groups


def _parts(texts: pd.Series[Any], column: str) -> npt.NDArray[np.int8]:
    import pandas as pd

    codes, uniques = pd.factorize(texts)
    keys = [re.sub(r"[\s\-]+", "_", str(text).strip().lower()) for text in uniques]
    if unknown := [str(text) for text, key in zip(uniques, keys, strict=True) if key and key not in PART_WORDS]:
        raise ValueError(
            f"column {column!r} (--data.split-column) says {listing(unknown, 6)}: expected train, validation or test"
        )
    parts = np.array([PART_WORDS.get(key, -1) for key in keys], np.int8)[codes]
    for part, what in ((0, "train"), (2, "test")):
        if not (parts == part).any():
            raise ValueError(
                f"column {column!r} (--data.split-column) says {what} of no row: expected train, validation or test"
            )
    return parts


def _append(table: LabeledTable, file: Path, part: int, data: TableData) -> LabeledTable:
    """A table with the rows of another file as one of its parts."""
    import pandas as pd

    extra = read_rows(
        file,
        table.columns,
        data,
        label_column=table.label_column,
        class_names=table.class_names,
        writing=table.writing,
    )
    if extra.labels is None:
        raise ValueError(
            f"no label column {table.label_column!r}, which {table.name!r} has: give a file with the same columns"
        )
    usable, left_out, notes = _labeled(extra.labels, table.label_column, extra.rows.numbers, data)
    labels = encode_texts([extra.labels[i] for i in usable.tolist()], table.class_names)
    frame = pd.concat([table.rows.frame, _rows(extra.rows.frame, usable)], ignore_index=True)
    repeats = repeated_rows(frame, np.arange(len(table), len(frame)), np.arange(len(table)))
    if repeats >= 0.1 * len(usable) and repeats:
        notes.append(f"{repeats} of {len(usable)} rows have the features of a row of another file of this data")
    ids = None
    if table.rows.ids is not None and extra.rows.ids is not None:
        ids = table.rows.ids + tuple(extra.rows.ids[i] for i in usable.tolist())
    groups = None
    if table.groups is not None:
        if extra.groups is None:
            raise ValueError("no group column, which the table of training has: give a file with the same columns")
        groups = np.concatenate([table.groups, extra.groups[usable]])
    parts = table.parts if table.parts is not None else np.zeros(len(table), np.int8)
    return dataclasses.replace(
        table,
        rows=Rows(frame, np.concatenate([table.rows.numbers, extra.rows.numbers[usable]]), ids),
        labels=torch.cat([table.labels, labels.indices]),
        groups=groups,
        parts=np.concatenate([parts, np.full(len(usable), part, np.int8)]),
        left_out=table.left_out + tuple((f"{file.name}: {name}", reason) for name, reason in left_out),
        notes=(*table.notes, *(f"{file.name}: {note}" for note in (*notes, *labels.notes, *extra.notes))),
    )


def repeated_rows(frame: pd.DataFrame, rows: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> int:
    """How many of some rows of a frame are like one of the others in all columns."""
    from pandas.util import hash_pandas_object

    hashes = hash_pandas_object(frame, index=False).to_numpy()
    return int(np.isin(hashes[rows], hashes[others]).sum())


def _new_rows(
    raw: RawTable,
    known: Known,
    columns: Sequence[TableColumn],
    data: TableData,
    label_column: str,
    class_names: Sequence[str] | None,
) -> NewRows:
    wanted = [column.name for column in columns]
    names = [str(name) for name in raw.frame.columns]
    positions = _positions(raw, wanted, label_column, class_names)
    source = {name: names[position] for name, position in positions.items()}
    if missing := [name for name in wanted if name not in source]:
        without = "" if raw.has_header else " (its first line is taken as a row: name the columns there)"
        raise ValueError(
            f"columns missing that the network was trained on: {listing(missing)}; there is {listing(names)}{without}"
        )
    frame, notes = parse_columns(raw, columns, data.missing, source=source, known=known)
    notes = (*raw.notes, *notes)
    asked = {"label": source.get(label_column)}
    for role, name in (("id", data.id_column), ("group", data.group_column)):
        asked[role] = _column_or_none(name, names)
    if data.id_column is not None and asked["id"] is None:
        notes = (*notes, f"no id column {data.id_column!r}: rows are called by their numbers")
    texts = raw.texts(*dict.fromkeys(name for name in asked.values() if name is not None))
    labels = None
    if asked["label"] is not None:
        label_of_rows = label_texts(texts[asked["label"]], data.missing)
        labels = tuple(as_classes(label_of_rows, class_names)) if class_names is not None else tuple(label_of_rows)
    groups = None
    if asked["group"] is not None:
        groups = np.array([str(text) for text in texts[asked["group"]]], dtype=object)
    return NewRows(Rows(frame, raw.numbers, _ids(texts, asked["id"])), labels, groups, notes)


def _column_or_none(name: str | None, names: Sequence[str]) -> str | None:
    if name is None:
        return None
    try:
        return column_named(name, names, "")
    except ValueError:
        return None


def _positions(
    raw: RawTable, wanted: Sequence[str], label_column: str, class_names: Sequence[str] | None
) -> dict[str, int]:
    """Where the columns of training stand: by name; in a file without header by number, with or without the label."""
    names = [str(name) for name in raw.frame.columns]
    by_name = {name: names.index(name) for name in (*wanted, label_column) if name in names}
    numbered = [re.fullmatch(r"column_(\d+)", name) for name in (*wanted, label_column)]
    if raw.has_header or not all(numbered):
        return by_name
    label = int(label_column.removeprefix("column_"))
    last = max(int(name.removeprefix("column_")) for name in (*wanted, label_column))
    has_label = label <= len(names)
    if has_label and class_names is not None:
        texts = as_classes(label_texts(raw.texts(names[label - 1]).iloc[:, 0]), class_names)
        has_label = sum(text is None or text in class_names for text in texts) >= 0.5 * len(texts)
    if has_label or len(names) >= last + 1:
        return by_name
    # the label is missing: what stood after it stands one to the left
    by_name.pop(label_column, None)
    for name in wanted:
        number = int(name.removeprefix("column_"))
        position = number - 1 - (number > label)
        if position < len(names):
            by_name[name] = position
    return by_name
