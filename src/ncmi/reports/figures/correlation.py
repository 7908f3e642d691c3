"""NCMI against test accuracy: one point for each trained network."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ncmi.reports import text
from ncmi.reports.figures.drawing import Drawing
from ncmi.reports.figures.palette import TONES
from ncmi.reports.reproduction_correlation import Association, Correlation, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 460, 380
_LOOKS = (("sky", "o"), ("blue", "s"), ("green", "^"), ("orange", "D"), ("vermilion", "v"), ("pink", "P"))


def correlation_drawing(name: str, found: Correlation) -> Drawing:
    """Means over seeds as large points with the number of epochs beside them, single seeds as small ones."""

    def draw(axes: Axes) -> None:
        networks = list(dict.fromkeys(point.network for point in found.points))
        longest = max((point.epochs for point in found.points), default=1) or 1
        if found.logarithmic:
            axes.set_xscale("log")
        for place, network in enumerate(networks):
            tone, marker = _LOOKS[place % len(_LOOKS)]
            _draw_network(
                axes, [point for point in found.points if point.network == network], TONES[tone][0], marker, longest
            )
            axes.plot([], [], marker, color=TONES[tone][0], markersize=6.5, label=network)
        _trend(axes, found)
        axes.margins(0.1)
        axes.set_title(found.title)
        axes.set_xlabel("test NCMI" + (", logarithmic" if found.logarithmic else ""))
        axes.set_ylabel("test accuracy, %", labelpad=6)
        axes.grid(visible=True, which="major")
        axes.tick_params(which="both", length=0)
        _plain_ticks(axes, found.logarithmic)
        axes.legend(loc="best", frameon=False, fontsize=10, handletextpad=0.2)

    return Drawing(name, f"{found.title}. {in_words(found)}", _WIDTH, _HEIGHT, draw)


def in_words(found: Correlation) -> str:
    """The correlation as plotted, and on the raw values where these differ."""
    words = f"{found.plotted.n} networks: {pearson_words(found.plotted)}"
    if found.logarithmic:
        words += f" with the logarithm of NCMI as plotted; {pearson_words(found.raw)} with NCMI itself"
    return f"{words}; Spearman ρ = {text.fixed(found.raw.rho)}"


def pearson_words(found: Association) -> str:
    """Pearson's r with its interval."""
    bounds = f" (95 % interval {text.interval(found.interval)})" if found.interval else " (no interval)"
    return f"Pearson r = {text.fixed(found.r)}{bounds}"


def _draw_network(axes: Axes, points: list[Point], colour: str, marker: str, longest: int) -> None:
    for point in points:
        if len(point.seeds) > 1:
            values, accuracies = zip(*point.seeds, strict=True)
            axes.plot(values, accuracies, "o", color=colour, alpha=0.45, markersize=3, markeredgewidth=0, zorder=2)
        size = 5 + 5.5 * math.sqrt(point.epochs / longest)
        axes.plot(
            [point.ncmi],
            [point.accuracy],
            marker,
            color=colour,
            markersize=size,
            markeredgecolor=TONES["paper"][0],
            markeredgewidth=0.8,
            zorder=3,
        )
        axes.annotate(
            str(point.epochs),
            (point.ncmi, point.accuracy),
            (size / 2 + 2, 3),
            textcoords="offset points",
            fontsize=9.5,
            color=TONES["soft"][0],
            gid="halo",
            zorder=4,
        )


def _trend(axes: Axes, found: Correlation) -> None:
    """The least-squares line through the points as plotted."""
    if not math.isfinite(found.plotted.r):
        return
    x = np.array([point.ncmi for point in found.points])
    y = np.array([point.accuracy for point in found.points])
    drawn = np.log10(x) if found.logarithmic else x
    ends = np.array([drawn.min(), drawn.max()])
    slope = float(((drawn - drawn.mean()) * (y - y.mean())).sum() / ((drawn - drawn.mean()) ** 2).sum())
    axes.plot(
        10**ends if found.logarithmic else ends,
        y.mean() + slope * (ends - drawn.mean()),
        color=TONES["ink"][0],
        linewidth=1,
        linestyle=(0, (4, 3)),
        zorder=1,
    )


def _plain_ticks(axes: Axes, logarithmic: bool) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    if logarithmic:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
