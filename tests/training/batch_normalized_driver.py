"""Recipes on tiny color images, and what ``process_driver.py`` does with them in each of two processes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ncmi.objectives.options import NCMIOptions
from ncmi.recipes import Augmentation, ImageData, Network, Recipe, Training


def write_images(path: Path) -> str:
    """72 images of 8×8 pixels in 4 classes, each a color and a slope in noise."""
    generator = np.random.default_rng(5)
    y = np.arange(72) % 4
    slope = np.linspace(-60, 60, 8)
    shape = np.where((y % 2 == 0)[:, None, None], slope[None, :, None], slope[None, None, :])
    color = np.array([[40, 0, -40], [-40, 0, 40]])[y // 2][:, :, None, None]
    x = 128 + shape[:, None] + color + generator.normal(0, 25, (72, 3, 8, 8))
    np.savez(path, images=x.clip(0, 255).round().astype("uint8"), labels=y)
    return str(path)


def image_recipe(images: str, *, start: str | None = None, **training: Any) -> Recipe:
    """Three epochs of three steps on a residual network of 16 features."""
    options = {"epochs": 3, "batch_size": 16, "accelerator": "cpu", "threads": 1, **training}
    return Recipe(
        ImageData(images, validation_fraction=0.2, test_fraction=0.2),
        Network("resnet_small", width=8, depth=1, feature_dim=32, weights=start),
        NCMIOptions(),
        Training(augmentation=Augmentation.cifar(), **options),
    )


FOLDER_CASES = {"folder-in-memory": 1.0, "folder-in-files": 0.0}
"""Gigabytes of a folder of images that are kept in memory."""


def write_image_folder(images: Path, root: Path) -> None:
    """The images of :func:`write_images` as one file each, in a folder for each class."""
    with np.load(images) as arrays:
        for index, (image, label) in enumerate(zip(arrays["images"], arrays["labels"], strict=True)):
            (root / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(root / str(label) / f"{index:02}.png")


def folder_recipe(root: Path, gigabytes: float, **training: Any) -> Recipe:
    """:func:`image_recipe` on the same images in a folder, with colors that vary too."""
    recipe = image_recipe(str(root), batch_size=13, accumulate=2, **training)
    augmentation = replace(Augmentation.cifar(), brightness=0.2, noise=0.1)
    return replace(
        recipe,
        data=replace(recipe.data, image_size=8, memory_gigabytes=gigabytes),
        training=replace(recipe.training, augmentation=augmentation),
    )


def digest(tensors: list[Tensor]) -> str:
    return hashlib.sha256(b"".join(tensor.detach().numpy().tobytes() for tensor in tensors)).hexdigest()


def train_and_write_down(images: str, root: Path) -> None:
    """Train, and write what this process did: a digest of buffers and weights that it judged by, files it wrote."""
    from ncmi.training import run
    from ncmi.training.run import train
    from ncmi.training.run_folder import RunFolder
    from ncmi.training.samples import SampleLoop
    from ncmi.training.schema import Results

    extract, write = SampleLoop.extract, RunFolder.write_results
    seen: dict[str, Any] = {}

    def watched(self: SampleLoop, *args: Any) -> Any:
        features = extract(self, *args)
        judged = self.evaluated
        seen["rank"] = self.fabric.global_rank
        tensors = [*judged.network.buffers(), *judged.network.parameters(), features.features]
        seen["extracted"].append(digest(tensors))
        seen["weights"] = digest(list(self.model.parameters()))
        return features

    def noted(self: RunFolder, results: Results) -> None:
        seen["written"].append("results.json")
        write(self, results)

    SampleLoop.extract, RunFolder.write_results = watched, noted  # type: ignore[method-assign]
    for case, decay in (("plain", None), ("average", 0.8)):
        seen.update(extracted=[], written=[])
        run.train(image_recipe(images, devices=2, epochs=2, ema_decay=decay), root / case)
        (root / f"{case}-{seen['rank']}.json").write_text(json.dumps(seen))
    assert train is run.train
    assert torch.distributed.get_world_size() == 2
