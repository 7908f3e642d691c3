"""The image benchmarks run, with tiny settings, and what they take for a measurement is one."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ncmi.data.dataset import Dataset
from ncmi.data.load import load_samples
from ncmi.objectives.options import CrossEntropyOptions
from ncmi.recipes import Recipe, cifar100
from ncmi.training.optimizers import make_optimizers
from ncmi.training.timing import in_turns


def tiny(precision: str = "32-true", augmented: bool = False) -> Recipe:
    recipe = cifar100.small(CrossEntropyOptions())
    augmentation = replace(recipe.training.augmentation, enabled=augmented)
    training = replace(recipe.training, batch_size=8, precision=precision, augmentation=augmentation)
    return replace(recipe, network=replace(recipe.network, width=8), training=training)


def test_our_loop_and_the_bare_step_do_the_same_arithmetic(bench: Any) -> None:
    steps = bench("_image_steps")
    dataset, source = steps.some_images(24, 16, None)
    assert source == "random images, 16×16"
    ours, bare = steps.Ours(tiny(), dataset, torch.device("cpu")), steps.Bare(tiny(), dataset, torch.device("cpu"))
    try:
        for mine, other in zip(ours.model.parameters(), bare.model.parameters(), strict=True):
            assert torch.equal(mine, other)
        # the loop draws an order, standardizes and schedules; given the same batch and rate, the same step
        (images, labels) = bare.batches[1]
        bare.optimizers[0].param_groups[0]["lr"] = ours.loop.raw_optimizers[0].param_groups[0]["lr"]
        bare.optimizers[0].param_groups[1]["lr"] = ours.loop.raw_optimizers[0].param_groups[1]["lr"]
        with ours.loop.reading([torch.arange(8, 16)]):
            ours.loop._step(torch.arange(8, 16))
        bare.step(images, labels)
        for (name, mine), other in zip(ours.model.named_parameters(), bare.model.parameters(), strict=True):
            assert torch.equal(mine, other), name
        ours.epoch()
        assert len(ours.steps_seconds) == 1
    finally:
        ours.close()


def test_contiguous_is_the_same_network_in_another_layout(bench: Any) -> None:
    steps = bench("_image_steps")
    dataset, _ = steps.some_images(8, 16, None)
    _, model = steps.make_model(tiny(), dataset, torch.device("cpu"))
    images = model.standardize(dataset.inputs)
    expected = model.network.eval()(images)
    plain = steps.Contiguous(model.network).eval()
    assert plain.parts[0].weight.is_contiguous()
    torch.testing.assert_close(plain(images), expected, rtol=1e-4, atol=1e-5)


def test_plain_images_are_crops_of_the_padded_image_or_its_mirror(bench: Any) -> None:
    steps = bench("_image_steps")
    dataset, _ = steps.some_images(3, 8, None)
    images = steps.PilImages(dataset, 1)
    padded = torch.nn.functional.pad(dataset.inputs.float(), (1, 1, 1, 1))
    seen = set()
    for _ in range(60):
        pixels, label = images[2]
        assert label == int(dataset.labels[2])
        raw = (pixels * images.scale + images.mean) * 255
        crops = {
            (top, left, mirrored): padded[2][:, top : top + 8, left : left + 8]
            for top in range(3)
            for left in range(3)
            for mirrored in (False, True)
        }
        found = [
            key for key, crop in crops.items() if torch.allclose(raw, crop.flip(-1) if key[2] else crop, atol=1e-2)
        ]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) > 9
    assert {key[2] for key in seen} == {False, True}


def test_peak_memory_counts_every_byte_of_a_larger_model(bench: Any) -> None:
    """Peak grows by what weights, momentum, gradients and activations grow by; and does not depend on chance."""
    memory = steps = bench("_image_steps")
    dataset, _ = steps.some_images(24, 16, None)
    cpu = torch.device("cpu")
    peak = memory.peak_of_step(tiny(), dataset, cpu)
    assert peak == memory.peak_of_step(tiny(), dataset, cpu)
    _, model = steps.make_model(tiny(), dataset, cpu)
    optimizers = make_optimizers(model, tiny().training)
    held = sum(parameter.numel() for group in optimizers[0].param_groups for parameter in group["params"])
    # weights, momentum and gradients, and the three standardized batches
    least = 4 * (3 * held + dataset.inputs.numel())
    assert least < peak < 20 * least
    wider = replace(tiny(), network=replace(tiny().network, width=16))
    assert memory.peak_of_step(wider, dataset, cpu) > 1.5 * peak


def test_paired_steps_find_a_slow_loop(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = paired = bench("_image_steps")
    dataset, _ = steps.some_images(24, 16, None)
    ours, bare = steps.Ours(tiny(), dataset, torch.device("cpu")), steps.Bare(tiny(), dataset, torch.device("cpu"))
    inner = ours.loop._step

    def slow(batch: torch.Tensor) -> None:
        inner(batch)
        ahead = ours.loop._shares
        for _ in range(3):
            with ours.loop.reading([batch]):
                inner(batch)
        ours.loop._shares = ahead

    monkeypatch.setattr(ours.loop, "_step", slow)
    try:
        row = paired.paired_steps("slow", ours, bare, 2, bar=1.03)
    finally:
        ours.close()
    assert row.repeats == 4  # two epochs of three steps, whose last has no end of its own
    assert row.value > 1.5
    assert row.passed is False


def test_rows(bench: Any) -> None:
    module = bench("_timing")
    row = module.of_values("a", [1.0, 3.0, 2.0], bar=2.0)
    assert (row.value, row.low, row.high, row.repeats, row.passed) == (2.0, 1.0, 3.0, 3, True)
    assert row.line() == "| a | ≤ 2 × | 2.00 × (1.00–3.00) | ✓ |  |"
    assert module.of_values("b", [9.0], bar=10.0, at_least=True).passed is False
    assert module.of_values("c", [9.0]).passed is None
    times = in_turns({"x": lambda: None, "y": lambda: None}, 3, torch.device("cpu"))
    assert [len(found) for found in times.values()] == [3, 3]


def test_images_script(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = bench("images")
    small = {"cross-entropy": images.OBJECTIVES["cross-entropy"], "NCMI p = −4, fixed": images.POWER}
    monkeypatch.setattr(images, "OBJECTIVES", small)
    monkeypatch.setattr(images, "PRECISIONS", {"float32": "32-true"})
    monkeypatch.setattr(
        sys, "argv", ["images.py", "--parts", "memory", "--quick", "--out", str(tmp_path / "out" / "rows.json")]
    )
    images.main()
    table = capsys.readouterr().out.splitlines()
    content = json.loads((tmp_path / "out" / "rows.json").read_text(encoding="utf-8"))
    assert len(content["rows"]) == len(table) - 2 == 1
    assert content["machine"]["torch"] == torch.__version__
    assert {"date", "commit", "python", "cpu", "cpu_capability"} <= set(content["machine"])
    assert all(row["passed"] for row in content["rows"])
    assert all(line in (tmp_path / "out" / "rows.md").read_text(encoding="utf-8") for line in table)


def test_dataset_of_random_images_is_usable(bench: Any) -> None:
    dataset, _ = bench("_image_steps").some_images(5, 16, None)
    assert isinstance(dataset, Dataset)
    assert dataset.sample_shape == (3, 16, 16)


def test_images_of_a_folder_differ_in_size_and_content(bench: Any, tmp_path: Path) -> None:
    module = bench("image_folders")
    for label in range(module.CLASSES):
        (tmp_path / f"class_{label}").mkdir()
    for number in range(12):
        module.write_image(tmp_path, number)
    files = sorted(tmp_path.rglob("*.jpg"))
    assert (len(files), len({file.read_bytes() for file in files})) == (12, 12)
    before = [file.stat().st_mtime_ns for file in files]
    module.write_folder(tmp_path, 12)  # what is there stays
    assert [file.stat().st_mtime_ns for file in files] == before
    recipe = module.recipe_of(tmp_path, 224, "mlp", 1, 0.5)
    dataset = load_samples(recipe.data)
    assert dataset.inputs.shape == (12, 3, 224, 224)
    measured = {"images": 12, "decoded_bytes": 3 * 2**30, "in_memory": False, "peak_bytes": 3 * 2**30, "seconds": 1.0}
    measured |= {"check_peak_bytes": 1.0, "check_seconds": 1.0, "epoch_seconds": 1.0, "in_epoch": 10}
    assert [row.passed for row in module.rows_of(measured, 224)] == [False, None, None, None, None, None]
