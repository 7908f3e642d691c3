"""What a sample looks like in a step depends on seed, epoch, step and micro-batch alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from training_helpers import make_recipe, metrics

from ncmi.data.augmentation import augment_colors, augment_images
from ncmi.data.load import load_dataset
from ncmi.data.standardize import Standardizer
from ncmi.networks import ResNet
from ncmi.objectives.options import SupConOptions
from ncmi.recipes import Augmentation, ImageData, Network
from ncmi.training.run import train
from ncmi.training.samples import ViewMaker, scaled_down, split_views

DIGITS, WINE = load_dataset("digits"), load_dataset("wine")
RGB = SimpleNamespace(
    inputs=torch.randint(256, (40, 3, 10, 12), generator=torch.Generator().manual_seed(9), dtype=torch.uint8),
    kind="image",
)
TURNED = replace(Augmentation.cifar(), rotation=15.0)


def only(**changes: Any) -> Augmentation:
    """Options that vary nothing but what is named."""
    return Augmentation(**({"shift": 0, "noise": 0.0, "mask": 0.0} | changes))


def views_of(
    data: Any, augmentation: Augmentation, views: int, own: slice, at: tuple[int, int, int], seed: int = 0
) -> Any:
    maker = ViewMaker(augmentation, data.kind, views, seed)
    standardize = Standardizer.fit(data.inputs, data.kind)
    return maker(data.inputs[:10], own, standardize, torch.float32, at)


@pytest.mark.parametrize(
    ("data", "enabled"),
    [
        (DIGITS, Augmentation(enabled=True)),
        (WINE, Augmentation(enabled=True)),
        (RGB, TURNED),
        (RGB, Augmentation.supcon()),
        (RGB, Augmentation(enabled=True, noise=0.0, gray=0.5)),
        (RGB, replace(Augmentation.cifar(), cutout=0.5)),
    ],
    ids=["digits", "wine", "rotation", "supcon", "gray", "cutout"],
)
@pytest.mark.parametrize("views", [1, 2])
def test_shares_are_parts_of_the_whole(data: Any, enabled: Augmentation, views: int) -> None:
    whole = views_of(data, enabled, views, slice(0, 10), (1, 2, 0)).unflatten(0, (views, 10))
    torch.rand(5)  # the state of torch's own generator does not matter
    for own in (slice(0, 4), slice(4, 10), slice(10, 10)):
        part = views_of(data, enabled, views, own, (1, 2, 0))
        assert torch.equal(part.unflatten(0, (views, -1)), whole[:, own])
        # the samples of other processes need not be there
        blank = data.inputs[:10].clone()
        blank[: own.start], blank[own.stop :] = 0, 0
        standardize = Standardizer.fit(data.inputs, data.kind)
        alone = ViewMaker(enabled, data.kind, views, 0)(blank, own, standardize, torch.float32, (1, 2, 0))
        assert torch.equal(alone, part)
    if views == 2:
        assert not torch.equal(whole[0], whole[1])
    for at, seed in (((0, 2, 0), 0), ((1, 3, 0), 0), ((1, 2, 1), 0), ((1, 2, 0), 1)):
        other = views_of(data, enabled, views, slice(0, 10), at, seed)
        assert not torch.equal(other, whole.flatten(0, 1))


@pytest.mark.parametrize("data", [DIGITS, WINE], ids=["digits", "wine"])
def test_unvaried_inputs_are_standardized(data: Any) -> None:
    x = data.inputs.double()
    over = (0, 2, 3) if data.kind == "image" else (0,)
    spread = x.std(over, correction=0, keepdim=True)
    expected = (x - x.mean(over, keepdim=True)) / torch.where(spread > 0, spread, 1.0)
    found = views_of(data, Augmentation(), 1, slice(2, 7), (0, 0, 0))
    torch.testing.assert_close(found, expected[2:7].float(), atol=1e-5, rtol=1e-5)


def test_options_reach_the_augmentation() -> None:
    still = views_of(WINE, Augmentation(), 1, slice(0, 10), (0, 0, 0))
    masked = views_of(WINE, Augmentation(enabled=True, noise=0.0, mask=0.5), 1, slice(0, 10), (0, 0, 0))
    assert bool(((masked == still) | (masked == 0)).all())
    assert 0.3 < float((masked == 0).double().mean()) < 0.7
    images = views_of(DIGITS, Augmentation(), 1, slice(0, 10), (0, 0, 0))
    # an eighth of a side of 8 pixels is one pixel
    moved = views_of(DIGITS, Augmentation(enabled=True, noise=0.0), 1, slice(0, 10), (0, 0, 0))
    for image, shifted in zip(images, moved, strict=True):
        padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
        windows = [padded[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
        assert any(torch.equal(shifted, window) for window in windows)
    flipped = views_of(DIGITS, Augmentation(enabled=True, shift=0, flip=True, noise=0.0), 1, slice(0, 10), (0, 0, 0))
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, images, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(flipped, images, strict=True)]
    assert all(a or b for a, b in zip(mirrored, kept, strict=True))
    assert any(mirrored)
    assert any(kept)


def step_generator(*at: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence(at).generate_state(1, np.uint64)[0] >> 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_colors_before_standardizing_and_geometry_after(dtype: torch.dtype) -> None:
    standardize = Standardizer.fit(RGB.inputs, "image")
    given = RGB.inputs.clone()
    found = ViewMaker(Augmentation.supcon(), "image", 2, 5)(RGB.inputs, slice(3, 7), standardize, dtype, (1, 2, 3))
    assert torch.equal(RGB.inputs, given)
    source, views = step_generator(5, 1, 2, 3), []
    for _ in range(2):
        jitter = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
        shown = augment_colors(RGB.inputs.float() / 255, source, only(**jitter, jitter_probability=0.8, gray=0.2))
        standard = (shown * 255 - standardize.mean) / standardize.scale
        views.append(augment_images(standard.to(dtype), source, only(flip=True, crop_scale=(0.2, 1.0)))[3:7])
    assert found.dtype == dtype
    torch.testing.assert_close(found, torch.cat(views))


def test_rotation_reaches_the_augmentation_and_the_border_is_the_mean() -> None:
    standardize = Standardizer.fit(RGB.inputs, "image")
    turned = replace(TURNED, rotation=180.0, shift=3, gray=1.0)
    found = ViewMaker(turned, "image", 1, 5)(RGB.inputs, slice(0, 40), standardize, torch.float32, (0, 0, 0))
    gray = augment_colors(RGB.inputs.float() / 255, source := step_generator(5, 0, 0, 0), only(gray=1.0))
    standard = standardize(gray * 255)
    torch.testing.assert_close(found, augment_images(standard, source, only(shift=3, flip=True, rotation=180.0)))
    assert float((found == 0).double().mean()) > 0.05
    # a resized crop has nothing to move in, unless a shift is asked for
    crops = ViewMaker(Augmentation(enabled=True, noise=0.0, crop_scale=(0.5, 0.9)), "image", 1, 5)
    assert bool((crops(RGB.inputs, slice(0, 40), standardize, torch.float32, (0, 0, 0)) != 0).all())


def test_colors_need_rgb() -> None:
    with pytest.raises(ValueError, match=r"colors vary in RGB images .* set brightness, contrast"):
        views_of(DIGITS, Augmentation(enabled=True, gray=0.2), 1, slice(0, 10), (0, 0, 0))


def test_split_views() -> None:
    features = torch.arange(12.0).reshape(6, 2)
    assert split_views(features, 1) is features
    two = split_views(features, 2)
    assert two.shape == (3, 2, 2)
    for sample in range(3):
        assert torch.equal(two[sample], torch.stack([features[sample], features[3 + sample]]))
    assert split_views(features[:0], 2).shape == (0, 2, 2)


@pytest.mark.parametrize("options", [None, SupConOptions(projection_dim=8)])
def test_augmentation_changes_training(options: Any, tmp_path: Path) -> None:
    losses = []
    for name, augmentation in (("plain", Augmentation(noise=0.0, mask=0.0)), ("varied", Augmentation(enabled=True))):
        train(make_recipe(options, epochs=1, augmentation=augmentation), tmp_path / name)
        losses.append(metrics(tmp_path / name)[0]["train_loss"])
    assert losses[0] != losses[1]


def test_scaled_down_weighs_all_that_a_pixel_covers() -> None:
    images = torch.randn(3, 2, 12, 18, dtype=torch.float64)
    # at half the size a triangle of weights 1, 3, 3, 1 in either direction; those of the border have fewer
    weights = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8
    kernel = weights.outer(weights)[None, None]
    inner = torch.nn.functional.conv2d(images[..., 1:, 1:].flatten(0, 1)[:, None], kernel, stride=2)
    smaller = scaled_down(images, 6)
    assert smaller.shape == (3, 2, 6, 9)
    torch.testing.assert_close(smaller[..., 1:-1, 1:-1].flatten(0, 1)[:, None], inner)
    assert scaled_down(images, 12) is images
    assert scaled_down(images, 50) is images


def test_images_grow_in_equal_parts_of_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sides: dict[bool, list[int]] = {True: [], False: []}
    forward = ResNet.forward

    def recorded(self: ResNet, images: torch.Tensor) -> torch.Tensor:
        sides[self.training].append(images.shape[-1])
        return forward(self, images)

    monkeypatch.setattr(ResNet, "forward", recorded)
    recipe = make_recipe(data="digits", network=Network("resnet_small", width=8), image_sizes=(4, 6), batch_size=1500)
    train(replace(recipe, data=ImageData("digits", train_per_class=5)), tmp_path / "run")
    assert sides[True] == [4, 4, 6]  # the second of three epochs begins in the first half
    assert set(sides[False]) == {8}
    small = Network("resnet9_early", width=4)
    for data, network in (("wine", Network("mlp")), ("digits", Network("mlp")), ("digits", small)):
        with pytest.raises(ValueError, match=r"--training\.image-sizes"):
            train(make_recipe(data=data, network=network, image_sizes=(4,)), tmp_path / data)
        assert not (tmp_path / data).exists()
