"""Slide classifiers trained by two processes: ``python slide_process_driver.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from slide_helpers import slide_recipe

from ncmi.objectives.options import CrossEntropyOptions, NCMIOptions
from ncmi.recipes import Recipe

CASES = {
    "abmil-ncmi": ("abmil", NCMIOptions(center="ema", center_decay=0.9)),
    "aem-cross-entropy": ("aem", CrossEntropyOptions()),
    "asmil-ncmi": ("asmil", NCMIOptions()),
}


def recipe_of(case: str, table: Path, devices: int) -> Recipe:
    network, objective = CASES[case]
    # a query that is dropped differs from process to process, as masks do; without, two processes are one
    options = {"query_dropout": 0.0}
    return slide_recipe(
        table, network, objective, options=options, devices=devices, batch_size=5, epochs=2, learning_rate=1e-3
    )


def main(root: Path) -> None:
    from ncmi.training.run import train

    for case in CASES:
        train(recipe_of(case, root / "cohort" / "labels.csv", 2), root / f"{case}-two")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
