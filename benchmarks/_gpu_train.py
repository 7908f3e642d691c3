"""``gpu.py train``: all of CIFAR-100 by the recipe cifar100.fast, loss by loss, then ResNet-18 in pairs."""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from _timing import machine, machine_text
from ncmi.data.dataset import Dataset
from ncmi.data.load import load_dataset
from ncmi.errors import Interrupted
from ncmi.files import write_text
from ncmi.objectives.options import CrossEntropyOptions, LabelSmoothingOptions, NCMIOptions, ObjectiveOptions
from ncmi.recipes import ImageData, Network, Recipe, cifar100
from ncmi.recipes.names import READOUTS
from ncmi.report import to_markdown
from ncmi.report.records import read_comparison
from ncmi.report.text import duration
from ncmi.training.comparison import RECORD, Entry, Plan, record_of
from ncmi.training.run import train
from ncmi.training.run_folder import RunFolder
from ncmi.training.schema import write_record

if TYPE_CHECKING:
    from gpu import Session

SEEDS = (0, 1, 2)
BASELINE = "cross-entropy"


def resnet18(objective: ObjectiveOptions) -> Recipe:
    """30 epochs of ResNet-18 in one cycle; learning rates a sample as in cifar100.fast."""
    recipe = cifar100.fast(objective)
    training = replace(recipe.training, epochs=30, batch_size=256, learning_rate=0.2, centroid_learning_rate=0.2)
    return replace(recipe, network=Network("resnet18"), training=training)


# name of run folders, label, recipe
METHODS: dict[str, tuple[str, Recipe]] = {
    BASELINE: ("Cross-entropy", cifar100.fast(CrossEntropyOptions())),
    "ncmi": ("NCMI", cifar100.fast(NCMIOptions())),
    "label-smoothing": ("Label smoothing", cifar100.fast(LabelSmoothingOptions())),
    "ncmi-released": ("NCMI (released)", cifar100.fast(cifar100.RELEASED_NCMI)),
    "resnet18-cross-entropy": ("ResNet-18, cross-entropy", resnet18(CrossEntropyOptions())),
    "resnet18-ncmi": ("ResNet-18, NCMI", resnet18(NCMIOptions())),
    "resnet18-ncmi-released": ("ResNet-18, NCMI (released)", resnet18(cifar100.RELEASED_NCMI)),
}


def runs_in_order(seeds: tuple[int, ...]) -> list[tuple[str, int]]:
    """All runs, name and seed, in order of worth."""
    rivals = [(name, seed) for seed in seeds for name in (BASELINE, "ncmi", "label-smoothing")]
    larger = [(name, seed) for seed in seeds for name in ("resnet18-cross-entropy", "resnet18-ncmi")]
    return [*rivals, ("ncmi-released", seeds[0]), *larger, ("resnet18-ncmi-released", seeds[0])]


def rehearsal_images(folder: Path) -> ImageData:
    """300 images of 12×12 pixels that can be learned, the brighter the higher the class, kept in the folder."""
    path = folder.resolve() / "rehearsal.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        labels = np.arange(300) % 10
        images = np.random.default_rng(0).integers(100, size=(300, 3, 12, 12), dtype=np.uint8)
        np.savez(path, x=images + (15 * labels).astype(np.uint8)[:, None, None, None], y=labels)
    return ImageData(str(path), validation_fraction=0.1, train_on_all=True)


def recipe_of(name: str, seed: int, session: Session) -> Recipe:
    """A run's recipe on this session's device and data; a rehearsal's on a few small images, for two short epochs."""
    recipe = METHODS[name][1]
    training = replace(recipe.training, seed=seed, accelerator=session.device.type)
    if not session.quick:
        return replace(recipe, data=replace(recipe.data, data_dir=session.data_dir), training=training)
    training = replace(training, epochs=2, batch_size=64, compile=False, precision="32-true", threads=1)
    data = rehearsal_images(session.out)
    return replace(recipe, data=data, network=replace(recipe.network, width=8), training=training)


@cache
def _images(data: ImageData) -> Dataset:
    return load_dataset(data.name, data_dir=data.data_dir)


def run_one(recipe: Recipe, folder: Path, seconds: float) -> None:
    """Train, or go on; where time runs out the run stops after a step, with a checkpoint.

    Raises:
        Interrupted: where it was stopped.
    """
    timer = threading.Timer(max(0.1, seconds), lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.daemon = True
    before = signal.signal(signal.SIGTERM, _interrupt)  # where no step is being made, as when it is judged
    timer.start()
    try:
        train(recipe, folder, resume=(folder / "recipe.json").exists(), data=_images(recipe.data))
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted("stopped between two steps")


def train_all(session: Session) -> bool:
    """Runs in order until the time is up, into a comparison that earlier calls may have begun; whether all are made."""
    seeds = SEEDS[:1] if session.quick else SEEDS
    margin, reserve = (1, 2) if session.quick else (20, 60)
    entries = tuple(Entry(name, label, recipe_of(name, 0, session)) for name, (label, _) in METHODS.items())
    plan, finished = Plan(entries, seeds, title="CIFAR-100 on a GPU"), 0
    folder = session.out / "train"
    record = record_of(folder, plan.describe(" ".join(sys.argv)), resume=None)
    folder.mkdir(parents=True, exist_ok=True)
    write_record(folder / RECORD, record)
    for name, seed in runs_in_order(seeds):
        run = RunFolder(folder / "runs" / f"{name}-seed{seed}")
        if not run.finished and session.left < reserve:
            continue
        try:
            if not run.finished:
                run_one(recipe_of(name, seed, session), run.path, session.left - margin)
        except (Interrupted, FloatingPointError) as stopped:
            print(f"{name}, seed {seed}: {stopped}", flush=True)
            continue
        except FileNotFoundError as error:
            print(f"train is left out: {error}: give the folder with CIFAR-100 by --data-dir or NCMI_DATA")
            return True
        finished += 1
        results = run.results()
        scores = ", ".join(
            f"{READOUTS[readout]} {100 * judged.test.accuracy.value:.2f} %"
            for readout, judged in results.readouts.items()
        )
        print(f"{name}, seed {seed}: {scores}; {duration(results.total_seconds)}", flush=True)
    comparison = read_comparison(folder, may_be_unfinished=True)
    text = f"{machine_text(machine(session.device))}\n\n{to_markdown(comparison, readouts=tuple(READOUTS))}\n"
    write_text(session.out / "train.md", text)
    print(f"\n{text}")
    return finished == len(runs_in_order(seeds))
