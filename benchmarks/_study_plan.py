"""What the study runs: methods with their grids, the search over them, the cells of each part's tables.

Whatever is chosen is chosen by the mean validation accuracy of seeds 100, 101, … on rows that no reported test part
holds. Every loss that is called tuned has the same budget: learning rates from 1/256 to 4 times the usual one in steps
of 4, then the neighbors of the best in steps of 2 (down to 1/1024, up to 16), then four values of one option of its own
at that rate, extended where the best is at an edge and they have an order. Cross-entropy, square loss and squentropy
have no such option: they have the rates alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from _study_sets import FEW_ROWS, FIRST_TUNING_SEED, SETS, TUNING_VALIDATION, VALIDATION_OF_REST
from ncmi.objectives.options import objective_options
from ncmi.recipes import Recipe, recipe_to_dict
from ncmi.training.run_folder import RunFolder
from ncmi.training.schema import Readout
from ncmi.training.tuning import BROKE_DOWN, MULTIPLES, SearchGrid

TUNING_SEEDS = 3
Options = Mapping[str, Any]
NOTHING: Options = MappingProxyType({})
OptionGrid = SearchGrid[Options]
Pairs = tuple[tuple[str, Any], ...]


class StudyError(ValueError):
    """The study cannot be made as asked; the message names the cure."""


RATE = "rate"
RATES = SearchGrid(tuple({RATE: multiple} for multiple in MULTIPLES.points), MULTIPLES.start)
"""Learning rates, in multiples of the recipe's: those of ``ncmi compare --tune``."""


def grid_of(option: str, start: Sequence[Any], below: Sequence[float] = (), above: Sequence[float] = ()) -> OptionGrid:
    """Values of one option: those that are always tried, and those that lie below and above them."""
    points = tuple({option: value} for value in (*below, *start, *above))
    return SearchGrid(points, tuple(range(len(below), len(below) + len(start))))


NCMI_GRID = grid_of("label_smoothing", (0.0, 0.05, 0.1, 0.2), (), (0.3, 0.4, 0.6))
ROBUST_GRID = grid_of("robustness", ("auto", 0.5, 0.7, 1.0))


@dataclass(frozen=True)
class Method:
    """One line of a table.

    Attributes:
        name: in commands.
        label: in tables.
        objective: name of the loss.
        options: that differ from its default.
        training: what differs from the recipe's.
        grid: of the loss's own option, tried at the best learning rate; None where it has none.
    """

    name: str
    label: str
    objective: str
    options: Options = field(default_factory=dict)
    training: Options = field(default_factory=dict)
    grid: OptionGrid | None = None


NCMI = Method("ncmi", "NCMI", "ncmi", grid=NCMI_GRID)
ROBUST = Method("ncmi_robust", "NCMI (robust)", "ncmi", {"robustness": "auto"}, grid=ROBUST_GRID)
CROSS_ENTROPY = Method("cross_entropy", "Cross-entropy", "cross_entropy")
SMOOTHING = Method(
    "label_smoothing",
    "Label smoothing",
    "label_smoothing",
    grid=grid_of("epsilon", (0.05, 0.1, 0.2, 0.3), (0.0125, 0.025), (0.4, 0.6, 0.8)),
)
SQUARE = Method("square", "Square loss", "square")
SQUENTROPY = Method("squentropy", "Squentropy", "squentropy")
GCE = Method(
    "gce",
    "GCE",
    "generalized_cross_entropy",
    grid=grid_of("q", (0.3, 0.5, 0.7, 0.9), (0.05, 0.1, 0.2), (1.0,)),
)
SCE = Method(
    "sce",
    "SCE",
    "symmetric_cross_entropy",
    # of two numbers there is no order, and so nothing beyond an edge: the published pairs and two between them
    grid=SearchGrid(
        tuple({"alpha": a, "beta": b} for a, b in ((0.1, 1.0), (1.0, 1.0), (6.0, 1.0), (6.0, 0.1))), (0, 1, 2, 3)
    ),
)
TABLES = (NCMI, CROSS_ENTROPY, SMOOTHING, SQUARE, SQUENTROPY)
# by --methods alone
FURTHER = (
    Method("focal", "Focal", "focal", grid=grid_of("gamma", (0.5, 1.0, 2.0, 3.0), (0.125, 0.25), (5.0, 8.0))),
    Method("poly", "PolyLoss", "poly", grid=grid_of("epsilon", (0.5, 1.0, 2.0, 3.0), (-0.5, 0.25), (5.0, 8.0))),
    GCE,
    SCE,
    ROBUST,
    Method("ncmi_own", "NCMI (own lengths)", "ncmi", {"feature_length": "own"}, grid=NCMI_GRID),
)
# the best epoch is chosen by validation accuracy in every run of this method, searched ones included
BEST_EPOCH = Method("best_epoch", "Cross-entropy, best epoch", "cross_entropy", training={"selection": "best"})
NOISE = (NCMI, ROBUST, CROSS_ENTROPY, BEST_EPOCH, SMOOTHING, GCE, SCE)
TAIL_RATIO = 100.0
TAIL = (
    CROSS_ENTROPY,
    NCMI,
    Method("ncmi_balanced", "NCMI (balanced)", "ncmi", {"weight": "balanced"}),
    Method("balanced_ce", "Balanced CE", "cross_entropy", {"weight": "balanced"}),
    Method("adjusted_ce", "Logit-adjusted CE", "cross_entropy", {"logit_adjustment": 1.0}),
)
# label, options of NCMI, and multiples of the recipe's learning rates
NEIGHBORS: tuple[tuple[str, Options, Mapping[str, float]], ...] = (
    ("default", {}, {}),
    ("learning rate ×0.5", {}, {"learning_rate": 0.5}),
    ("learning rate ×2", {}, {"learning_rate": 2.0}),
    ("centroid rate ×0.25", {}, {"centroid_learning_rate": 0.25}),
    ("centroid rate ×4", {}, {"centroid_learning_rate": 4.0}),
    ("each feature's own length", {"feature_length": "own"}, {}),
    ("length ×⅓", {"feature_length": 0.1 * 128**0.5}, {}),
    ("length ×3", {"feature_length": 0.9 * 128**0.5}, {}),
    ("temperature 0.25", {"temperature": 0.25}, {}),
    ("temperature 1", {"temperature": 1.0}, {}),
    ("p = −1", {"separation_power": -1.0}, {}),
    ("p = −4", {"separation_power": -4.0}, {}),
    ("label smoothing 0.05", {"label_smoothing": 0.05}, {}),
    ("robustness 0.3", {"robustness": 0.3}, {}),
    ("robustness auto", {"robustness": "auto"}, {}),
    ("ETF anchors", {"anchors": "etf"}, {}),
    ("fixed centroids", {"centroids": "fixed"}, {}),
    ("moving center", {"center": "ema"}, {}),
)
METHODS = tuple({one.name: one for one in (*TABLES, *FURTHER, *NOISE, *TAIL)}.values())
LEVELS, KINDS = (0.4, 0.2, 0.0), ("symmetric", "pair")
# of wrong labels that go to one other class, 20 % is no condition of the study
CONDITIONS = ((0.4, "symmetric"), (0.2, "symmetric"), (0.4, "pair"), (0.0, "symmetric"))
BATCH_SIZES, LENGTHS = (8, 32, 128, 512, 1024), (0.25, 0.5, 1.0, 2.0, 4.0)
DEAR_SIZES = (32, 128, 512)
"""Of sets whose runs take minutes."""


@dataclass(frozen=True)
class Setting:
    """A loss and what is changed of options, training and data; all else is the set's recipe and the loss's default."""

    objective: str
    options: Pairs = ()
    training: Pairs = ()
    data: Pairs = ()

    @classmethod
    def of(
        cls, objective: str, options: Options = NOTHING, training: Options = NOTHING, data: Options = NOTHING
    ) -> Setting:
        """From mappings, by name; options at the loss's default are left out, so that nothing runs twice."""
        defaults = {one.name: one.default for one in fields(objective_options(objective))}
        options = {name: value for name, value in options.items() if name not in defaults or defaults[name] != value}
        return cls(objective, *(tuple(sorted(values.items())) for values in (options, training, data)))

    def on(self, data: Options) -> Setting:
        """The same with other changes of the data."""
        return replace(self, data=tuple(sorted(data.items())))

    def __str__(self) -> str:
        changes = (*self.options, *self.training, *self.data)
        texts = (f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in changes)
        return " ".join((self.objective, *texts))


@cache
def _name_of(name: str, setting: Setting) -> str:
    content = json.dumps(recipe_to_dict(Run(name, setting, 0).recipe()), sort_keys=True)
    return f"{name}-{setting.objective}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Run:
    """One run of a setting."""

    set: str
    setting: Setting
    seed: int

    @property
    def name(self) -> str:
        """The same for all seeds; another one where its recipe would be another."""
        return _name_of(self.set, self.setting)

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
            # runs are short and none is gone on with; what is reported is the loss's own read-out
            training = replace(training, seed=self.seed, threads=1, checkpoint_seconds=3600.0, readouts="own")
            parts: dict[str, float] = {}
            if SETS[self.set].read is not None:
                tuning = self.seed >= FIRST_TUNING_SEED
                parts = {"validation_fraction": TUNING_VALIDATION if tuning else VALIDATION_OF_REST}
                parts |= {"test_fraction": 0.0} if tuning else {}
            data = replace(recipe.data, **parts, **dict(setting.data))
            return replace(recipe, data=data, training=training)
        except (TypeError, KeyError) as error:
            raise StudyError(f"{self}: this version of ncmi does not know it ({error})") from None

    def __str__(self) -> str:
        return f"{self.set} {self.setting} seed {self.seed}"


# how a measure is read from a read-out of results.json
MEASURES: dict[str, Callable[[Readout], float | None]] = {
    "test_accuracy": lambda judged: judged.test.accuracy.value,
    "test_balanced_accuracy": lambda judged: judged.test.balanced_accuracy.value,
    "test_macro_f1": lambda judged: judged.test.macro_f1.value,
    "validation_accuracy": lambda judged: judged.validation and judged.validation.accuracy.value,
    "test_nll": lambda judged: judged.test.nll,
    "test_calibrated_nll": lambda judged: judged.calibration and judged.calibration.nll,
    "test_calibration_error": lambda judged: judged.test.calibration_error,
    "test_calibrated_error": lambda judged: judged.calibration and judged.calibration.calibration_error,
}


@dataclass(frozen=True)
class Record:
    """What is known of a finished run: measures in 0 … 1; none where training broke down."""

    measures: Mapping[str, float | None] = field(default_factory=dict)
    readout: str = ""
    curve: Sequence[float | None] = ()
    seconds: float = math.nan
    code: str | None = None
    cpu: str | None = None

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """Of a run's folder; None where it is not finished."""
        folder = RunFolder(path)
        if (path / BROKE_DOWN).exists():
            return cls()
        if not folder.finished:
            return None
        results = folder.results()
        readout = results.primary_readouts[0]
        judged = results.readouts[readout]
        measures = {measure: read(judged) for measure, read in MEASURES.items()}
        if results.judged == "validation":  # of a tuning run, which has no test part
            measures = {"validation_accuracy": measures["test_accuracy"]}
        where = folder.environment()
        code = where.get("commit") or where.get("ncmi")
        curve = [row.validation_accuracy for row in folder.metrics()]
        return cls(measures, readout, curve, results.total_seconds, code, where.get("cpu"))

    @property
    def broke_down(self) -> bool:
        return not self.measures

    def score(self, measure: str) -> float:
        """In 0 … 1; NaN where it is not known."""
        value = self.measures.get(measure)
        return math.nan if value is None else value


@dataclass(frozen=True)
class Study:
    """What is studied, with the runs that there are.

    Attributes:
        folder: of runs, tables and figures.
        sets: names of data sets.
        role: of the sets, where they are of one.
        methods: names of methods to restrict a part to; None for all.
        seeds, tune_seeds: how many; None for each set's own number, and for three.
        small_seeds: how many seeds of sets of up to 1,000 rows, whose test parts are small; None for no exception.
        common: changes of every run's training.
        levels, kinds: of wrong labels.
        lengths: multiples of the recipe's epochs.
        known: runs that have been read.

    Raises:
        StudyError: where seeds that are reported would be seeds of the search.
    """

    folder: Path
    sets: tuple[str, ...]
    role: str | None = None
    methods: Sequence[str] | None = None
    seeds: int | None = None
    tune_seeds: int | None = None
    small_seeds: int | None = None
    common: Options = field(default_factory=dict)
    levels: tuple[float, ...] = LEVELS
    kinds: tuple[str, ...] = KINDS
    lengths: tuple[float, ...] = LENGTHS
    known: dict[Run, Record] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (most := max(self.seeds or 0, self.small_seeds or 0)) > FIRST_TUNING_SEED:
            raise StudyError(f"{most} seeds: give at most {FIRST_TUNING_SEED}, the next ones are for searches")

    def chosen(self, methods: Sequence[Method], further: Sequence[Method] = ()) -> list[Method]:
        """Those that were asked for, by default all but the further ones."""
        if self.methods is None:
            return list(methods)
        return [one for one in (*methods, *further) if one.name in self.methods]

    def tuning_seeds(self) -> range:
        """Seeds that are searched with, none of which is reported."""
        count = TUNING_SEEDS if self.tune_seeds is None else self.tune_seeds
        return range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + count)

    def num_seeds(self, name: str) -> int:
        """How many seeds are reported of a set."""
        if self.small_seeds is not None and SETS[name].rows <= FEW_ROWS:
            return self.small_seeds
        return SETS[name].seeds if self.seeds is None else self.seeds

    def runs(self, name: str, cell: Cell) -> list[Run]:
        """The runs that are reported of a cell; none of a setting that is not known yet."""
        seeds = range(self.num_seeds(name))
        return [] if cell.setting is None else [Run(name, cell.setting, cell.first_seed + seed) for seed in seeds]

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


def setting_of(
    study: Study, name: str, method: Method, rate: float = 1.0, options: Options = NOTHING, data: Options = NOTHING
) -> Setting:
    """A method on a set at a multiple of the recipe's learning rate, with further options; as it is by default."""
    training = {**method.training, **study.common}
    if rate != 1:  # both rates, of network and centroids: one thing is searched for every loss
        usual = usual_recipe(name, method).training
        training["learning_rate"] = rate * usual.learning_rate
        training["centroid_learning_rate"] = rate * usual.centroid_learning_rate
    return Setting.of(method.objective, {**method.options, **options}, training, data)


def search(study: Study, name: str, method: Method, data: Options = NOTHING) -> Search:
    """The learning rate first, at the method's own options; then its further option at that rate.

    Judged by the mean validation accuracy over the tuning seeds; the default wins ties, then the smaller value.
    """
    seeds = study.tuning_seeds()
    runs: dict[Run, None] = {}
    tried: dict[Setting, Candidate] = {}
    default = setting_of(study, name, method, data=data)

    def best(candidates: Sequence[Candidate]) -> Candidate:
        return max(candidates, key=lambda one: (round(one.accuracy, 9), one.setting == default))

    def candidate(rate: float, options: Options) -> Candidate:
        setting = setting_of(study, name, method, rate, options, data)
        if setting not in tried:
            needed = [Run(name, setting, seed) for seed in seeds]
            runs.update(dict.fromkeys(needed))
            known = Candidate(setting, rate, options, _validated(study, needed))
            if math.isnan(known.accuracy):
                return known
            tried[setting] = known
        return tried[setting]

    def chosen(grid: OptionGrid, of: Callable[[Options], Candidate]) -> Candidate | None:
        """The best of a grid, as far as it has to be looked at; None while runs are missing."""
        found: dict[int, Candidate] = {}
        place = 0
        while wanted := grid.untried(found, place):
            found |= {each: of(grid.points[each]) for each in wanted}
            if any(math.isnan(one.accuracy) for one in found.values()):
                return None
            choice = best([found[each] for each in sorted(found)])
            place = next(each for each, one in found.items() if one is choice)
        return found[place]

    if not seeds:  # nothing to choose by
        return Search(choice=Candidate(default, 1.0, {}))
    choice = chosen(RATES, lambda point: candidate(point[RATE], {}))
    if choice is not None and method.grid is not None:
        rate, first = choice.rate, choice
        choice = chosen(method.grid, lambda point: candidate(rate, point))
        choice = choice and best([first, choice])  # the method's own option is on its grid, or stands beside it
    return Search(tuple(runs), tuple(tried.values()), choice)


def _validated(study: Study, runs: Sequence[Run]) -> float:
    """Mean validation accuracy of the runs, NaN if one of them has not been made."""
    values = []
    for run in runs:
        record = study.get(run)
        if record is None:
            return math.nan
        values.append(-math.inf if record.broke_down else record.score("validation_accuracy"))
    return statistics.fmean(values)


@dataclass(frozen=True)
class Cell:
    """A method with its setting, once it is known, by the search that serves it; ``table`` and ``column``: where.

    Its runs have seeds from ``first_seed`` on, tuning seeds where a choice is made by them.
    """

    method: Method
    setting: Setting | None
    search: Search = Search()
    table: str = ""
    column: str = ""
    first_seed: int = 0


Cells = dict[str, Cell]
CellsOf = Callable[[Study, str], Cells]
DEFAULT, TUNED = "default", "tuned"


def _both(study: Study, name: str, method: Method, data: Options = NOTHING, table: str = "") -> Cells:
    """A method at its default and tuned."""
    outcome = search(study, name, method, data)
    return {
        f"{table}{DEFAULT} {method.name}": Cell(method, setting_of(study, name, method, data=data), table=table),
        f"{table}{TUNED} {method.name}": Cell(method, outcome.choice and outcome.choice.setting, outcome, table),
    }


def tables_cells(study: Study, name: str) -> Cells:
    """Every method at its default and tuned."""
    cells: Cells = {}
    for method in study.chosen(TABLES, FURTHER):
        cells |= _both(study, name, method)
    return cells


def neighborhood_cells(study: Study, name: str) -> Cells:
    """NCMI at its default and at its neighbors, by label; on tuning seeds, as it is a choice."""
    usual = usual_recipe(name, NCMI).training
    cells: Cells = {}
    for label, options, multiples in NEIGHBORS:
        rates = {rate: getattr(usual, rate) * multiple for rate, multiple in multiples.items()}
        cells[label] = Cell(NCMI, Setting.of("ncmi", options, {**study.common, **rates}), first_seed=FIRST_TUNING_SEED)
    return cells


def conditions_of(study: Study) -> list[tuple[float, str]]:
    """Level and kind of wrong labels; right labels come once."""
    return [one for one in CONDITIONS if one[0] in study.levels and (one[0] == 0 or one[1] in study.kinds)]


def damage_of(level: float, kind: str) -> tuple[str, Options]:
    """What tables call it, and the options of the data."""
    if level == 0:
        return "right labels: ", {}
    return f"{100 * level:g} % wrong, {kind}: ", {"label_noise": level, "noise_kind": kind}


def noise_cells(study: Study, name: str) -> Cells:
    """Every method in every condition, default and tuned; a dear set is searched at its first noisy one."""
    cells: Cells = {}
    conditions = conditions_of(study)
    for level, kind in conditions:
        table, data = damage_of(level, kind)
        for method in study.chosen(NOISE):
            both = _both(study, name, method, data, table)
            if level > 0 and SETS[name].dear and (level, kind) != conditions[0]:
                outcome = search(study, name, method, damage_of(*conditions[0])[1])
                setting = outcome.choice and outcome.choice.setting.on(data)
                both[f"{table}{TUNED} {method.name}"] = Cell(method, setting, outcome, table)
            cells |= both
    return cells


def batch_cells(study: Study, name: str) -> Cells:
    """Every method at every batch size.

    Both rates follow the root of the batch size with AdamW, the batch size itself with SGD; epochs stay.
    """
    cells: Cells = {}
    for method in study.chosen(TABLES[:3]):
        training = usual_recipe(name, method).training
        for size in DEAR_SIZES if SETS[name].dear else BATCH_SIZES:
            ratio, changes = size / training.batch_size, dict(study.common)
            if size != training.batch_size:
                factor = math.sqrt(ratio) if training.optimizer == "adamw" else ratio
                changes["batch_size"] = size
                changes["learning_rate"] = factor * training.learning_rate
                changes["centroid_learning_rate"] = factor * training.centroid_learning_rate
            setting = Setting.of(method.objective, method.options, changes)
            cells[f"{method.name} {size}"] = Cell(method, setting, column=str(size))
    return cells


def lengths_cells(study: Study, name: str) -> Cells:
    """Every method, at its default, with a multiple of the recipe's epochs."""
    cells: Cells = {}
    for method in study.chosen(TABLES, FURTHER):
        usual = study.common.get("epochs", usual_recipe(name, method).training.epochs)
        for length in study.lengths:
            changes = {**study.common} if length == 1 else {**study.common, "epochs": max(1, round(length * usual))}
            setting = Setting.of(method.objective, method.options, changes)
            cells[f"{method.name} {length:g}"] = Cell(method, setting, column=f"×{length:g}")
    return cells


def tail_cells(study: Study, name: str) -> Cells:
    """Every method on a long-tailed training part, at its default, by its name."""
    data = {"imbalance": TAIL_RATIO}
    return {one.name: Cell(one, setting_of(study, name, one, data=data)) for one in study.chosen(TAIL)}


def curves_cells(study: Study, name: str) -> Cells:
    """NCMI at its default, and its rival as the search of the part tables chose it, where that is known."""
    cells: Cells = {}
    for method in study.chosen(TABLES[:2]):
        usual = Candidate(setting_of(study, name, method), 1.0, {})
        choice = usual if method is NCMI else search(study, name, method).choice or usual
        cells[method.name] = Cell(method, choice.setting, Search(choice=choice))
    return cells


def open_runs(study: Study, cells_of: CellsOf, name: str) -> list[Run]:
    """Runs of a set that a part asks for now and that are not there; seed by seed, so that its data is read once."""
    runs: dict[Run, None] = {}
    for cell in cells_of(study, name).values():
        runs |= dict.fromkeys((*cell.search.runs, *study.runs(name, cell)))
    return sorted((run for run in runs if study.get(run) is None), key=lambda run: run.seed)
