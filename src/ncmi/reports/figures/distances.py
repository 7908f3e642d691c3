"""Distances to the nearest centroid, of test samples and of foreign ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ncmi.reports import text
from ncmi.reports.figures.drawing import Drawing
from ncmi.reports.figures.palette import TONES
from ncmi.reports.figures.svg import grid
from ncmi.reports.foreign import Foreign

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 460, 290


def distances_drawing(name: str, found: Foreign) -> Drawing:
    """Two histograms over the logarithm of the distance, each by shares, and the threshold that 95 % stay below."""
    told = found.scores["distance"]
    inside, outside = text.short(found.in_distribution, 24), text.short(found.name, 24)

    def draw(axes: Axes) -> None:
        edges = np.asarray(found.edges)
        for label, counts, tone in (
            (f"test part of {inside}", found.inside, "blue"),
            (outside, found.outside, "vermilion"),
        ):
            shares = 100 * np.asarray(counts) / max(sum(counts), 1)
            axes.stairs(shares, edges, fill=True, color=TONES[tone][0], alpha=0.25)
            axes.stairs(shares, edges, color=TONES[tone][0], linewidth=1.6, label=label)
        axes.set_xscale("log")
        _plain_ticks(axes, math.log10(edges[-1] / edges[0]))
        axes.set_ylim(bottom=0)
        axes.axvline(told.threshold, color=TONES["ink"][0], linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            "95 % of the test part",
            (told.threshold, 0.99),
            (-5, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right",
            va="top",
            rotation=90,
            fontsize=9.5,
            color=TONES["soft"][0],
            gid="halo",
        )
        axes.set_title(f"{outside} against {inside}")
        axes.set_xlabel("KL to the nearest centroid, nats, logarithmic")
        axes.set_ylabel("samples in a bin, %", labelpad=6)
        axes.spines["left"].set_visible(False)
        axes.legend(loc="best", frameon=False, fontsize=10, handlelength=1.4)
        grid(axes, "y")

    described = (
        f"Histograms of the distance to the nearest centroid: {found.num_in} test samples of {inside} and "
        f"{found.num_out} samples of {outside}; AUROC {text.fixed(100 * told.auroc)} %"
    )
    return Drawing(name, described, _WIDTH, _HEIGHT, draw)


def _plain_ticks(axes: Axes, decades: float) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    subs = (1.0, 2.0, 5.0) if decades < 2 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs) if decades > 0.7 else MaxNLocator(4))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.6g}".replace("-", "−"))
    axes.tick_params(axis="x", length=3)
