"""Step ``fast``: the recipe cifar100.fast with five seeds, time and test accuracy."""

from __future__ import annotations

import json
import os
import signal
import statistics
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import _gpu_settings  # noqa: F401
from _bench import Row
from _gpu_state import Session
from ncmi.data import load_dataset
from ncmi.errors import Interrupted
from ncmi.recipes import Data, Recipe, cifar100
from ncmi.training import RunFolder, train

BAR = 60.0  # seconds


def rehearsed(recipe: Recipe, session: Session) -> Recipe:
    """The recipe on a few small images that nothing can be learned from, for two short epochs."""
    path = session.state / "data" / "rehearsal.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(0)
        np.savez(
            path,
            x=random.integers(256, size=(600, 3, 8, 8), dtype=np.uint8),
            y=np.arange(600) % 10,
        )
    training = replace(
        recipe.training,
        epochs=2,
        milestones=(1.0,) if recipe.training.milestones else (),
        augmentation=replace(recipe.training.augmentation, shift=1),
        compile=False,
        accelerator="cpu",
        precision="32-true",
    )
    data = Data(str(path), validation_fraction=0.1, train_on_all=True)
    return replace(recipe, data=data, backbone=replace(recipe.backbone, width=4), training=training)


def on_device(recipe: Recipe, session: Session, compiled: bool) -> Recipe:
    """The recipe with this session's data and device."""
    if session.rehearse:
        return rehearsed(recipe, session)
    training = replace(recipe.training, accelerator=session.device.type, compile=compiled)
    return replace(recipe, data=replace(recipe.data, data_dir=str(session.data_dir)), training=training)


def fast_items(session: Session) -> list[tuple[str, Callable[[], Sequence[Row]]]]:
    seeds = range(2 if session.rehearse else 5)
    return [(f"seed {seed}", lambda s=seed: _run(session, s)) for seed in seeds]


def _run(session: Session, seed: int) -> list[Row]:
    """Train with one seed, or go on; test accuracy of each read-out."""
    recipe = on_device(cifar100.fast(), session, compiled=True)
    recipe = replace(recipe, training=replace(recipe.training, seed=seed))
    folder = session.state / "fast" / f"seed{seed}"
    dataset = load_dataset(recipe.data.name, data_dir=recipe.data.data_dir)
    # a call that runs out of time stops after a step, with a checkpoint
    timer = threading.Timer(max(0.1, session.left - 20), lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()
    try:
        begun = (folder / "recipe.json").exists()
        results = train(recipe, folder, resume=begun, dataset=dataset)
    finally:
        timer.cancel()
    seconds = [row["seconds"] for row in _metrics(folder)]
    steady = statistics.median(seconds[1:] or seconds)
    times = {
        "with_compilation": sum(seconds),
        "without_compilation": sum(seconds) - seconds[0] + steady,
        "all_with_evaluation": results["total_seconds"],
    }
    RunFolder(folder).write("times.json", times)
    note = ", ".join(f"{name.replace('_', ' ')} {value:.1f} s" for name, value in times.items())
    rows = []
    for name in dict.fromkeys((*results["primary_readouts"], "head")):
        reached = 100 * results["readouts"][name]["test_accuracy"]
        what = f"cifar100.fast, seed {seed}: test accuracy, {name}"
        bar = None if session.rehearse else 75.0
        rows.append(Row(what, reached, reached, reached, unit="%", bar=bar, at_least=True, note=note))
    return rows


def fast(session: Session) -> bool:
    """All seeds that are not done; whether all are."""
    try:
        done = session.measure("fast", fast_items(session), reserve=5 if session.rehearse else 90)
    except Interrupted as stopped:
        print(f"fast: {stopped}")
        return False
    finally:
        if session.device.type == "cuda":
            torch.cuda.empty_cache()
    times = [json.loads(path.read_text()) for path in sorted(session.state.glob("fast/seed*/times.json"))]
    for name in times[0] if times else ():
        values = [one[name] for one in times]
        told = f"cifar100.fast, seconds {name.replace('_', ' ')}, {len(values)} seeds"
        print(Row(told, statistics.median(values), min(values), max(values), "s", BAR, repeats=len(values)).line())
    return done


def _metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
