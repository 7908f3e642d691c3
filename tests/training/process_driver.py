"""Runs trained by two processes: ``python process_driver.py FOLDER``; Lightning runs this file again for the second.

Then what must reach both: a signal to one of them, a folder that is taken; at last the second one stands still. Each
writes what it met with into ``FOLDER/met-RANK.json``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from batch_normalized_driver import FOLDER_CASES, folder_recipe, train_and_write_down
from torch import Tensor
from training_helpers import make_recipe, signal_at

from ncmi.errors import Interrupted, ToldElsewhere
from ncmi.loss.alternating import Alternation
from ncmi.objectives.options import (
    CrossEntropyOptions,
    NCMIOptions,
    ObjectiveOptions,
    OPLOptions,
    SupConOptions,
    objective_names,
    objective_options,
)
from ncmi.recipes import Network, Recipe
from ncmi.training.launch import place_of_process
from ncmi.training.loop import Setup
from ncmi.training.run_folder import RunFolder
from ncmi.training.sources import open_source
from ncmi.training.stopping import StopRequest

# wine has 115 training samples; the shares of an epoch's last batch: 10 and 9, 3 and 2, 1 and none
UNEVEN, FEW, ZERO = 32, 11, 38

PROCESS_CASES: dict[str, Callable[..., Recipe]] = {
    "ncmi": lambda **more: make_recipe(batch_size=ZERO, **more),
    "ncmi-class-mean-ema-center": lambda **more: make_recipe(
        NCMIOptions(centroids="class_mean", center="ema", center_decay=0.9, weight="balanced"),
        batch_size=UNEVEN,
        **more,
    ),
    "ncmi-class-means": lambda **more: make_recipe(
        NCMIOptions(anchor_scale=10.0),
        alternation=Alternation("class_means"),
        ema_decay=0.8,
        batch_size=FEW,
        **more,
    ),
    "ncmi-robust": lambda **more: make_recipe(NCMIOptions.robust(), batch_size=UNEVEN, **more),
    "cross-entropy-accumulated": lambda **more: make_recipe(
        CrossEntropyOptions(), batch_size=ZERO, accumulate=3, clip_norm=0.1, selection="best", **more
    ),
    "opl": lambda **more: make_recipe(OPLOptions(), batch_size=UNEVEN, optimizer="sgd", learning_rate=0.1, **more),
    "supcon": lambda **more: make_recipe(SupConOptions(projection_dim=8), batch_size=ZERO, **more),
}


STOPPED_AT = 5  # steps: in the second epoch of four


def recipe_of(case: str, devices: int, **more: Any) -> Recipe:
    return PROCESS_CASES[case](devices=devices, epochs=1, precision="32-true", **more)


# statistics that move are made of all processes' samples, whether each has all of them or its own
LOOP_CASES: dict[str, tuple[ObjectiveOptions, dict[str, Any]]] = {
    **{name: (objective_options(name)(), {}) for name in objective_names()},
    "ncmi-accumulated": (NCMIOptions(), {"accumulate": 3, "clip_norm": 0.1}),
    "ncmi-robust": (NCMIOptions.robust(), {"accumulate": 3}),
    "ncmi-robust-half": (NCMIOptions(robustness=0.5), {}),
    "ncmi-fixed-frozen": (NCMIOptions(centroids="fixed", center="frozen"), {}),
    "ncmi-class-mean-ema": (NCMIOptions(centroids="class_mean", center="ema", center_decay=0.9), {"accumulate": 2}),
    "ncmi-ratio-of-means": (NCMIOptions(form="ratio_of_means", separation_power=1.0), {}),
    "ncmi-balanced": (NCMIOptions(weight="balanced"), {}),
    "cross-entropy-adjusted": (CrossEntropyOptions(logit_adjustment=1.0), {"optimizer": "sgd"}),
}


def loop_of(case: str, devices: int, path: Path) -> dict[str, Tensor]:
    """An epoch in double precision, whose last batch leaves the second process without a sample: where it ends."""
    from ncmi.training.run import build_model
    from ncmi.training.session import session

    objective, options = LOOP_CASES[case]
    recipe = make_recipe(objective, devices=devices, epochs=1, precision="64-true", batch_size=ZERO, **options)
    path.mkdir()
    with session(recipe.training) as fabric, StopRequest(enabled=False) as stop:
        source = open_source(recipe)
        model = build_model(recipe, source).to(dtype=torch.float64)
        source.fit_standardizer(model)
        loop = source.loop(Setup(fabric, model, recipe.training, RunFolder(path)))
        loop.run(stop)
    rows = torch.tensor(loop.progress.rows[0]["train_loss"], dtype=torch.float64)
    return {**model.state_dict(), "train_loss": rows}


def stopped_recipe() -> Recipe:
    """With draws of the network in every step."""
    network = Network("mlp", width=16, depth=1, feature_dim=8, dropout=0.3)
    return make_recipe(network=network, devices=2, epochs=2, batch_size=ZERO, readouts="own")


def stop_and_go_on(folder: Path) -> list[Any]:
    """A run of which one process alone hears a signal; what this process met with."""
    from ncmi.training.run import train

    met: list[Any] = []
    try:
        if place_of_process()[0] == 0:
            train(stopped_recipe(), folder)
        else:
            with signal_at(STOPPED_AT, signal.SIGUSR1):
                train(stopped_recipe(), folder)
    except Interrupted as stopped:
        met += [stopped.signal_number, str(stopped), (folder / "checkpoints" / "last.safetensors").exists()]
    train(stopped_recipe(), folder, resume=True)
    return met


def ask_for_a_taken_folder(folder: Path) -> str:
    from ncmi.training.run import train

    try:
        train(recipe_of("ncmi", 2), folder)
    except (ValueError, ToldElsewhere) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def stand_still(folder: Path) -> None:
    """The second process stops in a step; the first must end by itself."""
    from ncmi.training.run import train

    if place_of_process()[0] == 0:
        train(recipe_of("ncmi", 2, timeout_seconds=5), folder)
    with signal_at(2, signal.SIGSTOP):
        train(recipe_of("ncmi", 2, timeout_seconds=5), folder)


def main(root: Path) -> None:
    from ncmi.training.run import train

    rank = place_of_process()[0]
    for case in LOOP_CASES:
        torch.save(loop_of(case, 2, root / f"loop-{case}-{rank}"), root / f"{case}-{rank}.pt")
    for case in PROCESS_CASES:
        train(recipe_of(case, 2), root / case)
    train_and_write_down(str(root / "images.npz"), root)
    for where, gigabytes in FOLDER_CASES.items():
        train(folder_recipe(root / "images", gigabytes, devices=2, epochs=1), root / where)
    train(stopped_recipe(), root / "whole")
    met = {"pid": os.getpid(), "signal": stop_and_go_on(root / "stopped")}
    met["taken"] = ask_for_a_taken_folder(root / "ncmi")
    (root / f"met-{rank}.json").write_text(json.dumps(met))
    stand_still(root / "still")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
