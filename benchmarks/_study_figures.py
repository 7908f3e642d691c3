"""The pictures of the study: a critical-difference diagram, and accuracy by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from _study_statistics import cliques
from ncmi.reports.figures.drawing import Drawing, document
from ncmi.reports.figures.palette import TONES, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, SOFT, GRID, PAPER = (TONES[name][0] for name in ("ink", "soft", "grid", "paper"))
HIGHLIGHT = TONES["vermilion"][0]
_WIDTH, _ROW, _HEAD = 600, 21, 96


def difference_diagram(average_ranks: Mapping[str, float], difference: float, sets: int, marked: str) -> bytes:
    """Average ranks on a line, best on the right, names on both sides; bars join what does not differ (PNG).

    Args:
        average_ranks: of the methods by name.
        difference: critical.
        sets: number of data sets, for the caption.
        marked: the method to be drawn in colour.
    """
    names = sorted(average_ranks, key=lambda name: average_ranks[name])
    values = [average_ranks[name] for name in names]
    bars = cliques(values, difference)
    count = len(names)
    right = -(-count // 2)  # the better half has its names on the right
    depth = 0.55 + 0.42 * len(bars)  # of the first name's line

    def draw(axes: Axes) -> None:
        axes.set_axis_off()
        axes.set_xlim(count + 0.9 + 0.33 * count, 1 - 0.9 - 0.33 * count)
        axes.set_ylim(-depth - right - 0.8, 2.9)
        axes.plot([1, count], [0, 0], color=INK, linewidth=1.2, solid_capstyle="butt")
        for tick in np.arange(1, count + 0.25, 0.5):
            whole = float(tick).is_integer()
            axes.plot([tick, tick], [0, 0.34 if whole else 0.18], color=INK, linewidth=1)
            if whole:
                axes.text(tick, 0.5, f"{tick:.0f}", ha="center", va="bottom", color=SOFT)
        shown = min(difference, count - 1)
        axes.plot([count, count - shown], [1.75, 1.75], color=SOFT, linewidth=1.4)
        for end in (count, count - shown):
            axes.plot([end, end], [1.6, 1.9], color=SOFT, linewidth=1.4)
        axes.text(count, 2.05, f"critical difference {difference:.2f}", ha="left", color=SOFT)
        note = f"Average rank over {sets} data sets; bars join what they cannot tell apart (Nemenyi, 5 %)"
        axes.text((1 + count) / 2, -depth - right - 0.3, note, ha="center", va="center", color=SOFT, fontsize=9)
        for place, (name, rank) in enumerate(zip(names, values, strict=True)):
            best = place < right
            line = -depth - (place if best else count - 1 - place)
            edge = 1 - 0.55 if best else count + 0.55
            colour = HIGHLIGHT if name == marked else INK
            axes.plot([rank, rank, edge], [0, line, line], color=colour, linewidth=1.1, solid_joinstyle="miter")
            axes.plot(rank, 0, "o", color=colour, markersize=4.5, zorder=3)
            weight = "bold" if name == marked else "normal"
            side, shift = ("left", -0.08) if best else ("right", 0.08)
            told = f"{name}  {rank:.2f}" if best else f"{rank:.2f}  {name}"
            axes.text(edge + shift, line, told, ha=side, va="center", color=colour, weight=weight)
        for level, (first, last) in enumerate(bars):
            height = -0.42 - 0.42 * level
            ends = [values[first] - 0.06, values[last] + 0.06]
            axes.plot(ends, [height, height], color=INK, linewidth=3.6, solid_capstyle="round", zorder=4)

    told = f"Average ranks: {', '.join(f'{name} {rank:.2f}' for name, rank in zip(names, values, strict=True))}"
    return document([Drawing("cd", told, _WIDTH, _HEAD + _ROW * (depth + right), draw)], columns=1)[1]


Curve = tuple[str, Sequence[Sequence[float]], Style]


def accuracy_curves(sets: Mapping[str, Sequence[Curve]]) -> bytes:
    """Validation accuracy by epoch, one panel a data set: mean over seeds, and each seed as a thin line (PNG).

    Args:
        sets: for each data set, for each method its label, its seeds' accuracies in percent by epoch, and its style.
    """
    legend = {label: style for curves in sets.values() for label, _, style in curves}

    def panel(name: str, curves: Sequence[Curve]) -> Drawing:
        def draw(axes: Axes) -> None:
            for _, seeds, style in curves:
                epochs = np.arange(1, len(seeds[0]) + 1)
                look: dict[str, Any] = {"color": style.colour, "linestyle": style.line}
                for seed in seeds if len(seeds) > 1 else ():
                    axes.plot(epochs, seed, linewidth=0.7, alpha=0.45, **look)
                axes.plot(epochs, np.mean(seeds, axis=0), linewidth=2, **look)
            axes.grid(axis="y")
            axes.locator_params(axis="x", integer=True)
            axes.set_title(name)
            axes.set_xlabel("epoch")
            axes.set_ylabel("validation accuracy, %")

        return Drawing(name, f"Validation accuracy by epoch on {name}", 460, 290, draw)

    return document([panel(name, curves) for name, curves in sets.items()], columns=2, legend=legend)[1]
