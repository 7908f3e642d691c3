"""How well decisions are: scores of a read-out on a part of the data, with intervals where samples have groups.

The one implementation of accuracy, F1 and AUC, for every kind of data. Torch is imported with the first judgment alone:
whoever reads or draws scores needs none.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncmi.readouts.bootstrap import (
    CONFIDENCE,
    RESAMPLES,
    Array,
    Whole,
    exact_interval,
    group_draws,
    group_numbers,
    percentile_interval,
    resampled,
)

if TYPE_CHECKING:
    from torch import Tensor

INTERVAL_METRICS = ("macro_f1", "macro_auc", "balanced_accuracy", "accuracy")
"""The scores that have intervals."""
UNEQUAL = 2
"""Classes are called unequal where the largest has more than so many times the samples of the smallest."""
TOP = 5
"""Highest scores among which the label is looked for."""
FEW_GROUPS = 10
"""Of a class with fewer groups there is no bootstrap interval: it would be far too narrow."""
_MOST_CONFUSIONS = 10
_MANY_CLASSES = 10  # from which top-5 accuracy says something


class Estimate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A score, and the bounds of its bootstrap interval where there is one; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


class ClassScores(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one class is recognized: support is its number of samples."""

    name: str
    support: int
    precision: float | None
    recall: Estimate
    f1: float | None


class Confusion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many samples of one class are taken for another, and their share of that class."""

    label: str
    prediction: str
    count: int
    share: float


class Scores(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Scores in 0 … 1, but NLL (nats) and Brier score (0 … 2).

    Attributes:
        samples: n.
        groups: of samples that belong together (patients); None where each sample stands for itself.
        macro_auc: one against the rest, mean over the classes that occur; of two classes, that of the second.
        top5_accuracy: from ten classes on.
        calibration_error: expected, over 15 bins of equal width.
        classes: of each class, in order; empty where they were not asked for.
        confusions: the most frequent ones, ten at most, the most frequent first; with ``classes``.
        resamples: of the bootstrap over groups; 0 for no intervals.
        confidence: of the intervals.
        notes: sentences on what is left out.
    """

    samples: int
    groups: int | None = None
    accuracy: Estimate
    balanced_accuracy: Estimate
    macro_f1: Estimate
    macro_auc: Estimate
    top5_accuracy: float | None = None
    nll: float | None
    brier: float | None
    calibration_error: float | None
    classes: list[ClassScores] = []
    confusions: list[Confusion] = []
    resamples: int = 0
    confidence: float = 0.95
    notes: list[str] = []

    @property
    def unequal(self) -> tuple[ClassScores, ClassScores] | None:
        """The largest and the smallest class that occur, where one has more than twice the samples of the other.

        Then accuracy is that of the large classes in the main, and macro F1 and balanced accuracy stand before it.
        """
        sizes = sorted((scores for scores in self.classes if scores.support), key=lambda scores: scores.support)
        return (sizes[-1], sizes[0]) if sizes and sizes[-1].support > UNEQUAL * sizes[0].support else None


def unequal_in_words(unequal: tuple[ClassScores, ClassScores] | None) -> str:
    """A sentence on classes of unequal size, and on what leads there; empty where they are not: see Scores."""
    if unequal is None:
        return ""
    largest, smallest = unequal
    return (
        f"Classes are unequal: {largest.name} has {largest.support} samples, {smallest.name} has "
        f"{smallest.support}. Accuracy is that of the large classes in the main, so macro F1, in which every class "
        "counts alike, stands first, and balanced accuracy beside it."
    )


class Reliability(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Samples by their confidence, the highest probability: bins of equal width over 0 … 1, the upper bound outside.

    Attributes:
        counts: samples in each bin; the last also holds confidence 1.
        confidence: their mean confidence, None in an empty bin.
        accuracy: share of them that is decided rightly, None in an empty bin.
    """

    counts: list[int]
    confidence: list[float | None]
    accuracy: list[float | None]

    def __post_init__(self) -> None:
        bins = list(zip(self.counts, self.confidence, self.accuracy, strict=True))
        shares = [(count, share) for count, *pair in bins for share in pair]
        if not bins or any(n < 0 or (share is None) != (n == 0) or not 0 <= (share or 0) <= 1 for n, share in shares):
            raise ValueError("these are no bins of counts and shares")


def calibration_error(diagram: Reliability) -> float:
    """Expected calibration error: the mean of ``|accuracy − confidence|`` over samples, in 0 … 1."""
    bins = zip(diagram.counts, diagram.confidence, diagram.accuracy, strict=True)
    differences = (n * abs(right - sure) for n, sure, right in bins if sure is not None and right is not None)
    return sum(differences) / sum(diagram.counts)


def pooled_reliability(parts: Sequence[Reliability]) -> Reliability:
    """The bins of several parts, such as the folds of a cross-validation, as those of one."""
    counts = np.array([part.counts for part in parts])

    def mean(name: str) -> list[float | None]:
        values = np.array([getattr(part, name) for part in parts], dtype=float)
        sums = np.nansum(counts * values, axis=0)
        return [float(total / count) if count else None for total, count in zip(sums, counts.sum(axis=0), strict=True)]

    return Reliability(counts=counts.sum(axis=0).tolist(), confidence=mean("confidence"), accuracy=mean("accuracy"))


class Detection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How well a score tells out-of-distribution data from the test part.

    Attributes:
        auroc: probability that an out-of-distribution sample scores higher than a sample of the test part, ties
            counting half; 0.5 is chance.
        fpr95: share of out-of-distribution samples that pass where 95 % of the test part pass.
        threshold: the lowest score at or below which at least 95 % of the test part lie.
    """

    auroc: float
    fpr95: float
    threshold: float


class Histogram(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Counts by distance to the nearest centroid, in bins between ``edges``: of the test part, of the other data."""

    edges: list[float]
    inside: list[int]
    outside: list[int]

    def __post_init__(self) -> None:
        counts, edges = [*self.inside, *self.outside], self.edges
        sizes = len(edges) - 1 == len(self.inside) == len(self.outside) > 0
        if not (sizes and min(counts) >= 0 and 0 < edges[0] < edges[-1] and edges == sorted(edges)):
            raise ValueError("this is no histogram of counts between rising edges")


class PairedDifference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Difference ``a − b`` of two models in one metric on the same samples, with its interval over groups."""

    metric: str
    value: float | None
    low: float | None
    high: float | None
    a: float | None
    b: float | None
    samples: int
    groups: int
    resamples: int
    confidence: float


def judge(
    log_p: Tensor | ArrayLike,
    labels: Tensor | ArrayLike,
    class_names: Sequence[str],
    *,
    groups: Sequence[Hashable] | None = None,
    per_class: bool = True,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Scores:
    """How well a read-out decides.

    A sample is decided for its highest probability. Macro F1 is the mean over the classes that occur among labels or
    decisions, as in scikit-learn, never micro F1, which is the accuracy. AUC is the mean of one-vs-rest over the
    classes that occur among the labels; of two classes, that of the second. Balanced accuracy is the mean recall over
    the classes that occur. Calibration error, NLL and Brier score: see :mod:`ncmi.readouts.calibration`.

    Intervals are percentiles over resamples of groups with replacement; resamples that lack a class of the sample are
    drawn anew: see :func:`ncmi.readouts.bootstrap.group_draws`. Averages over classes have none where a class has fewer
    than ten groups, nor has its recall, unless each sample is a group: then it is Clopper and Pearson's, as wherever
    all resamples agree. The notes say so.

    Args:
        log_p: log-probabilities ``[n, C]``; −inf for a class that is excluded.
        labels: class of each sample, ``[n]``, n ≥ 1.
        class_names: names of the C ≥ 2 classes.
        groups: of each sample, ``[n]``, e.g. its patient; without them there are no intervals.
        per_class: also give each class's scores.
        resamples: B; 0 for no intervals.
        confidence: of the intervals.
        seed: of the resamples.

    Raises:
        ValueError: for arrays that do not belong together, labels without a name, or values that are NaN or +inf.

    >>> p = [[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8]]
    >>> scores = judge(np.log(p), [0, 0, 1, 1], ["no", "yes"])
    >>> scores.accuracy.value, scores.macro_auc.value, scores.classes[0].recall.value
    (0.75, 1.0, 0.5)
    """
    import torch

    from ncmi.readouts import calibration

    log_p, labels = torch.as_tensor(log_p).detach().cpu(), torch.as_tensor(labels).cpu()
    y, runs, numbers = _checked(labels.numpy(), [log_p.double().numpy()], groups)
    values = runs[0]
    count, classes = values.shape
    if len(class_names) != classes:
        raise ValueError(
            f"{len(class_names)} class names, but probabilities of {classes} classes: give a name for each column"
        )
    judged = Judge(y, values)
    single = judged(np.ones((1, count)))
    drawn, spread = 0, {}
    few: list[int] = []
    alone = False
    if numbers is not None:
        draws = group_draws(numbers, y, resamples=resamples, seed=seed)
        drawn, spread = len(draws), resampled(judged, numbers, draws)
        few = [c for c in range(classes) if 0 < len(np.unique(numbers[y == c])) < FEW_GROUPS]
        alone = int(numbers.max()) + 1 == count

    def estimate(name: str, column: int | None = None) -> Estimate:
        value, others = single[name], spread.get(name)
        chosen = np.ones(count, dtype=bool) if column is None else y == column
        if column is not None:
            value, others = value[:, column], None if others is None else others[:, column]
        low, high = math.nan, math.nan
        small = name != "accuracy" and bool(few) if column is None else column in few
        if others is not None and not small:
            low, high = percentile_interval(others, confidence)
        # no spread among the resamples is what small numbers look like, and not certainty
        if not low < high:
            low, high = math.nan, math.nan
            if spread and alone and name in ("accuracy", "recall") and chosen.any():
                low, high = exact_interval(int(judged.is_right[chosen].sum()), int(chosen.sum()), confidence)
        return Estimate(value=defined(value[0]), low=defined(low), high=defined(high))

    support, decided = np.bincount(y, minlength=classes), np.bincount(judged.decided, minlength=classes)
    right = np.bincount(y[judged.decided == y], minlength=classes)
    return Scores(
        samples=count,
        groups=None if numbers is None else int(numbers.max()) + 1,
        **{name: estimate(name) for name in INTERVAL_METRICS},
        top5_accuracy=_top_accuracy(values, y) if classes >= _MANY_CLASSES else None,
        nll=defined(calibration.negative_log_likelihood(log_p, labels)),
        brier=defined(calibration.brier_score(log_p, labels)),
        calibration_error=calibration_error(calibration.reliability(log_p, labels)),
        classes=[
            ClassScores(
                name=str(name),
                support=int(support[c]),
                precision=float(right[c] / decided[c]) if decided[c] else None,
                recall=estimate("recall", c),
                f1=float(2 * right[c] / (support[c] + decided[c])) if judged.named[c] else None,
            )
            for c, name in enumerate(class_names)
            if per_class
        ],
        confusions=confusions(y, judged.decided, support, class_names) if per_class else [],
        resamples=drawn,
        confidence=confidence,
        notes=notes_on(support, class_names, numbers, resamples, drawn, few),
    )


def by_group(
    log_p: ArrayLike, labels: ArrayLike, groups: Sequence[Hashable]
) -> tuple[Array, Whole, list[Hashable]] | None:
    """One decision a group, such as a patient with several slides: the mean of its samples' probabilities.

    Args:
        log_p: log-probabilities ``[n, C]``.
        labels: class of each sample, ``[n]``.
        groups: of each sample.

    Returns:
        Log-probabilities ``[G, C]``, labels ``[G]`` and the groups, in the order in which they first occur; None where
        a group has samples of several classes, and so no label of its own, or where each sample is a group.

    >>> by_group(np.log([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]]), [1, 1, 0], ["a", "a", "b"])[0].round(3).tolist()
    [[-0.916, -0.511], [-0.105, -2.303]]
    """
    numbers, y = group_numbers(groups), np.asarray(labels)
    count = int(numbers.max()) + 1 if len(numbers) else 0
    first = np.full(count, -1)
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]
    if count == len(numbers) or (y != y[first][numbers]).any():
        return None
    sums = np.zeros((count, np.shape(log_p)[1]))
    np.add.at(sums, numbers, np.exp(_floats(log_p)))
    means = sums / np.bincount(numbers)[:, None]
    with np.errstate(divide="ignore"):  # −inf is what an excluded class has
        return np.log(means), y[first].astype(np.int64), [groups[place] for place in first.tolist()]


def paired_difference(
    labels: ArrayLike,
    probs_a: ArrayLike,
    probs_b: ArrayLike,
    groups: Sequence[Hashable],
    metric: str = "macro_f1",
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> PairedDifference:
    """Difference a − b of two models on the same samples, with a bootstrap interval over groups.

    Both are judged on the same resamples, so what is hard in them is hard for both. Of several runs of a model (seeds)
    the metric is averaged: the interval is about other groups, not about other seeds.

    Args:
        labels: class of each sample, ``[n]``.
        probs_a, probs_b: ``[n, C]``, or ``[S, n, C]`` of S runs; only their order matters.
        groups: of each sample, ``[n]``.
        metric: one of :data:`INTERVAL_METRICS`.
        resamples, confidence, seed: as for :func:`judge`.

    Raises:
        ValueError: as for :func:`judge`, and for another metric.

    >>> good, poor = [[0.9, 0.1], [0.2, 0.8]], [[0.9, 0.1], [0.6, 0.4]]
    >>> paired_difference([0, 1], good, poor, ["a", "b"], "accuracy").value
    0.5
    """
    if metric not in INTERVAL_METRICS:
        raise ValueError(f"metric={metric!r} is none of {', '.join(INTERVAL_METRICS)}: give one of these")
    models = [value[None] if value.ndim == 2 else value for value in map(_floats, (probs_a, probs_b))]
    y, runs, numbers = _checked(labels, [run for model in models for run in model], groups)
    assert numbers is not None
    judges = [Judge(y, run, (metric,)) for run in runs]
    count = len(models[0])

    def both(weights: Array) -> dict[str, Array]:
        values = np.stack([judged(weights)[metric] for judged in judges])
        return {"a": values[:count].mean(axis=0), "b": values[count:].mean(axis=0)}

    single = both(np.ones((1, len(y))))
    draws = group_draws(numbers, y, resamples=resamples, seed=seed)
    spread = resampled(both, numbers, draws)
    low, high = percentile_interval(spread["a"] - spread["b"], confidence) if spread else (math.nan, math.nan)
    return PairedDifference(
        metric=metric,
        value=defined(single["a"][0] - single["b"][0]),
        low=defined(low),
        high=defined(high),
        a=defined(single["a"][0]),
        b=defined(single["b"][0]),
        samples=len(y),
        groups=int(numbers.max()) + 1,
        resamples=len(draws),
        confidence=confidence,
    )


class Judge:
    """Decisions on samples. Called with weights ``[b, n]``, whole numbers ≥ 0, it gives every score ``[b]`` under them.

    A sample of weight 2 counts as two, one of weight 0 not at all; ``recall`` is ``[b, C]``. Which classes take part in
    an average is settled by all samples, so that it is the same for all weights.

    Args:
        labels: ``[n]``.
        scores: ``[n, C]``; the highest decides.
        names: of the scores to compute.
    """

    def __init__(self, labels: Whole, scores: Array, names: Sequence[str] = (*INTERVAL_METRICS, "recall")) -> None:
        self.labels, self.scores, self.names = labels, scores, names
        self.classes = scores.shape[1]
        self.decided: Whole = scores.argmax(axis=1)
        self.is_right = self.decided == labels
        self.occurs = np.bincount(labels, minlength=self.classes) > 0
        self.named = self.occurs | (np.bincount(self.decided, minlength=self.classes) > 0)

    def __call__(self, weights: Array) -> dict[str, Array]:
        # by class: samples of it, those decided for it, those decided rightly
        true, decided = self._sums(self.labels, weights), self._sums(self.decided, weights)
        right = self._sums(self.labels[self.is_right], weights[:, self.is_right])
        recall = np.full(right.shape, np.nan)
        np.divide(right, true, out=recall, where=true > 0)
        # of a class that decisions name and labels do not, it is 0 under all weights
        f1 = 2 * right / np.maximum(true + decided, 1)
        scores = {
            "macro_f1": f1[:, self.named].mean(axis=1),
            "balanced_accuracy": recall[:, self.occurs].mean(axis=1),
            "accuracy": right.sum(axis=1) / weights.sum(axis=1),
            "recall": recall,
        }
        if "macro_auc" in self.names:
            scores["macro_auc"] = self._auc(weights)
        return {name: scores[name] for name in self.names}

    def _sums(self, classes: Whole, weights: Array) -> Array:
        """Weights ``[b, m]`` of samples, added up by class: ``[b, C]``. No table of samples × classes."""
        return np.stack([np.bincount(classes, row, minlength=self.classes) for row in weights])

    def _auc(self, weights: Array) -> Array:
        if self.occurs.sum() < 2:
            return np.full(len(weights), math.nan)
        columns = [1] if self.classes == 2 else np.flatnonzero(self.occurs)
        mean: Array = np.mean([weighted_auc(self.scores[:, c], self.labels == c, weights) for c in columns], axis=0)
        return mean


def weighted_auc(scores: Array, positive: NDArray[np.bool_], weights: Array) -> Array:
    """Area under the ROC curve for rows of weights: of a positive and a negative, how often the positive is above.

    A tie counts a half. Source: the Mann–Whitney statistic, by ranks.

    Args:
        scores: ``[n]``.
        positive: ``[n]``.
        weights: ``[b, n]``, ≥ 0, in each row above 0 for some positive and some negative.

    Returns:
        ``[b]``.
    """
    if len(weights) == 1 and (weights == 1).all():
        return np.array([_auc_of_all(scores, positive)])
    order = np.argsort(np.ascontiguousarray(scores))  # ties in any order: they are counted together
    ranked = scores[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    sorted_weights = weights[:, order]
    above = np.add.reduceat(sorted_weights * positive[order], starts, axis=1)
    all_of_tie = np.add.reduceat(sorted_weights, starts, axis=1)
    below = all_of_tie - above
    wins = above * (np.cumsum(below, axis=1) - below / 2)
    result: Array = wins.sum(axis=1) / (above.sum(axis=1) * below.sum(axis=1))
    return result


def _auc_of_all(scores: Array, positive: NDArray[np.bool_]) -> float:
    """The same of samples that all count once, in a time that lets there be a thousand classes."""
    ranked, wanted = np.sort(scores), np.sort(scores[positive])
    own = [np.searchsorted(wanted, wanted, side) for side in ("left", "right")]
    everyone = [np.searchsorted(ranked, wanted, side) for side in ("left", "right")]
    # twice the wins over negatives: those below, and half of the ties
    wins = int(sum(all_.sum() - mine.sum() for all_, mine in zip(everyone, own, strict=True)))
    return wins / 2 / (len(wanted) * (len(scores) - len(wanted)))


def confusion_matrix(labels: ArrayLike, decided: ArrayLike, classes: int) -> Whole:
    """Counts ``[C, C]``: rows true, columns decided.

    >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    cells = np.asarray(labels, dtype=np.int64) * classes + np.asarray(decided, dtype=np.int64)
    counts: Whole = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    return counts


def confusions(labels: Whole, decided: Whole, support: Whole, class_names: Sequence[str]) -> list[Confusion]:
    """The most frequent confusions of labels with decisions ``[n]``, the most frequent first."""
    classes, wrong = len(class_names), labels != decided
    cells, counts = np.unique(labels[wrong] * classes + decided[wrong], return_counts=True)
    first = np.argsort(-counts, kind="stable")[:_MOST_CONFUSIONS]
    return [
        Confusion(
            label=str(class_names[cell // classes]),
            prediction=str(class_names[cell % classes]),
            count=int(count),
            share=float(count / support[cell // classes]),
        )
        for cell, count in zip(cells[first], counts[first], strict=True)
    ]


def _top_accuracy(scores: Array, labels: Whole) -> float:
    """Share of samples whose label is among the five highest scores; of equal ones the first classes come first."""
    own, column = scores[np.arange(len(labels)), labels][:, None], np.arange(scores.shape[1])
    before = (scores > own) | ((scores == own) & (column < labels[:, None]))
    return float((before.sum(axis=1) < TOP).mean())


def defined(value: Any) -> float | None:
    """A number, or None for one that is not finite."""
    return float(value) if math.isfinite(value) else None


def _floats(values: ArrayLike) -> Array:
    return np.asarray(values, dtype=np.float64)


def _checked(
    labels: ArrayLike, runs: Sequence[ArrayLike], groups: Sequence[Hashable] | None
) -> tuple[Whole, Array, Whole | None]:
    """Labels ``[n]``, probabilities or their logarithms ``[S, n, C]``, and the groups' numbers ``[n]``."""
    y = np.asarray(labels)
    scores = [_floats(run) for run in runs]
    if any(run.ndim != 2 or run.shape != scores[0].shape for run in scores) or scores[0].shape[1] < 2:
        shapes = ", ".join(str(run.shape) for run in scores)
        raise ValueError(f"probabilities of shape {shapes}: give [n, C], the same for all, with C of at least 2")
    samples, classes = scores[0].shape
    if y.shape != (samples,) or not samples or (groups is not None and len(groups) != samples):
        of_groups = "" if groups is None else f" {len(groups)} groups"
        raise ValueError(
            f"labels of shape {y.shape},{of_groups} and probabilities of {samples} samples: "
            "give one label (and one group) for each sample, and at least one sample"
        )
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"labels are {y.dtype}: give the classes' numbers as integers")
    if not 0 <= y.min() <= y.max() < classes:
        raise ValueError(f"labels run from {y.min()} to {y.max()}, but there are {classes} classes: check the labels")
    if any(np.isnan(run).any() or np.isposinf(run).any() for run in scores):
        raise ValueError("probabilities are not all finite: check the model that made them")
    # of a single run no second copy: a million samples of a thousand classes take gigabytes
    stacked = scores[0][None] if len(scores) == 1 else np.stack(scores)
    return y.astype(np.int64), stacked, None if groups is None else group_numbers(groups)


def notes_on(
    support: Whole,
    class_names: Sequence[str],
    groups: Whole | None = None,
    wanted: int = 0,
    drawn: int = 0,
    few: Sequence[int] = (),
) -> list[str]:
    """Sentences on what scores leave out, by the samples of each class and the resamples that were wanted and drawn."""
    absent = [str(name) for name, count in zip(class_names, support, strict=True) if not count]
    notes = []
    if absent and len(class_names) - len(absent) < 2:
        notes.append(f"Only one class occurs (none of {', '.join(absent)}): AUC is not defined.")
    elif absent:
        notes.append(f"No sample of {', '.join(absent)}: left out of AUC, balanced accuracy and recall.")
    if groups is None or not wanted:
        return notes
    if groups.max() == 0:
        notes.append("Samples of one group alone have no interval over groups.")
    elif drawn < wanted:
        notes.append(
            f"A class is in so few groups that only {drawn} of {wanted} resamples with every class could be drawn."
        )
    if few and groups.max() > 0:
        names = ", ".join(str(class_names[c]) for c in few)
        notes.append(
            f"Of {names} there are fewer than {FEW_GROUPS} groups, too few for bootstrap intervals: "
            "averages over classes have none, and a recall the exact one where each sample is a group of its own."
        )
    return notes
