"""Bootstrap over groups: slides of one patient are alike, so patients are drawn, and all their slides with them."""

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Whole = NDArray[np.int64]
Statistics = Callable[[Array], dict[str, Array]]

RESAMPLES, CONFIDENCE = 1000, 0.95
# rounds of drawing in search of resamples in which every class occurs
_ROUNDS = 50
# weights in memory at once
_MOST_WEIGHTS = 4_000_000


def group_numbers(groups: Sequence[Hashable]) -> Whole:
    """Groups numbered from 0 in the order in which they first occur, ``[n]``.

    >>> group_numbers(["b", "a", "b"]).tolist()
    [0, 1, 0]
    """
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)


def group_draws(groups: Whole, labels: Whole, *, resamples: int = RESAMPLES, seed: int = 0) -> Whole:
    """How often each group is drawn in each resample: G of G groups, with replacement.

    A resample in which a class of the sample does not occur is drawn anew: recall and AUC of that class are not defined
    in it, and averages without it would be averages of something else. So intervals hold for samples in which every
    class occurs.

    Args:
        groups: number of each sample's group, ``[n]``, from 0 on without gaps.
        labels: class of each sample, ``[n]``.
        resamples: B.
        seed: of the draws.

    Returns:
        Counts ``[B, G]``, each row with sum G. Fewer rows where a class is in so few groups that complete resamples
        are hardly ever drawn, none with fewer than two groups.
    """
    count = int(groups.max()) + 1
    classes = np.unique(labels)
    has = np.zeros((count, len(classes)))
    has[groups, np.searchsorted(classes, labels)] = 1
    rng = np.random.default_rng(seed)
    kept: list[Whole] = [np.empty((0, count), dtype=np.int64)]
    missing = resamples if count > 1 else 0
    for _ in range(_ROUNDS):
        if not missing:
            break
        draws = rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.int64)
        kept.append(draws[(draws @ has > 0).all(axis=1)][:missing])
        missing -= len(kept[-1])
    return np.concatenate(kept)


def resampled(statistics: Statistics, groups: Whole, draws: Whole) -> dict[str, Array]:
    """Every statistic in every resample.

    Args:
        statistics: of samples' weights ``[b, n]`` makes by name values ``[b]`` or ``[b, k]``.
        groups: number of each sample's group, ``[n]``.
        draws: counts ``[B, G]`` of :func:`group_draws`; of none there are no statistics.
    """
    rows = max(1, _MOST_WEIGHTS // len(groups))
    parts = [
        statistics(draws[start : start + rows][:, groups].astype(np.float64)) for start in range(0, len(draws), rows)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def exact_interval(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share of independent trials, which is right for the smallest numbers too.

    >>> [round(bound, 4) for bound in exact_interval(1, 1)]
    [0.025, 1.0]
    """
    from scipy.stats import beta

    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, successes, trials - successes + 1)) if successes else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, trials - successes)) if successes < trials else 1.0
    return low, high


def percentile_interval(values: Array, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Percentile interval of resampled values ``[B]``; NaN without any, or where one of them is NaN.

    >>> [round(bound, 6) for bound in percentile_interval(np.arange(101.0), 0.9)]
    [5.0, 95.0]
    """
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
