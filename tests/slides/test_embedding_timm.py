"""Models of timm as encoders: with timm where it imports, and with a stand-in that is called the same way."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from embedding_helpers import normalised, some_patches
from safetensors.torch import save_file
from torch import Tensor, nn

from ncmi.slides.embedding import EncoderError, make_encoder
from ncmi.slides.embedding.timm_import import import_timm


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
def test_weights_of_a_file(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    model = Tiny().eval()
    save_file(model.state_dict(), tmp_path / "tiny.safetensors")
    encoder = make_encoder("timm:tiny", tmp_path / "tiny.safetensors")
    assert calls == [{"num_classes": 0}]
    assert (encoder.name, encoder.feature_dim, encoder.image_size) == ("timm:tiny", 6, 16)
    patches = some_patches(3, 16)
    images = torch.from_numpy(normalised(patches, (0.5,) * 3, (0.25,) * 3)).float()
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
    wanted = model(torch.from_numpy(normalised(patches)).float())
    torch.testing.assert_close(encoder.encode(patches), wanted, rtol=1e-4, atol=1e-4)
    # and the same network by our own code
    torch.testing.assert_close(
        make_encoder("resnet18", tmp_path / "weights.pth").encode(patches), wanted, rtol=1e-4, atol=1e-4
    )
