"""Wrong labels and long tails: as many as asked for, never in validation or test, and the same for the same seed."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ncmi.data.dataset import Dataset
from ncmi.data.load import load_dataset
from ncmi.data.splits import long_tail, noisy_labels, split_dataset

rates = st.floats(0, 0.99)
seeds = st.integers(0, 2**40)


def labels_of(count: int, classes: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(classes, (count,), generator=torch.Generator().manual_seed(seed))


def balanced(classes: int, each: int) -> Dataset:
    labels = torch.arange(classes * each) % classes
    return Dataset("toy", torch.zeros(len(labels), 1), labels, tuple(map(str, range(classes))), "table")


def damaged_one_by_one(labels: list[int], classes: int, rate: float, kind: str, seed: int) -> list[int]:
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(0,)))
    first = [int(bits.random_raw()) for _ in labels]
    second = [int(bits.random_raw()) for _ in labels]
    found = []
    for label, a, b in zip(labels, first, second, strict=True):
        others = [(label + 1 + k) % classes for k in range(classes - 1)]
        if (a >> 11) / 2**53 >= rate:
            found.append(label)
        else:
            found.append(others[0] if kind == "pair" else others[b % len(others)])
    return found


@given(st.integers(0, 200), st.integers(2, 12), rates, st.sampled_from(["symmetric", "pair"]), seeds)
def test_one_label_after_the_other(count: int, classes: int, rate: float, kind: Any, seed: int) -> None:
    labels = labels_of(count, classes)
    before = labels.clone()
    found = noisy_labels(labels, classes, rate, kind, seed)
    assert found.tolist() == damaged_one_by_one(labels.tolist(), classes, rate, kind, seed)
    assert found.dtype == torch.int64
    assert torch.equal(labels, before)
    torch.rand(3)
    assert torch.equal(noisy_labels(labels, classes, rate, kind, seed), found)


@pytest.mark.parametrize("kind", ["symmetric", "pair"])
@pytest.mark.parametrize("classes", [2, 3, 26, 100])
@pytest.mark.parametrize("rate", [0.0, 0.05, 0.2, 0.4, 0.8])
def test_share_of_wrong_labels(rate: float, classes: int, kind: Any) -> None:
    count = 20_000
    labels = labels_of(count, classes)
    for seed in range(3):
        wrong = int((noisy_labels(labels, classes, rate, kind, seed) != labels).sum())
        assert abs(wrong - rate * count) <= 4.5 * math.sqrt(rate * (1 - rate) * count)


@given(st.integers(2, 20), st.floats(0.01, 0.99), seeds)
def test_pair_noise_goes_to_the_next_class(classes: int, rate: float, seed: int) -> None:
    labels = labels_of(300, classes)
    step = (noisy_labels(labels, classes, rate, "pair", seed) - labels) % classes
    assert set(step.tolist()) <= {0, 1}


def test_symmetric_noise_goes_to_every_other_class_alike() -> None:
    classes, count = 5, 40_000
    labels = torch.full((count,), 3)
    found = Counter(noisy_labels(labels, classes, 0.5, seed=1).tolist())
    expected = 0.5 * count / 4
    for other in (0, 1, 2, 4):
        assert abs(found[other] - expected) < 4.5 * math.sqrt(expected)
    assert abs(found[3] - 0.5 * count) < 4.5 * math.sqrt(0.25 * count)


@given(rates, rates, st.sampled_from(["symmetric", "pair"]), seeds)
def test_more_noise_keeps_what_less_noise_did(one: float, other: float, kind: Any, seed: int) -> None:
    labels = labels_of(200, 7)
    few, many = (noisy_labels(labels, 7, rate, kind, seed) for rate in sorted((one, other)))
    wrong = few != labels
    assert torch.equal(few[wrong], many[wrong])


def test_noise_is_pinned() -> None:
    """These may never change: runs are resumed and compared by them."""
    labels = torch.arange(12) % 4
    assert noisy_labels(labels, 4, 0.5, seed=0).tolist() == [0, 0, 2, 2, 1, 1, 0, 3, 1, 1, 2, 1]
    assert noisy_labels(labels, 4, 0.5, "pair", seed=0).tolist() == [0, 2, 2, 0, 1, 1, 3, 3, 1, 1, 2, 0]
    drawn = {tuple(noisy_labels(labels, 4, 0.5, seed=seed).tolist()) for seed in range(20)}
    assert len(drawn) == 20


def test_noise_does_not_follow_the_split() -> None:
    """Both are drawn by one seed: were they one stream, a part would hold all wrong labels, or none."""
    data = balanced(4, 500)
    for seed in range(5):
        split = split_dataset(data, seed=seed)
        wrong = noisy_labels(data.labels, 4, 0.4, seed=seed) != data.labels
        for part in (split.train, split.validation, split.test):
            assert abs(float(wrong[part].double().mean()) - 0.4) < 4.5 * math.sqrt(0.24 / len(part))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 1.0}, "label_noise=1.0: give a share of at least 0 and below 1, such as 0.4"),
        ({"rate": -0.1}, "label_noise=-0.1"),
        ({"rate": float("nan")}, "label_noise=nan"),
        ({"rate": 0.1, "kind": "confusion"}, "unknown noise_kind 'confusion': use 'symmetric' or 'pair'"),
        ({"rate": 0.1, "num_classes": 1}, "at least 2 classes"),
        ({"rate": 0.1, "seed": -1}, "a seed of 0 or larger"),
    ],
)
def test_bad_noise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        noisy_labels(**{"labels": torch.tensor([0, 1]), "num_classes": 2, **options})


@pytest.mark.parametrize(("classes", "each", "total"), [(100, 500, 10_847), (10, 5000, 12_406)])
def test_a_long_tail_of_cifar_is_the_one_of_the_literature(classes: int, each: int, total: int) -> None:
    assert long_tail(np.full(classes, each), 100).sum() == total


@pytest.mark.parametrize(
    ("counts", "imbalance", "kept"),
    [
        ([500, 500, 500], 100, [500, 50, 5]),
        ([1000] * 4, 1000, [1000, 100, 10, 1]),
        ([256] * 9, 256, [256, 128, 64, 32, 16, 8, 4, 2, 1]),
        ([5, 5, 5], 1000, [5, 1, 1]),
        ([40, 100, 3], 4, [40, 50, 3]),
        ([7, 9], 1.0, [7, 9]),
        ([7, 9], 1.5, [7, 6]),
    ],
)
def test_numbers_in_a_long_tail(counts: list[int], imbalance: float, kept: list[int]) -> None:
    assert long_tail(np.array(counts), imbalance).tolist() == kept


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=30), st.floats(1, 1e6))
def test_a_long_tail_takes_no_class_away(counts: list[int], imbalance: float) -> None:
    kept = long_tail(np.array(counts), imbalance)
    for c, (now, before) in enumerate(zip(kept.tolist(), counts, strict=True)):
        exact = max(counts) / imbalance ** (c / (len(counts) - 1))
        assert 1 <= now <= before
        assert now == before or max(exact - 1, 0) <= now <= max(exact + 1e-6, 1)


@pytest.mark.parametrize("imbalance", [0.01, 0.0, -5.0, float("nan"), float("inf")])
def test_bad_imbalance(imbalance: float) -> None:
    with pytest.raises(ValueError, match=r"the largest class to the smallest is at least 1, such as 100"):
        split_dataset(balanced(3, 10), imbalance=imbalance)


@given(st.integers(2, 8), st.integers(4, 60), st.floats(1, 200), st.booleans(), st.integers(0, 99))
def test_a_long_tailed_split(classes: int, each: int, imbalance: float, on_all: bool, seed: int) -> None:
    data = balanced(classes, each)
    whole = split_dataset(data, seed=seed, train_on_all=on_all)
    tailed = split_dataset(data, seed=seed, train_on_all=on_all, imbalance=imbalance)
    assert torch.equal(tailed.validation, whole.validation)
    assert torch.equal(tailed.test, whole.test)
    assert set(tailed.train.tolist()) <= set(whole.train.tolist())
    assert torch.equal(tailed.train, tailed.train.sort().values)
    counts = np.bincount(data.labels[whole.train], minlength=classes)
    assert np.bincount(data.labels[tailed.train], minlength=classes).tolist() == long_tail(counts, imbalance).tolist()
    steeper = split_dataset(data, seed=seed, train_on_all=on_all, imbalance=2 * imbalance)
    assert set(steeper.train.tolist()) <= set(tailed.train.tolist())


def test_the_tail_is_cut_from_the_limited_training_part() -> None:
    data = load_dataset("digits")
    split = split_dataset(data, train_per_class=100, imbalance=10)
    found = torch.bincount(data.labels[split.train]).tolist()
    assert found == [100, 77, 59, 46, 35, 27, 21, 16, 12, 10]
    limited = split_dataset(data, train_per_class=100)
    assert set(split.train.tolist()) <= set(limited.train.tolist())
    other = split_dataset(data, train_per_class=100, imbalance=10, seed=1)
    assert torch.bincount(data.labels[other.train]).tolist() == found
    assert other.train.tolist() != split.train.tolist()
