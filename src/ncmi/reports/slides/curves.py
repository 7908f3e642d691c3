"""Learning curves of a run: losses, and scores on the validation part, epoch by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ncmi.reports.figures.drawing import Drawing
from ncmi.reports.figures.palette import TONES, Style
from ncmi.reports.figures.svg import Panel, grid
from ncmi.reports.figures.trajectories import curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 400, 225
_PANELS = (
    ("train_loss", "Training loss", "loss of the objective"),
    ("train_penalty", "Penalty of the network", "penalty, added to the loss"),
    ("validation_loss", "Validation loss", "NLL of the head, nats"),
    ("validation_macro_f1", "Validation macro F1", "macro F1"),
    ("validation_auc", "Validation AUC", "macro AUC"),
)


def curve_panels(metrics: pd.DataFrame, style: Style, best_epoch: int | None) -> list[Panel]:
    """One panel for each measure that the run has; a dashed line marks the epoch that was kept."""
    return [
        _drawing(metrics, column, title, unit, style, best_epoch).panel()
        for column, title, unit in _PANELS
        if np.isfinite(metrics[column]).any() and (column != "train_penalty" or (metrics[column] != 0).any())
    ]


def _drawing(
    metrics: pd.DataFrame, column: str, title: str, unit: str, style: Style, best_epoch: int | None
) -> Drawing:
    drawn = curve([metrics], column)

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        axes.plot(
            drawn.epochs,
            drawn.mean,
            color=style.colour,
            linewidth=2,
            marker="o" if len(drawn.epochs) == 1 else None,
        )
        if best_epoch is not None:
            axes.axvline(best_epoch, color=TONES["soft"][0], linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit, labelpad=6)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10]))
        axes.spines["left"].set_visible(False)
        grid(axes, "y")

    return Drawing(column.replace("_", "-"), f"{title} by epoch", _WIDTH, _HEIGHT, draw)
