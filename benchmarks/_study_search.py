"""What is studied, and the search over a small grid by validation accuracy of seeds that are not reported."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from _study_jobs import Job, Record, Setting, Store
from _study_methods import KINDS, LEVELS, TAIL_RATIO, Method, NoiseKind, Options
from _study_sets import SETS

FIRST_TUNING_SEED = 100


@dataclass(frozen=True)
class Study:
    """What is studied.

    Attributes:
        store: the records.
        sets: names of data sets.
        methods: names of methods to restrict a part to; None for all.
        seeds, tune_seeds: how many; None for each set's own number.
        rates: learning rates that every searched method may choose from, in place of its own; None for its own.
        readout: by which NCMI is judged; "primary" for the first that its loss names.
        common: changes of every run's training.
        levels, kinds, batch_sizes, ratio: of the parts noise, batch and tail.
        scale_rate: learning rates follow the batch size.
        assume: take the default as every search's outcome that is not known yet.
    """

    store: Store
    sets: tuple[str, ...]
    methods: tuple[str, ...] | None = None
    seeds: int | None = None
    tune_seeds: int | None = None
    rates: tuple[float, ...] | None = None
    readout: str = "primary"
    common: Options = field(default_factory=dict)
    levels: tuple[float, ...] = LEVELS
    kinds: tuple[NoiseKind, ...] = KINDS
    batch_sizes: tuple[int, ...] | None = None
    ratio: float = TAIL_RATIO
    scale_rate: bool = True
    assume: bool = False

    def chosen(self, methods: Sequence[Method]) -> list[Method]:
        """Those that were asked for."""
        return [method for method in methods if self.methods is None or method.name in self.methods]

    def final_seeds(self, name: str) -> range:
        """Seeds of a set that are reported."""
        return range(SETS[name].seeds if self.seeds is None else self.seeds)

    def tuning_seeds(self, name: str) -> range:
        """Seeds of a set that are searched with, none of which is reported."""
        count = SETS[name].tune_seeds if self.tune_seeds is None else self.tune_seeds
        return range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + count)

    def judged_by(self, objective: str) -> str:
        """The read-out that counts."""
        return self.readout if objective == "ncmi" else "primary"

    def setting(self, name: str, method: Method, *, rate: float = 1.0, more: Options | None = None) -> Setting:
        """A method on a set at a multiple of the recipe's learning rate."""
        changes = dict(self.common)
        if rate != 1:
            changes["learning_rate"] = rate * base_job(name, method).recipe().training.learning_rate
        return Setting.of(method.objective, {**method.options, **(more or {})}, changes)

    def final_jobs(self, name: str, setting: Setting, factor: float = 1.0) -> list[Job]:
        """A setting with every final seed."""
        return [Job(name, setting, seed, place, factor) for place, seed in enumerate(self.final_seeds(name))]

    def records(self, name: str, setting: Setting) -> dict[int, Record]:
        """What is known of the final runs of a setting, by seed; runs that broke down are left out."""
        found = {job.seed: self.store.get(job) for job in self.final_jobs(name, setting)}
        return {seed: record for seed, record in found.items() if record is not None and not record.diverged}


def base_job(name: str, method: Method) -> Job:
    """A method on a set as its recipe has it."""
    return Job(name, Setting.of(method.objective, method.options), 0)


@dataclass(frozen=True)
class Candidate:
    """One point of a grid with its mean validation accuracy, in percent; −∞ where a run broke down."""

    setting: Setting
    rate: float
    options: Options
    accuracy: float = math.nan


@dataclass(frozen=True)
class Search:
    """A search, as far as it has come: the runs that it takes, and the choice once they are all known."""

    jobs: tuple[Job, ...]
    tried: tuple[Candidate, ...]
    choice: Candidate | None


def search(study: Study, name: str, method: Method, data: Options | None = None) -> Search:
    """The learning rate first, at the method's own options; then its further options at that rate.

    Judged by the mean validation accuracy over the tuning seeds; the earlier candidate, and so the default, wins ties.
    """
    rates = method.rates if study.rates is None or len(method.rates) == 1 else study.rates
    searched = len(rates) + len(method.grid) > 1 and len(study.tuning_seeds(name)) > 0
    jobs: list[Job] = []
    tried: list[Candidate] = []
    best: Candidate | None = None
    # the second stage's points are made once the first has its best rate
    for stage in ("rates", "options"):
        missing = False
        points = [(rate, {}) for rate in rates] if best is None else [(best.rate, one) for one in method.grid]
        for rate, more in points if searched or stage == "rates" else ():
            setting = study.setting(name, method, rate=rate, more=more).on(data or {})
            candidate = Candidate(setting, rate, more)
            if searched:
                jobs += [Job(name, setting, seed) for seed in study.tuning_seeds(name)]
                candidate = replace(candidate, accuracy=_validated(study, name, setting))
                if math.isnan(candidate.accuracy) and not study.assume:
                    missing = True
                    continue
            tried.append(candidate)
            if best is None or (searched and candidate.accuracy > best.accuracy + 1e-9):
                best = candidate
        if missing or best is None:
            return Search(tuple(jobs), tuple(tried), None)
    return Search(tuple(jobs), tuple(tried), best)


def _validated(study: Study, name: str, setting: Setting) -> float:
    """Mean validation accuracy over the tuning seeds, NaN if one of them has not been run."""
    values = []
    for seed in study.tuning_seeds(name):
        record = study.store.get(Job(name, setting, seed))
        if record is None:
            return math.nan
        values.append(
            -math.inf if record.diverged else record.score(study.judged_by(setting.objective), "validation_accuracy")
        )
    return statistics.fmean(values)
