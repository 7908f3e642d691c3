"""The backbone of a run on colour images as an encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from embedding_helpers import some_patches
from PIL import Image

from ncmi.recipes import Backbone, Data, Recipe, Training
from ncmi.slides.embedding import EncoderError, make_encoder
from ncmi.training import load_model, train

TRAINING = Training(epochs=1, batch_size=8, accelerator="cpu", threads=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One epoch of a narrow residual network on 40 images of two colours."""
    root = tmp_path_factory.mktemp("run")
    random = np.random.default_rng(0)
    for name, colour in (("pink", (220, 120, 180)), ("white", (240, 240, 240))):
        (root / "images" / name).mkdir(parents=True)
        for number in range(20):
            image = np.clip(colour + random.normal(0, 20, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(root / "images" / name / f"{number}.png")
    data = Data(str(root / "images"), image_size=8)
    train(Recipe(data, Backbone("resnet_small", width=4, depth=1), training=TRAINING), root / "pinkness")
    return root / "pinkness"


@torch.no_grad()
def test_its_features(run: Path) -> None:
    encoder = make_encoder(f"run:{run}")
    model = load_model(run)
    assert (encoder.name, encoder.feature_dim, encoder.image_size) == ("run:pinkness", 16, 8)
    patches = some_patches(4)
    torch.testing.assert_close(encoder.encode(patches), model(patches.permute(0, 3, 1, 2)), rtol=1e-4, atol=1e-5)
    assert make_encoder("run", run).version == encoder.version
    assert make_encoder("run", run, image_size=12).image_size == 12


def test_what_is_no_encoder(run: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"model.safetensors: the model of a run of ncmi: use 'run' with the run's"):
        make_encoder("resnet18", run / "model.safetensors")
    with pytest.raises(EncoderError, match="standardises as in its training, has no use for it"):
        make_encoder("run", run, mean=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="no run here"):
        make_encoder("run", tmp_path)
    train(Recipe(Data("wine"), Backbone("mlp", width=4, depth=1, feature_dim=8), training=TRAINING), tmp_path / "wine")
    with pytest.raises(EncoderError, match=r"trained on samples of shape \[13\]: take a run on colour images"):
        make_encoder("run", tmp_path / "wine")
