"""Bag networks by name: sizes, options, messages, states; AEM's annealing; ASMIL's tokens and anchor."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ncmi.networks.bags import ABMIL, AEM, ASMIL, MaxPool, MeanPool, TransMIL, make_bag_network
from ncmi.networks.bags.packing import BagModule
from ncmi.recipes import BagNetwork

CLASSES = {"abmil": ABMIL, "transmil": TransMIL, "aem": AEM, "asmil": ASMIL, "mean": MeanPool, "max": MaxPool}
names = pytest.mark.parametrize("name", CLASSES)


def make(name: str, instance_dim: int = 10, **options: Any) -> BagModule:
    return make_bag_network(BagNetwork(name, **{"width": 16, **options}), instance_dim)  # type: ignore[arg-type]


@names
def test_made_by_name(name: str) -> None:
    network = make(name)
    assert type(network) is CLASSES[name]
    assert network.feature_dim == 16
    assert network(torch.randn(3, 10)).vector.shape == (16,)


@names
@pytest.mark.parametrize(
    ("width_in", "width"), [(27, 128), (384, 128), (512, 256), (513, 512), (1024, 512), (1536, 512)]
)
def test_width_by_the_width_of_the_features(name: str, width_in: int, width: int) -> None:
    network = make(name, width_in, width=0)
    assert network.feature_dim == width
    assert network.get_parameter("projection.linear.weight").shape == (width, width_in)


def test_options_reach_the_networks() -> None:
    assert make("abmil", attention_dim=9).get_parameter("hidden.weight").shape == (18, 16)
    assert make("abmil", attention_dim=9, gated=False).get_parameter("hidden.weight").shape == (9, 16)
    transmil = make("transmil", heads=4, landmarks=3)
    assert isinstance(transmil, TransMIL)
    assert (transmil.first.heads, transmil.last.heads, transmil.first.landmarks, transmil.last.landmarks) == (
        4,
        4,
        3,
        3,
    )
    assert (transmil.first.iterations, transmil.last.iterations) == (6, 6)
    halved = make("transmil")
    assert isinstance(halved, TransMIL)
    assert (halved.first.heads, halved.first.landmarks, halved.last.landmarks) == (8, 8, 8)
    aem = make("aem", heads=4, entropy_weight=0.5, anneal_entropy=False)
    assert isinstance(aem, AEM)
    assert (aem.query.heads, aem.entropy_weight, aem.anneal) == (4, 0.5, False)
    asmil = make("asmil", heads=4, queries=6, query_dropout=0.4, anchor_weight=2.0, anchor_decay=0.9)
    assert isinstance(asmil, ASMIL)
    assert (len(asmil.queries), asmil.kept, asmil.anchor_weight, asmil.anchor_decay) == (6, 4, 2.0, 0.9)
    for name in CLASSES:
        assert make(name, dropout=0.3).get_submodule("dropout").p == 0.3


@names
def test_dropout_in_training_alone(name: str) -> None:
    network, features = make(name, dropout=0.5), torch.randn(8, 10)
    assert not torch.equal(network(features).vector, network(features).vector)
    network.eval()
    assert torch.equal(network(features).vector, network(features).vector)


@names
def test_an_output_layer_is_behind_the_pooling(name: str) -> None:
    bags, mask = torch.randn(2, 4, 24), torch.tensor([[True] * 4, [True, True, False, False]])
    network = make_bag_network(BagNetwork(name, output_layer="linear"), 24).eval()  # type: ignore[arg-type]
    layer = network.output_layer
    assert isinstance(layer, torch.nn.Linear)
    found = network(bags, mask)
    assert (found.vector < 0).any()
    network.output_layer = None
    before = network(bags, mask)
    torch.testing.assert_close(found.vector, before.vector @ layer.weight.T + layer.bias)
    assert torch.equal(found.attention, before.attention)


@names
def test_state_dict_is_all_there_is(name: str) -> None:
    network, other, features = make(name), make(name), torch.randn(8, 10)
    network.set_progress(0.4)
    network.update()
    other.load_state_dict(network.state_dict())
    outputs = []
    for one in (network, other):
        torch.manual_seed(0)
        outputs.append(one.train()(features))
    assert torch.equal(outputs[0].vector, outputs[1].vector)
    assert torch.equal(outputs[0].attention, outputs[1].attention)
    assert outputs[0].penalty is None or torch.equal(outputs[0].penalty, outputs[1].penalty)


@names
@pytest.mark.parametrize(
    ("features", "mask", "message"),
    [
        (torch.zeros(4, 7), None, r"7 wide but the network takes 10: make it with instance_dim=7"),
        (torch.zeros(4), None, r"features \[4\]: expected one bag \[N, D_feat\] or a padded batch"),
        (torch.zeros(1, 1, 4, 10), None, r"expected one bag"),
        (torch.zeros(0, 4, 10), None, r"B ≥ 1"),
        (torch.zeros(0, 10), None, r"at least one instance; leave empty bags out"),
        (torch.zeros(2, 0, 10), None, r"at least one instance; leave empty bags out"),
        (torch.zeros(4, 10, dtype=torch.int64), None, r"features are torch.int64: use features.float\(\)"),
        (
            torch.zeros(4, 10),
            torch.ones(4, dtype=torch.bool),
            r"are one bag, which takes no mask: use features\[mask\]",
        ),
        (
            torch.zeros(2, 4, 10),
            torch.ones(2, 5, dtype=torch.bool),
            r"mask is torch.bool \[2, 5\]: it must be torch.bool \[2, 4\]",
        ),
        (torch.zeros(2, 4, 10), torch.ones(2, 4), r"mask is torch.float32 \[2, 4\]: it must be torch.bool"),
        (
            torch.zeros(3, 2, 10),
            torch.tensor([[True, True], [False, False], [True, False]]),
            r"bag 1 of the batch has no instance .* leave empty bags out",
        ),
    ],
)
def test_bags_that_do_not_fit(name: str, features: Tensor, mask: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(name)(features, mask)


@pytest.mark.parametrize("name", ["transmil", "aem", "asmil"])
def test_heads_that_do_not_divide_the_width(name: str) -> None:
    with pytest.raises(ValueError, match="width 16 cannot be shared among 5 heads: choose heads that divide it"):
        make(name, heads=5)


def test_other_options_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="unknown bag network 'clam'; known: abmil, transmil, aem, asmil, mean, max"):
        make_bag_network(replace(BagNetwork(), name="clam"), 10)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="instance_dim=0: must be at least 1"):
        make("abmil", 0)
    with pytest.raises(ValueError, match="at least one query has to be kept"):
        ASMIL(10, query_dropout=1.0)
    with pytest.raises(ValueError, match="landmarks=-1: must be at least 1"):
        TransMIL(10, landmarks=-1)
    with pytest.raises(ValueError, match=r"share=1\.5: the part of the training that is done runs from 0 to 1"):
        AEM(10).set_progress(1.5)


def test_entropy_penalty_is_annealed_along_half_a_cosine() -> None:
    network, features = make("aem", entropy_weight=0.3), torch.randn(20, 10)

    def penalty(share: float) -> float:
        network.set_progress(share)
        found = network(features).penalty
        assert found is not None
        return float(found.detach())

    start = penalty(0.0)
    assert -0.3 * math.log(20) <= start < 0
    for share in (0.25, 0.5, 0.9, 1.0):
        assert penalty(share) == pytest.approx(start * (1 + math.cos(math.pi * share)) / 2, abs=1e-6)
    assert isinstance(network, AEM)
    network.anneal = False
    assert penalty(0.7) == pytest.approx(start)


def test_entropy_penalty_spreads_attention() -> None:
    network, features = make("aem", entropy_weight=1.0, heads=2), 3 * torch.randn(20, 10)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    before = network(features).penalty
    for _ in range(50):
        optimizer.zero_grad()
        penalty = network(features).penalty
        assert penalty is not None
        penalty.backward()
        optimizer.step()
    assert before is not None
    assert float(penalty.detach()) < float(before.detach())
    assert float(penalty.detach()) == pytest.approx(-math.log(20), abs=0.02)


def test_tokens_are_dropped_in_training_alone() -> None:
    network = make("asmil", queries=5, query_dropout=0.5)
    assert isinstance(network, ASMIL)
    biases = [network.get_parameter(f"values.{index}.output.bias") for index in range(5)]
    features, counts = torch.randn(2, 10), [0] * 5
    for _ in range(60):
        gradients = torch.autograd.grad(network(features).vector.square().sum(), biases)
        used = [bool(gradient.any()) for gradient in gradients]
        assert sum(used) == 3
        counts = [count + one for count, one in zip(counts, used, strict=True)]
    assert all(20 < count < 55 for count in counts)
    network.eval()
    assert all(gradient.any() for gradient in torch.autograd.grad(network(features).vector.square().sum(), biases))


def test_each_bag_drops_tokens_of_its_own() -> None:
    vectors = make("asmil")(torch.randn(1, 3, 10).expand(20, 3, 10)).vector
    assert len(torch.unique(vectors.detach(), dim=0)) > 1


def test_every_weight_has_a_gradient_in_every_step() -> None:
    network = make("asmil")
    output = network(torch.randn(3, 10))
    assert output.penalty is not None
    (output.vector.sum() + output.penalty).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_anchor_is_a_moving_average_of_the_network() -> None:
    network = make("asmil", anchor_decay=0.8)
    expected = {key: value.clone() for key, value in network.state_dict().items() if key.startswith("anchor.")}
    assert sorted({key.split(".")[1] for key in expected}) == ["projection", "queries"]
    for key, value in expected.items():
        assert torch.equal(value, network.get_parameter(key.removeprefix("anchor.")))
    for _ in range(3):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter)
        network.update()
        for key, value in expected.items():
            value.mul_(0.8).add_(0.2 * network.get_parameter(key.removeprefix("anchor.")).detach())
    for key, value in expected.items():
        torch.testing.assert_close(network.get_buffer(key), value)


def test_anchor_is_not_trained() -> None:
    network = make("asmil", anchor_weight=3.0)
    assert not any(key.startswith("anchor.") for key, _ in network.named_parameters())
    before = {key: value.clone() for key, value in network.named_buffers()}
    optimizer = torch.optim.AdamW(network.parameters(), 0.1, weight_decay=0.5)
    penalties = []
    for _ in range(30):
        output = network(torch.randn(12, 10))
        assert output.penalty is not None
        optimizer.zero_grad()
        (output.vector.sum() + output.penalty).backward()
        optimizer.step()
        penalties.append(float(output.penalty.detach()))
    assert all(penalty >= 0 for penalty in penalties)
    for key, value in network.named_buffers():
        assert not value.requires_grad
        assert torch.equal(value, before[key])


def test_anchor_penalty_pulls_attention_to_the_anchor() -> None:
    network, features = make("asmil", queries=2, heads=2), torch.randn(15, 10)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(200):
        penalty = network(features).penalty
        assert penalty is not None
        optimizer.zero_grad()
        penalty.backward()
        optimizer.step()
    assert float(penalty.detach()) < 1e-3


def test_no_anchor_without_its_penalty() -> None:
    network = make("asmil", anchor_weight=0.0)
    network.update()
    assert network(torch.randn(3, 10)).penalty is None
    assert not any(key.startswith("anchor.") for key in network.state_dict())
