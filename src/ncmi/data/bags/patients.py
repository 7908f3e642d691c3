"""Patients of several slides: tables of patients and of their slides, one label a patient, bags joined to one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from ncmi.data.bags.bag import Bag, BagError, BagSource
from ncmi.data.bags.labels import (
    LabelError,
    LabelTable,
    patients_by_name,
    plain_name,
    read_patient_table,
    read_slide_table,
)
from ncmi.data.bags.names import match_names
from ncmi.errors import listing


def slides_of_patients(
    path: str | Path,
    bags: Sequence[str],
    *,
    slide_table: str | Path | None = None,
    slide_column: str | None = None,
    patient_column: str | None = None,
    label_column: str | None = None,
    classes: Sequence[str] = (),
    need_labels: bool = True,
) -> LabelTable:
    """A table of one row a patient as one of one row a slide: each has what its patient's row says.

    Slides are a patient's by a table of slides; without one by their names, which are barcodes or begin with the
    patient's name. A patient without slides has a row of its own, whose slide is called like the patient.

    Args:
        path: of the table of patients.
        bags: names of the bags of features.
        slide_table: table with a column of slides and one of their patients.
        slide_column, patient_column: their names in both tables; by default guessed.
        label_column, classes, need_labels: as of :func:`read_label_table`.

    Raises:
        ValueError: for tables that cannot be read, a patient with several rows that differ, or where no slide is of a
            patient of the table.
    """
    table = read_patient_table(
        path, patient_column=patient_column, label_column=label_column, classes=classes, need_labels=need_labels
    )
    rows = {patient: row for row, patient in enumerate(table.patients)}
    if slide_table is not None:
        pairs = read_slide_table(slide_table, slide_column=slide_column, patient_column=patient_column)
        by = f"by {slide_table}"
    else:
        pairs, by = _by_names(bags, rows)
    slides = [(slide, patient) for slide, patient in pairs.items() if patient in rows]
    if not slides:
        raise LabelError(
            f"{path}: one row a patient, but no slide is of one of them ({by}; patients such as "
            f"{listing(list(rows), 3)}, slides such as {listing(list(pairs or bags), 3)}): give a table of slides and "
            "their patients (--data.slide-table)"
        )
    notes = [f"one row a patient: {len(slides)} slides {by}"]
    if others := len(pairs) - len(slides):
        notes.append(f"{others} slides are of patients without a row ({path})")
    without = sorted(rows.keys() - {patient for _, patient in slides})
    slides += [(patient, patient) for patient in without]
    order = [rows[patient] for _, patient in slides]
    return LabelTable(
        path=table.path,
        slides=tuple(slide for slide, _ in slides),
        patients=tuple(patient for _, patient in slides),
        labels=tuple(table.labels[row] for row in order),
        values={name: tuple(texts[row] for row in order) for name, texts in table.values.items()},
        notes=(*table.notes, *notes),
    )


def _by_names(bags: Sequence[str], patients: Mapping[str, int]) -> tuple[dict[str, str], str]:
    """The patient of each bag whose name says it: a barcode, or the longest patient's name that it begins with."""
    by_barcode = dict(zip(bags, patients_by_name(bags)[0], strict=True))
    longest = sorted(patients, key=len, reverse=True)
    pairs = {}
    for bag, patient in by_barcode.items():
        if patient in patients:
            pairs[bag] = patient
            continue
        name = plain_name(bag)
        if begun := next((each for each in longest if name.startswith(each) and _ends_there(name, each)), None):
            pairs[bag] = begun
    return pairs, "by their names"


def _ends_there(bag: str, patient: str) -> bool:
    """Whether a name goes on behind a patient's with what is no part of it: p1_a is of p1, p10 is not."""
    return len(bag) == len(patient) or not bag[len(patient)].isalnum()


def one_label_a_patient(table: LabelTable) -> LabelTable:
    """The same table with a label that all slides of a patient share; those without one take their patient's.

    Raises:
        LabelError: for patients with slides of several labels.
    """
    labels: dict[str, dict[str, str]] = {}
    for slide, patient, label in zip(table.slides, table.patients, table.labels, strict=True):
        if label is not None:
            labels.setdefault(patient, {}).setdefault(label, slide)
    if wrong := sorted(patient for patient, known in labels.items() if len(known) > 1):
        first = ", ".join(f"{label!r} (slide {slide!r})" for label, slide in labels[wrong[0]].items())
        more = f", and {len(wrong) - 1} more patients" if len(wrong) > 1 else ""
        raise LabelError(
            f"{table.path}: patient {wrong[0]!r} has the labels {first}{more}: where the patient is the unit, give "
            "each one label, or train on slides (--data.unit slide)"
        )
    completed = tuple(
        label if label is not None else next(iter(labels.get(patient, ())), None)
        for patient, label in zip(table.patients, table.labels, strict=True)
    )
    count = sum(before is None and after is not None for before, after in zip(table.labels, completed, strict=True))
    notes = (f"{count} slides without a label take their patient's",) if count else ()
    return replace(table, labels=completed, notes=table.notes + notes)


def patients_of(
    slides: Sequence[str],
    slide_table: str | Path | None = None,
    *,
    slide_column: str | None = None,
    patient_column: str | None = None,
) -> tuple[dict[str, str], str]:
    """The patient of each slide: by a table of slides and patients, or else by names; and a note of it.

    Args:
        slides: their names.
        slide_table, slide_column, patient_column: as of :func:`slides_of_patients`.

    Raises:
        LabelError: for a table that cannot be read, or lacks one of the slides.
    """
    if slide_table is None:
        patients, note = patients_by_name(slides)
        return dict(zip(slides, patients, strict=True)), note
    pairs = read_slide_table(slide_table, slide_column=slide_column, patient_column=patient_column)
    listed = {bag: pairs[slide] for slide, bag in match_names(tuple(pairs), slides)[0].items()}
    if missing := sorted(set(slides) - listed.keys()):
        raise LabelError(f"{slide_table}: {len(missing)} slides are not in it ({listing(missing, 5)}): add them")
    return {slide: listed[slide] for slide in slides}, f"patients by {slide_table}"


class JoinedBags(BagSource):
    """Bags that are joined to one: a patient's, of all slides.

    Args:
        path: to name in errors.
        slides: source and name of each bag, by the patient.
    """

    def __init__(self, path: Path, slides: Mapping[str, Sequence[tuple[BagSource, str]]]) -> None:
        self.path, self.slides = path, {name: tuple(each) for name, each in slides.items()}
        self.names = tuple(sorted(self.slides))

    @classmethod
    def by_patient(
        cls,
        sources: Sequence[BagSource],
        slide_table: str | Path | None = None,
        *,
        slide_column: str | None = None,
        patient_column: str | None = None,
    ) -> tuple[JoinedBags, str]:
        """All bags of some sources by their patients, see :func:`patients_of`; and a note on who is whose."""
        bags = [(source, name) for source in sources for name in source.names]
        names = [name for _, name in bags]
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise BagError(f"slides of one name in several files ({listing(repeated, 3)}): name each one once")
        patients, note = patients_of(names, slide_table, slide_column=slide_column, patient_column=patient_column)
        if slide_table is None and all(slide == patient for slide, patient in patients.items()):
            note += " (--slide-table says whose they are)"
        slides: dict[str, list[tuple[BagSource, str]]] = {}
        for source, name in bags:
            slides.setdefault(patients[name], []).append((source, name))
        return cls(sources[0].path, slides), note

    def shape(self, name: str) -> tuple[int, int]:
        shapes = []
        for source, slide in self._slides(name):
            with _naming(slide):
                shapes.append(source.shape(slide))
        if len({width for _, width in shapes}) > 1:
            widths = {slide: str(width) for (_, slide), (_, width) in zip(self._slides(name), shapes, strict=True)}
            raise BagError(f"slides with features of width {_by_value(widths)}")
        return sum(count for count, _ in shapes), shapes[0][1]

    def load(self, name: str) -> Bag:
        """Read a patient's bags; places belong to the slides, and stand with them."""
        bags = []
        for source, slide in self._slides(name):
            with _naming(slide):
                bags.append(source.load(slide))
        features = torch.cat([bag.features for bag in bags]) if len(bags) > 1 else bags[0].features
        rows = features.split([len(bag.features) for bag in bags])
        # views: the slides' own are let go
        slides = tuple(replace(bag, features=part) for bag, part in zip(bags, rows, strict=True))
        return Bag(name, features, slides=slides)

    def label(self, name: str) -> str | None:
        labels = {source.label(slide) for source, slide in self._slides(name)}
        return labels.pop() if len(labels) == 1 else None

    def encoder(self, name: str) -> str | None:
        """That of all slides; of slides by several encoders all of them, which no other encoder is called by."""
        encoders = {slide: each for source, slide in self._slides(name) if (each := source.encoder(slide))}
        return _by_value(encoders) if len(set(encoders.values())) > 1 else next(iter(encoders.values()), None)

    def _slides(self, name: str) -> tuple[tuple[BagSource, str], ...]:
        return self.entry(self.slides, name)


def _by_value(values: Mapping[str, str]) -> str:
    """What slides differ in, and which they are.

    >>> _by_value({"a": "uni", "b": "conch", "c": "uni"})
    "conch (slide 'b') and uni (slide 'a', 'c')"
    """
    slides: dict[str, list[str]] = {}
    for slide, value in values.items():
        slides.setdefault(value, []).append(slide)
    return " and ".join(f"{value} (slide {listing(slides[value], 3)})" for value in sorted(slides))


@contextmanager
def _naming(slide: str) -> Iterator[None]:
    """Inside it what is wrong with a slide names it: the bag is called by the patient."""
    try:
        yield
    except BagError as error:
        raise BagError(f"slide {slide!r}: {error.reason}") from error
