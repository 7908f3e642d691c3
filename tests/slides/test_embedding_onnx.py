"""ONNX files as encoders: every form that is taken gives the same features, every other one a clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from embedding_helpers import normalized, some_patches, write_onnx
from onnx import TensorProto

from ncmi.slides.embedding import EncoderError, make_encoder


@pytest.mark.parametrize("form", ["[B, D]", "[B, D, 1, 1]"])
@pytest.mark.parametrize("batch", ["batch", -1, 1, 2, 4, 16])
def test_batches_of_every_size(form: str, batch: int | str, tmp_path: Path) -> None:
    encoder = make_encoder(f"onnx:{write_onnx(tmp_path / 'model.onnx', form, batch=batch)}")
    assert (encoder.name, encoder.feature_dim, encoder.image_size) == ("onnx:model.onnx", 3, 8)
    for number in (1, 4, 5):
        patches = some_patches(number)
        found = encoder.encode(patches)
        assert (found.dtype, tuple(found.shape)) == (torch.float32, (number, 3))
        np.testing.assert_allclose(found.numpy(), normalized(patches).mean((2, 3)), atol=1e-5)


def test_tokens(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "model.onnx", "[B, T, D]")
    patches = some_patches()
    quarters = normalized(patches).reshape(5, 3, 2, 4, 2, 4).mean((3, 5)).reshape(5, 3, 4)
    first, mean = make_encoder(f"onnx:{path}"), make_encoder(f"onnx:{path},tokens=mean")
    np.testing.assert_allclose(first.encode(patches).numpy(), quarters[:, :, 0], atol=1e-5)
    np.testing.assert_allclose(mean.encode(patches).numpy(), quarters.mean(2), atol=1e-5)
    assert first.version != mean.version


def test_one_of_several_outputs(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "model.onnx", outputs=2)
    with pytest.raises(EncoderError, match="returns features, other: choose one, such as output=features"):
        make_encoder(f"onnx:{path}")
    with pytest.raises(EncoderError, match="no output 'third': it returns features, other"):
        make_encoder(f"onnx:{path},output=third")
    features, other = (make_encoder(f"onnx:{path},output={name}") for name in ("features", "other"))
    torch.testing.assert_close(other.encode(some_patches()), -features.encode(some_patches()))
    assert features.version != other.version


def test_normalization_and_size(tmp_path: Path) -> None:
    open_size = write_onnx(tmp_path / "open.onnx", size="side")
    patches = some_patches(side=12)
    halves = make_encoder("onnx", open_size, image_size=12, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0))
    wanted = normalized(patches, (0.5, 0.5, 0.5), (0.25, 0.5, 1.0)).mean((2, 3))
    np.testing.assert_allclose(halves.encode(patches).numpy(), wanted, atol=1e-5)
    assert make_encoder("onnx", open_size).image_size == 224
    assert make_encoder("onnx", open_size).version != halves.version
    # patches of another size are scaled, which keeps the color of even ones
    even = torch.tensor([200, 100, 50], dtype=torch.uint8).expand(2, 30, 30, 3)
    found = make_encoder("onnx", write_onnx(tmp_path / "fixed.onnx")).encode(even)
    np.testing.assert_allclose(found.numpy(), normalized(even).mean((2, 3)), atol=1e-5)
    with pytest.raises(EncoderError, match="takes images of 8 pixels: leave image_size out"):
        make_encoder("onnx", tmp_path / "fixed.onnx", image_size=12)


def test_half_precision(tmp_path: Path) -> None:
    encoder = make_encoder("onnx", write_onnx(tmp_path / "half.onnx", kind=TensorProto.FLOAT16))
    found = encoder.encode(some_patches())
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), normalized(some_patches()).mean((2, 3)), atol=5e-3)


def test_other_weights_are_another_version(tmp_path: Path) -> None:
    first = make_encoder("onnx", write_onnx(tmp_path / "model.onnx"))
    assert make_encoder("onnx", tmp_path / "model.onnx").version == first.version
    second = make_encoder("onnx", write_onnx(tmp_path / "model.onnx", "[B, D, 1, 1]"))
    assert second.version != first.version
    # large models keep their weights in a file beside
    (tmp_path / "model.onnx.data").write_bytes(b"weights")
    assert make_encoder("onnx", tmp_path / "model.onnx").version not in (first.version, second.version)


def test_forms_that_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    cases = [
        ({"inputs": 2}, r"takes 2 inputs \(images, images1\): export the model with images alone"),
        ({"kind": TensorProto.UINT8}, r"takes tensor\(uint8\): export it for images of floats"),
        ({"shape": [1, 8, 8, 3]}, r"takes \[1, 8, 8, 3\].*square color images, \[B, 3, S, S\], not \[B, H, W, 3\]"),
        ({"shape": [1, 3, 8, 9]}, r"takes \[1, 3, 8, 9\]: export it for square color images"),
        ({"shape": [1, 1, 8, 8]}, r"takes \[1, 1, 8, 8\]"),
        ({"shape": [3, 8, 8]}, r"takes \[3, 8, 8\]"),
        ({"form": "[B, D, 2, 2]"}, r"returns \[2, 3, 2, 2\]: export it with features \[B, D\]"),
        ({"form": "[1, D]"}, r"returns \[1, 3\] of 2 images: export it with one row an image"),
    ]
    for options, message in cases:
        with pytest.raises(EncoderError, match=message):
            make_encoder("onnx", write_onnx(path, **options))  # type: ignore[arg-type]


def test_a_model_that_fails_says_at_what(tmp_path: Path) -> None:
    # its tokens are cut from 8 by 8 pixels, though it says that it takes any size
    path = write_onnx(tmp_path / "model.onnx", "[B, T, D]", size="side")
    with pytest.raises(EncoderError, match=r"fails on images of shape \[2, 3, 12, 12\].*give the image_size it was"):
        make_encoder("onnx", path, image_size=12)
    assert make_encoder("onnx", path, image_size=8).feature_dim == 3


def test_files_and_options_that_are_wrong(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "model.onnx")
    with pytest.raises(EncoderError, match=r"missing.onnx: no such file: give an .onnx file"):
        make_encoder(f"onnx:{tmp_path / 'missing.onnx'}")
    content = path.read_bytes()
    for damaged in (b"", b"no model", content[: len(content) // 2]):
        (tmp_path / "damaged.onnx").write_bytes(damaged)
        with pytest.raises(EncoderError, match=r"damaged.onnx: (cannot be read as ONNX|takes|returns)"):
            make_encoder(f"onnx:{tmp_path / 'damaged.onnx'}")
    with pytest.raises(EncoderError, match=r"unknown options.*use output=NAME, tokens=class or tokens=mean"):
        make_encoder(f"onnx:{path},layer=3")
    with pytest.raises(EncoderError, match="which file\\? Give either onnx:PATH or weights=PATH"):
        make_encoder(f"onnx:{path}", path)
    with pytest.raises(EncoderError, match="which file"):
        make_encoder("onnx")
    with pytest.raises(EncoderError, match="has no CUDAExecutionProvider: install onnxruntime-gpu, or use 'cpu'"):
        make_encoder("onnx", path, device="cuda")
