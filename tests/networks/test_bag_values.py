"""Bag networks: vector, attention, penalty and all gradients against references written out in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import bag_reference as reference
import pytest
import torch
from torch import Tensor

from ncmi.networks.bags import ABMIL, AEM, ASMIL, BagModule, MaxPool, MeanPool, TransMIL

D_IN, WIDTH = 5, 12
Case = tuple[Callable[[], BagModule], Callable[[reference.State, Tensor], reference.Result]]
CASES: dict[str, Case] = {
    "abmil": (
        lambda: ABMIL(D_IN, width=WIDTH, attention_dim=7),
        partial(reference.abmil, gated=True),
    ),
    "abmil_plain": (
        lambda: ABMIL(D_IN, width=WIDTH, attention_dim=7, gated=False),
        partial(reference.abmil, gated=False),
    ),
    "aem": (
        lambda: AEM(D_IN, width=WIDTH, heads=3, entropy_weight=0.7),
        partial(reference.aem, weight=0.7, share=0.25),
    ),
    "asmil": (
        lambda: ASMIL(D_IN, width=WIDTH, heads=3, queries=4, query_dropout=0.5, anchor_weight=0.6),
        partial(reference.asmil, kept=(0, 3), queries=4, weight=0.6),
    ),
    "transmil": (
        lambda: TransMIL(D_IN, width=WIDTH, heads=3, landmarks=4),
        partial(reference.transmil, heads=3, landmarks=4),
    ),
    "mean": (lambda: MeanPool(D_IN, width=WIDTH), reference.mean),
    "max": (lambda: MaxPool(D_IN, width=WIDTH), reference.maximum),
}


def make(name: str) -> BagModule:
    torch.manual_seed(3)
    network = CASES[name][0]()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # no parameter is so small that a mistake with it would not show
    network.set_progress(0.25)
    if isinstance(network, ASMIL):
        network.update()  # an anchor that is not the network
    return network


@pytest.mark.parametrize("count", [1, 2, 3, 9, 23])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make(name)
    monkeypatch.setattr(torch, "randperm", lambda _: torch.tensor([3, 0, 1, 2]))  # ASMIL keeps tokens 0 and 3
    x = torch.randn(count, D_IN, dtype=torch.float64)
    state = reference.double_state(network)
    expected_x = x.clone().requires_grad_()
    vector, attention, penalty = CASES[name][1](state, expected_x)
    to = torch.randn_like(vector)
    loss = (vector * to).sum() + (0 if penalty is None else penalty)
    if attention.requires_grad:
        loss = loss + (attention * torch.arange(count)).sum()
    loss.backward()

    network.double().train()
    found_x = x.clone().requires_grad_()
    output = network(found_x)
    torch.testing.assert_close(output.vector, vector, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(output.attention, attention, rtol=1e-8, atol=1e-11)
    assert (output.penalty is None) == (penalty is None)
    found = (output.vector * to).sum()
    if output.penalty is not None and penalty is not None:
        torch.testing.assert_close(output.penalty, penalty, rtol=1e-9, atol=1e-11)
        found = found + output.penalty
    if attention.requires_grad:
        found = found + (output.attention * torch.arange(count)).sum()
    found.backward()
    torch.testing.assert_close(found_x.grad, expected_x.grad, rtol=1e-6, atol=1e-9)
    for key, parameter in network.named_parameters():
        expected = torch.zeros_like(parameter) if state[key].grad is None else state[key].grad
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", CASES)
def test_float32_is_near_float64(name: str) -> None:
    network, x = make(name).eval(), torch.randn(200, D_IN)
    output = network(x)
    exact = network.double()(x.double())
    torch.testing.assert_close(output.vector.double(), exact.vector, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(output.attention.double(), exact.attention, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("name", ["aem", "asmil"])
def test_no_penalty_outside_training(name: str) -> None:
    assert make(name).eval()(torch.randn(4, D_IN)).penalty is None


def test_asmil_without_dropped_tokens_uses_all() -> None:
    network = make("asmil").double().eval()
    x = torch.randn(6, D_IN, dtype=torch.float64)
    state = reference.double_state(network)
    vector, attention, _ = reference.asmil(state, x, kept=range(4), queries=4, weight=1.0)
    torch.testing.assert_close(network(x).vector, vector.detach())
    torch.testing.assert_close(network(x).attention, attention.detach())
