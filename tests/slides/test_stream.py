"""Bags read ahead: in order, within bounds, with errors where they belong; drawn instances; bags as one batch."""

from __future__ import annotations

import gc
import random
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import closing

import pytest
import torch
from bag_writers import FakeSource
from hypothesis import given
from hypothesis import strategies as st

from ncmi.data.bags.bag import Bag, BagError
from ncmi.data.bags.stream import BagCache, BagStream, pad_bags, subsample, usable_bags

SIZES = {f"{i:02d}": 1 + i % 5 for i in range(40)}


class MeasuredSource(FakeSource):
    """Counts the bytes of the bags that are alive, and takes an uneven time to read them."""

    def __init__(self, *args: object, delay: float = 0.001) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.live = self.peak = self.at_once = self.most_at_once = 0
        self.delay = delay

    def load(self, name: str) -> Bag:
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.delay * random.Random(name).random())
        bag = super().load(name)
        size = bag.features.nbytes
        with self.lock:
            self.at_once -= 1
            self.live += size
            self.peak = max(self.peak, self.live)
        weakref.finalize(bag.features, self._gone, size)
        return bag

    def _gone(self, size: int) -> None:
        with self.lock:
            self.live -= size


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("ncmi-bags")] == []


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("prefetch", [0, 100, 10**9])
def test_bags_come_in_the_order_asked_for(threads: int, prefetch: int) -> None:
    source = MeasuredSource(SIZES)
    names = random.Random(0).choices(source.names, k=60)
    stream = BagStream(source, names, threads=threads, prefetch_bytes=prefetch)
    assert len(stream) == 60
    for _ in range(2):
        bags = list(stream)
        assert [bag.name for bag in bags] == names
        assert all(len(bag.features) == SIZES[bag.name] for bag in bags)
        assert all(bool((bag.features == source.numbers[bag.name]).all()) for bag in bags)
    assert source.most_at_once <= threads
    assert source.most_at_once == 1 or prefetch > 0


def test_memory_is_bounded() -> None:
    source = MeasuredSource(dict.fromkeys(SIZES, 1000), 16)
    one = 1000 * 16 * 4
    bound = 5 * (one + 16 * 1000)  # positions are counted as well
    for bag in BagStream(source, source.names, threads=3, prefetch_bytes=bound):
        time.sleep(0.002)  # slower than reading: all that may be read ahead is
        del bag
    assert 2 * one < source.peak <= 6 * one  # the one in use comes on top
    assert source.live == 0


def test_a_bag_larger_than_the_bound_is_read_alone() -> None:
    source = MeasuredSource({"a": 10, "b": 10_000, "c": 10, "d": 10_000})
    for bag in BagStream(source, source.names, prefetch_bytes=1000):
        del bag
    assert source.most_at_once == 1
    assert source.peak == 10_010 * 16


def test_reading_goes_on_while_a_bag_is_used() -> None:
    source = FakeSource(SIZES)
    with closing(iter(BagStream(source, source.names))) as bags:
        next(bags)
        deadline = time.monotonic() + 10
        while len(source.reads) < len(SIZES) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert sorted(source.reads) == list(source.names)


def test_as_much_is_read_ahead_to_the_end_as_may_be() -> None:
    source = FakeSource(dict.fromkeys(SIZES, 1))
    with closing(iter(BagStream(source, source.names, prefetch_bytes=3 * 32))) as bags:
        for used, _ in enumerate(bags, start=1):
            expected = min(used + 3, len(SIZES))
            deadline = time.monotonic() + 10
            while len(source.reads) < expected and time.monotonic() < deadline:
                time.sleep(0.0005)
            assert len(source.reads) == expected


@pytest.mark.parametrize("threads", [1, 4])
def test_an_error_comes_in_its_bag_s_place(threads: int) -> None:
    source = FakeSource(SIZES, broken=["07"])
    seen = []
    with pytest.raises(BagError, match="fake/07: broken"):
        for bag in BagStream(source, source.names, threads=threads):
            seen.append(bag.name)
    assert seen == list(source.names[:7])


def test_an_error_of_a_shape_comes_in_its_bag_s_place() -> None:
    class Shapeless(FakeSource):
        def shape(self, name: str) -> tuple[int, int]:
            if name in self.broken:
                raise BagError(f"{name}: no shape")
            return super().shape(name)

    seen = []
    with pytest.raises(BagError, match="fake/07: broken"):
        for bag in BagStream(Shapeless(SIZES, broken=["07"]), sorted(SIZES)):
            seen.append(bag.name)
    assert len(seen) == 7


def test_a_loop_that_is_left_ends_the_threads() -> None:
    source = MeasuredSource(SIZES, delay=0.01)
    stream = BagStream(source, source.names, threads=3, prefetch_bytes=200)
    for bag in stream:
        assert bag.name == "00"
        break
    gc.collect()
    assert len(source.reads) < len(SIZES)
    iteration = iter(stream)
    next(iteration)
    iteration.close()
    assert list(iteration) == []
    assert [bag.name for bag in stream] == list(source.names)


def test_two_iterations_at_once_do_not_disturb_each_other() -> None:
    source = FakeSource(SIZES)
    stream = BagStream(source, source.names)
    assert [(a.name, b.name) for a, b in zip(stream, stream, strict=True)] == [(n, n) for n in source.names]


def test_nothing_to_read() -> None:
    assert list(BagStream(FakeSource(SIZES), [])) == []


@pytest.mark.parametrize("options", [{"threads": 0}, {"prefetch_bytes": -1}])
def test_impossible_options(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="give at least 0 and 1"):
        BagStream(FakeSource(SIZES), [], **options)  # type: ignore[arg-type]


def test_a_cohort_that_fits_is_read_once() -> None:
    source = FakeSource(SIZES)
    cache = BagCache(1.0)
    first = list(BagStream(source, source.names, cache=cache))
    again = list(BagStream(source, source.names[::-1], cache=cache))
    assert len(source.reads) == len(SIZES)
    assert all(a is b for a, b in zip(first, again[::-1], strict=True))
    assert cache.bytes == sum(bag.nbytes for bag in first) == 16 * sum(SIZES.values())


@pytest.mark.parametrize("spare", [0, -1])
def test_a_cohort_is_kept_whole_or_not_at_all(spare: int) -> None:
    source = MeasuredSource(SIZES)
    limit = 16 * sum(SIZES.values()) + spare
    cache = BagCache(limit / 1e9)
    for _ in range(2):
        for bag in BagStream(source, source.names, prefetch_bytes=0, cache=cache):
            del bag
    assert len(source.reads) == (len(SIZES) if spare == 0 else 2 * len(SIZES))
    assert source.live == cache.bytes == (limit if spare == 0 else 0)


def test_no_cache() -> None:
    source = FakeSource(SIZES)
    cache = BagCache(0)
    list(BagStream(source, source.names, cache=cache))
    assert cache.get("00") is None


def test_bytes_of_a_bag() -> None:
    bag = Bag("a", torch.zeros(3, 5, dtype=torch.float16), torch.zeros(3, 2, dtype=torch.int64))
    assert bag.nbytes == 3 * 5 * 2 + 3 * 2 * 8


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


def test_usable_bags_are_read_once() -> None:
    source = FakeSource({"a": 3, "b": 2, "c": 4}, broken=["b"])
    left_out: list[tuple[str, str]] = []
    bags = list(usable_bags(source, 4, on_bad=lambda *about: left_out.append(about)))
    assert [bag.name for bag in bags] == ["a", "c"]
    assert sorted(source.reads) == ["a", "b", "c"]
    assert left_out == [("b", "fake/b: broken")]


def test_bags_that_cannot_be_used_are_errors_unless_they_are_skipped() -> None:
    source = FakeSource({"a": 3, "b": 2}, broken=["b"])
    read: list[str] = []
    with pytest.raises(BagError, match="fake/b: broken"):
        read += [bag.name for bag in usable_bags(source, 4)]
    wide = FakeSource({"a": 3}, width=5)
    with pytest.raises(BagError, match="a: features of width 5, where the model was trained on 4: embed the slides"):
        list(usable_bags(wide, 4))
    assert wide.reads == []
    left_out: list[tuple[str, str]] = []
    with pytest.raises(BagError, match="no slide can be used"):
        list(usable_bags(wide, 4, on_bad=lambda *about: left_out.append(about)))
    assert left_out == [("a", "features of width 5, where the model was trained on 4")]
    assert wide.reads == []
