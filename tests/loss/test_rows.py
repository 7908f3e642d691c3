"""The optimizer with one number a row: it is its formula, and a sparse gradient is as a dense one."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import ncmi
from ncmi.loss.rows import RowAdagrad


def test_it_is_its_formula() -> None:
    generator = np.random.default_rng(0)
    expected = generator.normal(size=(7, 5))
    table = nn.Parameter(torch.tensor(expected))
    optimizer = RowAdagrad([table], lr=0.3, eps=1e-3)
    sums = np.zeros(7)
    for step in range(4):
        gradient = generator.normal(size=(7, 5)) * (np.arange(7) != step)[:, None]
        optimizer.param_groups[0]["lr"] = rate = 0.3 / (step + 1)
        sums += (gradient**2).mean(1)
        expected -= rate * gradient / (np.sqrt(sums) + 1e-3)[:, None]
        table.grad = torch.tensor(gradient)
        optimizer.step()
        np.testing.assert_allclose(table.detach().numpy(), expected, rtol=1e-12)
    state = optimizer.state_dict()["state"][0]
    assert sum(value.numel() for value in state.values()) == 7
    other = RowAdagrad([table])
    other.load_state_dict(optimizer.state_dict())
    torch.testing.assert_close(other.state[table]["sum"].squeeze(1).numpy(), sums)


def test_a_sparse_gradient_is_as_a_dense_one() -> None:
    torch.manual_seed(0)
    labels, features = torch.randint(50, (8,)), torch.randn(8, 6, dtype=torch.float64)
    tables = []
    for sparse in (False, True):
        torch.manual_seed(1)
        loss = ncmi.NCMILoss(50, 6, anchors="random", sampled_classes=9, sparse_gradient=sparse).double()
        before = copy.deepcopy(loss.centroid_logits.detach())
        optimizer = RowAdagrad(loss.centroid_parameters())
        for _ in range(3):
            optimizer.zero_grad()
            loss(features, labels).backward()
            assert loss.centroid_logits.grad is not None
            assert loss.centroid_logits.grad.is_sparse == sparse
            optimizer.step()
        moved = (loss.centroid_logits.detach() != before).any(1)
        assert moved[labels].all()
        assert not moved.all()
        tables.append(loss.centroid_logits.detach())
    torch.testing.assert_close(*tables, rtol=1e-12, atol=1e-15)


def test_it_learns() -> None:
    torch.manual_seed(0)
    loss = ncmi.NCMILoss(30, 8, anchors="random")
    labels = torch.arange(30)
    features = torch.randn(30, 8)
    optimizer = RowAdagrad(loss.centroid_parameters())
    before = float(loss(features, labels).detach())
    for _ in range(50):
        optimizer.zero_grad()
        value = optimizer.step(lambda: backward_of(loss, features, labels))
    assert value is not None
    assert float(value) < 0.1 * before


def backward_of(loss: ncmi.NCMILoss, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    value = loss(features, labels)
    value.backward()
    return value.detach()


@pytest.mark.parametrize(("options", "cure"), [({"lr": -1.0}, "lr"), ({"eps": -1.0}, "eps")])
def test_options_out_of_range(options: dict[str, float], cure: str) -> None:
    with pytest.raises(ValueError, match=cure):
        RowAdagrad([nn.Parameter(torch.zeros(2, 2))], **options)
    with pytest.raises(ValueError, match="no rows"):
        RowAdagrad([nn.Parameter(torch.zeros(3))])
