"""The comparison: entries × seeds, and folds where the data has them, with paired splits, several runs side by side.

An entry is an objective, or a network with an objective, on data of any kind.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from ncmi.files import PARTIAL
from ncmi.objectives.options import objective_names, objective_options
from ncmi.recipes import BagData, BagNetwork, Data, Recipe, SampleData, recipe_from_dict, recipe_to_dict
from ncmi.recipes.names import BASELINE, network_label, objective_label
from ncmi.training.launch import find_launch
from ncmi.training.loggers import check_loggers
from ncmi.training.schema import ComparisonRecord, EntryRecord, Results, read_record, write_record
from ncmi.training.workers import Ask, WorkError, ask_here, check_workers, processors, run_side_by_side

RECORD = "comparison.json"
OnRun = Callable[[str, Results], None]
OnData = Callable[[str], None]


class ComparisonError(ValueError):
    """A comparison cannot be made as asked; the message names the cure.

    Attributes:
        failures: what went wrong, by the name of the run that it befell; empty where no single run is at fault.
    """

    def __init__(self, message: str, failures: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.failures = {Path(path).name: reason for path, reason in (failures or {}).items()}


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
        tune: choose the learning rate of each run by its own validation part; see :mod:`ncmi.training.tuning`.
    """

    entries: tuple[Entry, ...]
    seeds: tuple[int, ...]
    workers: int = 0
    imports: tuple[str, ...] = ()
    title: str = ""
    all_folds: bool = True
    runs_folder: str = "runs"
    tune: bool = False

    def __post_init__(self) -> None:
        check_workers(self.workers)
        names = [entry.name for entry in self.entries]
        if not self.seeds or not names:
            raise ComparisonError("nothing to compare: give at least one objective and one seed")
        if len(set(names)) < len(names):
            raise ComparisonError(f"entries of the same name: {', '.join(names)}: name each one once")
        if self.tune and isinstance(self.data, SampleData) and self.data.train_on_all:
            raise ComparisonError(
                "--tune needs a validation part that is not trained on: leave --data.train-on-all or --tune out"
            )

    @property
    def data(self) -> Data:
        """What is compared on."""
        return self.entries[0].recipe.data

    @property
    def folds(self) -> tuple[int | None, ...]:
        """The folds that are tested on in turn; (None,) where the data is not split into folds."""
        if self.data.folds == 0:
            return (None,)
        return tuple(range(self.data.folds)) if self.all_folds else (self.data.fold,)

    def in_words(self) -> str:
        """How much is compared: ``2 entries × 5 seeds``."""
        folds = f" × {len(self.folds)} folds" if len(self.folds) > 1 else ""
        rates = ", each at 8 or 9 learning rates" if self.tune else ""
        return f"{len(self.entries)} entries × {len(self.seeds)} seeds{folds}{rates}"

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
            folds=data.folds,
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
            tuned=self.tune,
        )


def usual_plan(
    recipe: Recipe,
    *,
    seeds: int | None = None,
    objectives: Sequence[str] = (),
    networks: Sequence[str] = (),
    workers: int = 0,
    imports: Sequence[str] = (),
    tune: bool = False,
) -> Plan:
    """What is compared where nothing else is said: every loss on five seeds; of bags four networks, two losses, three.

    Args:
        recipe: of all runs, but for network and objective; its seed is the first.
        seeds: number of seeds.
        objectives, networks: names.
        workers, imports, tune: as of a :class:`Plan`.

    Raises:
        ComparisonError: as :func:`entries_of`.
    """
    if recipe.data.kind == "bags":
        networks = networks or ("abmil", "transmil", "aem", "asmil")
        objectives = objectives or (BASELINE, "ncmi")
    if seeds is None:
        seeds = 3 if recipe.data.kind == "bags" else 5
    first = recipe.training.seed
    entries = entries_of(recipe, objectives or objective_names(), networks)
    return Plan(entries, tuple(range(first, first + seeds)), workers, tuple(imports), tune=tune)


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
    on_data: OnData | None = None,
) -> Path:
    """Make all runs of a plan, skipping finished ones, and write ``comparison.json``.

    Args:
        plan: what is compared.
        path: the comparison's folder.
        resume: go on with an earlier comparison of the same plan.
        command: the command line, for the report.
        on_run: called with each finished run's name and results, in this process.
        on_data: called with lines on what was understood of the data, before anything is trained.

    Raises:
        ComparisonError: if the folder holds something (without ``resume``) or another comparison (with it), if data,
            splits, networks or objectives do not allow the runs (nothing is written then), or a run failed (after the
            others have been given their chance).
        SchemaError: if the earlier ``comparison.json`` is damaged.
        Interrupted: on Ctrl-C, SIGTERM and SIGHUP; runs in progress have written checkpoints to go on from.
    """
    folder = Path(path)
    compare_many([(plan, folder)], resume=resume, command=command, on_run=on_run, on_data=on_data)
    return folder


def compare_many(
    plans: Sequence[tuple[Plan, Path]],
    *,
    resume: bool | None = False,
    command: str | None = None,
    on_run: OnRun = lambda name, results: None,
    on_begin: Callable[[], None] = lambda: None,
    on_data: OnData | None = None,
) -> None:
    """Several comparisons, each into its own folder, from one queue of runs; see :func:`compare`.

    Runs that several plans have in common (by their ``runs_folder``) are made once. Workers and imports are those of
    the first plan. ``resume=None`` goes on where there is an earlier comparison, and begins where there is none.
    ``on_begin`` is called when all runs have been found possible, before the first folder is made; ``on_data`` before
    it, with lines on the data of the first run that is to be made.

    Where a launcher has started several processes, each of them calls this. They make all runs together, one after the
    other, and a run that fails ends them all; the same call goes on. The first process writes, and calls ``on_…``.
    """
    from ncmi.training.run_folder import RunFolder  # the command line reads this page before it needs numpy

    check_loggers({name for plan, _ in plans for entry in plan.entries for name in entry.recipe.training.logger})
    launch = find_launch()
    tuned = any(plan.tune for plan, _ in plans)
    if tuned and len(plans) > 1:
        raise ComparisonError("tuned comparisons are made one at a time")
    if tuned and launch is not None and launch.world_size > 1:
        raise ComparisonError("--tune makes single runs side by side: start it without torchrun and srun")
    started = time.perf_counter()
    # without links resolved: names stay as the user gave them
    tasks = {
        os.path.normpath(folder / name): recipe_to_dict(recipe)
        for plan, folder in plans
        for name, recipe in plan.runs()
    }
    first = plans[0][0]
    work = partial(train_one, imports=first.imports)
    if launch is not None and launch.rank > 0:
        # the first process sees to all else; in the first run they wait for it
        for path, content in tasks.items():
            work(path, content)
        return
    records = [record_of(folder, plan.describe(command), resume) for plan, folder in plans]

    def begin(ask: Ask) -> None:
        unfinished = {path: content for path, content in tasks.items() if not (Path(path) / "results.json").exists()}
        if unfinished:
            _see_that_all_can_be_made(ask, unfinished, len(tasks), first.imports, tuned)
            if on_data is not None:
                for line in ask(_describe, next(iter(unfinished.values())), first.imports):
                    on_data(line)
        on_begin()
        for (_, folder), record in zip(plans, records, strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            write_record(folder / RECORD, record)

    failures: dict[str, str] = {}
    if launch is not None and launch.world_size > 1:
        begin(ask_here)
        for path, content in tasks.items():
            on_run(Path(path).name, work(path, content))
    elif first.tune:
        failures = _tune(first, plans[0][1], on_run, begin)
    else:
        failures = run_side_by_side(work, tasks, first.workers, on_run, begin)
    seconds = time.perf_counter() - started
    for (plan, folder), record in zip(plans, records, strict=True):
        machine = RunFolder(folder / plan.runs()[0][0]).environment()
        total = record.total_seconds + seconds
        write_record(folder / RECORD, msgspec.structs.replace(record, total_seconds=total, machine=machine))
    if failures:
        raise ComparisonError(f"{len(failures)} of {len(tasks)} runs failed: {_in_brief(failures)}", failures)


def _tune(plan: Plan, folder: Path, on_run: OnRun, begin: Callable[[Ask], None]) -> dict[str, str]:
    """The runs of a plan at a learning rate of their own each; what failed."""
    from ncmi.training.run_folder import RunFolder
    from ncmi.training.tuning import RateSearch, try_rate

    runs = {os.path.normpath(folder / name): recipe for name, recipe in plan.runs()}
    searches = RateSearch(runs, folder / "trials", on_run)
    with ExitStack() as held:

        def begin_alone(ask: Ask) -> None:
            begin(ask)
            held.enter_context(RunFolder(folder).lock())  # trials become runs and go: two calls would take them away

        work = partial(try_rate, imports=plan.imports)
        failures = run_side_by_side(work, {}, processors_of(plan), searches.finished, begin_alone, searches.more)
    return searches.by_run(failures) | searches.failures


def _see_that_all_can_be_made(
    ask: Ask, contents: Mapping[str, dict[str, Any]], total: int, imports: tuple[str, ...], tuned: bool
) -> None:
    try:
        faults = ask(_rehearse, contents, imports, tuned)
    except WorkError as error:
        raise ComparisonError(str(error)) from None
    if faults:
        raise ComparisonError(f"nothing was begun: {told(faults, total)}", faults)


def _describe(content: dict[str, Any], imports: tuple[str, ...]) -> list[str]:
    """:func:`ncmi.training.rehearsal.describe`, by a name that needs no torch."""
    from ncmi.training.rehearsal import describe

    return describe(recipe_from_dict(content), imports)


def _rehearse(contents: dict[str, dict[str, Any]], imports: tuple[str, ...], tuned: bool) -> dict[str, str]:
    """:func:`ncmi.training.rehearsal.rehearse`, by a name that needs no torch."""
    from ncmi.training.rehearsal import rehearse

    return rehearse(contents, imports, tuned)


def told(faults: Mapping[str, str], total: int) -> str:
    """What stands against some of the runs of a comparison, in one line."""
    return f"{len(faults)} of {total} runs cannot be made: {_in_brief(faults)}"


def processors_of(plan: Plan) -> int:
    """How many runs of a plan go side by side."""
    at_once = 1
    if plan.tune:
        from ncmi.training.tuning import MULTIPLES

        at_once = len(MULTIPLES.start)
    return min(plan.workers or processors(), at_once * len(plan.runs()))


def _in_brief(faults: Mapping[str, str]) -> str:
    """What went wrong, each reason once, with the first run that it befell and how many more."""
    names: dict[str, list[str]] = {}
    for path, fault in faults.items():
        names.setdefault(fault, []).append(Path(path).name)
    parts = []
    for fault, runs in names.items():
        more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
        parts.append(f"{runs[0]}{more}: {fault}")
    return "; ".join(parts)


def record_of(folder: Path, record: ComparisonRecord, resume: bool | None) -> ComparisonRecord:
    """See that a comparison can be made in a folder: nothing is there, or an earlier one of the same recipes.

    Nothing is written. A folder that holds a comparison's record and no run, as one that was stopped in its first
    moments, counts as empty.

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
        if earlier.tuned != record.tuned:
            raise ComparisonError(
                f"{folder} was begun {'with' if earlier.tuned else 'without'} --tune: go on in the same way, or give "
                "another --out"
            )
        return msgspec.structs.replace(record, total_seconds=earlier.total_seconds)
    if not _holds_nothing(folder):
        raise ComparisonError(f"{folder} exists and is not empty: choose another --out, or go on with it by --resume")
    return record


def _holds_nothing(folder: Path) -> bool:
    if not folder.exists() and not folder.is_symlink():
        return True
    if not folder.is_dir():
        return False
    return all(entry.name == RECORD or entry.name.endswith(PARTIAL) for entry in folder.iterdir())


def _same_recipe(earlier: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether they say the same of what runs share; fields that the earlier one does not have are at their defaults."""
    try:
        one, other = (_with_fold(recipe_from_dict(content), 0) for content in (earlier, now))
    except ValueError:
        return False
    return one == replace(other, training=replace(other.training, seed=one.training.seed))


def _with_fold(recipe: Recipe, fold: int) -> Recipe:
    return replace(recipe, data=replace(recipe.data, fold=fold))


def train_one(path: str, content: dict[str, Any], imports: tuple[str, ...] = ()) -> Results:
    """One run: by a recipe as plain values, into a folder; gone on with where it has been begun."""
    from ncmi.training.rehearsal import loaded
    from ncmi.training.run import train

    for module in imports:
        import_module(module)
    recipe = recipe_from_dict(content)
    return train(recipe, path, resume="auto", data=loaded(recipe))
