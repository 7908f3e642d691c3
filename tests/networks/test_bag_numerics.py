"""Bag networks: half precision, extreme scales, and bags from one instance to two hundred thousand."""

from __future__ import annotations

import pytest
import torch

from ncmi.networks.bags import ABMIL, AEM, ASMIL, BagModule, MaxPool, MeanPool, TransMIL

D_IN = 24
NETWORKS = {
    "abmil": lambda: ABMIL(D_IN, width=16, attention_dim=8),
    "transmil": lambda: TransMIL(D_IN, width=16, heads=2, landmarks=8),
    "aem": lambda: AEM(D_IN, width=16, heads=4),
    "asmil": lambda: ASMIL(D_IN, width=16, heads=4),
    "mean": lambda: MeanPool(D_IN, width=16),
    "max": lambda: MaxPool(D_IN, width=16),
}
names = pytest.mark.parametrize("name", NETWORKS)


def make(name: str) -> BagModule:
    torch.manual_seed(2)
    return NETWORKS[name]()


def check(network: BagModule, features: torch.Tensor) -> None:
    """Everything finite, gradients as well, and attention sums to 1."""
    output = network(features)
    (output.vector.sum() + (0 if output.penalty is None else output.penalty)).backward()
    assert output.vector.isfinite().all()
    assert output.vector.dtype == output.attention.dtype == torch.float32
    assert (output.attention >= 0).all()
    assert abs(float(output.attention.detach().double().sum()) - 1) < 1e-5
    for parameter in network.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


@names
@pytest.mark.parametrize("count", [1, 2, 200_000])
def test_from_one_instance_to_two_hundred_thousand(name: str, count: int) -> None:
    # TransMIL's convolutions take seconds
    check(make(name), torch.randn(min(count, 50_000) if name == "transmil" else count, D_IN))


@names
def test_a_large_bag_is_exact(name: str) -> None:
    count = 10_000 if name == "transmil" else 100_000  # its convolutions in float64 take seconds
    network, features = make(name).eval(), torch.randn(count, D_IN)
    with torch.no_grad():
        found = network(features)
        exact = network.double()(features.double())
    torch.testing.assert_close(found.vector.double(), exact.vector, rtol=1e-4, atol=1e-5)
    if name != "max":  # where values are within rounding of the largest, another instance may give it
        torch.testing.assert_close(found.attention.double(), exact.attention, rtol=2e-3, atol=1e-10)


@names
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e4, 1e8])
def test_scale_of_features(name: str, scale: float) -> None:
    check(make(name), scale * torch.randn(50, D_IN))


@names
def test_features_of_different_scales(name: str) -> None:
    check(make(name), torch.randn(50, D_IN) * torch.logspace(-8, 8, D_IN))
    check(make(name), torch.randn(50, D_IN) * torch.logspace(-8, 8, 50)[:, None])
    check(make(name), torch.zeros(50, D_IN))


@names
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_features_of_other_precision_are_taken_to_that_of_the_weights(name: str, dtype: torch.dtype) -> None:
    network, features = make(name).eval(), torch.randn(30, D_IN).to(dtype)
    found, expected = network(features), network(features.float())
    assert found.vector.dtype == torch.float32
    assert torch.equal(found.vector, expected.vector)
    assert torch.equal(found.attention, expected.attention)


@names
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_autocast(name: str, dtype: torch.dtype) -> None:
    network, features = make(name), torch.randn(300, D_IN)
    with torch.no_grad():
        exact = network.eval()(features)
    network.train()
    with torch.autocast("cpu", torch.bfloat16):
        check(network, features.to(dtype))  # backward inside autocast as well
        with torch.no_grad():
            found = network.eval()(features.to(dtype))
    torch.testing.assert_close(found.vector.float(), exact.vector, rtol=0.1, atol=0.05)
    if name != "max":
        torch.testing.assert_close(found.attention, exact.attention, rtol=0.1, atol=1e-4)


@pytest.mark.parametrize("name", ["aem", "asmil", "abmil"])
def test_softmax_is_in_float32_under_autocast(name: str) -> None:
    # in bfloat16 weights of 1/5000 would be off by up to 1/256 of themselves, and all of them alike
    network = make(name).eval()
    features = torch.ones(5000, D_IN)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        attention = network(features).attention
    torch.testing.assert_close(attention, torch.full((5000,), 1 / 5000), rtol=1e-5, atol=0)


@names
def test_inference_mode(name: str) -> None:
    network, features = make(name).eval(), torch.randn(20, D_IN)
    with torch.inference_mode():
        found = network(features)
    torch.testing.assert_close(found.vector, network(features).vector, rtol=1e-5, atol=1e-7)
