"""The table of slides: which patient each is of, its label, and what else the table says of it."""

from __future__ import annotations

import csv
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ncmi.data.dataset import listing

if TYPE_CHECKING:
    import pandas as pd

SLIDE_COLUMNS = (
    *("slide", "slide_id", "slide_name", "slideid", "slides", "filename", "file_name", "file", "image", "image_id"),
    *("image_name", "wsi", "wsi_id", "wsi_name", "wsi_filename"),
)
PATIENT_COLUMNS = ("patient", "patient_id", "patientid", "case", "case_id", "caseid", "subject", "subject_id")
LABEL_COLUMNS = ("label", "labels", "class", "target", "targets", "y", "diagnosis", "slide_label", "wsi_label")
_FILE_ENDING = re.compile(
    r"\.(svs|tiff?|ndpi|mrxs|scn|vms|vmu|bif|svslide|dcm|czi|isyntax|zarr|png|jpe?g|h5|hdf5|pt|pth|npz)$", re.IGNORECASE
)


class LabelError(ValueError):
    """A table of slides cannot be used; the message names the file, the reason and the cure."""


@dataclass(frozen=True, eq=False)
class SlideTable:
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


def read_slide_table(
    path: str | Path,
    *,
    slide_column: str | None = None,
    patient_column: str | None = None,
    label_column: str | None = None,
    need_labels: bool = True,
) -> SlideTable:
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
    slide = choose_column(path, columns, slide_column, SLIDE_COLUMNS, "slide")
    patient = choose_column(path, columns, patient_column, PATIENT_COLUMNS, "patient", needed=False)
    label = choose_column(path, columns, label_column, LABEL_COLUMNS, "label", needed=need_labels)
    if slide is None:
        raise AssertionError("a needed column is chosen or refused")
    listed = len(frame)
    frame = _without_repeats(path, frame, slide)
    rows = range(len(frame))
    names = [slide_name(text) for text in frame[slide]]
    patients = list(frame[patient]) if patient is not None else names
    for what, column, texts in (("slide", slide, names), ("patient", patient, patients)):
        if empty := [row for row in rows if not texts[row]]:
            row = int(frame.index[empty[0]]) + 2
            raise LabelError(
                f"{path}: line {row} has no {what} in column {column!r} ({len(empty)} such lines): fill in"
            )
    notes: tuple[str, ...] = (
        () if patient is not None else ("no column of patients: each slide counts as a patient of its own",)
    )
    if len(frame) < listed:
        notes += (f"{listed - len(frame)} rows that say of a slide what another row says are counted once",)
    return SlideTable(
        path=path,
        slides=tuple(names),
        patients=tuple(patients),
        labels=tuple(_labels(list(frame[label]))) if label is not None else (None,) * len(frame),
        values={name: tuple(frame[name]) for name in columns if name not in (slide, patient, label)},
        notes=notes,
    )


def read_text_frame(path: Path) -> pd.DataFrame:
    """All fields of a CSV as text without spaces around; an empty field is empty text.

    Raises:
        ValueError: for a file that cannot be read, or without rows.
    """
    import pandas as pd

    if not path.is_file():
        told = "a folder, not a table: give a CSV" if path.is_dir() else "no such file: check the path"
        raise LabelError(f"{path}: {told}")
    try:
        with path.open("rb") as opened:
            if opened.read(4) == b"PK\x03\x04":
                raise LabelError(f"{path}: a spreadsheet: save the table as CSV in UTF-8")
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
            # written by spreadsheets for spreadsheets
            skipped = 1 if re.fullmatch(r"sep=.\s*", header) else 0
            header = file.readline() if skipped else header
        separator = max(",;\t", key=header.count)
        with warnings.catch_warnings():
            # pandas only warns when it drops fields beyond the header
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path,
                sep=separator,
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
                index_col=False,
                skiprows=skipped,
            )
        named = [name.strip() for name in next(csv.reader([header], delimiter=separator), []) if name.strip()]
    except LabelError:
        raise
    except UnicodeDecodeError as error:
        raise LabelError(f"{path}: not UTF-8 (byte {error.start}): save the table as CSV in UTF-8") from error
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        reason = " ".join(str(error).split())
        raise LabelError(f"{path}: not a readable CSV ({reason}): give one with a header and a row a slide") from error
    if twice := [name for name, count in Counter(named).items() if count > 1]:
        raise LabelError(f"{path}: {listing(twice)} names more than one column: give each a name of its own")
    frame = frame[(frame.map(str.strip) != "").any(axis=1)]
    if len(frame) == 0:
        raise LabelError(f"{path}: no rows: give a header and one row a slide")
    frame.columns = frame.columns.map(lambda name: str(name).strip())
    stripped: pd.DataFrame = frame.apply(lambda column: column.str.strip())
    return stripped


def choose_column(
    path: Path, columns: Sequence[str], asked: str | None, usual: Sequence[str], what: str, *, needed: bool = True
) -> str | None:
    """The column asked for, or the only one with a usual name; None where there is none and none is needed.

    Raises:
        ValueError: listing the columns, for one that is not there, none that is needed, or several.
    """
    option = f"--data.{what}-column"
    if asked is not None:
        if asked not in columns:
            raise LabelError(f"{path}: no column {asked!r} ({option}); there is {listing(columns)}: choose one")
        return asked
    found = [name for name in columns if re.sub(r"[ .\-]+", "_", name.lower()) in usual]
    if len(found) == 1 or (not found and not needed):
        return found[0] if found else None
    which = f"several columns could be the {what} ({listing(found)})" if found else f"no column is called like a {what}"
    raise LabelError(f"{path}: {which}; there is {listing(columns)}: choose one ({option})")


def _without_repeats(path: Path, frame: pd.DataFrame, slide: str) -> pd.DataFrame:
    """Rows that stand there twice are taken once; rows of one slide that differ are an error."""
    frame = frame.assign(**{slide: frame[slide].map(slide_name)}).drop_duplicates()
    names = frame[slide]
    if (again := names.duplicated() & (names != "")).any():
        name = str(names[again].iloc[0])
        first, second = (frame[names == name].iloc[row] for row in (0, 1))
        differ = [
            f"{column}: {first[column]!r} and {second[column]!r}"
            for column in frame.columns
            if first[column] != second[column]
        ]
        raise LabelError(
            f"{path}: slide {name!r} stands there more than once with different values ({'; '.join(differ)}), "
            f"{int(again.sum())} such rows in all: keep one row a slide"
        )
    return frame


def _labels(texts: list[str]) -> list[str | None]:
    """Labels as text; whole numbers that were written with a fraction (1.0) without it; None where empty."""
    found = [text if text.lower() != "nan" else "" for text in texts]
    if all(re.fullmatch(r"[+-]?\d+(\.0*)?", text) for text in found if text):
        found = [text and str(int(float(text))) for text in found]
    return [text or None for text in found]
