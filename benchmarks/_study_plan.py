"""What each part of the study runs, as far as it is known what its searches choose."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from _study_jobs import Job, Setting
from _study_methods import (
    BATCH,
    BATCH_SIZES,
    CURVES,
    NCMI,
    NEIGHBOURS,
    NOISE,
    TAIL,
    TRANSFER,
    Method,
    NoiseKind,
    Options,
)
from _study_search import Candidate, Search, Study, base_job, search
from _study_sets import SETS

# sets whose runs take longer are searched at one level of noise instead of at each
DEAR_SECONDS = 30.0


def is_dear(name: str) -> bool:
    """Whether a set's runs take long."""
    return SETS[name].seconds > DEAR_SECONDS


def transfer_jobs(study: Study) -> Iterator[Job]:
    """Every method searched (NCMI not), then run with the final seeds."""
    for name in study.sets:
        for method in study.chosen(TRANSFER):
            found = search(study, name, method)
            yield from found.jobs
            if found.choice is not None:
                yield from study.final_jobs(name, found.choice.setting)


def neighbour(study: Study, name: str, options: Options, training: Options) -> Setting:
    """NCMI with one thing changed; learning rates are multiples of the recipe's."""
    recipe = base_job(name, NCMI).recipe().training
    rates = ("learning_rate", "centroid_learning_rate")
    changes = {key: getattr(recipe, key) * value if key in rates else value for key, value in training.items()}
    return Setting.of("ncmi", options, {**study.common, **changes})


def neighbourhood_jobs(study: Study) -> Iterator[Job]:
    """NCMI at its default and at its neighbours, with the final seeds."""
    for name in study.sets:
        for _, options, training in NEIGHBOURS:
            yield from study.final_jobs(name, neighbour(study, name, options, training))


def conditions(study: Study) -> list[tuple[float, NoiseKind]]:
    """Levels and kinds of noise; clean data comes once."""
    found = [(level, kind) for level in study.levels for kind in study.kinds if level > 0]
    return found + ([(0.0, study.kinds[0])] if 0.0 in study.levels else [])


def damage(level: float, kind: NoiseKind) -> Options:
    """The data section's changes."""
    return {"label_noise": level, "noise_kind": kind} if level > 0 else {}


def noise_search(study: Study, name: str, method: Method, level: float, kind: NoiseKind) -> Search:
    """The search that serves a condition: its own, or on a dear set that of the first noisy one."""
    noisy = [one for one in conditions(study) if one[0] > 0]
    if level > 0 and is_dear(name):
        level, kind = noisy[0]
    return search(study, name, method, damage(level, kind))


def noise_jobs(study: Study) -> Iterator[Job]:
    """Every method in every condition."""
    for name in study.sets:
        for method in study.chosen(NOISE):
            for level, kind in conditions(study):
                found = noise_search(study, name, method, level, kind)
                yield from found.jobs
                if found.choice is not None:
                    yield from study.final_jobs(name, found.choice.setting.on(damage(level, kind)))


def batch_sizes(study: Study, name: str) -> tuple[int, ...]:
    """Batch sizes to try on a set."""
    return study.batch_sizes or BATCH_SIZES.get(name, BATCH_SIZES["digits"])


def batch_setting(study: Study, name: str, method: Method, size: int) -> tuple[Setting, float]:
    """A method at a batch size, by the rule for the learning rates, and its cost in usual runs.

    Both rates follow the root of the batch size with AdamW, the batch size itself with SGD; epochs stay.
    """
    training = base_job(name, method).recipe().training
    ratio = size / training.batch_size
    changes = dict(study.common)
    if size != training.batch_size:
        changes["batch_size"] = size
        if study.scale_rate:
            factor = math.sqrt(ratio) if training.optimiser == "adamw" else ratio
            changes["learning_rate"] = factor * training.learning_rate
            changes["centroid_learning_rate"] = factor * training.centroid_learning_rate
    factor = 0.2 + 0.8 / ratio if SETS[name].flat else max(1.0, 0.8 + 0.2 / ratio)
    return Setting.of(method.objective, method.options, changes), factor


def batch_jobs(study: Study) -> Iterator[Job]:
    """Every method at every batch size."""
    for name in study.sets:
        for method in study.chosen(BATCH):
            for size in batch_sizes(study, name):
                yield from study.final_jobs(name, *batch_setting(study, name, method, size))


def tail_search(study: Study, name: str, method: Method) -> Search:
    """A method on a long-tailed training part."""
    return search(study, name, method, {"imbalance": study.ratio})


def tail_jobs(study: Study) -> Iterator[Job]:
    """Every method on the long tail."""
    for name in study.sets:
        for method in study.chosen(TAIL):
            found = tail_search(study, name, method)
            yield from found.jobs
            if found.choice is not None:
                yield from study.final_jobs(name, found.choice.setting)


def curve_setting(study: Study, name: str, method: Method) -> Candidate | None:
    """NCMI at its default, and its rival as the search of the part transfer chose it, where that is known."""
    tuned = next(one for one in TRANSFER if one.name == method.name)
    return search(study, name, tuned).choice or search(study, name, replace(tuned, rates=(1.0,), grid=())).choice


def curves_jobs(study: Study) -> Iterator[Job]:
    """The final runs of the curves."""
    for name in study.sets:
        for method in study.chosen(CURVES):
            found = curve_setting(study, name, method)
            if found is not None:
                yield from study.final_jobs(name, found.setting)
