"""Attention heat maps: pixels against a naive painter, colors, marks, and where a slide's picture comes from."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from folders import PATCH, section_image, tissue, write_attention, write_slide_file, write_tiles
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ncmi.report import ReportError
from ncmi.report.attention import PATCH as PATCH_PIXELS
from ncmi.report.attention import (
    THUMBNAIL,
    TOP,
    Attention,
    Picture,
    Sources,
    attention_files,
    read_attention,
)
from ncmi.report.heat_maps import (
    Extent,
    HeatMap,
    color_places,
    colors_of,
    extent_of,
    heat_maps,
    heat_png,
    paint,
    top_of,
)

Array = NDArray[np.float64]


def attention_of(seed: int = 0, lesion: int = 3) -> Attention:
    corners, strength = tissue(seed, lesion)
    values = np.exp(4 * strength)
    return Attention("section", values / values.sum(), corners.astype(np.int64), PATCH)


def naive_paint(values: Array, coords: Any, side: int, extent: Extent, step: float, shape: tuple[int, int]) -> Array:
    sums, counts = np.zeros(shape), np.zeros(shape)
    for value, (x, y) in zip(values, coords, strict=True):
        left, top = math.floor((x - extent.left) / step + 0.5), math.floor((y - extent.top) / step + 0.5)
        right = max(math.floor((x + side - extent.left) / step + 0.5), left + 1)
        bottom = max(math.floor((y + side - extent.top) / step + 0.5), top + 1)
        for row in range(max(top, 0), min(bottom, shape[0])):
            for column in range(max(left, 0), min(right, shape[1])):
                sums[row, column] += value
                counts[row, column] += 1
    with np.errstate(invalid="ignore"):
        return np.where(counts > 0, sums / counts, np.nan)


# --- pixels


def test_a_grid_of_patches_becomes_squares_of_its_values() -> None:
    coords = np.array([[0, 0], [100, 0], [0, 100]])
    pixels = paint(np.array([1.0, 2.0, 4.0]), coords, 100, extent_of(coords, 100))
    assert pixels.shape == (16, 16)
    assert (pixels[:8, :8] == 1).all()
    assert (pixels[:8, 8:] == 2).all()
    assert (pixels[8:, :8] == 4).all()
    assert np.isnan(pixels[8:, 8:]).all()


@given(
    st.integers(0, 10_000),
    st.integers(1, 40),
    st.sampled_from([1, 7, 64, 300]),
    st.sampled_from([5, 40, 640]),
)
def test_pixels_are_means_of_the_patches_over_them(seed: int, count: int, side: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    coords = rng.integers(0, 500, size=(count, 2))
    values = rng.gamma(1.0, size=count)
    extent = extent_of(coords, side)
    found = paint(values, coords, side, extent, most)
    step = max(max(extent.width, extent.height) / most, side / 8)
    expected = naive_paint(values, coords, side, extent, step, found.shape)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    # no patch is lost, however small
    assert np.isfinite(found).any()


def test_two_hundred_thousand_patches_are_painted() -> None:
    side = 448
    corners = 256 * np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
    values = np.full(len(corners), 1.0)
    values[12_345] = 5000.0
    pixels = paint(values, corners, 256, extent_of(corners, 256))
    assert max(pixels.shape) <= 640
    assert np.nanmax(pixels) > 1000
    assert np.nanmin(pixels) == pytest.approx(1)


def test_colors_are_logarithmic_in_even_shares() -> None:
    np.testing.assert_allclose(color_places(np.array([0.05, 0.1, 1, 10, 100, 900]), 100.0), [0, 0, 1 / 3, 2 / 3, 1, 1])
    assert top_of(np.array([0.2, 3.0])) == 10
    assert top_of(np.array([0.2, 300.0])) == 300
    assert colors_of(np.array([0.0])).tolist() == [[0x44, 0x01, 0x54]]


def test_the_png_holds_the_colors_of_the_bar_and_nothing_where_there_is_no_patch() -> None:
    pixels = np.array([[0.01, 10.0], [np.nan, 1.0]])
    uri = heat_png(pixels, 10.0)
    image = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))).convert("RGBA")
    found = np.asarray(image)
    assert found[1, 0, 3] == 0
    for (row, column), place in {(0, 0): 0.0, (0, 1): 1.0, (1, 1): 0.5}.items():
        wanted = colors_of(np.array([place]))[0].astype(int)
        assert found[row, column, 3] == 255
        assert np.abs(found[row, column, :3].astype(int) - wanted).max() <= 3


# --- files


def test_attention_is_read_and_sums_to_one(tmp_path: Path) -> None:
    path = write_attention(tmp_path / "attention" / "a.b.npz", 1, lesion=2)
    found = read_attention(path)
    assert found.slide == "a.b"
    assert found.values.sum() == pytest.approx(1, abs=1e-12)
    assert found.patch_size == PATCH
    assert found.relative.mean() == pytest.approx(1)
    assert found.coords is not None
    assert attention_files(tmp_path) == {"a.b": path}
    assert attention_files(tmp_path / "none") == {}


def test_effective_patches_are_the_exponential_of_the_entropy() -> None:
    even = Attention("a", np.full(20, 0.05), None, 1)
    assert even.effective == pytest.approx(20)
    one = Attention("a", np.array([0.0, 1.0, 0.0]), None, 1)
    assert one.effective == pytest.approx(1)
    assert one.top(2) == [1, 0]


def test_the_side_of_a_patch_is_found_from_the_grid_where_the_file_does_not_say_it(tmp_path: Path) -> None:
    corners = 224 * np.stack(np.meshgrid(np.arange(5), np.arange(7)), -1).reshape(-1, 2)
    np.savez(tmp_path / "a.npz", attention=np.full(35, 1 / 35, dtype=np.float32), coords=corners)
    assert read_attention(tmp_path / "a.npz").patch_size == 224
    np.savez(tmp_path / "b.npz", attention=np.ones(1, dtype=np.float32), coords=np.array([[3, 4]]))
    assert read_attention(tmp_path / "b.npz").patch_size == 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"weights": np.ones(3)}, "lacks 'attention'"),
        ({"attention": np.array([0.5, np.nan])}, "no list of finite weights"),
        ({"attention": np.array([0.5, -0.5])}, "no list of finite weights"),
        ({"attention": np.zeros(3)}, "no list of finite weights"),
        ({"attention": np.ones((2, 2))}, "no list of finite weights"),
        ({"attention": np.ones(0)}, "no list of finite weights"),
        ({"attention": np.ones(3), "coords": np.zeros((2, 2))}, r"coords have shape \(2, 2\), attention \(3,\)"),
        ({"attention": np.ones(2), "coords": np.array([["a", "b"]] * 2)}, "coords have shape"),
    ],
)
def test_damaged_attention_is_told(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ReportError, match=message):
        read_attention(tmp_path / "a.npz")


def test_a_truncated_file_is_told(tmp_path: Path) -> None:
    path = write_attention(tmp_path / "a.npz", 0)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ReportError, match=r"a\.npz: damaged, not an \.npz archive"):
        read_attention(path)


# --- panels


def badges(drawing: HeatMap) -> list[tuple[float, float]]:
    return [(badge.badge_x, badge.badge_y) for badge in drawing.badges]


def test_without_a_picture_one_drawing_with_numbers_and_a_labeled_bar() -> None:
    (drawing,) = heat_maps("heat0", attention_of(), Picture())
    assert drawing.title == "Attention"
    assert [badge.number for badge in drawing.badges] == list(range(1, TOP + 1))
    places = [place for place, _ in drawing.ticks]
    assert [words for _, words in drawing.ticks][:2] == ["≤ 0.1×", "1×"]
    # in the order of the scale, from one end to the other
    assert (places[0], places[-1]) == (12, 388)
    assert places == sorted(places)
    assert (drawing.stops[0], drawing.stops[-1]) == ((0.0, "rgb(68 1 84)"), (1.0, "rgb(253 231 37)"))


def test_with_a_picture_the_slide_beside_the_map_over_it_in_gray() -> None:
    image = Image.fromarray(section_image(0, 3))
    slide, heat = heat_maps("heat0", attention_of(), Picture(image, (70 * PATCH, 46 * PATCH), (), 0.25, "x"))
    assert slide.title == "The slide and its top patches"
    assert slide.scale is not None
    assert slide.scale[1] in ("2 mm", "5 mm")
    assert len(badges(slide)) == TOP
    assert len(badges(heat)) == 0
    images = [layer.href for one in (slide, heat) for layer in one.layers]
    jpegs = [uri.removeprefix("data:image/jpeg;base64,") for uri in images if uri.startswith("data:image/jpeg")]
    modes = [Image.open(io.BytesIO(base64.b64decode(one))).mode for one in jpegs]
    assert modes == ["RGB", "L"]


@given(st.integers(0, 200), st.sampled_from([1, 2, 3]))
def test_badges_lie_in_the_picture_and_on_no_other(seed: int, lesion: int) -> None:
    (drawing,) = heat_maps("h", attention_of(seed, lesion), Picture())
    found = badges(drawing)
    assert len(found) == TOP
    for place, (x, y) in enumerate(found):
        assert 7 <= x <= 393
        assert y >= 22 + 7
        for a, b in found[:place]:
            assert math.hypot(x - a, y - b) > 14


def test_one_patch_and_even_attention_are_drawn() -> None:
    one = Attention("a", np.ones(1), np.array([[1000, 2000]]), 256)
    (drawing,) = heat_maps("h", one, Picture())
    assert len(badges(drawing)) == 1


# --- pictures


def test_the_picture_of_a_slide_comes_from_its_file(tmp_path: Path) -> None:
    write_slide_file(tmp_path / "slides" / "deep" / "s1.tif", 3, lesion=3)
    attention = attention_of(3, 3)
    assert attention.coords is not None
    corners = [(int(x) // 16, int(y) // 16) for x, y in attention.coords[attention.top(TOP)]]
    picture = Sources(tmp_path / "slides").picture("s1", corners, PATCH // 16)
    assert picture.note == "picture from s1.tif"
    assert picture.size == (70 * 32, 46 * 32)
    assert picture.mpp == pytest.approx(0.25, rel=1e-6)
    assert picture.thumbnail is not None
    assert max(picture.thumbnail.size) == THUMBNAIL
    # the thumbnail is the section, in its place
    whole = Image.fromarray(section_image(3, 3)).resize(picture.thumbnail.size, Image.Resampling.BOX)
    difference = np.abs(np.asarray(picture.thumbnail).astype(int) - np.asarray(whole).astype(int))
    assert np.median(difference) <= 6
    # and the patches are what lies at their corners: the heart of the lesion is darker than tissue far from it
    assert len(picture.patches) == TOP
    assert picture.patches[0].size == (PATCH_PIXELS, PATCH_PIXELS)
    dark = np.asarray(picture.patches[0]).mean()
    far = attention.coords[int(attention.values.argmin())] // 16
    (pale,) = Sources(tmp_path / "slides").picture("s1", [(int(far[0]), int(far[1]))], PATCH // 16).patches
    assert dark < np.asarray(pale).mean() - 15


def test_a_thumbnail_of_tiling_is_cut_to_the_slide(tmp_path: Path) -> None:
    write_tiles(tmp_path, "s1", 3, lesion=3)
    picture = Sources(tiles=tmp_path).picture("s1", [], PATCH)
    assert picture.size == (70 * PATCH, 46 * PATCH)
    assert picture.mpp == 0.25
    assert picture.patches == ()
    assert picture.thumbnail is not None
    whole = Image.fromarray(section_image(3, 3)).resize(picture.thumbnail.size, Image.Resampling.BOX)
    difference = np.abs(np.asarray(picture.thumbnail).astype(int) - np.asarray(whole).astype(int))
    assert np.median(difference) <= 8


def test_what_cannot_be_shown_is_told(tmp_path: Path) -> None:
    assert Sources().picture("a", [], 1).note == "neither slides nor tiles are given (--slides, --tiles)"
    slides, tiles = tmp_path / "slides", tmp_path / "tiles"
    write_slide_file(slides / "other.tif", 0)
    (slides / "broken.svs").write_bytes(b"not a slide")
    write_tiles(tiles, "other", 0)
    sources = Sources(slides, tiles)
    note = sources.picture("a", [], 1).note
    assert note == "no slide of that name in the folder “slides”; no thumbnails/a.jpg in tiles"
    assert "broken.svs: OpenSlide cannot read it" in sources.picture("broken", [], 1).note
    assert str(tmp_path) not in sources.picture("broken", [], 1).note
    # one that fails gives way to the other
    write_tiles(tiles, "broken", 0)
    assert sources.picture("broken", [], 1).thumbnail is not None
    (tiles / "coords" / "other.h5").write_bytes(b"")
    assert "other.h5: cannot be read" in Sources(tiles=tiles).picture("other", [], 1).note
    Image.new("RGB", (50, 200)).save(tiles / "thumbnails" / "broken.jpg")
    assert "does not have the slide's proportions" in Sources(tiles=tiles).picture("broken", [], 1).note


def test_places_in_microns_lie_on_the_slide_where_its_resolution_is_known(tmp_path: Path) -> None:
    """A slide of 0.25 microns per pixel: the same patches, told in microns as STAMP does and in pixels."""
    write_slide_file(tmp_path / "s1.tif", 3, lesion=3)
    pixels = attention_of(3, 3)
    assert pixels.coords is not None
    pixels = Attention("s1", pixels.values, pixels.coords // 16, PATCH // 16)
    np.savez(
        tmp_path / "s1.npz",
        attention=pixels.values,
        coords=pixels.coords * 0.25,
        patch_size=pixels.patch_size * 0.25,
        unit="um",
    )
    weights = read_attention(tmp_path / "s1.npz")
    assert weights.microns
    found, picture = Sources(tmp_path).look(weights)
    assert (found.microns, found.patch_size) == (False, pixels.patch_size)
    np.testing.assert_array_equal(found.coords, pixels.coords)
    assert picture.thumbnail is not None
    expected = Sources(tmp_path).picture("s1", [(int(x), int(y)) for x, y in pixels.coords[pixels.top(1)]], 32)
    np.testing.assert_array_equal(np.asarray(picture.patches[0]), np.asarray(expected.patches[0]))
    # taken as pixels they lie in a corner, half of them off the tissue, and are not drawn
    _, wrong = Sources(tmp_path).look(Attention("s1", pixels.values, weights.coords * 0.25, 2))
    assert wrong.thumbnail is None
    assert "no tissue" in wrong.note


def test_what_is_not_of_the_slide_is_not_drawn_over_it(tmp_path: Path) -> None:
    write_slide_file(tmp_path / "s1.tif", 3, lesion=3)
    weights = attention_of(3, 3)
    corners = weights.coords
    assert corners is not None
    _, picture = Sources(tmp_path).look(Attention("s1", weights.values, corners, PATCH))
    assert (picture.thumbnail, picture.patches) == (None, ())
    assert "lie outside the slide" in picture.note
    write_tiles(tmp_path / "tiles", "s1", 3, lesion=3)
    sources = Sources(tiles=tmp_path / "tiles")
    picture = sources.look(Attention("s1", weights.values, corners, PATCH))[1]
    assert picture.thumbnail is not None
    shifted = corners[:, ::-1] // 8
    assert sources.look(Attention("s1", weights.values, shifted, PATCH // 8))[1].thumbnail is None
    # microns of a slide that does not say its resolution
    with h5py.File(tmp_path / "tiles" / "coords" / "s1.h5", "r+") as file:
        del file["coords"].attrs["level0_mpp"]
    microns = Attention("s1", weights.values, corners.astype(float), PATCH, microns=True)
    found, picture = sources.look(microns)
    assert (found.microns, picture.thumbnail) == (True, None)
    assert "--slide-mpp" in picture.note
    assert Sources(tiles=tmp_path / "tiles", slide_mpp=1.0).look(microns)[1].thumbnail is not None


@pytest.mark.parametrize("which", ["slides", "tiles"])
def test_a_folder_that_is_none_is_refused(tmp_path: Path, which: str) -> None:
    with pytest.raises(ReportError, match=r"nowhere: no such folder: "):
        Sources(**{which: tmp_path / "nowhere"})


def test_a_real_slide(data_dir: Path) -> None:
    picture = Sources(data_dir / "slides").picture("cmu_small_region", [(900, 1100), (2100, 2900)], 224)
    assert picture.size == (2220, 2967)
    assert picture.thumbnail is not None
    assert picture.thumbnail.size == (479, 640)
    assert picture.mpp == pytest.approx(0.499, abs=1e-3)
    assert len(picture.patches) == 2
    # tissue, not blank
    assert np.asarray(picture.patches[0]).std() > 15
