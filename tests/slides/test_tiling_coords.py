"""Coordinates files: ours, TRIDENT's and CLAM's read alike; patches have the pixels that were written."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from tiling_helpers import disc, picture, write_slide

from ncmi.slides.tiling import Coords, CoordsError, Slide, read_coords, read_patch, write_coords

IMAGE = picture(disc((1200, 900), (600, 450), 300), noise=12)
XY = np.array([[0, 0], [256, 128], [640, 256]])


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slide") / "a.tif"
    write_slide(path, IMAGE)
    return path


def foreign(path: Path, attributes: dict[str, Any], xy: np.ndarray = XY) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("coords", data=xy).attrs.update(attributes)
    return path


def patches(slide: Path, coords: Coords) -> list[np.ndarray]:
    with Slide(slide) as opened:
        return [read_patch(opened, coords, index) for index in range(len(coords))]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    attributes = {"patch_size": 256, "patch_size_level0": 512, "name": "a", "mpp": 0.5, "level0_mpp": 0.25, "x": [1, 2]}
    write_coords(tmp_path / "deep" / "a.h5", XY, attributes)
    coords = read_coords(tmp_path / "deep" / "a.h5")
    assert np.array_equal(coords.xy, XY)
    assert coords.xy.dtype == np.int64
    assert (coords.name, coords.patch_size, coords.patch_size_level0) == ("a", 256, 512)
    assert (coords.mpp, coords.level0_mpp, len(coords)) == (0.5, 0.25, 3)
    assert coords.attributes == {**attributes, "x": (1, 2)}
    assert np.array_equal(pickle.loads(pickle.dumps(coords)).xy, XY)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.h5"]


def test_a_slide_without_patches_has_a_file(tmp_path: Path) -> None:
    write_coords(tmp_path / "a.h5", np.empty((0, 2), np.int64), {"patch_size": 256, "patch_size_level0": 256})
    coords = read_coords(tmp_path / "a.h5")
    assert coords.xy.shape == (0, 2)
    assert coords.name == "a"


def test_a_file_of_trident(tmp_path: Path, slide: Path) -> None:
    attributes = {
        "patch_size": 128, "patch_size_level0": 256, "level0_magnification": 20, "target_magnification": 10,
        "overlap": 0, "name": "a", "savetodir": "out", "level0_width": 1200, "level0_height": 900,
    }  # fmt: skip
    coords = read_coords(foreign(tmp_path / "a_patches.h5", attributes))
    assert (coords.patch_size, coords.patch_size_level0, coords.mpp) == (128, 256, None)
    del attributes["patch_size_level0"]
    assert read_coords(foreign(tmp_path / "older.h5", attributes)).patch_size_level0 == 256


def test_a_file_of_clam(tmp_path: Path, slide: Path) -> None:
    attributes = {
        "patch_size": 128, "patch_level": 1, "downsample": (2.0, 2.0), "downsampled_level_dim": (600, 450),
        "level_dim": (600, 450), "name": "a", "save_path": "out",
    }  # fmt: skip
    coords = read_coords(foreign(tmp_path / "a.h5", attributes))
    assert (coords.name, coords.patch_size, coords.patch_size_level0) == ("a", 128, 256)
    with Slide(slide) as opened:  # as CLAM itself reads
        expected = [opened.read(int(x), int(y), 1, 128, 128) for x, y in XY]
    assert np.array_equal(patches(slide, coords), expected)
    attributes["custom_downsample"] = 2
    assert read_coords(foreign(tmp_path / "b.h5", attributes)).patch_size_level0 == 512
    assert read_coords(foreign(tmp_path / "c.h5", {"patch_size": 128, "patch_level": 0})).patch_size_level0 == 128


def test_coords_with_a_leading_axis_and_of_floats_are_read(tmp_path: Path) -> None:
    sizes = {"patch_size": 128, "patch_size_level0": 128}
    coords = read_coords(foreign(tmp_path / "a.h5", sizes, XY[None].astype(float)))
    assert np.array_equal(coords.xy, XY)
    assert coords.xy.dtype == np.int64


@pytest.mark.parametrize(
    ("attributes", "xy", "told"),
    [
        ({}, XY, r"a\.h5: does not say how large the patches are: .*patch_size_level0 \(as TRIDENT writes\)"),
        ({"patch_size": 128, "patch_level": 1}, XY, r"or patch_size and downsample \(as CLAM writes\)"),
        ({"patch_size": 1, "patch_size_level0": 0}, XY, r"does not say how large"),
        ({"patch_size": 128, "patch_size_level0": 128}, XY[:, :1], r"coords has shape \(3, 1\).*\[N, 2\]"),
        ({"patch_size": 128, "patch_size_level0": 128}, XY + 0.5, r"whole numbers"),
        ({"patch_size": 128, "patch_size_level0": 128}, XY - 1, r"whole numbers ≥ 0"),
    ],
)
def test_files_that_say_too_little_are_refused(
    tmp_path: Path, attributes: dict[str, Any], xy: np.ndarray, told: str
) -> None:
    with pytest.raises(CoordsError, match=told):
        read_coords(foreign(tmp_path / "a.h5", attributes, xy))


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CoordsError, match=r"gone\.h5: cannot be read .*tile the slide again"):
        read_coords(tmp_path / "gone.h5")
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(CoordsError, match=r"text\.h5: cannot be read"):
        read_coords(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["features"] = np.zeros((3, 2))
    with pytest.raises(CoordsError, match=r"other\.h5: holds no data set coords"):
        read_coords(tmp_path / "other.h5")


def test_patches_of_level_0_are_the_pixels_of_the_slide(slide: Path) -> None:
    for patch, (x, y) in zip(patches(slide, Coords("a", XY, 256, 256)), XY, strict=True):
        assert np.array_equal(patch, IMAGE[y : y + 256, x : x + 256])


@pytest.mark.parametrize("factor", [2, 4])
def test_patches_of_a_level_are_its_pixels(slide: Path, factor: int) -> None:
    level = IMAGE[: 900 // factor * factor, : 1200 // factor * factor]
    for _ in range({2: 1, 4: 2}[factor]):
        level = level[: len(level) // 2 * 2].reshape(len(level) // 2, 2, level.shape[1] // 2, 2, 3).mean((1, 3)).round()
    for patch, (x, y) in zip(patches(slide, Coords("a", XY, 64, 64 * factor)), XY, strict=True):
        assert np.array_equal(patch, level[y // factor :, x // factor :][:64, :64])


@pytest.mark.parametrize(("side", "level"), [(384, 0), (400, 0), (600, 1), (768, 1)])
def test_between_levels_the_finer_one_is_reduced(slide: Path, side: int, level: int) -> None:
    (patch,) = patches(slide, Coords("a", XY[1:2], 256, side))
    assert patch.shape == (256, 256, 3)
    x, y = XY[1]
    whole = IMAGE[y : y + side, x : x + side]
    with Slide(slide) as opened:
        source = opened.read(int(x), int(y), level, round(side / 2**level), round(side / 2**level))
    assert np.array_equal(patch, np.asarray(Image.fromarray(source).resize((256, 256), Image.Resampling.BILINEAR)))
    # the same light on the same place: means of 8 by 8 parts
    parts = np.array_split(np.arange(side), 8)
    means = [[whole[np.ix_(rows, columns)].mean() for columns in parts] for rows in parts]
    np.testing.assert_allclose(patch.reshape(8, 32, 8, 32, 3).mean((1, 3, 4)), means, atol=2.0)


def test_a_coarse_slide_is_enlarged(slide: Path) -> None:
    (patch,) = patches(slide, Coords("a", XY[1:2], 256, 128))
    np.testing.assert_allclose(
        patch.reshape(128, 2, 128, 2, 3).mean((1, 3)), IMAGE[128:256, 256:384], atol=60
    )  # noise is smoothed
    assert abs(float(patch.mean()) - IMAGE[128:256, 256:384].mean()) < 1


def test_patches_at_the_end_of_a_slide_are_whole(slide: Path) -> None:
    (patch,) = patches(slide, Coords("a", np.array([[1200 - 256, 900 - 256]]), 256, 256))
    assert np.array_equal(patch, IMAGE[-256:, -256:])
