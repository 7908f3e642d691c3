"""How closely NCMI and test accuracy go together over networks (Figure 2), for both definitions of Γ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ncmi.reports.reproduction import ReproductionRecord
from ncmi.reports.statistics import CONFIDENCE, Row, results_of

# three points lie on a line too easily, and Fisher's interval needs four
FEWEST = 4


@dataclass(frozen=True)
class Association:
    """Correlation of two measures over ``n`` networks: Pearson's r with its 95 % interval, Spearman's ρ.

    The interval is Fisher's, by the inverse hyperbolic tangent; None with fewer than four networks or |r| = 1.
    """

    n: int
    r: float
    interval: tuple[float, float] | None
    rho: float

    def numbers(self) -> dict[str, float | int]:
        """As plain values."""
        low, high = self.interval or (math.nan, math.nan)
        return {"n": self.n, "pearson_r": self.r, "low": low, "high": high, "spearman_rho": self.rho}


@dataclass(frozen=True)
class Point:
    """One network: mean NCMI and mean accuracy in percent over its seeds, and those of each seed."""

    label: str
    network: str
    epochs: int
    ncmi: float
    accuracy: float
    seeds: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Correlation:
    """All networks by one definition of Γ, with r on the axis as plotted and on the raw values."""

    separation: str
    title: str
    points: tuple[Point, ...]
    missing: tuple[str, ...]
    logarithmic: bool
    plotted: Association
    raw: Association


def associate(x: Sequence[float], y: Sequence[float]) -> Association:
    """Pearson's r with Fisher's interval, and Spearman's ρ; NaN without spread or with fewer than three pairs.

    >>> associate([1, 2, 3, 4], [2, 4, 6, 8]).r
    1.0
    """
    n = len(x)
    if n < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Association(n, math.nan, None, math.nan)
    r = float(np.clip(np.corrcoef(x, y)[0, 1], -1, 1))
    rho = float(stats.spearmanr(x, y).statistic)
    if n < FEWEST or abs(r) > 1 - 1e-12:
        return Association(n, r, None, rho)
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) / math.sqrt(n - 3)
    return Association(n, r, (math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)), rho)


def correlations(record: ReproductionRecord) -> tuple[Correlation, ...]:
    """Both definitions of Γ, by centroid KL first."""
    return (
        _correlation(record, "centroid_kl", "ncmi", "Γ by centroid KL"),
        _correlation(record, "cross_entropy", "cross_entropy_ncmi", "Γ by cross-entropy"),
    )


def _correlation(record: ReproductionRecord, separation: str, key: str, title: str) -> Correlation:
    points, missing = [], []
    for group in record.groups:
        for row in group.rows:
            value = float(getattr(row, key))
            if not (math.isfinite(value) and math.isfinite(row.mean)):
                missing.append(row.method)
                continue
            entry = group.entry(row)
            backbone = entry.runs[0].recipe.get("backbone", {})
            seeds = tuple(
                (float(getattr(results_of(run), key)), 100 * results_of(run).readouts[row.readout].test_accuracy)
                for run in entry.runs
                if row.readout in results_of(run).readouts
            )
            points.append(
                Point(row.label, _network(backbone), _epochs(row, entry.runs[0].recipe), value, row.mean, seeds)
            )
    values, accuracies = [one.ncmi for one in points], [one.accuracy for one in points]
    logarithmic = bool(values) and min(values) > 0 and max(values) / min(values) > 10
    plotted = [math.log10(value) for value in values] if logarithmic else values
    return Correlation(
        separation,
        title,
        tuple(points),
        tuple(missing),
        logarithmic,
        associate(plotted, accuracies),
        associate(values, accuracies),
    )


def _network(backbone: dict[str, object]) -> str:
    """The network's name, with the width where one name stands for several sizes."""
    name = str(backbone.get("name", "network"))
    return f"width {backbone.get('width')}" if name == "resnet_small" else name


def _epochs(row: Row, recipe: dict[str, dict[str, object]]) -> int:
    epochs = recipe.get("training", {}).get("epochs", 0)
    return epochs if isinstance(epochs, int) else 0
