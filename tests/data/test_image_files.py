"""Image files that cannot be used are all found; images that do not fit into memory are the same images."""

from __future__ import annotations

import os
import socket
import threading
import warnings
import zlib
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ncmi.data import image_files
from ncmi.data.dataset import fingerprint
from ncmi.data.image_files import ImageFiles, list_images, open_images
from ncmi.data.image_folders import load_folder
from ncmi.data.load import load_samples
from ncmi.data.splits import split_dataset
from ncmi.data.standardize import Standardizer
from ncmi.recipes import ImageData

RNG = np.random.default_rng(1)


def noise(path: Path, height: int, width: int, gray: bool = False, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width) if gray else (height, width, 3)
    Image.fromarray(RNG.integers(0, 256, shape, np.uint8)).save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sizes, modes and orientations of all kinds, 60 images of two classes."""
    root = tmp_path_factory.mktemp("mixed")
    for i in range(60):
        exif = Image.Exif()
        exif[0x0112] = i % 8 + 1
        suffix = (".jpg", ".png", ".webp")[i % 3]
        noise(root / "ab"[i % 2] / f"{i:02}{suffix}", 20 + i, 90 - i, gray=i % 5 == 0 and i % 3 < 2, exif=exif)
    return root


def data_of(root: Path, gigabytes: float, **options: object) -> ImageData:
    return ImageData(str(root), image_size=24, memory_gigabytes=gigabytes, **options)  # type: ignore[arg-type]


def whole(inputs: Tensor | ImageFiles) -> Tensor:
    return inputs if isinstance(inputs, Tensor) else inputs.select(torch.arange(len(inputs)))


def test_images_in_files_are_those_in_memory(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, lazy = (load_samples(data_of(mixed, gigabytes)) for gigabytes in (1.0, 0.0))
    assert isinstance(held.inputs, Tensor)
    assert isinstance(lazy.inputs, ImageFiles)
    assert (lazy.inputs.shape, lazy.inputs.numel()) == (held.inputs.shape, held.inputs.numel())
    assert torch.equal(whole(lazy.inputs), held.inputs)
    assert torch.equal(torch.cat(list(lazy.inputs.split(7))), held.inputs)
    rows = torch.tensor([5, 3, 59, 3])
    assert torch.equal(lazy.inputs.select(rows), held.inputs[rows])
    mask = torch.arange(60) % 7 == 0
    assert torch.equal(whole(lazy.inputs[mask]), held.inputs[mask])
    assert fingerprint(held) == fingerprint(lazy)
    train = split_dataset(held).train
    one, other = (Standardizer.fit(data.inputs[train], "image") for data in (held, lazy))
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.scale, other.scale)
    monkeypatch.setattr(image_files, "_AHEAD_BYTES", 1)  # one batch at a time
    batches = [torch.tensor([1]), torch.tensor([], dtype=torch.int64), torch.arange(40), torch.tensor([2, 1])]
    for batch, images in zip(batches, lazy.inputs.batches(batches), strict=True):
        assert torch.equal(images, held.inputs[batch])


@pytest.mark.parametrize("gigabytes", [1.0, 0.0])
def test_grayness_is_seen_from_all(tmp_path: Path, gigabytes: float) -> None:
    for i in range(40):
        noise(tmp_path / "ab"[i % 2] / f"{i}.png", 30, 30, gray=True)
    # gray levels kept as RGB are gray
    level = RNG.integers(0, 256, (30, 30, 1), np.uint8).repeat(3, axis=2)
    Image.fromarray(level).save(tmp_path / "a" / "rgb.png")
    data = load_samples(data_of(tmp_path, gigabytes))
    assert data.sample_shape == (1, 24, 24)
    assert whole(data.inputs).shape == (41, 1, 24, 24)
    level[3, 3, 0] ^= 64
    Image.fromarray(level).save(tmp_path / "b" / "z.png")
    data = load_samples(data_of(tmp_path, gigabytes))
    assert data.sample_shape == (3, 24, 24)
    assert bool((whole(data.inputs)[0, 0] == whole(data.inputs)[0, 2]).all())


def bomb(path: Path) -> None:
    """A PNG of a few hundred bytes that says it has 20,000 × 20,000 pixels."""
    header = b"IHDR" + (20_000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    body = b"IDAT" + zlib.compress(b"\0" * 1000)
    chunks = b"".join((len(c) - 4).to_bytes(4, "big") + c + zlib.crc32(c).to_bytes(4, "big") for c in (header, body))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


@pytest.mark.parametrize("gigabytes", [1.0, 0.0])
def test_all_that_cannot_be_used_is_named_and_left_out_by_option(tmp_path: Path, gigabytes: float) -> None:
    root = tmp_path / "pets"
    for i in range(3):
        noise(root / "cat" / f"{i}.png", 24, 24)
        noise(root / "dog" / f"{i}.png", 24, 24)
    cut = noise(root / "cat" / "cut.jpg", 64, 64)
    cut.write_bytes(cut.read_bytes()[:-200])
    (root / "cat" / "text.png").write_text("I am no picture")
    (root / "dog" / "zero.png").touch()
    (root / "dog" / "notes.md").write_text("about dogs")
    (root / "dog" / "nothing.png").symlink_to("gone.png")
    (root / "dog" / "self.png").symlink_to("self.png")
    (root / "dog" / "around").symlink_to("..")
    os.mkfifo(root / "dog" / "pipe.png")
    (root / "dog" / "null.png").symlink_to("/dev/null")
    bomb(root / "cat" / "bomb.png")
    (root / "empty").mkdir()
    noise(root / "loose.png", 8, 8)
    # a socket's path has a short limit
    here = Path.cwd()
    os.chdir(root / "cat")
    with closing(socket.socket(socket.AF_UNIX)) as endpoint:
        endpoint.bind("socket.png")
        os.chdir(here)
        expected = {
            "cat/bomb.png": "pixels",
            "cat/cut.jpg": "truncated",
            "cat/socket.png": "pipe, socket or device",
            "cat/text.png": "not an image",
            "dog/around": "link to a folder that it lies in",
            "dog/notes.md": "not an image",
            "dog/nothing.png": "link to nothing",
            "dog/null.png": "pipe, socket or device",
            "dog/pipe.png": "pipe, socket or device",
            "dog/self.png": "cannot be opened",
            "dog/zero.png": "an empty file",
            "empty/": "an empty class folder",
            "loose.png": "beside the class folders",
        }
        with pytest.raises(ValueError, match=r"pets: 13 files .*--data\.bad skip") as raised:
            load_samples(data_of(root, gigabytes))
        assert all(f"{name}: " in str(raised.value) for name in expected)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data = load_samples(data_of(root, gigabytes, bad="skip"))
    assert data.names == tuple(f"{c}/{i}.png" for c in ("cat", "dog") for i in range(3))
    left_out = dict(data.left_out)
    assert left_out.keys() == expected.keys()
    assert all(reason in left_out[name] for name, reason in expected.items())
    assert len(whole(data.inputs)) == 6


def test_long_lists_are_cut_and_classes_without_images_go(tmp_path: Path) -> None:
    for i in range(6):
        noise(tmp_path / "ab"[i % 2] / f"{i}.png", 8, 8)
    (tmp_path / "aa").mkdir()
    for i in range(30):
        (tmp_path / "aa" / f"{i:02}.png").write_text("x")
    with pytest.raises(ValueError, match=r"30 files .*aa/19\.png: not an image; and 10 more") as raised:
        load_samples(data_of(tmp_path, 1.0))
    assert "aa/20.png" not in str(raised.value)
    for gigabytes in (1.0, 0.0):
        data = load_samples(data_of(tmp_path, gigabytes, bad="skip"))
        assert data.class_names == ("a", "b")
        assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert ("aa", True) in [(name, "without any image" in why) for name, why in data.left_out]
    with pytest.raises(ValueError, match=r"only one class \('b'\)"):
        (tmp_path / "a").rename(tmp_path.parent / f"{tmp_path.name}-a")
        load_samples(data_of(tmp_path, 1.0, bad="skip"))


def test_copies_are_said(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for i in range(4):
            noise(tmp_path / part / "ab"[i % 2] / f"{i}.png", 8, 8)
    assert not load_samples(data_of(tmp_path, 1.0)).notes
    first = (tmp_path / "train" / "a" / "0.png").read_bytes()
    (tmp_path / "test" / "a" / "copy.png").write_bytes(first)
    (tmp_path / "train" / "b" / "copy.png").write_bytes(first)
    notes = load_samples(data_of(tmp_path, 0.0)).notes
    assert any("1 images occur with two labels" in note for note in notes)
    assert any("1 images occur in two parts" in note for note in notes)
    assert any("1 images are copies" in note for note in load_samples(data_of(tmp_path / "train", 1.0)).notes)


def test_a_test_folder_is_other_than_the_training_folder(tmp_path: Path) -> None:
    for i in range(4):
        noise(tmp_path / "ab"[i % 2] / f"{i}.png", 8, 8)
    with pytest.raises(ValueError, match="two parts"):
        load_samples(data_of(tmp_path, 1.0, test=str(tmp_path / "." / "a" / "..")))


def test_inputs_without_labels(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("x")
    paths = [*list_images(mixed), tmp_path / "bad.png"]
    held, lazy = (
        open_images(paths, (24, 20), 3, mixed, memory_gigabytes=gigabytes, bad="skip") for gigabytes in (1.0, 0.0)
    )
    assert torch.equal(whole(lazy.inputs), whole(held.inputs))
    assert held.inputs.shape == (60, 3, 24, 20)
    assert held.kept == lazy.kept == list(range(60))
    assert held.left_out == lazy.left_out == ((str(tmp_path / "bad.png"), "not an image"),)
    with pytest.raises(ValueError, match=r"bad\.png: not an image"):
        open_images(paths, (24, 20), 3, mixed)
    seen: list[tuple[int, int]] = []
    open_images(paths[:40], (24, 20), 3, mixed, progress=lambda *numbers: seen.append(numbers))
    assert seen[-1] == (40, 40)


def test_threads_end_and_a_changed_file_is_named(mixed: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    root.mkdir()
    for file in list_images(mixed)[:20]:
        (root / file.name).write_bytes(file.read_bytes())
    files = ImageFiles(root, [file.name for file in list_images(root)], (8, 8), 3)
    before = threading.active_count()
    with closing(files.batches([torch.tensor([0])] * 100)) as batches:
        next(batches)
        assert threading.active_count() > before
    assert threading.active_count() == before
    (root / files.names[7]).write_text("changed")
    with pytest.raises(ValueError, match=f"{files.names[7]}: not an image, but it could be read before"):
        list(files.split(20))
    assert threading.active_count() == before


def test_memory_option_is_checked() -> None:
    with pytest.raises(ValueError, match="memory_gigabytes=-1"):
        ImageData("x", memory_gigabytes=-1)
    data = replace(ImageData("x"), images="nowhere")
    with pytest.raises(ValueError, match=r"nowhere is no folder.*--data\.images"):
        load_folder(Path(__file__).parent, data)
