"""A cohort: slides with features and labels, checked before anything is trained on them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ncmi.data.bags.bag import BagError, BagSource
from ncmi.data.bags.labels import LabelError, LabelTable, has_slides, read_label_table
from ncmi.data.bags.names import RenamedBags, match_names
from ncmi.data.bags.patients import JoinedBags, one_label_a_patient, patients_of, slides_of_patients
from ncmi.data.bags.readers import open_bags
from ncmi.data.bags.simulated import is_simulated
from ncmi.data.columns import patches_off_slide
from ncmi.errors import listing
from ncmi.recipes import BagData


@dataclass(frozen=True)
class CohortSlide:
    """One slide of a cohort: its name in the source, patient (itself where unknown), class, and further columns.

    Where the patient is the unit it is all slides of one, joined, which are in ``slides``; it is called by the patient,
    and has those values in which they agree.
    """

    name: str
    patient: str
    label: int | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    slides: tuple[CohortSlide, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the slides that it is."""
        return tuple(slide.name for slide in self.slides) or (self.name,)


@dataclass(frozen=True, eq=False)
class Cohort:
    """Slides that can be used.

    Attributes:
        slides: sorted by name; or patients with all their slides each, where they are the unit.
        class_names: names of the classes in their order; empty where there are no labels.
        source: of the slides' bags, under the slides' names.
        feature_dim: D_feat of all bags.
        instances: of each slide.
        encoder: what made the features, in the words of their files; empty where none of them says it.
        skipped: (slide, reason) of each that is listed but cannot be used.
        unused: bags that have features but no row in the table.
        notes: what else a user should know of how the cohort was read.
    """

    slides: tuple[CohortSlide, ...]
    class_names: tuple[str, ...]
    source: BagSource
    feature_dim: int
    instances: tuple[int, ...]
    encoder: str = ""
    skipped: tuple[tuple[str, str], ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the slides."""
        return tuple(slide.name for slide in self.slides)

    @property
    def patients(self) -> tuple[str, ...]:
        """Of the slides."""
        return tuple(slide.patient for slide in self.slides)

    @property
    def labels(self) -> Tensor:
        """``[n]`` int64, −1 where a slide has no label."""
        return torch.tensor([-1 if slide.label is None else slide.label for slide in self.slides], dtype=torch.int64)


def load_cohort(data: BagData, *, need_labels: bool = True, read: bool = True) -> Cohort:
    """Open features and labels, bring them together and read all features once, to know that they can be used.

    Args:
        need_labels: False for slides to predict: labels are then taken where there are any.
        read: False to read no more of the features than their shapes; with ``data.bad="skip"`` they are read all the
            same.

    Raises:
        ValueError: for a table or features that cannot be read, slides that cannot be used (unless they are to be
            skipped), features of different widths or encoders, the same features under several names, a class that
            ``data.classes`` does not name, fewer than two classes.
    """
    source = open_bags(data.name, features_key=data.features_key, coords_key=data.coords_key)
    table = _table(data, source, need_labels)
    if data.unit == "patient":
        table = one_label_a_patient(table)
    bags, unused = match_names(table.slides, source.names)
    source = RenamedBags(source, bags)
    problems = {name: f"no features in {data.name}" for name in table.slides if name not in bags}
    if need_labels:
        unlabeled = (name for name, label in zip(table.slides, table.labels, strict=True) if label is None)
        problems |= {name: "no label" for name in unlabeled if name not in problems}
    shapes = _each(source.shape, (name for name in source.names if name not in problems), problems)
    skip = data.bad == "skip"
    problems |= _unlike(
        {name: str(width) for name, (_, width) in shapes.items()}, ("of width", "of"), str(data.name), skip
    )
    encoders = {name: source.encoder(name) for name in shapes}
    of_encoder = {name: encoder for name, encoder in encoders.items() if encoder and name not in problems}
    problems |= _unlike(of_encoder, ("by the encoder", "by"), str(data.name), skip)
    notes = table.notes + _encoder_notes(encoders)
    if read or skip:
        # what is wrong already is told at once
        sound = () if problems and not skip else tuple(name for name in shapes if name not in problems)
        digests: dict[str, str] = {}
        off_slide: dict[str, int] = {}

        def read_through(name: str) -> Sequence[int]:
            bag = source.load(name)
            digests[name] = _digest(bag.features)
            if bag.coords is not None and (count := patches_off_slide(bag.coords.numpy(), bag.patch_size)):
                off_slide[name] = count
            return bag.features.shape

        _each(read_through, sound, problems, threads=2)
        repeated, repeats = _repeated(digests, table)
        notes += repeats + _off_slide_notes(off_slide)
        if not is_simulated(data.name):  # some are of links to a few files
            problems |= {name: reason for name, reason in repeated.items() if name not in problems}
    kept = sorted(name for name in shapes if name not in problems)
    if not kept or (problems and not skip):
        raise _unusable(table, problems, unused)
    class_names = _class_names(table, data.classes, need_labels)
    cohort = Cohort(
        slides=_slides(table, kept, class_names),
        class_names=class_names,
        source=source,
        feature_dim=shapes[kept[0]][1],
        instances=tuple(shapes[name][0] for name in kept),
        encoder=next((of_encoder[name] for name in kept if name in of_encoder), ""),
        skipped=tuple(sorted(problems.items())),
        unused=unused,
        notes=notes + _unused_split(table, data),
    )
    return cohort if data.unit == "slide" else _of_patients(cohort)


def _of_patients(cohort: Cohort) -> Cohort:
    """The same cohort with a bag a patient, of all slides."""
    slides: dict[str, list[CohortSlide]] = {}
    for slide in cohort.slides:
        slides.setdefault(slide.patient, []).append(slide)
    instances = dict(zip(cohort.names, cohort.instances, strict=True))
    source = JoinedBags(
        cohort.source.path, {name: [(cohort.source, slide.name) for slide in each] for name, each in slides.items()}
    )
    patients = [_joined(name, slides[name]) for name in sorted(slides)]
    return replace(
        cohort,
        slides=tuple(patients),
        source=source,
        instances=tuple(sum(instances[name] for name in patient.names) for patient in patients),
        notes=(*cohort.notes, f"a patient's slides are one bag: {len(slides)} patients, {len(cohort.slides)} slides"),
    )


def _joined(patient: str, slides: Sequence[CohortSlide]) -> CohortSlide:
    first = slides[0]
    agreed = {name: text for name, text in first.values.items() if {slide.values[name] for slide in slides} == {text}}
    return CohortSlide(patient, patient, first.label, agreed, tuple(slides))


def _unused_split(table: LabelTable, data: BagData) -> tuple[str, ...]:
    """Splits that are given but not used: by another that goes before it, or as the recipe does not speak of it."""
    given = [name for name in ("holdout_column", "split_column", "splits") if getattr(data, name) is not None]
    used = ["folds"] if data.folds else []
    if data.folds:  # those of a study
        given = [name for name in given if name == "holdout_column" or (name == "split_column" and data.splits)]
    if over := (used + given)[1:]:
        first, *rest = ("--data." + name.replace("_", "-") for name in (used + given))
        return (f"{first} says what the test part is; {', '.join(rest)} {'is' if len(over) == 1 else 'are'} not used",)
    if data.folds or data.holdout_column or data.split_column or data.splits:
        return ()
    columns = [name for name in table.values if name.lower() in ("split", "set", "partition", "subset")]
    return tuple(f"column {name!r} is not used (--data.split-column {name} splits by it)" for name in columns)


def _table(data: BagData, source: BagSource, need_labels: bool) -> LabelTable:
    if data.labels is not None and has_slides(data.labels, data.slide_column, data.patient_column, data.slide_table):
        if data.slide_table is not None:
            raise LabelError(
                f"{data.labels}: has one row a slide, so that there is nothing to look up in {data.slide_table}: leave "
                "--data.slide-table out, or give a table of one row a patient"
            )
        columns = {name: getattr(data, name) for name in ("slide_column", "patient_column", "label_column")}
        return read_label_table(data.labels, **columns, classes=data.classes, need_labels=need_labels)
    if data.labels is not None:
        columns = {
            name: getattr(data, name) for name in ("slide_table", "slide_column", "patient_column", "label_column")
        }
        return slides_of_patients(data.labels, source.names, **columns, classes=data.classes, need_labels=need_labels)
    labels = tuple(source.label(name) for name in source.names)
    if need_labels and not any(labels):
        raise LabelError(f"{source.path}: holds no labels: give a CSV with one row a slide (--data.labels)")
    patients, note = patients_of(
        source.names, data.slide_table, slide_column=data.slide_column, patient_column=data.patient_column
    )
    return LabelTable(source.path, source.names, tuple(patients.values()), labels, {}, (f"no table of labels: {note}",))


def _each(
    read: Callable[[str], Sequence[int]], names: Iterable[str], problems: dict[str, str], threads: int = 8
) -> dict[str, tuple[int, int]]:
    """What reading gives for each name, in threads; what it complains of goes to ``problems``."""

    def attempt(name: str) -> tuple[int, int] | str:
        try:
            count, width = read(name)
        except BagError as error:
            return error.reason
        return count, width

    names = list(names)
    with ThreadPoolExecutor(threads) as pool:
        results = dict(zip(names, pool.map(attempt, names), strict=True))
    problems |= {name: result for name, result in results.items() if isinstance(result, str)}
    return {name: result for name, result in results.items() if not isinstance(result, str)}


def _unlike(values: Mapping[str, str], words: tuple[str, str], path: str, skip: bool) -> dict[str, str]:
    """What is wrong with the slides whose features are not of the value of more than half of them.

    Args:
        values: by slide.
        words: that stand before a value, at its first mention and later.

    Raises:
        BagError: unless they are to be skipped, and where there is no such half.
    """
    (what, short), counts = words, Counter(values.values())
    if len(counts) < 2:
        return {}
    usual, count = counts.most_common(1)[0]
    others = {name: value for name, value in values.items() if value != usual}
    if not skip or count <= len(others):
        there = ", ".join(sorted(set(others.values()), key=lambda value: (len(value), value)))
        raise BagError(
            f"{path}: {count} slides have features {what} {usual}, but others {short} "
            f"{there} ({listing(sorted(others), 5)}): make all with one encoder"
        )
    return {name: f"features {what} {value}, where {count} slides have {usual}" for name, value in others.items()}


def _encoder_notes(encoders: Mapping[str, str | None]) -> tuple[str, ...]:
    silent = sum(not encoder for encoder in encoders.values())
    if not silent:
        return ()
    which = "the features' files do" if silent == len(encoders) else f"{silent} of {len(encoders)} slides do"
    return (f"{which} not say which encoder made them: see that it is one and the same",)


def _off_slide_notes(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Training takes no notice of positions: wrong ones do not make features unusable."""
    if not counts:
        return ()
    return (
        f"{sum(counts.values())} patches of {len(counts)} slides have negative positions, off the slide "
        f"({listing(sorted(counts), 3)}): attention maps will be wrong; positions count from the slide's upper left "
        "corner, in pixels of level 0 or in microns",
    )


def _digest(features: Tensor) -> str:
    """Of a bag's shape and of some of its rows, all over it: equal for equal features, and hardly for any others."""
    rows = features[torch.linspace(0, len(features) - 1, min(len(features), 64)).long()]
    content = rows.contiguous().view(torch.uint8).numpy().tobytes()
    return hashlib.blake2b(f"{list(features.shape)} {features.dtype}".encode() + content, digest_size=16).hexdigest()


def _repeated(digests: Mapping[str, str], table: LabelTable) -> tuple[dict[str, str], tuple[str, ...]]:
    """What is wrong with slides whose features are those of another patient or class; a note on other repeats."""
    known = {
        name: (patient, label) for name, patient, label in zip(table.slides, table.patients, table.labels, strict=True)
    }
    names: dict[str, list[str]] = {}
    for name in sorted(digests):
        names.setdefault(digests[name], []).append(name)
    wrong: dict[str, str] = {}
    harmless: list[str] = []
    for first, *others in names.values():
        for name in others:
            if known[name] == known[first]:
                harmless.append(name)
            else:
                wrong[name] = f"the same features as slide {first!r}, which is of another patient or class"
                if known[name][1] != known[first][1]:
                    wrong[first] = f"the same features as slide {name!r}, which is of another class"
    if not harmless:
        return wrong, ()
    return wrong, (f"{len(harmless)} slides repeat another's features ({listing(harmless, 3)}), and count twice",)


def _unusable(table: LabelTable, problems: Mapping[str, str], unused: tuple[str, ...]) -> BagError:
    by_reason: dict[str, list[str]] = {}
    for name in sorted(problems):
        by_reason.setdefault(problems[name], []).append(name)
    reasons = [f"{listing(names, 5)}: {reason}" for reason, names in by_reason.items()]
    shown, more = "; ".join(reasons[:5]), f"; and {len(reasons) - 5} other reasons" if len(reasons) > 5 else ""
    others = f", but features of {listing(unused, 3)}, which it does not list" if unused else ""
    cure = "correct the names or paths" if len(problems) == len(table.slides) else "or leave them out (--data.bad skip)"
    return BagError(
        f"{table.path}: {len(problems)} of {len(table.slides)} slides cannot be used ({shown}{more}){others}: "
        f"make them good, {cure}"
    )


def _class_names(table: LabelTable, asked: tuple[str, ...], need_labels: bool) -> tuple[str, ...]:
    labels = dict(zip(table.slides, table.labels, strict=True))
    present = {label for label in labels.values() if label is not None}
    if asked:
        if unknown := sorted(present - set(asked)):
            example = next(name for name, label in labels.items() if label == unknown[0])
            near = next((name for name in asked if name.casefold() == unknown[0].casefold()), None)
            hint = f", which is spelled {near!r}" if near else ""
            raise LabelError(
                f"{table.path}: unknown class {listing(unknown)} (first of slide {example!r}{hint}); known are "
                f"{listing(asked)}: name all classes (--data.classes), or correct or remove these rows"
            )
        return asked
    if need_labels and len(present) < 2:
        raise LabelError(f"{table.path}: one class only ({listing(sorted(present))}): give slides of at least two")
    whole = all(re.fullmatch(r"[+-]?\d+", label) for label in present)
    return tuple(sorted(present, key=int if whole else str))


def _slides(table: LabelTable, kept: list[str], class_names: tuple[str, ...]) -> tuple[CohortSlide, ...]:
    rows = {name: row for row, name in enumerate(table.slides)}
    classes: dict[str | None, int] = {name: index for index, name in enumerate(class_names)}
    values = [dict(zip(table.values, texts, strict=True)) for texts in zip(*table.values.values(), strict=True)]
    return tuple(
        CohortSlide(name, table.patients[row], classes.get(table.labels[row]), values[row] if values else {})
        for name, row in ((name, rows[name]) for name in kept)
    )
