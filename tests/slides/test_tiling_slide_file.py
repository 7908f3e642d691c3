"""Opening slides: pixel size from whatever says it, pixels as written, and clear words for what is broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from tiling_helpers import disc, picture, write_slide

from ncmi.slides.tiling import Slide, SlideError, find_slides

IMAGE = picture(disc((700, 500), (350, 250), 150))


def mpp_of(path: Path, given: float | None = None) -> float:
    with Slide(path, given) as slide:
        return slide.mpp


def test_a_pyramid_is_read_as_it_was_written(tmp_path: Path) -> None:
    levels = write_slide(tmp_path / "a.tif", IMAGE)
    with Slide(tmp_path / "a.tif") as slide:
        assert slide.name == "a"
        assert slide.size == (700, 500)
        assert slide.level_sizes == ((700, 500), (350, 250), (175, 125))
        assert slide.downsamples == (1.0, 2.0, 4.0)
        assert slide.mpp == pytest.approx(0.5)
        for level, image in enumerate(levels):
            scale = 2**level
            read = slide.read(40 * scale, 20 * scale, level, 60, 50)
            assert read.dtype == np.uint8
            assert np.array_equal(read, image[20:70, 40:100])


def test_what_lies_beyond_the_slide_has_the_color_of_the_background(tmp_path: Path) -> None:
    write_slide(tmp_path / "a.tif", IMAGE)
    with Slide(tmp_path / "a.tif") as slide:
        read = slide.read(690, 490, 0, 20, 20)
    assert np.array_equal(read[:10, :10], IMAGE[490:, 690:])
    assert (read[10:] == 255).all()
    assert (read[:, 10:] == 255).all()


@pytest.mark.parametrize("wanted", [0.3, 1.0, 1.5, 1.9999, 2.0, 3.9, 4.0, 100.0])
def test_the_level_is_the_smallest_that_is_fine_enough(tmp_path: Path, wanted: float) -> None:
    write_slide(tmp_path / "a.tif", IMAGE)
    with Slide(tmp_path / "a.tif") as slide:
        fitting = [level for level in range(3) if 2**level <= wanted * 1.001]
        assert slide.level_for(wanted) == max(fitting, default=0)


def test_the_real_slide(data_dir: Path) -> None:
    with Slide(data_dir / "slides" / "cmu_small_region.svs") as slide:
        assert slide.size == (2220, 2967)
        assert slide.mpp == pytest.approx(0.499)
        assert slide.objective_power == 20


@pytest.mark.parametrize(
    ("description", "mpp"), [("AppMag = 40|MPP = 0.2520", 0.252), ("AppMag = 40", 0.25), ("AppMag = 20", 0.5)]
)
def test_objective_power_stands_in_for_the_pixel_size(tmp_path: Path, description: str, mpp: float) -> None:
    write_slide(
        tmp_path / "a.svs",
        IMAGE,
        mpp=None,
        levels=1,
        description=f"Aperio Image Library v11\n700x500 (128x128)|{description}",
    )
    assert mpp_of(tmp_path / "a.svs") == pytest.approx(mpp)


def test_the_pixel_size_that_is_given_goes_first(tmp_path: Path) -> None:
    write_slide(tmp_path / "a.tif", IMAGE)
    assert mpp_of(tmp_path / "a.tif", 0.25) == 0.25


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mpp": None}, r"pixel size is not known .*slide-mpp \(about 0\.25 for a 40x scan"),
        ({"mpp": 25400 / 72}, r"said to be 352\.8 microns per pixel, which no scanner makes: give .* --slide-mpp"),
    ],
)
def test_an_unknown_pixel_size_names_the_cure(tmp_path: Path, options: dict[str, float], told: str) -> None:
    write_slide(tmp_path / "a.tif", IMAGE, **options)
    with pytest.raises(SlideError, match=told):
        mpp_of(tmp_path / "a.tif")
    assert mpp_of(tmp_path / "a.tif", 0.5) == 0.5


def test_pixels_that_are_not_square_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", IMAGE, tile=(128, 128), photometric="rgb", resolution=(20000, 10000), resolutionunit=3
    )
    with pytest.raises(SlideError, match=r"not square \(0\.5 by 1 microns\).*slide-mpp"):
        mpp_of(tmp_path / "a.tif")


def test_a_plain_tiff_without_tiles_is_read(tmp_path: Path) -> None:
    write_slide(tmp_path / "a.tif", IMAGE, levels=1, tile=None)
    with Slide(tmp_path / "a.tif") as slide:
        assert slide.mpp == pytest.approx(0.5)
        assert slide.downsamples == (1.0,)
        assert np.array_equal(slide.read(100, 50, 0, 80, 70), IMAGE[50:120, 100:180])


def test_a_png_is_read_where_its_pixel_size_is_given(tmp_path: Path) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    with Slide(tmp_path / "a.png", 0.5) as slide:
        assert np.array_equal(slide.read(0, 0, 0, 700, 500), IMAGE)
    with pytest.raises(SlideError, match="pixel size is not known"):
        mpp_of(tmp_path / "a.png")


def test_an_image_of_16_bits_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", IMAGE[..., 0].astype(np.uint16))
    with pytest.raises(SlideError, match=r"a\.tif: has pixels of kind I;16: convert it to 8-bit RGB"):
        Slide(tmp_path / "a.tif")


def test_an_untiled_image_too_large_for_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_slide(tmp_path / "a.tif", IMAGE, levels=1, tile=None)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    with pytest.raises(SlideError, match=r"a\.tif: too large for an image without tiles: convert it .*vips"):
        Slide(tmp_path / "a.tif")


def test_files_that_are_no_slides_are_told(tmp_path: Path, data_dir: Path) -> None:
    with pytest.raises(SlideError, match=r"gone\.svs: no such file: check the path"):
        Slide(tmp_path / "gone.svs")
    (tmp_path / "noise.svs").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(SlideError, match=r"noise\.svs: OpenSlide cannot read it: .*damaged.*vips"):
        Slide(tmp_path / "noise.svs")
    (tmp_path / "empty.tif").write_bytes(b"")
    with pytest.raises(SlideError, match=r"empty\.tif: neither OpenSlide nor Pillow can read it"):
        Slide(tmp_path / "empty.tif")
    whole = (data_dir / "slides" / "cmu_small_region.svs").read_bytes()
    (tmp_path / "half.svs").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SlideError, match=r"half\.svs: OpenSlide cannot read it"):
        Slide(tmp_path / "half.svs")


def test_damage_within_a_slide_is_told_with_its_place(tmp_path: Path) -> None:
    damaged_tile(tmp_path / "a.tif", IMAGE)
    with Slide(tmp_path / "a.tif") as slide:
        slide.read(0, 0, 0, 128, 128)
        with pytest.raises(SlideError, match=r"a\.tif: cannot be read at x=600, y=400 of level 0 .*copy it again"):
            slide.read(600, 400, 0, 50, 50)


def damaged_tile(path: Path, image: np.ndarray) -> None:
    """A pyramid whose last tile of level 0 is noise."""
    write_slide(path, image, compression="deflate")
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[0].dataoffsets[-1], file.pages[0].databytecounts[-1]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = np.random.default_rng(0).bytes(count)
    path.write_bytes(content)


def test_slides_are_found_in_folders_within_folders_and_behind_links(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "slides", tmp_path / "elsewhere"
    for path in (
        "b.SVS",
        "deep/er/a.ndpi",
        "notes.txt",
        ".hidden.svs",
        "c.jpg",
        "dicom/1.dcm",
        "dicom/2.dcm",
        "e.f.tif",
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    elsewhere.mkdir()
    (elsewhere / "linked.mrxs").touch()
    (folder / "link").symlink_to(elsewhere)
    (folder / "loop").symlink_to(folder)
    found = find_slides(folder)
    assert list(found) == ["a", "b", "dicom", "e.f", "linked"]
    assert found["a"] == folder / "deep/er/a.ndpi"
    assert found["dicom"] == folder / "dicom" / "1.dcm"
    assert find_slides(folder / "b.SVS") == {"b": folder / "b.SVS"}


def test_two_slides_of_one_name_are_refused_with_both_named(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.svs").touch()
    (tmp_path / "sub" / "a.tif").touch()
    with pytest.raises(SlideError, match=r"two slides are called a: .*/a\.svs and .*/sub/a\.tif: rename one"):
        find_slides(tmp_path)


def test_a_folder_without_slides_is_told(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=r"holds no slide \(a file ending in \.svs"):
        find_slides(tmp_path)
    with pytest.raises(SlideError, match=r"gone: no such folder"):
        find_slides(tmp_path / "gone")
