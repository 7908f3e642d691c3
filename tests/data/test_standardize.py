"""Standardization: statistics of the training part alone, against NumPy in float64."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from ncmi.data.load import load_dataset
from ncmi.data.splits import split_dataset
from ncmi.data.standardize import RunningScale, Standardizer


@pytest.mark.parametrize("name", ["wine", "breast_cancer", "digits"])
def test_training_part_only(name: str) -> None:
    data = load_dataset(name)
    train = split_dataset(data).train
    standardize = Standardizer.fit(data.inputs[train], data.kind)
    axes = (0,) if data.kind == "table" else (0, 2, 3)
    reference = data.inputs[train].numpy().astype(np.float64)
    np.testing.assert_allclose(standardize.mean.flatten(), reference.mean(axes), rtol=1e-6)
    np.testing.assert_allclose(standardize.scale.flatten(), reference.std(axes), rtol=1e-6)
    whole = Standardizer.fit(data.inputs, data.kind)
    assert not torch.equal(whole.mean, standardize.mean)

    result = standardize(data.inputs[train])
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.double().mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(result.double().std(axes, correction=0), 1, atol=1e-5)


def test_held_out_data_cannot_leak() -> None:
    data = load_dataset("wine")
    train = split_dataset(data).train
    spoilt = torch.full_like(data.inputs, 1e9)
    spoilt[train] = data.inputs[train]
    assert torch.equal(
        Standardizer.fit(spoilt[train], "table").mean, Standardizer.fit(data.inputs[train], "table").mean
    )


def test_image_statistics_are_exact_beyond_one_chunk() -> None:
    images = torch.randint(250, 256, (2500, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    standardize = Standardizer.fit(images, "image")
    reference = images.numpy().astype(np.float64)
    assert standardize.mean.shape == (3, 1, 1)
    np.testing.assert_allclose(standardize.mean.flatten(), reference.mean((0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(standardize.scale.flatten(), reference.std((0, 2, 3)), rtol=1e-6)


def test_constant_columns_keep_scale_one() -> None:
    values = torch.rand(200, generator=torch.Generator().manual_seed(0)) * 1e3
    x = values.repeat(999, 1)
    standardize = Standardizer.fit(x, "table")
    assert (standardize.scale == 1).all()
    assert standardize(x).abs().max() < 1e-3
    black = Standardizer.fit(torch.full((3, 2, 4, 4), 7, dtype=torch.uint8), "image")
    assert (black.mean == 7).all()
    assert (black.scale == 1).all()


def test_a_column_far_from_zero() -> None:
    x = torch.tensor([[2.0**24], [2.0**24 + 2], [2.0**24 + 4]])
    np.testing.assert_allclose(Standardizer.fit(x, "table")(x)[:, 0], [-(1.5**0.5), 0, 1.5**0.5], rtol=1e-6)


def test_state_dict_round_trip() -> None:
    data = load_dataset("wine")
    fitted, empty = Standardizer.fit(data.inputs, "table"), Standardizer(13, "table")
    assert torch.equal(empty(data.inputs), data.inputs)
    assert not list(empty.parameters())
    empty.load_state_dict(fitted.state_dict())
    assert torch.equal(empty(data.inputs), fitted(data.inputs))
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    assert Standardizer(3, "image").state_dict().keys() == Standardizer.fit(images, "image").state_dict().keys()


def test_half_precision_inputs_give_float32() -> None:
    assert Standardizer(2, "table")(torch.ones(3, 2, dtype=torch.bfloat16)).dtype == torch.float32


def test_rejects() -> None:
    with pytest.raises(ValueError, match=re.escape("inputs of shape [3] do not fit kind 'table'")):
        Standardizer.fit(torch.zeros(3), "table")
    with pytest.raises(ValueError, match=re.escape("inputs of shape [0, 3] do not fit")):
        Standardizer.fit(torch.zeros(0, 3), "table")
    with pytest.raises(ValueError, match=r"images of type torch\.float32: give uint8"):
        Standardizer.fit(torch.zeros(2, 1, 3, 3), "image")
    with pytest.raises(ValueError, match=re.escape("inputs of shape [5, 3], but standardized for [N, 2]")):
        Standardizer(2, "table")(torch.zeros(5, 3))
    with pytest.raises(ValueError, match=re.escape("[5, 1, 8, 8], but standardized for [N, 3, H, W]")):
        Standardizer(3, "image")(torch.zeros(5, 1, 8, 8))


@pytest.mark.parametrize("chunks", [(1, 1, 998), (500, 500), (1000,), (0, 7, 993)])
def test_chunks_give_what_all_rows_give(chunks: tuple[int, ...]) -> None:
    """A small spread about a large mean keeps its digits."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(1000, 3, generator=generator, dtype=torch.float64) * torch.tensor([1e-3, 1.0, 1e6]) + 1e6
    moments = RunningScale()
    for chunk in rows.split(list(chunks)):
        moments.update(chunk)
    mean, scale = moments.result()
    np.testing.assert_allclose(mean, rows.numpy().mean(0), rtol=1e-14)
    np.testing.assert_allclose(scale, (rows.numpy() - rows.numpy().mean(0)).std(0), rtol=1e-9)


def test_constants_in_chunks_keep_scale_one() -> None:
    values = torch.rand(20, generator=torch.Generator().manual_seed(0)) * 1e3
    moments = RunningScale()
    for count in (3, 1, 999):
        moments.update(values.repeat(count, 1))
    assert torch.equal(moments.result()[0], values.double())
    assert (moments.result()[1] == 1).all()


def test_spread_that_is_rounding_alone() -> None:
    moments = RunningScale()
    moments.update(torch.tensor([[1.0, 1.0], [1.0 + 2**-23, 3.0]]))
    assert moments.result()[1].tolist() == [2**-24, 1.0]
    assert moments.result(rounding=1e-7)[1].tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="no rows"):
        RunningScale().result()


def test_instances_of_bags() -> None:
    assert torch.equal(Standardizer(3, "bags")(torch.ones(5, 3)), torch.ones(5, 3))
