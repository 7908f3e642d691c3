"""Parts by groups, by time, by folds, and none at all: nothing that belongs together is on two sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ncmi.data.dataset import Dataset
from ncmi.data.load import load_samples, without_small_classes
from ncmi.data.splits import split_dataset
from ncmi.recipes import ImageData, TableData


def labeled(labels: list[int], **fields: object) -> Dataset:
    names = tuple(f"class {c}" for c in range(max(2, max(labels) + 1)))
    data = Dataset("toy", torch.zeros(len(labels), 1), torch.tensor(labels), names, "table")
    return replace(data, **fields)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(12, 40), st.integers(2, 5))
def test_no_group_is_on_two_sides(seed: int, groups: int, folds: int) -> None:
    random = np.random.default_rng(seed)
    of_rows = np.repeat(np.arange(groups), random.integers(1, 6, groups)).astype(str)
    # every class in as many groups as there are folds, and more
    labels = [int(group) % 2 for group in of_rows]
    data = labeled(labels, groups=of_rows)
    drawn = split_dataset(data, seed=seed)
    tested = []
    for split in (drawn, *(split_dataset(data, folds=folds, fold=fold, seed=seed) for fold in range(folds))):
        sides = [set(of_rows[part.numpy()]) for part in (split.train, split.validation, split.test)]
        assert all(sides)
        assert not any((sides[0] & sides[1], sides[0] & sides[2], sides[1] & sides[2]))
        assert sum(map(len, sides)) == groups
        tested.append(split.test)
    assert torch.equal(torch.cat(tested[1:]).sort().values, torch.arange(len(labels)))


@given(st.integers(0, 10_000), st.integers(2, 10))
def test_folds_are_stratified_and_cover_everything(seed: int, folds: int) -> None:
    labels = np.random.default_rng(seed).permutation([0] * 43 + [1] * 31 + [2] * 26).tolist()
    data = labeled(labels)
    tests = [split_dataset(data, folds=folds, fold=fold, seed=seed) for fold in range(folds)]
    assert torch.equal(torch.cat([split.test for split in tests]).sort().values, torch.arange(100))
    counts = torch.stack([torch.bincount(data.labels[split.test], minlength=3) for split in tests])
    assert int((counts.max(0).values - counts.min(0).values).max()) <= 1
    for split in tests:
        assert len(split.train) + len(split.validation) + len(split.test) == 100


def test_the_latest_are_tested_and_one_time_is_on_one_side() -> None:
    times = np.array([5, 1, 2, 3, 4, 9, 8, 8, 7, 6])
    data = labeled([0, 1] * 5, times=times)
    split = split_dataset(data, validation_fraction=0.2, test_fraction=0.2)
    parts = [sorted(times[part.numpy()].tolist()) for part in (split.train, split.validation, split.test)]
    assert parts == [[1, 2, 3, 4, 5, 6, 7], [8, 8], [9]]
    with pytest.raises(ValueError, match="of one time"):
        split_dataset(labeled([0, 1] * 5, times=np.ones(10)))


def test_fractions_of_nothing_leave_the_part_out() -> None:
    data = labeled([0, 1] * 10)
    everything = split_dataset(data, validation_fraction=0, test_fraction=0)
    assert (len(everything.train), len(everything.validation), len(everything.test)) == (20, 0, 0)
    no_test = split_dataset(data, validation_fraction=0.2, test_fraction=0)
    assert (len(no_test.train), len(no_test.validation), len(no_test.test)) == (16, 4, 0)
    # two samples of a class do where two parts are wanted
    assert len(split_dataset(labeled([0] * 9 + [1, 1]), test_fraction=0).validation) >= 1


def test_groups_on_two_sides_of_given_parts_are_named() -> None:
    parts = np.array([0, 0, 2, 2], np.int8)
    with pytest.raises(ValueError, match=r"1 groups stand on two sides, such as 'b' in training and test"):
        split_dataset(labeled([0, 1, 0, 1], parts=parts, groups=np.array(["a", "b", "b", "c"])))


def test_a_class_that_the_training_part_lacks_is_named() -> None:
    with pytest.raises(ValueError, match="'class 1'"):
        split_dataset(labeled([0, 0, 0, 1], parts=np.array([0, 0, 2, 2], np.int8)), validation_fraction=0)


def test_classes_that_are_too_small_are_left_out_and_noted() -> None:
    data = labeled([0] * 6 + [1] * 2 + [2] * 7, groups=np.arange(15))
    kept = without_small_classes(data, TableData("toy", bad="skip"))
    assert isinstance(kept, Dataset)
    assert (kept.class_names, kept.labels.tolist()) == (("class 0", "class 2"), [0] * 6 + [1] * 7)
    assert kept.groups is not None
    assert kept.groups.tolist() == [*range(6), *range(8, 15)]
    assert [name for name, _ in kept.left_out] == ["class 'class 1'"]
    assert without_small_classes(data, TableData("toy", bad="skip", test_fraction=0)) is data
    with pytest.raises(ValueError, match="fewer than two classes"):
        without_small_classes(labeled([0] * 6 + [1]), TableData("toy", bad="skip"))


def test_folds_do_not_mix_given_parts() -> None:
    parts = np.array([0, 0, 0, 0, 2, 2], np.int8)
    with pytest.raises(ValueError, match=r"leave --data\.folds out"):
        split_dataset(labeled([0, 1] * 3, parts=parts), folds=2)


@pytest.mark.parametrize(
    "data",
    [
        TableData("wine", drop=("alcohol",)),
        TableData("iris", label_column="species"),
        ImageData("digits", test="elsewhere"),
    ],
)
def test_options_that_would_do_nothing_are_refused(data: TableData | ImageData) -> None:
    with pytest.raises(ValueError, match="does nothing with embedded data"):
        load_samples(data)
