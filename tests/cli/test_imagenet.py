"""The recipes for ImageNet on a small folder of JPEGs, as a user runs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_helpers import ncmi, read
from PIL import Image

CLASSES = {"ash": (200, 60, 40), "birch": (50, 180, 60), "cedar": (40, 70, 210)}


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like ImageNet's: train and val, a folder a class, JPEGs of different sizes, a color a class in noise."""
    root = tmp_path_factory.mktemp("imagenet")
    random = np.random.default_rng(0)
    for part, count in (("train", 20), ("val", 8)):
        for name, color in CLASSES.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                height, width = random.integers(60, 120, 2)
                pixels = np.array(color) + random.normal(0, 40, (height, width, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)
    return root


def test_the_tiny_recipe(photographs: Path, tmp_path: Path) -> None:
    quick = ("--training.epochs", "2", "--training.batch-size", "8", "--training.accelerator", "cpu")
    out = ncmi("train", photographs, "--recipe", "imagenet.tiny", *quick, "--out", "run", cwd=tmp_path).stdout
    assert "ResNet-18" in out
    recipe, results = read(tmp_path / "run/recipe.json"), read(tmp_path / "run/results.json")
    network = recipe["network"]
    assert (network["stem"], network["width"], network["feature_dim"]) == ("large", 32, 256)
    assert (network["blurpool"], network["zero_init"], network["test_flip"]) == (True, True, True)
    assert recipe["training"]["image_sizes"] == [32, 32, 48, 64]
    assert recipe["data"]["image_size"] == 64
    # ImageNet's val is what is tested on; validation is drawn from train
    assert [results[f"num_{part}"] for part in ("train", "validation", "test")] == [54, 6, 24]
    assert results["readouts"]["cc"]["test"]["accuracy"]["value"] > 0.5  # a third is chance
    again = ncmi("evaluate", "run", cwd=tmp_path).stdout
    assert "ResNet-18" in again or "NCMI" in again
    ncmi("predict", "run", photographs / "val", "--out", "p.csv", cwd=tmp_path)
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert len(lines) == 1 + 24


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    for words, cure in (
        (("train", "--recipe", "imagenet.short"), "imagenet"),
        (("train", "digits", "--network.name", "timm:resnet18", "--network.width", "8"), "--network.width"),
        (("train", "digits", "--network.name", "convnet", "--network.blurpool"), "--network.blurpool"),
    ):
        assert cure in ncmi(*words, cwd=tmp_path, check=2).stderr
    assert not list(tmp_path.iterdir())
