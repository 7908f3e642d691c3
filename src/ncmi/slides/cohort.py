"""A cohort: slides with features and labels, checked before anything is trained on them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ncmi.data.dataset import listing
from ncmi.recipes.slides import SlideData
from ncmi.slides.bag import BagError, BagSource
from ncmi.slides.labels import LabelError, SlideTable, read_slide_table
from ncmi.slides.readers import open_bags
from ncmi.slides.readers.arrays import UnusableBag
from ncmi.slides.renamed import RenamedBags, match_names


@dataclass(frozen=True)
class Slide:
    """One slide of a cohort.

    Attributes:
        name: under which the cohort's source knows its bag.
        patient: whose slide it is; the slide itself where that is not known.
        label: index of its class; None where it has none.
        values: further columns of the table, as text.
    """

    name: str
    patient: str
    label: int | None = None
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Cohort:
    """Slides that can be used.

    Attributes:
        slides: sorted by name.
        class_names: names of the classes in their order; empty where there are no labels.
        source: of the slides' bags, under the slides' names.
        feature_dim: D_feat of all bags.
        instances: of each slide.
        skipped: (slide, reason) of each that is listed but cannot be used.
        unused: bags that have features but no row in the table.
        notes: what else a user should know of how the cohort was read.
    """

    slides: tuple[Slide, ...]
    class_names: tuple[str, ...]
    source: BagSource
    feature_dim: int
    instances: tuple[int, ...]
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


def load_cohort(data: SlideData, *, need_labels: bool = True, read: bool = True) -> Cohort:
    """Open features and labels, bring them together and read all features once, to know that they can be used.

    Args:
        need_labels: False for slides to predict: labels are then taken where there are any.
        read: False to read no more of the features than their shapes; with ``data.bad="skip"`` they are read all the
            same.

    Raises:
        ValueError: for a table or features that cannot be read, slides that cannot be used (unless they are to be
            skipped), features of different widths, a class that ``data.classes`` does not name, fewer than two classes.
    """
    source = open_bags(data.features, features_key=data.features_key, coords_key=data.coords_key)
    table = _table(data, source, need_labels)
    bags, unused = match_names(table.slides, source.names)
    source = RenamedBags(source, bags)
    problems = {name: f"no features in {data.features}" for name in table.slides if name not in bags}
    if need_labels:
        unlabelled = (name for name, label in zip(table.slides, table.labels, strict=True) if label is None)
        problems |= {name: "no label" for name in unlabelled if name not in problems}
    shapes = _each(source.shape, (name for name in source.names if name not in problems), problems)
    skip = data.bad == "skip"
    problems |= _other_widths(shapes, str(data.features), skip)
    if read or skip:
        # what is wrong already is told at once
        sound = () if problems and not skip else tuple(name for name in shapes if name not in problems)
        _each(lambda name: source.load(name).features.shape, sound, problems, threads=2)
    if problems and not skip:
        raise _unusable(table, problems, unused)
    kept = sorted(name for name in shapes if name not in problems)
    if not kept:
        raise _unusable(table, problems, unused)
    class_names = _class_names(table, data.classes, need_labels)
    return Cohort(
        slides=_slides(table, kept, class_names),
        class_names=class_names,
        source=source,
        feature_dim=shapes[kept[0]][1],
        instances=tuple(shapes[name][0] for name in kept),
        skipped=tuple(sorted(problems.items())),
        unused=unused,
        notes=table.notes + _unused_split(table, data),
    )


def _unused_split(table: SlideTable, data: SlideData) -> tuple[str, ...]:
    """Splits that are given but not used: by another that goes before it, or as the recipe does not speak of it."""
    given = [name for name in ("holdout_column", "split_column", "splits") if getattr(data, name) is not None]
    used = ["folds"] if data.folds else []
    if over := (used + given)[1:]:
        first, *rest = ("--data." + name.replace("_", "-") for name in (used + given))
        return (f"{first} says what the test part is; {', '.join(rest)} {'is' if len(over) == 1 else 'are'} not used",)
    if data.folds or data.holdout_column or data.split_column or data.splits:
        return ()
    found = [name for name in table.values if name.lower() in ("split", "set", "partition", "subset")]
    return tuple(f"column {name!r} is not used (--data.split-column {name} splits by it)" for name in found)


def _table(data: SlideData, source: BagSource, need_labels: bool) -> SlideTable:
    if data.labels is not None:
        return read_slide_table(
            data.labels,
            slide_column=data.slide_column,
            patient_column=data.patient_column,
            label_column=data.label_column,
            need_labels=need_labels,
        )
    labels = tuple(source.label(name) for name in source.names)
    if need_labels and not any(labels):
        raise LabelError(f"{source.path}: holds no labels: give a CSV with one row a slide (--data.labels)")
    notes = ("no table of labels: each slide counts as a patient of its own",)
    return SlideTable(source.path, source.names, source.names, labels, {}, notes)


def _each(
    read: Callable[[str], Sequence[int]], names: Iterable[str], problems: dict[str, str], threads: int = 8
) -> dict[str, tuple[int, int]]:
    """What reading gives for each name, in threads; what it complains of goes to ``problems``."""

    def attempt(name: str) -> tuple[str, Sequence[int], str | None]:
        try:
            return name, read(name), None
        except BagError as error:
            return name, (), error.reason if isinstance(error, UnusableBag) else str(error)

    found = {}
    with ThreadPoolExecutor(threads) as pool:
        for name, result, problem in pool.map(attempt, names):
            if problem is not None:
                problems[name] = problem
            else:
                found[name] = result[0], result[1]
    return found


def _other_widths(shapes: Mapping[str, tuple[int, int]], path: str, skip: bool) -> dict[str, str]:
    """What is wrong with the slides whose features are not as wide as those of more than half of them."""
    widths = Counter(width for _, width in shapes.values())
    if len(widths) < 2:
        return {}
    usual, count = widths.most_common(1)[0]
    others = {name: width for name, (_, width) in shapes.items() if width != usual}
    if not skip or count <= len(others):
        raise BagError(
            f"{path}: {count} slides have features of width {usual}, but others of "
            f"{', '.join(str(width) for width in sorted(set(others.values())))} ({listing(sorted(others), 5)}): "
            "make all with one encoder"
        )
    return {name: f"features of width {width}, where {count} slides have {usual}" for name, width in others.items()}


def _unusable(table: SlideTable, problems: Mapping[str, str], unused: tuple[str, ...]) -> BagError:
    by_reason: dict[str, list[str]] = {}
    for name in sorted(problems):
        by_reason.setdefault(problems[name], []).append(name)
    reasons = list(by_reason.items())
    shown = "; ".join(f"{listing(names, 5)}: {reason}" for reason, names in reasons[:5])
    more = f"; and {len(reasons) - 5} other reasons" if len(reasons) > 5 else ""
    others = f", but features of {listing(unused, 3)}, which it does not list" if unused else ""
    cure = "correct the names or paths" if len(problems) == len(table.slides) else "or leave them out (--data.bad skip)"
    return BagError(
        f"{table.path}: {len(problems)} of {len(table.slides)} slides cannot be used ({shown}{more}){others}: "
        f"make them good, {cure}"
    )


def _class_names(table: SlideTable, asked: tuple[str, ...], need_labels: bool) -> tuple[str, ...]:
    labels = dict(zip(table.slides, table.labels, strict=True))
    found = {label for label in labels.values() if label is not None}
    if asked:
        if unknown := sorted(found - set(asked)):
            example = next(name for name, label in labels.items() if label == unknown[0])
            raise LabelError(
                f"{table.path}: unknown class {listing(unknown)} (first of slide {example!r}); known are "
                f"{listing(asked)}: name all classes (--data.classes), or correct or remove these rows"
            )
        return asked
    if need_labels and len(found) < 2:
        raise LabelError(f"{table.path}: one class only ({listing(sorted(found))}): give slides of at least two")
    if all(re.fullmatch(r"[+-]?\d+", label) for label in found):
        return tuple(sorted(found, key=int))
    return tuple(sorted(found))


def _slides(table: SlideTable, kept: list[str], class_names: tuple[str, ...]) -> tuple[Slide, ...]:
    rows = {name: row for row, name in enumerate(table.slides)}
    classes = {name: index for index, name in enumerate(class_names)}

    def slide(name: str) -> Slide:
        row = rows[name]
        label = table.labels[row]
        values = {column: texts[row] for column, texts in table.values.items()}
        return Slide(name, table.patients[row], None if label is None else classes[label], values)

    return tuple(slide(name) for name in kept)
