"""Test accuracy against batch size: one line for each method and read-out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ncmi.reports import text
from ncmi.reports.figures.drawing import Drawing
from ncmi.reports.figures.palette import TONES, Style
from ncmi.reports.figures.svg import grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 620, 380
# share of the height that the name of a line takes
_LABEL = 0.052
_MARKERS = ("o", "s", "^", "D")


@dataclass(frozen=True)
class Line:
    """One method with one read-out: mean and sample standard deviation (NaN of one seed) in percent by batch size.

    ``kind`` counts the read-outs of one method, which share a colour and differ in their markers.
    """

    name: str
    style: Style
    kind: int
    batch_sizes: tuple[int, ...]
    means: tuple[float, ...]
    sds: tuple[float, ...]


def batch_size_drawing(name: str, title: str, lines: Sequence[Line]) -> Drawing:
    """Means with bars of one standard deviation, each line named at its end."""

    def draw(axes: Axes) -> None:
        sizes = sorted({size for line in lines for size in line.batch_sizes})
        axes.set_xscale("log", base=2)
        for place, line in enumerate(lines):
            _draw_line(axes, line, np.asarray(line.batch_sizes) * _shift(place, len(lines)))
        axes.set_xlim(sizes[0] / 1.25, sizes[-1] * 1.25)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("batch size, logarithmic")
        axes.set_ylabel("test accuracy, %", labelpad=6)
        axes.set_title(title)
        axes.spines["left"].set_visible(False)
        axes.margins(y=0.06)
        grid(axes, "y")
        _name_lines(axes, lines)

    told = "; ".join(
        f"{line.name}: "
        + ", ".join(
            f"{size}: {text.mean_sd(mean, sd)} %"
            for size, mean, sd in zip(line.batch_sizes, line.means, line.sds, strict=True)
        )
        for line in lines
    )
    return Drawing(name, f"Test accuracy by batch size. {told}", _WIDTH, _HEIGHT, draw)


def _draw_line(axes: Axes, line: Line, places: NDArray[np.float64]) -> None:
    colour, means, sds = line.style.colour, np.asarray(line.means), np.asarray(line.sds)
    axes.plot(places, means, color=colour, linestyle=line.style.line, linewidth=1.6, zorder=2)
    # one seed has no deviation, and so no bar
    known = np.isfinite(sds)
    axes.vlines(places[known], (means - sds)[known], (means + sds)[known], color=colour, linewidth=1.2, zorder=2)
    axes.plot(
        places,
        means,
        _MARKERS[line.kind % len(_MARKERS)],
        color=colour,
        # the second read-out of a method is hollow
        markerfacecolor=TONES["paper"][0] if line.kind else colour,
        markersize=5.5,
        markeredgewidth=1.3,
        zorder=3,
    )


def _shift(place: int, count: int) -> float:
    """Bars side by side: at the same batch size they would cover each other."""
    return float(2 ** (0.05 * (place - (count - 1) / 2)))


def _name_lines(axes: Axes, lines: Sequence[Line]) -> None:
    low, high = axes.get_ylim()
    ends = np.array([(line.means[-1] - low) / (high - low) for line in lines])
    for index, (line, place) in enumerate(zip(lines, spread(ends, _LABEL), strict=True)):
        axes.annotate(
            line.name,
            (line.batch_sizes[-1] * _shift(index, len(lines)), line.means[-1]),
            (1.02, place),
            textcoords="axes fraction",
            va="center",
            fontsize=10.5,
            color=line.style.colour,
            arrowprops={"arrowstyle": "-", "color": line.style.colour, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 5},
        )


def spread(places: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Places moved as little as need be to lie ``gap`` apart, in the same order.

    >>> spread(np.array([0.5, 0.5]), 0.1).tolist()
    [0.45, 0.55]
    """
    order = np.argsort(places, kind="stable")
    # blocks of names that touch: (middle, members), merged until none overlap
    blocks: list[tuple[float, int]] = []
    for place in places[order]:
        blocks.append((float(place), 1))
        while len(blocks) > 1 and blocks[-1][0] - blocks[-2][0] < gap * (blocks[-1][1] + blocks[-2][1]) / 2 - 1e-12:
            (upper, many), (lower, few) = blocks.pop(), blocks.pop()
            blocks.append(((upper * many + lower * few) / (many + few), many + few))
    moved = np.concatenate([middle + gap * (np.arange(n) - (n - 1) / 2) for middle, n in blocks])
    result = np.empty_like(moved)
    result[order] = moved
    return result
