"""Colors of images: against colorsys pixel by pixel; what is drawn; nothing waits for the device."""

from __future__ import annotations

import colorsys
import importlib
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ncmi.data.augmentation import augment_colors, augment_images, jitter_color
from ncmi.recipes import Augmentation

module = importlib.import_module("ncmi.data.augmentation")
SUPCON: dict[str, Any] = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "gray": 0.2}
Array = NDArray[np.float64]


def only(**changes: Any) -> Augmentation:
    """Options that vary nothing but what is named."""
    return Augmentation(**({"shift": 0, "noise": 0.0, "mask": 0.0} | changes))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 6) -> Tensor:
    rgb = torch.rand(batch, 3, 4, 5, generator=generator(99), dtype=torch.float64)
    rgb[:, :, 0, 0] = 0.0  # black, white, gray, and ties between the channels
    rgb[:, :, 0, 1] = 1.0
    rgb[:, :, 0, 2] = rgb[:, :1, 0, 2]
    rgb[:, 0, 1, 0] = rgb[:, 1, 1, 0]
    rgb[:, 1, 1, 1] = rgb[:, 2, 1, 1]
    return rgb


def gray_of(rgb: Array) -> Array:
    return np.asarray(0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2])


def change(rgb: Array, kind: int, factor: float) -> Array:
    """One kind of change to one image ``[3, H, W]`` by its definition."""
    if kind == 0:
        changed = factor * rgb
    elif kind == 1:
        changed = factor * rgb + (1 - factor) * gray_of(rgb).mean()
    elif kind == 2:
        changed = factor * rgb + (1 - factor) * gray_of(rgb)
    else:
        changed = rgb.copy()
        for row in range(rgb.shape[1]):
            for column in range(rgb.shape[2]):
                h, s, v = colorsys.rgb_to_hsv(*(float(x) for x in rgb[:, row, column]))
                changed[:, row, column] = colorsys.hsv_to_rgb((h + factor) % 1.0, s, v)
    return np.clip(changed, 0, 1)


def changed_in_order(rgb: Array, order: Any, factors: Any) -> Array:
    for kind in order:
        rgb = change(rgb, int(kind), float(factors[int(kind)]))
    return rgb


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_order_against_the_definitions(dtype: torch.dtype) -> None:
    order = torch.tensor(list(permutations(range(4))))
    original = images(24)
    factors = 0.5 + torch.rand(24, 4, generator=generator(5), dtype=torch.float64)
    factors[:, 3] -= 1.0
    found = jitter_color(original.to(dtype), order, factors.to(dtype))
    assert found.dtype == dtype
    for sample in range(24):
        expected = changed_in_order(original[sample].numpy(), order[sample], factors[sample])
        np.testing.assert_allclose(found[sample].numpy(), expected, atol=1e-12 if dtype == torch.float64 else 1e-5)


@settings(deadline=None, max_examples=40)
@given(st.tuples(*[st.floats(0, 3)] * 3), st.floats(-0.5, 0.5), st.permutations(range(4)))
def test_any_factors_against_the_definitions(factors: tuple[float, ...], hue: float, order: list[int]) -> None:
    original, all_factors = images(1), torch.tensor([[*factors, hue]], dtype=torch.float64)
    found = jitter_color(original, torch.tensor([order]), all_factors)
    expected = changed_in_order(original[0].numpy(), order, all_factors[0])
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-9)


def test_gray_against_its_definition() -> None:
    original = torch.rand(1000, 3, 2, 2, generator=generator(99), dtype=torch.float64)
    found = augment_colors(original, generator(), only(gray=0.3))
    changed = (found != original).flatten(1).any(1)
    assert 0.25 < float(changed.double().mean()) < 0.35
    for sample in changed.nonzero()[:20, 0]:
        expected = np.broadcast_to(gray_of(original[sample].numpy()), (3, 2, 2))
        np.testing.assert_allclose(found[sample].numpy(), expected, atol=1e-12)


def drawn(monkeypatch: pytest.MonkeyPatch, batch: int, **options: float) -> tuple[Tensor, Tensor, Tensor]:
    """Orders and factors that were drawn, and which images were varied."""
    seen = []

    def spy(original: Tensor, order: Tensor, factors: Tensor) -> Tensor:
        seen.append((order, factors))
        return original + 1

    monkeypatch.setattr(module, "jitter_color", spy)
    found = augment_colors(torch.zeros(batch, 3, 1, 1, dtype=torch.float64), generator(), only(**options))
    return *seen[0], found.flatten(1)[:, 0] == 1


def test_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    order, factors, varied = drawn(monkeypatch, 12000, brightness=0.4, contrast=1.5, saturation=0.2, hue=0.1)
    assert abs(float(varied.double().mean()) - 0.8) < 0.015
    bounds = [(0.6, 1.4), (0.0, 2.5), (0.8, 1.2), (-0.1, 0.1)]
    for kind, (low, high) in enumerate(bounds):
        uniform = (factors[:, kind] - low) / (high - low)
        quantiles = torch.quantile(uniform, torch.linspace(0, 1, 11, dtype=torch.float64))
        torch.testing.assert_close(quantiles, torch.linspace(0, 1, 11, dtype=torch.float64), atol=0.02, rtol=0)
    together = torch.cat([factors, varied[:, None].double()], 1)
    assert torch.corrcoef(together.T).triu(1).abs().max() < 0.04
    counts = [int((order == torch.tensor(one)).all(1).sum()) for one in permutations(range(4))]
    assert sum(counts) == 12000
    # 500 expected of each order, sd 22
    assert min(counts) > 400
    assert max(counts) < 600


def test_strengths_of_zero_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    original = images()
    for options in ({}, {"jitter_probability": 1.0}, {**SUPCON, "gray": 0.0, "jitter_probability": 0.0}):
        found = augment_colors(original, generator(), only(**options))
        assert torch.equal(found, original)
        assert found.data_ptr() != original.data_ptr()
    state = generator()
    augment_colors(original, state, only())
    assert torch.equal(state.get_state(), generator().get_state())
    order, factors, _ = drawn(monkeypatch, 10, hue=0.1)
    assert torch.equal(factors[:, :3], torch.ones(10, 3, dtype=torch.float64))
    assert order.shape == (10, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_sample_by_itself(dtype: torch.dtype) -> None:
    original = images(10).to(dtype)
    kept = original.clone()
    whole = augment_colors(original, generator(), only(**SUPCON))
    assert (whole.shape, whole.dtype) == (original.shape, dtype)
    assert torch.equal(original, kept)
    assert float(whole.min()) >= 0
    assert float(whole.max()) <= 1
    others = original.clone()
    others[:4] = 0.5
    assert torch.equal(augment_colors(others, generator(), only(**SUPCON))[4:], whole[4:])
    torch.rand(5)
    assert torch.equal(augment_colors(original, generator(), only(**SUPCON)), whole)
    assert not torch.equal(augment_colors(original, generator(1), only(**SUPCON)), whole)
    same = augment_colors(original[:1].expand(10, -1, -1, -1), generator(), only(**SUPCON))
    assert len(torch.unique(same, dim=0)) > 5
    assert augment_colors(original[:0], generator(), only(**SUPCON)).shape == (0, 3, 4, 5)


class Recorder(TorchDispatchMode):
    """Names of the operations that torch carries out."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_nothing_waits_for_the_device() -> None:
    waiting = {"_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal"}
    original = images().float()
    with Recorder() as recorder:
        augment_colors(original, generator(), only(**SUPCON))
        for options in ({"shift": 1, "flip": True}, {"rotation": 15, "crop_scale": (0.2, 1), "noise": 0.1}):
            augment_images(original, generator(), only(**options))
    assert {"gather", "grid_sampler_2d", "lerp"} <= recorder.names
    assert not recorder.names & waiting
    with Recorder() as recorder:
        float(original[0, 0, 0, 0])
    assert recorder.names & waiting


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (3, 4, 4), (2, 4, 4, 3)])
def test_rejects_other_than_rgb(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"colors vary in RGB images .* set brightness, contrast, saturation, hue and"):
        augment_colors(torch.zeros(shape), generator(), only(**SUPCON))


def test_rejects() -> None:
    with pytest.raises(ValueError, match=r"type torch.uint8: give floating point in 0…1, e.g. images.float\(\) / 255"):
        augment_colors(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), generator(), only(gray=0.2))
    for value in (-0.1, float("nan"), float("inf")):
        for name in ("brightness", "contrast", "saturation"):
            with pytest.raises(ValueError, match=f"{name}={value}: must be at least 0"):
                augment_colors(images(), generator(), only(**{name: value}))
        for name in ("jitter_probability", "gray"):
            with pytest.raises(ValueError, match=f"{name}={value}: must be at least 0 and at most 1"):
                augment_colors(images(), generator(), only(**{name: value}))
    with pytest.raises(ValueError, match=r"hue=0.6: must be at least 0 and at most 0.5"):
        augment_colors(images(), generator(), only(hue=0.6))
