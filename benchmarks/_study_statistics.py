"""Comparing several methods over several data sets (Demšar 2006, JMLR 7:1–30), and choosing without fooling oneself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from ncmi.report.charts import Chart, to_document
from ncmi.report.palette import TONES
from ncmi.report.statistics import Difference

Matrix = npt.NDArray[np.float64]
ALPHA = 0.05


def paired(ours: pd.Series, theirs: pd.Series) -> Difference | None:
    """``ours − theirs`` at the seeds (the index) that both have, or None where they have none in common."""
    gaps = (ours - theirs).dropna()
    return Difference(tuple(gaps.tolist()), tuple(gaps.index)) if len(gaps) else None


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
    base = alt.Chart().encode(y=alt.Y("method:N", sort=[str(row["method"]) for row in rows], title=None), color=color)
    bars = base.mark_rule(strokeWidth=3).encode(
        x=alt.X("low:Q", title="average rank", scale=alt.Scale(zero=False)), x2="high:Q"
    )
    points = base.mark_point(filled=True, size=70).encode(x="rank:Q")
    title = f"Average rank over {sets} data sets; bars that overlap cannot be told apart (Nemenyi, {ALPHA:.0%})"
    description = "Average ranks: " + ", ".join(f"{row['method']} {row['rank']:.2f}" for row in rows)
    chart = Chart("ranks", description, alt.layer(bars, points), rows, {}, title, 30 * len(rows))
    return to_document([chart], columns=1)[1]
