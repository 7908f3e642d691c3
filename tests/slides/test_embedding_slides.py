"""Slides to features files: what is in them, on a synthetic pyramid and on a real slide."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from embedding_cohort import contents, copy_cohort, make_cohort, summary
from embedding_helpers import Means, write_onnx

from ncmi.slides.embedding import Encoder, describe_patches, embed_slides, make_encoder
from ncmi.slides.tiling import TilingSettings, tile_slides
from ncmi.slides.tiling.coords import read_coords


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("embedded") / "cohort")


def pixels(path: Path, xy: np.ndarray, side: int) -> np.ndarray:
    """Patches ``[N, side, side, 3]`` of level 0, read by another library than the one under test."""
    import tifffile

    image = tifffile.imread(path, key=0)
    return np.stack([image[y : y + side, x : x + side] for x, y in xy])


@pytest.mark.parametrize("workers", [0, 1, 5])
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_features_of_patches_in_their_order(workers: int, batch_size: int, cohort: Path, tmp_path: Path) -> None:
    encoder = Means()
    progress: list[tuple[str, int, int]] = []
    done = []
    results = embed_slides(
        cohort / "out",
        cohort / "slides",
        tmp_path,
        encoder,
        batch_size=batch_size,
        workers=workers,
        on_slide=done.append,
        on_patches=lambda *said: progress.append(said),
    )
    assert done == results
    assert [(result.slide, result.status, result.made) for result in results] == [
        (name, "embedded", True) for name in ("a", "b", "c")
    ]
    for result in results:
        assert result.seconds > 0
        coords = read_coords(cohort / "out" / "coords" / f"{result.slide}.h5")
        assert result.patches == len(coords) > 20
        found = contents(tmp_path / "features" / f"{result.slide}.h5")
        assert found["names"] == {"features", "coords"}
        assert found["features"].dtype == np.float16
        wanted = pixels(cohort / "slides" / f"{result.slide}.tif", coords.xy, 32).mean((1, 2)) / 255
        np.testing.assert_allclose(found["features"], wanted, atol=1e-3)
        np.testing.assert_array_equal(found["coords"], coords.xy)
        assert found["attributes"] == {"encoder": "means", "encoder_version": "1"}
        # and so the file of features serves as one of coordinates
        again = read_coords(tmp_path / "features" / f"{result.slide}.h5")
        assert again.attributes == coords.attributes
        steps = [said[1:] for said in progress if said[0] == result.slide]
        assert steps == [
            (min(n, len(coords)), len(coords)) for n in range(batch_size, len(coords) + batch_size, batch_size)
        ]
    assert max(encoder.batches) <= batch_size
    assert sum(encoder.batches) == sum(result.patches for result in results)
    assert [(row["status"], int(row["patches"]), row["reason"]) for row in summary(tmp_path).values()] == [
        ("embedded", result.patches, "") for result in results
    ]
    assert not list(tmp_path.rglob("*.partial"))


def test_patches_of_a_coarser_level(cohort: Path, tmp_path: Path) -> None:
    tile_slides(cohort / "slides", tmp_path, TilingSettings(mpp=1.0, patch_size=32), workers=1)
    embed_slides(tmp_path, cohort / "slides", tmp_path, Means())
    found = contents(tmp_path / "features" / "b.h5")
    assert found["coords attributes"]["patch_size_level0"] == 64
    squares = pixels(cohort / "slides" / "b.tif", found["coords"], 64)
    np.testing.assert_allclose(found["features"], squares.mean((1, 2)) / 255, atol=3e-3)


def test_layouts_of_other_tools(cohort: Path, tmp_path: Path) -> None:
    wanted = read_coords(cohort / "out" / "coords" / "a.h5").xy
    for folder, name, attributes in (
        ("patches", "a_patches", {"patch_size": 32, "level0_magnification": 20, "target_magnification": 20}),
        ("patches", "a", {"patch_size": 32, "patch_level": 0}),
        (".", "a", {"patch_size": 32, "patch_size_level0": 32}),
    ):
        out = tmp_path / f"{folder}-{name}"
        (out / folder).mkdir(parents=True)
        with h5py.File(out / folder / f"{name}.h5", "w") as file:
            # CLAM lets patches reach over the slide's border
            xy = np.concatenate([wanted, [[300, 240]]])
            file["coords"] = xy
            file["coords"].attrs.update(attributes)
        results = embed_slides(out, cohort / "slides", tmp_path / "features" / out.name, Means())
        assert [result.status for result in results] == ["embedded", "failed", "failed"]
        assert results[0].patches == len(wanted) + 1


def test_float32(cohort: Path, tmp_path: Path) -> None:
    embed_slides(cohort / "out", cohort / "slides", tmp_path, Means(factor=1e6), precision="float32")
    found = contents(tmp_path / "features" / "a.h5")["features"]
    assert found.dtype == np.float32
    assert found.min() > 1e5


@pytest.mark.parametrize("kind", ["descriptor", "onnx"])
def test_a_real_slide(kind: str, data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "slides" / "cmu_small_region.svs"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    tile_slides(path, tmp_path, TilingSettings(mpp=1.0, patch_size=128), workers=1)
    encoder: Encoder = make_encoder("descriptor")
    if kind == "onnx":
        encoder = make_encoder("onnx", write_onnx(tmp_path / "means.onnx", batch=4))
    (result,) = embed_slides(tmp_path, path, tmp_path, encoder, batch_size=16)
    found = contents(tmp_path / "features" / "cmu_small_region.h5")
    assert (result.status, result.patches) == ("embedded", len(found["features"]))
    assert found["features"].shape == (
        len(read_coords(tmp_path / "coords" / "cmu_small_region.h5")),
        encoder.feature_dim,
    )
    assert result.patches > 20
    assert np.isfinite(found["features"]).all()
    assert found["coords attributes"]["mpp"] == pytest.approx(1.0, rel=0.01)
    if kind == "descriptor":
        import openslide

        with openslide.OpenSlide(path) as slide:
            side = int(found["coords attributes"]["patch_size_level0"])
            x, y = (int(value) for value in found["coords"][7])
            square = slide.read_region((x, y), 0, (side, side)).convert("RGB").resize((128, 128), 2)
        wanted = describe_patches(np.asarray(square)[None])[0]
        np.testing.assert_allclose(found["features"][7], wanted, atol=2e-3, rtol=1e-3)


def test_a_slide_that_is_tiled_again_differently(cohort: Path, tmp_path: Path) -> None:
    own = copy_cohort(cohort, tmp_path / "own")
    embed_slides(own / "out", own / "slides", own / "out", Means())
    tile_slides(own / "slides", own / "out", TilingSettings(patch_size=64), workers=1, overwrite=True)
    with pytest.raises(ValueError, match=r"a.h5: made of other coordinates than there are now: pass overwrite=True"):
        embed_slides(own / "out", own / "slides", own / "out", Means())
    results = embed_slides(own / "out", own / "slides", own / "out", Means(), overwrite=True)
    assert [result.made for result in results] == [True] * 3
    assert contents(own / "out" / "features" / "a.h5")["coords attributes"]["patch_size"] == 64
