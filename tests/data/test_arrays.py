"""NumPy archives: tables and images, official test parts, and nothing is ever unpickled."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ncmi.data.images import with_channels
from ncmi.data.load import load_dataset

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3))
Y = np.array([3, 1, 3, 10, 1, 10])


def save(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


@pytest.mark.parametrize(
    "keys", [("x", "y"), ("X", "Y"), ("features", "labels"), ("data", "target"), ("inputs", "label")]
)
def test_tables(tmp_path: Path, keys: tuple[str, str]) -> None:
    data = load_dataset(save(tmp_path / "t.npz", **{keys[0]: X, keys[1]: Y, "extra": np.zeros(1)}))
    assert (data.name, data.kind, data.feature_names) == ("t", "table", None)
    np.testing.assert_array_equal(data.inputs, X.astype(np.float32))
    assert data.class_names == ("1", "3", "10")
    assert data.labels.tolist() == [1, 0, 1, 2, 0, 2]


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int64", "float16", ">f8"])
def test_types_of_tables(tmp_path: Path, dtype: str) -> None:
    x = (X > 0).astype(dtype)
    data = load_dataset(save(tmp_path / "t.npz", x=np.asfortranarray(x), y=Y[:, None]))
    np.testing.assert_array_equal(data.inputs, x.astype(np.float32))


def test_text_labels_and_names(tmp_path: Path) -> None:
    text = np.array(["b", "a", "b", "a", "a", "ü"])
    path = save(tmp_path / "t.npz", x=X, y=text, feature_names=np.array(["f", "g", "h"]))
    data = load_dataset(path)
    assert (data.class_names, data.feature_names) == (("a", "b", "ü"), ("f", "g", "h"))
    encoded = np.array([t.encode() for t in text])
    assert torch.equal(load_dataset(save(tmp_path / "u.npz", x=X, y=encoded)).labels, data.labels)


def test_class_names(tmp_path: Path) -> None:
    names = np.array(["cat", "dog", "eel"])
    data = load_dataset(save(tmp_path / "t.npz", x=X, y=Y // 5, class_names=names))
    assert (data.class_names, data.labels.tolist()) == (("cat", "dog", "eel"), [0, 0, 0, 2, 0, 2])
    with pytest.raises(ValueError, match=r"t\.npz: label 3 of sample 0 is outside 0…2"):
        load_dataset(save(tmp_path / "t.npz", x=X, y=Y, class_names=names))
    with pytest.raises(ValueError, match="give indices into class_names"):
        load_dataset(save(tmp_path / "t.npz", x=X, y=names[Y // 5], class_names=names))


@pytest.mark.parametrize("layout", ["N×H×W", "N×H×W×1", "N×H×W×3", "N×3×H×W", "N×1×H×W"])
def test_images(tmp_path: Path, layout: str) -> None:
    channels = 3 if "3" in layout else 1
    images = RNG.integers(0, 256, (6, channels, 5, 7), dtype=np.uint8)
    stored = images
    if layout == "N×H×W":
        stored = images[:, 0]
    elif layout.startswith("N×H"):
        stored = images.transpose(0, 2, 3, 1)
    data = load_dataset(save(tmp_path / "t.npz", images=stored, y=Y))
    assert data.kind == "image"
    np.testing.assert_array_equal(data.inputs, images)


def test_color_to_gray_is_what_pillow_does(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)
    data = load_dataset(save(tmp_path / "t.npz", x=images, y=Y))
    gray = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])
    np.testing.assert_array_equal(with_channels(data.inputs, 1)[:, 0], gray)


def test_official_test_part(tmp_path: Path) -> None:
    parts = {"x_train": X[:4], "y_train": Y[:4], "x_test": X[4:], "y_test": Y[4:]}
    data = load_dataset(save(tmp_path / "t.npz", **parts))
    np.testing.assert_array_equal(data.inputs, X.astype(np.float32))
    assert data.labels.tolist() == [1, 0, 1, 2, 0, 2]
    assert data.parts is not None
    assert data.parts.tolist() == [0, 0, 0, 0, 2, 2]
    with pytest.raises(ValueError, match=re.escape("x_train [4, 3] and x_test [2, 2] differ in shape")):
        load_dataset(save(tmp_path / "t.npz", **(parts | {"x_test": X[4:, :2]})))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": X, "y": Y}, "no inputs found among the arrays 'a', 'y': call them x or inputs"),
        ({"x": X, "b": Y}, "no labels found among the arrays 'x', 'b': call them label or"),
        ({"x": X, "data": X, "y": Y}, "several arrays could be the inputs ('x', 'data')"),
        ({"x": X, "y": Y, "label": Y}, "several arrays could be the labels ('y', 'label')"),
        ({"x": X, "y": Y[:5]}, "inputs [6, 3] and labels [5] differ in length"),
        ({"x": X, "y": np.int64(1)}, "differ in length"),
        ({"x": X[:, 0], "y": Y}, "shape [6]: give numbers [N, F]"),
        ({"x": X.astype(str), "y": Y}, "give numbers [N, F]"),
        ({"x": X.astype(complex), "y": Y}, "type complex128"),
        ({"x": np.zeros((6, 8, 8)), "y": Y}, "images of type float64: give uint8, 0…255"),
        ({"x": np.zeros((6, 8, 8, 4), np.uint8), "y": Y}, "or uint8 images [N, H, W]"),
        ({"x": np.where(X[4, 2] == X, np.nan, X), "y": Y}, "column 2, row 4 (counted from 0) is nan"),
        ({"x": X, "y": np.eye(6)}, "labels.argmax(axis=1)"),
        ({"x": X, "y": np.where(Y == 10, np.nan, Y)}, "row 3 (counted from 0) has no label; 2 such rows"),
        ({"x": X, "y": Y + 0.5}, "label 3.5 of row 0 (counted from 0) is not a whole number"),
        ({"x": X, "y": np.where(Y == 1, np.inf, 0)}, "label inf of row 1"),
        ({"x": X, "y": np.array(["a", "", "b", "a", "b", "a"])}, "row 1 (counted from 0) has no label"),
        ({"x": X, "y": np.ones(6, int)}, "only one class ('1')"),
        ({"x": X, "y": Y.astype(object)}, "array 'y' cannot be read"),
        ({"x": X.astype(object), "y": Y}, "object arrays are never unpickled; save numbers or text"),
    ],
)
def test_bad_archives(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"bad\.npz: .*{re.escape(message)}"):
        load_dataset(save(tmp_path / "bad.npz", **arrays))


def test_label_array_by_name(tmp_path: Path) -> None:
    path = save(tmp_path / "t.npz", x=X, y=Y, Coarse=Y > 5)
    assert load_dataset(path, label_column="Coarse").class_names == ("False", "True")
    with pytest.raises(ValueError, match="no array 'fine': choose the labels among 'x', 'y', 'Coarse'"):
        load_dataset(path, label_column="fine")


def test_truncated_or_damaged_archive(tmp_path: Path) -> None:
    path = Path(save(tmp_path / "t.npz", x=X, y=Y))
    whole = path.read_bytes()
    for length in (0, 60, len(whole) - 10):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"t\.npz: not a complete \.npz archive \(truncated"):
            load_dataset(str(path))
    start = whole.index(X.tobytes())
    path.write_bytes(whole[:start] + bytes(8) + whole[start + 8 :])
    with pytest.raises(ValueError, match=r"t\.npz: array 'x' is damaged"):
        load_dataset(str(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY no header")
        archive.writestr("y.npy", b"")
    with pytest.raises(ValueError, match=r"t\.npz: array 'x'"):
        load_dataset(str(path))
