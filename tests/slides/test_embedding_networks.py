"""Torch networks as encoders: residual networks of a file, models of timm, the network of a run."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from embedding_helpers import normalized, some_patches
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from ncmi.networks import export_weights, make_network
from ncmi.networks.resnet import ResNet
from ncmi.recipes import ImageData, Network, Recipe, TableData, Training
from ncmi.recipes.defaults import resolve_network
from ncmi.slides.embedding import EncoderError, make_encoder
from ncmi.slides.embedding.networks import import_timm
from ncmi.training.model import load_model
from ncmi.training.run import train

WIDTH = 4


def network(name: str = "resnet18", stem: int = 3) -> ResNet:
    """A narrow network with weights and running statistics at random, in evaluation mode."""
    net = make_network(resolve_network(Network(name, width=WIDTH), (3, 8, 8), 2), (3, 8, 8))
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
    wanted = stages(net, torch.from_numpy(normalized(patches)).float(), stem)
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
    wanted = stages(net, torch.from_numpy(normalized(patches)).float(), 7, last=3)
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
    with pytest.raises(ValueError, match="choose the network, width and depth that they were trained with"):
        make_encoder("resnet34", path, image_size=32)
    with pytest.raises(EncoderError, match=r"is a folder: for a run of ncmi use 'run'"):
        make_encoder("resnet18", tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"weights.safetensors: damaged"):
        make_encoder("resnet18", path)
    save_file({"embed.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(EncoderError, match=r"no conv1.weight: no residual network of color images"):
        make_encoder("resnet18", path)
    save_file({"conv1.weight": torch.zeros(4, 1, 3, 3)}, path)
    with pytest.raises(EncoderError, match=r"conv1.weight of shape \[4, 1, 3, 3\]: no residual network of color"):
        make_encoder("resnet18", path)


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    save_file(export_weights(network()), tmp_path / "weights.safetensors")
    for device in ("cuda:99", "nonsense"):
        with pytest.raises(EncoderError, match=f"device='{device}' cannot be used .*: use 'cpu'"):
            make_encoder("resnet18", tmp_path / "weights.safetensors", image_size=16, device=device)


class Tiny(nn.Module):
    """A model as timm makes them: features, and a classifier unless num_classes is 0."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 6, 4, 4)
        self.head = nn.Linear(6, num_classes) if num_classes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.head(self.embed(images).mean((2, 3)))
        return features


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Puts a stand-in for timm into place; what its ``create_model`` is called with."""
    found: list[dict[str, Any]] = []

    def create_model(name: str, pretrained: bool = False, num_classes: int = 10, **options: Any) -> nn.Module:
        if name != "tiny":
            raise RuntimeError(f"Unknown model ({name})")
        if pretrained:
            raise RuntimeError("no network here")
        found.append({"num_classes": num_classes, **options})
        return Tiny(num_classes)

    config = {"input_size": (3, 16, 16), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    data = SimpleNamespace(resolve_model_data_config=lambda model: config)
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model, data=data))
    return found


@torch.no_grad()
def test_timm_weights_of_a_file(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    model = Tiny().eval()
    save_file(model.state_dict(), tmp_path / "tiny.safetensors")
    encoder = make_encoder("timm:tiny", tmp_path / "tiny.safetensors")
    assert calls == [{"num_classes": 0}]
    assert (encoder.name, encoder.feature_dim, encoder.image_size) == ("timm:tiny", 6, 16)
    patches = some_patches(3, 16)
    images = torch.from_numpy(normalized(patches, (0.5,) * 3, (0.25,) * 3)).float()
    torch.testing.assert_close(encoder.encode(patches), model.embed(images).mean((2, 3)))
    own = make_encoder("timm:tiny", tmp_path / "tiny.safetensors", image_size=8, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert own.image_size == 8
    torch.testing.assert_close(
        own.encode(patches[:, :8, :8]), model.embed(patches[:, :8, :8].permute(0, 3, 1, 2) / 255).mean((2, 3))
    )


def test_options_of_a_model(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    save_file(Tiny().state_dict(), tmp_path / "tiny.safetensors")
    spec = "timm:tiny,init_values=1e-5,dynamic_img_size=true,act_layer=gelu"
    encoder = make_encoder(spec, tmp_path / "tiny.safetensors")
    assert calls == [{"num_classes": 0, "init_values": 1e-5, "dynamic_img_size": True, "act_layer": "gelu"}]
    assert encoder.name == "timm:tiny,act_layer=gelu,dynamic_img_size=true,init_values=1e-5"


def test_what_timm_refuses(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"timm:huge cannot be made \(RuntimeError: Unknown model \(huge\)\): check"):
        make_encoder("timm:huge", tmp_path / "weights.pth")
    with pytest.raises(EncoderError, match=r"no network here\).*or give weights= a local file of its weights"):
        make_encoder("timm:tiny")
    with pytest.raises(EncoderError, match="which model\\? Give timm:NAME"):
        make_encoder("timm")
    save_file({"other.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not weights of this network"):
        make_encoder("timm:tiny", tmp_path / "other.safetensors")


def test_timm_that_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        EncoderError, match=r"timm cannot be imported \(ModuleNotFoundError.*fits torch .* use onnx:FILE"
    ):
        make_encoder("timm:resnet18", "weights.pth")


@torch.no_grad()
def test_with_timm_itself(tmp_path: Path) -> None:
    try:
        timm = import_timm()
    except EncoderError as error:
        pytest.skip(str(error))
    model = timm.create_model("resnet18", pretrained=False, num_classes=5).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    encoder = make_encoder("timm:resnet18", tmp_path / "weights.pth")
    patches = some_patches(2, 224)
    model.reset_classifier(0)
    wanted = model(torch.from_numpy(normalized(patches)).float())
    torch.testing.assert_close(encoder.encode(patches), wanted, rtol=1e-4, atol=1e-4)
    # and the same network by our own code
    torch.testing.assert_close(
        make_encoder("resnet18", tmp_path / "weights.pth").encode(patches), wanted, rtol=1e-4, atol=1e-4
    )


TRAINING = Training(epochs=1, batch_size=8, accelerator="cpu", threads=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One epoch of a narrow residual network on 40 images of two colors."""
    root = tmp_path_factory.mktemp("run")
    random = np.random.default_rng(0)
    for name, color in (("pink", (220, 120, 180)), ("white", (240, 240, 240))):
        (root / "images" / name).mkdir(parents=True)
        for number in range(20):
            image = np.clip(color + random.normal(0, 20, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(root / "images" / name / f"{number}.png")
    data = ImageData(str(root / "images"), image_size=8)
    train(Recipe(data, Network("resnet_small", width=8, depth=1), training=TRAINING), root / "pinkness")
    return root / "pinkness"


@torch.no_grad()
def test_its_features(run: Path) -> None:
    encoder = make_encoder(f"run:{run}")
    model = load_model(run)
    assert (encoder.name, encoder.feature_dim, encoder.image_size) == ("run:pinkness", 32, 8)
    patches = some_patches(4)
    torch.testing.assert_close(encoder.encode(patches), model(patches.permute(0, 3, 1, 2)), rtol=1e-4, atol=1e-5)
    assert make_encoder("run", run).version == encoder.version
    assert make_encoder("run", run, image_size=12).image_size == 12


def test_what_is_no_encoder(run: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"model.safetensors: the model of a run of ncmi: use 'run' with the run's"):
        make_encoder("resnet18", run / "model.safetensors")
    with pytest.raises(EncoderError, match="standardizes as in its training, has no use for it"):
        make_encoder("run", run, mean=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="no run here"):
        make_encoder("run", tmp_path)
    train(
        Recipe(TableData("wine"), Network("mlp", width=4, depth=1, feature_dim=8), training=TRAINING), tmp_path / "wine"
    )
    with pytest.raises(EncoderError, match=r"trained on samples of shape \[13\]: take a run on color images"):
        make_encoder("run", tmp_path / "wine")
