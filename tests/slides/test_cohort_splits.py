"""Random parts and folds: no patient on two sides, every class trained on, the same wherever the seed is the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from split_checks import DATA, check, cohort_of, parts

from ncmi.slides.cohort import Cohort
from ncmi.slides.splits import split_cohort


@st.composite
def cohorts(draw: st.DrawFn) -> Cohort:
    """Some patients with one to four slides of up to four classes; each class has at least six patients."""
    classes = draw(st.integers(2, 4))
    people = []
    for first in range(classes):
        for _ in range(draw(st.integers(6, 15))):
            people.append([first, *draw(st.lists(st.integers(0, classes - 1), max_size=3))])
    order = draw(st.permutations(range(len(people))))
    return cohort_of([label for i in order for label in people[i]], [i for i in order for _ in people[i]])


@given(cohorts(), st.integers(0, 2**40), st.floats(0, 0.4), st.floats(0, 0.4))
def test_random_parts(cohort: Cohort, seed: int, validation: float, test: float) -> None:
    data = replace(DATA, validation_fraction=validation, test_fraction=test)
    split = split_cohort(cohort, data, seed)
    check(cohort, split)
    assert parts(split) == parts(split_cohort(cohort, replace(data, split_seed=seed), 3))
    # a patient has up to four slides: a part misses its share by no more than a patient or the smallest part
    assert abs(len(split.test) - test * len(cohort.slides)) <= 4
    rest = len(cohort.slides) - len(split.test)
    assert abs(len(split.validation) - validation * rest) <= 4
    assert bool(len(split.test)) == (test > 0)
    assert bool(len(split.validation)) == (validation > 0)


@settings(max_examples=8)
@given(cohorts(), st.integers(0, 2**40), st.integers(2, 5))
def test_folds_by_patient(cohort: Cohort, seed: int, folds: int) -> None:
    tests = []
    for fold in range(folds):
        split = split_cohort(cohort, replace(DATA, folds=folds, fold=fold), seed)
        check(cohort, split)
        tests += split.test.tolist()
        assert len(split.validation) > 0
    assert sorted(tests) == list(range(len(cohort.slides)))


@given(st.lists(st.integers(3, 60), min_size=2, max_size=4), st.integers(0, 99), st.floats(0.05, 0.3))
def test_one_slide_a_patient_is_stratified_to_within_a_slide(counts: list[int], seed: int, fraction: float) -> None:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    cohort = cohort_of(labels)
    split = split_cohort(cohort, replace(DATA, test_fraction=fraction, validation_fraction=0), seed)
    for label, count in enumerate(counts):
        found = int((cohort.labels[split.test] == label).sum())
        assert abs(found - max(fraction * count, 1)) <= 1


def test_folds_are_stratified() -> None:
    labels = [0] * 60 + [1] * 30 + [2] * 10
    cohort = cohort_of(labels)
    for fold in range(5):
        split = split_cohort(cohort, replace(DATA, folds=5, fold=fold), 1)
        assert cohort.labels[split.test].bincount().tolist() == [12, 6, 2]


def test_parts_that_never_change() -> None:
    """What these seeds have always drawn: a recipe's split must not move with the version of a library."""
    cohort = cohort_of([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0, 0, 1, 2, 0, 1, 2, 0], [i // 2 for i in range(18)])
    assert parts(split_cohort(cohort, DATA, 0)) == [
        [2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 16, 17],
        [0, 1],
        [8, 9, 14, 15],
    ]
    folds = [split_cohort(cohort, replace(DATA, folds=3, fold=fold), 0).test.tolist() for fold in range(3)]
    assert folds == [[10, 11, 12, 13, 16, 17], [2, 3, 6, 7, 14, 15], [0, 1, 4, 5, 8, 9]]


def test_another_seed_is_another_split() -> None:
    cohort = cohort_of([0, 1] * 40)
    for data in (DATA, replace(DATA, folds=4)):
        assert len({str(parts(split_cohort(cohort, data, seed))) for seed in range(8)}) == 8
    validations = {str(split_cohort(cohort, replace(DATA, folds=4, fold=i), 0).validation) for i in range(4)}
    assert len(validations) == 4


@pytest.mark.parametrize("last", [2, 3])
def test_a_class_that_one_patient_has_is_trained_on(last: int) -> None:
    cohort = cohort_of([0, 1] * 20 + [2] * last, [*range(40), *[40] * last])
    for seed in range(20):
        check(cohort, split_cohort(cohort, DATA, seed))
    with pytest.raises(
        ValueError, match=rf"no slide of class 'c' in the training part \({last} of 'c' in the others\)"
    ):
        for fold in range(5):
            split_cohort(cohort, replace(DATA, folds=5, fold=fold), 0)


def test_classes_asked_for_that_never_occur() -> None:
    cohort = replace(cohort_of([0, 1] * 20), class_names=("a", "b", "c"))
    with pytest.raises(
        ValueError, match=r"no slide of class 'c' in the training part \(0 of 'c' in the others\).*--data\.classes"
    ):
        split_cohort(cohort, DATA, 0)


def test_requests_that_cannot_be_met() -> None:
    cohort = cohort_of([0, 1] * 3)
    with pytest.raises(ValueError, match="folds=7: there are 6 patients"):
        split_cohort(cohort, replace(DATA, folds=7), 0)
    with pytest.raises(ValueError, match="folds=5: no class has so many slides, the largest 3"):
        split_cohort(cohort, replace(DATA, folds=5), 0)
    with pytest.raises(ValueError, match="seed=-1"):
        split_cohort(cohort, DATA, -1)
    with pytest.raises(ValueError, match="give one of them"):
        split_cohort(cohort, replace(DATA, splits="x", split_column="y"), 0)
    with pytest.raises(ValueError, match="no slide in the test part"):
        split_cohort(cohort_of([0, 1, 2]), DATA, 0)
    unlabelled = replace(cohort, slides=(*cohort.slides[:5], replace(cohort.slides[5], label=None)))
    with pytest.raises(ValueError, match="slide 's0005' has no label"):
        split_cohort(unlabelled, DATA, 0)
