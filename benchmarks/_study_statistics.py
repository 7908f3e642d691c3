"""Comparing several methods over several data sets (Demšar 2006, JMLR 7:1–30), and choosing without fooling oneself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from ncmi.reports.statistics import Difference, t_interval, wilcoxon_p

Matrix = npt.NDArray[np.float64]
ALPHA = 0.05


def paired(own: Mapping[int, float], other: Mapping[int, float]) -> Difference | None:
    """``own − other`` at the seeds that both have, or None where they have none in common."""
    seeds = tuple(sorted(own.keys() & other.keys()))
    if not seeds:
        return None
    values = tuple(own[seed] - other[seed] for seed in seeds)
    return Difference(seeds, values, float(np.mean(values)), t_interval(values), wilcoxon_p(values))


def ranks(scores: Matrix) -> Matrix:
    """Rank of each method (column) on each data set (row): 1 for the highest score, means for ties.

    >>> ranks(np.array([[0.9, 0.8, 0.9]]))
    array([[1.5, 3. , 1.5]])
    """
    # scores are shares of samples: what differs by less than floating point can is a tie
    return np.asarray(stats.rankdata(-np.round(scores, 6), axis=1), dtype=np.float64)


@dataclass(frozen=True)
class Friedman:
    """Friedman's χ² with its p, and the less conservative F of Iman and Davenport with its own."""

    chi_square: float
    p: float
    f: float
    f_p: float


def friedman(scores: Matrix) -> Friedman | None:
    """Whether any method differs, of ``scores [data sets, methods]``; None below two data sets or three methods."""
    sets, methods = scores.shape
    if sets < 2 or methods < 3:
        return None
    if not np.ptp(ranks(scores), axis=1).any():  # all tied everywhere
        return Friedman(0.0, 1.0, 0.0, 1.0)
    found = stats.friedmanchisquare(*np.round(scores, 6).T)
    chi_square = float(found.statistic)
    rest = sets * (methods - 1) - chi_square
    f = (sets - 1) * chi_square / rest if rest > 1e-9 else math.inf
    return Friedman(chi_square, float(found.pvalue), f, float(stats.f.sf(f, methods - 1, (methods - 1) * (sets - 1))))


def critical_difference(methods: int, sets: int, alpha: float = ALPHA) -> float:
    """Nemenyi's critical difference of average ranks: q_α √(k(k+1)/(6N)).

    >>> round(critical_difference(5, 30), 3)  # q = 2.728
    1.114
    """
    return studentised(methods, alpha) * math.sqrt(methods * (methods + 1) / (6 * sets))


def studentised(methods: int, alpha: float = ALPHA) -> float:
    """q_α: the studentised range of so many means with infinite degrees of freedom, divided by √2."""
    return float(stats.studentized_range.ppf(1 - alpha, methods, np.inf)) / math.sqrt(2)


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted by Holm's step-down, in their order; NaN stays and does not count.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted((place for place in range(len(values)) if not math.isnan(values[place])), key=values.__getitem__)
    adjusted = [math.nan] * len(values)
    highest = 0.0
    for step, place in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - step) * values[place]))
        adjusted[place] = highest
    return adjusted


def cliques(average_ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """Largest groups of methods within a critical difference, of ranks in rising order: first and last place.

    >>> cliques([1.0, 1.8, 2.4, 4.0], 1.0)
    [(0, 1), (1, 2)]
    """
    groups: list[tuple[int, int]] = []
    for first, lowest in enumerate(average_ranks):
        last = max(place for place, rank in enumerate(average_ranks) if rank - lowest <= difference)
        if last > first and (not groups or last > groups[-1][1]):
            groups.append((first, last))
    return groups


def least_p(sets: int) -> float:
    """The smallest two-sided p that a signed-rank test can give on so many data sets.

    >>> least_p(8)
    0.0078125
    """
    return float(min(1.0, 2.0 ** (1 - sets)))


@dataclass(frozen=True)
class Neighbourhood:
    """A default among its neighbours, judged by validation accuracy in percent.

    Attributes:
        best: the setting of the highest mean.
        gain: best − default on the same seeds: biased upwards, since it is the largest of several noisy means.
        honest: mean gain of the setting chosen on one half of the seeds, measured on the other, over all halvings.
        times: how many of these halvings chose the default.
        halvings: how many there are.
    """

    best: str
    gain: Difference
    honest: float
    times: int
    halvings: int


def neighbourhood(scores: Mapping[str, Mapping[int, float]], default: str) -> Neighbourhood | None:
    """Whether a default is as good as the best of its neighbours; ``scores[setting][seed]``, on the common seeds.

    None with fewer than two seeds that all have. Ties go to the default.
    """
    seeds = sorted(set.intersection(*(set(found) for found in scores.values()))) if scores else []
    if default not in scores or len(seeds) < 2:
        return None
    names = [default, *(name for name in scores if name != default)]
    table = np.array([[scores[name][seed] for seed in seeds] for name in names])
    best = names[int(table.mean(1).argmax())]
    gains: list[float] = []
    times = 0
    for half in itertools.combinations(range(len(seeds)), len(seeds) // 2):
        for chosen_on in (list(half), [place for place in range(len(seeds)) if place not in half]):
            measured_on = [place for place in range(len(seeds)) if place not in chosen_on]
            choice = int(np.round(table[:, chosen_on].mean(1), 9).argmax())
            times += choice == 0
            gains.append(float((table[choice] - table[0])[measured_on].mean()))
    gain = paired({s: scores[best][s] for s in seeds}, {s: scores[default][s] for s in seeds})
    assert gain is not None
    return Neighbourhood(best, gain, float(np.mean(gains)), times, len(gains))
