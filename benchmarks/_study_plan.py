"""What the study runs: methods with their small grids, the search over them, the cells of each part's tables.

Whatever is chosen is chosen by the mean validation accuracy of seeds 100, 101, …, none of which is reported.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from _study_sets import SETS
from ncmi.objectives.options import objective_options
from ncmi.recipes import Recipe, recipe_to_dict
from ncmi.training.run_folder import RunFolder
from ncmi.training.schema import Readout

FIRST_TUNING_SEED = 100
BROKE_DOWN = "broke-down.json"
Options = Mapping[str, Any]
Pairs = tuple[tuple[str, Any], ...]


class StudyError(ValueError):
    """The study cannot be made as asked; the message names the cure."""


@dataclass(frozen=True)
class Method:
    """One line of a table.

    Attributes:
        name: in commands.
        label: in tables.
        objective: name of the loss.
        options: that differ from its default.
        rates: learning rates that it may choose from, in multiples of the recipe's; a single 1 is no search.
        grid: further options, each tried at the best of these rates.
    """

    name: str
    label: str
    objective: str
    options: Options = field(default_factory=dict)
    rates: tuple[float, ...] = (1.0,)
    grid: tuple[Options, ...] = ()

    @property
    def searched(self) -> bool:
        return len(self.rates) + len(self.grid) > 1


RATES = (1.0, 0.4, 2.0)
NCMI = Method("ncmi", "NCMI", "ncmi")
CROSS_ENTROPY = Method("cross_entropy", "Cross-entropy", "cross_entropy")
TRANSFER = (
    NCMI,  # at its default, not searched
    replace(CROSS_ENTROPY, rates=RATES),
    Method("label_smoothing", "Label smoothing", "label_smoothing", {}, RATES, ({"epsilon": 0.05}, {"epsilon": 0.2})),
    Method("focal", "Focal", "focal", {}, RATES, ({"gamma": 1.0},)),
    Method("poly", "PolyLoss", "poly", {}, RATES, ({"epsilon": 3.0},)),
    Method("squentropy", "Squentropy", "squentropy", {}, RATES),
)
# label, options of NCMI, and multiples of the recipe's learning rates
NEIGHBORS: tuple[tuple[str, Options, Mapping[str, float]], ...] = (
    ("default", {}, {}),
    ("learning rate ×0.5", {}, {"learning_rate": 0.5}),
    ("learning rate ×2.5", {}, {"learning_rate": 2.5}),
    ("centroid rate ×0.2", {}, {"centroid_learning_rate": 0.2}),
    ("centroid rate ×5", {}, {"centroid_learning_rate": 5.0}),
    ("temperature 0.25", {"temperature": 0.25}, {}),
    ("temperature 1", {"temperature": 1.0}, {}),
    ("p = −4", {"separation_power": -4.0}, {}),
    ("p = −8", {"separation_power": -8.0}, {}),
    ("p = −16", {"separation_power": -16.0}, {}),
    ("free centroids, κ = 10", {"anchor_scale": 10.0}, {}),
    ("robustness 0.3", {"robustness": 0.3}, {}),
    ("ETF anchors", {"anchors": "etf"}, {}),
    ("fixed centroids", {"centroids": "fixed"}, {}),
    ("frozen center", {"center": "frozen"}, {}),
)
# every method has the same rates to choose from here, NCMI as well, and its rivals another value of their own option;
# NCMI (robust) bounds the likelihood, the more the surer the model is
NOISE = (
    replace(CROSS_ENTROPY, rates=RATES),
    replace(NCMI, rates=RATES),
    Method("ncmi_robust", "NCMI (robust)", "ncmi", {"robustness": "auto"}, RATES),
    Method("label_smoothing", "Label smoothing", "label_smoothing", {}, RATES, ({"epsilon": 0.3},)),
    Method("gce", "GCE", "generalized_cross_entropy", {}, RATES, ({"q": 0.4},)),
    Method("sce", "SCE", "symmetric_cross_entropy", {}, RATES, ({"alpha": 6.0, "beta": 0.1},)),
)
TAIL_RATIO = 100.0
LEVELS, KINDS = (0.4, 0.2, 0.0), ("symmetric", "pair")
BATCH_SIZES: dict[str, tuple[int, ...]] = {
    "digits": (8, 32, 128, 512, 1024),
    "letter": (8, 32, 128, 512, 1024),
    "cifar100": (32, 128, 512),
}
TAIL = (
    CROSS_ENTROPY,
    NCMI,
    Method("ncmi_balanced", "NCMI (balanced)", "ncmi", {"weight": "balanced"}),
    Method("balanced_ce", "Balanced CE", "cross_entropy", {"weight": "balanced"}),
    Method("adjusted_ce", "Logit-adjusted CE", "cross_entropy", {"logit_adjustment": 1.0}),
)


@dataclass(frozen=True)
class Setting:
    """A loss and what is changed of options, training and data; all else is the set's recipe and the loss's default."""

    objective: str
    options: Pairs = ()
    training: Pairs = ()
    data: Pairs = ()

    @classmethod
    def of(cls, objective: str, options: Options = {}, training: Options = {}, data: Options = {}) -> Setting:  # noqa: B006
        """From mappings, in order of their names."""
        return cls(objective, *(tuple(sorted(values.items())) for values in (options, training, data)))

    def on(self, data: Options) -> Setting:
        """The same with other changes of the data."""
        return replace(self, data=tuple(sorted(data.items())))

    def __str__(self) -> str:
        changes = (*self.options, *self.training, *self.data)
        texts = (f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in changes)
        return " ".join((self.objective, *texts))


@dataclass(frozen=True)
class Run:
    """One run of a setting."""

    set: str
    setting: Setting
    seed: int

    @cached_property
    def name(self) -> str:
        """Of its entry in a comparison, the same for all seeds; another one where its recipe would be another."""
        content = json.dumps(recipe_to_dict(replace(self, seed=0).recipe()), sort_keys=True)
        return f"{self.set}-{self.setting.objective}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"

    @property
    def folder(self) -> Path:
        """Below the study's folder."""
        return Path("runs") / self.set / f"{self.name}-seed{self.seed}"

    def recipe(self) -> Recipe:
        """With its data by name.

        Raises:
            StudyError: where this version knows no such loss, option or field.
        """
        setting = self.setting
        try:
            recipe = SETS[self.set].recipe(objective_options(setting.objective)(**dict(setting.options)))
            training = replace(recipe.training, **{"accelerator": "cpu", **dict(setting.training)})
            # runs are short and none is gone on with
            training = replace(training, seed=self.seed, threads=1, checkpoint_seconds=3600.0)
            return replace(recipe, data=replace(recipe.data, **dict(setting.data)), training=training)
        except (TypeError, KeyError) as error:
            raise StudyError(f"{self}: this version of ncmi does not know it ({error})") from None

    def __str__(self) -> str:
        return f"{self.set} {self.setting} seed {self.seed}"


# how a measure is read from a read-out of results.json
MEASURES: dict[str, Callable[[Readout], float | None]] = {
    "test_accuracy": lambda judged: judged.test.accuracy.value,
    "test_balanced_accuracy": lambda judged: judged.test.balanced_accuracy.value,
    "validation_accuracy": lambda judged: judged.validation and judged.validation.accuracy.value,
    "test_nll": lambda judged: judged.test.nll,
    "test_calibration_error": lambda judged: judged.test.calibration_error,
    "test_calibrated_nll": lambda judged: judged.calibration and judged.calibration.nll,
    "test_calibrated_error": lambda judged: judged.calibration and judged.calibration.calibration_error,
}


@dataclass(frozen=True)
class Record:
    """What is known of a finished run: measures by read-out, in 0 … 1; none where training broke down."""

    primary: str = ""
    readouts: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    curve: Sequence[float | None] = ()
    seconds: float = math.nan
    commit: str | None = None

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """Of a run's folder; None where it is not finished."""
        folder = RunFolder(path)
        if (path / BROKE_DOWN).exists():
            return cls()
        if not folder.finished:
            return None
        results = folder.results()
        readouts = {
            name: {measure: read(judged) for measure, read in MEASURES.items()}
            for name, judged in results.readouts.items()
        }
        curve = [row.validation_accuracy for row in folder.metrics()]
        commit = folder.environment().get("commit")
        return cls(results.primary_readouts[0], readouts, curve, results.total_seconds, commit)

    @property
    def broke_down(self) -> bool:
        return not self.readouts

    def score(self, measure: str) -> float:
        """By the first read-out by which the loss is judged, in 0 … 1; NaN where it is not known."""
        value = self.readouts.get(self.primary, {}).get(measure)
        return math.nan if value is None else value


@dataclass(frozen=True)
class Study:
    """What is studied, with the runs that there are.

    Attributes:
        folder: of runs, tables and figures.
        sets: names of data sets.
        methods: names of methods to restrict a part to; None for all.
        seeds, tune_seeds: how many; None for each set's own number.
        common: changes of every run's training.
        levels, kinds: of wrong labels.
        known: runs that have been read.
    """

    folder: Path
    sets: tuple[str, ...]
    methods: Sequence[str] | None = None
    seeds: int | None = None
    tune_seeds: int | None = None
    common: Options = field(default_factory=dict)
    levels: tuple[float, ...] = LEVELS
    kinds: tuple[str, ...] = KINDS
    known: dict[Run, Record] = field(default_factory=dict)

    def chosen(self, methods: Sequence[Method]) -> list[Method]:
        """Those that were asked for."""
        return [method for method in methods if self.methods is None or method.name in self.methods]

    def tuning_seeds(self, name: str) -> range:
        """Seeds of a set that are searched with, none of which is reported."""
        count = SETS[name].tune_seeds if self.tune_seeds is None else self.tune_seeds
        return range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + count)

    def final_runs(self, name: str, setting: Setting | None) -> list[Run]:
        """A setting with every seed that is reported; none of a setting that is not known yet."""
        seeds = range(SETS[name].seeds if self.seeds is None else self.seeds)
        return [] if setting is None else [Run(name, setting, seed) for seed in seeds]

    def get(self, run: Run) -> Record | None:
        """What is known of a run."""
        if run not in self.known:
            try:
                record = Record.read(self.folder / run.folder)
            except (OSError, ValueError):  # damaged: it is made again
                return None
            if record is None:
                return None
            self.known[run] = record
        return self.known[run]


def usual_recipe(name: str, method: Method) -> Recipe:
    """A method on a set as the set's recipe has it."""
    return Run(name, Setting.of(method.objective, method.options), 0).recipe()


@dataclass(frozen=True)
class Candidate:
    """One point of a grid with its mean validation accuracy; −∞ where a run broke down."""

    setting: Setting
    rate: float
    options: Options
    accuracy: float = math.nan


@dataclass(frozen=True)
class Search:
    """A search, as far as it has come: the runs that it takes, and the choice once they are all known."""

    runs: tuple[Run, ...] = ()
    tried: tuple[Candidate, ...] = ()
    choice: Candidate | None = None


def search(study: Study, name: str, method: Method, data: Options = {}) -> Search:  # noqa: B006
    """The learning rate first, at the method's own options; then its further options at that rate.

    Judged by the mean validation accuracy over the tuning seeds; the earlier candidate, and so the default, wins ties.
    """
    seeds = study.tuning_seeds(name) if method.searched else range(0)
    runs: list[Run] = []
    tried: list[Candidate] = []

    def stage(points: Sequence[tuple[float, Options]]) -> bool:
        """Whether all runs of these candidates are known."""
        candidates = []
        for rate, more in points:
            training = dict(study.common)
            if rate != 1:
                training["learning_rate"] = rate * usual_recipe(name, method).training.learning_rate
            setting = Setting.of(method.objective, {**method.options, **more}, training, data)
            needed = [Run(name, setting, seed) for seed in seeds]
            candidates.append(Candidate(setting, rate, more, _validated(study, needed)))
            runs.extend(needed)
        known = [candidate for candidate in candidates if not (seeds and math.isnan(candidate.accuracy))]
        tried.extend(known)
        return len(known) == len(candidates)

    def best() -> Candidate:
        return max(tried, key=lambda candidate: round(candidate.accuracy, 9)) if seeds else tried[0]

    if not stage([(rate, {}) for rate in (method.rates if seeds else method.rates[:1])]):
        return Search(tuple(runs), tuple(tried))
    if seeds and not stage([(best().rate, more) for more in method.grid]):
        return Search(tuple(runs), tuple(tried))
    return Search(tuple(runs), tuple(tried), best())


def _validated(study: Study, runs: Sequence[Run]) -> float:
    """Mean validation accuracy of the runs, NaN if one of them has not been made."""
    values = []
    for run in runs:
        record = study.get(run)
        if record is None:
            return math.nan
        values.append(-math.inf if record.broke_down else record.score("validation_accuracy"))
    return statistics.fmean(values) if values else math.nan


@dataclass(frozen=True)
class Cell:
    """A method with its setting, once it is known, by the search that serves it; ``table`` and ``column``: where."""

    method: Method
    setting: Setting | None
    search: Search = Search()
    table: str = ""
    column: str = ""


Cells = dict[str, Cell]
CellsOf = Callable[[Study, str], Cells]


def _searched(study: Study, name: str, method: Method, data: Options = {}) -> Cell:  # noqa: B006
    outcome = search(study, name, method, data)
    return Cell(method, outcome.choice and outcome.choice.setting, outcome)


def transfer_cells(study: Study, name: str) -> Cells:
    """Every method searched (NCMI not), by its name."""
    return {method.name: _searched(study, name, method) for method in study.chosen(TRANSFER)}


def neighborhood_cells(study: Study, name: str) -> Cells:
    """NCMI at its default and at its neighbors, by label."""
    usual = usual_recipe(name, NCMI).training
    cells: Cells = {}
    for label, options, multiples in NEIGHBORS:
        rates = {rate: getattr(usual, rate) * multiple for rate, multiple in multiples.items()}
        cells[label] = Cell(NCMI, Setting.of("ncmi", options, {**study.common, **rates}))
    return cells


def noise_cells(study: Study, name: str) -> Cells:
    """Every method in every condition (clean data comes once); a dear set is searched at its first noisy one."""
    conditions = [(level, kind) for level in study.levels for kind in study.kinds if level > 0]
    conditions += [(0.0, study.kinds[0])] if 0.0 in study.levels else []

    def damage(level: float, kind: str) -> Options:
        return {"label_noise": level, "noise_kind": kind} if level > 0 else {}

    cells: Cells = {}
    for level, kind in conditions:
        table = f"{kind}, {100 * level:g} % wrong" if level else "right labels"
        searched_at = conditions[0] if level > 0 and SETS[name].dear else (level, kind)
        for method in study.chosen(NOISE):
            cell = _searched(study, name, method, damage(*searched_at))
            setting = cell.setting and cell.setting.on(damage(level, kind))
            cells[f"{kind} {level:g}: {method.name}"] = replace(cell, setting=setting, table=table)
    return cells


def batch_cells(study: Study, name: str) -> Cells:
    """Every method at every batch size.

    Both rates follow the root of the batch size with AdamW, the batch size itself with SGD; epochs stay.
    """
    cells: Cells = {}
    for method in study.chosen((NCMI, CROSS_ENTROPY)):
        training = usual_recipe(name, method).training
        for size in BATCH_SIZES.get(name, BATCH_SIZES["digits"]):
            ratio, changes = size / training.batch_size, dict(study.common)
            if size != training.batch_size:
                factor = math.sqrt(ratio) if training.optimizer == "adamw" else ratio
                changes["batch_size"] = size
                changes["learning_rate"] = factor * training.learning_rate
                changes["centroid_learning_rate"] = factor * training.centroid_learning_rate
            setting = Setting.of(method.objective, method.options, changes)
            cells[f"{method.name} {size}"] = Cell(method, setting, column=str(size))
    return cells


def tail_cells(study: Study, name: str) -> Cells:
    """Every method on a long-tailed training part, by its name."""
    return {method.name: _searched(study, name, method, {"imbalance": TAIL_RATIO}) for method in study.chosen(TAIL)}


def curves_cells(study: Study, name: str) -> Cells:
    """NCMI at its default, and its rival as the search of the part transfer chose it, where that is known."""
    cells: Cells = {}
    for method in study.chosen(TRANSFER[:2]):
        choice = (
            search(study, name, method).choice or search(study, name, replace(method, rates=(1.0,), grid=())).choice
        )
        cells[method.name] = Cell(method, choice and choice.setting, Search(choice=choice))
    return cells


def open_runs(study: Study, cells_of: CellsOf) -> list[Run]:
    """Runs that a part asks for now and that are not there, set by set."""
    runs: list[Run] = []
    for name in study.sets:
        for cell in cells_of(study, name).values():
            runs += [*cell.search.runs, *study.final_runs(name, cell.setting)]
    return [run for run in dict.fromkeys(runs) if study.get(run) is None]
