"""The comparison: every objective × every seed on one data set, with paired splits, several runs side by side."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from ncmi.files import write_json
from ncmi.options import objective_options
from ncmi.pool import run_side_by_side
from ncmi.recipes import Data, Recipe, recipe_from_dict, recipe_to_dict, slide_recipe_from_dict

BASELINE = "cross_entropy"
_FORMAT = 1
LABELS = {
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
    "generalised_cross_entropy": "GCE",
    "symmetric_cross_entropy": "SCE",
}


class ComparisonError(ValueError):
    """A comparison cannot be made as asked; the message names the cure."""


@dataclass(frozen=True)
class Entry:
    """One line of a comparison.

    Attributes:
        name: of its run folders, which are called NAME-seedSEED.
        label: what tables call it.
        recipe: of its runs; the seed is the plan's.
    """

    name: str
    label: str
    recipe: Recipe


@dataclass(frozen=True)
class Plan:
    """What is compared: entries × seeds. Data splits follow the seed, so that runs of equal seed are pairs.

    Attributes:
        entries: the lines of the comparison, with different names.
        seeds: training seeds.
        workers: runs side by side, one CPU thread each; 0 for one a processor.
        imports: modules that register objectives or backbones of the user's own.
        runs_folder: where run folders lie, relative to the comparison's folder.
    """

    entries: tuple[Entry, ...]
    seeds: tuple[int, ...]
    workers: int = 0
    imports: tuple[str, ...] = ()
    runs_folder: str = "runs"

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.entries]
        if not self.seeds or not names:
            raise ComparisonError("nothing to compare: give at least one objective and one seed")
        if len(set(names)) < len(names):
            raise ComparisonError(f"entries of the same name: {', '.join(names)}: name each one once")

    def runs(self) -> list[tuple[str, Recipe]]:
        """Folder (relative) and recipe of each run, seed by seed."""
        return [
            (
                self._run_name(entry, seed),
                replace(entry.recipe, training=replace(entry.recipe.training, seed=seed, threads=1, devices=1)),
            )
            for seed in self.seeds
            for entry in self.entries
        ]

    def _run_name(self, entry: Entry, seed: int) -> str:
        return f"{self.runs_folder}/{entry.name}-seed{seed}"

    def describe(self, command: str | None) -> dict[str, Any]:
        """The content of ``comparison.json``."""
        return {
            "format": _FORMAT,
            "data": Path(self.entries[0].recipe.data.name).name,
            "seeds": list(self.seeds),
            "entries": [
                {
                    "label": entry.label,
                    "objective": entry.recipe.objective.name,
                    "runs": [self._run_name(entry, seed) for seed in self.seeds],
                    "recipe": recipe_to_dict(entry.recipe),
                }
                for entry in self.entries
            ],
            "baseline": BASELINE,
            "command": command,
        }


def objective_entries(recipe: Recipe, objectives: Sequence[str]) -> tuple[Entry, ...]:
    """One entry for each objective by name: the recipe's own options for its own objective, defaults for the others.

    Raises:
        ComparisonError: for an unknown objective.
    """
    entries = []
    for name in objectives:
        try:
            options = recipe.objective if recipe.objective.name == name else objective_options(name)()
        except KeyError as error:
            raise ComparisonError(error.args[0]) from None
        entries.append(Entry(name, LABELS.get(name, name), replace(recipe, objective=options)))
    return tuple(entries)


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
        ComparisonError: if the folder holds something (without ``resume``) or another comparison (with it), or a run
            failed (after the others have been given their chance).
        KeyboardInterrupt: on Ctrl-C; runs in progress have written checkpoints to go on from.
    """
    folder = Path(path)
    compare_many([(plan, folder)], resume=resume, command=command, on_run=on_run)
    return folder


def compare_many(
    plans: Sequence[tuple[Plan, Path]],
    *,
    resume: bool | None = False,
    command: str | None = None,
    on_run: Callable[[str, dict[str, Any]], None] = lambda name, results: None,
) -> None:
    """Several comparisons, each into its own folder, from one queue of runs; see :func:`compare`.

    Runs that several plans have in common (by their ``runs_folder``) are made once. Workers and imports are those of
    the first plan. ``resume=None`` goes on where there is an earlier comparison, and begins where there is none.
    """
    descriptions = [plan.describe(command) for plan, _ in plans]
    for (_, folder), description in zip(plans, descriptions, strict=True):
        open_comparison(folder, description, resume)
    started = time.perf_counter()
    tasks = {
        os.path.normpath(folder / name): recipe for plan, folder in plans for name, recipe in plan.runs()
    }  # without links resolved: names stay as the user gave them
    first = plans[0][0]
    work = partial(_train_one, imports=first.imports)
    contents = {path: recipe_to_dict(recipe) for path, recipe in tasks.items()}
    failures = run_side_by_side(work, contents, first.workers, on_run)
    spent = time.perf_counter() - started
    for (plan, folder), description in zip(plans, descriptions, strict=True):
        environment = folder / plan.runs()[0][0] / "environment.json"
        machine = read_comparison_file(environment) if environment.exists() else {}
        earlier = float(read_comparison_file(folder / "comparison.json").get("total_seconds", 0.0))
        write_json(folder / "comparison.json", {**description, "total_seconds": earlier + spent, "machine": machine})
    if failures:
        listed = "; ".join(f"{Path(path).name}: {error}" for path, error in failures.items())
        raise ComparisonError(f"{len(failures)} of {len(tasks)} runs failed: {listed}")


def open_comparison(folder: Path, description: dict[str, Any], resume: bool | None) -> None:
    """Make the folder of a comparison, or find the one of an earlier one of the same content; see :func:`compare`.

    Raises:
        ComparisonError: as :func:`compare`.
    """
    known = folder / "comparison.json"
    if resume is None:
        resume = known.exists()
    if resume:
        if not known.exists():
            raise ComparisonError(f"{folder} holds no comparison to go on with: leave --resume out")
        earlier = read_comparison_file(known)
        recipes = {entry["runs"][0]: entry.get("recipe") for entry in earlier.get("entries", [])}
        for entry in description["entries"]:
            if not _same_recipe(recipes.get(entry["runs"][0], entry["recipe"]), entry["recipe"]):
                raise ComparisonError(
                    f"{folder} compares {entry['label']} by another recipe: give the same options, or another --out"
                )
        description["total_seconds"] = earlier.get("total_seconds", 0.0)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ComparisonError(f"{folder} exists and is not empty: choose another --out, or go on with it by --resume")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(known, description)


def _same_recipe(earlier: Any, now: dict[str, Any]) -> bool:
    """Whether an earlier recipe says the same; fields that it does not know yet have their defaults."""
    try:
        if not isinstance(earlier, dict):
            return False
        convert = slide_recipe_from_dict if now.get("kind") == "slides" else recipe_from_dict
        return convert(earlier) == convert(now)
    except ValueError:
        return False


_DATASETS: dict[Data, Any] = {}


def _train_one(path: str, content: dict[str, Any], *, imports: tuple[str, ...]) -> dict[str, Any]:
    """One run, in a worker; the data set is loaded once a worker."""
    from ncmi.training import RunFolder, train
    from ncmi.training.parts import dataset_of

    for module in imports:
        import_module(module)
    recipe = recipe_from_dict(content)
    if recipe.data not in _DATASETS:
        _DATASETS.clear()  # one at a time: they may be large
        _DATASETS[recipe.data] = dataset_of(recipe.data)
    begun = (RunFolder(path).path / "recipe.json").exists()
    return train(recipe, path, resume=begun, dataset=_DATASETS[recipe.data])


def read_comparison_file(path: Path) -> dict[str, Any]:
    """A JSON object of a comparison's folder.

    Raises:
        ComparisonError: if it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ComparisonError(f"{path}: damaged ({error}): restore the file or choose another --out") from None
    return content if isinstance(content, dict) else {}
