"""Scores of decisions on slides where each slide has a weight: all resamples of a bootstrap at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ncmi.slides.bootstrap import Array, Whole

SCORES = ("macro_f1", "auc", "balanced_accuracy", "accuracy")


class Judged:
    """Decisions on slides. Called with weights ``[b, n]``, whole numbers ≥ 0, it gives every score ``[b]`` under them.

    A slide of weight 2 counts as two, one of weight 0 not at all; ``recall`` is ``[b, C]``. Which classes take part in
    an average is settled by all slides, so that it is the same for all weights.

    Args:
        labels: ``[n]``.
        scores: ``[n, C]``; the highest decides.
        names: of the scores to compute.
    """

    def __init__(self, labels: Whole, scores: Array, names: Sequence[str] = (*SCORES, "recall")) -> None:
        self.labels, self.scores, self.names = labels, scores, names
        self.classes = scores.shape[1]
        self.decided = scores.argmax(axis=1)
        self.cells = np.zeros((len(labels), self.classes**2))
        self.cells[np.arange(len(labels)), labels * self.classes + self.decided] = 1
        self.occurs = np.bincount(labels, minlength=self.classes) > 0
        self.named = self.occurs | (np.bincount(self.decided, minlength=self.classes) > 0)

    def confusion(self) -> Whole:
        """Counts ``[C, C]`` of all slides: rows true, columns decided."""
        counts: Whole = self.cells.sum(axis=0).reshape(self.classes, self.classes).astype(np.int64)
        return counts

    def __call__(self, weights: Array) -> dict[str, Array]:
        counts = (weights @ self.cells).reshape(-1, self.classes, self.classes)
        right = np.diagonal(counts, axis1=1, axis2=2)
        true, decided = counts.sum(axis=2), counts.sum(axis=1)
        recall = np.full(right.shape, np.nan)
        np.divide(right, true, out=recall, where=true > 0)
        # of a class that decisions name and labels do not, it is 0 under all weights
        f1 = 2 * right / np.maximum(true + decided, 1)
        found = {
            "macro_f1": f1[:, self.named].mean(axis=1),
            "balanced_accuracy": recall[:, self.occurs].mean(axis=1),
            "accuracy": right.sum(axis=1) / weights.sum(axis=1),
            "recall": recall,
        }
        if "auc" in self.names:
            found["auc"] = self._auc(weights)
        return {name: found[name] for name in self.names}

    def _auc(self, weights: Array) -> Array:
        if self.occurs.sum() < 2:
            return np.full(len(weights), math.nan)
        judged = [1] if self.classes == 2 else np.flatnonzero(self.occurs)
        mean: Array = np.mean([weighted_auc(self.scores[:, c], self.labels == c, weights) for c in judged], axis=0)
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
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    sorted_weights = weights[:, order]
    above = np.add.reduceat(sorted_weights * positive[order], starts, axis=1)
    all_of_tie = np.add.reduceat(sorted_weights, starts, axis=1)
    below = all_of_tie - above
    wins = above * (np.cumsum(below, axis=1) - below / 2)
    result: Array = wins.sum(axis=1) / (above.sum(axis=1) * below.sum(axis=1))
    return result
