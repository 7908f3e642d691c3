"""New inputs for a trained network: labels are ignored, everything else must match the training data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ncmi.data.load import load_dataset, load_new
from ncmi.data.signature import Signature
from ncmi.recipes import ImageData, TableData

FRAME = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0], "c": [5.0, 6.0]})
NAMES = ("a", "b", "c")


def load_unlabeled(
    path: str,
    *,
    kind: Literal["table", "image"],
    shape: tuple[int, ...],
    feature_names: tuple[str, ...] | None = None,
    label_column: str | None = None,
) -> tuple[torch.Tensor, list[str]]:
    """What can be used, and the names of all."""
    signature = Signature(kind=kind, sample_shape=shape, class_names=("u", "v"), feature_names=feature_names)
    section = TableData("training", label_column=label_column) if kind == "table" else ImageData("training")
    new = load_new(path, signature, section)
    return new.inputs, new.names  # type: ignore[return-value]


def csv(tmp_path: Path, frame: pd.DataFrame, **options: object) -> str:
    path = tmp_path / "new.csv"
    frame.to_csv(path, index=False, **options)
    return str(path)


def test_with_and_without_labels(tmp_path: Path) -> None:
    for frame in (FRAME, FRAME.assign(label=["u", "v"]), FRAME.assign(y=[None, None])):
        inputs, rows = load_unlabeled(csv(tmp_path, frame), kind="table", shape=(3,), feature_names=NAMES)
        assert torch.equal(inputs, torch.tensor([[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]))
        assert rows == ["0", "1"]
    path = csv(tmp_path, FRAME.assign(species=["u", "v"]))
    inputs, _ = load_unlabeled(path, kind="table", shape=(3,), feature_names=NAMES, label_column="species")
    assert inputs.shape == (2, 3)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_columns_go_by_name(tmp_path: Path, suffix: str) -> None:
    path, shuffled = tmp_path / f"new{suffix}", FRAME[["c", "a", "b"]]
    if suffix == ".parquet":
        shuffled.to_parquet(path)
    else:
        shuffled.to_csv(path, index=False, sep="," if suffix == ".csv" else "\t")
    inputs, _ = load_unlabeled(str(path), kind="table", shape=(3,), feature_names=NAMES)
    assert inputs[0].tolist() == [1.0, 3.0, 5.0]


def test_a_training_column_may_be_called_like_a_label(tmp_path: Path) -> None:
    frame = FRAME.rename(columns={"c": "y"})
    inputs, _ = load_unlabeled(
        csv(tmp_path, frame.assign(species=["u", "v"])),
        kind="table",
        shape=(3,),
        feature_names=("a", "b", "y"),
        label_column="species",
    )
    assert inputs[:, 2].tolist() == [5.0, 6.0]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (FRAME.drop(columns="b"), "columns missing that the network was trained on: 'b'; there is 'a', 'c'"),
        (FRAME.iloc[:0], "no rows"),
    ],
)
def test_columns_that_do_not_match(tmp_path: Path, frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=rf"new\.csv: .*{re.escape(message)}"):
        load_unlabeled(csv(tmp_path, frame), kind="table", shape=(3,), feature_names=NAMES)


def test_training_columns_without_names(tmp_path: Path) -> None:
    for frame in (FRAME, FRAME.assign(label=["u", "v"]), FRAME.assign(d=[7.0, 8.0]).set_axis(list("0123"), axis=1)):
        width = 4 if "3" in frame else 3
        inputs, _ = load_unlabeled(csv(tmp_path, frame), kind="table", shape=(width,))
        assert inputs.shape == (2, width)
    with pytest.raises(ValueError, match="3 feature columns, but the network was trained on 4"):
        load_unlabeled(csv(tmp_path, FRAME), kind="table", shape=(4,))


def test_archives(tmp_path: Path) -> None:
    path = tmp_path / "new.npz"
    np.savez(path, X=FRAME.to_numpy())
    inputs, rows = load_unlabeled(str(path), kind="table", shape=(3,), feature_names=NAMES)
    assert (inputs[1].tolist(), rows) == ([2.0, 4.0, 6.0], ["0", "1"])
    with pytest.raises(
        ValueError, match=re.escape("table of sample shape [3], but the network was trained on table of")
    ):
        load_unlabeled(str(path), kind="table", shape=(4,))
    with pytest.raises(ValueError, match="was trained on image"):
        load_unlabeled(str(path), kind="image", shape=(1, 8, 8))
    np.savez(path, X=FRAME.to_numpy(), feature_names=np.array(["c", "b", "a"]))
    with pytest.raises(ValueError, match="columns in another order than in training"):
        load_unlabeled(str(path), kind="table", shape=(3,), feature_names=NAMES)
    np.savez(path, y=np.zeros(3))
    with pytest.raises(ValueError, match="no inputs found among the arrays 'y'"):
        load_unlabeled(str(path), kind="table", shape=(3,))


def test_arrays_of_images(tmp_path: Path) -> None:
    path, images = tmp_path / "new.npz", np.arange(128, dtype=np.uint8).reshape(2, 8, 8)
    np.savez(path, images=images)
    inputs, _ = load_unlabeled(str(path), kind="image", shape=(3, 8, 8))
    assert inputs.shape == (2, 3, 8, 8)
    np.testing.assert_array_equal(inputs[:, 1], images)
    with pytest.raises(ValueError, match=re.escape("sample shape [1, 8, 8], but the network was trained on image")):
        load_unlabeled(str(path), kind="image", shape=(1, 9, 9))


def test_flat_and_nested_folders_and_single_files(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    for name, image in zip(("b/2.png", "a/1.png", "0.png", "c/d/3.png"), digits.inputs[:4, 0], strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(tmp_path / name)
    (tmp_path / "a" / ".hidden").write_text("x")
    inputs, names = load_unlabeled(str(tmp_path), kind="image", shape=digits.sample_shape)
    assert names == ["0.png", "a/1.png", "b/2.png", "c/d/3.png"]
    assert torch.equal(inputs, digits.inputs[[2, 1, 0, 3]])
    inputs, names = load_unlabeled(str(tmp_path / "a" / "1.png"), kind="image", shape=(1, 8, 8))
    assert (names, torch.equal(inputs[0], digits.inputs[1])) == (["1.png"], True)


def test_images_are_brought_to_the_training_shape(tmp_path: Path) -> None:
    image = Image.effect_noise((6, 4), 50)
    image.save(tmp_path / "a.png")
    inputs, _ = load_unlabeled(str(tmp_path), kind="image", shape=(3, 4, 6))
    np.testing.assert_array_equal(inputs[0], np.asarray(image)[None].repeat(3, axis=0))


def test_unusable_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"new\.csv does not exist"):
        load_unlabeled(str(tmp_path / "new.csv"), kind="table", shape=(3,))
    with pytest.raises(ValueError, match="no image inside: give a folder with images"):
        load_unlabeled(str(tmp_path), kind="image", shape=(1, 8, 8))
    with pytest.raises(ValueError, match="the network was trained on a table: give the file"):
        load_unlabeled(str(tmp_path), kind="table", shape=(3,))


def test_what_cannot_be_used_keeps_its_place_and_a_reason(tmp_path: Path) -> None:
    signature = Signature(kind="table", sample_shape=(3,), class_names=("u", "v"), feature_names=NAMES)
    new = load_new(csv(tmp_path, FRAME.assign(b=[np.nan, 4.0])), signature, TableData("training"))
    assert (new.inputs.tolist(), new.names, new.usable.tolist()) == ([[2.0, 4.0, 6.0]], ["0", "1"], [False, True])
    assert list(new.reasons) == [0]
    Image.new("L", (4, 4)).save(tmp_path / "b.png")
    (tmp_path / "a.png").write_text("no image")
    signature = Signature(kind="image", sample_shape=(1, 4, 4), class_names=("u", "v"))
    images = load_new(tmp_path, signature, ImageData("training"))
    assert (images.names[:2], len(images.inputs)) == (["a.png", "b.png"], 1)
    assert images.usable.tolist()[:2] == [False, True]
    assert 0 in images.reasons


def test_labels_are_of_known_classes(tmp_path: Path) -> None:
    signature = Signature(kind="table", sample_shape=(3,), class_names=("u", "v"), feature_names=NAMES)
    path = csv(tmp_path, FRAME.assign(label=["v", "u"]))
    labels = load_new(path, signature, TableData("training"), labeled=True).labels
    assert labels is not None
    assert labels.tolist() == [1, 0]
    for bad in (FRAME.assign(label=["v", "w"]), FRAME.assign(label=["v", None]), FRAME):
        with pytest.raises(ValueError, match=r"label|'w'"):
            load_new(csv(tmp_path, bad), signature, TableData("training"), labeled=True)
    some = load_new(csv(tmp_path, FRAME.assign(label=["v", "w"])), signature, TableData("t", bad="skip"), labeled=True)
    assert (some.usable.tolist(), list(some.reasons)) == ([True, False], [1])
