"""A data set is checked when it is made, and the embedded ones are what scikit-learn holds."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import datasets

from ncmi.data.dataset import Dataset
from ncmi.data.images import with_channels
from ncmi.data.kinds import EMBEDDED
from ncmi.data.load import load_dataset, load_embedded


def table(**changes: Any) -> Dataset:
    fields: dict[str, Any] = {
        "name": "toy",
        "inputs": torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
        "labels": torch.tensor([0, 1, 0]),
        "class_names": ("no", "yes"),
        "kind": "table",
        "feature_names": ("height", "weight"),
    }
    return Dataset(**(fields | changes))


def test_properties() -> None:
    data = table(class_names=("no", "yes", "never"))
    assert (len(data), data.num_classes, data.sample_shape) == (3, 3, (2,))
    assert torch.bincount(data.labels, minlength=data.num_classes).tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "text"}, "choose 'table' or 'image'"),
        ({"inputs": torch.zeros(3, 2, dtype=torch.float64)}, "must be torch.float32 of shape [N, F]"),
        ({"inputs": torch.zeros(3, 2, 2)}, "not torch.float32 of shape [3, 2, 2]"),
        ({"kind": "image"}, "must be torch.uint8 of shape [N, channels, H, W]"),
        ({"inputs": torch.zeros(0, 2)}, "are empty"),
        ({"inputs": torch.zeros(3, 0)}, "are empty"),
        ({"labels": torch.tensor([0, 1])}, "labels must be int64 of shape [3]"),
        ({"labels": torch.tensor([0, 1, 0], dtype=torch.int32)}, "not torch.int32 of shape [3]"),
        ({"labels": torch.tensor([0, 1, 2])}, "label 2 of sample 2 is outside 0…1"),
        ({"labels": torch.tensor([0, -1, 1])}, "label -1 of sample 1 is outside 0…1"),
        ({"class_names": ("no", "no")}, "class names are not distinct"),
        ({"class_names": ("no",)}, "a classifier needs at least two"),
        ({"feature_names": ("height",)}, "1 feature names for 2 columns"),
        ({"feature_names": ("a", "a")}, "feature names appear twice ('a')"),
        ({"parts": np.zeros(2, np.int8)}, "int8 of shape [3]"),
        ({"parts": np.zeros(3, np.int64)}, "int8 of shape [3]"),
        ({"parts": np.array([0, 0, 3], np.int8)}, "2 test"),
        ({"parts": np.array([1, 2, -1], np.int8)}, "no sample is in the training part"),
    ],
)
def test_rejects(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        table(**changes)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_not_finite_names_column_row_and_count(value: float) -> None:
    inputs = torch.tensor([[1.0, 2.0], [3.0, value], [value, 6.0]])
    message = f"column 'weight', row 1 (counted from 0) is {value}; 2 such values"
    with pytest.raises(ValueError, match=re.escape(message)):
        table(inputs=inputs)
    with pytest.raises(ValueError, match="column 1, row 1"):
        table(inputs=inputs, feature_names=None)


def test_images_have_no_feature_names() -> None:
    images = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    assert table(inputs=images, kind="image", feature_names=None).sample_shape == (1, 2, 2)
    with pytest.raises(ValueError, match="images have no feature names"):
        table(inputs=images, kind="image")


def test_digits_are_lossless_images() -> None:
    data, source = load_dataset("digits"), datasets.load_digits()
    assert data.kind == "image"
    assert data.inputs.shape == (1797, 1, 8, 8)
    assert data.inputs.dtype == torch.uint8
    assert int(data.inputs.min()) == 0
    assert int(data.inputs.max()) == 255
    np.testing.assert_array_equal(np.round(data.inputs[:, 0].numpy() * (16 / 255)), source.images)
    np.testing.assert_array_equal(data.labels, source.target)
    assert data.class_names == tuple("0123456789")


@pytest.mark.parametrize("name", [n for n in EMBEDDED if n != "digits"])
def test_embedded_tables(name: str) -> None:
    data, source = load_dataset(name), getattr(datasets, f"load_{name}")()
    np.testing.assert_array_equal(data.inputs, source.data.astype(np.float32))
    np.testing.assert_array_equal(data.labels, source.target)
    assert data.feature_names == tuple(source.feature_names)
    assert data.class_names == tuple(source.target_names)


def test_unknown_embedded_name() -> None:
    with pytest.raises(ValueError, match="no embedded data set 'letter': choose one of digits, wine"):
        load_embedded("letter")


def test_channels() -> None:
    digits = load_dataset("digits").inputs
    color = with_channels(digits, 3)
    assert color.shape == (1797, 3, 8, 8)
    assert torch.equal(color[:, 2:], digits)
    assert with_channels(digits, None) is digits
