"""Confusion matrices: shares by colour, counts by number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ncmi.reports.figures.palette import TONES
from ncmi.reports.figures.svg import Panel, canvas, to_svg
from ncmi.reports.text import short

_WIDTH = 400
# in more classes than this, counts would be too small to read
MOST_COUNTS = 16
# more cells than this are pixels, not shapes
_MOST_SHAPES = 30


def confusion(pairs: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]], num_classes: int) -> NDArray[np.int64]:
    """Counts ``[C, C]`` summed over (labels, predictions) pairs: rows are true classes, columns predicted."""
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    for labels, predictions in pairs:
        np.add.at(counts, (labels, predictions), 1)
    return counts


def worst_pairs(counts: NDArray[np.int64], class_names: Sequence[str], most: int = 3) -> list[tuple[str, str, int]]:
    """The most frequent confusions: (true class, predicted class, count); once is no pattern."""
    errors = counts.copy()
    np.fill_diagonal(errors, 0)
    order = np.argsort(errors, axis=None, kind="stable")[::-1][:most]
    found = (divmod(int(place), len(counts)) for place in order)
    return [(class_names[i], class_names[j], int(errors[i, j])) for i, j in found if errors[i, j] > 1]


def confusion_panel(name: str, title: str, counts: NDArray[np.int64], class_names: Sequence[str]) -> Panel:
    """One matrix; strength of colour is the cube root of the share of the row: rare errors are seen."""
    classes = len(class_names)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    strength = np.cbrt(share)
    diagonal = np.eye(classes, dtype=bool)
    with canvas(_WIDTH, _WIDTH) as figure:
        axes = figure.add_subplot()
        for tone, part in (("blue", diagonal), ("vermilion", ~diagonal)):
            _cells(axes, np.where(part, strength, 0.0), TONES[tone][0])
        if classes <= MOST_COUNTS:
            size = min(10.5, 120 / classes)
            for i, j in zip(*np.nonzero(counts), strict=True):
                # the colour of the paper on strong cells, the ink on weak ones
                tone = "paper" if strength[i, j] > 0.6 else "ink"
                axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=size, color=TONES[tone][0])
        names = [short(label, 12) for label in class_names]
        if classes <= 40:
            long = max(map(len, names)) > 3
            size = min(10.0, 290 / classes)
            axes.set_xticks(range(classes), names, rotation=90 if long else 0, fontsize=size)
            axes.set_yticks(range(classes), names, fontsize=size)
        axes.tick_params(length=0)
        axes.set_xlim(-0.5, classes - 0.5)
        axes.set_ylim(classes - 0.5, -0.5)
        axes.set_aspect("equal")
        for spine in axes.spines.values():
            spine.set_visible(True)
            spine.set_color(TONES["grid"][0])
        axes.set_title(title)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        right, total = int(np.trace(counts)), int(counts.sum())
        return Panel(to_svg(figure, name, f"Confusion matrix of {title}: {right} of {total} right"))


def _cells(axes: object, strength: NDArray[np.float64], colour: str) -> None:
    from matplotlib.axes import Axes
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    assert isinstance(axes, Axes)
    if len(strength) > _MOST_SHAPES:
        image = np.zeros((*strength.shape, 4))
        image[..., :3] = to_rgb(colour)
        image[..., 3] = strength
        axes.imshow(image, interpolation="nearest", aspect="equal")
        return
    for i, j in zip(*np.nonzero(strength), strict=True):
        alpha = float(strength[i, j])
        axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=colour, alpha=alpha, linewidth=0))
