"""Cohorts without files, and what holds for every split of one."""

from __future__ import annotations

import torch
from bag_writers import FakeSource

from ncmi.data.bags.cohort import Cohort, CohortSlide
from ncmi.data.bags.splits import CohortSplit
from ncmi.recipes import BagData

DATA = BagData(name="fake")


def cohort_of(
    labels: list[int], patients: list[int] | None = None, columns: dict[str, list[str]] | None = None
) -> Cohort:
    names = [f"s{i:04d}" for i in range(len(labels))]
    people = names if patients is None else [f"p{i}" for i in patients]
    rows = [{name: texts[i] for name, texts in (columns or {}).items()} for i in range(len(labels))]
    slides = tuple(CohortSlide(*row) for row in zip(names, people, labels, rows, strict=True))
    classes = tuple("abcdefgh"[: max(labels) + 1])
    return Cohort(slides, classes, FakeSource(dict.fromkeys(names, 1)), 4, (1,) * len(labels))


def parts(split: CohortSplit) -> list[list[int]]:
    return [part.tolist() for part in (split.train, split.validation, split.test)]


def check(cohort: Cohort, split: CohortSplit) -> None:
    """Disjoint, sorted, no patient on two sides, every class in training; who is in no part is listed."""
    found = parts(split)
    for part, tensor in zip(found, (split.train, split.validation, split.test), strict=True):
        assert tensor.dtype == torch.int64
        assert part == sorted(set(part))
    flat = [index for part in found for index in part]
    assert len(flat) == len(set(flat))
    sides = [{cohort.patients[index] for index in part} for part in found]
    assert sum(map(len, sides)) == len(set().union(*sides))
    assert set(cohort.labels[split.train].tolist()) == set(range(len(cohort.class_names)))
    assert [name for name, _ in split.left_out] == [
        name for index, name in enumerate(cohort.names) if index not in set(flat)
    ]
