"""Test features in two dimensions: neighbourhoods (t-SNE) and true distances (principal components)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ncmi.reports.figures.drawing import Drawing
from ncmi.reports.figures.palette import TONES, class_colours
from ncmi.reports.figures.projection import Cloud, neighbourhoods, principal_components
from ncmi.reports.figures.svg import Panel
from ncmi.reports.text import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# names of more classes than this would cover the points
_MOST_NAMES = 30
# where more than this share is wrong, crosses in ink would hide the classes: they take the class's colour
_MANY_WRONG = 0.15


def tsne_panels(clouds: Sequence[Cloud], class_names: Sequence[str]) -> list[Panel]:
    """One large panel for each cloud that a t-SNE can be made of."""
    return [drawing.panel() for drawing in tsne_drawings(clouds, class_names)]


def tsne_drawings(clouds: Sequence[Cloud], class_names: Sequence[str], *, name: str = "tsne") -> list[Drawing]:
    """What :func:`tsne_panels` shows."""
    drawings = []
    for index, one in enumerate(clouds):
        points = neighbourhoods(one.directions)
        if points is not None:
            drawings.append(_scatter(f"{name}{index}", one, points, class_names, one.title, large=True))
    return drawings


def pca_panels(clouds: Sequence[Cloud], class_names: Sequence[str]) -> list[Panel]:
    """Small multiples: every cloud on the same scale, so that tight clusters look tight."""
    return [drawing.panel() for drawing in pca_drawings(clouds, class_names)]


def pca_drawings(clouds: Sequence[Cloud], class_names: Sequence[str], *, name: str = "pca") -> list[Drawing]:
    """What :func:`pca_panels` shows."""
    projected = [principal_components(one.directions) for one in clouds if len(one.directions) > 1]
    drawn = [one for one in clouds if len(one.directions) > 1]
    reach = max((float(np.abs(points).max()) for points, _ in projected), default=1.0)
    return [
        _scatter(f"{name}{i}", one, points, class_names, f"{one.title} · {100 * share:.0f} %", reach=reach)
        for i, (one, (points, share)) in enumerate(zip(drawn, projected, strict=True))
    ]


def _scatter(
    name: str,
    one: Cloud,
    points: NDArray[np.float64],
    class_names: Sequence[str],
    title: str,
    *,
    large: bool = False,
    reach: float | None = None,
) -> Drawing:
    side = 400 if large else 200
    colours = np.asarray(class_colours(len(class_names)))
    named = large and len(class_names) <= _MOST_NAMES
    # classes that lie scattered have no place for their name
    keyed = named and bool(one.wrong.mean() > _MANY_WRONG)

    def draw(axes: Axes) -> None:
        _points(axes, one, points, colours, large)
        # of neighbourhoods the whole, with room for the names above the clusters
        middle = (points.min(axis=0) + points.max(axis=0)) / 2 if reach is None else np.zeros(2)
        half = float(0.58 * np.ptp(points, axis=0).max() if reach is None else 1.08 * reach) or 1.0
        axes.set_xlim(middle[0] - half, middle[0] + half)
        axes.set_ylim(middle[1] - half, middle[1] + half)
        axes.set_aspect("equal")
        axes.set_title(title, fontsize=11.5 if large else 10.5)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(True)
            spine.set_color(TONES["grid"][0])
        if keyed:
            _key(axes, class_names, colours)
        elif named:
            _name_classes(axes, points, one.labels, class_names)

    kind = "t-SNE" if large else "Principal components"
    size = f"{len(points)} points, {int(one.wrong.sum())} misclassified"
    height = side + 22 + (16 * -(-len(class_names) // _columns(class_names)) + 10 if keyed else 0)
    return Drawing(name, f"{kind} of the test features of {one.title}: {size}", side, height, draw, dpi=170)


def _columns(class_names: Sequence[str]) -> int:
    return 4 if max(map(len, class_names)) > 6 else 8


def _key(axes: Axes, class_names: Sequence[str], colours: NDArray[np.str_]) -> None:
    """Colours and names of the classes below the picture."""
    for name, colour in zip(class_names, colours, strict=True):
        axes.plot([], [], "o", color=str(colour), markersize=6, markeredgewidth=0, label=short(name))
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=_columns(class_names),
        fontsize=10,
        frameon=False,
        handletextpad=0.1,
        columnspacing=0.9,
        labelspacing=0.35,
    )


def _points(axes: Axes, one: Cloud, points: NDArray[np.float64], colours: NDArray[np.str_], large: bool) -> None:
    right, wrong = points[~one.wrong], points[one.wrong]
    axes.scatter(
        right[:, 0],
        right[:, 1],
        s=20 if large else 9,
        c=colours[one.labels[~one.wrong]].tolist(),
        alpha=0.75,
        linewidths=0,
        rasterized=True,
    )
    if one.wrong.mean() > _MANY_WRONG:
        axes.scatter(
            wrong[:, 0],
            wrong[:, 1],
            s=15 if large else 7,
            c=colours[one.labels[one.wrong]].tolist(),
            marker="x",
            linewidths=0.9 if large else 0.6,
            rasterized=True,
        )
        return
    axes.scatter(
        wrong[:, 0],
        wrong[:, 1],
        s=34 if large else 16,
        c=TONES["ink"][0],
        marker="x",
        linewidths=1.3 if large else 0.9,
    )


def _name_classes(
    axes: Axes, points: NDArray[np.float64], labels: NDArray[np.int64], class_names: Sequence[str]
) -> None:
    left, right = axes.get_xlim()
    reach = 0.035 * (right - left)
    for label, name in enumerate(class_names):
        members = points[labels == label]
        if not len(members):
            continue
        # at the member nearest to the median: on its own cluster, even where that is torn in two
        distance = ((members - np.median(members, axis=0)) ** 2).sum(axis=1)
        spot = members[np.argmin(distance)]
        near = members[(np.abs(members - spot) < (reach, 2 * reach)).all(axis=1)]
        place = (spot[0] - left) / (right - left)
        written = axes.annotate(
            short(name),
            (spot[0], near[:, 1].max()),
            (0, 4),
            textcoords="offset points",
            # inwards, where a long name would run over the edge
            ha="left" if place < 0.15 else "right" if place > 0.85 else "center",
            va="bottom",
            fontsize=12,
            fontweight="bold",
            gid="halo",
        )
        written.set_in_layout(False)
