"""The tissue mask against known tissue, and what must not be taken for tissue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiling_helpers import GLASS, disc, picture, write_slide

from ncmi.slides.tiling import Slide
from ncmi.slides.tiling import tissue as tissue_module
from ncmi.slides.tiling.tissue import Overview, read_overview, tissue_mask

# 3.2 by 2.4 mm at 8 microns per pixel
SIZE = (400, 300)
DISC = disc(SIZE, (180, 150), 80)


def mask_of(image: np.ndarray, **options: float) -> np.ndarray:
    return tissue_mask(Overview(image, 16.0, 8.0), **options)


def agreement(mask: np.ndarray, truth: np.ndarray) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


@pytest.mark.parametrize("color", [(190, 90, 160), (225, 190, 215), (90, 40, 110), (150, 110, 80)])
def test_a_disc_is_found_be_it_dark_pale_or_brown(color: tuple[int, int, int]) -> None:
    assert agreement(mask_of(picture(DISC, color=color)), DISC) > 0.97


def test_pale_tissue_beside_deeply_stained_tissue_is_kept() -> None:
    image = picture(DISC, color=(228, 190, 215))
    dark = disc(SIZE, (320, 150), 40)
    image[dark] = (140, 20, 110)
    assert agreement(mask_of(image), DISC | dark) > 0.95


@pytest.mark.parametrize(
    "glass", [(255, 255, 255), GLASS, (225, 220, 235), (240, 236, 222), (0, 0, 0), (120, 120, 120)]
)
def test_a_slide_without_tissue_gives_an_empty_mask(glass: tuple[int, int, int]) -> None:
    blank = np.full((*SIZE[::-1], 3), glass, np.uint8)
    assert not mask_of(blank).any()
    noisy = np.clip(blank + np.random.default_rng(0).normal(0, 3, (*SIZE[::-1], 1)), 0, 255).astype(np.uint8)
    assert not mask_of(noisy).any()


def test_tissue_without_glass_is_all_tissue() -> None:
    assert mask_of(picture(np.ones(SIZE[::-1], bool))).all()


def test_tissue_that_touches_the_edge_stays() -> None:
    truth = disc(SIZE, (0, 0), 120)
    mask = mask_of(picture(truth))
    assert agreement(mask, truth) > 0.97
    assert mask[0, :115].all()


def test_small_holes_are_filled_and_large_ones_are_not() -> None:
    # 0.02 mm² are 312 pixels of 8 microns
    small, large = disc(SIZE, (150, 150), 8), disc(SIZE, (205, 150), 25)
    mask = mask_of(picture(DISC & ~small & ~large))
    assert mask[small].all()
    assert mask[large].mean() < 0.15
    assert not mask_of(picture(DISC & ~small), max_hole_mm2=0.0)[disc(SIZE, (150, 150), 4)].any()


def test_specks_are_removed() -> None:
    speck, piece = disc(SIZE, (350, 60), 6), disc(SIZE, (350, 200), 14)
    mask = mask_of(picture(DISC | speck | piece))
    assert not mask[speck].any()
    assert mask[piece].mean() > 0.9
    assert mask_of(picture(DISC | speck), min_region_mm2=0.0)[speck].mean() > 0.9


def test_scanner_borders_are_no_tissue() -> None:
    image = picture(DISC)
    image[:20], image[:, -30:], image[-15:] = 0, (3, 1, 4), 255
    mask = mask_of(image)
    assert agreement(mask, DISC) > 0.97
    assert not mask[:20].any()
    assert not mask[:, -30:].any()


@pytest.mark.parametrize("ink", [(20, 130, 70), (30, 60, 190), (15, 15, 18), (0, 150, 160)])
def test_ink_is_no_tissue(ink: tuple[int, int, int]) -> None:
    image, line = picture(DISC), np.zeros(SIZE[::-1], bool)
    line[40:270, 330:345] = True
    image[line] = ink
    mask = mask_of(image)
    assert mask[line].mean() < 0.01
    assert agreement(mask, DISC) > 0.93


def test_green_stains_are_kept_on_demand() -> None:
    image = picture(DISC, color=(90, 170, 140))
    assert not mask_of(image).any()
    assert agreement(mask_of(image, pen=False), DISC) > 0.97


def test_the_overview_is_the_mean_of_the_pixels_however_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture(disc((1000, 700), (500, 350), 200))
    write_slide(tmp_path / "one.tif", image, levels=1)
    write_slide(tmp_path / "three.tif", image)
    blocks = image[:688, :992].reshape(43, 16, 62, 16, 3).mean((1, 3))
    for name, bands in (("one", False), ("one", True), ("three", False)):
        monkeypatch.setattr(tissue_module, "_BAND_PIXELS", 20_000 if bands else 16_000_000)
        with Slide(tmp_path / f"{name}.tif") as slide:
            seen = read_overview(slide)
        assert (seen.scale, seen.mpp) == (16.0, pytest.approx(8.0))
        assert seen.image.shape == (44, 63, 3)  # what is over at the edges has pixels of its own
        np.testing.assert_allclose(seen.image[:43, :62], blocks, atol=1.1)


def test_a_slide_coarser_than_the_overview_is_taken_as_it_is(tmp_path: Path) -> None:
    image = picture(DISC)
    write_slide(tmp_path / "coarse.tif", image, mpp=10.0, levels=1)
    with Slide(tmp_path / "coarse.tif") as slide:
        seen = read_overview(slide)
    assert (seen.scale, seen.mpp) == (1.0, pytest.approx(10.0))
    assert np.array_equal(seen.image, image)


def test_the_real_slide_is_a_third_tissue(data_dir: Path) -> None:
    with Slide(data_dir / "slides" / "cmu_small_region.svs") as slide:
        seen = read_overview(slide)
    mask = tissue_mask(seen)
    assert 0.33 < mask.mean() < 0.42
    # by eye, in pixels of level 0: dermis, epidermis and the strand on the left; glass left, right and below right
    for x, y, tissue in (
        (1000, 1500, True), (1250, 1700, True), (1700, 2600, True), (500, 1050, True), (900, 2800, True),
        (300, 300, False), (300, 2000, False), (2000, 1700, False), (2100, 600, False), (2100, 2300, False),
    ):  # fmt: skip
        assert mask[int(y / seen.scale), int(x / seen.scale)] == tissue, (x, y)
