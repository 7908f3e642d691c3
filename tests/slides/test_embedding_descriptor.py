"""The color and texture descriptor against its definitions, its symmetries, and what it tells apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from embedding_reference import describe

from ncmi.slides.embedding import DESCRIPTOR_NAMES, EncoderError, describe_patches, make_encoder
from ncmi.slides.embedding.descriptor import USUAL, Planes


def blobs(number: int, height: int = 21, width: int = 21, seed: int = 0) -> np.ndarray:
    """Dark smooth blobs on a lighter noisy ground, of every color."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    patches = []
    for _ in range(number):
        cy, cx, size = random.uniform(0.3, 0.7) * height, random.uniform(0.3, 0.7) * width, random.uniform(2, 6)
        bump = np.exp(-((y - cy) ** 2 + 2 * (x - cx) ** 2) / size**2)[..., None]
        ground, dark = random.uniform(120, 255, 3), random.uniform(0, 150, 3)
        patches.append(ground + (dark - ground) * bump + random.normal(0, 12, (height, width, 3)))
    return np.clip(patches, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(21, 21), (15, 26), (9, 9)])
def test_against_the_definitions(height: int, width: int) -> None:
    patches = blobs(3, height, width)
    found = describe_patches(patches, natural_units=True)
    assert found.dtype == np.float32
    for patch, row in zip(patches, found, strict=True):
        wanted = describe(patch)
        assert set(wanted) == set(DESCRIPTOR_NAMES)
        for name, value in zip(DESCRIPTOR_NAMES, row.tolist(), strict=True):
            # half a gray level of 16 can fall to either side in float32; a pattern is a count of pixels
            allowed = 2e-3 if "haematoxylin" in name and "distance" in name else 2e-4
            assert value == pytest.approx(wanted[name], abs=allowed, rel=1e-3), name


def test_stains_are_those_of_scikit_image() -> None:
    from skimage.color import rgb2hed

    patches = np.maximum(blobs(4), 1)
    # there amounts below 0 are cut off, and the logarithm is divided by that of 1e6
    wanted = rgb2hed(patches) * np.log(1e6)
    found = np.moveaxis(Planes.of(patches).stains, 1, -1)
    np.testing.assert_allclose(np.maximum(found, 0), wanted, atol=1e-5)


@pytest.mark.parametrize("turn", [np.s_[:, ::-1], np.s_[:, :, ::-1], "rotated"])
def test_mirrored_and_turned_patches_are_described_alike(turn: object) -> None:
    patches = blobs(5)
    turned = np.rot90(patches, axes=(1, 2)) if isinstance(turn, str) else patches[turn]  # type: ignore[index]
    before, after = (describe_patches(np.ascontiguousarray(x), natural_units=True) for x in (patches, turned))
    counted = np.array(["pattern" in name for name in DESCRIPTOR_NAMES])
    np.testing.assert_allclose(after[:, ~counted], before[:, ~counted], atol=2e-4)
    # equal neighbors may be taken for smaller ones once they are interpolated from the other side
    np.testing.assert_allclose(after[:, counted], before[:, counted], atol=0.02)


def test_shuffled_pixels_keep_colors_and_lose_texture() -> None:
    patch = blobs(1)
    pixels = np.random.default_rng(0).permutation(patch.reshape(-1, 3)).reshape(patch.shape)
    before, after = (
        dict(zip(DESCRIPTOR_NAMES, describe_patches(x, natural_units=True)[0], strict=True)) for x in (patch, pixels)
    )
    for name in ("red mean", "saturation sd", "eosin skewness", "haematoxylin 75 %", "haematoxylin × eosin"):
        assert after[name] == pytest.approx(before[name], abs=1e-4)
    assert after["band 4 sd"] < before["band 4 sd"]
    assert after["brightness correlation at distance 1"] < before["brightness correlation at distance 1"] - 0.3


def test_units() -> None:
    assert list(USUAL) == list(DESCRIPTOR_NAMES)
    assert len(set(DESCRIPTOR_NAMES)) == len(DESCRIPTOR_NAMES) == 105
    patches = blobs(2)
    natural, usual = describe_patches(patches, natural_units=True), describe_patches(patches)
    for index, (center, scale) in enumerate(USUAL.values()):
        np.testing.assert_allclose(usual[:, index], (natural[:, index] - center) / scale, rtol=1e-4, atol=1e-4)


def test_a_patch_is_described_alike_in_any_company() -> None:
    patches = blobs(700)  # more than are described at a time
    together = describe_patches(patches)
    assert together.shape == (700, 105)
    for index in (0, 593, 594, 595, 699):
        np.testing.assert_allclose(describe_patches(patches[index : index + 1])[0], together[index], atol=1e-3)
    assert describe_patches(patches[:0]).shape == (0, 105)


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (190, 90, 160), (255, 0, 0)])
def test_without_structure(color: tuple[int, int, int]) -> None:
    patches = np.full((2, 30, 30, 3), color, dtype=np.uint8)
    found = describe_patches(patches, natural_units=True)
    assert np.isfinite(found).all()
    described = dict(zip(DESCRIPTOR_NAMES, found[0].tolist(), strict=True))
    assert described["red mean"] == pytest.approx(color[0] / 255)
    for name in ("green sd", "eosin skewness", "haematoxylin × eosin", "band 2 sd", "gradient mean at scale 1"):
        assert described[name] == pytest.approx(0, abs=1e-4)
    assert np.abs(describe_patches(patches)).max() < 100  # far within float16


def test_refusals() -> None:
    with pytest.raises(EncoderError, match=r"8×30 pixels: the descriptor needs at least 9×9"):
        describe_patches(np.zeros((1, 8, 30, 3), dtype=np.uint8))
    with pytest.raises(EncoderError, match=r"type float32: give RGB of 0…255, \[N, H, W, 3\] uint8"):
        describe_patches(np.zeros((1, 9, 9, 3), dtype=np.float32))  # type: ignore[arg-type]
    with pytest.raises(EncoderError, match=r"weights=.*: the descriptor has no use for it"):
        make_encoder("descriptor", "weights.pth")
    with pytest.raises(EncoderError, match="image_size=8: the descriptor needs at least 9"):
        make_encoder("descriptor", image_size=8)


def test_as_an_encoder() -> None:
    patches = blobs(5, 40, 40)
    encoder = make_encoder("descriptor")
    found = encoder.encode(torch.from_numpy(patches))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.from_numpy(describe_patches(patches)))
    smaller = make_encoder("descriptor", image_size=20)
    assert (smaller.name, smaller.image_size) == ("descriptor", 20)
    assert smaller.version != encoder.version
    blocks = patches.reshape(5, 20, 2, 20, 2, 3).mean((2, 4))
    near = smaller.encode(torch.from_numpy(patches))
    # smoothed by more than blocks of two pixels: colors stay as they are
    colors = [DESCRIPTOR_NAMES.index(f"{name} mean") for name in ("red", "green", "blue", "eosin")]
    wanted = describe_patches(np.rint(blocks).astype(np.uint8))
    np.testing.assert_allclose(near[:, colors].numpy(), wanted[:, colors], atol=0.1)
    with pytest.raises(EncoderError, match="40×41 pixels: this encoder takes square ones"):
        smaller.encode(torch.zeros(1, 40, 41, 3, dtype=torch.uint8))


def test_it_tells_epithelial_nuclei_from_others(data_dir: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    path = data_dir / "bags" / "colon_nuclei27.npz"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    with np.load(path) as file:
        patches, epithelial, image = file["x"][::25], file["nucleus_class"][::25] == 0, file["bag"][::25]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    with threadpool_limits(1):
        said = cross_val_predict(model, describe_patches(patches), epithelial, groups=image, cv=GroupKFold(5))
    # two thirds are others
    assert (said == epithelial).mean() > 0.85
