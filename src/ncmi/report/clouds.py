"""Features made drawable: unit length, a bounded number of points, in two dimensions; and their charts.

Neighborhoods are seen by t-SNE, true distances by principal components.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from ncmi.report import text
from ncmi.report.charts import Chart, either, identifier, zoom
from ncmi.report.palette import TONES, class_colors
from ncmi.training.run_folder import Outputs

MOST_POINTS = 500
"""More points than this are no clearer, only slower."""
MOST_CLASSES, FEW_CLASSES = 30, 10
"""Colors of more classes than this cannot be told apart: a few of them are drawn."""
# where more than this share is wrong, crosses in ink would hide the classes: they take the class's color
_MANY_WRONG = 0.15
_ITERATIONS = 500


@dataclass(frozen=True)
class Cloud:
    """Unit-length features ``[N, D]`` of one run with labels and errors; of many, a seeded sample."""

    title: str
    directions: NDArray[np.float64]
    labels: NDArray[np.int64]
    wrong: NDArray[np.bool_]
    total: int


def drawn_classes(class_names: Sequence[str]) -> list[int]:
    """The classes that pictures show: all, or of very many the first ten by name.

    >>> drawn_classes(["b", "a"]), drawn_classes([str(9999 - i) for i in range(100)])[:3]
    ([0, 1], [99, 98, 97])
    """
    everything = range(len(class_names))
    few = len(everything) <= MOST_CLASSES
    return list(everything) if few else sorted(everything, key=lambda index: class_names[index])[:FEW_CLASSES]


def make_cloud(title: str, outputs: Outputs, readout: str, classes: Sequence[int]) -> Cloud:
    """Features divided by their length, of the given classes, which are numbered anew in that order.

    Features of length 0 or not finite are left out.
    """
    features, labels = np.asarray(outputs.features, dtype=np.float64), np.asarray(outputs.labels, dtype=np.int64)
    length = np.linalg.norm(features, axis=1)
    place = np.full(int(max(labels.max(initial=0), *classes)) + 1, -1, dtype=np.int64)
    place[list(classes)] = np.arange(len(classes))
    drawn = place[labels] >= 0
    kept = np.flatnonzero(drawn & np.isfinite(length) & (length > 0))
    if len(kept) > MOST_POINTS:
        kept = np.sort(np.random.default_rng(0).choice(kept, MOST_POINTS, replace=False))
    wrong = np.asarray(outputs.predictions.get(readout, labels)) != labels
    return Cloud(title, features[kept] / length[kept, None], place[labels[kept]], wrong[kept], int(drawn.sum()))


def principal_components(directions: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The two principal components ``[N, 2]`` and the share of the variance (0..1) that they carry."""
    centered = directions - directions.mean(axis=0)
    with _one_thread():
        left, singular, _ = np.linalg.svd(centered, full_matrices=False)
    points = np.zeros((len(directions), 2))
    points[:, : len(singular[:2])] = left[:, :2] * singular[:2]
    variance = singular**2
    total = float(variance.sum())
    return points, float(variance[:2].sum()) / total if total > 0 else 1.0


def neighborhoods(directions: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """t-SNE of the directions ``[N, 2]``; None where there are too few points, or no spread, for one."""
    if len(directions) < 30 or np.ptp(directions, axis=0).max() < 1e-9:
        return None
    from sklearn.manifold import TSNE

    # the principal components, small: a start that does not depend on chance
    points, _ = principal_components(directions)
    tsne = TSNE(
        perplexity=min(30.0, len(directions) / 6),
        init=np.asarray(1e-4 * points / max(float(points[:, 0].std()), 1e-12), dtype=np.float32),
        learning_rate="auto",
        max_iter=_ITERATIONS,
        random_state=0,
        n_jobs=1,
    )
    with _one_thread():
        return np.asarray(tsne.fit_transform(directions.astype(np.float32)), dtype=float)


def tsne_charts(clouds: Sequence[Cloud], class_names: Sequence[str], *, name: str = "tsne") -> list[Chart]:
    """One large chart for each cloud that a t-SNE can be made of."""
    charts = []
    for index, cloud in enumerate(clouds):
        points = neighborhoods(cloud.directions)
        if points is not None:
            # with room for the names above the clusters
            reach = float(0.58 * np.ptp(points, axis=0).max()) or 1.0
            points = points - (points.min(axis=0) + points.max(axis=0)) / 2
            charts.append(_scatter(f"{name}{index}", cloud, points, class_names, cloud.title, reach, small=False))
    return charts


def pca_charts(clouds: Sequence[Cloud], class_names: Sequence[str], *, name: str = "pca") -> list[Chart]:
    """Small multiples: every cloud on the same scale, so that tight clusters look tight."""
    drawn = [cloud for cloud in clouds if len(cloud.directions) > 1]
    projected = [principal_components(cloud.directions) for cloud in drawn]
    reach = 1.08 * max((float(np.abs(points).max()) for points, _ in projected), default=1.0) or 1.0
    return [
        _scatter(f"{name}{i}", cloud, points, class_names, f"{cloud.title} · {100 * share:.0f} %", reach, small=True)
        for i, (cloud, (points, share)) in enumerate(zip(drawn, projected, strict=True))
    ]


def _scatter(
    name: str,
    cloud: Cloud,
    points: NDArray[np.float64],
    class_names: Sequence[str],
    title: str,
    reach: float,
    *,
    small: bool,
) -> Chart:
    rows = [
        {"class": class_names[label], "series": "wrong" if wrong else "right", "part": "point"}
        | {"x": round(float(x), 4), "y": round(float(y), 4)}
        for (x, y), label, wrong in zip(points, cloud.labels, cloud.wrong, strict=True)
    ]
    # where classes lie scattered there is no place for their names: they stand in a legend
    many = bool(len(cloud.wrong)) and float(cloud.wrong.mean()) > _MANY_WRONG
    rows += [] if small or many else _names(points, cloud.labels, class_names, reach)
    columns = {"class": "true class", "series": "decision", "x": "x", "y": "y"}
    sides = alt.Scale(domain=[-reach, reach], nice=False)
    legend = alt.Legend(title=None, orient="bottom", columns=5, symbolOpacity=1, labelLimit=110)
    colors = alt.Scale(domain=list(class_names), range=class_colors(len(class_names)))
    color = alt.Color("class:N", scale=colors, legend=legend if many and not small else None)
    x, y = alt.X("x:Q", scale=sides, axis=None), alt.Y("y:Q", scale=sides, axis=None)
    tooltip = [alt.Tooltip("class:N", title="true class"), alt.Tooltip("series:N", title="decision")]
    base = alt.Chart().encode(x, y, tooltip=tooltip)
    chosen = alt.selection_point(fields=["class"], name=f"chosen_{identifier(name)}", bind="legend")
    right, wrong, named = (base.transform_filter(f"datum.series === '{series}'") for series in ("right", "wrong", ""))
    dots = right.mark_circle(size=14 if small else 30, clip=True)
    look: dict[str, Any] = {"size": 14 if small else 40, "strokeWidth": 1 if small else 1.6}
    crosses = wrong.mark_point(shape="M-.7,-.7L.7,.7M-.7,.7L.7,-.7", **look)
    crosses = crosses.encode(color if many else alt.ColorValue(TONES["ink"][0]))
    layers = [
        dots.encode(color, either(alt.OpacityValue, chosen, 0.75, 0.06)).add_params(chosen),
        crosses if small else crosses.add_params(zoom(name)),
    ]
    if not small and not many:
        # on a seam of paper, so that they can be read over points
        look = {"fontSize": 13, "fontWeight": 700, "dy": -11}
        seam: dict[str, Any] = {"stroke": TONES["paper"][0], "strokeWidth": 4, "strokeJoin": "round"}
        layers += [
            mark.encode(alt.Text("word:N"))
            for mark in (named.mark_text(**look, **seam, opacity=0.9), named.mark_text(**look))
        ]
    kind = "Principal components" if small else "t-SNE"
    described = (
        f"{kind} of the test features of {cloud.title}: {len(points)} points, {int(cloud.wrong.sum())} misclassified"
    )
    return Chart(name, described, layers, rows, columns, title, square=True, small=small, framed=True)


def _names(
    points: NDArray[np.float64], labels: NDArray[np.int64], class_names: Sequence[str], reach: float
) -> list[dict[str, Any]]:
    """Where the name of each class is written: above the member nearest to the median, even where that is torn."""
    rows = []
    for label in np.unique(labels):
        members, name = points[labels == label], class_names[label]
        spot = members[((members - np.median(members, axis=0)) ** 2).sum(axis=1).argmin()]
        near = members[(np.abs(members - spot) < (0.07 * reach, 0.14 * reach)).all(axis=1)]
        place = {"x": float(spot[0]), "y": float(near[:, 1].max())}
        rows.append({"class": name, "series": "", "part": "name", "word": text.short(name), **place})
    return rows


def _one_thread() -> AbstractContextManager[Any]:
    """Keep the libraries loaded so far to one thread: beside other work, waiting threads cost up to 30 times more."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    limits: AbstractContextManager[Any] = threadpool_limits(limits=1)
    return limits
