"""Reliability diagrams: of the samples that are decided with confidence q, is the share q decided rightly?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scipy import stats

from ncmi.reports.figures.palette import TONES
from ncmi.reports.figures.svg import Panel, canvas, to_svg
from ncmi.reports.reliability import Bins

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 400, 400
_MARGIN = 0.025


def wilson(right: int, of: int) -> tuple[float, float]:
    """95 % interval of a share by Wilson's score, of ``right`` among ``of`` ≥ 1.

    >>> [round(bound, 3) for bound in wilson(9, 10)]
    [0.596, 0.982]
    """
    found = stats.binomtest(right, of).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def reliability_panel(name: str, title: str, bins: Bins) -> Panel:
    """Accuracy against confidence, a dot for each bin with its interval; below, how many samples each bin has."""
    total = sum(bins.counts)
    with canvas(_WIDTH, _HEIGHT) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
        missed = _dots(above, bins)
        above.set_title(title)
        above.set_ylabel("accuracy")
        _bars(below, bins)
        below.set_xlabel("confidence, the highest probability")
        told = f"{title}: accuracy against confidence in {len(bins.counts)} bins of {total} test samples"
        told += f"; in {missed} of them the interval of the accuracy does not hold the confidence"
        return Panel(to_svg(figure, name, told))


def _dots(axes: Axes, bins: Bins) -> int:
    """Draw the dots; the number of those whose interval misses the mean confidence."""
    axes.plot([0, 1], [0, 1], color=TONES["soft"][0], linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    missed = 0
    for count, confidence, accuracy in zip(bins.counts, bins.confidence, bins.accuracy, strict=True):
        if not count:
            continue
        low, high = wilson(round(accuracy * count), count)
        off = not low <= confidence <= high
        missed += off
        colour = TONES["vermilion" if off else "blue"][0]
        axes.plot([confidence, confidence], [low, high], color=colour, linewidth=1.4, alpha=0.6, zorder=2)
        # one sample is a speck beside a bin of thousands
        size = min(4 + 2.2 * math.log10(count), 12)
        axes.plot([confidence], [accuracy], "o", color=colour, markersize=size, markeredgewidth=0, zorder=3)
    axes.set_xlim(-_MARGIN, 1 + _MARGIN)
    axes.set_ylim(-_MARGIN, 1 + _MARGIN)
    axes.grid(visible=True)
    axes.tick_params(length=0)
    return missed


def _bars(axes: Axes, bins: Bins) -> None:
    from matplotlib.ticker import NullLocator

    width = 1 / len(bins.counts)
    for index, count in enumerate(bins.counts):
        if not count:
            continue
        # from a half, so that a single sample has a height on a logarithmic axis
        axes.bar((index + 0.5) * width, count - 0.5, 0.86 * width, 0.5, color=TONES["soft"][0], alpha=0.55)
        axes.annotate(
            str(count),
            ((index + 0.5) * width, count),
            (0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=TONES["soft"][0],
        )
    axes.set_yscale("log")
    highest = math.log10(max(bins.counts))
    axes.set_ylim(0.5, 10 ** (1.35 * highest + 0.4))  # room for the number on the highest bar
    decades = range(0, int(highest) + 1, max(1, int(highest) // 2))
    axes.set_yticks([10**decade for decade in decades], [str(10**decade) for decade in decades])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("samples, log.")
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
