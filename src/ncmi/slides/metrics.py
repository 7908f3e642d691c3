"""Metrics of slide classifiers, each with a bootstrap interval over patients. NumPy alone, no torch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ncmi.slides.bootstrap import (
    CONFIDENCE,
    RESAMPLES,
    Array,
    Whole,
    patient_draws,
    patient_numbers,
    percentile_interval,
    resampled,
)
from ncmi.slides.weighted_scores import SCORES, Judged


def slide_metrics(
    labels: ArrayLike,
    probabilities: ArrayLike,
    patients: Sequence[Hashable],
    class_names: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> dict[str, Any]:
    """Macro F1, macro one-vs-rest AUC, balanced accuracy, accuracy, recall of each class, and confusions.

    A slide is decided for its highest probability. Macro F1 is the mean over the classes that occur among labels or
    decisions, as in scikit-learn, never micro F1, which is the accuracy. AUC is the mean of one-vs-rest over the
    classes that occur among the labels; of two classes, that of the second. Balanced accuracy is the mean recall over
    the classes that occur.

    Intervals are percentiles over resamples of patients with replacement; resamples that lack a class of the sample are
    drawn anew: see :func:`ncmi.slides.bootstrap.patient_draws`.

    Args:
        labels: class of each slide, ``[n]``, n ≥ 1.
        probabilities: ``[n, C]``, finite; only their order matters.
        patients: patient of each slide, ``[n]``.
        class_names: names of the C ≥ 2 classes.
        resamples: B; 0 for no intervals.
        confidence: of the intervals.
        seed: of the resamples.

    Returns:
        By the names of :data:`SCORES` ``{"value", "low", "high"}``, in 0..1; ``recall``, the same by class;
        ``confusion``, counts (rows true, columns decided); ``patients``, ``slides``, ``bootstrap`` (resamples made),
        ``confidence``, and ``notes``, sentences on what is left out. NaN is what is not defined.

    Raises:
        ValueError: for arrays that do not belong together, labels without a name, or values that are not finite.

    >>> found = slide_metrics([0, 0, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8]], "abcd", ["no", "yes"])
    >>> found["accuracy"]["value"], found["auc"]["value"], found["confusion"]
    (0.75, 1.0, [[1, 1], [0, 2]])
    """
    y, scores, numbers = _checked(labels, [probabilities], patients)
    classes = scores.shape[2]
    if len(class_names) != classes:
        raise ValueError(
            f"{len(class_names)} class names, but probabilities of {classes} classes: give a name for each column"
        )
    judged = Judged(y, scores[0])
    value = judged(np.ones((1, len(y))))
    draws = patient_draws(numbers, y, resamples=resamples, seed=seed)
    spread = resampled(judged, numbers, draws) if len(draws) else {}

    def measure(name: str, column: int | None = None) -> dict[str, float]:
        own, others = value[name], spread.get(name, np.empty((0, classes)))
        if column is not None:
            own, others = own[:, column], others[:, column]
        low, high = percentile_interval(others, confidence)
        return {"value": float(own[0]), "low": low, "high": high}

    patients_count = int(numbers.max()) + 1
    return {
        **{name: measure(name) for name in SCORES},
        "recall": {name: measure("recall", index) for index, name in enumerate(class_names)},
        "confusion": judged.confusion().tolist(),
        "patients": patients_count,
        "slides": len(y),
        "bootstrap": len(draws),
        "confidence": confidence,
        "notes": _notes(y, class_names, patients_count, resamples, len(draws)),
    }


def paired_difference(
    labels: ArrayLike,
    probs_a: ArrayLike,
    probs_b: ArrayLike,
    patients: Sequence[Hashable],
    metric: str = "macro_f1",
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> dict[str, Any]:
    """Difference a − b of two models on the same slides, with a bootstrap interval over patients.

    Both are judged on the same resamples, so what is hard in them is hard for both. Of several runs of a model (seeds)
    the metric is averaged: the interval is about other patients, not about other seeds.

    Args:
        labels: class of each slide, ``[n]``.
        probs_a, probs_b: ``[n, C]``, or ``[S, n, C]`` of S runs.
        patients: patient of each slide, ``[n]``.
        metric: one of :data:`SCORES`.
        resamples, confidence, seed: as for :func:`slide_metrics`.

    Returns:
        ``{"metric", "value", "low", "high", "a", "b", "patients", "slides", "bootstrap", "confidence"}``.

    Raises:
        ValueError: as for :func:`slide_metrics`, and for another metric.

    >>> good, poor = [[0.9, 0.1], [0.2, 0.8]], [[0.9, 0.1], [0.6, 0.4]]
    >>> paired_difference([0, 1], good, poor, ["a", "b"], "accuracy")["value"]
    0.5
    """
    if metric not in SCORES:
        raise ValueError(f"metric={metric!r} is none of {', '.join(SCORES)}: give one of these")
    groups = [value[None] if value.ndim == 2 else value for value in map(_floats, (probs_a, probs_b))]
    y, scores, numbers = _checked(labels, [run for group in groups for run in group], patients)
    judges = [Judged(y, run, (metric,)) for run in scores]
    count = len(groups[0])

    def both(weights: Array) -> dict[str, Array]:
        found = np.stack([judge(weights)[metric] for judge in judges])
        return {"a": found[:count].mean(axis=0), "b": found[count:].mean(axis=0)}

    value = both(np.ones((1, len(y))))
    draws = patient_draws(numbers, y, resamples=resamples, seed=seed)
    spread = resampled(both, numbers, draws) if len(draws) else {"a": np.empty(0), "b": np.empty(0)}
    low, high = percentile_interval(spread["a"] - spread["b"], confidence)
    return {
        "metric": metric,
        "value": float(value["a"][0] - value["b"][0]),
        "low": low,
        "high": high,
        "a": float(value["a"][0]),
        "b": float(value["b"][0]),
        "patients": int(numbers.max()) + 1,
        "slides": len(y),
        "bootstrap": len(draws),
        "confidence": confidence,
    }


def _floats(values: ArrayLike) -> Array:
    return np.asarray(values, dtype=np.float64)


def _checked(labels: ArrayLike, runs: Sequence[ArrayLike], patients: Sequence[Hashable]) -> tuple[Whole, Array, Whole]:
    """Labels ``[n]``, probabilities ``[S, n, C]`` and patients' numbers ``[n]``."""
    y = np.asarray(labels)
    scores = [_floats(run) for run in runs]
    if any(one.ndim != 2 or one.shape != scores[0].shape for one in scores) or scores[0].shape[1] < 2:
        shapes = ", ".join(str(one.shape) for one in scores)
        raise ValueError(f"probabilities of shape {shapes}: give [n, C], the same for all, with C of at least 2")
    slides, classes = scores[0].shape
    if y.shape != (slides,) or len(patients) != slides or not slides:
        raise ValueError(
            f"labels of shape {y.shape}, {len(patients)} patients and probabilities of {slides} slides: "
            "give one label and one patient for each slide, and at least one slide"
        )
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"labels are {y.dtype}: give the classes' numbers as integers")
    if not 0 <= y.min() <= y.max() < classes:
        raise ValueError(f"labels run from {y.min()} to {y.max()}, but there are {classes} classes: check the labels")
    if not all(np.isfinite(one).all() for one in scores):
        raise ValueError("probabilities are not all finite: check the model that made them")
    return y.astype(np.int64), np.stack(scores), patient_numbers(patients)


def _notes(labels: Whole, class_names: Sequence[str], patients: int, wanted: int, drawn: int) -> list[str]:
    absent = [str(name) for index, name in enumerate(class_names) if not (labels == index).any()]
    notes = []
    if absent and len(class_names) - len(absent) < 2:
        notes.append(f"Only one class occurs (none of {', '.join(absent)}): AUC is not defined.")
    elif absent:
        notes.append(f"No slide of {', '.join(absent)}: left out of AUC, balanced accuracy and recall.")
    if wanted and patients < 2:
        notes.append("Slides of one patient alone have no interval over patients.")
    elif drawn < wanted:
        notes.append(
            f"A class has so few patients that only {drawn} of {wanted} resamples with every class could be drawn."
        )
    return notes
