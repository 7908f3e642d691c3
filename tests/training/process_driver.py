"""Runs trained by two processes: ``python process_driver.py FOLDER``; Lightning runs this file again for the second.

At the end it asks for a folder that is taken, which must end both processes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batch_normalized_driver import FOLDER_CASES, folder_recipe, train_and_write_down
from training_helpers import make_recipe

from ncmi.loss.alternating import Alternation
from ncmi.objectives.options import CrossEntropyOptions, NCMIOptions, OPLOptions, SupConOptions
from ncmi.recipes import Recipe

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


def recipe_of(case: str, devices: int, **more: Any) -> Recipe:
    return PROCESS_CASES[case](devices=devices, epochs=1, precision="32-true", **more)


def main(root: Path) -> None:
    from ncmi.training.run import train

    for case in PROCESS_CASES:
        train(recipe_of(case, 2), root / case)
    train_and_write_down(str(root / "images.npz"), root)
    for where, gigabytes in FOLDER_CASES.items():
        train(folder_recipe(root / "images", gigabytes, devices=2, epochs=1), root / where)
    train(recipe_of("ncmi", 2), root / "ncmi")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
