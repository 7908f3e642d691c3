"""A search over options of a recipe, by Optuna: a study in a folder, which any number of processes work at together.

Each trial is a run folder and is judged by its validation part alone. What is known lies in the study's journal; a
process that dies lets go of its trial's lock, and the next one goes on with that run from its checkpoint.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields, is_dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

import msgspec
from filelock import FileLock, Timeout

from ncmi.errors import Interrupted, reason
from ncmi.files import write_atomically, write_json
from ncmi.recipes import Recipe, SampleData, recipe_from_dict, recipe_to_dict
from ncmi.training.launch import find_launch
from ncmi.training.schema import FORMAT, Record, Results, read_record, write_record
from ncmi.training.workers import check_workers, run_side_by_side

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution

SweepMetric = Literal["accuracy", "macro_f1", "macro_auc", "nll"]
_OWN: Mapping[str, tuple[str, float, float, bool]] = {
    "ncmi": ("label_smoothing", 0.0, 0.4, False),
    "label_smoothing": ("epsilon", 0.0125, 0.6, True),
    "focal": ("gamma", 0.125, 8.0, True),
    "poly": ("epsilon", -0.5, 8.0, False),
    "anticlass": ("gamma", 0.1, 10.0, True),
    "opl": ("opl_weight", 0.05, 5.0, True),
    "supcon": ("temperature", 0.02, 0.5, True),
    "cmic": ("concentration_weight", 0.05, 2.0, True),
    "generalized_cross_entropy": ("q", 0.05, 1.0, False),
    "symmetric_cross_entropy": ("alpha", 0.1, 6.0, True),
}
"""The option of a loss that is searched by default, with its range, and whether that is one of magnitudes."""
_RATE = "training.learning_rate"
_AROUND = 10.0  # an option of no range of its own is searched so many times below and above its present value
_SECTIONS = ("training", "objective", "network")


class SweepError(ValueError):
    """A search cannot be made as asked; the message names the cure."""


class Dimension(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One option that is searched: numbers from ``low`` to ``high``, by magnitude where ``log``, or ``choices``."""

    name: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[str | int | float | bool | None, ...] = ()

    def has(self, value: Any) -> bool:
        """Whether a value is one that is searched."""
        return value in self.choices if self.choices else value is not None and self.low <= value <= self.high

    def __str__(self) -> str:
        if self.choices:
            return f"{self.name} one of {', '.join(map(str, self.choices))}"
        return f"{self.name} {self.low:g} to {self.high:g}{' by magnitude' if self.log else ''}"


class SweepRecord(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``sweep.json``: what is searched, the same for all processes that work at it.

    Attributes:
        recipe: of the trials, but for what is searched.
        dimensions: what is searched.
        metric: of the validation part, by the objective's first read-out; the most is best, of NLL the least.
        prune: whether trials end early whose validation is below the median of the others at the same epoch.
    """

    format: int = FORMAT
    recipe: dict[str, Any]
    dimensions: list[Dimension]
    metric: SweepMetric
    prune: bool


class TrialRecord(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What came of a trial: its state in Optuna's words, its value, and its run folder below the sweep's."""

    number: int
    state: str
    value: float | None
    params: dict[str, Any]
    run: str


def parse_dimension(text: str, recipe: Recipe) -> Dimension:
    """An option to search, as typed: NAME, NAME=LOW:HIGH, NAME=LOW:HIGH:log, or NAME=A,B,C.

    A name alone is searched in the range of the loss's own option, the learning rate from 1/256 to 4 times its present
    value, other numbers ten times below and above theirs.

    Raises:
        SweepError: for an unknown option, values of another type, or a range that is none.

    >>> from ncmi.recipes import ImageData
    >>> print(parse_dimension("training.weight-decay=1e-5:1e-3:log", Recipe(ImageData("digits"))))
    training.weight_decay 1e-05 to 0.001 by magnitude
    """
    typed, equals, values = text.partition("=")
    name = typed.removeprefix("--").replace("-", "_")
    present, kind = _present(recipe, name)
    try:
        if not equals:
            return _usual(name, present, recipe)
        if ":" in values:
            low, high, *more = values.split(":")
            whole = isinstance(present, int) and not isinstance(present, bool)
            if more not in ([], ["log"]) or not (float(low) < float(high)):
                raise ValueError("a range is LOW:HIGH or LOW:HIGH:log")
            found = Dimension(name=name, low=float(low), high=float(high), log=bool(more), whole=whole)
        else:
            choices = [_value(word, kind) for word in values.split(",")]
            found = Dimension(name=name, choices=tuple(choices))
        bounds = (round(found.low), round(found.high)) if found.whole else (found.low, found.high)
        for end in found.choices or bounds:
            with_option(recipe, name, end)
        if found.log and found.low <= 0:
            raise ValueError("a range by magnitude begins above 0")
    except (ValueError, TypeError) as error:
        raise SweepError(f"--search {text}: {reason(error)}") from None
    return found


def default_dimensions(recipe: Recipe) -> tuple[Dimension, ...]:
    """The learning rate, and the loss's own option where it has one."""
    names = [_RATE]
    if recipe.objective.name in _OWN:
        names.append(f"objective.{_OWN[recipe.objective.name][0]}")
    return tuple(parse_dimension(name, recipe) for name in names)


def _usual(name: str, present: Any, recipe: Recipe) -> Dimension:
    own = _OWN.get(recipe.objective.name)
    if own is not None and name == f"objective.{own[0]}":
        return Dimension(name=name, low=own[1], high=own[2], log=own[3])
    if isinstance(present, bool):
        return Dimension(name=name, choices=(False, True))
    if not isinstance(present, int | float) or not present > 0:
        raise ValueError(f"it is {present} now, around which there is no range: give one, such as {name}=0:1")
    whole = isinstance(present, int)
    below, above = 1 / _AROUND, _AROUND
    if name == _RATE:
        from ncmi.training.tuning import MULTIPLES  # with numpy, which the command line's help can do without

        below, above = (MULTIPLES.points[place] for place in (MULTIPLES.start[0], MULTIPLES.start[-1]))
    low = max(1.0, present * below) if whole else present * below
    return Dimension(name=name, low=low, high=present * above, log=True, whole=whole)


def _value(word: str, kind: Any) -> Any:
    """A typed word as a value of an option."""
    plain: Any = {"none": None, "true": True, "false": False}.get(word.lower(), word)
    return msgspec.convert(plain, kind, strict=False)


def _present(recipe: Recipe, name: str) -> tuple[Any, Any]:
    """Value and type of an option."""
    section, *rest = name.split(".")
    inner: Any = getattr(recipe, section, None) if section in _SECTIONS else None
    kind: Any = None
    for part in rest:
        known = [field.name for field in fields(inner)] if is_dataclass(inner) else []
        if part not in known:
            raise SweepError(f"--search {name}: no such option; {section} has {', '.join(known) or 'none'}")
        kind, inner = get_type_hints(type(inner))[part], getattr(inner, part)
    if not rest:
        raise SweepError(f"--search {name}: give an option of {', '.join(_SECTIONS)}, such as {_RATE}")
    return inner, kind


def with_option(recipe: Recipe, name: str, value: Any) -> Recipe:
    """The recipe with one option, such as ``objective.gamma``, at another value.

    Centroids keep their learning rate's ratio to that of the network, where the latter is changed.

    Raises:
        ValueError: for a value that the option does not take.
    """
    changed: Recipe = _replaced(recipe, name.split("."), value)
    if name == _RATE:
        training = recipe.training
        rate = training.centroid_learning_rate * value / training.learning_rate
        changed = replace(changed, training=replace(changed.training, centroid_learning_rate=rate))
    return changed


def _replaced(section: Any, names: Sequence[str], value: Any) -> Any:
    name, *rest = names
    return replace(section, **{name: _replaced(getattr(section, name), rest, value) if rest else value})


def sweep_record(
    recipe: Recipe, dimensions: Sequence[Dimension], metric: SweepMetric | None = None, prune: bool = False
) -> SweepRecord:
    """What is searched: the recipe as trials have it, with a validation part that is not trained on.

    Raises:
        SweepError: without a validation part, for a dimension that is named twice, or a metric that no epoch has.
    """
    bags, data = recipe.data.kind == "bags", recipe.data
    if isinstance(data, SampleData):
        # judged by the first read-out alone, the others need not be fitted
        recipe = replace(
            recipe, data=replace(data, train_on_all=False), training=replace(recipe.training, readouts="own")
        )
        if data.validation_fraction == 0 and data.validation is None:
            raise SweepError("validation_fraction=0 leaves nothing to judge trials by: give a larger one, such as 0.1")
    metric = metric or ("macro_auc" if bags else "accuracy")
    names = [dimension.name for dimension in dimensions]
    if len(set(names)) < len(names) or not names:
        raise SweepError(f"--search {' '.join(names)}: name each option once, and at least one")
    if prune and not bags and metric not in ("accuracy", "nll"):
        raise SweepError(f"epochs of this data have no {metric} to end trials by: leave --prune out")
    return SweepRecord(recipe=recipe_to_dict(recipe), dimensions=list(dimensions), metric=metric, prune=prune)


def run_sweep(
    record: SweepRecord,
    path: str | Path,
    trials: int,
    *,
    workers: int = 1,
    imports: Sequence[str] = (),
    on_trial: Callable[[TrialRecord], None] = lambda trial: None,
) -> TrialRecord:
    """Work at a study until it has so many trials, and return the best one; several processes may do so at once.

    Beside the study's journal the folder gets ``trials.csv``, and ``best.json``: the recipe of the best trial.

    Args:
        record: from :func:`sweep_record`; that of an earlier call into the same folder must be the same.
        path: the folder, which processes on other machines may share.
        trials: of the whole study, those of other processes and of earlier calls included.
        workers: processes side by side, one thread each; with 1 this one, with as many threads as the recipe says.
        imports: modules that register objectives or networks of the user's own.
        on_trial: called with each trial that has ended here.

    Raises:
        SweepError: under torchrun, for a folder with another search, or if no trial came to an end.
        Interrupted: when asked to stop; the same call goes on.
    """
    if (launch := find_launch()) is not None and launch.world_size > 1:
        raise SweepError(
            "torchrun trains one run with many processes, a sweep many runs: start ncmi sweep without torchrun, once "
            "on each machine, with the same --out, which they share, and with --workers"
        )
    check_workers(workers)
    folder = Path(path)
    _open(folder, record)
    left = trials - _count(_study(folder, record))
    if workers == 1:
        while (ended := run_trial("", {"folder": str(folder), "trials": trials}, imports)) is not None:
            on_trial(ended)
    elif left > 0:
        content = {"folder": str(folder), "trials": trials, "threads": 1}
        tasks = {f"trial{number}": content for number in range(left)}
        failures = run_side_by_side(
            partial(run_trial, imports=tuple(imports)),
            tasks,
            workers,
            lambda name, ended: None if ended is None else on_trial(ended),
            devices=recipe_from_dict(record.recipe).training.devices,
        )
        if failures:
            raise SweepError(f"{len(failures)} trials failed: {next(iter(failures.values()))}")
    return _finish(folder, record)


def _open(folder: Path, record: SweepRecord) -> None:
    """The folder with its record, made or found."""
    if folder.exists() and not (folder / "sweep.json").exists() and any(folder.iterdir()):
        raise SweepError(f"{folder} exists and is no sweep: choose another --out")
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not (folder / "sweep.json").exists():
            write_record(folder / "sweep.json", record)
        elif read_record(folder / "sweep.json", SweepRecord) != record:
            raise SweepError(f"{folder} holds a search of another recipe or other options: choose another --out")


def _study(folder: Path, record: SweepRecord) -> Study:
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = str(folder / "study.log")
    # this lock works on network file systems too
    backend = JournalFileBackend(journal, lock_obj=JournalFileOpenLock(journal))
    return optuna.create_study(
        storage=JournalStorage(backend),
        study_name="sweep",
        load_if_exists=True,
        direction="minimize" if record.metric == "nll" else "maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
        if record.prune
        else optuna.pruners.NopPruner(),
    )


def _count(study: Study) -> int:
    """Trials that count: all but those that were given up, whose options are tried again."""
    from optuna.trial import TrialState

    return sum(trial.state not in (TrialState.FAIL, TrialState.WAITING) for trial in study.get_trials(deepcopy=False))


def run_trial(name: str, content: dict[str, Any], imports: Sequence[str] = ()) -> TrialRecord | None:
    """Make the study's next trial, or go on with one whose process has died; None where there is none left.

    Args:
        name: of the task; not used.
        content: the sweep's folder, number of trials, and threads.
        imports: modules that register objectives or networks of the user's own.
    """
    for module in imports:
        import_module(module)
    folder, trials = Path(content["folder"]), int(content["trials"])
    record = read_record(folder / "sweep.json", SweepRecord)
    with ExitStack() as held:
        with FileLock(folder / ".lock"):
            study = _study(folder, record)
            trial = _next(study, record, folder, trials)
            if trial is None:
                return None
            held.enter_context(FileLock(_lock_of(folder, trial.number), timeout=0))
        return _run(study, trial, record, folder, content.get("threads"))


def _lock_of(folder: Path, number: int) -> Path:
    return folder / "trials" / f".{number:04d}.lock"


def _next(study: Study, record: SweepRecord, folder: Path, trials: int) -> Trial | None:
    """Under the folder's lock: what is to be tried next."""
    import optuna
    from optuna.trial import TrialState

    known = study.get_trials(deepcopy=False)
    if not known:  # first the recipe as it is, as far as it lies in what is searched
        recipe = recipe_from_dict(record.recipe)
        present = {dimension: _present(recipe, dimension.name)[0] for dimension in record.dimensions}
        study.enqueue_trial({dimension.name: value for dimension, value in present.items() if dimension.has(value)})
    for lost in known:
        if lost.state == TrialState.RUNNING and _is_free(_lock_of(folder, lost.number)):
            study.tell(lost.number, state=TrialState.FAIL)
            study.enqueue_trial(lost.params, user_attrs={"run": lost.user_attrs["run"]})
    waiting = any(trial.state == TrialState.WAITING for trial in study.get_trials(deepcopy=False))
    if not waiting and _count(study) >= trials:
        return None
    # each trial has draws of its own, whichever process asks for it
    seed = 100_000 * int(record.recipe["training"]["seed"]) + len(known)
    study.sampler = optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=8, constant_liar=True)
    trial = study.ask({dimension.name: _distribution(dimension) for dimension in record.dimensions})
    if "run" not in trial.user_attrs:
        trial.set_user_attr("run", f"trials/{trial.number:04d}")
    return trial


def _is_free(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=0):
            return True
    except Timeout:
        return False


def _distribution(dimension: Dimension) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.choices:
        return CategoricalDistribution(dimension.choices)
    if dimension.whole:
        return IntDistribution(round(dimension.low), round(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _run(study: Study, trial: Trial, record: SweepRecord, folder: Path, threads: int | None) -> TrialRecord:
    import optuna
    from optuna.trial import TrialState

    from ncmi.training.rehearsal import loaded
    from ncmi.training.run import train
    from ncmi.training.run_folder import RunFolder

    run = folder / str(trial.user_attrs["run"])
    resume = (run / "recipe.json").exists()
    recipe = RunFolder(run).recipe() if resume else recipe_of_trial(record, trial.params)
    if threads is not None and not resume:
        recipe = replace(recipe, training=replace(recipe.training, threads=threads))

    def look(row: dict[str, Any]) -> None:
        if not record.prune:
            return
        value = row["validation_loss" if record.metric == "nll" else f"validation_{record.metric}"]
        trial.report(float("nan") if value is None else value, row["epoch"])
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        results = train(recipe, run, resume=resume, data=loaded(recipe), on_epoch=look)
        frozen = study.tell(trial, _judged(results, record.metric))
    except optuna.TrialPruned:
        frozen = study.tell(trial, state=TrialState.PRUNED)
    except FloatingPointError:  # it diverged, which says as much as any figure
        frozen = study.tell(trial, float("inf") if record.metric == "nll" else 0.0)
    except Interrupted:  # whoever comes next goes on with it
        raise
    except Exception:
        study.tell(trial, state=TrialState.FAIL)
        raise
    return _told(frozen)


def recipe_of_trial(record: SweepRecord, params: Mapping[str, Any]) -> Recipe:
    """The recipe of a trial."""
    recipe = recipe_from_dict(record.recipe)
    for name, value in params.items():
        recipe = with_option(recipe, name, value)
    return recipe


def _judged(results: Results, metric: SweepMetric) -> float:
    scores = results.readouts[results.primary_readouts[0]].validation
    if scores is None:
        raise SweepError("there is no validation part to judge trials by: give a larger --data.validation-fraction")
    value = scores.nll if metric == "nll" else getattr(scores, metric).value
    if value is None:
        raise SweepError(f"the validation part has no {metric}: give another --metric")
    return float(value)


def _told(trial: Any) -> TrialRecord:
    run = str(trial.user_attrs.get("run", ""))
    value = trial.value if trial.state.name == "COMPLETE" else None
    return TrialRecord(number=trial.number, state=trial.state.name, value=value, params=dict(trial.params), run=run)


def _finish(folder: Path, record: SweepRecord) -> TrialRecord:
    """The best trial, with its recipe and a table of all of them written."""
    from optuna.trial import TrialState

    with FileLock(folder / ".lock"):
        study = _study(folder, record)
        trials = [_told(trial) for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
        complete = [trial for trial in trials if trial.value is not None]
        if not complete:
            raise SweepError(f"{folder}: no trial has come to an end yet: give more --trials, or leave --prune out")
        names = [dimension.name for dimension in record.dimensions]

        def write(temporary: Path) -> None:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                table = csv.writer(file, lineterminator="\n")
                table.writerow(["trial", "state", f"validation_{record.metric}", *names, "run"])
                for trial in trials:
                    params = [trial.params.get(name) for name in names]
                    table.writerow([trial.number, trial.state.lower(), trial.value, *params, trial.run])

        write_atomically(folder / "trials.csv", write)
        sign = -1.0 if record.metric == "nll" else 1.0
        best = max(complete, key=lambda trial: sign * (trial.value or 0.0))
        recipe = recipe_of_trial(record, best.params)
        if isinstance(recipe.data, SampleData):
            recipe = replace(recipe, training=replace(recipe.training, readouts="all"))
        write_json(folder / "best.json", recipe_to_dict(recipe))
    return best
