"""How every kind of run begins: the devices and processes it trains on, and its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from ncmi.files import write_atomically
from ncmi.recipes import Recipe, SlideRecipe, Training
from ncmi.training.precision import precision_options
from ncmi.training.run_folder import RunFolder, RunFolderError


def launch(training: Training) -> Fabric:
    """Set threads, and start the processes that train together."""
    if training.threads is not None:
        torch.set_num_threads(training.threads)
    fabric = Fabric(
        accelerator=training.accelerator,
        devices=training.devices,
        strategy="ddp" if training.devices > 1 else "auto",
        **precision_options(training.precision),
    )
    fabric.launch()
    return fabric


def open_folder(recipe: Recipe | SlideRecipe, path: str | Path, resume: bool, fabric: Fabric) -> RunFolder:
    """The folder of a new run, or with ``resume`` that of an earlier run by the same recipe.

    Raises:
        RunFolderError: if the folder exists (without ``resume``), or holds another recipe (with it).
    """
    if resume:
        folder = RunFolder.open(path)
        earlier = folder.slide_recipe() if isinstance(recipe, SlideRecipe) else folder.recipe()
        if earlier != recipe:
            raise RunFolderError(f"{folder.path} holds another recipe: resume it with its own, or choose another --out")
        return folder
    if fabric.is_global_zero:
        RunFolder.create(path, recipe)
    fabric.barrier()
    return RunFolder(path)


def write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write NumPy arrays into one compressed file, whole or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    write_atomically(path, write)
