"""Bag networks: a padded batch gives what its bags give one by one, and padding is never read."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ncmi.networks.bags import ABMIL, AEM, ASMIL, BagModule, MaxPool, MeanPool, TransMIL

D_IN = 6
NETWORKS = {
    "abmil": lambda: ABMIL(D_IN, width=16, attention_dim=8),
    "abmil_plain": lambda: ABMIL(D_IN, width=16, attention_dim=8, gated=False),
    "transmil": lambda: TransMIL(D_IN, width=16, heads=4, landmarks=5),
    "aem": lambda: AEM(D_IN, width=16, heads=4),
    "asmil": lambda: ASMIL(D_IN, width=16, heads=4),
    "mean": lambda: MeanPool(D_IN, width=16),
    "max": lambda: MaxPool(D_IN, width=16),
}
names = pytest.mark.parametrize("name", NETWORKS)


def make(name: str) -> BagModule:
    torch.manual_seed(1)
    return NETWORKS[name]().double()


def padded(bags: list[Tensor], filler: float) -> tuple[Tensor, Tensor]:
    """Bags at random places of a batch, ``filler`` everywhere else; the mask says where they are."""
    longest = max(map(len, bags)) + 2
    batch = torch.full((len(bags), longest, D_IN), filler, dtype=torch.float64)
    mask = torch.zeros(len(bags), longest, dtype=torch.bool)
    for row, bag in enumerate(bags):
        places = torch.randperm(longest)[: len(bag)].sort().values
        batch[row, places], mask[row, places] = bag, True
    return batch, mask


@names
@pytest.mark.parametrize("filler", [0.0, 1e6, math.nan, math.inf])
@pytest.mark.parametrize("training", [True, False])
def test_batch_is_one_by_one(name: str, filler: float, training: bool) -> None:
    network = make(name).train(training)
    bags = [torch.randn(count, D_IN, dtype=torch.float64) for count in (1, 4, 17, 2, 17, 30)]
    batch, mask = padded(bags, filler)
    batch.requires_grad_()

    torch.manual_seed(5)
    together = network(batch, mask)
    assert together.vector.shape == (6, 16)
    assert together.attention.shape == mask.shape
    loss = (together.vector.sin().sum(-1)).mean() + (0 if together.penalty is None else together.penalty)
    loss.backward()
    gradients = {key: value.grad for key, value in network.named_parameters()}
    network.zero_grad()

    torch.manual_seed(5)
    penalties = []
    for row, bag in enumerate(bags):
        bag.requires_grad_()
        alone = network(bag)
        assert alone.vector.shape == (16,)
        torch.testing.assert_close(together.vector[row], alone.vector, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(together.attention[row][mask[row]], alone.attention, rtol=1e-9, atol=1e-12)
        assert (together.attention[row][~mask[row]] == 0).all()
        part = alone.vector.sin().sum() / len(bags)
        if alone.penalty is not None:
            penalties.append(alone.penalty.detach())
            part = part + alone.penalty / len(bags)
        part.backward()
        assert batch.grad is not None
        torch.testing.assert_close(batch.grad[row][mask[row]], bag.grad, rtol=1e-8, atol=1e-12)
    assert (batch.grad[~mask] == 0).all()
    assert (together.penalty is None) == (not penalties)
    if together.penalty is not None:
        torch.testing.assert_close(together.penalty, torch.stack(penalties).mean())
    for key, value in network.named_parameters():
        if value.grad is not None or gradients[key] is not None:
            torch.testing.assert_close(gradients[key], value.grad, rtol=1e-8, atol=1e-12)


@names
def test_a_batch_needs_no_mask_where_no_bag_is_padded(name: str) -> None:
    network = make(name).eval()
    batch = torch.randn(3, 8, D_IN, dtype=torch.float64)
    plain, masked = network(batch), network(batch, torch.ones(3, 8, dtype=torch.bool))
    assert plain.attention.shape == (3, 8)
    for row in range(3):
        torch.testing.assert_close(plain.vector[row], network(batch[row]).vector)
        torch.testing.assert_close(plain.attention[row], network(batch[row]).attention)
    assert torch.equal(plain.vector, masked.vector)
    assert torch.equal(plain.attention, masked.attention)


@names
@pytest.mark.parametrize("counts", [[4], [7], [1], [16], [16, 16], [5, 6], [16, 15, 10], [3, 30, 3, 4]])
def test_padding_beyond_the_longest_bag(name: str, counts: list[int]) -> None:
    """Batches padded to a length of the caller's, at the end of each row."""
    network = make(name).eval()
    bags = [torch.randn(count, D_IN, dtype=torch.float64) for count in counts]
    batch = torch.full((len(bags), 33, D_IN), math.nan, dtype=torch.float64)
    mask = torch.arange(33) < torch.tensor(counts)[:, None]
    batch[mask] = torch.cat(bags)
    together = network(batch, mask)
    assert together.attention.shape == mask.shape
    assert (together.attention[~mask] == 0).all()
    for row, bag in enumerate(bags):
        alone = network(bag)
        torch.testing.assert_close(together.vector[row], alone.vector, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(together.attention[row, : len(bag)], alone.attention, rtol=1e-9, atol=1e-12)


@names
@given(seed=st.integers(0, 10_000), counts=st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_attention_is_a_distribution_over_instances(name: str, seed: int, counts: list[int]) -> None:
    network = make(name).eval()
    torch.manual_seed(seed)
    bags = [3 * torch.randn(count, D_IN, dtype=torch.float64) for count in counts]
    batch, mask = padded(bags, math.nan)
    output = network(batch, mask)
    assert (output.attention >= 0).all()
    torch.testing.assert_close(output.attention.sum(1), torch.ones(len(bags), dtype=torch.float64))
    assert output.vector.isfinite().all()


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "transmil"])
@given(seed=st.integers(0, 10_000), count=st.integers(1, 40))
def test_the_order_of_instances_does_not_matter(name: str, seed: int, count: int) -> None:
    network = make(name).eval()
    torch.manual_seed(seed)
    bag, order = torch.randn(count, D_IN, dtype=torch.float64), torch.randperm(count)
    straight, shuffled = network(bag), network(bag[order])
    torch.testing.assert_close(shuffled.vector, straight.vector, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(shuffled.attention, straight.attention[order], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["abmil", "aem", "asmil", "mean", "max"])
def test_a_bag_twice_over_has_the_same_vector(name: str) -> None:
    network = make(name).eval()
    bag = torch.randn(9, D_IN, dtype=torch.float64)
    once, twice = network(bag), network(torch.cat([bag, bag]))
    torch.testing.assert_close(twice.vector, once.vector)
    torch.testing.assert_close(twice.attention[:9] + twice.attention[9:], once.attention)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "max"])
def test_vector_depends_on_every_instance(name: str) -> None:
    network = make(name).eval()
    bag = torch.randn(6, D_IN, dtype=torch.float64, requires_grad=True)
    network(bag).vector.square().sum().backward()
    assert bag.grad is not None
    assert (bag.grad.abs().sum(1) > 0).all()


@names
def test_what_is_not_a_number_at_an_instance_is_not_hidden(name: str) -> None:
    network = make(name).eval()
    batch, mask = padded([torch.randn(4, D_IN, dtype=torch.float64) for _ in range(2)], 0.0)
    batch[1, int(mask[1].nonzero()[2]), 3] = math.nan
    vectors = network(batch, mask).vector
    assert vectors[0].isfinite().all()
    assert vectors[1].isnan().any()
