"""Test accuracy of every seed, and its paired difference from the baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ncmi.reports import text
from ncmi.reports.figures.drawing import Drawing
from ncmi.reports.figures.palette import TONES, Style
from ncmi.reports.figures.svg import Panel, grid
from ncmi.reports.statistics import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _ROW, _REST = 400, 23, 68
# names longer than this take room from the axes, which are as wide as before for it
_NAME, _LETTER = 15, 5.4
Interval = tuple[float, float] | None


def accuracy_panels(rows: Sequence[Row], styles: dict[str, Style], baseline: str) -> list[Panel]:
    """Two panels: accuracy in percent, difference from the baseline in points; in the order of the table."""
    return [drawing.panel() for drawing in accuracy_drawings(rows, styles, baseline)]


def accuracy_drawings(
    rows: Sequence[Row], styles: dict[str, Style], baseline: str, *, name: str = "", heading: str = ""
) -> list[Drawing]:
    """What :func:`accuracy_panels` shows; ``name`` keeps several on one page apart, ``heading`` goes in front."""
    drawings = [_accuracy(rows, styles, baseline, name, heading)]
    if any(row.difference for row in rows):
        drawings.append(_differences(rows, styles, baseline, name, heading))
    return drawings


def off_scale(means: Sequence[float]) -> float:
    """The lowest mean that is drawn to scale: a failed method must not squeeze all others into a corner.

    >>> off_scale([97.0, 98.0, 98.5, 11.0]) > 11
    True
    >>> off_scale([97.0, 98.0, 98.5, 96.5]) <= 96.5
    True
    """
    middle = float(np.median(means))
    return middle - max(2.0, 6 * float(np.median(np.abs(np.asarray(means) - middle))))


def _accuracy(rows: Sequence[Row], styles: dict[str, Style], baseline: str, name: str, heading: str) -> Drawing:
    def draw(axes: Axes) -> None:
        _draw(axes, rows, styles, [(row.accuracies, row.mean, row.interval) for row in rows])
        reference = next((row.mean for row in rows if row.is_baseline), math.nan)
        if math.isfinite(reference):
            axes.axvline(reference, color=TONES["ink"][0], linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.set_title(_title(heading, "Test accuracy"))
        axes.set_xlabel(f"test accuracy, %   (dashed: mean of {baseline})")

    described = "; ".join(f"{row.method} {text.mean_sd(row.mean, row.sd)} %" for row in rows)
    told = f"{heading} Test accuracy by method. {described}".lstrip()
    return Drawing(f"accuracy{name}", told, *_size(rows, heading), draw)


def _differences(rows: Sequence[Row], styles: dict[str, Style], baseline: str, name: str, heading: str) -> Drawing:
    values: list[tuple[Sequence[float], float, Interval]] = [
        (row.difference.values, row.difference.mean, row.difference.interval)
        if row.difference
        else ((), math.nan, None)
        for row in rows
    ]

    def draw(axes: Axes) -> None:
        _draw(axes, rows, styles, values)
        axes.axvline(0, color=TONES["ink"][0], linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.set_title(_title(heading, f"Paired difference from {baseline}"))
        axes.set_xlabel("difference at the same seed and split, points")

    described = "; ".join(
        f"{row.method} {text.signed(row.difference.mean)} ({text.interval(row.difference.interval)})"
        for row in rows
        if row.difference
    )
    told = f"{heading} Difference from {baseline} in points. {described}".lstrip()
    return Drawing(f"difference{name}", told, *_size(rows, heading), draw)


def _size(rows: Sequence[Row], heading: str) -> tuple[float, float]:
    longest = max((len(row.method) for row in rows), default=0)
    return _WIDTH + _LETTER * max(0, longest - _NAME), _ROW * len(rows) + _REST + (15 if heading else 0)


def _title(heading: str, title: str) -> str:
    """The heading on a line of its own."""
    return f"{heading}\n{title}" if heading else title


def _draw(
    axes: Axes,
    rows: Sequence[Row],
    styles: dict[str, Style],
    values: Sequence[tuple[Sequence[float], float, Interval]],
) -> None:
    means = [mean for _, mean, _ in values if math.isfinite(mean)]
    limit = off_scale(means) if means else -math.inf
    shown: list[float] = []
    far: list[tuple[int, float]] = []
    for place, (row, (points, mean, interval)) in enumerate(zip(rows, values, strict=True)):
        colour = styles[row.label].colour
        if not math.isfinite(mean):
            continue
        if mean < limit:
            far.append((place, mean))
            continue
        offsets = np.linspace(-0.24, 0.24, len(points)) if len(points) > 1 else np.zeros(len(points))
        axes.plot(
            points,
            place + offsets,
            "o",
            color=colour,
            markersize=4.6,
            alpha=0.55,
            markeredgewidth=0,
            clip_on=False,
        )
        if interval is not None:
            axes.plot(interval, (place, place), "-", color=colour, linewidth=1.5, solid_capstyle="butt")
        axes.plot(
            [mean],
            [place],
            "D",
            color=colour,
            markersize=6.5,
            markeredgecolor=TONES["paper"][0],
            markeredgewidth=0.9,
        )
        shown += [*points, mean]
        # an interval from two seeds may be ten times as wide as all that was measured: it runs off the edge
        spread = max(*points, mean) - min(*points, mean)
        if interval is not None:
            shown += [max(interval[0], mean - 2 * spread), min(interval[1], mean + 2 * spread)]
    if shown:
        margin = 0.04 * (max(shown) - min(shown)) or 0.5
        axes.set_xlim(min(shown) - margin, max(shown) + margin)
    for place, mean in far:
        axes.text(
            0.01,
            place,
            f"◂ {text.fixed(mean, 1)} (off the scale)",
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=10,
            color=styles[rows[place].label].colour,
        )
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [row.method for row in rows])
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color(TONES["ink"][0])
        label.set_fontweight("bold" if row.objective == "ncmi" or row.is_baseline else "normal")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    grid(axes, "x")
    axes.xaxis.set_major_formatter(lambda value, _: f"{round(value, 6):g}".replace("-", text.MINUS))
