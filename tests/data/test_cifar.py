"""CIFAR in the python and binary layouts and their archives: same tensors from each, and every damage is told."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cifar_layouts import (
    COUNTS,
    naive_sum,
    pack,
    python2_pickle,
    random_records,
    small_set,
    write_binary,
    write_python,
)

from ncmi.data.cifar import content_sum
from ncmi.data.cifar_sets import CIFAR_SETS, CifarSet
from ncmi.data.dataset import Dataset
from ncmi.data.load import load_dataset

PARTS = {"cifar10": random_records(10), "cifar100": random_records(100)}
LABELS, IMAGES = (np.concatenate(pair) for pair in zip(*PARTS["cifar100"], strict=True))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.delenv("NCMI_DATA", raising=False)
    if "cifar100_dir" not in request.fixturenames:
        for name, parts in PARTS.items():
            small_set(monkeypatch, name, parts)


def cifar100() -> CifarSet:
    return CIFAR_SETS["cifar100"]


def check(data: Dataset, name: str = "cifar100") -> None:
    """The data set has all that was written, in order."""
    labels, images = (np.concatenate(pair) for pair in zip(*PARTS[name], strict=True))
    assert (data.name, data.kind, data.class_names) == (name, "image", CIFAR_SETS[name].class_names)
    assert (data.inputs.dtype, data.labels.dtype) == (torch.uint8, torch.int64)
    np.testing.assert_array_equal(data.inputs.flatten(1), images)
    np.testing.assert_array_equal(data.labels, labels)
    assert data.inputs.shape == (sum(COUNTS), 3, 32, 32)
    assert data.parts is not None
    assert data.parts.tolist() == [0] * COUNTS[0] + [2] * (sum(COUNTS) - COUNTS[0])


WRITERS: dict[str, Callable[[Path, str], Path]] = {
    "Python 2": lambda root, name: write_python(root, CIFAR_SETS[name], PARTS[name], "python 2"),
    **{
        f"protocol {p}": lambda root, name, p=p: write_python(root, CIFAR_SETS[name], PARTS[name], p)
        for p in (2, 3, 4, 5)
    },
    "binary": lambda root, name: write_binary(root, CIFAR_SETS[name], PARTS[name]),
}


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("layout", WRITERS)
def test_layouts(tmp_path: Path, layout: str, name: str) -> None:
    folder = WRITERS[layout](tmp_path / "data", name)
    check(load_dataset(str(folder)), name)
    check(load_dataset(str(folder.parent)), name)
    check(load_dataset(name, data_dir=str(tmp_path)), name)
    renamed = folder.rename(tmp_path / "data" / "mine")
    check(load_dataset(str(renamed)), name)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("layout", ["python", "binary"])
def test_archives_are_read_as_they_are(tmp_path: Path, layout: str, name: str) -> None:
    folder = WRITERS["Python 2" if layout == "python" else "binary"](tmp_path / "unpacked", name)
    (folder / "readme.html").write_text("about")
    (tmp_path / "packed" / "deep").mkdir(parents=True)
    archive = pack(folder, tmp_path / "packed" / "deep" / getattr(CIFAR_SETS[name], layout).archive)
    check(load_dataset(str(archive)), name)
    check(load_dataset(str(archive.parent)), name)
    check(load_dataset(name, data_dir=str(tmp_path / "packed")), name)
    assert [path.name for path in (tmp_path / "packed").rglob("*")] == ["deep", archive.name]


def test_without_class_names(tmp_path: Path) -> None:
    for folder, names in (
        (write_python(tmp_path, cifar100(), PARTS["cifar100"]), "meta"),
        (write_binary(tmp_path, cifar100(), PARTS["cifar100"]), "fine_label_names.txt"),
    ):
        (folder / names).unlink()
        check(load_dataset(str(folder)))


def test_class_names_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_binary(tmp_path, CIFAR_SETS["cifar10"], PARTS["cifar10"])
    names = [f"class {i}".replace(" ", "_") for i in range(10)]
    (folder / "batches.meta.txt").write_text("\n".join(names))
    assert load_dataset(str(folder)).class_names == tuple(names)
    for wrong in (names[:9], names[:9] + names[:1]):
        (folder / "batches.meta.txt").write_text("\n".join(wrong))
        with pytest.raises(ValueError, match=r"batches\.meta\.txt: 9 different names for the 10 classes of CIFAR-10"):
            load_dataset(str(folder))
    python = write_python(tmp_path, cifar100(), PARTS["cifar100"])
    (python / "meta").write_bytes(pickle.dumps({"label_names": ["a"]}))
    with pytest.raises(ValueError, match="meta: no list of class names 'fine_label_names'"):
        load_dataset(str(python))


def test_order_does_not_matter_to_the_checksum(tmp_path: Path) -> None:
    (labels, images), test = PARTS["cifar100"]
    order = np.random.default_rng(1).permutation(len(labels))
    shuffled = ((labels[order], images[order]), test)
    data = load_dataset(str(write_binary(tmp_path, cifar100(), shuffled)))
    np.testing.assert_array_equal(data.labels[:50], labels[order])
    assert content_sum(labels, images) == content_sum(labels[order], images[order]) == naive_sum(labels, images)
    other = labels.copy()
    other[[0, 1]] = other[[1, 0]]
    assert content_sum(other, images) != naive_sum(labels, images)
    assert content_sum(labels[:49], images[:49]) != naive_sum(labels, images)


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("layout", ["python", "binary"])
def test_other_contents_than_the_known(tmp_path: Path, layout: str, part: str) -> None:
    train, test = PARTS["cifar100"]
    labels, images = train if part == "train" else test
    for changed in (
        (labels, images ^ (np.arange(3072) == 5)),
        ((labels + (np.arange(len(labels)) == 3)) % 100, images),
    ):
        changed = (changed[0], changed[1].astype(np.uint8))
        parts = (changed, test) if part == "train" else (train, changed)
        write = write_python if layout == "python" else write_binary
        folder = write(tmp_path / str(changed[0][3]), cifar100(), parts)
        with pytest.raises(
            ValueError,
            match=rf"{layout}: the {part} part is damaged: checksum [0-9a-f]{{32}} .* differs from .*download it "
            r"again from www\.cs\.toronto\.edu.*modified sets .* as \.npz or as a folder of images",
        ):
            load_dataset(str(folder))


def test_published_file_sum_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_python(tmp_path, cifar100(), PARTS["cifar100"])
    sums = {part: hashlib.md5((folder / part).read_bytes()).hexdigest() for part in ("train", "test")}
    unknown = dataclasses.replace(cifar100(), content=("0" * 32, "0" * 32), md5=sums)
    monkeypatch.setitem(CIFAR_SETS, "cifar100", unknown)
    check(load_dataset(str(folder)))
    monkeypatch.setitem(CIFAR_SETS, "cifar100", dataclasses.replace(unknown, md5=sums | {"test": "0"}))
    with pytest.raises(ValueError, match="the test part is damaged"):
        load_dataset(str(folder))


def test_changed_cifar10_is_read(tmp_path: Path) -> None:
    (labels, images), test = PARTS["cifar10"]
    folder = write_python(tmp_path, CIFAR_SETS["cifar10"], ((labels, 255 - images), test))
    np.testing.assert_array_equal(load_dataset(str(folder)).inputs[:50].flatten(1), 255 - images)


@pytest.mark.parametrize("size", [16, 8, 4])
def test_smaller_images_are_averages_of_blocks(tmp_path: Path, size: int) -> None:
    folder = write_binary(tmp_path, cifar100(), PARTS["cifar100"])
    data = load_dataset(str(folder), image_size=size)
    block = 32 // size
    sums = np.zeros((len(IMAGES), 3, size, size), np.int64)
    for down in range(block):
        for right in range(block):
            sums += IMAGES.reshape(-1, 3, 32, 32)[:, :, down::block, right::block]
    np.testing.assert_array_equal(data.inputs, (2 * sums + block**2) // (2 * block**2))
    assert data.inputs.dtype == torch.uint8


@pytest.mark.parametrize("size", [64, 24])
def test_other_sizes(tmp_path: Path, size: int) -> None:
    folder = write_binary(tmp_path, cifar100(), PARTS["cifar100"])
    with pytest.raises(ValueError, match=f"image_size={size}: CIFAR's images have 32×32 pixels; choose 32, 16 or 8"):
        load_dataset(str(folder), image_size=size)


@pytest.mark.parametrize("layout", ["python", "binary"])
def test_labels_out_of_range(tmp_path: Path, layout: str) -> None:
    (labels, images), test = PARTS["cifar100"]
    wrong = np.where(np.arange(50) == 17, 100, labels)
    write, file = (write_python, "train") if layout == "python" else (write_binary, r"train\.bin")
    folder = write(tmp_path, cifar100(), ((wrong, images), test))
    with pytest.raises(ValueError, match=rf"label 100 in record 17 of {file}: labels run from 0 to 99 .*download"):
        load_dataset(str(folder))


def test_coarse_labels_out_of_range(tmp_path: Path) -> None:
    folder = write_binary(tmp_path, cifar100(), PARTS["cifar100"])
    records = bytearray((folder / "test.bin").read_bytes())
    records[3 * 3074] = 20
    (folder / "test.bin").write_bytes(records)
    with pytest.raises(ValueError, match=r"coarse label 20 in record 3 of test\.bin: coarse labels run from 0 to 19"):
        load_dataset(str(folder))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("fine_labels", [1] * 49, "49 labels for 50 images"),
        ("fine_labels", "text", "no list of labels for 50 images"),
        ("fine_labels", ["a"] * 50, "label of type str in record 0"),
        ("fine_labels", [True] * 50, "label of type bool in record 0|label True in record 0"),
        ("fine_labels", [-1] * 50, "label -1 in record 0"),
        ("fine_labels", [2**70] * 50, f"label {2**70} in record 0"),
        ("fine_labels", None, "no 'fine_labels' among the keys 'coarse_labels', 'data'"),
        ("coarse_labels", [20] * 50, "coarse label 20 in record 0"),
        ("data", np.zeros((49, 3072), np.uint8), r"data is uint8 \[49, 3072\], expected uint8 \[50, 3072\]"),
        ("data", np.zeros((50, 32, 32, 3), np.uint8), r"data is uint8 \[50, 32, 32, 3\]"),
        ("data", np.zeros((50, 3072), np.int8), r"data is int8"),
        ("data", b"x" * 50 * 3073, "data is bytes"),
    ],
)
def test_pickles_of_other_contents(tmp_path: Path, key: str, value: object, message: str) -> None:
    folder = write_python(tmp_path, cifar100(), PARTS["cifar100"])
    values = pickle.loads((folder / "train").read_bytes(), encoding="bytes") | {key.encode(): value}
    values = {k.decode(): v for k, v in values.items() if v is not None and k != b"batch_label"}
    values["filler"] = b"x" * 4000
    (folder / "train").write_bytes(pickle.dumps(values))
    with pytest.raises(ValueError, match=f"cifar-100-python: train: {message}"):
        load_dataset(str(folder))


def test_labels_as_an_array(tmp_path: Path) -> None:
    folder = write_python(tmp_path, cifar100(), PARTS["cifar100"])
    values = pickle.loads((folder / "train").read_bytes())
    for labels in (np.array(values[b"fine_labels"], np.int32), [np.int64(v) for v in values[b"fine_labels"]]):
        (folder / "train").write_bytes(pickle.dumps(values | {b"fine_labels": labels}))
        check(load_dataset(str(folder)))


def test_column_major_pixels(tmp_path: Path) -> None:
    folder = write_python(tmp_path, cifar100(), PARTS["cifar100"])
    values = pickle.loads((folder / "train").read_bytes())
    (folder / "train").write_bytes(pickle.dumps(values | {b"data": np.asfortranarray(values[b"data"])}))
    check(load_dataset(str(folder)))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("layout", ["Python 2", "protocol 4", "binary"])
def test_truncated_files(tmp_path: Path, layout: str, name: str) -> None:
    folder = WRITERS[layout](tmp_path, name)
    files = CIFAR_SETS[name].binary.files if layout == "binary" else CIFAR_SETS[name].python.files
    rng = np.random.default_rng(0)
    for file in (files[0], files[-1]):
        whole = (folder / file).read_bytes()
        lengths = {0, 1, 3072, len(whole) - 1, len(whole) - 2, *rng.integers(0, len(whole), 40).tolist()}
        for length in sorted(lengths):
            (folder / file).write_bytes(whole[:length])
            with pytest.raises(ValueError, match=f"{file}: (?=.*{length:,}).*(truncated|parts left)"):
                load_dataset(str(folder))
        (folder / file).write_bytes(whole + b"x")
        with pytest.raises(ValueError, match=f"{file}: .*(too long|parts left over)"):
            load_dataset(str(folder))
        (folder / file).write_bytes(whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CIFAR_SETS, name, dataclasses.replace(CIFAR_SETS[name], counts=(100, 40)))
        with pytest.raises(ValueError, match=r"expected .*: truncated; download it again .*; give smaller or modified"):
            load_dataset(str(folder))


def test_sizes_are_told(tmp_path: Path) -> None:
    folder = write_binary(tmp_path, cifar100(), PARTS["cifar100"])
    (folder / "test.bin").write_bytes(bytes(61479))
    message = r"test\.bin: 61,479 bytes, expected 61,480 \(20 records of 3,074\): truncated"
    with pytest.raises(ValueError, match=message):
        load_dataset(str(folder))


def test_files_far_too_long_are_not_read(tmp_path: Path) -> None:
    folder = write_python(tmp_path, cifar100(), PARTS["cifar100"])
    for name in ("train", "meta"):
        with (folder / name).open("r+b") as file:
            file.truncate(10**12)  # sparse: no disk is used
        with pytest.raises(ValueError, match=f"{name}: 1,000,000,000,000 bytes"):
            load_dataset(str(folder))


def test_hostile_pickle_in_a_data_set(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    folder = write_python(tmp_path, cifar100(), PARTS["cifar100"])
    call = b"cposix\nsystem\nU" + bytes([len(f"touch {marker}")]) + f"touch {marker}".encode() + b"\x85R"
    whole = python2_pickle({b"data": PARTS["cifar100"][0][1], b"fine_labels": [1]})
    for file in ("train", "test", "meta"):
        kept = (folder / file).read_bytes()
        hostile = whole[:-2] + b"U\x01x" + call + b"u."
        (folder / file).write_bytes(
            hostile if file == "train" else hostile[:6] + b"U\x01x" + call + b"u." + bytes(70000)
        )
        with pytest.raises(
            ValueError, match=rf"cifar-100-python: {file}: .*posix\.system, .* nothing in it was executed"
        ):
            load_dataset(str(folder))
        (folder / file).write_bytes(kept)
    pickle.loads(hostile, encoding="latin-1")
    assert marker.exists()  # so it would run, and has not before


def test_broken_archives(tmp_path: Path) -> None:
    folder = write_python(tmp_path, cifar100(), PARTS["cifar100"])
    archive = pack(folder, tmp_path / "cifar-100-python.tar.gz")
    whole = archive.read_bytes()
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        archive.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"python\.tar\.gz: .*(truncated or damaged|missing)"):
            load_dataset(str(archive))
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    archive.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"python\.tar\.gz: the archive is truncated or damaged: download it again"):
        load_dataset(str(archive))
    with gzip.open(archive, "wb", compresslevel=1) as stream:
        stream.write(b"not a tar")
    with pytest.raises(ValueError, match="the archive is truncated or damaged"):
        load_dataset(str(archive))
    with gzip.open(archive, "wb", compresslevel=1) as stream:
        stream.write(bytes(70_000_000))
    with pytest.raises(ValueError, match="it unfolds to more than 64,4"):
        load_dataset(str(archive))


def test_archive_with_links_and_sparse_sizes(tmp_path: Path) -> None:
    archive = tmp_path / "cifar-100-python.tar.gz"
    secret = tmp_path / "secret"
    secret.write_text("not for reading")
    with tarfile.open(archive, "w:gz") as tar:
        link = tarfile.TarInfo("cifar-100-python/train")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        tar.addfile(link)
        huge = tarfile.TarInfo("cifar-100-python/test")
        huge.size = 5
        tar.addfile(huge, io.BytesIO(b"short"))
    with pytest.raises(ValueError, match=r"train is missing: cifar-100-python holds train, test"):
        load_dataset(str(archive))


def test_missing_file(tmp_path: Path) -> None:
    folder = write_python(tmp_path, CIFAR_SETS["cifar10"], PARTS["cifar10"])
    (folder / "data_batch_3").unlink()
    message = r"cifar-10-batches-py: data_batch_3 is missing: cifar-10-batches-py holds data_batch_1, .*test_batch"
    for path, options in ((str(folder), {}), (str(tmp_path), {}), ("cifar10", {"data_dir": str(tmp_path)})):
        with pytest.raises(ValueError, match=message):
            load_dataset(path, **options)
    write_binary(tmp_path, CIFAR_SETS["cifar10"], PARTS["cifar10"])
    check(load_dataset("cifar10", data_dir=str(tmp_path)), "cifar10")


class TestByName:
    """Looking for the set below a data folder."""

    def test_environment_and_depth(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_binary(tmp_path / "a" / "b" / "c", cifar100(), PARTS["cifar100"])
        monkeypatch.setenv("NCMI_DATA", str(tmp_path))
        check(load_dataset("cifar100"))

    def test_a_folder_of_its_name_without_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "cifar100" / "parts").mkdir(parents=True)
        (tmp_path / "cifar100" / "train_0.xz").write_bytes(b"x")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(FileNotFoundError, match="cifar-100-python"):
            load_dataset("cifar100", data_dir=str(tmp_path))
        write_python(tmp_path / "z", cifar100(), PARTS["cifar100"])
        check(load_dataset("cifar100", data_dir=str(tmp_path)))

    def test_a_folder_here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_python(tmp_path / "cifar100", cifar100(), PARTS["cifar100"])
        monkeypatch.chdir(tmp_path)
        check(load_dataset("cifar100"))

    def test_linked_folders(self, tmp_path: Path) -> None:
        folder = write_python(tmp_path / "elsewhere", cifar100(), PARTS["cifar100"])
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "linked").symlink_to(folder)
        (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
        check(load_dataset("cifar100", data_dir=str(tmp_path / "data")))

    def test_order_of_layouts(self, tmp_path: Path) -> None:
        binary = write_binary(tmp_path / "a", cifar100(), PARTS["cifar100"])
        (binary / "train.bin").write_bytes(b"damaged")
        python = write_python(tmp_path / "b" / "c", cifar100(), PARTS["cifar100"])
        check(load_dataset("cifar100", data_dir=str(tmp_path)))
        archive = pack(python, tmp_path / "cifar-100-python.tar.gz")
        for file in python.iterdir():
            file.unlink()
        python.rmdir()
        with pytest.raises(ValueError, match=r"train\.bin: 7 bytes"):
            load_dataset("cifar100", data_dir=str(tmp_path))
        (binary / "train.bin").unlink()
        check(load_dataset("cifar100", data_dir=str(tmp_path)))
        assert archive.exists()

    def test_both_sets(self, tmp_path: Path) -> None:
        for name in ("cifar10", "cifar100"):
            write_binary(tmp_path, CIFAR_SETS[name], PARTS[name])
        for name in ("cifar10", "cifar100"):
            check(load_dataset(name, data_dir=str(tmp_path)), name)
        with pytest.raises(
            ValueError, match=r"more than one data set \(cifar10 and cifar100\): give one of .*-bin, .*-bin"
        ):
            load_dataset(str(tmp_path))

    def test_other_files_of_the_same_names(self, tmp_path: Path) -> None:
        (tmp_path / "text").mkdir()
        for name in ("train.bin", "test.bin", "train", "test"):
            (tmp_path / "text" / name).write_bytes(b"tokens")
        with pytest.raises(FileNotFoundError):
            load_dataset("cifar100", data_dir=str(tmp_path))

    def test_modified_set_as_arrays(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "cifar100.npz", x=IMAGES[:4].reshape(-1, 3, 32, 32), y=[0, 1, 0, 1])
        assert len(load_dataset("cifar100", data_dir=str(tmp_path))) == 4

    def test_nowhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        cure = (
            r"CIFAR-10 is read from a folder cifar-10-batches-py or cifar-10-batches-bin, from "
            r"cifar-10-python\.tar\.gz .*www\.cs\.toronto\.edu/~kriz/cifar\.html.*columns img and label; set NCMI_DATA"
        )
        with pytest.raises(FileNotFoundError, match=rf"'cifar10' \(no data folder is set\): {cure}"):
            load_dataset("cifar10")
        with pytest.raises(FileNotFoundError, match=rf"'cifar10' \(no layout of it below .*\): {cure}"):
            load_dataset("cifar10", data_dir=str(tmp_path))
        with pytest.raises(FileNotFoundError, match="or of cifar10 or cifar100"):
            load_dataset("cifar", data_dir=str(tmp_path))


@pytest.mark.long
def test_the_real_set(cifar100_dir: Path) -> None:
    data = load_dataset(str(cifar100_dir / "cifar-100-python"))
    again = load_dataset(str(cifar100_dir / "cifar-100-binary"))
    assert data.inputs.shape == (60000, 3, 32, 32)
    assert torch.equal(data.inputs, again.inputs)
    assert torch.equal(data.labels, again.labels)
    assert torch.bincount(data.labels, minlength=data.num_classes).tolist() == [600] * 100
    assert torch.bincount(data.labels[:50000]).tolist() == [500] * 100
    assert data.class_names[26] == again.class_names[26] == "crab"
    means = data.inputs[:50000].numpy().mean((0, 2, 3)) / 255
    np.testing.assert_allclose(means, [0.5071, 0.4865, 0.4409], atol=1e-4)


@pytest.mark.long
def test_one_changed_bit_of_the_real_set(cifar100_dir: Path, tmp_path: Path) -> None:
    source, folder = cifar100_dir / "cifar-100-binary", tmp_path / "cifar-100-binary"
    folder.mkdir()
    (folder / "train.bin").symlink_to(source / "train.bin")
    records = bytearray((source / "test.bin").read_bytes())
    records[12_345_678] ^= 4
    (folder / "test.bin").write_bytes(records)
    with pytest.raises(ValueError, match="the test part is damaged: checksum"):
        load_dataset(str(folder))
