"""Instances drawn from a bag, and several bags as one batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ncmi.slides.bag import Bag
from ncmi.slides.stream import pad_bags, subsample


def bag_of(count: int) -> Bag:
    rows = torch.arange(count)
    return Bag("a", rows.float()[:, None].expand(-1, 3), torch.stack([rows, -rows], 1), 256)


@given(st.integers(1, 60), st.integers(1, 60), st.tuples(st.integers(0, 2**40), st.integers(0, 9)))
def test_drawn_instances_keep_their_positions_and_order(count: int, instances: int, seed: tuple[int, int]) -> None:
    bag = bag_of(count)
    drawn = subsample(bag, instances, seed)
    if count <= instances:
        assert drawn is bag
        return
    rows = drawn.features[:, 0].long()
    assert len(rows) == instances
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert torch.equal(drawn.features, bag.features[rows])
    assert drawn.coords is not None
    assert torch.equal(drawn.coords, torch.stack([rows, -rows], 1))
    assert (drawn.name, drawn.patch_size) == ("a", 256)
    assert torch.equal(subsample(bag, instances, seed).features, drawn.features)


def test_every_instance_is_drawn_alike_often() -> None:
    counts = torch.zeros(10)
    for seed in range(500):
        counts[subsample(bag_of(10), 3, (seed, 1)).features[:, 0].long()] += 1
    assert (counts - 150).abs().max() < 5 * (500 * 0.3 * 0.7) ** 0.5


def test_drawn_instances_that_never_change() -> None:
    assert subsample(bag_of(12), 4, (3, 1, 4)).features[:, 0].tolist() == [2, 3, 5, 8]
    assert subsample(bag_of(12), 4, (3, 1, 5)).features[:, 0].tolist() == [0, 1, 3, 5]


def test_all_instances_and_bags_without_positions() -> None:
    bag = Bag("a", torch.ones(5, 2))
    assert subsample(bag, 0, (0,)) is bag
    assert subsample(bag, 2, (0,)).coords is None
    with pytest.raises(ValueError, match=r"instances=-1: give 0 for all"):
        subsample(bag, -1, (0,))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from([torch.float16, torch.float32]))
def test_padded_batches(counts: list[int], dtype: torch.dtype) -> None:
    bags = [torch.randn(count, 3).to(dtype) for count in counts]
    batch, mask = pad_bags(bags)
    assert batch.shape == (len(counts), max(counts), 3)
    assert batch.dtype == dtype
    assert (mask is None) == (len(set(counts)) == 1)
    for row, (bag, count) in enumerate(zip(bags, counts, strict=True)):
        assert torch.equal(batch[row, :count], bag)
        assert not batch[row, count:].any()
        if mask is not None:
            assert mask.dtype == torch.bool
            assert mask[row].tolist() == [True] * count + [False] * (max(counts) - count)


def test_padding_passes_gradients() -> None:
    bags = [torch.ones(2, 3, requires_grad=True), torch.ones(4, 3, requires_grad=True)]
    batch, _ = pad_bags(bags)
    (batch * torch.arange(8.0).view(2, 4, 1)).sum().backward()
    assert [bag.grad[:, 0].tolist() for bag in bags if bag.grad is not None] == [[0, 1], [4, 5, 6, 7]]


@pytest.mark.parametrize("bags", [[], [torch.ones(2, 3), torch.ones(2, 4)]])
def test_bags_that_make_no_batch(bags: list[torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="give at least one, all"):
        pad_bags(bags)
