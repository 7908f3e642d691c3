"""A folder of slides to a folder of coordinates: truth, restart, settings, failures, several processes."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from tiling_helpers import GLASS, disc, halve, picture, tile_or_die, write_slide

from ncmi.cli import app
from ncmi.slides.tiling import (
    CoordsError,
    Slide,
    SlideError,
    TilingSettings,
    find_slides,
    read_coords,
    read_mpps,
    read_patch,
    tile,
    tile_slides,
)
from ncmi.slides.tiling.slide_file import pictures_beside_slides
from ncmi.slides.work import SlideResult

SIZE = (2000, 1500)
CENTERS = ((600.0, 700.0), (1450.0, 500.0))
RADII = (380.0, 260.0)
TRUTH = disc(SIZE, CENTERS[0], RADII[0]) | disc(SIZE, CENTERS[1], RADII[1])
IMAGE = picture(TRUTH)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "more").mkdir()
    write_slide(folder / "discs.tif", IMAGE)
    write_slide(folder / "more" / "part.tiff", IMAGE[300:1000, 200:1100], levels=2)
    write_slide(folder / "blank.tif", picture(np.zeros((600, 700), bool)), levels=2)
    return folder


@pytest.fixture
def slides(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "slides"))


def made(out: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in (out / "coords").glob("*.h5")}


def summary(out: Path) -> list[dict[str, str]]:
    with (out / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def statuses(results: list[SlideResult]) -> dict[str, str]:
    return {result.slide: result.status for result in results}


@pytest.mark.parametrize(
    "options",
    [
        {"mpp": 0.5, "patch_size": 64},
        {"mpp": 0.5, "patch_size": 64, "overlap": 16, "min_tissue": 0.5},
        {"mpp": 1.0, "patch_size": 64, "overlap": 32},
        {"mpp": 0.8, "patch_size": 50, "min_tissue": 0.9},
    ],
)
def test_patches_lie_on_the_tissue_and_cover_it(slides: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    (result,) = tile_slides(slides / "discs.tif", tmp_path / "out", TilingSettings(**options), workers=1)
    coords = read_coords(tmp_path / "out" / "coords" / "discs.h5")
    side = round(options["patch_size"] * options["mpp"] / 0.5)
    step = side - round(options.get("overlap", 0) * options["mpp"] / 0.5)
    least = options.get("min_tissue", 0.25)
    assert result.patches == len(coords) > 20
    assert coords.patch_size_level0 == side

    whole = [(x, y) for y in range(0, 1500 - side + 1, step) for x in range(0, 2000 - side + 1, step)]
    share = {(x, y): TRUTH[y : y + side, x : x + side].mean() for x, y in whole}
    chosen = set(map(tuple, coords.xy.tolist()))
    assert chosen <= share.keys()  # on the grid, within the slide
    # the outline is known to a pixel of the mask, 16 here: patches near the limit may go either way
    slack = 16 / side
    assert {corner for corner, value in share.items() if value >= least + slack} <= chosen
    assert all(share[corner] >= least - slack for corner in chosen)
    assert all(share[corner] > 0 for corner in chosen)
    if least <= 0.25:
        covered = np.zeros_like(TRUTH)
        for x, y in chosen:
            covered[y : y + side, x : x + side] = True
        assert (covered & TRUTH).sum() / TRUTH.sum() > 0.97


def test_patches_have_the_pixels_of_the_slide(slides: Path, tmp_path: Path) -> None:
    tile_slides(slides / "discs.tif", tmp_path, TilingSettings(mpp=1.0, patch_size=64), workers=1)
    coords, level = read_coords(tmp_path / "coords" / "discs.h5"), halve(IMAGE)
    with Slide(slides / "discs.tif") as slide:
        for index in range(0, len(coords), 7):
            x, y = coords.xy[index] // 2
            assert np.array_equal(read_patch(slide, coords, index), level[y : y + 64, x : x + 64])


def test_the_attributes_are_those_of_trident_and_of_clam(slides: Path, tmp_path: Path) -> None:
    tile_slides(slides / "discs.tif", tmp_path, TilingSettings(mpp=1.0, patch_size=64, overlap=8), workers=1)
    attributes = read_coords(tmp_path / "coords" / "discs.h5").attributes
    expected = {
        "patch_size": 64, "patch_size_level0": 128, "level0_magnification": 20, "target_magnification": 10,
        "overlap": 8, "name": "discs", "savetodir": str(tmp_path), "level0_width": 2000, "level0_height": 1500,
        "patch_level": 1, "downsample": (2.0, 2.0), "downsampled_level_dim": (1000, 750), "level_dim": (1000, 750),
        "save_path": str(tmp_path), "custom_downsample": 1,
    }  # fmt: skip
    assert {key: attributes[key] for key in expected} == expected
    assert attributes["mpp"] == pytest.approx(1.0)
    assert attributes["level0_mpp"] == pytest.approx(0.5)


@pytest.mark.parametrize("mpp", [0.5, 0.8, 1.3, 2.0, 2.3])
def test_magnifications_and_downsamples_give_the_side_at_level_0(slides: Path, tmp_path: Path, mpp: float) -> None:
    tile_slides(slides / "discs.tif", tmp_path, TilingSettings(mpp=mpp, patch_size=100), workers=1)
    found = read_coords(tmp_path / "coords" / "discs.h5").attributes
    side = found["patch_size_level0"]
    assert found["patch_size"] * found["level0_magnification"] / found["target_magnification"] == pytest.approx(side)
    assert found["patch_size"] * found["downsample"][0] * found["custom_downsample"] == pytest.approx(side)
    assert found["mpp"] * found["patch_size"] == pytest.approx(found["level0_mpp"] * side)
    assert abs(found["mpp"] / mpp - 1) < 0.01


def test_all_slides_of_a_folder_with_a_summary(slides: Path, tmp_path: Path) -> None:
    seen: list[SlideResult] = []
    results = tile_slides(slides, tmp_path / "out", workers=1, on_slide=seen.append)
    assert seen == results
    assert statuses(results) == {"blank": "no tissue", "discs": "tiled", "part": "tiled"}
    assert results[0].reason == "no tissue found: see the thumbnail"
    assert len(read_coords(tmp_path / "out" / "coords" / "blank.h5")) == 0
    assert [tuple(row.values()) for row in summary(tmp_path / "out")] == [
        (result.slide, result.status, str(result.patches), result.reason) for result in results
    ]
    stored = json.loads((tmp_path / "out" / "tiling.json").read_text())
    assert stored["settings"]["patch_size"] == 256
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "coords", "summary.csv", "thumbnails", "tiling.json",
    ]  # fmt: skip


def test_without_a_least_share_of_tissue_every_patch_is_taken(slides: Path, tmp_path: Path) -> None:
    (result,) = tile_slides(slides / "blank.tif", tmp_path, TilingSettings(patch_size=100, min_tissue=0.0), workers=1)
    assert (result.status, result.patches) == ("tiled", 42)


def test_the_thumbnail_shows_slide_patches_and_outline(slides: Path, tmp_path: Path) -> None:
    tile_slides(slides, tmp_path, TilingSettings(patch_size=64), workers=1)
    with Image.open(tmp_path / "thumbnails" / "discs.jpg") as thumbnail:
        assert thumbnail.format == "JPEG"
        assert thumbnail.width == 1500
        assert 1125 <= thumbnail.height < 1180
        pixels = np.asarray(thumbnail).astype(int)
    glass, tissue = pixels[1000, 1300], pixels[525, 470]
    assert np.abs(glass - GLASS).max() < 12
    assert tissue[1] < 150  # tinted, but still the tissue
    # somewhere along the way from the glass into the disc lies its green outline
    row = pixels[525, :300]
    green = row[:, 1] - row[:, [0, 2]].max(1)
    assert abs(int(green.argmax()) - (600 - 380) * 0.75) < 14  # a pixel of the mask is 12 here
    assert green.max() > 20


def test_finished_slides_are_kept_and_only_the_missing_one_is_made(slides: Path, tmp_path: Path) -> None:
    first = tile_slides(slides, tmp_path, workers=1)
    before = made(tmp_path)
    (tmp_path / "coords" / "part.h5").unlink()
    again = tile_slides(slides, tmp_path, workers=1)
    after = made(tmp_path)
    assert [result.made for result in again] == [False, False, True]
    assert [replace(result, made=True) for result in again] == first
    assert {name for name in after if after[name] != before[name]} == {"part"}
    assert [row["slide"] for row in summary(tmp_path)] == ["blank", "discs", "part"]


def test_slides_added_later_join(slides: Path, tmp_path: Path) -> None:
    tile_slides(slides, tmp_path, workers=1)
    write_slide(slides / "later.tif", IMAGE[:700, :800], levels=1)
    results = tile_slides(slides, tmp_path, workers=1)
    assert [result.slide for result in results if result.made] == ["later"]


def test_other_settings_are_refused_and_nothing_is_touched(slides: Path, tmp_path: Path) -> None:
    tile_slides(slides, tmp_path, workers=1)
    before = made(tmp_path), (tmp_path / "tiling.json").read_text(), (tmp_path / "summary.csv").read_text()
    with pytest.raises(CoordsError, match=r"was made with mpp=0\.5 \(now 1\.0\), patch_size=256 \(now 128\): give the"):
        tile_slides(slides, tmp_path, TilingSettings(mpp=1.0, patch_size=128), workers=1)
    (tmp_path / "tiling.json").rename(tmp_path / "kept.json")
    with pytest.raises(
        CoordsError, match=r"blank\.h5: was made with mpp=0\.5 \(now 1\.0\): choose another out, or over"
    ):
        tile_slides(slides, tmp_path, TilingSettings(mpp=1.0), workers=1)
    assert not (tmp_path / "tiling.json").exists()
    (tmp_path / "kept.json").rename(tmp_path / "tiling.json")
    assert before == (made(tmp_path), (tmp_path / "tiling.json").read_text(), (tmp_path / "summary.csv").read_text())

    results = tile_slides(slides, tmp_path, TilingSettings(mpp=1.0), workers=1, overwrite=True)
    assert all(result.made for result in results)
    assert read_coords(tmp_path / "coords" / "discs.h5").patch_size_level0 == 512
    assert not set(made(tmp_path).values()) & set(before[0].values())
    assert all(not result.made for result in tile_slides(slides, tmp_path, TilingSettings(mpp=1.0), workers=1))


def test_files_of_other_slides_and_programs_are_not_mixed_with_ours(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tile_slides(slides / "blank.tif", out, workers=1)
    with pytest.raises(CoordsError, match=r"blank\.h5: was made with patch_size=256 \(now 64\): move it away"):
        tile_slides(slides / "discs.tif", out, TilingSettings(patch_size=64), workers=1, overwrite=True)
    (out / "coords" / "discs.h5").write_text("no")
    with pytest.raises(CoordsError, match=r"discs\.h5: cannot be read .*; or choose another out, or overwrite"):
        tile_slides(slides / "discs.tif", out, workers=1)
    with pytest.raises(CoordsError, match=r"tiling\.json: damaged .*: choose another out, or overwrite"):
        (out / "tiling.json").write_text("{}")
        tile_slides(slides / "discs.tif", out, workers=1)
    (result,) = tile_slides(slides / "discs.tif", out, workers=1, overwrite=True)
    assert result.status == "tiled"


def test_slides_that_cannot_be_tiled_are_told_and_the_others_are_made(slides: Path, tmp_path: Path) -> None:
    whole = (slides / "discs.tif").read_bytes()
    (slides / "cut.tif").write_bytes(whole[: len(whole) // 2])
    (slides / "noise.svs").write_bytes(np.random.default_rng(0).bytes(1000))
    write_slide(slides / "unknown.tif", IMAGE, mpp=None)
    write_slide(slides / "coarse.tif", IMAGE, mpp=1.0)
    write_slide(slides / "tiny.tif", IMAGE[:100, :100], levels=1)
    results = tile_slides(slides, tmp_path / "out", workers=1)
    told = {result.slide: result.reason for result in results if result.status == "failed"}
    for name, word in {
        "cut": "cut.tif: neither OpenSlide nor Pillow can read it",
        "noise": "OpenSlide cannot read it",
        "unknown": "give the microns per pixel of its level 0 as --slide-mpp",
        "coarse": "give mpp=1 or more",
        "tiny": "its 100 by 100 pixels are less than one patch",
    }.items():
        assert word in told.pop(name)
    assert not told
    assert set(made(tmp_path / "out")) == {"blank", "discs", "part"}
    rows = {row["slide"]: row for row in summary(tmp_path / "out")}
    assert rows["cut"]["status"] == "failed"
    assert "copy it again" in rows["cut"]["reason"]
    # mended, they join
    write_slide(slides / "cut.tif", IMAGE)
    again = tile_slides(slides, tmp_path / "out", workers=1)
    assert statuses(again)["cut"] == "tiled"


def test_damage_that_only_level_0_shows_is_found(slides: Path, tmp_path: Path) -> None:
    path = slides / "discs.tif"
    write_slide(path, IMAGE, compression="deflate")
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        # the last patch of the lower disc, seen neither by the mask nor by the thumbnail of a pyramid
        ruined = [(page.dataoffsets[i], page.databytecounts[i]) for i in range(len(page.dataoffsets) // 2, 192)]
    content = bytearray(path.read_bytes())
    for offset, count in ruined:
        content[offset : offset + count] = bytes(count)
    path.write_bytes(content)
    (result,) = tile_slides(path, tmp_path, workers=1)
    assert result.status == "failed"
    assert "the file is damaged or incomplete; copy it again" in result.reason
    assert not made(tmp_path)


def test_given_and_enlarged_pixel_sizes(slides: Path, tmp_path: Path) -> None:
    write_slide(slides / "unknown.tif", IMAGE, mpp=None)
    (result,) = tile_slides(slides / "unknown.tif", tmp_path / "a", TilingSettings(slide_mpp=0.25), workers=1)
    assert read_coords(tmp_path / "a" / "coords" / "unknown.h5").patch_size_level0 == 512
    (result,) = tile_slides(slides / "discs.tif", tmp_path / "b", TilingSettings(mpp=0.25, upsample=True), workers=1)
    assert result.status == "tiled"
    assert read_coords(tmp_path / "b" / "coords" / "discs.h5").patch_size_level0 == 128


def test_wrong_calls_write_nothing(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_slide(slides / "more" / "discs.tif", IMAGE[:300, :300], levels=1)
    with pytest.raises(SlideError, match=r"two slides are called discs"):
        tile_slides(slides, out)
    with pytest.raises(SlideError, match="no such folder"):
        tile_slides(slides / "gone", out)
    with pytest.raises(ValueError, match="overlap=300"):
        tile_slides(slides, out, TilingSettings(overlap=300))
    with pytest.raises(ValueError, match="workers=-1"):
        tile_slides(slides, out, workers=-1)
    assert not out.exists()


def test_stopped_in_the_middle_it_leaves_whole_files_and_goes_on(slides: Path, tmp_path: Path) -> None:
    def stop(result: SlideResult) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tile_slides(slides, tmp_path, workers=1, on_slide=stop)
    before = made(tmp_path)
    assert list(before) == ["blank"]
    assert [row["slide"] for row in summary(tmp_path)] == ["blank"]
    results = tile_slides(slides, tmp_path, workers=1)
    assert [result.made for result in results] == [False, True, True]
    assert made(tmp_path)["blank"] == before["blank"]


def test_the_real_slide(data_dir: Path, tmp_path: Path) -> None:
    slide = data_dir / "slides" / "cmu_small_region.svs"
    (result,) = tile_slides(slide, tmp_path, workers=1)
    coords = read_coords(tmp_path / "coords" / "cmu_small_region.h5")
    assert 36 <= result.patches <= 46
    assert (coords.patch_size, coords.patch_size_level0) == (256, 256)  # 0.499 is near enough to 0.5
    assert coords.mpp == pytest.approx(0.499)
    with Slide(slide) as opened:
        tissue = np.array([read_patch(opened, coords, index).mean((0, 1)) for index in range(len(coords))])
    assert (tissue[:, 1] < tissue[:, 0]).mean() > 0.95  # eosin and haematoxylin take green away


def test_several_processes_make_the_same_files_and_outlive_the_death_of_one(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serial = tile_slides(slides, tmp_path / "serial", workers=1)
    write_slide(slides / "killer.tif", IMAGE[:300, :300], levels=1)
    monkeypatch.setattr(tile, "tile_slide", tile_or_die)
    parallel = tile_slides(slides, tmp_path / "parallel", workers=2)
    died = next(result for result in parallel if result.slide == "killer")
    assert died.status == "failed"
    assert "its process was killed (out of memory?): run again, with fewer workers" in died.reason
    assert [result for result in parallel if result.slide != "killer"] == serial
    assert "killed" in next(row["reason"] for row in summary(tmp_path / "parallel") if row["slide"] == "killer")
    for name in ("blank", "discs", "part"):
        one, other = (read_coords(tmp_path / kind / "coords" / f"{name}.h5") for kind in ("serial", "parallel"))
        assert np.array_equal(one.xy, other.xy)
        pictures = [(tmp_path / kind / "thumbnails" / f"{name}.jpg").read_bytes() for kind in ("serial", "parallel")]
        assert pictures[0] == pictures[1]
    monkeypatch.undo()
    assert statuses(tile_slides(slides, tmp_path / "parallel", workers=1))["killer"] != "failed"


_DRIVER = """
import sys, time
from ncmi.slides.tiling import TilingSettings, tile_slides

def told(result):
    print(result.slide, flush=True)
    time.sleep(60)

if __name__ == "__main__":
    tile_slides(sys.argv[1], sys.argv[2], TilingSettings(patch_size=64), workers=2, on_slide=told)
"""


def test_an_interrupt_while_several_work_leaves_whole_files(slides: Path, tmp_path: Path) -> None:
    for number in range(3):
        write_slide(slides / f"more{number}.tif", IMAGE[: 600 + number], levels=1)
    (tmp_path / "driver.py").write_text(_DRIVER)
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "driver.py"), str(slides), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert errors.strip().endswith("KeyboardInterrupt")
    assert first in made(out)
    for path in (out / "coords").iterdir():
        assert path.suffix == ".h5"
        read_coords(path)
    before = made(out)
    results = tile_slides(slides, out, TilingSettings(patch_size=64), workers=1)
    assert {result.slide for result in results if not result.made} == set(before)
    assert all(made(out)[name] == before[name] for name in before)
    assert "failed" not in statuses(results).values()


def test_microns_per_pixel_where_the_file_does_not_say_them_and_of_single_slides(tmp_path: Path) -> None:
    """A slide's own resolution goes before the one for all; a table of single slides goes before both."""
    (tmp_path / "in").mkdir()
    for name, mpp in (("says", 0.5), ("silent", None), ("wrong", 0.5)):
        write_slide(tmp_path / "in" / f"{name}.tif", IMAGE, mpp=mpp)
    (tmp_path / "mpp.csv").write_text("slide,mpp\nwrong.tif,0.125\n")
    settings = TilingSettings(patch_size=64, slide_mpp=0.25)
    options: dict[str, Any] = {"mpps": read_mpps(tmp_path / "mpp.csv"), "workers": 1}
    results = tile_slides(tmp_path / "in", tmp_path / "out", settings, **options)
    coords = {name: read_coords(tmp_path / "out" / "coords" / f"{name}.h5") for name in ("says", "silent", "wrong")}
    assert {name: each.level0_mpp for name, each in coords.items()} == {"says": 0.5, "silent": 0.25, "wrong": 0.125}
    assert [each.patch_size_level0 for each in coords.values()] == [64, 128, 256]
    assert ["0.5 microns" in result.note for result in results] == [True, False, False]
    options["mpps"] = {"wrong": 0.25}
    with pytest.raises(CoordsError, match=r"wrong\.h5: was made with 0\.125 microns per pixel of level 0, now 0\.25"):
        tile_slides(tmp_path / "in", tmp_path / "out", settings, **options)
    with pytest.raises(SlideError, match="no slide 'other'"):
        tile_slides(tmp_path / "in", tmp_path / "new", settings, mpps={"other": 0.25}, workers=1)
    (tmp_path / "mpp.csv").write_text("slide;mpp\na.svs;0,25\n")  # as German spreadsheets write it
    assert read_mpps(tmp_path / "mpp.csv") == {"a": 0.25}
    for text in ("slide,mpp\na,zero\n", "slide,mpp\na,-1\n", "slide,power\na,40\n"):
        (tmp_path / "mpp.csv").write_text(text)
        with pytest.raises(SlideError, match="mpp"):
            read_mpps(tmp_path / "mpp.csv")


def test_small_regions_say_that_they_are_small(tmp_path: Path) -> None:
    """A biopsy of 0.005 mm² is not "no tissue": the reason names the size and the option."""
    image = picture(disc((600, 600), (300, 300), 80))  # 0.005 mm² at 0.5 microns per pixel
    (tmp_path / "in").mkdir()
    write_slide(tmp_path / "in" / "biopsy.tif", image, levels=1)
    settings = TilingSettings(patch_size=64)
    (result,) = tile_slides(tmp_path / "in", tmp_path / "a", settings, workers=1)
    assert result.status == "no tissue"
    for words in ("tissue found, but all regions are below 0.02 mm²", "--min-region"):
        assert words in result.reason
    # the reason is known when the slide is not made again
    assert tile_slides(tmp_path / "in", tmp_path / "a", settings, workers=1)[0].reason == result.reason
    (result,) = tile_slides(tmp_path / "in", tmp_path / "b", replace(settings, min_region_mm2=0.001), workers=1)
    assert (result.status, result.patches > 0) == ("tiled", True)


def test_glass_in_filled_holes_is_no_patch(tmp_path: Path) -> None:
    tissue = disc((1200, 1200), (600, 600), 500) & ~disc((1200, 1200), (608, 608), 130)
    write_slide(tmp_path / "ring.tif", picture(tissue, noise=0.0), levels=1)
    settings = TilingSettings(patch_size=32, max_hole_mm2=0.1)
    tile_slides(tmp_path / "ring.tif", tmp_path / "out", settings, workers=1)
    coords = read_coords(tmp_path / "out" / "coords" / "ring.h5")
    shares = [tissue[y : y + 32, x : x + 32].mean() for x, y in coords.xy.tolist()]
    assert min(shares) > 0
    assert len(coords) > 500


def test_most_patches_and_patches_at_the_edge(tmp_path: Path) -> None:
    write_slide(tmp_path / "full.tif", picture(np.ones((300, 420), dtype=bool)), levels=1)
    whole, edge, few = (
        tile_slides(tmp_path / "full.tif", tmp_path / str(number), TilingSettings(patch_size=128, **options), workers=1)
        for number, options in enumerate(({}, {"edge": True}, {"max_patches": 3}))
    )
    # 3 × 2 squares lie within 420 × 300 pixels, 4 × 3 begin there, and the last has but a tenth of itself on the slide
    assert [results[0].patches for results in (whole, edge, few)] == [6, 11, 3]
    coords = read_coords(tmp_path / "1" / "coords" / "full.h5")
    with Slide(tmp_path / "full.tif") as slide:
        patch = read_patch(slide, coords, len(coords) - 1)
    assert patch.shape == (128, 128, 3)
    assert (patch[44:] == 255).all()  # beyond the slide lies background
    assert (patch[:44] != 255).any(axis=2).mean() > 0.99
    spread = read_coords(tmp_path / "2" / "coords" / "full.h5").xy.tolist()
    assert [spread[0], spread[-1]] == [[0, 0], [256, 128]]


def test_pictures_beside_slides_are_said_to_be_thumbnails(
    slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one.tif", "macro.png", "label.JPG"):
        (tmp_path / "mixed").mkdir(exist_ok=True)
        (tmp_path / "mixed" / name).write_bytes(b"not a picture")
    with pytest.raises(
        ValueError, match="none of the slides has a patch"
    ):  # the program then ends as it does on errors
        app.run(["slides", "tile", str(tmp_path / "mixed"), "--out", str(tmp_path / "out"), "--workers", "1"])
    assert "failed" in (tmp_path / "out" / "summary.csv").read_text()
    assert "2 PNG or JPEG images beside the slides are taken for thumbnails" in " ".join(
        capsys.readouterr().out.split()
    )
    assert pictures_beside_slides(slides) == ()


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    Image.fromarray(picture(disc((300, 300), (150, 150), 120))).save(tmp_path / "a.png")
    Image.fromarray(picture(disc((300, 300), (150, 150), 100))).save(tmp_path / "b.jpg")
    assert sorted(find_slides(tmp_path)) == ["a", "b"]
    results = tile_slides(tmp_path, tmp_path / "out", TilingSettings(patch_size=64, slide_mpp=0.5), workers=1)
    assert statuses(results) == {"a": "tiled", "b": "tiled"}
    # beside slides they are thumbnails
    write_slide(tmp_path / "c.tif", IMAGE, levels=1)
    assert sorted(find_slides(tmp_path)) == ["c"]
