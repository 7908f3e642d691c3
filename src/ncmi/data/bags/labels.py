"""The table of slides: which patient each is of, its label, and what else the table says of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ncmi.data.columns import PATIENT_COLUMNS, SLIDE_COLUMNS, SLIDE_LABEL_COLUMNS, called_like
from ncmi.data.tables.reading import read_text_table
from ncmi.errors import listing

if TYPE_CHECKING:
    import pandas as pd

_FILE_ENDING = re.compile(
    r"\.(svs|tiff?|ndpi|mrxs|scn|vms|vmu|bif|svslide|dcm|czi|isyntax|zarr|png|jpe?g|h5|hdf5|pt|pth|npz)$", re.IGNORECASE
)


class LabelError(ValueError):
    """A table of slides cannot be used; the message names the file, the reason and the cure."""


@dataclass(frozen=True, eq=False)
class LabelTable:
    """One row a slide, in the order of the file.

    Attributes:
        path: of the file.
        slides: names without folder and file ending.
        patients: of each slide; the slide itself where the table has no such column.
        labels: of each slide, None where the field is empty; all None where the table has no such column.
        values: the other columns by name, as text.
        notes: what a user should know of how the table was read.
    """

    path: Path
    slides: tuple[str, ...]
    patients: tuple[str, ...]
    labels: tuple[str | None, ...]
    values: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()


def slide_name(text: str) -> str:
    """A slide's name as in a table or of a file: without spaces around, folder and file ending.

    Example:
        >>> slide_name(" scans/tumor_001.tif"), slide_name("TCGA-AD-6964-01Z-00-DX1")
        ('tumor_001', 'TCGA-AD-6964-01Z-00-DX1')
    """
    return _FILE_ENDING.sub("", re.split(r"[/\\]", text.strip())[-1]).strip()


def read_label_table(
    path: str | Path,
    *,
    slide_column: str | None = None,
    patient_column: str | None = None,
    label_column: str | None = None,
    need_labels: bool = True,
) -> LabelTable:
    """Read a CSV of slides (also with semicolons or tabs; UTF-8, with or without byte-order mark).

    Args:
        slide_column, patient_column, label_column: names of columns; by default guessed by their usual names.
        need_labels: whether a table without a column of labels is refused.

    Raises:
        ValueError: for a file that cannot be read, a column that is missing or cannot be guessed, a row without a
            slide or patient, a slide that stands there twice and differs.
    """
    path = Path(path)
    frame = read_text_frame(path)
    # a row index that pandas wrote
    frame = frame.drop(columns=[name for name in frame.columns if not name or name.startswith("Unnamed: ")])
    columns = [str(name) for name in frame.columns]
    slide = str(_choose_column(path, columns, slide_column, SLIDE_COLUMNS, "slide"))
    patient = _choose_column(path, columns, patient_column, PATIENT_COLUMNS, "patient", needed=False)
    label = _choose_column(path, columns, label_column, SLIDE_LABEL_COLUMNS, "label", needed=need_labels)
    listed = len(frame)
    frame = _without_repeats(path, frame, slide)
    names = [slide_name(text) for text in frame[slide]]
    patients = list(frame[patient]) if patient is not None else names
    for what, column, texts in (("slide", slide, names), ("patient", patient, patients)):
        if empty := [line for line, text in zip(frame.index + 2, texts, strict=True) if not text]:
            where = f"line {empty[0]} has no {what} in column {column!r}"
            raise LabelError(f"{path}: {where} ({len(empty)} such lines): fill in")
    notes: tuple[str, ...] = ()
    if patient is None:
        notes = ("no column of patients: each slide counts as a patient of its own",)
    if len(frame) < listed:
        notes += (f"{listed - len(frame)} rows that say of a slide what another row says are counted once",)
    return LabelTable(
        path=path,
        slides=tuple(names),
        patients=tuple(patients),
        labels=tuple(_labels(list(frame[label]))) if label is not None else (None,) * len(frame),
        values={name: tuple(frame[name]) for name in columns if name not in (slide, patient, label)},
        notes=notes,
    )


def read_text_frame(path: Path) -> pd.DataFrame:
    """All fields of a table of delimited text with a header, see :func:`ncmi.data.tables.reading.read_text_table`."""
    try:
        return read_text_table(path)
    except ValueError as error:
        raise LabelError(f"{path}: {error}") from error


def _choose_column(
    path: Path, columns: Sequence[str], asked: str | None, usual: Sequence[str], what: str, *, needed: bool = True
) -> str | None:
    """The column asked for, or the only one with a usual name; None where there is none and none is needed."""
    option = f"--data.{what}-column"
    if asked is not None:
        if asked not in columns:
            raise LabelError(f"{path}: no column {asked!r} ({option}); there is {listing(columns)}: choose one")
        return asked
    names = called_like(columns, usual)
    if len(names) == 1 or (not names and not needed):
        return names[0] if names else None
    which = f"several columns could be the {what} ({listing(names)})" if names else f"no column is called like a {what}"
    raise LabelError(f"{path}: {which}; there is {listing(columns)}: choose one ({option})")


def _without_repeats(path: Path, frame: pd.DataFrame, slide: str) -> pd.DataFrame:
    """Rows that stand there twice are taken once; rows of one slide that differ are an error."""
    frame = frame.assign(**{slide: frame[slide].map(slide_name)}).drop_duplicates()
    names = frame[slide]
    if (again := names.duplicated() & (names != "")).any():
        repeated = str(names[again].iloc[0])
        first, second = (frame[names == repeated].iloc[row] for row in (0, 1))
        differ = [
            f"{name}: {first[name]!r} and {second[name]!r}" for name in map(str, frame) if first[name] != second[name]
        ]
        raise LabelError(
            f"{path}: slide {repeated!r} stands there more than once with different values ({'; '.join(differ)}), "
            f"{int(again.sum())} such rows in all: keep one row a slide"
        )
    return frame


def _labels(texts: list[str]) -> list[str | None]:
    """Labels as text; whole numbers that were written with a fraction (1.0) without it; None where empty."""
    labels = [text if text.lower() != "nan" else "" for text in texts]
    if all(re.fullmatch(r"[+-]?\d+(\.0*)?", text) for text in labels if text):
        labels = [text and str(int(float(text))) for text in labels]
    return [text or None for text in labels]
