"""The comparison: every objective × every seed on one data set, with paired splits, several runs side by side."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ncmi.errors import Interrupted
from ncmi.files import write_json
from ncmi.options import objective_options
from ncmi.recipes import Recipe, recipe_from_dict, recipe_to_dict

BASELINE = "cross_entropy"
_FORMAT = 1
_LABELS = {
    "ncmi": "NCMI",
    "cross_entropy": "Cross-entropy",
    "label_smoothing": "Label smoothing",
    "focal": "Focal",
    "poly": "PolyLoss",
    "square": "Square loss",
    "squentropy": "Squentropy",
    "anticlass": "AntiClass",
    "opl": "OPL",
    "supcon": "SupCon",
    "cmic": "CMIC-DL",
}


class ComparisonError(ValueError):
    """A comparison cannot be made as asked; the message names the cure."""


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
        recipe: shared by all runs but for objective and seed; the split follows the seed.
        objectives: names of registered objectives.
        seeds: training seeds.
        workers: runs side by side, one CPU thread each; 0 for one a processor.
        imports: modules that register objectives or backbones of the user's own.
    """

    recipe: Recipe
    objectives: tuple[str, ...]
    seeds: tuple[int, ...]
    workers: int = 0
    imports: tuple[str, ...] = ()

    def runs(self) -> list[tuple[str, Recipe]]:
        """Folder (relative) and recipe of each run, seed by seed."""
        return [
            (f"runs/{objective}-seed{seed}", self._recipe(objective, seed))
            for seed in self.seeds
            for objective in self.objectives
        ]

    def _recipe(self, objective: str, seed: int) -> Recipe:
        own = self.recipe.objective
        options = own if own.name == objective else objective_options(objective)()
        return replace(
            self.recipe, objective=options, training=replace(self.recipe.training, seed=seed, threads=1, devices=1)
        )

    def describe(self, command: str | None) -> dict[str, Any]:
        """The content of ``comparison.json``."""
        return {
            "format": _FORMAT,
            "data": Path(self.recipe.data.name).name,
            "seeds": list(self.seeds),
            "entries": [
                {
                    "label": _LABELS.get(objective, objective),
                    "objective": objective,
                    "runs": [f"runs/{objective}-seed{seed}" for seed in self.seeds],
                }
                for objective in self.objectives
            ],
            "baseline": BASELINE,
            "command": command,
            "recipe": recipe_to_dict(self.recipe),
        }


def compare(
    plan: Plan,
    path: str | Path,
    *,
    resume: bool = False,
    command: str | None = None,
    on_run: Callable[[str, dict[str, Any]], None] = lambda name, results: None,
) -> Path:
    """Make all runs of a plan, skipping finished ones, and write ``comparison.json``.

    Args:
        plan: what is compared.
        path: the comparison's folder.
        resume: go on with an earlier comparison of the same plan.
        command: the command line, for the report.
        on_run: called with each finished run's name and results, in this process.

    Raises:
        ComparisonError: if the folder holds something (without ``resume``) or another comparison (with it), an
            objective is unknown, or a run failed (after the others have been given their chance).
        KeyboardInterrupt: on Ctrl-C; runs in progress have written checkpoints to go on from.
    """
    folder = Path(path)
    for name in plan.objectives:
        try:
            objective_options(name)
        except KeyError as error:
            raise ComparisonError(error.args[0]) from None
    if not plan.seeds or not plan.objectives:
        raise ComparisonError("nothing to compare: give at least one objective and one seed")
    description = plan.describe(command)
    _open(folder, description, resume)
    started = time.perf_counter()
    failures = _run_all(plan, folder, on_run)
    environment = folder / plan.runs()[0][0] / "environment.json"
    machine = _read(environment) if environment.exists() else {}
    earlier = float(_read(folder / "comparison.json").get("total_seconds", 0.0))
    description["total_seconds"] = earlier + time.perf_counter() - started
    write_json(folder / "comparison.json", {**description, "machine": machine})
    if failures:
        listed = "; ".join(f"{name}: {error}" for name, error in failures.items())
        raise ComparisonError(f"{len(failures)} of {len(plan.runs())} runs failed: {listed}")
    return folder


def _open(folder: Path, description: dict[str, Any], resume: bool) -> None:
    known = folder / "comparison.json"
    if resume:
        if not known.exists():
            raise ComparisonError(f"{folder} holds no comparison to go on with: leave --resume out")
        earlier = _read(known)
        for key in ("data", "recipe"):
            if earlier.get(key) != description[key]:
                raise ComparisonError(f"{folder} compares by another {key}: give the same options, or another --out")
        description["total_seconds"] = earlier.get("total_seconds", 0.0)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ComparisonError(f"{folder} exists and is not empty: choose another --out, or go on with it by --resume")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(known, description)


def _run_all(plan: Plan, folder: Path, on_run: Callable[[str, dict[str, Any]], None]) -> dict[str, str]:
    workers = plan.workers or _processors()
    tasks = plan.runs()
    failures: dict[str, str] = {}
    # fresh processes: torch must not be forked, and this one stays without it
    pool = ProcessPoolExecutor(min(workers, len(tasks)), mp_context=get_context("spawn"))
    try:
        futures: dict[Future[dict[str, Any]], str] = {
            pool.submit(_train_one, recipe_to_dict(recipe), str(folder / name), plan.imports): name
            for name, recipe in tasks
        }
        for future in as_completed(futures):
            name = futures[future]
            try:
                on_run(name, future.result())
            except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
                failures[name] = str(error)
    except (KeyboardInterrupt, Interrupted):
        # the workers have had the signal as well: they stop after their step and write a checkpoint
        pool.shutdown(wait=True, cancel_futures=True)
        raise KeyboardInterrupt from None
    pool.shutdown()
    return failures


def _processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_DATASETS: dict[str, Any] = {}


def _train_one(content: dict[str, Any], path: str, imports: tuple[str, ...]) -> dict[str, Any]:
    """One run, in a worker; the data set is loaded once a worker."""
    from ncmi.data import load_dataset
    from ncmi.training import RunFolder, train

    for module in imports:
        import_module(module)
    recipe = recipe_from_dict(content)
    data = recipe.data
    if data.name not in _DATASETS:
        _DATASETS[data.name] = load_dataset(
            data.name, label_column=data.label_column, image_size=data.image_size, data_dir=data.data_dir
        )
    begun = (RunFolder(path).path / "recipe.json").exists()
    return train(recipe, path, resume=begun, dataset=_DATASETS[data.name])


def _read(path: Path) -> dict[str, Any]:

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ComparisonError(f"{path}: damaged ({error}): restore the file or choose another --out") from None
    return content if isinstance(content, dict) else {}
