"""Augmentation: each sample by itself, against a loop over samples, from the generator alone."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ncmi.data.augmentation import augment_images, augment_table
from ncmi.recipes import Augmentation


def only(**changes: Any) -> Augmentation:
    """Options that vary nothing but what is named."""
    return Augmentation(**({"shift": 0, "noise": 0.0, "mask": 0.0} | changes))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 64, channels: int = 3, height: int = 7, width: int = 9) -> Tensor:
    return torch.randn(batch, channels, height, width, generator=generator(99))


def candidates(image: Tensor, shift: int, flip: bool, fill: float) -> dict[tuple[int, int, bool], Tensor]:
    """Every way in which one image can be moved, made by padding and cropping."""
    height, width = image.shape[1:]
    found = {}
    steps = range(-shift, shift + 1)
    for down, right, mirrored in product(steps, steps, (False, True) if flip else (False,)):
        source = image.flip(2) if mirrored else image
        padded = F.pad(source, (shift,) * 4, value=fill)
        found[down, right, mirrored] = padded[:, shift - down :, shift - right :][:, :height, :width]
    return found


def moves(original: Tensor, moved: Tensor, shift: int, flip: bool, fill: float = 0.0) -> list[tuple[int, int, bool]]:
    """How each image has been moved; fails where no way of moving it gives what came out."""
    ways = []
    for before, after in zip(original, moved, strict=True):
        matching = [way for way, image in candidates(before, shift, flip, fill).items() if torch.equal(image, after)]
        assert len(matching) == 1
        ways += matching
    return ways


@pytest.mark.parametrize(("shift", "flip"), [(0, True), (1, False), (2, True), (6, False)])
@pytest.mark.parametrize("fill", [0.0, -1.5])
def test_images_move_like_padding_and_cropping(shift: int, flip: bool, fill: float) -> None:
    original = images(16 if shift == 6 else 64)
    moved = augment_images(original, generator(), only(shift=shift, flip=flip), fill=fill)
    moves(original, moved, shift, flip, fill)


def test_all_moves_occur_independently() -> None:
    original = images(600, 1, 5, 5)
    ways = moves(original, augment_images(original, generator(), only(shift=1, flip=True)), 1, True)
    counts = torch.tensor([ways.count(way) for way in product((-1, 0, 1), (-1, 0, 1), (False, True))])
    # 18 equally likely ways, 33 expected of each, sd 5.6
    assert counts.min() > 12
    assert counts.max() < 60


def test_fill_for_each_channel() -> None:
    fill = torch.tensor([1.0, 2.0, 3.0])
    moved = augment_images(torch.zeros(50, 3, 4, 4), generator(), only(shift=3), fill=fill)
    for channel in range(3):
        assert set(moved[:, channel].unique().tolist()) == {0.0, float(fill[channel])}


def cuts(original: Tensor, cut: Tensor, side: int, fill: Tensor) -> list[tuple[int, int]]:
    """About which pixel each image has been cut; fails where no square of this side gives what came out."""
    height, width = original.shape[2:]
    centers = []
    for before, after in zip(original, cut, strict=True):
        matching = []
        for row, column in product(range(height), range(width)):
            expected = before.clone()
            top, left = row - side // 2, column - side // 2
            expected[:, max(top, 0) : top + side, max(left, 0) : left + side] = fill.reshape(-1, 1, 1)
            if torch.equal(expected, after):
                matching.append((row, column))
        assert len(matching) == 1
        centers += matching
    return centers


@pytest.mark.parametrize(("part", "side"), [(0.01, 1), (0.25, 2), (0.4, 3), (1.0, 7)])
@pytest.mark.parametrize("fill", [0.0, torch.tensor([1.0, 2.0, 3.0])])
def test_squares_are_cut_out_about_any_pixel(part: float, side: int, fill: float | Tensor) -> None:
    original = images(200)
    found = augment_images(original, generator(), only(cutout=part), fill=fill)
    centers = cuts(original, found, side, torch.as_tensor(fill))
    for axis, length in enumerate(original.shape[2:]):
        counts = torch.bincount(torch.tensor([center[axis] for center in centers]), minlength=length)
        assert len(counts) == length
        # 22 to 29 expected, sd 4.4 to 5
        assert counts.min() > 5
        assert counts.max() < 55


def test_what_is_cut_out_has_no_noise_and_leaves_the_rest_as_it_was() -> None:
    original, options = images(), {"shift": 2, "flip": True, "noise": 0.3}
    plain = augment_images(original, generator(), only(**options))
    cut = augment_images(original, generator(), only(**options, cutout=0.5))
    cuts(plain, cut, 4, torch.zeros(1))


def test_noise_is_gaussian_and_independent() -> None:
    original = images(100, 3, 16, 16)
    noise = augment_images(original, generator(), only(noise=0.3)) - original
    assert abs(float(noise.std()) - 0.3) < 0.01
    assert abs(float(noise.mean())) < 0.01
    flat = noise.flatten(1)
    off_diagonal = torch.corrcoef(flat) - torch.eye(100)
    assert off_diagonal.abs().max() < 0.25


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_zero_settings_are_the_identity(dtype: torch.dtype) -> None:
    original, rows = images().to(dtype), torch.randn(5, 4).to(dtype)
    for before, after in (
        (original, augment_images(original, generator(), only())),
        (rows, augment_table(rows, generator(), only())),
    ):
        assert torch.equal(before, after)
        assert before.dtype == after.dtype
        assert before.data_ptr() != after.data_ptr()
    strong = augment_images(original, generator(), only(shift=2, flip=True, noise=0.1))
    assert strong.dtype == dtype


def test_inputs_are_not_changed() -> None:
    original, rows = images(), torch.randn(5, 4)
    copies = original.clone(), rows.clone()
    augment_images(original, generator(), only(shift=2, flip=True, noise=1.0))
    augment_images(original, generator(), only(cutout=0.5))
    augment_table(rows, generator(), only(noise=1.0, mask=0.5))
    assert torch.equal(original, copies[0])
    assert torch.equal(rows, copies[1])


def test_generator_decides_everything() -> None:
    original, rows = images(), torch.randn(50, 4)

    def views(source: torch.Generator) -> tuple[Tensor, Tensor]:
        return (
            augment_images(original, source, only(shift=2, flip=True, noise=0.1)),
            augment_table(rows, source, only(noise=0.1, mask=0.2)),
        )

    first = views(generator(3))
    torch.rand(7)
    assert all(torch.equal(a, b) for a, b in zip(first, views(generator(3)), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, views(generator(4)), strict=True))
    source = generator(3)
    views(source)
    assert not any(torch.equal(a, b) for a, b in zip(first, views(source), strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {"shift": 2, "flip": True},
        {"rotation": 15.0, "shift": 1},
        {"crop_scale": (0.2, 1.0), "flip": True, "noise": 0.1},
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_each_sample_by_itself(options: dict[str, Any], channels: int) -> None:
    original = images(8, channels)
    kept = original.clone()
    whole = augment_images(original, generator(), only(**options))
    assert (whole.shape, whole.dtype) == (original.shape, original.dtype)
    assert torch.equal(original, kept)
    others = original.clone()
    others[:3] = 7.0
    assert torch.equal(augment_images(others, generator(), only(**options))[3:], whole[3:])
    assert torch.equal(augment_images(original, generator(), only(**options)), whole)
    assert not torch.equal(augment_images(original, generator(1), only(**options)), whole)
    # one image many times: the parameters are each sample's own
    same = augment_images(original[:1].expand(8, -1, -1, -1), generator(), only(**options))
    assert len(torch.unique(same, dim=0)) > 3


def test_flips_are_even_and_undo_themselves() -> None:
    original = images(2000, 1, 3, 4)
    once = augment_images(original, generator(), only(flip=True))
    changed = (once != original).flatten(1).any(1)
    assert 0.45 < float(changed.double().mean()) < 0.55
    assert torch.equal(augment_images(once, generator(), only(flip=True)), original)


def test_table_noise_then_mask() -> None:
    rows = torch.randn(2000, 10, generator=generator(99)) + 5
    view = augment_table(rows, generator(), only(noise=0.2, mask=0.3))
    masked = view == 0
    assert abs(float(masked.double().mean()) - 0.3) < 0.02
    assert (masked.double().mean(0) - 0.3).abs().max() < 0.06
    assert torch.corrcoef(masked.T.float()).fill_diagonal_(0).abs().max() < 0.12
    assert abs(float((view - rows)[~masked].std()) - 0.2) < 0.01


def test_empty_batches() -> None:
    assert augment_images(torch.zeros(0, 1, 4, 4), generator(), only(shift=1, flip=True, noise=1.0)).shape == (
        0,
        1,
        4,
        4,
    )
    assert augment_table(torch.zeros(0, 4), generator(), only(noise=1.0, mask=0.5)).shape == (0, 4)


def test_rejects() -> None:
    with pytest.raises(ValueError, match=re.escape("torch.uint8 and shape [2, 1, 4, 4]: give floating point")):
        augment_images(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), generator(), only())
    with pytest.raises(ValueError, match=re.escape("shape [1, 4, 4]: give floating point [B, C, H, W]")):
        augment_images(torch.zeros(1, 4, 4), generator(), only())
    for shift in (-1, 4):
        with pytest.raises(ValueError, match=r"shift=4 for images of 4×8: choose 0…3|shift=-1: must be at least 0"):
            augment_images(torch.zeros(2, 1, 4, 8), generator(), only(shift=shift))
    for noise in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"noise=.*: must be at least 0"):
            augment_images(images(), generator(), only(noise=noise))
        with pytest.raises(ValueError, match=r"noise=.*: must be at least 0"):
            augment_table(torch.zeros(2, 2), generator(), only(noise=noise))
    for mask in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"mask={mask}: must be at least 0 and below 1"):
            augment_table(torch.zeros(2, 2), generator(), only(mask=mask))
    with pytest.raises(ValueError, match=re.escape("shape [4]: give floating point [B, F]")):
        augment_table(torch.zeros(4), generator(), only())
