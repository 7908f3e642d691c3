"""The comparison: entries × seeds, and folds where the data has them, with paired splits, several runs side by side.

An entry is an objective, or a network with an objective, on data of any kind.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from ncmi.errors import Interrupted
from ncmi.objectives.options import objective_options
from ncmi.recipes import BagData, BagNetwork, Data, Recipe, recipe_from_dict, recipe_to_dict
from ncmi.recipes.names import BASELINE, network_label, objective_label
from ncmi.training.schema import ComparisonRecord, EntryRecord, Results, read_record, write_record

RECORD = "comparison.json"
OnRun = Callable[[str, Results], None]


class ComparisonError(ValueError):
    """A comparison cannot be made as asked; the message names the cure."""


@dataclass(frozen=True)
class Entry:
    """One line of a comparison.

    Attributes:
        name: of its run folders, which are called NAME-seedSEED or NAME-seedSEED-foldFOLD.
        label: what tables call it.
        recipe: of its runs; seed and fold are the plan's.
    """

    name: str
    label: str
    recipe: Recipe


@dataclass(frozen=True)
class Plan:
    """What is compared: entries × seeds × folds. Splits follow the seed: runs of equal seed and fold are pairs.

    Attributes:
        entries: the lines of the comparison, with different names, on the same data.
        seeds: of training; of folds and random splits too, unless the data has a split seed.
        workers: runs side by side, one CPU thread each; 0 for one a processor.
        imports: modules that register objectives or networks of the user's own.
        title: what the report calls the comparison; by default by its data.
        all_folds: test on each fold in turn, where the data is split into folds; else on ``data.fold`` alone.
        runs_folder: where run folders lie, relative to the comparison's folder.
    """

    entries: tuple[Entry, ...]
    seeds: tuple[int, ...]
    workers: int = 0
    imports: tuple[str, ...] = ()
    title: str = ""
    all_folds: bool = True
    runs_folder: str = "runs"

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.entries]
        if not self.seeds or not names:
            raise ComparisonError("nothing to compare: give at least one objective and one seed")
        if len(set(names)) < len(names):
            raise ComparisonError(f"entries of the same name: {', '.join(names)}: name each one once")

    @property
    def data(self) -> Data:
        """What is compared on."""
        return self.entries[0].recipe.data

    @property
    def folds(self) -> tuple[int | None, ...]:
        """The folds that are tested on in turn; (None,) where the data is not split into folds."""
        if not isinstance(self.data, BagData) or self.data.folds == 0:
            return (None,)
        return tuple(range(self.data.folds)) if self.all_folds else (self.data.fold,)

    def runs(self) -> list[tuple[str, Recipe]]:
        """Folder (relative) and recipe of each run: seed by seed and fold by fold, so that pairs are finished early."""
        return [self._run(entry, seed, fold) for seed in self.seeds for fold in self.folds for entry in self.entries]

    def runs_of(self, entry: Entry) -> list[tuple[str, Recipe]]:
        """Folder (relative) and recipe of an entry's runs, in the same order."""
        return [self._run(entry, seed, fold) for seed in self.seeds for fold in self.folds]

    def _run(self, entry: Entry, seed: int, fold: int | None) -> tuple[str, Recipe]:
        recipe = replace(entry.recipe, training=replace(entry.recipe.training, seed=seed, threads=1, devices=1))
        name = f"{self.runs_folder}/{entry.name}-seed{seed}"
        return (name, recipe) if fold is None else (f"{name}-fold{fold}", _with_fold(recipe, fold))

    def describe(self, command: str | None) -> ComparisonRecord:
        """The content of ``comparison.json`` before anything has run."""
        from ncmi.data.bags.simulated import is_simulated

        data = self.data
        return ComparisonRecord(
            kind=data.kind,
            title=self.title,
            data=data.title,
            seeds=list(self.seeds),
            folds=data.folds if isinstance(data, BagData) else 0,
            entries=[
                EntryRecord(
                    name=entry.name,
                    label=entry.label,
                    network=entry.recipe.network.name,
                    objective=entry.recipe.objective.name,
                    runs=[name for name, _ in self.runs_of(entry)],
                    recipe=recipe_to_dict(entry.recipe),
                )
                for entry in self.entries
            ],
            baseline=BASELINE,
            simulation=isinstance(data, BagData) and is_simulated(data.name),
            command=command,
        )


def entries_of(recipe: Recipe, objectives: Sequence[str], networks: Sequence[str] = ()) -> tuple[Entry, ...]:
    """Every network with every objective: the recipe's own options for its own objective, defaults for the others.

    Args:
        recipe: of all runs, but for network and objective.
        objectives: names.
        networks: names; by default the recipe's own network.

    Returns:
        Entries called OBJECTIVE, or NETWORK-OBJECTIVE with several networks and with bags.

    Raises:
        ComparisonError: for an unknown objective, or an unknown network of bags.

    >>> from ncmi.recipes import BagData
    >>> [(entry.name, entry.label) for entry in entries_of(Recipe(BagData("bags.npz")), ["ncmi"], ["aem", "mean"])]
    [('aem-ncmi', 'AEM, NCMI'), ('mean-ncmi', 'Mean pooling, NCMI')]
    """
    networks = tuple(networks) or (recipe.network.name,)
    several, bags = len(networks) > 1, isinstance(recipe.network, BagNetwork)
    known = get_args(get_type_hints(BagNetwork)["name"])
    entries = []
    for network in networks:
        if bags and network not in known:
            raise ComparisonError(f"unknown network {network!r}; known: {', '.join(known)}")
        for name in objectives:
            try:
                options = recipe.objective if recipe.objective.name == name else objective_options(name)()
            except KeyError as error:
                raise ComparisonError(error.args[0]) from None
            label = objective_label(name)
            entries.append(
                Entry(
                    f"{network}-{name}" if several or bags else name,
                    f"{network_label(network)}, {label}" if several else label,
                    replace(with_network(recipe, name=network), objective=options),
                )
            )
    return tuple(entries)


def with_network(recipe: Recipe, **fields: Any) -> Recipe:
    """The recipe with some fields of its network changed."""
    network: Any = recipe.network  # replace() does not take a union
    return replace(recipe, network=replace(network, **fields))


def compare(
    plan: Plan,
    path: str | Path,
    *,
    resume: bool = False,
    command: str | None = None,
    on_run: OnRun = lambda name, results: None,
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
        SchemaError: if the earlier ``comparison.json`` is damaged.
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
    on_run: OnRun = lambda name, results: None,
) -> None:
    """Several comparisons, each into its own folder, from one queue of runs; see :func:`compare`.

    Runs that several plans have in common (by their ``runs_folder``) are made once. Workers and imports are those of
    the first plan. ``resume=None`` goes on where there is an earlier comparison, and begins where there is none.
    """
    from ncmi.training.run_folder import RunFolder  # the command line reads this page before it needs numpy

    records = [open_comparison(folder, plan.describe(command), resume) for plan, folder in plans]
    started = time.perf_counter()
    # without links resolved: names stay as the user gave them
    tasks = {
        os.path.normpath(folder / name): recipe_to_dict(recipe)
        for plan, folder in plans
        for name, recipe in plan.runs()
    }
    first = plans[0][0]
    failures = run_side_by_side(partial(_train_one, imports=first.imports), tasks, first.workers, on_run)
    seconds = time.perf_counter() - started
    for (plan, folder), record in zip(plans, records, strict=True):
        machine = RunFolder(folder / plan.runs()[0][0]).environment()
        total = record.total_seconds + seconds
        write_record(folder / RECORD, msgspec.structs.replace(record, total_seconds=total, machine=machine))
    if failures:
        listed = "; ".join(f"{Path(path).name}: {error}" for path, error in failures.items())
        raise ComparisonError(f"{len(failures)} of {len(tasks)} runs failed: {listed}")


def open_comparison(folder: Path, record: ComparisonRecord, resume: bool | None) -> ComparisonRecord:
    """Make the folder of a comparison, or see that an earlier one there is of the same recipes; see :func:`compare`.

    Returns:
        The record, with the seconds that the earlier comparison has spent.

    Raises:
        ComparisonError, SchemaError: as :func:`compare`.
    """
    known = folder / RECORD
    if known.exists() if resume is None else resume:
        if not known.exists():
            raise ComparisonError(f"{folder} holds no comparison to go on with: leave --resume out")
        earlier = read_record(known, ComparisonRecord)
        recipes = {entry.name: entry.recipe for entry in earlier.entries}
        for entry in record.entries:
            if not _same_recipe(recipes.get(entry.name, entry.recipe), entry.recipe):
                raise ComparisonError(
                    f"{folder} compares {entry.label} by another recipe: give the same options, or another --out"
                )
        record = msgspec.structs.replace(record, total_seconds=earlier.total_seconds)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ComparisonError(f"{folder} exists and is not empty: choose another --out, or go on with it by --resume")
    folder.mkdir(parents=True, exist_ok=True)
    write_record(known, record)
    return record


def _same_recipe(earlier: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether they say the same of what runs share; fields that the earlier one does not have are at their defaults."""
    try:
        one, other = (_with_fold(recipe_from_dict(content), 0) for content in (earlier, now))
    except ValueError:
        return False
    return one == replace(other, training=replace(other.training, seed=one.training.seed))


def _with_fold(recipe: Recipe, fold: int) -> Recipe:
    return replace(recipe, data=replace(recipe.data, fold=fold)) if isinstance(recipe.data, BagData) else recipe


def run_side_by_side(
    work: Callable[[str, Any], Any], tasks: Mapping[str, Any], workers: int, on_run: Callable[[str, Any], None]
) -> dict[str, str]:
    """Do ``work(path, content)`` for each task, in fresh processes; what failed, by path, with its message.

    Args:
        work: a function that a fresh process can import.
        tasks: content of each task by the path of its folder.
        workers: processes; 0 for one a processor.
        on_run: called with each finished task's folder name and results, in this process.

    Raises:
        KeyboardInterrupt: on Ctrl-C; runs in progress have written checkpoints to go on from.
    """
    failures: dict[str, str] = {}
    # fresh processes: torch must not be forked, and this one stays without it
    pool = ProcessPoolExecutor(min(workers or processors(), len(tasks)), mp_context=get_context("spawn"))
    try:
        futures = {pool.submit(_unless_stopped, work, path, content): path for path, content in tasks.items()}
        for future in as_completed(futures):
            path = futures[future]
            try:
                on_run(Path(path).name, future.result())
            except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
                failures[path] = str(error)
    except (KeyboardInterrupt, Interrupted):
        # the workers have had the signal as well: they stop after their step and write a checkpoint
        pool.shutdown(wait=True, cancel_futures=True)
        raise KeyboardInterrupt from None
    pool.shutdown()
    return failures


# the pool has handed a worker its next run before it is asked to stop: that one must not begin
_STOPPED: list[str] = []


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _unless_stopped(work: Callable[[str, Any], Any], path: str, content: Any) -> Any:
    if _STOPPED:
        raise Interrupted("stopped before it began")
    try:
        return work(path, content)
    except Interrupted:
        _STOPPED.append(path)
        raise


_LOADED: dict[Data, Any] = {}


def _train_one(path: str, content: dict[str, Any], imports: tuple[str, ...]) -> Results:
    """One run, in a worker; the data is loaded once a worker, and is the same whatever its fold."""
    from ncmi.training.run import train
    from ncmi.training.sources import load_data

    for module in imports:
        import_module(module)
    recipe = recipe_from_dict(content)
    data = _with_fold(recipe, 0).data
    if data not in _LOADED:
        _LOADED.clear()  # one at a time: they may be large
        _LOADED[data] = load_data(data)
    return train(recipe, path, resume=(Path(path) / "recipe.json").exists(), data=_LOADED[data])
