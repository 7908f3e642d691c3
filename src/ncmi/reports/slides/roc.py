"""ROC curves of each class against all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ncmi.reports import text
from ncmi.reports.figures.drawing import Drawing
from ncmi.reports.figures.palette import TONES, class_colours
from ncmi.reports.figures.svg import Panel
from ncmi.reports.slides.words import score
from ncmi.slides.weighted_scores import weighted_auc

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = 400
# more names than this do not fit into the corner below the curves
_MOST_NAMES = 10


def roc_curve(
    scores: NDArray[np.float64], positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates as the threshold falls, from (0, 0) to (1, 1); a tie is one sloping line.

    >>> false, true = roc_curve(np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False]))
    >>> false.tolist(), true.tolist()
    ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(scores[order]) != 0, True])
    hits = np.cumsum(positive[order])[ends]
    misses = 1 + ends - hits
    return np.r_[0.0, misses / misses[-1]], np.r_[0.0, hits / hits[-1]]


def roc_panel(
    name: str, title: str, labels: NDArray[np.int64], probabilities: NDArray[np.float64], class_names: Sequence[str]
) -> Panel | None:
    """Curves of all classes that occur beside others; of two classes, of the second. None where there is no such."""
    colours = class_colours(len(class_names))
    shown = [1] if len(class_names) == 2 else range(len(class_names))
    curves = []
    for index in shown:
        positive = labels == index
        if positive.any() and not positive.all():
            area = float(weighted_auc(probabilities[:, index], positive, np.ones((1, len(labels))))[0])
            curves.append((index, area, *roc_curve(probabilities[:, index], positive)))
    if not curves:
        return None

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=TONES["soft"][0], linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        for index, area, false, true in curves:
            label = f"{text.short(class_names[index])} {score(area)}"
            axes.plot(false, true, color=colours[index], linewidth=1.8, label=label, solid_joinstyle="round")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_aspect("equal")
        axes.grid(visible=True)
        axes.tick_params(length=0)
        axes.set_title(title)
        axes.set_xlabel("false positive rate (1 − specificity)")
        axes.set_ylabel("true positive rate (recall)")
        if len(curves) <= _MOST_NAMES:
            legend = axes.legend(loc="lower right", frameon=False, title="class, AUC", fontsize=9.5, title_fontsize=9.5)
            for words in (*legend.get_texts(), legend.get_title()):
                words.set_color(TONES["ink"][0])

    described = "; ".join(f"{class_names[index]} {score(area)}" for index, area, _, _ in curves)
    return Drawing(name, f"ROC curves of {title}, area of each class: {described}", _SIZE, _SIZE, draw).panel()
