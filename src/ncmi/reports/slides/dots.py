"""Dot plots: values with their intervals, row by row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ncmi.reports import text
from ncmi.reports.figures.drawing import Drawing
from ncmi.reports.figures.palette import TONES, Style
from ncmi.reports.figures.svg import grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _LINE, _REST = 400, 15, 72


@dataclass(frozen=True)
class Dot:
    """One value of a row: series by number, its value, its interval, and the single values that it is the mean of."""

    series: int
    style: Style
    value: float
    interval: tuple[float, float] | None
    points: Sequence[float] = ()


@dataclass(frozen=True)
class DotRow:
    """A name with its values, one below the other."""

    name: str
    dots: Sequence[Dot]


def dot_drawing(
    name: str,
    title: str,
    unit: str,
    rows: Sequence[DotRow],
    *,
    zero: bool = False,
    limits: tuple[float, float] | None = None,
) -> Drawing:
    """A dot plot of rows from the top down.

    Args:
        name: unique on the page.
        title, unit: above and below.
        rows: with values that may be NaN: these are left out.
        zero: differences, with a dashed line at zero, in place of scores in 0 … 1.
        limits: of the axis; by default what the values need, and no more of intervals than three times their range.
    """
    lines = sum(len(row.dots) + 0.8 for row in rows)

    def draw(axes: Axes) -> None:
        place, ticks = 0.0, []
        shown: list[float] = [0.0] if zero else []
        for row in rows:
            ticks.append(place + (len(row.dots) - 1) / 2)
            for dot in row.dots:
                if math.isfinite(dot.value):
                    _draw(axes, place, dot)
                    shown += [dot.value, *dot.points]
                place += 1
            place += 0.8
        low, high = limits or _limits(shown, [dot.interval for row in rows for dot in row.dots])
        if not zero:
            # no score lies outside 0 … 1, whatever an interval says
            low, high = max(low, -0.02), min(high, 1.02)
        axes.set_xlim(low, high)
        axes.set_ylim(place - 1.0, -0.8)
        if zero:
            axes.axvline(0, color=TONES["ink"][0], linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.set_yticks(ticks, [text.short(row.name, 26) for row in rows])
        for label in axes.get_yticklabels():
            label.set_color(TONES["ink"][0])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        grid(axes, "x")
        axes.xaxis.set_major_formatter(lambda value, _: f"{round(value, 6):g}".replace("-", text.MINUS))
        axes.set_title(title)
        axes.set_xlabel(unit)

    described = "; ".join(
        f"{row.name} {', '.join(text.fixed(dot.value, 3) for dot in row.dots if math.isfinite(dot.value))}"
        for row in rows
    )
    return Drawing(name, f"{title}. {described}", _WIDTH, _LINE * lines + _REST, draw)


def _draw(axes: Axes, place: float, dot: Dot) -> None:
    colour, gid = dot.style.colour, f"series:{dot.series}"
    if dot.interval is not None and all(map(math.isfinite, dot.interval)):
        (bar,) = axes.plot(dot.interval, (place, place), "-", color=colour, linewidth=1.5, solid_capstyle="butt")
        bar.set_gid(gid)
    if len(dot.points) > 1:
        offsets = np.linspace(-0.28, 0.28, len(dot.points))
        (points,) = axes.plot(
            dot.points, place + offsets, "o", color=colour, markersize=3.8, alpha=0.5, markeredgewidth=0, clip_on=False
        )
        points.set_gid(gid)
    edge = {"markeredgecolor": TONES["paper"][0], "markeredgewidth": 0.9}
    (mean,) = axes.plot([dot.value], [place], "D", color=colour, markersize=6, **edge)  # type: ignore[arg-type]
    mean.set_gid(gid)


def _limits(values: Sequence[float], intervals: Sequence[tuple[float, float] | None]) -> tuple[float, float]:
    """From the lowest to the highest of all; an interval of two values may be far wider, and runs off the edge."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    spread = (high - low) or 0.02
    bounds = [bound for interval in intervals if interval for bound in interval if math.isfinite(bound)]
    low = max(low - spread, min([low, *bounds]))
    high = min(high + spread, max([high, *bounds]))
    margin = 0.04 * ((high - low) or 0.02)
    return low - margin, high + margin
