"""Comparing several methods over several data sets (Demšar 2006, JMLR 7:1–30), and choosing without fooling oneself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import altair as alt
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from ncmi.report.charts import Chart, to_document
from ncmi.report.palette import TONES
from ncmi.report.statistics import CONFIDENCE, Difference, t_interval

GREAT = 0.003
"""A difference of accuracy that counts as one, in 0 … 1."""
Matrix = npt.NDArray[np.float64]
ALPHA = 0.05


@dataclass(frozen=True)
class Paired(Difference):
    """Differences at common seeds whose test parts overlap.

    Attributes:
        overlap: ρ, the share of a test part that is, in expectation, in another seed's; 0 where only training varies,
            as with an official test part.
    """

    overlap: float = 0.0

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval by the corrected resampled t-test (Nadeau & Bengio 2003, Machine Learning 52:239–281).

        Their variance of a mean of n is s²·(1/n + ρ/(1−ρ)), where ρ is the correlation of two differences, for which
        they put the share of common test samples: n_test/(n_train + n_test) of independent draws from all samples, so
        that the second term is n_test/n_train. Two random halves of one pool share ρ = ½.
        """
        count = len(self.values)
        if count < 2:
            return None
        factor = math.sqrt(1 / count + self.overlap / (1 - self.overlap))
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * self.sd * factor
        return self.mean - half, self.mean + half


def paired(ours: pd.Series, theirs: pd.Series, overlap: float = 0.0) -> Paired | None:
    """``ours − theirs`` at the seeds (the index) that both have, or None where they have none in common."""
    gaps = (ours - theirs).dropna()
    return Paired(tuple(gaps.tolist()), tuple(gaps.index), overlap=overlap) if len(gaps) else None


@dataclass(frozen=True)
class OverSets:
    """Mean differences of several data sets: their mean with a t-interval over sets, and on how many they are great."""

    mean: float
    interval: tuple[float, float] | None
    above: int
    below: int
    sets: int

    @classmethod
    def of(cls, gaps: Sequence[float]) -> OverSets:
        """Of one mean difference a set; NaN of none."""
        # whole samples: what is great by floating point alone is not
        above, below = (sum(sign * gap > GREAT + 1e-9 for gap in gaps) for sign in (1, -1))
        return cls(float(np.mean(gaps)) if gaps else math.nan, t_interval(gaps), above, below, len(gaps))


def friedman_p(scores: Matrix) -> float:
    """p of Friedman's test that all methods (columns) have the same ranks; NaN below three methods or two sets."""
    if scores.shape[1] < 3 or len(scores) < 2:
        return math.nan
    rounded = np.round(scores, 6)
    if (rounded == rounded[:, :1]).all():
        return 1.0
    return float(stats.friedmanchisquare(*rounded.T).pvalue)


def ranks(scores: Matrix) -> Matrix:
    """Rank of each method (column) on each data set (row): 1 for the highest score, means for ties.

    >>> ranks(np.array([[0.9, 0.8, 0.9]]))
    array([[1.5, 3. , 1.5]])
    """
    # scores are shares of samples: what differs by less than floating point can is a tie
    return np.asarray(stats.rankdata(-np.round(scores, 6), axis=1), dtype=np.float64)


def studentized(methods: int, alpha: float = ALPHA) -> float:
    """q_α: the studentized range of so many means with infinite degrees of freedom, divided by √2."""
    return float(stats.studentized_range.ppf(1 - alpha, methods, np.inf)) / math.sqrt(2)


def critical_difference(methods: int, sets: int, alpha: float = ALPHA) -> float:
    """Nemenyi's critical difference of average ranks: q_α √(k(k+1)/(6N)).

    >>> round(critical_difference(5, 30), 3)  # q = 2.728
    1.114
    """
    return studentized(methods, alpha) * math.sqrt(methods * (methods + 1) / (6 * sets))


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted by Holm's step-down, in their order; NaN stays and does not count.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = pd.Series(values, dtype=float).sort_values()
    adjusted = (p * np.arange(p.count(), p.count() - len(p), -1)).cummax().clip(upper=1.0)
    return [float(value) for value in adjusted.sort_index()]


@dataclass(frozen=True)
class Neighborhood:
    """A default among its neighbors, judged by validation accuracy.

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


def neighborhood(scores: pd.DataFrame, default: str) -> Neighborhood | None:
    """Whether a default is as good as the best of its neighbors; a row a seed, a column a setting.

    None with fewer than two seeds that all have. Ties go to the default.
    """
    scores = scores.dropna()
    if default not in scores or len(scores) < 2:
        return None
    scores = scores[[default, *scores.columns.drop(default)]]
    best, values = str(scores.mean().idxmax()), scores.to_numpy()
    gains: list[float] = []
    times = 0
    for half in itertools.combinations(range(len(values)), len(values) // 2):
        first = np.isin(np.arange(len(values)), half)
        for chosen_on in (first, ~first):
            choice = int(np.round(values[chosen_on].mean(0), 9).argmax())
            times += choice == 0
            gains.append(float((values[:, choice] - values[:, 0])[~chosen_on].mean()))
    gain = paired(scores[best], scores[default])
    assert gain is not None
    return Neighborhood(best, gain, float(np.mean(gains)), times, len(gains))


def ranks_chart(average_ranks: pd.Series, difference: float, sets: int, marked: str) -> bytes:
    """Average ranks by method, best first, with bars as long as the critical difference (PNG)."""
    rows: list[dict[str, object]] = [
        {"method": name, "rank": rank, "low": rank - difference / 2, "high": rank + difference / 2,
         "marked": name == marked}
        for name, rank in average_ranks.sort_values().items()
    ]  # fmt: skip
    color = alt.condition("datum.marked", alt.value(TONES["vermilion"][0]), alt.value(TONES["ink"][0]))
    axis = f"average rank; bars that overlap cannot be told apart (Nemenyi, {ALPHA:.0%})"
    base = alt.Chart().encode(y=alt.Y("method:N", sort=[str(row["method"]) for row in rows], title=None), color=color)
    bars = base.mark_rule(strokeWidth=3).encode(x=alt.X("low:Q", title=axis, scale=alt.Scale(zero=False)), x2="high:Q")
    points = base.mark_point(filled=True, size=70).encode(x="rank:Q")
    title = f"Average rank over {sets} data sets"
    description = "Average ranks: " + ", ".join(f"{row['method']} {row['rank']:.2f}" for row in rows)
    chart = Chart("ranks", description, [bars, points], rows, {}, title, 30 * len(rows))
    return to_document([chart], columns=1)[1]
