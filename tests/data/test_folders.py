"""Folders of image files: one class for each subfolder, any usual file, in a fixed order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from ncmi.data.dataset import Dataset
from ncmi.data.image_folders import load_folder
from ncmi.data.load import load_dataset
from ncmi.recipes import ImageData

RNG = np.random.default_rng(0)


def pixels(height: int = 32, width: int = 32, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes with one color image each; tests add the image that they are about."""
    save(tmp_path / "pets" / "cat" / "a.png", pixels())
    save(tmp_path / "pets" / "dog" / "a.png", pixels())
    return tmp_path / "pets"


def loaded(root: Path, channels: int | None = None, **options: int) -> Dataset:
    return load_folder(root, ImageData(str(root), **options), channels=channels)  # type: ignore[arg-type]


def only(root: Path, index: int = 1, **options: int) -> np.ndarray:
    """The pixels ``[H, W, c]`` of the image at this index; index 1 is the second file of class cat."""
    return loaded(root, **options).array[index].permute(1, 2, 0).numpy()


def test_order_names_and_labels(tmp_path: Path) -> None:
    images = {name: pixels() for name in ("b/10.png", "b/9.png", "B/x.png", "ä/1.bmp", "a/2.tiff", "a/1.webp")}
    for name, array in images.items():
        save(tmp_path / name, array, **({"lossless": True} if name.endswith("webp") else {}))
    data = load_dataset(str(tmp_path))
    assert data.class_names == ("B", "a", "b", "ä")
    assert data.labels.tolist() == [0, 1, 1, 2, 2, 3]
    expected = ["B/x.png", "a/1.webp", "a/2.tiff", "b/10.png", "b/9.png", "ä/1.bmp"]
    np.testing.assert_array_equal(data.inputs.permute(0, 2, 3, 1), [images[name] for name in expected])
    assert (data.kind, data.name) == ("image", tmp_path.name)


def test_gray_only_if_all_are_gray(tmp_path: Path) -> None:
    gray = pixels(channels=1)
    save(tmp_path / "cat" / "gray.png", gray)
    save(tmp_path / "dog" / "gray stored in color.png", gray.repeat(3, axis=2))
    assert load_dataset(str(tmp_path)).inputs.shape == (2, 1, 32, 32)
    np.testing.assert_array_equal(only(tmp_path), gray)
    assert loaded(tmp_path, channels=3).inputs.shape == (2, 3, 32, 32)
    color = pixels()
    save(tmp_path / "dog" / "z.png", color)
    assert load_dataset(str(tmp_path)).inputs.shape == (3, 3, 32, 32)
    as_gray = np.asarray(Image.fromarray(color).convert("L"))[..., None]
    np.testing.assert_array_equal(only(tmp_path, 2, channels=1), as_gray)


def test_scaled_to_cover_and_cropped_in_the_middle(root: Path) -> None:
    wide = np.zeros((64, 192, 3), np.uint8)
    wide[:, 56:136] = pixels(1, 1)  # the middle square, and as far as the filter reaches, is of one color
    save(root / "cat" / "b.png", wide)
    image = only(root, image_size=16)
    assert image.shape == (16, 16, 3)
    assert (image == wide[0, 100]).all()
    save(root / "cat" / "b.png", wide.transpose(1, 0, 2))
    assert (only(root, image_size=16) == wide[0, 100]).all()


def test_small_images_are_enlarged(root: Path) -> None:
    array = pixels(8, 8)
    save(root / "cat" / "b.png", array)
    expected = Image.fromarray(array).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(only(root), np.asarray(expected))


def test_transparency_is_laid_over_white(root: Path) -> None:
    array = pixels(channels=4)
    array[:16, :, 3], array[16:, :, 3] = 0, 255
    save(root / "cat" / "b.png", array)
    image = only(root)
    assert (image[:16] == 255).all()
    np.testing.assert_array_equal(image[16:], array[16:, :, :3])
    gray = array[..., [0, 3]]
    save(root / "cat" / "b.png", gray)
    image = only(root)
    assert (image[:16] == 255).all()
    np.testing.assert_array_equal(image[16:, :, 0], gray[16:, :, 0])


def test_palette_with_and_without_transparency(root: Path) -> None:
    indices = RNG.integers(0, 4, (32, 32), dtype=np.uint8)
    palette = pixels(1, 4)[0]
    image = Image.fromarray(indices)
    image.putpalette(palette.tobytes())
    assert image.mode == "P"
    for suffix in (".png", ".gif", ".bmp"):
        path = root / "cat" / f"b{suffix}"
        image.save(path)
        np.testing.assert_array_equal(only(root), palette[indices])
        path.unlink()
    image.save(root / "cat" / "b.png", transparency=2)
    palette[2] = 255
    np.testing.assert_array_equal(only(root), palette[indices])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(root: Path, orientation: int) -> None:
    array = pixels(24, 32)
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(root / "cat" / "b.png", array, exif=exif)
    turned = {
        1: array,
        2: array[:, ::-1],
        3: array[::-1, ::-1],
        4: array[::-1],
        5: array.transpose(1, 0, 2),
        6: np.rot90(array, -1),
        7: array.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(array),
    }[orientation]
    height, width = turned.shape[:2]
    top, left = (height - 24) // 2, (width - 24) // 2
    np.testing.assert_array_equal(only(root, image_size=24), turned[top : top + 24, left : left + 24])


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits(root: Path, suffix: str) -> None:
    levels = RNG.integers(0, 256, (32, 32), dtype=np.uint16)
    Image.fromarray(levels * np.uint16(257)).save(root / "cat" / f"b{suffix}")
    np.testing.assert_array_equal(only(root), levels[..., None].repeat(3, axis=2))


def test_unusual_levels_are_refused(root: Path) -> None:
    save(root / "cat" / "b.tiff", np.full((8, 8), 0.5, np.float32))
    with pytest.raises(ValueError, match=r"cat/b\.tiff: .*floating-point gray levels"):
        load_dataset(str(root))
    save(root / "cat" / "b.tiff", np.full((8, 8), 70000, np.int32))
    with pytest.raises(ValueError, match=r"cat/b\.tiff: .*outside 0…65535"):
        load_dataset(str(root))


def test_one_bit_and_cmyk(root: Path) -> None:
    bits = RNG.integers(0, 2, (32, 32)).astype(bool)
    save(root / "cat" / "b.png", bits)
    np.testing.assert_array_equal(only(root)[..., 1], bits * 255)
    cmyk = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    cmyk.save(root / "cat" / "b.png.tiff")
    assert only(root, 2)[5, 5].tolist() == [255, 0, 0]


def test_large_jpeg_is_close_to_a_full_decode(root: Path) -> None:
    y, x = np.mgrid[0:500, 0:700]
    waves = np.stack([np.sin(x / 60), np.cos(y / 50), np.sin((x + y) / 70)], axis=2)
    path = save(root / "cat" / "b.jpg", np.round(127.5 * (1 + waves)).astype(np.uint8), quality=95)
    with Image.open(path) as image:
        full = np.asarray(ImageOps.fit(image, (32, 32), method=Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(only(root).astype(int) - full).max() <= 4


def test_first_frame_of_an_animation(root: Path) -> None:
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    frames[0].save(root / "cat" / "b.gif", save_all=True, append_images=frames[1:])
    assert (only(root) == [255, 0, 0]).all()


def test_content_counts_not_the_suffix(root: Path) -> None:
    array = pixels()
    save(root / "cat" / "b.png", array).rename(root / "cat" / "b.JPEG")
    np.testing.assert_array_equal(only(root), array)


def test_hidden_files_are_skipped(root: Path) -> None:
    (root / ".git").mkdir()
    (root / "__MACOSX").mkdir()
    (root / "README.md").write_text("about")
    (root / "cat" / ".DS_Store").write_bytes(b"x")
    (root / "cat" / "Thumbs.db").write_bytes(b"x")
    data = load_dataset(str(root))
    assert (len(data), data.class_names) == (2, ("cat", "dog"))


def test_many_files_keep_their_order(tmp_path: Path) -> None:
    for i in range(100):
        save(tmp_path / str(i % 2) / f"{i:03}.png", np.full((32, 32), i, np.uint8))
    data = load_dataset(str(tmp_path))
    assert torch.equal(data.inputs[:, 0, 0, 0].long(), torch.cat([torch.arange(0, 100, 2), torch.arange(1, 100, 2)]))


@pytest.mark.parametrize("content", [b"", b"just text", b"%PDF-1.4", b"\x89PNG\r\n\x1a\n"])
def test_not_an_image(root: Path, content: bytes) -> None:
    (root / "cat" / "notes.txt").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"pets: 1 file .*: cat/notes\.txt: .*[Rr]emove or replace .*--data\.bad skip.*PNG"
    ):
        load_dataset(str(root))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".webp", ".bmp"])
def test_truncated_image(root: Path, suffix: str) -> None:
    path = save(root / "dog" / f"b{suffix}", pixels(64, 64))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"pets: 1 file .*dog/b\{suffix}: damaged"):
        load_dataset(str(root))


@pytest.mark.parametrize("suffix", [".eps", ".ppm", ".ico"])
def test_other_formats_are_never_decoded(root: Path, suffix: str) -> None:
    Image.new("RGB", (32, 32)).save(root / "cat" / f"b{suffix}")
    with pytest.raises(ValueError, match=rf"cat/b\{suffix}: not an image"):
        load_dataset(str(root))


def test_folders_of_another_shape(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"empty: a folder of no data that is known.*one subfolder for each class"):
        load_dataset(str(empty))
    save(empty / "a.png", pixels())
    with pytest.raises(ValueError, match="empty: images, but no subfolder"):
        load_dataset(str(empty))
    save(empty / "cat" / "a.png", pixels())
    with pytest.raises(ValueError, match=r"a\.png: .* beside the class folders"):
        load_dataset(str(empty))
    (empty / "a.png").unlink()
    with pytest.raises(ValueError, match=r"only one class \('cat'\)"):
        load_dataset(str(empty))
    (empty / "dog").mkdir()
    with pytest.raises(ValueError, match=r"dog/: an empty class folder.*--data\.bad skip"):
        load_dataset(str(empty))
    save(empty / "dog" / "puppies" / "a.png", pixels())
    assert load_dataset(str(empty)).class_names == ("cat", "dog")
    with pytest.raises(ValueError, match="image_size=0"):
        load_dataset(str(empty), image_size=0)
