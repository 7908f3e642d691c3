"""CIFAR as Parquet files of encoded images: the same tensors as the other layouts, and every damage is told."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cifar_layouts import png, random_records, small_set, write_binary, write_parquet, write_python
from PIL import Image

from ncmi.data.cifar_sets import CIFAR_SETS, CifarSet
from ncmi.data.load import load_dataset

PARTS = {"cifar10": random_records(10), "cifar100": random_records(100)}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NCMI_DATA", raising=False)
    for name, parts in PARTS.items():
        small_set(monkeypatch, name, parts)


def cifar(name: str = "cifar100") -> CifarSet:
    return CIFAR_SETS[name]


def rewrite(file: Path, **columns: Any) -> None:
    """Replace or (with ``None``) drop columns of a file."""
    table = pq.read_table(file)
    for name, values in columns.items():
        if name in table.column_names:
            table = table.drop_columns(name)
        if values is not None:
            table = table.append_column(name, values if isinstance(values, pa.Array) else pa.array(values))
    pq.write_table(table, file)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("column", ["img", "image"])
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("shards", [1, 3])
def test_same_tensors_as_the_binary_and_python_layouts(
    tmp_path: Path, shards: int, plain: bool, column: str, name: str
) -> None:
    parts, names = PARTS[name], list(cifar(name).class_names) if plain else None
    root = tmp_path / "hub"
    write_parquet(root / name, cifar(name), parts, shards=shards, column=column, plain=plain, names=names)
    data = load_dataset(str(root / name))
    for other in (
        load_dataset(str(write_binary(tmp_path, cifar(name), parts))),
        load_dataset(str(write_python(tmp_path, cifar(name), parts))),
        load_dataset(str(root)),
        load_dataset(name, data_dir=str(root)),
    ):
        assert torch.equal(data.inputs, other.inputs)
        assert torch.equal(data.labels, other.labels)
        assert (data.name, data.class_names) == (other.name, other.class_names)
        assert data.parts is not None
        assert np.array_equal(data.parts, other.parts)
    half = load_dataset(str(root), image_size=16)
    assert torch.equal(half.inputs, load_dataset(str(tmp_path / cifar(name).binary.folder), image_size=16).inputs)


def test_class_names_of_the_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*cifar("cifar10").class_names[:9], "lorry"]
    folder = write_parquet(tmp_path / "a", cifar("cifar10"), PARTS["cifar10"], names=names)
    assert load_dataset(str(folder)).class_names == tuple(names)
    misspelt = ["cra" if name == "crab" else name for name in cifar().class_names]
    folder = write_parquet(tmp_path / "b", cifar(), PARTS["cifar100"], names=misspelt)
    assert load_dataset(str(folder)).class_names == cifar().class_names  # known contents, known names


def test_broken_description_counts_as_none(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "a", cifar(), PARTS["cifar100"])
    for text in ("{", "[]", '{"info": {"features": []}}', "[" * 100_000, '{"info": null}'):
        for file in folder.iterdir():
            pq.write_table(pq.read_table(file).replace_schema_metadata({"huggingface": text}), file)
        assert load_dataset(str(folder)).class_names == cifar().class_names


def test_other_sets_with_the_same_columns(tmp_path: Path) -> None:
    digits = [str(i) for i in range(10)]
    folder = write_parquet(tmp_path / "mnist", cifar("cifar10"), PARTS["cifar10"], column="image", names=digits)
    with pytest.raises(FileNotFoundError):
        load_dataset("cifar10", data_dir=str(tmp_path))
    with pytest.raises(
        ValueError, match=r"mnist: train-00000-of-00001\.parquet: columns 'image', 'label' are not those"
    ):
        load_dataset(str(folder))
    write_parquet(tmp_path / "other", cifar("cifar10"), PARTS["cifar10"])
    assert load_dataset("cifar10", data_dir=str(tmp_path)).name == "cifar10"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"fine_label": None}, "columns 'img', 'coarse_label' are not those of CIFAR: .*fine_label"),
        ({"img": None}, "columns 'fine_label', 'coarse_label' are not those of CIFAR: an image column img or image"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_wrong_columns(tmp_path: Path, columns: dict[str, Any], message: str, nested: bool) -> None:
    folder = write_parquet(tmp_path / "a" / "data", cifar(), PARTS["cifar100"])
    rewrite(folder / "train-00000-of-00001.parquet", **columns)
    with pytest.raises(ValueError, match=rf"train-00000-of-00001\.parquet: {message}"):
        load_dataset(str(folder.parent if nested else folder))


def test_wrong_columns_of_the_test_part(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "a", cifar(), PARTS["cifar100"])
    rewrite(folder / "test-00000-of-00001.parquet", fine_label=None)
    with pytest.raises(
        ValueError, match=r"test-0.*: columns 'img', 'coarse_label': expected img or image and fine_label"
    ):
        load_dataset(str(folder))


def small_image() -> bytes:
    return png(np.zeros(3072, np.uint8))[:60]


def sized(width: int, height: int) -> bytes:
    """A PNG that says it has this size. Sizes are refused by the header, so that the pixels are those of another one."""
    stream = io.BytesIO()
    Image.new("RGB", (32, 32)).save(stream, "PNG")
    signature, header, rest = (stream.getvalue()[part] for part in (slice(12), slice(12, 29), slice(33, None)))
    header = header[:4] + struct.pack(">II", width, height) + header[12:]
    return signature + header + struct.pack(">I", zlib.crc32(header)) + rest


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (small_image(), "the image of record 3 .* is corrupt or not of CIFAR"),
        (b"no image", "the image of record 3 .* is corrupt"),
        (b"", "the image of record 3 .* is corrupt"),
        (None, "record 3 .* holds no bytes of an image"),
        (sized(28, 28), "the image of record 3 .*28×28 pixels, CIFAR has 32×32"),
        (sized(32, 33), "the image of record 3 .*32×33 pixels"),
        (sized(14000, 14000), "the image of record 3 .* not of CIFAR"),
    ],
)
@pytest.mark.parametrize("plain", [False, True])
def test_unusable_images(tmp_path: Path, blob: bytes | None, message: str, plain: bool) -> None:
    folder = write_parquet(tmp_path / "a", cifar(), PARTS["cifar100"], plain=plain, shards=2)
    file = folder / "test-00001-of-00002.parquet"
    images = pq.read_table(file)["img"].to_pylist()
    images[3] = blob if plain else {"bytes": blob, "path": "x.png"}
    rewrite(file, img=pa.array(images))
    with pytest.raises(ValueError, match=rf"a: test-00001-of-00002\.parquet: {message}.*download the file again"):
        load_dataset(str(folder))


@pytest.mark.parametrize(
    ("value", "message"),
    [(100, "label 100 in record 4 of train-00001-of-00003"), (-1, "label -1"), (None, "label of type NoneType")],
)
def test_unusable_labels(tmp_path: Path, value: int | None, message: str) -> None:
    folder = write_parquet(tmp_path / "a", cifar(), PARTS["cifar100"], shards=3)
    file = folder / "train-00001-of-00003.parquet"
    labels = pq.read_table(file)["fine_label"].to_pylist()
    labels[4] = value
    rewrite(file, fine_label=labels)
    with pytest.raises(ValueError, match=message):
        load_dataset(str(folder))
    rewrite(file, fine_label=[str(label) for label in labels])
    with pytest.raises(ValueError, match="label of type str in record 0"):
        load_dataset(str(folder))


def test_other_lossless_encodings(tmp_path: Path) -> None:
    """Formats and modes other than RGB in PNG, as long as the pixels are the same."""
    rng = np.random.default_rng(0)
    gray = np.tile(rng.integers(0, 256, (20, 1024), dtype=np.uint8), (1, 3))
    (train, (labels, _)) = PARTS["cifar10"]
    folder = write_parquet(tmp_path / "a", cifar("cifar10"), (train, (labels, gray)))
    images = []
    for i, row in enumerate(gray):
        stream = io.BytesIO()
        Image.fromarray(row[:1024].reshape(32, 32)).save(stream, ("PNG", "BMP")[i % 2])
        images.append({"bytes": stream.getvalue(), "path": None})
    rewrite(folder / "test-00000-of-00001.parquet", img=images)
    np.testing.assert_array_equal(load_dataset(str(folder)).inputs[50:].flatten(1), gray)


def test_missing_shards_and_parts(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "a", cifar(), PARTS["cifar100"], shards=2)
    (folder / "train-00001-of-00002.parquet").unlink()
    message = r"25 records in train-00000-of-00002\.parquet, expected 50: a shard is missing or cut.*as \.npz"
    with pytest.raises(ValueError, match=message):
        load_dataset(str(folder))
    for file in ("train-00000-of-00002.parquet", "test-00000-of-00002.parquet"):
        (folder / file).rename(folder / file.replace("00000", "00001"))
    (folder / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(ValueError, match=r"a: train\*\.parquet is missing beside test-00001-of-00002\.parquet"):
        load_dataset(str(folder))


def test_too_many_records(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "a", cifar(), PARTS["cifar100"])
    (folder / "test.parquet").write_bytes((folder / "test-00000-of-00001.parquet").read_bytes())
    with pytest.raises(ValueError, match=r"40 records in test.*expected 20: too many shards"):
        load_dataset(str(folder))


def test_other_contents_than_the_known(tmp_path: Path) -> None:
    (labels, images), test = PARTS["cifar100"]
    folder = write_parquet(tmp_path / "a", cifar(), ((labels, images[::-1]), test))
    with pytest.raises(ValueError, match=r"a: the train part is damaged: checksum .* differs .*modified sets"):
        load_dataset(str(folder))


def test_truncated_and_damaged_files(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "a", cifar(), PARTS["cifar100"])
    rng = np.random.default_rng(0)
    for file in (folder / "train-00000-of-00001.parquet", folder / "test-00000-of-00001.parquet"):
        whole = file.read_bytes()
        for length in (0, 4, 100, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:length])
            with pytest.raises(ValueError, match=rf"{file.name}: not a readable \.parquet file"):
                load_dataset(str(folder))
        for at in rng.integers(0, len(whole), 60):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
            try:
                read = load_dataset(str(folder))
            except ValueError:
                continue
            np.testing.assert_array_equal(read.inputs[:50].flatten(1), PARTS["cifar100"][0][1])
        file.write_bytes(whole)


def test_folders_of_images_are_still_read(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (32, 32)).save(tmp_path / name / "a.png")
    (tmp_path / "train_list.parquet").write_bytes(b"x")
    assert load_dataset(str(tmp_path)).class_names == ("cat", "dog")
