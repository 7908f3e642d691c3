"""Where pixels come from: against loops, SciPy and NumPy in float64; what is drawn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

import ncmi.data.augmentation as augment_module
from ncmi.data.augmentation import RATIO, augment_images, draw_boxes, resample, shift_and_flip
from ncmi.recipes import Augmentation

Array = NDArray[np.float64]
sides = st.integers(1, 9)


def only(**changes: Any) -> Augmentation:
    """Options that vary nothing but what is named."""
    return Augmentation(**({"shift": 0, "noise": 0.0, "mask": 0.0} | changes))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 6, channels: int = 3, height: int = 7, width: int = 9) -> Tensor:
    return torch.randn(batch, channels, height, width, generator=generator(99), dtype=torch.float64)


def column(*values: Any) -> Tensor:
    rows = torch.tensor(values, dtype=torch.float64 if isinstance(values[0], float) else None)
    return rows[:, None]


def moved_by_loops(plane: Array, down: int, right: int, mirrored: bool, fill: float) -> Array:
    height, width = plane.shape
    result = np.full((height, width), fill)
    for row in range(height):
        for position in range(width):
            y, x = row - down, position - right
            if 0 <= y < height and 0 <= x < width:
                result[row, position] = plane[y, width - 1 - x if mirrored else x]
    return result


def turned(plane: Array, degrees: float, fill: float) -> Array:
    """Turned counter-clockwise: rows point down, so the matrix of the way back is that of the turn itself."""
    angle, center = math.radians(degrees), (np.array(plane.shape) - 1) / 2
    back = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    offset = center - back @ center
    return np.asarray(ndimage.affine_transform(plane, back, offset, order=1, mode="grid-constant", cval=fill))


@settings(deadline=None, max_examples=30)
@given(st.data(), sides, sides, st.sampled_from([1, 3]), st.floats(-2, 2))
def test_shift_and_flip_against_loops(data: st.DataObject, height: int, width: int, channels: int, fill: float) -> None:
    shift = data.draw(st.integers(0, min(height, width) - 1))
    steps = st.integers(-shift, shift)
    down, right = data.draw(st.tuples(steps, steps)), data.draw(st.tuples(steps, steps))
    mirrored = data.draw(st.tuples(st.booleans(), st.booleans()))
    original = images(2, channels, height, width)
    found = shift_and_flip(original, column(*down), column(*right), column(*mirrored), shift, fill)
    for sample in range(2):
        for channel in range(channels):
            plane = original[sample, channel].numpy()
            expected = moved_by_loops(plane, down[sample], right[sample], mirrored[sample], fill)
            np.testing.assert_array_equal(found[sample, channel].numpy(), expected)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-180, 180), min_size=3, max_size=3), st.integers(2, 9), sides, st.sampled_from([0.0, 1.5]))
def test_rotation_against_scipy(degrees: list[float], height: int, width: int, fill: float) -> None:
    original = images(3, 2, height, width)
    radians = torch.tensor(degrees, dtype=torch.float64).deg2rad()[:, None]
    found = resample(original, radians=radians, fill=torch.tensor([fill, 2 * fill]) if fill else 0.0)
    for sample, angle in enumerate(degrees):
        for channel in range(2):
            expected = turned(original[sample, channel].numpy(), angle, fill * (1 + channel))
            np.testing.assert_allclose(found[sample, channel].numpy(), expected, atol=1e-9)


def test_quarter_turns_are_counter_clockwise() -> None:
    original = images(3, 1, 5, 5)
    found = resample(original, radians=column(math.pi / 2, math.pi, -math.pi / 2))
    for sample, quarters in enumerate((1, 2, 3)):
        torch.testing.assert_close(found[sample], torch.rot90(original[sample], quarters, (1, 2)))


def composed(plane: Array, way: dict[str, Any], fill: float) -> Array:
    """Flip, shift, crop, turn, with the first two carried out and the last two by SciPy's sampler."""
    plane = moved_by_loops(plane, way["down"], way["right"], way["mirrored"], fill)
    height, width = plane.shape
    angle, (top, left, box_height, box_width) = way["radians"], way["box"]
    result = np.empty_like(plane)
    for row in range(height):
        for position in range(width):
            y, x = row - (height - 1) / 2, position - (width - 1) / 2
            v = y * math.cos(angle) + x * math.sin(angle) + (height - 1) / 2
            u = x * math.cos(angle) - y * math.sin(angle) + (width - 1) / 2
            inside = ndimage.map_coordinates(np.ones_like(plane), [[v], [u]], order=1, mode="grid-constant")[0]
            v, u = np.clip(v, 0, height - 1), np.clip(u, 0, width - 1)
            v, u = top + (v + 0.5) * box_height / height - 0.5, left + (u + 0.5) * box_width / width - 0.5
            value = ndimage.map_coordinates(plane, [[v], [u]], order=1, mode="nearest")[0]
            result[row, position] = inside * value + (1 - inside) * fill
    return result


@pytest.mark.parametrize("fill", [0.0, -1.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kinds", [{"crop"}, {"crop", "turn"}, {"turn", "shift"}, {"crop", "turn", "shift", "flip"}])
def test_everything_in_one_sampling(kinds: set[str], dtype: torch.dtype, fill: float) -> None:
    original, source = images(5, 1, 6, 8), np.random.default_rng(3)
    boxes = [
        (0.7, 1.3, 3.0, 6.5),
        (0.0, 2.5, 4.5, 5.5),
        (1.5, 0.0, 4.5, 4.0),
        (2.0, 2.0, 4.0, 6.0),
        (0.3, 0.1, 2.0, 2.5),
    ]
    ways = [
        {
            "down": int(source.integers(-2, 3)) if "shift" in kinds else 0,
            "right": int(source.integers(-2, 3)) if "shift" in kinds else 0,
            "mirrored": "flip" in kinds and number % 2 == 0,
            "radians": float(source.uniform(-1, 1)) if "turn" in kinds else 0.0,
            "box": boxes[number] if "crop" in kinds else (0, 0, 6, 8),
        }
        for number in range(5)
    ]
    found = resample(
        original.to(dtype),
        mirrored=column(*(way["mirrored"] for way in ways)) if "flip" in kinds else None,
        offsets=(column(*(way["down"] for way in ways)), column(*(way["right"] for way in ways)))
        if "shift" in kinds
        else None,
        boxes=tuple(torch.tensor([way["box"] for way in ways], dtype=torch.float64).T[:, :, None])
        if "crop" in kinds
        else None,
        radians=column(*(way["radians"] for way in ways)) if "turn" in kinds else None,
        fill=fill,
    )
    assert found.dtype == dtype
    for sample, way in enumerate(ways):
        expected = composed(original[sample, 0].numpy(), way, fill)
        np.testing.assert_allclose(found[sample, 0].numpy(), expected, atol=1e-9 if dtype == torch.float64 else 1e-5)


@settings(deadline=None, max_examples=40)
@given(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted), st.integers(1, 40), st.integers(1, 40))
def test_boxes_fit_and_have_the_area_asked_for(scale: list[float], height: int, width: int) -> None:
    top, left, box_height, box_width = draw_boxes(200, height, width, (scale[0], scale[1]), generator())
    part = box_height * box_width / (height * width)
    assert float(part.min()) >= scale[0] * (1 - 1e-5)
    assert float(part.max()) <= scale[1] * (1 + 1e-5)
    for start, length, size in ((top, box_height, height), (left, box_width, width)):
        assert float(start.min()) >= 0
        assert float(length.max()) <= size
        assert float((start + length).max()) <= size * (1 + 1e-5)
    if height == width:
        ratio = box_width / box_height
        assert float(ratio.min()) >= RATIO[0] * (1 - 1e-5)
        assert float(ratio.max()) <= RATIO[1] * (1 + 1e-5)


def test_boxes_are_spread_as_documented() -> None:
    top, left, height, width = (side.flatten().double() for side in draw_boxes(20000, 32, 32, (0.2, 0.6), generator()))
    parts = height * width / 1024
    logs = (width / height).log() / math.log(4 / 3)  # up to 0.6 of the area every ratio fits
    for uniform in ((parts - 0.2) / 0.4, (logs + 1) / 2, top / (32 - height), left / (32 - width)):
        quantiles = torch.quantile(uniform, torch.linspace(0, 1, 11, dtype=torch.float64))
        torch.testing.assert_close(quantiles, torch.linspace(0, 1, 11, dtype=torch.float64), atol=0.015, rtol=0)
    assert torch.corrcoef(torch.stack([parts, logs])).triu(1).abs().max() < 0.03


def test_the_whole_area_is_the_identity() -> None:
    original = images(50)
    torch.testing.assert_close(
        augment_images(original, generator(), only(crop_scale=(1.0, 1.0))), original, atol=1e-5, rtol=0
    )
    turned_by_nothing = resample(original, radians=torch.zeros(50, 1))
    torch.testing.assert_close(turned_by_nothing, original, atol=1e-12, rtol=0)


def test_rotation_stays_in_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Tensor] = []

    def spy(original: Tensor, *, radians: Tensor, **others: Any) -> Tensor:
        drawn.append(radians)
        return resample(original, radians=radians, **others)

    monkeypatch.setattr(augment_module, "resample", spy)
    augment_images(images(4000, 1, 3, 3), generator(), only(rotation=15))
    degrees = drawn[0].double().rad2deg()
    assert degrees.shape == (4000, 1)
    assert -15 <= float(degrees.min()) < -14.9
    assert 14.9 < float(degrees.max()) <= 15
    assert abs(float(degrees.mean())) < 0.5
    assert abs(float(degrees.std()) - 30 / math.sqrt(12)) < 0.2


def test_memory_format_does_not_matter() -> None:
    original = images()
    last = original.contiguous(memory_format=torch.channels_last)
    for options in ({"shift": 2, "flip": True}, {"rotation": 30.0, "crop_scale": (0.5, 0.9), "shift": 2}):
        found = augment_images(last, generator(), only(**options))
        torch.testing.assert_close(found, augment_images(original, generator(), only(**options)))


def test_empty_batch() -> None:
    empty = torch.zeros(0, 3, 4, 4)
    assert (
        augment_images(empty, generator(), only(shift=1, flip=True, rotation=15, crop_scale=(0.2, 1))).shape
        == empty.shape
    )


def test_rejects() -> None:
    for rotation in (-1.0, 181.0, float("nan")):
        with pytest.raises(ValueError, match=r"rotation=.*: must be at least 0 and at most 180"):
            augment_images(images(), generator(), only(rotation=rotation))
    for scale in ((0.0, 1.0), (0.5, 0.4), (0.5, 1.1), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match=r"crop_scale=\(.*\): give least and largest part"):
            augment_images(images(), generator(), only(crop_scale=scale))
    for options in ({"rotation": 1.0}, {"crop_scale": (0.2, 1.0)}):
        with pytest.raises(ValueError, match=r"of type torch\.bfloat16: give float32 or float64"):
            augment_images(images().bfloat16(), generator(), only(**options))
