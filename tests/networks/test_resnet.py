"""Residual networks: sizes, values and gradients against the papers in float64, initialization, layout, precision."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from resnet_reference import TABLE, Reference, randomize, running_statistics
from torch import Tensor, nn

from ncmi.networks import make_network
from ncmi.recipes import Network
from ncmi.recipes.defaults import resolve_network

NAMES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet9", "resnet9_early", "resnet_small")


def make(name: str, shape: tuple[int, ...] = (3, 32, 32), **options: int) -> nn.Module:
    return make_network(resolve_network(Network(name, **options), shape, 100), shape)


def reference(name: str, network: nn.Module, images: Tensor, training: bool) -> tuple[Tensor, Reference]:
    """Features from the reference, on copies in float64 of the network's weights that take gradients of their own."""
    state = {
        key: value.detach().double().contiguous().clone().requires_grad_("weight" in key or "bias" in key)
        for key, value in network.state_dict().items()
    }
    net = Reference(state, training)
    if name.startswith("resnet9"):
        return net.resnet9(images.double(), early=name == "resnet9_early"), net
    return net.resnet(images.double(), *TABLE.get(name, (1, (2, 2, 2)))), net


@pytest.mark.parametrize(
    ("name", "parameters", "dim"),
    [
        ("resnet18", 11_220_132, 512),
        ("resnet34", 21_328_292, 512),
        ("resnet50", 23_705_252, 2048),
        ("resnet101", 42_697_380, 2048),
        ("resnet9", 6_568_000 + 100 * 513, 512),
        # a pair of 256 channels in place of one of 128
        ("resnet9_early", 6_568_000 + 2 * (9 * (256**2 - 128**2) + 2 * (256 - 128)) + 100 * 513, 512),
        ("resnet_small", 307_360 + 100 * 129, 128),
    ],
)
def test_sizes(name: str, parameters: int, dim: int) -> None:
    with torch.device("meta"):
        network, head = make(name), nn.Linear(dim, 100)
        assert network(torch.empty(2, 3, 32, 32)).shape == (2, dim)
    assert sum(p.numel() for part in (network, head) for p in part.parameters()) == parameters
    assert network.feature_dim == dim
    assert not any(isinstance(module, nn.Linear) for module in network.modules())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(3, 17, 17), (1, 16, 9)])
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients(name: str, shape: tuple[int, ...], training: bool) -> None:
    network = make(name, shape, width=3, depth=2 if name == "resnet_small" else 0).double().train(training)
    randomize(network)
    images = torch.randn(3, *shape, dtype=torch.float64)
    expected, net = reference(name, network, images, training)
    features = network(images)
    assert features.dtype == torch.float64
    torch.testing.assert_close(features, expected, rtol=1e-9, atol=1e-9)

    direction = torch.randn_like(expected)
    (features * direction).sum().backward()
    (expected * direction).sum().backward()
    scales = {key: float(net.state[key].grad.abs().max()) for key, _ in network.named_parameters()}  # type: ignore[union-attr]
    assert sum(scale > 0 for scale in scales.values()) > 0.9 * len(scales)  # few ReLUs of so narrow a network are dead
    for key, parameter in network.named_parameters():
        torch.testing.assert_close(
            parameter.grad, net.state[key].grad, rtol=1e-7, atol=1e-8 * scales[key] + 1e-12, msg=key
        )

    state = network.state_dict()
    assert net.used == {key for key in state if not key.endswith("num_batches_tracked")}
    if training:
        assert net.running.keys() == running_statistics(state).keys()
        for key, value in net.running.items():
            torch.testing.assert_close(state[key], value, rtol=1e-9, atol=1e-12, msg=key)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet9"])
def test_initialization(name: str) -> None:
    for key, module in make(name, width=32).named_modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is None
            weight = module.weight.detach().double()
            deviation = math.sqrt(2 / (module.out_channels * module.kernel_size[0] * module.kernel_size[1]))
            # five standard errors of the mean and of the standard deviation of so many normal numbers
            assert abs(float(weight.mean())) < 5 * deviation / math.sqrt(weight.numel()), key
            assert float(weight.std()) == pytest.approx(deviation, rel=5 / math.sqrt(2 * weight.numel())), key
        if isinstance(module, nn.BatchNorm2d):
            assert module.momentum == 0.1
            assert module.eps == 1e-5
            assert torch.equal(module.weight, torch.ones_like(module.weight)), key
            assert torch.equal(module.bias, torch.zeros_like(module.bias)), key


def test_the_generator_decides_the_weights() -> None:
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(make("resnet_small").state_dict()["layer3.0.conv2.weight"])
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet9"])
def test_channels_last_throughout(name: str) -> None:
    network = make(name, width=8).eval()
    layouts = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.is_contiguous(memory_format=torch.channels_last)
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(
                lambda module, inputs, out: layouts.append(out.is_contiguous(memory_format=torch.channels_last))
            )
    images = torch.randn(4, 3, 16, 16)
    features = network(images)
    assert len(layouts) > 10
    assert all(layouts)
    assert torch.equal(features, network(images.contiguous(memory_format=torch.channels_last)))
    expected, _ = reference(name, network, images, False)
    torch.testing.assert_close(features.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("height", [1, 8, 9])
@pytest.mark.parametrize("channels", [1, 4, 7])
def test_a_shortcut_of_few_channels_is_the_strided_convolution(channels: int, height: int) -> None:
    """It is made in another way because oneDNN has written past its buffers, which ended the process."""
    network = make("resnet_small", width=channels, depth=1)
    convolution = network.layer2[0].downsample[0]
    images = torch.randn(4, channels, height, 9, dtype=torch.float64).requires_grad_()
    weight = convolution.double().weight
    given = images.contiguous(memory_format=torch.channels_last)
    plain = torch.nn.functional.conv2d(images, weight, stride=2)
    torch.testing.assert_close(convolution(given), plain)
    toward = torch.randn_like(plain)
    expected = torch.autograd.grad(plain, (images, weight), toward)
    for one, other in zip(torch.autograd.grad(convolution(given), (images, weight), toward), expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_features_leave_autocast_in_float32(name: str) -> None:
    network = make(name, (3, 16, 16), width=8).train()
    last: list[Tensor] = []
    parts = list(network.children())
    parts[-1].register_forward_hook(lambda module, inputs, out: last.append(out.detach()))
    images = torch.randn(8, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = network(images)
    features.square().sum().backward()
    assert last[0].dtype == torch.bfloat16
    assert features.dtype == torch.float32
    pooled = last[0].double().amax((-2, -1)) if name.startswith("resnet9") else last[0].double().mean((-2, -1))
    torch.testing.assert_close(features.double(), pooled, rtol=1e-6, atol=1e-7)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())


@pytest.mark.parametrize("name", ["resnet18", "resnet9"])
def test_evaluation_looks_at_one_sample_only(name: str) -> None:
    network = make(name, width=4).eval()
    images = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(network(images)[2:3], network(images[2:3]))
    assert network(images[:0]).shape == (0, network.feature_dim)


@pytest.mark.parametrize("name", NAMES)
def test_state_round_trip(name: str) -> None:
    first, second = (make(name, width=2) for _ in range(2))
    randomize(first)
    images = torch.randn(2, 3, 8, 8)
    assert not torch.equal(first.eval()(images), second.eval()(images))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(images), second(images))


def test_smallest_images() -> None:
    assert make("resnet18", (3, 1, 1), width=2).eval()(torch.randn(2, 3, 1, 1)).shape == (2, 16)
    with pytest.raises(ValueError, match=r"resnet9 halves images three times, these have \(7, 9\) pixels: use resnet_"):
        make("resnet9", (3, 7, 9))


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        (Network("resnet18"), (13,), r"resnet18 takes images, not samples of shape \[13\]: use network 'mlp'"),
        (Network("resnet9"), (13,), r"resnet9 takes images, not samples of shape \[13\]: use network 'mlp'"),
        (Network("resnet18", depth=3), (3, 8, 8), "depth=3: the depth of resnet18 is fixed; leave it at 0"),
        (Network("resnet9", depth=3), (3, 8, 8), "depth=3.* of resnet9 are fixed by its width"),
        (Network("resnet50", feature_dim=9), (3, 8, 8), "feature_dim=9: resnet50 of width 64 has features of 2048;"),
        (Network("resnet34", dropout=0.1), (3, 8, 8), "dropout=0.1: resnet34 has none; leave it at 0"),
    ],
)
def test_errors(options: Network, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_network(resolve_network(options, shape, 10), shape)


def test_unresolved_options() -> None:
    with pytest.raises(ValueError, match="resnet_small needs a depth of at least 1 block a stage"):
        make_network(Network("resnet_small", width=8, feature_dim=32), (3, 8, 8))
    with pytest.raises(ValueError, match="width=0: resnet18 needs at least 1 channel"):
        make_network(Network("resnet18", feature_dim=32), (3, 8, 8))


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("resnet_small", "aot_eager"),
        ("resnet9", "aot_eager"),
        pytest.param(
            "resnet_small",
            "inductor",
            marks=[
                pytest.mark.long,
                pytest.mark.skipif(shutil.which("c++") is None, reason="code for the CPU needs a C++ compiler"),
                pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is:DeprecationWarning"),
            ],
        ),
    ],
)
def test_compiles_as_one_graph(name: str, backend: str) -> None:
    torch.compiler.reset()
    network = make(name, (3, 8, 8), width=8)  # oneDNN without AVX-512 writes out of bounds for fewer channels
    compiled = torch.compile(network, fullgraph=True, backend=backend)
    images = torch.randn(4, 3, 8, 8)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    results = []
    for run in (network, compiled):
        network.load_state_dict(before)
        network.zero_grad()
        features = run(images)
        features.square().sum().backward()
        results.append([features.detach(), *(p.grad for p in network.parameters()), *network.buffers()])
        results[-1] = [value.clone() for value in results[-1]]
    for plain, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-3, atol=1e-4)
