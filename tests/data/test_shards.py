"""Shards: what they hold, how they are written and read, and that each sample is seen once, whoever reads."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("simplejpeg", reason='needs pip install "ncmi[images]"')
pytest.importorskip("cv2", reason='needs pip install "ncmi[images]"')

from ncmi.cli import main
from ncmi.data.columns import VALIDATION
from ncmi.data.kinds import kind_of
from ncmi.data.load import load_samples
from ncmi.data.shards.decoding import center_box, decode_square, random_box, with_short_side
from ncmi.data.shards.index import SHARDS_FILE, is_shards, read_index
from ncmi.data.shards.origins import list_origins
from ncmi.data.shards.reading import (
    BrokenImages,
    ShardFiles,
    ShardImages,
    ShardStore,
    Share,
    Variation,
    read_ahead,
    windowed_order,
)
from ncmi.data.shards.write import write_shards
from ncmi.recipes import ImageData

CLASSES = ("cat", "dog", "eel")


def picture(number: int, height: int = 24, width: int = 30) -> Image.Image:
    coarse = np.random.default_rng(number).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


def encoded(image: Image.Image, kind: str = "JPEG", **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def write_folder(root: Path, per_class: int = 12) -> Path:
    for label, name in enumerate(CLASSES):
        for part, count in (("train", per_class), ("val", 3), ("test", 3)):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                # one of each class is larger than the short side of the tests
                height = 80 if number == 0 else 24
                content = encoded(picture(100 * label + number, height, 100 if number == 0 else 30))
                (root / part / name / f"{number}.JPEG").write_bytes(content)
    (root / "train" / "cat" / "1.JPEG").write_bytes(encoded(picture(1), "PNG"))
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("shards") / "folder")


@pytest.fixture(scope="module")
def shards(folder: Path) -> Path:
    write_shards(folder, folder.parent / "shards", short_side=40, images_per_shard=10)
    return folder.parent / "shards"


def members(shards: Path) -> dict[str, bytes]:
    content = {}
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                content[f"{path.stem}/{member.name}"] = file.read()
    return content


def test_tars_that_anyone_reads(folder: Path, shards: Path) -> None:
    index, content = read_index(str(shards)), members(shards)
    assert len(index) == 3 * 18
    assert index.record.classes == list(CLASSES)
    by_bytes = {content[name]: content[name.rpartition(".")[0] + ".cls"] for name in content if ".cls" not in name}
    kept = 0
    for place, name in enumerate(index.names):
        data = ShardFiles(index, 8, 1.0).read(place)
        assert by_bytes[data] == str(CLASSES.index(name.split("/")[1])).encode() == str(index.label[place]).encode()
        original = (folder / name).read_bytes()
        with Image.open(io.BytesIO(data)) as image, Image.open(folder / name) as source:
            if min(source.size) > 40:
                assert min(image.size) == 40
                assert image.format == "JPEG"
            else:
                assert data == original
                kept += 1
    assert kept == 3 * 15
    # the PNG has an ending that says so, whatever the file was called
    assert sum(name.endswith(".png") for name in content) == 1
    assert {name.split("-")[0] for name in content} == {"train", "val", "test"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves the tar open
def test_webdataset_reads_them(shards: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    samples = list(webdataset.WebDataset(str(shards / "train-000000.tar"), shardshuffle=False).decode("pil"))
    assert [type(sample["cls"]) for sample in samples] == [int] * 10
    assert all("jpg" in sample or "png" in sample for sample in samples)


def write_and_die(folder: str, out: str) -> None:
    def die(done: int, total: int) -> None:
        if done >= 20:
            os.kill(os.getpid(), signal.SIGKILL)

    write_shards(Path(folder), Path(out), short_side=40, images_per_shard=10, progress=die)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_goes_on_after_a_kill_to_the_same_bytes(folder: Path, shards: Path, tmp_path: Path) -> None:
    child = get_context("fork").Process(target=write_and_die, args=(str(folder), str(tmp_path / "out")))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    assert not is_shards(tmp_path / "out")
    first = min((tmp_path / "out").glob("*.tar"))
    written = first.stat().st_mtime_ns
    (tmp_path / "out" / ".val-000000.tar.x.partial").write_text("half")
    write_shards(folder, tmp_path / "out", short_side=40, images_per_shard=10, workers=2)
    assert first.stat().st_mtime_ns == written
    names = sorted(path.name for path in shards.iterdir() if path.is_file())
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_file()) == names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (shards / name).read_bytes()
    with pytest.raises(ValueError, match="other options"):
        write_shards(folder, tmp_path / "out", short_side=0, images_per_shard=10)


def test_broken_images_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder(tmp_path / "folder", 4)
    whole = (root / "train" / "dog" / "0.JPEG").read_bytes()
    for name, content in (("a.jpg", whole[:-200]), ("b.jpg", b""), ("c.jpg", b"\0" * 500), ("d.jpg", b"<html>")):
        (root / "train" / "dog" / name).write_bytes(content)
    assert main(["data", "shard", str(root), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    assert "4 broken" in capsys.readouterr().out
    listed = (tmp_path / "out" / "broken.csv").read_text()
    assert all(f"train/dog/{letter}.jpg" in listed for letter in "abcd")
    assert len(read_index(str(tmp_path / "out"))) == 3 * 10


def test_what_shards_are_not_made_of(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder(tmp_path / "folder", 4)
    table = root / "table.csv"
    table.write_text("image,a,b\n" + "".join(f"train/dog/{n}.JPEG,{n % 2},{n % 3}\n" for n in range(4)))
    for inputs, more, cure in (
        (shards, [], "made of"),
        (table, [], "folder for each class"),
        (root, ["--workers", "-1"], "--workers -1"),
    ):
        assert main(["data", "shard", str(inputs), "--out", str(tmp_path / "out"), *more]) == 2
        message = capsys.readouterr().err
        assert cure in message
        assert "--data." not in message
    assert not (tmp_path / "out").exists()


def test_a_folder_of_shards_is_images(shards: Path) -> None:
    assert kind_of(str(shards)) == "image"
    data = load_samples(ImageData(str(shards), image_size=16))
    assert data.sample_shape == (3, 16, 16)
    assert data.parts is not None
    assert np.bincount(data.parts).tolist() == [36, 9, 9]
    assert data.contents == read_index(str(shards)).record.digest


def test_a_damaged_index_is_found(shards: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in shards.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    (copy / "val-000000.tar").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"val-000000\.tar.*make the shards anew"):
        load_samples(ImageData(str(copy)))
    (copy / SHARDS_FILE).write_text("{}")
    with pytest.raises(ValueError, match="format"):
        load_samples(ImageData(str(copy)))


def tar_of(path: Path, files: dict[str, bytes]) -> bytes:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path.read_bytes()


def test_of_tars(tmp_path: Path) -> None:
    images = [encoded(picture(number)) for number in range(6)]
    (tmp_path / "tars").mkdir()
    tar_of(
        tmp_path / "tars" / "train-00.tar", {"a.jpg": images[0], "a.cls": b"3", "b.c.jpg": images[1], "b.cls": b"10"}
    )
    tar_of(tmp_path / "tars" / "val-00.tar", {"a.jpg": images[2], "a.json": json.dumps({"label": 3}).encode()})
    record = write_shards(tmp_path / "tars", tmp_path / "of_tars")
    index = read_index(str(tmp_path / "of_tars"))
    assert record.classes == ["3", "10"]
    assert sorted(zip(index.label.tolist(), index.part.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0)]
    # as ImageNet's own: a tar of one tar a class
    inner = {
        f"n{label}.tar": tar_of(tmp_path / "inner.tar", {f"{label}_{n}.JPEG": images[3 * label + n] for n in range(3)})
        for label in (0, 1)
    }
    tar_of(tmp_path / "ILSVRC2012_img_train.tar", inner)
    assert write_shards(tmp_path / "ILSVRC2012_img_train.tar", tmp_path / "of_nested").classes == ["n0", "n1"]
    nested = read_index(str(tmp_path / "of_nested"))
    files = ShardFiles(nested, 8, 1.0)
    assert {(int(nested.label[n]), files.read(n)) for n in range(6)} == {(n // 3, images[n]) for n in range(6)}


def test_of_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    images = [encoded(picture(number)) for number in range(5)]
    table = pa.table({"image": [{"bytes": image, "path": None} for image in images], "label": [0, 1, 0, 1, 7]})
    metadata = {"info": {"features": {"label": {"names": ["ant", "bee"]}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    parquet.write_table(table, tmp_path / "train-00000-of-00001.parquet", row_group_size=2)
    record = write_shards(tmp_path, tmp_path.parent / "of_parquet")
    index = read_index(str(tmp_path.parent / "of_parquet"))
    assert (record.classes, record.broken, index.label.tolist()) == (["ant", "bee"], 1, [0, 1, 0, 1])
    assert [ShardFiles(index, 8, 1.0).read(n) for n in range(4)] == images[:4]


def test_links_count_once(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", per_class=3)
    (tmp_path / "folder" / "train" / "feline").symlink_to("cat", target_is_directory=True)
    origins = list_origins(tmp_path / "folder")
    assert len(origins.samples) == len(CLASSES) * 9
    assert (origins.classes, origins.bad[0][0]) == (sorted(CLASSES), "train/feline/")
    (tmp_path / "tars").mkdir()
    files = {f"{name}/{n}.jpg": encoded(picture(n)) for name in "ab" for n in range(2)}
    (tmp_path / "tars" / "val").mkdir()
    tar_of(tmp_path / "tars" / "val" / "0.tar", files)
    # of names that come before its own, which alone says the part
    (tmp_path / "tars" / "all").symlink_to("val", target_is_directory=True)
    (tmp_path / "tars" / "0.tar").symlink_to("val/0.tar")
    origins = list_origins(tmp_path / "tars")
    assert origins.parts == [VALIDATION] * 4
    assert "2 files are links" in origins.notes[0]
    # a name that says another part than the file's own is wrong, as it is with images
    (tmp_path / "tars" / "train-0.tar").symlink_to("val/0.tar")
    origins = list_origins(tmp_path / "tars")
    assert origins.parts == [VALIDATION] * 4
    ((name, reason),) = origins.bad
    assert name.endswith("train-0.tar")
    assert reason.endswith("val/0.tar, another part")
    assert "2 files are links" in origins.notes[0]


def reference(image: Image.Image, box: tuple[float, float, float, float], side: int) -> np.ndarray[Any, Any]:
    top, left, height, width = box
    resized = image.resize((side, side), Image.Resampling.BILINEAR, (left, top, left + width, top + height))
    return np.asarray(resized).astype(float)


@pytest.mark.parametrize("shape", [(60, 50), (300, 400), (96, 200)])
def test_pixels_are_those_of_pillow(shape: tuple[int, int]) -> None:
    image = picture(3, *shape)
    content = encoded(image, quality=95)
    for box_of in (center_box(0.875), random_box((0.3, 1.0), (0.4, 0.7, 0.2, 0.9))):
        square, (top, left, height, width) = decode_square(content, box_of, 24), box_of(*shape)
        error = np.abs(square - reference(image, (top, left, height, width), 24)).mean()
        # boxes are whole pixels of what is decoded: half a pixel of the square at most, and less than one
        for down, across in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            y, x = top + down * height / 24, left + across * width / 24
            if min(y, x) >= 0 and y + height <= shape[0] and x + width <= shape[1]:
                assert error < np.abs(square - reference(image, (y, x, height, width), 24)).mean()
        assert error < 6


def test_boxes_fit_and_have_the_area_drawn() -> None:
    generator = np.random.default_rng(0)
    for draws in generator.random((200, 4)):
        height, width = generator.integers(30, 500, 2).tolist()
        top, left, tall, wide = random_box((0.08, 1.0), draws.tolist())(height, width)
        assert min(top, left) >= 0
        assert top + tall <= height + 1e-6
        assert left + wide <= width + 1e-6
        assert tall * wide == pytest.approx((0.08 + 0.92 * draws[0]) * height * width)


def test_what_simplejpeg_refuses_goes_through_pillow() -> None:
    image = picture(5, 40, 60)
    box = center_box(1.0)
    expected = reference(image, box(40, 60), 24)
    cmyk = encoded(image.convert("CMYK"), quality=95)
    turned = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter to be seen
    for content in (encoded(image, "PNG"), cmyk, encoded(turned, exif=exif, quality=95)):
        assert np.abs(decode_square(content, box, 24) - expected).mean() < 4
    with Image.open(io.BytesIO(with_short_side(encoded(turned, exif=exif), 20, 90))) as small:
        assert small.size == (30, 20)


def keys(index_of: list[np.ndarray[Any, Any]], first: int) -> list[Share]:
    shares = []
    for rows in index_of:
        shares.append(Share(rows, np.arange(first, first + len(rows))))
        first += len(rows)
    return shares


@pytest.fixture
def images(shards: Path) -> ShardImages:
    files = ShardFiles(read_index(str(shards)), 12, 0.875)
    train = np.flatnonzero(files.index.part == 0)
    return ShardImages(files, files.index.label.astype(np.int64), train, Variation(1, 0, 12, (0.3, 1.0), True, views=2))


def test_workers_and_processes_do_not_change_images(images: ShardImages) -> None:
    rows = images.train
    whole = torch.cat([chunk.images for chunks in read_ahead(images, keys([rows], 0), workers=0) for chunk in chunks])
    parts = keys([rows[:5], rows[5:12], rows[12:]], 0)
    again = [chunk.images for chunks in read_ahead(images, parts, workers=2) for chunk in chunks]
    assert torch.equal(whole, torch.cat(again))
    assert not torch.equal(whole[0], whole[1])  # two views
    moved = next(read_ahead(images, keys([rows], 7), workers=0))[0]
    assert not torch.equal(whole, moved.images)


def test_bit_rot_is_found_and_replaced_alike(images: ShardImages, tmp_path: Path, shards: Path) -> None:
    index = images.files.index
    row = int(images.train[3])
    name = index.record.shards[index.shard[row]].name
    content = bytearray((shards / name).read_bytes())
    content[int(index.offset[row]) + int(index.size[row]) // 2] ^= 1
    rotten = tmp_path / "rotten"
    rotten.mkdir()
    for path in shards.iterdir():
        if path.is_file():
            (rotten / path.name).write_bytes(bytes(content) if path.name == name else path.read_bytes())
    files = ShardFiles(read_index(str(rotten)), 12, 0.875)
    damaged = ShardImages(files, images.labels, images.train, images.variation)
    (sound,) = next(read_ahead(images, keys([images.train], 0), workers=0))
    (chunk,) = next(read_ahead(damaged, keys([images.train], 0), workers=0))
    (again,) = next(read_ahead(damaged, keys([images.train[3:5]], 3), workers=1))
    assert [broken for broken, _ in chunk.broken] == [row]
    assert "checksum" in chunk.broken[0][1]
    differs = (chunk.images != sound.images).flatten(1).any(1).view(-1, 2).any(1)
    assert differs.nonzero().flatten().tolist() == [3]
    assert torch.equal(again.images, chunk.images[6:10])
    # another image of the same class stands there
    alike = images.train[images.labels[images.train] == images.labels[row]]
    others = [ShardImages(images.files, images.labels, images.train, images.variation) for _ in alike]
    candidates = [
        next(read_ahead(each, [Share(np.array([other]), np.array([3]))], workers=0))[0].images
        for each, other in zip(others, alike.tolist(), strict=True)
        if other != row
    ]
    assert any(torch.equal(chunk.images[6:8], candidate) for candidate in candidates)
    evaluated = ShardImages(files, images.labels, images.train, None)
    (left,) = next(read_ahead(evaluated, keys([images.train[:6]], 0), workers=0))
    assert left.usable.tolist() == [0, 1, 2, 4, 5]
    counted = BrokenImages(files, limit=1)
    counted.add(chunk.broken)
    counted.add(again.broken)
    assert [listed for listed, _ in counted.listed()] == [files.names[row]]
    with pytest.raises(ValueError, match=r"--data\.broken-limit"):
        BrokenImages(files, limit=0).add(chunk.broken)


@pytest.mark.parametrize("window", [1, 2, 5])
def test_order_of_remote_shards(window: int) -> None:
    shards = np.repeat(np.arange(7, dtype=np.int32), 10)
    samples = np.flatnonzero(np.arange(70) % 3 > 0)
    orders = [windowed_order(shards, samples, window, seed=0, epoch=epoch) for epoch in (0, 1, 0)]
    for order in orders:
        assert sorted(order.tolist()) == samples.tolist()
        turn = [len(set(shards[order[first:]].tolist())) for first in range(len(order))]
        left = [len(set(shards[order[: first + 1]].tolist())) for first in range(len(order))]
        assert max(a + b for a, b in zip(turn, left, strict=True)) <= 7 + window
    assert orders[0].tolist() == orders[2].tolist() != orders[1].tolist()


def upload(shards: Path, bucket: str) -> None:
    """Copy the files of a folder to memory://BUCKET."""
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in shards.iterdir():
        if path.is_file():
            memory.pipe(f"/{bucket}/{path.name}", path.read_bytes())


def test_threads_read_shards_that_others_drop(shards: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files are closed and removed to make room while other threads are about to read them."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    upload(shards, "crowded")
    elsewhere, here = (ShardStore(read_index(place), 1) for place in ("memory://crowded", str(shards)))
    elsewhere.kept = 1
    expected = [here.read(row) for row in range(len(here.index))]
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(len(expected)), 20))
    monkeypatch.setattr("ncmi.data.shards.reading._OPEN_FILES", 1)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for store in (elsewhere, ShardStore(here.index, 1)):
            with ThreadPoolExecutor(8) as threads:
                read = list(threads.map(store.read, rows))
            assert read == [expected[row] for row in rows]
    finally:
        sys.setswitchinterval(interval)


def test_shards_elsewhere(shards: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    upload(shards, "bucket")
    assert kind_of("memory://bucket") == "image"
    data = load_samples(ImageData("memory://bucket", image_size=12, shard_window=1))
    here = load_samples(ImageData(str(shards), image_size=12))
    assert isinstance(data.inputs, ShardFiles)
    assert isinstance(here.inputs, ShardFiles)
    every = torch.arange(len(data))
    assert torch.equal(data.inputs.select(every), here.inputs.select(every))
    # no more than three windows of files stay
    assert len(list(data.inputs.store.folder.glob("*.tar"))) == 3 < len(read_index(str(shards)).record.shards)
    with pytest.raises(ValueError, match="does nothing"):
        load_samples(ImageData("memory://bucket", test="other"))
