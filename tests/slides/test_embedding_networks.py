"""Residual networks from files, and the backbone of a run, as encoders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from embedding_helpers import normalised, some_patches
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from ncmi.backbones import export_weights, make_backbone
from ncmi.backbones.resnet import ResNet
from ncmi.recipes import Backbone
from ncmi.recipes.defaults import resolve_backbone
from ncmi.slides.embedding import EncoderError, make_encoder

WIDTH = 4


def network(name: str = "resnet18", stem: int = 3) -> ResNet:
    """A narrow network with weights and running statistics at random, in evaluation mode."""
    net = make_backbone(resolve_backbone(Backbone(name, width=WIDTH), (3, 8, 8), 2), (3, 8, 8))
    assert isinstance(net, ResNet)
    if stem == 7:
        net.conv1 = nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
            nn.init.normal_(part.running_mean, std=0.3)  # type: ignore[arg-type]
            nn.init.uniform_(part.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return net.eval()


def stages(net: ResNet, images: Tensor, stem: int, last: int = 4) -> Tensor:
    """The forward pass, spelt out; He et al. 2016, Table 1, for the stem of 7×7."""
    x = torch.relu(net.bn1(net.conv1(images)))
    if stem == 7:
        x = max_pool2d(x, 3, 2, 1)
    for number in range(1, last + 1):
        x = getattr(net, f"layer{number}")(x)
    return x.mean((2, 3))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(("name", "stem"), [("resnet18", 3), ("resnet18", 7), ("resnet50", 7)])
@torch.no_grad()
def test_weights_of_a_file(name: str, stem: int, suffix: str, tmp_path: Path) -> None:
    net = network(name, stem)
    state = export_weights(net) | {"fc.weight": torch.zeros(2, net.feature_dim), "fc.bias": torch.zeros(2)}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    else:
        save_file(state, path)
    encoder = make_encoder(name, path, image_size=32)
    assert (encoder.name, encoder.feature_dim, encoder.image_size) == (name, net.feature_dim, 32)
    patches = some_patches(3, 32)
    wanted = stages(net, torch.from_numpy(normalised(patches)).float(), stem)
    found = encoder.encode(patches)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    # evaluation mode: the rest of the batch does not matter
    torch.testing.assert_close(encoder.encode(patches[1:2]), wanted[1:2], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_mean_over_a_stage(tmp_path: Path) -> None:
    net = network("resnet50", 7)
    save_file(export_weights(net), tmp_path / "weights.safetensors")
    encoder = make_encoder("resnet50:layer3", tmp_path / "weights.safetensors")
    assert (encoder.name, encoder.feature_dim, encoder.image_size) == ("resnet50:layer3", 16 * WIDTH, 224)
    patches = some_patches(2, 224)
    wanted = stages(net, torch.from_numpy(normalised(patches)).float(), 7, last=3)
    torch.testing.assert_close(encoder.encode(patches), wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(EncoderError, match="resnet50:layer5: no such stage: use resnet50, or resnet50:layer3"):
        make_encoder("resnet50:layer5", tmp_path / "weights.safetensors")


def test_the_version_is_that_of_the_weights(tmp_path: Path) -> None:
    net = network()
    save_file(export_weights(net), tmp_path / "one.safetensors")
    torch.save(net.state_dict(), tmp_path / "same.pth")
    with torch.no_grad():
        net.layer4[0].conv1.weight[0, 0, 0, 0] += 1e-3
    save_file(export_weights(net), tmp_path / "other.safetensors")
    one, same, other = (
        make_encoder("resnet18", tmp_path / name, image_size=16).version
        for name in ("one.safetensors", "same.pth", "other.safetensors")
    )
    assert one == same != other
    assert make_encoder("resnet18", tmp_path / "one.safetensors", image_size=24).version != one
    assert make_encoder("resnet18", tmp_path / "one.safetensors", image_size=16, std=(1.0, 1.0, 1.0)).version != one


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(EncoderError, match=r"resnet18 has no weights: give weights=, .* or use 'descriptor'"):
        make_encoder("resnet18")
    with pytest.raises(ValueError, match=r"weights.safetensors: no such file"):
        make_encoder("resnet18", path)
    save_file(export_weights(network()), path)
    with pytest.raises(EncoderError, match=r"first convolution is 3×3.*give image_size=, that of its training images"):
        make_encoder("resnet18", path)
    with pytest.raises(ValueError, match="choose the backbone, width and depth that they were trained with"):
        make_encoder("resnet34", path, image_size=32)
    with pytest.raises(EncoderError, match=r"is a folder: for a run of ncmi use 'run'"):
        make_encoder("resnet18", tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"weights.safetensors: damaged"):
        make_encoder("resnet18", path)
    save_file({"embed.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(EncoderError, match=r"no conv1.weight: no residual network of colour images"):
        make_encoder("resnet18", path)
    save_file({"conv1.weight": torch.zeros(4, 1, 3, 3)}, path)
    with pytest.raises(EncoderError, match=r"conv1.weight of shape \[4, 1, 3, 3\]: no residual network of colour"):
        make_encoder("resnet18", path)


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    save_file(export_weights(network()), tmp_path / "weights.safetensors")
    for device in ("cuda:99", "nonsense"):
        with pytest.raises(EncoderError, match=f"device='{device}' cannot be used .*: use 'cpu'"):
            make_encoder("resnet18", tmp_path / "weights.safetensors", image_size=16, device=device)
