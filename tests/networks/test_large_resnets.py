"""Residual networks for ImageNet: torchvision's names, shapes and counts, values in float64, their options; timm."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from resnet_reference import TABLE, Reference, randomize
from torch import Tensor, nn

import ncmi
from ncmi.data.signature import Signature
from ncmi.loss import equation
from ncmi.networks import load_weights, make_network
from ncmi.recipes import ImageData, Network, Recipe, TableData, resolve_network, resolve_recipe
from ncmi.training.model import Classifier

IMAGENET = (3, 224, 224)


def make(name: str, shape: tuple[int, ...] = IMAGENET, **options: Any) -> nn.Module:
    return make_network(resolve_network(Network(name, **options), shape, 1000), shape)


def published_shapes(name: str, width: int = 64) -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's state, in its order, written from the architecture; without ``fc``."""
    expansion, blocks = TABLE[name]
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(at: str, inner: int, out: int, kernel: int) -> None:
        shapes[f"{at}.weight"] = (out, inner, kernel, kernel)

    def norm(at: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{at}.{part}"] = (channels,)
        shapes[f"{at}.num_batches_tracked"] = ()

    conv("conv1", 3, width, 7)
    norm("bn1", width)
    inner = width
    for stage, count in enumerate(blocks, start=1):
        channels = width * 2 ** (stage - 1)
        for number in range(count):
            at, out = f"layer{stage}.{number}", channels * expansion
            sizes = [(inner, channels, 3), (channels, channels, 3)]
            if expansion == 4:
                sizes = [(inner, channels, 1), (channels, channels, 3), (channels, out, 1)]
            for place, size in enumerate(sizes, start=1):
                conv(f"{at}.conv{place}", *size)
                norm(f"{at}.bn{place}", size[1])
            if number == 0 and (stage > 1 or inner != out):
                conv(f"{at}.downsample.0", inner, out, 1)
                norm(f"{at}.downsample.1", out)
            inner = out
    return shapes


@pytest.mark.parametrize(
    ("name", "parameters", "dim"),
    [
        ("resnet18", 11_689_512, 512),
        ("resnet34", 21_797_672, 512),
        ("resnet50", 25_557_032, 2048),
        ("resnet101", 44_549_160, 2048),
    ],
)
@pytest.mark.parametrize("options", [{}, {"blurpool": True, "zero_init": True}])
def test_names_shapes_and_counts_are_torchvisions(
    name: str, parameters: int, dim: int, options: dict[str, bool]
) -> None:
    with torch.device("meta"):
        network, fc = make(name, **options), nn.Linear(dim, 1000)
        assert network(torch.empty(2, *IMAGENET)).shape == (2, dim)
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == published_shapes(name)
    assert sum(parameter.numel() for part in (network, fc) for parameter in part.parameters()) == parameters


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_checkpoint_of_torchvision_loads(name: str, tmp_path: Path) -> None:
    state = {key: torch.rand(shape) + 0.5 for key, shape in published_shapes(name, width=4).items()}
    whole = {**state, "fc.weight": torch.rand(5, 4), "fc.bias": torch.rand(5)}
    torch.save(whole, tmp_path / "theirs.pth")
    network = make(name, width=4)
    assert sorted(load_weights(network, tmp_path / "theirs.pth")) == ["fc.bias", "fc.weight"]
    for key, value in network.state_dict().items():
        assert torch.equal(value, state[key].to(value.dtype)), key
    with pytest.raises(ValueError, match="another stem: give stem=large"):
        load_weights(make(name, width=4, stem="small"), tmp_path / "theirs.pth")


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("blurpool", [False, True])
@pytest.mark.parametrize(("name", "shape"), [("resnet18", (3, 33, 40)), ("resnet50", (1, 40, 33))])
def test_values_and_gradients(name: str, shape: tuple[int, ...], blurpool: bool, training: bool) -> None:
    """Of 8 channels in the first stage: what 8 channels go into is not blurred, what 16 and more go into is."""
    network = make(name, shape, width=8, stem="large", blurpool=blurpool).double().train(training)
    randomize(network)
    images = torch.randn(2, *shape, dtype=torch.float64)
    state = {key: value.detach().clone().requires_grad_(value.dim() > 0) for key, value in network.state_dict().items()}
    reference = Reference(state, training, blurpool)
    expected = reference.resnet(images, *TABLE[name], large=True)
    features = network(images)
    torch.testing.assert_close(features, expected, rtol=1e-9, atol=1e-9)
    toward = torch.randn_like(features)
    (features * toward).sum().backward()
    (expected * toward).sum().backward()
    for key, parameter in network.named_parameters():
        gradient = state[key].grad
        assert gradient is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-7, atol=1e-8 * float(gradient.abs().max()) + 1e-12)


def test_blurring_changes_what_is_seen() -> None:
    torch.manual_seed(1)
    plain = make("resnet18", width=8).eval()
    blurs = make("resnet18", width=8, blurpool=True).eval()
    blurs.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert not torch.allclose(plain(images), blurs(images), rtol=0.01)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_blocks_begin_as_their_shortcuts(name: str) -> None:
    network = make(name, width=4, zero_init=True).eval()
    block = network.layer1[1]
    maps = torch.rand(2, block.conv1.in_channels, 9, 9)
    assert torch.equal(block(maps), maps)
    network.train()(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert float(block.last_norm.weight.grad.abs().max()) > 0  # it does not stay there
    assert not torch.equal(make(name, width=4).eval().layer1[1](maps), maps)


def test_the_stem_follows_the_size_of_the_images() -> None:
    def stem(shape: tuple[int, ...], **options: Any) -> str:
        return resolve_network(Network(**options), shape, 10).stem

    assert stem((3, 224, 160), name="resnet50") == "large"
    assert stem((3, 32, 32), name="resnet50") == "small"
    assert stem((3, 64, 64), name="resnet18", stem="large") == "large"
    assert stem((3, 224, 224), name="convnet") == "auto"
    assert make("resnet18", (3, 224, 224), width=4).conv1.kernel_size == (7, 7)
    assert make("resnet18", (3, 32, 32), width=4).conv1.kernel_size == (3, 3)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        (Network("convnet", blurpool=True), (3, 8, 8)),
        (Network("mlp", zero_init=True), (8,)),
        (Network("resnet9", stem="small"), (3, 32, 32)),
        (Network("resnet_small", stem="large"), (3, 32, 32)),
    ],
)
def test_options_that_a_network_does_not_have(options: Network, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"(blurpool|zero_init|stem)=.*resnet18"):
        make_network(resolve_network(options, shape, 10), shape)


def test_a_head_of_fewer_components_than_classes() -> None:
    """ResNet-18 on ImageNet has D = 512 < C = 1000; here D = 32 < C = 100."""
    network = make("resnet18", (3, 32, 32), width=4, stem="large").double()
    head = ncmi.NCMIHead(32, 100).double()
    images, labels = torch.randn(6, 3, 32, 32, dtype=torch.float64), torch.randint(100, (6,))
    features = network(images)
    loss = nn.functional.cross_entropy(head(features), labels)
    centroids = equation.distribution(head.weight.detach(), None, head.temperature)
    p = equation.distribution(features.detach(), None, head.temperature)
    expected = equation.loss(
        p, labels, centroids, power=head.separation_power, direction="sample_to_centroid", form="likelihood"
    )
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-9, atol=0)
    loss.backward()
    assert all(parameter.grad is not None for parameter in (*network.parameters(), *head.parameters()))


SIGNATURE = Signature(kind="image", sample_shape=(3, 16, 16), class_names=("a", "b"), feature_names=None)


def test_features_of_an_image_and_its_mirror_image() -> None:
    recipe = Recipe(ImageData("x"), Network("resnet18", width=4, test_flip=True))
    model = Classifier(resolve_recipe(recipe, (3, 16, 16), 2, 100), SIGNATURE).eval()
    images = torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8)
    plain = model.network(model.standardize(images)), model.network(model.standardize(images.flip(-1)))
    assert not torch.allclose(plain[0], plain[1])
    torch.testing.assert_close(model(images), (plain[0] + plain[1]) / 2)
    torch.testing.assert_close(model(images), model(images.flip(-1)))
    table = Recipe(TableData("x"), Network("mlp", test_flip=True))
    rows = Signature(kind="table", sample_shape=(4,), class_names=("a", "b"), feature_names=None)
    with pytest.raises(ValueError, match="test_flip=True"):
        Classifier(resolve_recipe(table, (4,), 2, 100), rows)


class Backbone(nn.Module):
    """What timm would make."""

    def __init__(self, name: str, pretrained: bool, num_classes: int, in_chans: int) -> None:
        super().__init__()
        assert (pretrained, num_classes) == (False, 0)
        if name != "tiny":
            raise RuntimeError(f"Unknown model ({name})")
        self.num_features = 6
        self.stem = nn.Conv2d(in_chans, 6, 3)

    def forward(self, images: Tensor) -> Tensor:
        assert images.is_contiguous(memory_format=torch.channels_last)
        return self.stem(images).mean((-2, -1))  # type: ignore[no-any-return]


def test_a_network_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = ModuleType("timm")
    stand_in.create_model = Backbone  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    recipe = resolve_recipe(Recipe(ImageData("x"), Network("timm:tiny")), (3, 16, 16), 2, 100)
    model = Classifier(recipe, SIGNATURE)
    assert model.objective.feature_dim == 6
    assert set(model.network.state_dict()) == {"stem.weight", "stem.bias"}
    with torch.autocast("cpu", torch.bfloat16):
        features = model(torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8))
    assert (features.shape, features.dtype) == ((2, 6), torch.float32)
    with pytest.raises(ValueError, match="timm:none"):
        make_network(Network("timm:none"), (3, 16, 16))
    with pytest.raises(ValueError, match="width=8"):
        make_network(Network("timm:tiny", width=8), (3, 16, 16))


def test_without_timm_the_cure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="pip install timm"):
        make_network(Network("timm:resnet50d"), IMAGENET)


def test_the_real_timm() -> None:
    pytest.importorskip("timm", reason="needs timm", exc_type=ImportError)
    network = make_network(Network("timm:resnet18"), (3, 64, 64)).eval()
    assert network.state_dict().keys() == make("resnet18").state_dict().keys()
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, network.feature_dim)
