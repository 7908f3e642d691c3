"""Networks that return features: shapes, errors, independence of the batch, and networks of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ncmi.networks import MLP, ConvNet, make_network, register_network
from ncmi.recipes import Network, Recipe, TableData, Training
from ncmi.training.model import load_model
from ncmi.training.run import train

IMAGES = [(1, 8, 8), (3, 8, 8), (1, 5, 7), (3, 5, 7), (3, 32, 32), (1, 1, 2), (1, 2, 9)]


@pytest.mark.parametrize("shape", IMAGES)
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("width", [5, 6, 8])
def test_convnet(shape: tuple[int, ...], depth: int, width: int) -> None:
    network = make_network(Network("convnet", width=width, depth=depth, feature_dim=6), shape)
    images = torch.randn(4, *shape)
    features = network(images)
    assert features.shape == (4, 6)
    assert network(images[:0]).shape == (0, 6)
    # no sample's feature depends on another sample
    torch.testing.assert_close(network(images[2:3]), features[2:3])
    features.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [
        width * 2**block for block in range(depth) for _ in range(2)
    ]


@pytest.mark.parametrize("shape", [(13,), (1,), (1, 8, 8), (3, 5, 7)])
@pytest.mark.parametrize("depth", [0, 2])
def test_mlp(shape: tuple[int, ...], depth: int) -> None:
    inputs = torch.randn(4, *shape)
    network = MLP(inputs[0].numel(), width=7, depth=depth, feature_dim=5)
    assert network(inputs).shape == (4, 5)
    assert network(inputs[:0]).shape == (0, 5)
    assert len([layer for layer in network.modules() if isinstance(layer, nn.Linear)]) == depth + 1
    if depth:
        from_options = make_network(Network("mlp", width=7, depth=depth, feature_dim=5), shape)
        assert [p.shape for p in from_options.parameters()] == [p.shape for p in network.parameters()]


def test_mlp_is_linear_and_relu() -> None:
    network = MLP(3, width=4, depth=1, feature_dim=2)
    (first, first_bias), (last, last_bias) = (
        (layer.weight, layer.bias) for layer in network.modules() if isinstance(layer, nn.Linear)
    )
    x = torch.randn(5, 3)
    expected = (x @ first.T + first_bias).clamp_min(0) @ last.T + last_bias
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_dropout_is_for_training(name: str) -> None:
    network = make_network(Network(name, width=32, depth=2, feature_dim=5, dropout=0.5), (1, 8, 8))
    x = torch.randn(3, 1, 8, 8)
    assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), network(x))
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.5] * (
        2 if name == "mlp" else 1
    )


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        (Network("resnet"), (3, 8, 8), "unknown network 'resnet'; known: .*mlp, convnet"),
        (
            Network("convnet", 8, 1, 4),
            (13,),
            r"a convnet takes images, not samples of shape \[13\]: use network 'mlp'",
        ),
        (Network("convnet", 8, 0, 4), (1, 8, 8), "a convnet needs width and depth of at least 1"),
        (Network("convnet", 0, 1, 4), (1, 8, 8), "a convnet needs width and depth of at least 1"),
    ],
)
def test_errors(options: Network, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_network(options, shape)


class Twice(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(13, dim)

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = 2 * self.linear(inputs)
        return features


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    register_network("twice", lambda shape, options: Twice(options.feature_dim))
    training = Training(epochs=1, accelerator="cpu", threads=1)
    recipe = Recipe(TableData("wine"), Network("twice", feature_dim=9), training=training)
    train(recipe, tmp_path / "run")
    assert isinstance(load_model(tmp_path / "run").network, Twice)
    with pytest.raises(ValueError, match="network 'twice' is registered already; choose another name"):
        register_network("twice", lambda shape, options: Twice(1))
    assert isinstance(make_network(Network("convnet", 8, 1, 4), (1, 8, 8)), ConvNet)
