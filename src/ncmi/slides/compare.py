"""The comparison of slide classifiers: networks × objectives, over seeds or over folds of repeated cross-validation."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from ncmi.comparison import BASELINE, LABELS, ComparisonError, open_comparison, read_comparison_file
from ncmi.files import write_json
from ncmi.options import objective_options
from ncmi.pool import run_side_by_side
from ncmi.recipes import NetworkName, SlideData, SlideRecipe, recipe_to_dict, slide_recipe_from_dict

NETWORKS: dict[str, str] = {
    "abmil": "ABMIL",
    "transmil": "TransMIL",
    "aem": "AEM",
    "asmil": "ASMIL",
    "mean": "Mean",
    "max": "Max",
}


@dataclass(frozen=True)
class SlideEntry:
    """One network with one objective.

    Attributes:
        name: of its run folders, which are called NAME-seedSEED or NAME-seedSEED-foldFOLD.
        label: what tables call it.
        recipe: of its runs; seed and fold are the plan's.
    """

    name: str
    label: str
    recipe: SlideRecipe


@dataclass(frozen=True)
class SlidePlan:
    """Entries × seeds × folds. Splits follow the seed, so that runs of equal seed and fold are pairs.

    Attributes:
        entries: with different names, on the same data.
        seeds: of training; of folds and random splits too, unless the data has a split seed.
        workers: runs side by side, one CPU thread each; 0 for one a processor.
        imports: modules that register objectives of the user's own.
        title: what the report calls the comparison.
        simulation: whether the slides are simulated.
        all_folds: test on each fold in turn, where the data is split into folds; else on ``data.fold`` alone.
    """

    entries: tuple[SlideEntry, ...]
    seeds: tuple[int, ...]
    workers: int = 0
    imports: tuple[str, ...] = ()
    title: str = ""
    simulation: bool = False
    all_folds: bool = True

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.entries]
        if not self.seeds or not names:
            raise ComparisonError("nothing to compare: give at least one network, one objective and one seed")
        if len(set(names)) < len(names):
            raise ComparisonError(f"entries of the same name: {', '.join(names)}: name each one once")

    @property
    def folds(self) -> tuple[int | None, ...]:
        """The folds that are tested on in turn; (None,) where the data is not split into folds."""
        data = self.entries[0].recipe.data
        if data.folds == 0:
            return (None,)
        return tuple(range(data.folds)) if self.all_folds else (data.fold,)

    def runs(self, entry: SlideEntry) -> list[tuple[str, SlideRecipe]]:
        """Folder (relative) and recipe of each run of an entry, seed by seed."""
        found = []
        for seed in self.seeds:
            for fold in self.folds:
                data = entry.recipe.data if fold is None else replace(entry.recipe.data, fold=fold)
                training = replace(entry.recipe.training, seed=seed, threads=1, devices=1)
                name = f"runs/{entry.name}-seed{seed}" + ("" if fold is None else f"-fold{fold}")
                found.append((name, replace(entry.recipe, data=data, training=training)))
        return found

    def all_runs(self) -> list[tuple[str, SlideRecipe]]:
        """Folder and recipe of all runs: seed by seed and fold by fold, so that pairs are finished early."""
        return [run for pair in zip(*(self.runs(entry) for entry in self.entries), strict=True) for run in pair]

    def describe(self, command: str | None) -> dict[str, Any]:
        """The content of ``comparison.json``."""
        return {
            "format": 1,
            "kind": "slides",
            "title": self.title,
            "simulation": self.simulation,
            "data": self.entries[0].recipe.data.name,
            "seeds": list(self.seeds),
            "folds": self.entries[0].recipe.data.folds,
            "entries": [
                {
                    "label": entry.label,
                    "network": entry.recipe.network.name,
                    "objective": entry.recipe.objective.name,
                    "runs": [name for name, _ in self.runs(entry)],
                    "recipe": recipe_to_dict(entry.recipe),
                }
                for entry in self.entries
            ],
            "baseline": BASELINE,
            "command": command,
        }


def slide_entries(recipe: SlideRecipe, networks: Sequence[str], objectives: Sequence[str]) -> tuple[SlideEntry, ...]:
    """Every network with every objective: the recipe's own options for its own objective, defaults for the others.

    Raises:
        ComparisonError: for an unknown network or objective.
    """
    entries = []
    for network in networks:
        if network not in NETWORKS:
            raise ComparisonError(f"unknown network {network!r}; known: {', '.join(NETWORKS)}")
        for name in objectives:
            try:
                options = recipe.objective if recipe.objective.name == name else objective_options(name)()
            except KeyError as error:
                raise ComparisonError(error.args[0]) from None
            chosen = replace(
                recipe, network=replace(recipe.network, name=cast(NetworkName, network)), objective=options
            )
            entries.append(SlideEntry(f"{network}-{name}", f"{NETWORKS[network]}, {LABELS.get(name, name)}", chosen))
    return tuple(entries)


def compare_slides(
    plan: SlidePlan,
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
    description = plan.describe(command)
    open_comparison(folder, description, resume)
    started = time.perf_counter()
    contents = {os.path.normpath(folder / name): recipe_to_dict(recipe) for name, recipe in plan.all_runs()}
    failures = run_side_by_side(partial(_train_one, imports=plan.imports), contents, plan.workers, on_run)
    environment = folder / plan.all_runs()[0][0] / "environment.json"
    machine = read_comparison_file(environment) if environment.exists() else {}
    earlier = float(read_comparison_file(folder / "comparison.json").get("total_seconds", 0.0))
    spent = earlier + time.perf_counter() - started
    write_json(folder / "comparison.json", {**description, "total_seconds": spent, "machine": machine})
    if failures:
        listed = "; ".join(f"{Path(failed).name}: {error}" for failed, error in failures.items())
        raise ComparisonError(f"{len(failures)} of {len(contents)} runs failed: {listed}")
    return folder


_COHORTS: dict[SlideData, Any] = {}


def _train_one(path: str, content: dict[str, Any], *, imports: tuple[str, ...]) -> dict[str, Any]:
    """One run, in a worker; the cohort is opened once a worker."""
    from ncmi.slides.cohort import load_cohort
    from ncmi.slides.run import train_slides

    for module in imports:
        import_module(module)
    recipe = slide_recipe_from_dict(content)
    # the same cohort, whatever its fold
    data = replace(recipe.data, fold=0)
    if data not in _COHORTS:
        _COHORTS.clear()
        _COHORTS[data] = load_cohort(data)
    begun = (Path(path) / "recipe.json").exists()
    return train_slides(recipe, path, resume=begun, cohort=_COHORTS[data])
