"""The grid: within bounds, spacing exact, shares of tissue as counted pixel by pixel, the level as wanted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncmi.slides.tiling import Slide, SlideError, TilingSettings
from ncmi.slides.tiling.grid import Grid, plan_grid, tissue_shares


def slide(
    mpp: float = 0.5, size: tuple[int, int] = (4000, 3000), downsamples: tuple[float, ...] = (1.0, 2.0, 4.0)
) -> Any:
    stand_in = SimpleNamespace(mpp=mpp, size=size, downsamples=downsamples, path=Path("a.svs"))
    stand_in.level_for = lambda downsample: Slide.level_for(stand_in, downsample)
    return stand_in


@given(st.integers(1, 60), st.data())
def test_all_squares_lie_within_the_slide_evenly_and_as_many_as_fit(side: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(1, side))
    width, height = data.draw(st.integers(side, 200)), data.draw(st.integers(side, 200))
    corners = Grid(side, step, 0, 0.5).corners((width, height))

    assert corners.dtype == np.int64
    assert (corners >= 0).all()
    assert (corners[:, 0] + side <= width).all()
    assert (corners[:, 1] + side <= height).all()
    x, y = np.unique(corners[:, 0]), np.unique(corners[:, 1])
    assert (np.diff(x) == step).all()
    assert (np.diff(y) == step).all()
    assert len(corners) == len(x) * len(y) == len(np.unique(corners, axis=0))
    # one more would not fit
    assert x[-1] + step + side > width
    assert y[-1] + step + side > height
    # row by row
    assert (np.lexsort((corners[:, 0], corners[:, 1])) == np.arange(len(corners))).all()


@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 4), st.integers(0, 2**31 - 1))
def test_shares_are_those_counted_pixel_by_pixel(rows: int, columns: int, scale: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, columns)) < 0.5
    full = np.kron(mask, np.ones((scale, scale)))
    side = int(rng.integers(1, min(full.shape) + 1))
    corners = Grid(side, 1, 0, 0.5).corners((full.shape[1], full.shape[0]))

    counted = [full[y : y + side, x : x + side].mean() for x, y in corners]
    np.testing.assert_allclose(tissue_shares(mask, scale, corners, side), counted, atol=1e-12)


def test_shares_at_a_scale_that_is_no_whole_number() -> None:
    mask = np.array([[True, False], [False, False]])
    # squares of 3 pixels of which the mask's first pixel covers 2.5 by 2.5, then 1.5 by 2.5
    corners = np.array([[0, 0], [1, 0], [3, 3]])
    np.testing.assert_allclose(tissue_shares(mask, 2.5, corners, 3), [6.25 / 9, 3.75 / 9, 0.0])


def test_beyond_the_mask_there_is_no_tissue() -> None:
    np.testing.assert_allclose(tissue_shares(np.ones((2, 2), bool), 10.0, np.array([[10, 0], [15, 15]]), 10), [1, 0.25])


@pytest.mark.parametrize(
    ("mpp", "level", "side", "step", "made"),
    [
        (0.5, 0, 256, 224, 0.5),
        (1.0, 1, 512, 448, 1.0),
        (2.0, 2, 1024, 896, 2.0),
        (0.75, 0, 384, 336, 0.75),
        (3.0, 2, 1536, 1344, 3.0),
        (0.505, 0, 256, 224, 0.5),  # within 2 %: the level as it is
        (1.97, 2, 1024, 896, 2.0),
        (0.52, 0, 266, 233, 0.5 * 266 / 256),
    ],
)
def test_the_best_level_is_taken(mpp: float, level: int, side: int, step: int, made: float) -> None:
    grid = plan_grid(slide(), TilingSettings(mpp=mpp, overlap=32))
    assert (grid.level, grid.side, grid.step) == (level, side, step)
    assert grid.mpp == pytest.approx(made)


def test_without_tolerance_the_pixel_size_is_kept_as_wanted() -> None:
    assert plan_grid(slide(), TilingSettings(mpp=0.51, mpp_tolerance=0.0)).side == 261


def test_a_coarser_slide_is_enlarged_only_where_that_is_allowed() -> None:
    with pytest.raises(SlideError, match=r"a\.svs: has 0\.5 microns per pixel, coarser than mpp=0\.25.*upsample"):
        plan_grid(slide(), TilingSettings(mpp=0.25))
    grid = plan_grid(slide(), TilingSettings(mpp=0.25, upsample=True))
    assert (grid.level, grid.side) == (0, 128)


def test_a_slide_smaller_than_a_patch_is_told() -> None:
    with pytest.raises(SlideError, match=r"4000 by 200 pixels are less than one patch, which takes 256.*smaller"):
        plan_grid(slide(size=(4000, 200)), TilingSettings())
    assert len(plan_grid(slide(size=(256, 256)), TilingSettings()).corners((256, 256))) == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"patch_size": 15}, r"patch_size=15: must be at least 16"),
        ({"overlap": 256}, r"overlap=256: must be at least 0 and below patch_size=256"),
        ({"overlap": -1}, r"overlap=-1"),
        ({"mpp": 0.0}, r"mpp=0\.0: microns per pixel.*20x is 0\.5"),
        ({"mpp": float("nan")}, r"mpp=nan"),
        ({"slide_mpp": -0.5}, r"slide_mpp=-0\.5"),
        ({"min_tissue": 1.5}, r"min_tissue=1\.5: a share"),
        ({"mpp_tolerance": 0.5}, r"mpp_tolerance=0\.5"),
        ({"max_hole_mm2": -1}, r"max_hole_mm2=-1: an area"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        TilingSettings(**settings)
