"""Splits and epoch orders: partitions, stratified, and the same wherever the seed is the same."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ncmi.data.batches import batch_slices, epoch_order, process_shares
from ncmi.data.dataset import Dataset
from ncmi.data.load import load_dataset
from ncmi.data.splits import split_dataset


def labeled(labels: list[int], parts: dict[int, list[int]] | None = None) -> Dataset:
    names = tuple(f"class {c}" for c in range(max(2, max(labels) + 1)))
    given = None
    if parts is not None:
        given = np.zeros(len(labels), np.int8)
        for part, rows in parts.items():
            given[rows] = part
    return Dataset("toy", torch.zeros(len(labels), 1), torch.tensor(labels), names, "table", parts=given)


class_counts = st.lists(st.integers(3, 40), min_size=2, max_size=8)


@given(class_counts, st.floats(0.02, 0.3), st.floats(0.02, 0.3), st.integers(0, 2**40), st.randoms())
def test_split_is_a_stratified_partition(
    counts: list[int], validation: float, test: float, seed: int, random: object
) -> None:
    labels = [c for c, count in enumerate(counts) for _ in range(count)]
    random.shuffle(labels)  # type: ignore[attr-defined]
    data = labeled(labels)
    split = split_dataset(data, validation_fraction=validation, test_fraction=test, seed=seed)
    parts = (split.train, split.validation, split.test)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(len(data)))
    for part in parts:
        assert part.dtype == torch.int64
        assert torch.equal(part, part.sort().values)
        assert torch.bincount(data.labels[part], minlength=len(counts)).min() >= 1
    for part, fraction in ((split.validation, validation), (split.test, test)):
        found = torch.bincount(data.labels[part], minlength=len(counts)).double()
        assert ((found - torch.tensor(counts) * fraction).abs() <= 1 + 1e-9).all()
    again = split_dataset(data, validation_fraction=validation, test_fraction=test, seed=seed)
    assert all(torch.equal(a, b) for a, b in zip(parts, (again.train, again.validation, again.test), strict=True))


@given(st.lists(st.integers(3, 12), min_size=2, max_size=5), st.floats(0.01, 0.97), st.floats(0.01, 0.97))
def test_extreme_fractions_leave_every_class_in_every_part(counts: list[int], validation: float, test: float) -> None:
    data = labeled([c for c, count in enumerate(counts) for _ in range(count)])
    if validation + test >= 1:
        with pytest.raises(ValueError, match="leave nothing to train on"):
            split_dataset(data, validation_fraction=validation, test_fraction=test)
        return
    split = split_dataset(data, validation_fraction=validation, test_fraction=test)
    for part in (split.train, split.validation, split.test):
        assert len(data.labels[part].unique()) == len(counts)


@given(class_counts, st.integers(1, 3), st.integers(0, 9))
def test_limited_training_is_a_balanced_part_of_the_whole_one(counts: list[int], per_class: int, seed: int) -> None:
    data = labeled([c for c, count in enumerate(counts) for _ in range(count + 5)])
    whole = split_dataset(data, seed=seed)
    limited = split_dataset(data, seed=seed, train_per_class=per_class)
    assert torch.equal(limited.validation, whole.validation)
    assert torch.equal(limited.test, whole.test)
    assert set(limited.train.tolist()) <= set(whole.train.tolist())
    assert torch.bincount(data.labels[limited.train]).tolist() == [per_class] * len(counts)


def test_limited_training_is_drawn_by_the_seed() -> None:
    data = labeled([0, 1] * 50)
    drawn = [split_dataset(data, seed=seed, train_per_class=5).train.tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_more_training_samples_than_there_are() -> None:
    data = labeled([0] * 100 + [1] * 10)
    left = 10 - 2 - 1  # test 0.2, validation 0.15
    with pytest.raises(ValueError, match=f"leaves {left} training samples of class 'class 1': choose 1…{left}"):
        split_dataset(data, train_per_class=left + 1)
    assert torch.bincount(data.labels[split_dataset(data, train_per_class=left).train]).tolist() == [left, left]


@given(class_counts, st.booleans(), st.integers(0, 9))
def test_training_on_all_takes_the_validation_part_in(counts: list[int], fixed: bool, seed: int) -> None:
    labels = [c for c, count in enumerate(counts) for _ in range(count + 1)]
    data = labeled(labels, {2: [0, len(labels) - 1]} if fixed else None)
    parts, whole = split_dataset(data, seed=seed), split_dataset(data, seed=seed, train_on_all=True)
    assert len(whole.validation) == 0
    assert torch.equal(whole.test, parts.test)
    assert torch.equal(whole.train, torch.cat((parts.train, parts.validation)).sort().values)


def test_totals_are_right_with_many_small_classes() -> None:
    split = split_dataset(labeled(list(range(100)) * 7))
    assert len(split.test) == 140
    assert abs(len(split.validation) - 105) <= 1


def test_split_of_digits_is_pinned() -> None:
    """These indices may never change: runs are resumed and compared by them."""
    split = split_dataset(load_dataset("digits"), seed=0)
    assert (len(split.train), len(split.validation), len(split.test)) == (1168, 270, 359)
    assert split.test[:8].tolist() == [2, 3, 11, 13, 15, 20, 21, 32]
    assert split.validation[:8].tolist() == [1, 18, 35, 41, 43, 51, 58, 61]


def test_seeds_differ() -> None:
    data = load_dataset("iris")
    tests = {tuple(split_dataset(data, seed=seed).test.tolist()) for seed in range(20)}
    assert len(tests) == 20


def test_every_sample_is_tested_equally_often() -> None:
    data = labeled([0, 1] * 20)
    times = torch.zeros(40)
    for seed in range(400):
        times[split_dataset(data, seed=seed).test] += 1
    # 80 expected, sd 8
    assert times.min() > 45
    assert times.max() < 115


def test_official_test_set_stays_as_it_is() -> None:
    data = labeled([0, 1] * 20, {2: [39, 3, 0, 2]})
    split = split_dataset(data, validation_fraction=0.25)
    assert split.test.tolist() == [0, 2, 3, 39]
    assert len(split.validation) == 9
    assert torch.equal(torch.cat([split.train, split.validation, split.test]).sort().values, torch.arange(40))
    split_dataset(data, test_fraction=7.0)  # not used


def test_given_validation_part_stays_as_it_is() -> None:
    data = labeled([0, 1] * 20, {1: [5, 4], 2: [0, 3], -1: [7]})
    split = split_dataset(data, validation_fraction=7.0, test_fraction=7.0)
    assert (split.validation.tolist(), split.test.tolist()) == ([4, 5], [0, 3])
    assert split.train.tolist() == [1, 2, 6, *range(8, 40)]
    whole = split_dataset(data, train_on_all=True)
    assert (whole.train.tolist(), len(whole.validation)) == ([1, 2, 4, 5, 6, *range(8, 40)], 0)
    drawn = split_dataset(labeled([0, 1] * 20, {1: [5, 4]}), test_fraction=0.25)
    assert drawn.validation.tolist() == [4, 5]
    assert len(drawn.test) in (9, 10)
    assert torch.equal(torch.cat([drawn.train, drawn.validation, drawn.test]).sort().values, torch.arange(40))
    with pytest.raises(ValueError, match="'class 1' of 'toy' has 0 samples outside its own validation and test part"):
        split_dataset(labeled([0, 0, 1, 1], {1: [2], 2: [3]}))


def test_classes_that_are_too_small() -> None:
    message = "class 'class 1' of 'toy' has 1 sample, but needs one in each of 3 parts: add samples, merge"
    with pytest.raises(ValueError, match=re.escape(message)):
        split_dataset(labeled([0] * 9 + [1]))
    with pytest.raises(ValueError, match=r"'class 1' of 'toy' has 0 samples, .*3 parts \(2 classes have too few\)"):
        split_dataset(labeled([0] * 9 + [2, 2]))
    with pytest.raises(ValueError, match="has 1 sample outside its own test part, but needs one in each of 2"):
        split_dataset(labeled([0] * 9 + [1, 1], {2: [10]}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_fraction": -0.1}, "validation_fraction=-0.1: choose a fraction"),
        ({"test_fraction": 1.0}, "test_fraction=1.0: choose"),
        ({"test_fraction": float("nan")}, "test_fraction=nan: choose"),
        (
            {"validation_fraction": 0.5, "test_fraction": 0.5},
            "validation_fraction=0.5 and test_fraction=0.5 leave nothing",
        ),
        ({"seed": -1}, "seed=-1: choose 0 or larger"),
    ],
)
def test_bad_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        split_dataset(load_dataset("iris"), **options)


@given(st.integers(0, 300), st.integers(0, 2**64), st.integers(0, 10**6))
def test_epoch_order_is_a_permutation_without_state(n: int, seed: int, epoch: int) -> None:
    order = epoch_order(n, seed=seed, epoch=epoch)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(n))
    torch.rand(3)
    assert torch.equal(order, epoch_order(n, seed=seed, epoch=epoch))


def test_epoch_orders_differ_and_are_pinned() -> None:
    orders = {tuple(epoch_order(50, seed=s, epoch=e).tolist()) for s in range(10) for e in range(10)}
    assert len(orders) == 100
    assert epoch_order(10, seed=1, epoch=2).tolist() == [5, 6, 9, 3, 2, 1, 0, 8, 4, 7]
    with pytest.raises(ValueError, match="epoch=-1"):
        epoch_order(10, seed=0, epoch=-1)


def test_every_position_is_equally_likely() -> None:
    firsts = torch.bincount(torch.stack([epoch_order(5, seed=0, epoch=e)[0] for e in range(1000)]), minlength=5)
    assert firsts.min() > 140
    assert firsts.max() < 260


@given(st.integers(0, 500), st.integers(1, 70))
def test_batches_cover_the_epoch_in_order(n: int, size: int) -> None:
    order = epoch_order(n, seed=0, epoch=0)
    batches = [order[s] for s in batch_slices(n, size)]
    assert torch.equal(torch.cat([order[:0], *batches]), order)
    assert all(len(batch) == size for batch in batches[:-1])
    assert all(1 <= len(batch) <= size for batch in batches)


@given(st.integers(0, 1000), st.integers(1, 40))
def test_shares_are_even(count: int, processes: int) -> None:
    shares = process_shares(count, processes)
    assert len(shares) == processes
    assert sum(shares) == count
    assert max(shares) - min(shares) <= 1
    assert list(shares) == sorted(shares, reverse=True)
    assert all(type(share) is int for share in shares)


def test_bad_batches() -> None:
    with pytest.raises(ValueError, match="batch_size=0"):
        batch_slices(3, 0)
    with pytest.raises(ValueError, match="processes=0"):
        process_shares(3, 0)
