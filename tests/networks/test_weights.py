"""Weights by the names of other code bases: outputs stay the same, and nothing is half-loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_resnets import WIDTH, Foreign
from resnet_reference import randomize
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ncmi.networks import export_weights, load_weights, make_network
from ncmi.recipes import Network
from ncmi.recipes.defaults import resolve_network

STYLES = ("torchvision", "pytorch-cifar", "pytorch-cifar100")
CLASSIFIER = {"torchvision": "fc", "pytorch-cifar": "linear", "pytorch-cifar100": "fc"}


def make(name: str = "resnet18", width: int = WIDTH) -> nn.Module:
    return make_network(resolve_network(Network(name, width=width), (3, 8, 8), 7), (3, 8, 8))


def copy_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_same(network: nn.Module, state: dict[str, Tensor]) -> None:
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("style", STYLES)
def test_a_network_of_another_code_base(style: str, name: str, suffix: str, tmp_path: Path) -> None:
    theirs = Foreign(style, name).eval()
    randomize(theirs)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(theirs.state_dict(), path)
    else:
        save_file(theirs.state_dict(), path)
    ours = make(name).eval()
    assert sorted(load_weights(ours, path)) == [f"{CLASSIFIER[style]}.{end}" for end in ("bias", "weight")]
    images = torch.randn(3, 3, 9, 9)
    torch.testing.assert_close(ours(images), theirs.features(images), rtol=1e-4, atol=1e-5)
    for module in ours.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.is_contiguous(memory_format=torch.channels_last)

    # and back: the other network takes what is exported for it
    randomize(ours)
    exported = export_weights(ours, style)  # type: ignore[arg-type]
    rest = theirs.load_state_dict(exported, strict=False)
    assert rest.unexpected_keys == []
    assert rest.missing_keys == [f"{CLASSIFIER[style]}.{end}" for end in ("weight", "bias")]
    torch.testing.assert_close(ours(images), theirs.features(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet_small"])
@pytest.mark.parametrize("style", STYLES)
def test_round_trip(style: str, name: str, tmp_path: Path) -> None:
    first, second = make(name), make(name)
    randomize(first)
    before = copy_of(first)
    exported = export_weights(first, style)  # type: ignore[arg-type]
    save_file(exported, tmp_path / "w.safetensors")
    assert load_weights(second, tmp_path / "w.safetensors") == []
    assert_same(second, before)
    for value in exported.values():  # copies, not views of the network
        value.zero_()
    assert_same(first, before)


@pytest.mark.parametrize("name", ["resnet9", "convnet", "mlp"])
def test_other_networks_have_their_own_names(name: str, tmp_path: Path) -> None:
    first, second = make(name), make(name)
    save_file(export_weights(first), tmp_path / "w.safetensors")
    assert load_weights(second, tmp_path / "w.safetensors") == []
    assert_same(second, first.state_dict())
    with pytest.raises(ValueError, match=f"pytorch-cifar has no names for a {type(first).__name__}: use 'torchvision'"):
        export_weights(first, "pytorch-cifar")


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {f"{prefix}{name}": value for name, value in state.items()}


HEAD = {"head.0.weight": torch.ones(2, 2)}
WRAPPED: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], list[str]]] = {
    "pytorch-cifar": (lambda s: {"net": prefixed(s, "module."), "acc": 95.1, "epoch": 3}, []),
    "state_dict": (lambda s: {"state_dict": s, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}, []),
    "compiled": (lambda s: {"model": prefixed(s, "_orig_mod.")}, []),
    "two": (lambda s: {"state_dict": {"model": s}}, []),
    "contrastive": (lambda s: {"model": {**prefixed(s, "encoder.module."), **HEAD}, "epoch": 1}, ["head.0.weight"]),
    "network": (
        lambda s: prefixed({**prefixed(s, "network."), **HEAD}, "module."),
        ["module.head.0.weight"],
    ),
    "no counters": (lambda s: {k: v for k, v in s.items() if "num_batches" not in k}, []),
    "classifier": (lambda s: {**s, "classifier.1.bias": torch.ones(3)}, ["classifier.1.bias"]),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("case", WRAPPED)
def test_wrapped(case: str, legacy: bool, tmp_path: Path) -> None:
    wrap, left_out = WRAPPED[case]
    first, second = make(), make()
    randomize(first)
    torch.save(wrap(first.state_dict()), tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    assert load_weights(second, tmp_path / "w.pth") == left_out
    assert_same(second, first.state_dict())


def test_other_floats_are_converted(tmp_path: Path) -> None:
    first, second = make(), make().double()
    torch.save({name: value.half() for name, value in first.state_dict().items()}, tmp_path / "half.pth")
    load_weights(second, tmp_path / "half.pth")
    for name, value in second.state_dict().items():
        assert value.dtype == (torch.int64 if name.endswith("tracked") else torch.float64)
        assert torch.equal(value, first.state_dict()[name].half().to(value.dtype)), name


def without(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda s: {key: value for key, value in s.items() if key != name}


SHORT = "layer2.0.downsample"
BAD: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "missing": (
        without("layer1.0.bn1.running_var"),
        r"not weights of this network: it lacks 'layer1\.0\.bn1\.running_var': choose the network, width and depth",
    ),
    "pre-activation": (
        lambda s: {k: v for k, v in s.items() if "downsample.1" not in k},
        rf"it lacks '{SHORT}\.1\.weight', '{SHORT}\.1\.bias', '{SHORT}\.1\.running_mean' and 9 more: choose",
    ),
    "superfluous": (
        lambda s: {**s, "layer1.2.conv1.weight": torch.ones(1)},
        r"the network does not have 'layer1\.2\.conv1\.weight': choose",
    ),
    "both": (
        lambda s: {**without("bn1.weight")(s), "gate": torch.ones(1)},
        r"it lacks 'bn1\.weight' and the network does not have 'gate': choose",
    ),
    "after a relu": (
        lambda s: {**s, "conv2_x.0.residual_function.2.weight": torch.ones(4)},
        r"does not have 'conv2_x\.0\.residual_function\.2\.weight'",
    ),
    "twice": (
        lambda s: {**s, f"{SHORT[:8]}.shortcut.0.weight": s[f"{SHORT}.0.weight"]},
        rf"layer2\.0\.shortcut\.0\.weight is in it under two names, both for {SHORT}\.0\.weight: remove one",
    ),
    "ImageNet stem": (
        lambda s: {**s, "conv1.weight": torch.zeros(WIDTH, 3, 7, 7)},
        r"conv1\.weight has shape \[4, 3, 7, 7\], this network \[4, 3, 3, 3\]: they were trained with another stem",
    ),
    "gray images": (
        lambda s: {**s, "conv1.weight": torch.zeros(WIDTH, 1, 3, 3)},
        r"conv1\.weight has shape \[4, 1, 3, 3\], this network \[4, 3, 3, 3\]: choose the network, width and number",
    ),
    "wider": (
        lambda s: make(width=8).state_dict(),
        r"conv1\.weight has shape \[8, 3, 3, 3\], this network \[4, 3, 3, 3\]: choose the network, width",
    ),
    "integers": (
        lambda s: {**s, "bn1.weight": torch.ones(WIDTH, dtype=torch.int8)},
        r"bn1\.weight holds torch\.int8 \(torch\.strided\): save the weights as dense floats",
    ),
    "not finite": (
        lambda s: {**s, "bn1.bias": torch.tensor([0.0, 1.0, torch.nan, 0.0])},
        r"bn1\.bias has values that are not finite: the training diverged; take other weights",
    ),
    "a number": (lambda s: {**s, "epoch": 3}, r"'epoch' is a int, no tensor: write the file by save_file\("),
    "numbers for names": (lambda s: {3: torch.ones(1)}, r"3 is a Tensor, no tensor|3 is"),
    "a list": (lambda s: list(s.values()), r"holds no weights by name: write them by save_file\("),
    "nothing": (lambda s: {}, "holds no weights by name"),
    "a tensor": (lambda s: torch.ones(2), "holds no weights by name"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_changes_nothing(case: str, tmp_path: Path) -> None:
    change, message = BAD[case]
    path = tmp_path / "w.pth"
    torch.save(change(make().state_dict()), path)
    network = make()
    before = copy_of(network)
    with pytest.raises(ValueError, match=f"w.pth: .*{message}"):
        load_weights(network, path)
    assert_same(network, before)


def test_unknown_style() -> None:
    with pytest.raises(ValueError, match="unknown style 'keras': use 'torchvision', 'pytorch-cifar' or"):
        export_weights(make(), "keras")  # type: ignore[arg-type]


def test_exported_names(tmp_path: Path) -> None:
    save_file(export_weights(make("resnet_small"), "pytorch-cifar100"), tmp_path / "w.safetensors")
    names = set(load_file(tmp_path / "w.safetensors"))
    assert {"conv1.0.weight", "conv1.1.bias", "conv2_x.0.residual_function.3.weight"} <= names
    assert {"conv4_x.0.shortcut.1.running_var", "conv4_x.0.residual_function.4.num_batches_tracked"} <= names
    assert not any("layer" in name or "downsample" in name for name in names)
