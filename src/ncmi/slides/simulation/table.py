"""The table of a simulated cohort: the real one from a CSV, or one with the same counts."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ncmi.slides.bag import BagError
from ncmi.slides.simulation.options import CohortName
from ncmi.slides.simulation.randomness import stream

CAMELYON17_CLASSES = ("negative", "itc", "micro", "macro")
BRACS_LABELS = ("N", "PB", "UDH", "FEA", "ADH", "DCIS", "IC")
"""From the mildest to the worst."""
BRACS_COARSE = {"N": "BT", "PB": "BT", "UDH": "BT", "FEA": "AT", "ADH": "AT", "DCIS": "MT", "IC": "MT"}
COLUMNS: dict[CohortName, tuple[str, ...]] = {
    "camelyon17": ("slide_id", "patient_id", "center", "label"),
    "bracs": ("slide_id", "patient_id", "split", "label_fine", "label_coarse"),
}
# slides of each class by centre, in the challenge's training set
_CENTRES = ((64, 11, 10, 15), (58, 7, 23, 12), (75, 2, 8, 15), (60, 8, 13, 19), (61, 8, 5, 26))
# slides of each label by part, in the official split
_PARTS = {"train": (27, 120, 56, 24, 28, 40, 100), "val": (10, 11, 9, 6, 8, 9, 12), "test": (7, 16, 9, 11, 12, 12, 20)}
_BRACS_SLIDES_A_PATIENT = 3


@dataclass(frozen=True)
class SlideRow:
    """One slide of a table.

    Attributes:
        name, patient: of the slide.
        label: negative, itc, micro, macro; or N, PB, UDH, FEA, ADH, DCIS, IC.
        centre: number or name; empty in BRACS.
        part: train, val or test; empty in CAMELYON-17.
    """

    name: str
    patient: str
    label: str
    centre: str = ""
    part: str = ""


def labels_of(cohort: CohortName) -> tuple[str, ...]:
    """Labels of a cohort's slides, from the mildest to the worst."""
    return CAMELYON17_CLASSES if cohort == "camelyon17" else BRACS_LABELS


def read_table(path: str | Path, cohort: CohortName) -> tuple[SlideRow, ...]:
    """Rows of a CSV with the columns that ``COLUMNS`` names; ``label_coarse`` follows from ``label_fine``.

    Raises:
        BagError: for a missing file or column, an unknown label, or a slide that occurs twice.
    """
    path = Path(path)
    if not path.is_file():
        raise BagError(f"{path}: no such table of slides; give its CSV, or none for a table with the same counts")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS[cohort] if name != "label_coarse" and name not in (reader.fieldnames or ())]
        if missing:
            raise BagError(f"{path}: no column {missing[0]!r}; a table of {cohort} has {', '.join(COLUMNS[cohort])}")
        rows = tuple(_row(record, cohort) for record in reader)
    known, seen = labels_of(cohort), set()
    for row in rows:
        if row.label not in known:
            raise BagError(f"{path}: slide {row.name} has the label {row.label!r}; known are {', '.join(known)}")
        if row.name in seen:
            raise BagError(f"{path}: slide {row.name} occurs twice; keep one row a slide")
        seen.add(row.name)
    if not rows:
        raise BagError(f"{path}: no rows; a table has one row a slide")
    return rows


def make_table(cohort: CohortName, seed: int = 0) -> tuple[SlideRow, ...]:
    """A table with the real cohort's numbers of slides by class and centre or part; who has what is drawn.

    >>> rows = make_table("camelyon17")
    >>> len(rows), len({row.patient for row in rows}), sum(row.label == "itc" for row in rows)
    (500, 100, 36)
    """
    random = stream(seed, "table", cohort)
    rows = []
    if cohort == "camelyon17":
        for centre, counts in enumerate(_CENTRES):
            labels = _repeated(CAMELYON17_CLASSES, counts)
            for index, label in enumerate(random.permutation(labels)):
                patient = f"simulated_{20 * centre + index // 5:03d}"
                rows.append(SlideRow(f"{patient}_node_{index % 5}", patient, str(label), centre=str(centre)))
        return tuple(rows)
    for part, part_counts in _PARTS.items():
        labels = _repeated(BRACS_LABELS, part_counts)
        for index, label in enumerate(random.permutation(labels)):
            patient = f"simulated_{part}_{index // _BRACS_SLIDES_A_PATIENT:03d}"
            rows.append(SlideRow(f"simulated_{part}_{index:03d}", patient, str(label), part=part))
    return tuple(rows)


def write_table(rows: Sequence[SlideRow], path: Path, cohort: CohortName) -> None:
    """Write rows as a CSV that :func:`read_table` reads, with the columns of the real table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS[cohort])
        for row in rows:
            if cohort == "camelyon17":
                writer.writerow((row.name, row.patient, row.centre, row.label))
            else:
                writer.writerow((row.name, row.patient, row.part, row.label, BRACS_COARSE[row.label]))


def _repeated(names: Sequence[str], counts: Sequence[int]) -> list[str]:
    return [name for name, count in zip(names, counts, strict=True) for _ in range(count)]


def _row(record: dict[str, str], cohort: CohortName) -> SlideRow:
    if cohort == "camelyon17":
        return SlideRow(record["slide_id"], record["patient_id"], record["label"], centre=record["center"])
    return SlideRow(record["slide_id"], record["patient_id"], record["label_fine"], part=record["split"])
