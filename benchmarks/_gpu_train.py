"""``gpu.py train``: ResNet-18 on all of CIFAR-100, in pairs of cross-entropy and NCMI, the most telling runs first."""

from __future__ import annotations

import json
import os
import signal
import threading
from dataclasses import replace
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pandas as pd

from _timing import machine, of_value
from ncmi.data.dataset import Dataset
from ncmi.data.load import load_dataset
from ncmi.errors import Interrupted
from ncmi.files import write_json
from ncmi.objectives.options import CrossEntropyOptions, LabelSmoothingOptions, NCMIOptions, ObjectiveOptions
from ncmi.recipes import ImageData, Network, Recipe, cifar100
from ncmi.recipes.names import READOUTS
from ncmi.report.text import PERCENT
from ncmi.training.run import train
from ncmi.training.run_folder import RunFolder
from ncmi.training.schema import Results

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
    BASELINE: ("Cross-entropy", resnet18(CrossEntropyOptions())),
    "ncmi": ("NCMI", resnet18(NCMIOptions())),
    "label-smoothing": ("Label smoothing", resnet18(LabelSmoothingOptions())),
    "ncmi-released": ("NCMI (released)", resnet18(cifar100.RELEASED_NCMI)),
    "fast": ("NCMI, recipe cifar100.fast", cifar100.fast()),
}


def runs_in_order(seeds: tuple[int, ...]) -> list[tuple[str, int]]:
    """All runs, name and seed, in order of worth."""
    pairs = [(name, seed) for seed in seeds for name in (BASELINE, "ncmi")]
    rivals = [(name, seed) for seed in seeds for name in ("label-smoothing", "ncmi-released")]
    return [*pairs, *rivals, ("fast", seeds[0])]


def recipe_of(name: str, seed: int, session: Session) -> Recipe:
    """A run's recipe on this session's device and data; a rehearsal's on a few small images, for two short epochs."""
    recipe = METHODS[name][1]
    training = replace(recipe.training, seed=seed, accelerator=session.device.type)
    if not session.quick:
        return replace(recipe, data=replace(recipe.data, data_dir=session.data_dir), training=training)
    path = session.out / "rehearsal.npz"
    if not path.exists():
        random = np.random.default_rng(0)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, x=random.integers(256, size=(300, 3, 8, 8), dtype=np.uint8), y=np.arange(300) % 10)
    training = replace(training, epochs=2, batch_size=64, compile=False, precision="32-true", threads=1)
    data = ImageData(str(path), validation_fraction=0.1, train_on_all=True)
    return replace(recipe, data=data, network=replace(recipe.network, width=8), training=training)


@cache
def _images(data: ImageData) -> Dataset:
    return load_dataset(data.name, data_dir=data.data_dir)


def run_one(name: str, seed: int, session: Session, margin: float) -> Results:
    """Train, or go on; where time runs out the run stops after a step, with a checkpoint.

    Raises:
        Interrupted: where it was stopped.
    """
    recipe = recipe_of(name, seed, session)
    folder = session.out / "runs" / f"{name}-seed{seed}"
    timer = threading.Timer(max(0.1, session.left - margin), lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.daemon = True
    before = signal.signal(signal.SIGTERM, _interrupt)  # where no step is being made, as when it is judged
    timer.start()
    try:
        return train(recipe, folder, resume=(folder / "recipe.json").exists(), data=_images(recipe.data))
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted("stopped between two steps")


def train_all(session: Session) -> bool:
    """Runs in order until the time is up; whether all are made."""
    seeds = SEEDS[:1] if session.quick else SEEDS
    margin, reserve = (1, 2) if session.quick else (20, 60)
    finished: dict[tuple[str, int], Results] = {}
    for name, seed in runs_in_order(seeds):
        run = RunFolder(session.out / "runs" / f"{name}-seed{seed}")
        if not run.finished and session.left < reserve:
            continue
        try:
            finished[name, seed] = run.results() if run.finished else run_one(name, seed, session, margin)
        except (Interrupted, FloatingPointError) as stopped:
            print(f"{name}, seed {seed}: {stopped}", flush=True)
            continue
        except FileNotFoundError as error:
            print(f"train is left out: {error}: give the folder with CIFAR-100 by --data-dir or NCMI_DATA")
            return True
        write_results(session, finished)
        rows = json.loads((session.out / "train.json").read_text(encoding="utf-8"))["items"][f"{name}, seed {seed}"]
        print(*(f"| {row['what']} | | {row['value']:.2f} % | | {row['note']} |" for row in rows["rows"]), sep="\n")
    print("\n".join(summary(finished)))
    return len(finished) == len(runs_in_order(seeds))


def write_results(session: Session, finished: dict[tuple[str, int], Results]) -> None:
    """train.json with every finished run by each read-out, and the table of means in results.md."""
    items = {}
    for (name, seed), results in finished.items():
        note = f"{results.total_seconds:.0f} s with compiling and judging, {results.epoch_seconds:.1f} s an epoch"
        rows = [
            of_value(f"{METHODS[name][0]}, seed {seed}: {READOUTS[readout]}", 100 * judged.test.accuracy.value,
                     unit="%", note=note)
            for readout, judged in results.readouts.items()
        ]  # fmt: skip
        items[f"{name}, seed {seed}"] = {"rows": [row.plain for row in rows]}
    content = {"items": items, "machine": machine(session.device), "summary": summary(finished)}
    write_json(session.out / "train.json", content)
    session.summarize()


def summary(finished: dict[tuple[str, int], Results]) -> list[str]:
    """Mean ± sd of the test accuracy by each read-out, and differences from cross-entropy's same one, seed by seed."""
    columns = " | ".join(f"{label} | − cross-entropy's" for label in READOUTS.values())
    lines = ["", f"| test accuracy, % | seeds | {columns} |", "|---|---:|" + "---:|" * 2 * len(READOUTS)]
    if not finished:
        return lines
    scores = {
        (name, readout, seed): judged.test.accuracy.value
        for (name, seed), results in finished.items()
        for readout, judged in results.readouts.items()
    }
    accuracies = pd.Series(scores, dtype=float).unstack()  # a row a method and read-out, a column a seed
    nothing = pd.Series(dtype=float)
    for name, (label, _) in METHODS.items():
        cells = []
        for readout in READOUTS:
            ours, baseline = (accuracies.T.get((method, readout), nothing) for method in (name, BASELINE))
            gaps = nothing if name in (BASELINE, "fast") else ours - baseline
            cells += [PERCENT.mean_sd(ours.mean(), ours.std()), _gap(gaps.dropna())]
        seeds = sum(method == name for method, _ in finished)
        if seeds:
            lines.append(f"| {label} | {seeds} | {' | '.join(cells)} |")
    return lines


def _gap(gaps: pd.Series) -> str:
    sd = f" ± {PERCENT.fixed(gaps.std())}" if len(gaps) > 1 else ""
    return PERCENT.signed(gaps.mean()) + sd if len(gaps) else ""
