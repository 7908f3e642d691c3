"""Encoders by name, and the checks that all of them share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from embedding_helpers import normalized, some_patches, write_onnx

from ncmi.slides.embedding import EncoderError, make_encoder
from ncmi.slides.embedding.encoder import Preparation


@pytest.mark.parametrize("spec", ["", "uni", "resnet20", "descriptor:fast", "ResNet18"])
def test_unknown_names(spec: str) -> None:
    with pytest.raises(EncoderError, match=f"unknown encoder '{spec}': use descriptor, resnet18|.*onnx:FILE"):
        make_encoder(spec)


def test_paths_with_commas_and_options(tmp_path: Path) -> None:
    folder = tmp_path / "a,b=c" / "d,e"
    folder.mkdir(parents=True)
    path = write_onnx(folder / "model,v2.onnx", "[B, T, D]")
    assert make_encoder(f"onnx:{path}").feature_dim == 3
    assert make_encoder(f"onnx:{path},tokens=mean,output=features").name == "onnx:model,v2.onnx"
    with pytest.raises(EncoderError, match="tokens is given twice: leave one out"):
        make_encoder(f"onnx:{path},tokens=mean,tokens=class")


def test_options_that_cannot_be() -> None:
    cases: list[tuple[dict[str, object], str]] = [
        ({"image_size": 0}, "image_size=0: must be at least 1 pixel"),
        ({"mean": (0.5,)}, r"mean=\(0.5,\): give three values, of red, green and blue"),
        ({"std": (0.5, 0.5, 0.0)}, r"std=.*must be above 0"),
        ({"mean": (123.7, 116.3, 103.5)}, r"of colors in \[0, 1\]: divide values of 0…255 by 255"),
        ({"mean": (0.5, 0.5, 0.5)}, "the descriptor has no use for it: leave it out"),
    ]
    for options, message in cases:
        with pytest.raises(EncoderError, match=message):
            make_encoder("descriptor", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "patches",
    [
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(2, 8, 8, 3),
        torch.zeros(8, 8, 3, dtype=torch.uint8),
        torch.zeros(0, 8, 8, 3, dtype=torch.uint8),
        torch.zeros(2, 8, 8, 4, dtype=torch.uint8),
    ],
)
def test_patches_of_another_shape(patches: torch.Tensor, tmp_path: Path) -> None:
    for encoder in (make_encoder("descriptor"), make_encoder("onnx", write_onnx(tmp_path / "model.onnx"))):
        with pytest.raises(EncoderError, match=r"patches of shape .* and type .*: give RGB of 0…255, \[B, H, W, 3\]"):
            encoder.encode(patches)


def test_preparation() -> None:
    patches = some_patches(side=12)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    np.testing.assert_allclose(Preparation(None, mean, std)(patches).numpy(), normalized(patches, mean, std), atol=1e-5)
    with pytest.raises(EncoderError, match="patches of 12×6 pixels: this encoder takes square ones"):
        Preparation(4)(patches[:, :, :6])
    # as small images are scaled: nothing that is finer than a pixel of the result is left
    board = torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    board[:, ::2, ::2] = board[:, 1::2, 1::2] = 255
    small = Preparation(4, (0, 0, 0), (1, 1, 1))(board)
    np.testing.assert_allclose(small[:, :, 1:3, 1:3].numpy(), 0.5, atol=0.02)
    assert str(Preparation(None)) == "any px, mean 0.485,0.456,0.406, std 0.229,0.224,0.225"


def test_heavy_libraries_wait_until_they_are_used() -> None:
    code = (
        "import sys, ncmi.slides.embedding; "
        "print([name for name in ('h5py', 'openslide', 'skimage', 'onnxruntime', 'pandas', 'sklearn') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
