"""Stain normalization in front of an encoder: colors come together, and features of another are told apart."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from embedding_helpers import Means
from PIL import Image
from tiling_helpers import disc, picture, write_slide

from ncmi.cli import app
from ncmi.slides.embedding import EncoderError, make_encoder

HEMATOXYLIN, EOSIN = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])


def stained(strength: float, tint: float = 0.0, side: int = 48, seed: int = 0) -> np.ndarray:
    """A patch of two stains ``[side, side, 3]`` by Beer and Lambert: the same tissue, dyed more or less strongly."""
    random = np.random.default_rng(seed)
    amounts = random.gamma(2, 0.4, (side, side, 2)) * strength
    vectors = np.stack([HEMATOXYLIN + tint * np.array([0.2, 0, -0.1]), EOSIN + tint * np.array([0.1, -0.2, 0.1])])
    return np.clip(240 * np.exp(-amounts @ vectors), 0, 255).astype(np.uint8)


@pytest.fixture
def torchstain() -> None:
    pytest.importorskip("torchstain")


@pytest.mark.usefixtures("torchstain")
@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_the_same_tissue_in_other_colors_comes_together(tmp_path: Path, method: str) -> None:
    from ncmi.slides.embedding.stain import StainNormalized

    Image.fromarray(stained(1.0)).save(tmp_path / "target.png")
    normalized = StainNormalized(Means(), method, tmp_path / "target.png", workers=1)  # type: ignore[arg-type]
    pale, strong = stained(0.7, seed=1), stained(1.3, tint=0.5, seed=1)
    patches = torch.from_numpy(np.stack([pale, strong]))
    before, after = Means().encode(patches), normalized.encode(patches)
    assert (after[0] - after[1]).abs().max() < 0.25 * (before[0] - before[1]).abs().max()
    # of a patch alone what it is among others
    assert torch.equal(normalized.encode(patches[1:]), after[1:])
    assert (normalized.patches, normalized.unchanged) == (3, 0)
    assert normalized.version.startswith(f"1; stain normalization {method} by torchstain ")
    Image.fromarray(strong).save(tmp_path / "other.png")
    assert StainNormalized(Means(), method, tmp_path / "other.png").version != normalized.version  # type: ignore[arg-type]


@pytest.mark.usefixtures("torchstain")
def test_patches_without_stain_keep_their_colors() -> None:
    """Glass, and a single color, in which there are no two stains."""
    from ncmi.slides.embedding.stain import StainNormalized

    glass = np.full((32, 32, 3), 245, np.uint8)
    black = np.zeros((32, 32, 3), np.uint8)
    patches = torch.from_numpy(np.stack([glass, black, stained(1, side=32)]))
    normalized = StainNormalized(Means(), "macenko")
    features = normalized.encode(patches)
    assert torch.equal(features[0], Means().encode(patches[:1])[0])
    assert torch.isfinite(features).all()
    assert normalized.patches == 3
    assert normalized.unchanged == 2
    assert not torch.equal(features[2], Means().encode(patches[2:])[0])


@pytest.mark.usefixtures("torchstain")
def test_targets_that_cannot_be(tmp_path: Path) -> None:
    from ncmi.slides.embedding.stain import StainNormalized

    with pytest.raises(EncoderError, match="--stain-target"):
        StainNormalized(Means(), "reinhard")
    (tmp_path / "no.png").write_bytes(b"no image")
    with pytest.raises(EncoderError, match=r"no\.png: no readable image"):
        StainNormalized(Means(), "macenko", tmp_path / "no.png")
    Image.new("RGB", (32, 32), "white").save(tmp_path / "glass.png")
    with pytest.raises(EncoderError, match="not enough stain"):
        StainNormalized(Means(), "macenko", tmp_path / "glass.png")


def test_without_torchstain_there_is_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    from ncmi.slides.embedding.stain import StainNormalized

    monkeypatch.setitem(sys.modules, "torchstain", None)
    monkeypatch.setitem(sys.modules, "torchstain.base", None)
    with pytest.raises(EncoderError, match=r"pip install ncmi\[stain\]"):
        StainNormalized(make_encoder("descriptor"), "macenko")


@pytest.mark.usefixtures("torchstain")
def test_files_say_what_was_used_and_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "slides").mkdir()
    write_slide(tmp_path / "slides" / "a.tif", picture(disc((512, 512), (256, 256), 200)))
    app.run(["slides", "tile", str(tmp_path / "slides"), "--out", str(tmp_path / "tiles"), "--min-region", "0"])
    words = ["slides", "embed", str(tmp_path / "tiles"), str(tmp_path / "slides"), "--workers", "1"]
    app.run([*words, "--stain", "macenko"])
    assert "stain normalization macenko by torchstain" in " ".join(capsys.readouterr().out.split())
    with h5py.File(tmp_path / "tiles" / "features" / "a.h5") as file:
        assert "stain normalization macenko" in file.attrs["encoder_version"]
    # the same encoder without it is another, here and wherever encoders are compared
    with pytest.raises(ValueError, match="stain normalization macenko"):
        app.run(words)
    with pytest.raises(ValueError, match="--stain macenko or reinhard"):
        app.run([*words, "--stain-target", "x.png"])
