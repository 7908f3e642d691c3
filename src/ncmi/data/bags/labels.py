"""The table of slides: which patient each is of, its label, and what else the table says of it."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
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
    r"\.(svs|tiff?|qptiff|ndpi|mrxs|scn|vms|vmu|vsi|bif|svslide|dcm|czi|isyntax|zarr|png|jpe?g|h5|hdf5|h5ad|pt|"
    r"pth|npz|npy|zip)$",
    re.IGNORECASE,
)
_BARCODES = {
    "TCGA": re.compile(r"(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})(?![A-Z0-9])", re.IGNORECASE),
    "CPTAC": re.compile(r"(C3[LN]-\d{5})(?!\d)", re.IGNORECASE),
    "GTEX": re.compile(r"(GTEX-[A-Z0-9]{4,5})(?![A-Z0-9])", re.IGNORECASE),
    "CAMELYON-17": re.compile(r"(patient_\d{3})(?!\d)", re.IGNORECASE),
}
"""What names of slides begin with that say whose they are."""
_MISSING = ("na", "n/a", "#n/a", "nan", "null", "<na>", "?")
"""Labels that say that there is none."""


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
    return plain_name(_FILE_ENDING.sub("", re.split(r"[/\\]", text.strip())[-1]))


def plain_name(text: str) -> str:
    """A name in the one spelling of those that look alike, and a number as the whole one that it is.

    macOS writes "ä" as two signs; pandas writes 12 as 12.0 where a column has gaps, as CLAM's splits do.

    Example:
        >>> plain_name("12.0"), plain_name("1.50"), plain_name("a\u0308") == "\u00e4"
        ('12', '1.50', True)
    """
    return re.sub(r"^(\d+)\.0+$", r"\1", unicodedata.normalize("NFC", text.strip()))


def patients_by_name(slides: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The patient of each slide by its name, where that is a barcode, else the slide itself; and a note of it.

    >>> patients_by_name(["TCGA-AD-6964-01Z-00-DX1", "tcga-ad-6964-01z-00-dx2", "b"])[0]
    ('TCGA-AD-6964', 'TCGA-AD-6964', 'b')
    """
    patients, counts = list(slides), dict.fromkeys(_BARCODES, 0)
    for place, slide in enumerate(slides):
        for kind, barcode in _BARCODES.items():
            if match := barcode.match(slide):
                # in one spelling: of a patient in two one could stand on either side of a split
                patients[place] = match[1].lower() if kind == "CAMELYON-17" else match[1].upper()
                counts[kind] += 1
                break
    known = sum(counts.values())
    if not known:
        return tuple(slides), "each slide counts as a patient of its own"
    kinds = " and ".join(kind for kind, count in counts.items() if count)
    rest = f"; {len(slides) - known} others count as a patient each" if known < len(slides) else ""
    return tuple(patients), f"patients by the names of the slides, as of {kinds}: {len(set(patients))} patients{rest}"


def read_label_table(
    path: str | Path,
    *,
    slide_column: str | None = None,
    patient_column: str | None = None,
    label_column: str | None = None,
    classes: Sequence[str] = (),
    need_labels: bool = True,
) -> LabelTable:
    """Read a CSV of slides (also with semicolons or tabs; UTF-8, with or without byte-order mark).

    Args:
        slide_column, patient_column, label_column: names of columns; by default guessed by their usual names.
        classes: names of the classes as they were asked for: what is usual for no label, such as NA, is a class where
            it is one of them.
        need_labels: whether a table without a column of labels is refused.

    Raises:
        ValueError: for a file that cannot be read, a column that is missing or cannot be guessed, a row without a
            slide or patient, a slide that stands there twice and differs.
    """
    path = Path(path)
    frame, notes = _frame_of_rows(path)
    slide = str(_choose_column(path, frame, slide_column, SLIDE_COLUMNS, "slide"))
    patient = _choose_column(path, frame, patient_column, PATIENT_COLUMNS, "patient", needed=False)
    label = _choose_column(path, frame, label_column, SLIDE_LABEL_COLUMNS, "label", needed=need_labels)
    listed = len(frame)
    frame = _without_repeats(path, frame.assign(**{slide: frame[slide].map(slide_name)}), slide, "slide")
    names = list(frame[slide])
    if patient is None:
        patients, note = patients_by_name(names)
        notes += (f"no column of patients: {note}",)
    else:
        patients = tuple(frame[patient].map(plain_name))
        notes += _contradicted(names, patients, patient)
        _see_that_all_are_named(path, frame, patient, "patient")
    notes += _repeats_in_words(listed - len(frame), "slide")
    labels, of_labels = _labels_in(frame, label, classes)
    return LabelTable(
        path=path,
        slides=tuple(names),
        patients=patients,
        labels=labels,
        values={name: tuple(frame[name]) for name in map(str, frame.columns) if name not in (slide, patient, label)},
        notes=notes + of_labels,
    )


def has_slides(
    path: str | Path, slide_column: str | None, patient_column: str | None, slide_table: str | None = None
) -> bool:
    """Whether a table has a row a slide; else it has a row a patient: a column of patients and none of slides.

    With a table of slides, ``slide_column`` may be one of that.
    """
    columns = [str(name) for name in _frame_of_rows(Path(path))[0].columns]
    of_patients = patient_column in columns or bool(called_like(columns, PATIENT_COLUMNS))
    if slide_column is not None:
        return slide_column in columns or slide_table is None
    return bool(called_like(columns, SLIDE_COLUMNS)) or not of_patients


def read_patient_table(
    path: str | Path,
    *,
    patient_column: str | None = None,
    label_column: str | None = None,
    classes: Sequence[str] = (),
    need_labels: bool = True,
) -> LabelTable:
    """Read a table of one row a patient, whose slides are called like the patients.

    Args, errors: as of :func:`read_label_table`.
    """
    path = Path(path)
    frame, notes = _frame_of_rows(path)
    patient = str(_choose_column(path, frame, patient_column, PATIENT_COLUMNS, "patient"))
    label = _choose_column(path, frame, label_column, SLIDE_LABEL_COLUMNS, "label", needed=need_labels)
    listed = len(frame)
    frame = _without_repeats(path, frame.assign(**{patient: frame[patient].map(plain_name)}), patient, "patient")
    patients = tuple(frame[patient])
    labels, of_labels = _labels_in(frame, label, classes)
    return LabelTable(
        path=path,
        slides=patients,
        patients=patients,
        labels=labels,
        values={name: tuple(frame[name]) for name in map(str, frame.columns) if name not in (patient, label)},
        notes=notes + _repeats_in_words(listed - len(frame), "patient") + of_labels,
    )


def read_slide_table(
    path: str | Path, *, slide_column: str | None = None, patient_column: str | None = None
) -> dict[str, str]:
    """The patient of each slide, by a table that has a column of slides and one of patients.

    Args:
        slide_column, patient_column: their names; by default, and where there is none of them, guessed by usual names.

    Raises:
        LabelError: for a table without these, without a name in a row, or that says two patients of a slide.
    """
    path = Path(path)
    frame, _ = _frame_of_rows(path)
    columns = {}
    wanted = (("slide", slide_column, SLIDE_COLUMNS), ("patient", patient_column, PATIENT_COLUMNS))
    for what, asked, usual in wanted:
        names = [asked] if asked is not None and asked in frame.columns else called_like(map(str, frame.columns), usual)
        if len(names) != 1:
            which = f"several columns could be the {what} ({listing(names)})" if names else f"no column of {what}s"
            raise LabelError(
                f"{path}: {which}, there is {listing([str(name) for name in frame.columns])}: call one {what}"
            )
        columns[what] = names[0]
    pairs = frame[[columns["slide"], columns["patient"]]].set_axis(["slide", "patient"], axis=1)
    pairs = pairs.assign(slide=pairs["slide"].map(slide_name), patient=pairs["patient"].map(plain_name))
    pairs = _without_repeats(path, pairs, "slide", "slide")
    _see_that_all_are_named(path, pairs, "patient", "patient")
    return dict(zip(pairs["slide"], pairs["patient"], strict=True))


def _frame_of_rows(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    frame, notes = _text_table(path)
    # a row index that pandas wrote
    frame = frame.drop(columns=[name for name in frame.columns if not name or name.startswith("Unnamed: ")])
    return frame, tuple(f"{path.name}: {note}" for note in notes)


def _see_that_all_are_named(path: Path, frame: pd.DataFrame, column: str, what: str) -> None:
    if empty := [line for line, text in zip(frame.index + 2, frame[column], strict=True) if not text]:
        where = f"line {empty[0]} has no {what} in column {column!r}"
        raise LabelError(f"{path}: {where} ({len(empty)} such lines): fill in")


def _contradicted(slides: Sequence[str], patients: Sequence[str], column: str) -> tuple[str, ...]:
    """A note where slides are of one patient by their barcodes, and of several by the table."""
    by_name: dict[str, set[str]] = {}
    for slide, whose, patient in zip(slides, patients_by_name(slides)[0], patients, strict=True):
        if whose != slide:
            by_name.setdefault(whose, set()).add(patient)
    wrong = sorted(whose for whose, of_table in by_name.items() if len(of_table) > 1)
    if not wrong:
        return ()
    return (
        f"by their names slides are of {len(wrong)} patients ({listing(wrong, 3)}) who are several each by column "
        f"{column!r}, and may stand on two sides of a split: correct it, or leave the column out",
    )


def _repeats_in_words(count: int, what: str) -> tuple[str, ...]:
    return (f"{count} rows that say of a {what} what another row says are counted once",) if count else ()


def _labels_in(
    frame: pd.DataFrame, column: str | None, classes: Sequence[str]
) -> tuple[tuple[str | None, ...], tuple[str, ...]]:
    if column is None:
        return (None,) * len(frame), ()
    labels, notes = _labels(list(frame[column]), classes)
    return tuple(labels), notes


def read_text_frame(path: Path) -> pd.DataFrame:
    """All fields of a table of delimited text with a header, see :func:`ncmi.data.tables.reading.read_text_table`."""
    return _text_table(path)[0]


def _text_table(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    try:
        return read_text_table(path)
    except ValueError as error:
        raise LabelError(f"{path}: {error}") from error


def _choose_column(
    path: Path, frame: pd.DataFrame, asked: str | None, usual: Sequence[str], what: str, *, needed: bool = True
) -> str | None:
    """The column asked for, or the only one with a usual name; None where there is none and none is needed.

    Several columns that hold the same in every row are one.
    """
    option, columns = f"--data.{what}-column", [str(name) for name in frame.columns]
    if asked is not None:
        if asked not in columns:
            raise LabelError(f"{path}: no column {asked!r} ({option}); there is {listing(columns)}: choose one")
        return asked
    names = called_like(columns, usual)
    if len(names) > 1 and all((frame[name] == frame[names[0]]).all() for name in names[1:]):
        names = names[:1]
    if len(names) == 1 or (not names and not needed):
        return names[0] if names else None
    which = f"several columns could be the {what} ({listing(names)})" if names else f"no column is called like a {what}"
    raise LabelError(f"{path}: {which}; there is {listing(columns)}: choose one ({option})")


def _without_repeats(path: Path, frame: pd.DataFrame, column: str, what: str) -> pd.DataFrame:
    """Rows that stand there twice are taken once; rows of one slide or patient that differ are an error."""
    frame = frame.drop_duplicates()
    _see_that_all_are_named(path, frame, column, what)
    names = frame[column]
    if (again := names.duplicated()).any():
        repeated = str(names[again].iloc[0])
        first, second = (frame[names == repeated].iloc[row] for row in (0, 1))
        differ = [
            f"{name}: {first[name]!r} and {second[name]!r}" for name in map(str, frame) if first[name] != second[name]
        ]
        cure = "" if what == "slide" else ", or say which column holds slides (--data.slide-column)"
        raise LabelError(
            f"{path}: {what} {repeated!r} stands there more than once with different values ({'; '.join(differ)}), "
            f"{int(again.sum())} such rows in all: keep one row a {what}{cure}"
        )
    return frame


def _labels(texts: list[str], classes: Sequence[str]) -> tuple[list[str | None], tuple[str, ...]]:
    """Labels as text, None where there is none; and what was understood.

    Whole numbers that were written with a fraction (1.0) lose it. Names that differ in nothing but capital letters are
    one class, by the spelling that ``classes`` has, or most rows.
    """
    notes = []
    labels = [text if text in classes or text.lower() not in _MISSING else "" for text in texts]
    if marks := sorted({text for text, label in zip(texts, labels, strict=True) if text and not label}):
        count = sum(text in marks for text in texts)
        notes.append(
            f"{count} labels are {listing(marks)}, which counts as no label (--data.classes names what is one)"
        )
    if all(re.fullmatch(r"[+-]?\d+(\.0*)?", text) for text in labels if text):
        labels = [text and str(int(float(text))) for text in labels]
    counts = Counter(label for label in labels if label)
    spelled: dict[str, str] = {name.casefold(): name for name in reversed(classes)}
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        spelled.setdefault(name.casefold(), name)
    for name in sorted(counts):
        usual = name if name in classes else spelled[name.casefold()]
        if usual != name:
            notes.append(f"label {name!r} ({counts[name]} rows) counts as {usual!r}")
            labels = [usual if label == name else label for label in labels]
    return [label or None for label in labels], tuple(notes)
