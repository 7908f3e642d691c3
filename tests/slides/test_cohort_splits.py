"""Parts by patient: drawn, the same wherever the seed is the same; or given by columns and files, taken as they stand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from bag_writers import values, write_cohort_h5, write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from split_checks import DATA, check, cohort_of, parts

from ncmi.data.bags.cohort import Cohort, load_cohort
from ncmi.data.bags.splits import CohortSplit, cohort_changes, describe_cohort, split_cohort
from ncmi.recipes import BagData


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
    with pytest.raises(ValueError, match="folds=7: there are 6 groups"):
        split_cohort(cohort, replace(DATA, folds=7), 0)
    with pytest.raises(ValueError, match=r"folds=5: no class .* the largest 3"):
        split_cohort(cohort, replace(DATA, folds=5), 0)
    with pytest.raises(ValueError, match="seed=-1"):
        split_cohort(cohort, DATA, -1)
    with pytest.raises(ValueError, match="give one of them"):
        split_cohort(cohort, replace(DATA, splits="x", split_column="y"), 0)
    with pytest.raises(ValueError, match="no slide in the test part"):
        split_cohort(cohort_of([0, 1, 2]), DATA, 0)
    unlabeled = replace(cohort, slides=(*cohort.slides[:5], replace(cohort.slides[5], label=None)))
    with pytest.raises(ValueError, match="slide 's0005' has no label"):
        split_cohort(unlabeled, DATA, 0)


def test_held_out_values() -> None:
    columns = {"center": [str(i % 5) for i in range(100)]}
    cohort = cohort_of([i // 5 % 2 for i in range(100)], None, columns)
    split = split_cohort(cohort, replace(DATA, holdout_column="center", holdout=("3", "4")), 0)
    check(cohort, split)
    assert split.test.tolist() == [i for i in range(100) if i % 5 in (3, 4)]
    assert len(split.validation) == 9
    with pytest.raises(ValueError, match=r"column 'center' never holds '7' \(--data\.holdout\), but '0', '1'"):
        split_cohort(cohort, replace(DATA, holdout_column="center", holdout=("3", "7")), 0)
    with pytest.raises(ValueError, match=r"no column 'site' \(--data\.holdout-column\); there is 'center'"):
        split_cohort(cohort, replace(DATA, holdout_column="site", holdout=("3",)), 0)
    with pytest.raises(ValueError, match="gives no slides for the training part"):
        split_cohort(cohort, replace(DATA, holdout_column="center", holdout=tuple("01234")), 0)


def test_a_split_column_with_and_without_validation() -> None:
    words = ["train", "Training", "val", "test", "Holdout", "", "valid", "tr", "train", "test"]
    cohort = cohort_of([0, 1] * 5, None, {"split": words})
    split = split_cohort(cohort, replace(DATA, split_column="split", validation_fraction=0.4), 0)
    assert parts(split) == [[0, 1, 7, 8], [2, 6], [3, 4, 9]]
    assert split.left_out == (("s0005", "in no part by column 'split'"),)
    words = ["train"] * 30 + ["test"] * 10
    cohort = cohort_of([0, 1] * 20, None, {"split": words})
    split = split_cohort(cohort, replace(DATA, split_column="split", validation_fraction=0.2), 0)
    check(cohort, split)
    assert (len(split.train), len(split.validation), split.test.tolist()) == (24, 6, list(range(30, 40)))
    for words, message in (
        (["train", "test", "center", "x"], r"column 'split' holds 'center', 'x': only train, val, test"),
        (["train", "train", "val", "val"], r"column 'split' gives no slides for the test part"),
    ):
        with pytest.raises(ValueError, match=message):
            split_cohort(cohort_of([0, 1, 0, 1], None, {"split": words}), replace(DATA, split_column="split"), 0)


def test_a_drawn_validation_part_takes_nothing_that_is_left_out() -> None:
    cohort = cohort_of([0, 1] * 20, None, {"split": ["train"] * 16 + ["test"] * 4 + [""] * 20})
    split = split_cohort(cohort, replace(DATA, split_column="split", validation_fraction=0.5), 0)
    check(cohort, split)
    assert (len(split.train), len(split.validation), len(split.left_out)) == (8, 8, 20)


def test_a_patient_on_two_sides() -> None:
    #        p0             p1               p2             p3            p4
    words = ["train", "val", "train", "test", "val", "test", "train", "train", "train", "train"]
    cohort = cohort_of([0, 1] * 5, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4], {"split": words})
    data = replace(DATA, split_column="split")
    with pytest.raises(
        ValueError,
        match=r"3 patients stand on two sides: 'p0' in training and validation, 'p1' in training and test, 'p2' in "
        r"validation and test: .*--data\.patient-overlap drop",
    ):
        split_cohort(cohort, data, 0)
    split = split_cohort(cohort, replace(data, patient_overlap="drop"), 0)
    check(cohort, split)
    assert parts(split) == [[6, 7, 8, 9], [1], [3, 5]]
    assert split.left_out == (
        ("s0000", "patient 'p0' also stands in the validation part"),
        ("s0002", "patient 'p1' also stands in the test part"),
        ("s0004", "patient 'p2' also stands in the test part"),
    )


def test_a_patient_in_all_three_parts_is_tested_only() -> None:
    words = ["train", "val", "test", "train", "train", ""]
    cohort = cohort_of([0, 0, 1, 0, 1, 1], [0, 0, 0, 1, 2, 0], {"split": words})
    split = split_cohort(cohort, replace(DATA, split_column="split", patient_overlap="drop", validation_fraction=0), 0)
    assert parts(split) == [[3, 4], [], [2]]
    reason = "patient 'p0' also stands in the test part"
    assert split.left_out == (("s0000", reason), ("s0001", reason), ("s0005", "in no part by column 'split'"))


def test_the_splits_files_of_clam(tmp_path: Path) -> None:
    cohort = cohort_of([0, 1] * 4)
    expected = [[0, 1, 2], [3, 4], [5]]
    lists = write_table(
        tmp_path / "a.csv",
        [(0, "s0000", "s0003", "s0005.svs"), (1, "s0002", "s0004", ""), (2, "s0001", "", "")],
        ",train,val,test",
    )
    marks = [(f"s{i:04d}", i in (0, 1, 2), i in (3, 4), i == 5) for i in range(8)]
    for path in (lists, write_table(tmp_path / "b.csv", marks, ",train,val,test")):
        split = split_cohort(cohort, replace(DATA, splits=str(path)), 0)
        assert parts(split) == expected
        assert [name for name, _ in split.left_out] == ["s0006", "s0007"]


def test_slides_that_are_numbers_in_the_splits_files_of_clam(tmp_path: Path) -> None:
    """pandas makes floats of a column that is shorter than another."""
    cohort = cohort_of([0, 1] * 3)
    cohort = replace(cohort, slides=tuple(replace(slide, name=str(100 + i)) for i, slide in enumerate(cohort.slides)))
    columns = {"train": pd.Series([100, 101, 103]), "val": pd.Series([102]), "test": pd.Series([104, 105])}
    pd.DataFrame(columns).to_csv(tmp_path / "splits_0.csv")
    assert "102.0" in (tmp_path / "splits_0.csv").read_text()
    split = split_cohort(cohort, replace(DATA, splits=str(tmp_path / "splits_0.csv")), 0)
    assert parts(split) == [[0, 1, 3], [2], [4, 5]]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([("s0000", "s0000")], "train,test", r"slide 's0000' stands in two columns"),
        ([("s0000", "s0001")], "train,val", r"columns 'train', 'val': need train and test"),
        (
            [("s0000", "s0001"), ("s0002", "x")],
            "train,test",
            r"1 slides that the cohort does not have \('x'\).*--data\.bad skip",
        ),
    ],
)
def test_splits_files_that_do_not_add_up(tmp_path: Path, rows: list[tuple[str]], header: str, message: str) -> None:
    path = write_table(tmp_path / "splits.csv", rows, header)
    with pytest.raises(ValueError, match=message):
        split_cohort(cohort_of([0, 1, 1, 0]), replace(DATA, splits=str(path)), 0)


def test_slides_of_a_splits_file_that_were_skipped(tmp_path: Path) -> None:
    path = write_table(tmp_path / "splits.csv", [("s0000", "s0001"), ("s0003", "gone"), ("s0002", "")], "train,test")
    cohort = replace(cohort_of([0, 1, 1, 0]), skipped=(("gone", "no features"),))
    data = replace(DATA, splits=str(path), validation_fraction=0)
    assert parts(split_cohort(cohort, data, 0)) == [[0, 2, 3], [], [1]]
    cohort = replace(cohort, skipped=())
    with pytest.raises(ValueError, match="does not have"):
        split_cohort(cohort, data, 0)
    assert parts(split_cohort(cohort, replace(data, bad="skip"), 0)) == [[0, 2, 3], [], [1]]


@pytest.fixture
def camelyon17(data_dir: Path, tmp_path: Path) -> BagData:
    return real(data_dir, tmp_path, "camelyon17")


def real(data_dir: Path, tmp_path: Path, name: str) -> BagData:
    """The real table, with features of no meaning."""
    table = data_dir / "labels" / f"{name}.csv"
    if not table.is_file():
        pytest.skip(f"needs {table}")
    slides = [line.split(",")[0] for line in table.read_text().splitlines()[1:]]
    path = write_cohort_h5(tmp_path / "c.h5", {name: values(1, seed=seed) for seed, name in enumerate(slides)})
    return BagData(name=str(path), labels=str(table))


def test_camelyon17_by_center_and_by_patient(camelyon17: BagData) -> None:
    data = replace(camelyon17, classes=("negative", "itc", "micro", "macro"))
    cohort = load_cohort(data)
    assert len(cohort.slides) == 500
    assert len(set(cohort.patients)) == 100
    assert cohort.labels.bincount().tolist() == [318, 36, 59, 87]
    split = split_cohort(cohort, replace(data, holdout_column="center", holdout=("3", "4")), 0)
    check(cohort, split)
    assert [len(part) for part in parts(split)] == [255, 45, 200]
    assert cohort.labels[split.test].bincount().tolist() == [121, 16, 18, 45]
    assert all(count >= 2 for count in cohort.labels[split.validation].bincount().tolist())
    for fold in range(5):
        split = split_cohort(cohort, replace(data, folds=5, fold=fold), 0)
        check(cohort, split)
        counts = cohort.labels[split.test].bincount(minlength=4)
        assert ((counts - cohort.labels.bincount() / 5).abs() <= 5).all()


def test_bracs_as_given(data_dir: Path, tmp_path: Path) -> None:
    given = replace(real(data_dir, tmp_path, "bracs"), split_column="split")
    assert len(load_cohort(replace(given, label_column="label_fine")).class_names) == 7
    data = replace(given, label_column="label_coarse")
    cohort = load_cohort(data)
    assert (len(cohort.slides), len(cohort.class_names)) == (547, 3)
    with pytest.raises(ValueError, match=r"a patient stands on two sides: '67' in training and validation"):
        split_cohort(cohort, data, 0)
    split = split_cohort(cohort, replace(data, patient_overlap="drop"), 0)
    check(cohort, split)
    assert [len(part) for part in parts(split)] == [395 - 3, 65, 87]
    assert [name for name, _ in split.left_out] == ["BRACS_1631", "BRACS_1633", "BRACS_1634"]


def test_what_changed_of_a_cohort_is_told() -> None:
    def split(train: list[int], validation: list[int], test: list[int]) -> CohortSplit:
        return CohortSplit(*(torch.tensor(part, dtype=torch.int64) for part in (train, validation, test)))

    cohort = cohort_of([0, 1, 0, 1])
    same = split([0, 1], [2], [3])
    earlier = json.loads(json.dumps(describe_cohort(cohort, same)))
    assert earlier["slides"]["s0003"] == ["s0003", "b", "test"]
    assert cohort_changes(earlier, cohort, same) == []
    assert cohort_changes(earlier, cohort, split([0, 1], [3], [2])) == [
        "2 slides are of another patient, class or part ('s0002', 's0003')"
    ]
    wider = replace(cohort, feature_dim=5, slides=cohort.slides[:3])
    assert cohort_changes(earlier, wider, split([0, 1], [2], [])) == [
        "features were as wide as 4, now 5",
        "1 slides are gone ('s0003')",
    ]
    relabeled = cohort_of([0, 1, 0, 2])
    assert cohort_changes(earlier, relabeled, same)[0].startswith("classes were ['a', 'b'], now ['a', 'b', 'c']")


def test_the_published_folds_of_a_study(tmp_path: Path) -> None:
    """CLAM's folder of splits files, a path with the fold's number, and a column of folds."""
    fold = [str(number % 3) for number in range(12)]
    cohort = cohort_of([0, 1] * 6, columns={"fold": fold, "from_one": [str(int(text) + 1) for text in fold]})
    for number in range(3):
        rows = [(name, "", "") if fold[i] != str(number) else ("", "", name) for i, name in enumerate(cohort.names)]
        write_table(tmp_path / f"splits_{number}.csv", rows, "train,val,test")
    for options in (
        {"splits": str(tmp_path)},
        {"splits": str(tmp_path / "splits_{fold}.csv")},
        {"split_column": "fold"},
        {"split_column": "from_one"},
    ):
        for number in range(3):
            data = replace(DATA, folds=3, fold=number, validation_fraction=0.2, **options)  # type: ignore[arg-type]
            split = split_cohort(cohort, data, 0)
            check(cohort, split)
            assert split.test.tolist() == [i for i in range(12) if fold[i] == str(number)]
            assert len(split.validation) > 0
    with pytest.raises(ValueError, match="one file for several folds"):
        split_cohort(cohort, replace(DATA, folds=3, splits=str(tmp_path / "splits_0.csv")), 0)
    with pytest.raises(ValueError, match="not the numbers of 4 folds"):
        split_cohort(cohort, replace(DATA, folds=4, split_column="fold"), 0)
    with pytest.raises(ValueError, match=r"splits_3\.csv"):
        split_cohort(cohort, replace(DATA, folds=4, fold=3, splits=str(tmp_path)), 0)
    for several in (tmp_path, tmp_path / "splits_{fold}.csv"):
        with pytest.raises(ValueError, match=r"--data\.folds"):
            split_cohort(cohort, replace(DATA, splits=str(several)), 0)


def test_the_folds_of_stamp(tmp_path: Path) -> None:
    """splits.json of STAMP: patients to train and to test on, the validation part drawn from the former."""
    cohort = cohort_of([0, 1] * 6)
    patients = sorted(set(cohort.patients))
    folds = [
        {"train_patients": [p for p in patients if p not in test], "test_patients": test}
        for test in (patients[:2], patients[2:4])
    ]
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({"splits": folds}))
    for number, fold in enumerate(folds):
        data = replace(DATA, folds=2, fold=number, splits=str(path), validation_fraction=0.2)
        split = split_cohort(cohort, data, 0)
        assert {cohort.patients[i] for i in split.test.tolist()} == set(fold["test_patients"])
        assert len(split.validation) > 0
    for options, cure in (({"folds": 3}, "--data.folds 2"), ({}, "--data.folds")):
        with pytest.raises(ValueError, match=cure):
            split_cohort(cohort, replace(DATA, splits=str(path), **options), 0)  # type: ignore[arg-type]
    data = replace(DATA, folds=2, splits=str(path))
    path.write_text(json.dumps({"splits": [{**folds[0], "train_patients": [*patients[2:], "nobody"]}, folds[1]]}))
    with pytest.raises(ValueError, match=r"'nobody'.*--data\.bad skip"):
        split_cohort(cohort, data, 0)
    path.write_text(json.dumps({"splits": [{**folds[0], "train_patients": patients}, folds[1]]}))
    with pytest.raises(ValueError, match="on both sides of fold 0"):
        split_cohort(cohort, data, 0)
    for text in ("[]", "{", json.dumps({"splits": [[]]})):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"no splits\.json as STAMP"):
            split_cohort(cohort, data, 0)
