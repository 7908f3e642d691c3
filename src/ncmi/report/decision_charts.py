"""Charts of decisions: confusion, ROC curves, reliability, and distances to the nearest centroid."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ncmi.readouts.scores import Reliability
from ncmi.report import charts, text
from ncmi.report.palette import Style, class_colors
from ncmi.training.schema import OutOfDistribution

MOST_COUNTS, MOST_CLASS_NAMES, MOST_CURVES = 16, 40, 10
"""Matrices of more classes have no counts, or no names; more ROC curves than this are not named beside the picture."""


def confusion(pairs: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], num_classes: int) -> NDArray[np.int64]:
    """Counts ``[C, C]`` summed over (labels, predictions) pairs: rows are true classes, columns predicted."""
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    for labels, predictions in pairs:
        np.add.at(counts, (labels, predictions), 1)
    return counts


def worst_pairs(counts: NDArray[np.int64], class_names: Sequence[str], most: int = 3) -> list[tuple[str, str, int]]:
    """The most frequent confusions: (true class, predicted class, count); once is no pattern."""
    errors = counts.copy()
    np.fill_diagonal(errors, 0)
    order = np.argsort(errors, axis=None, kind="stable")[::-1][:most]
    places = (divmod(int(place), len(counts)) for place in order)
    return [(class_names[i], class_names[j], int(errors[i, j])) for i, j in places if errors[i, j] > 1]


def confusion_chart(name: str, title: str, counts: NDArray[np.int64], class_names: Sequence[str]) -> charts.Chart:
    """A confusion matrix; strength of color is the cube root of the share of the row: rare errors are seen."""
    classes = len(class_names)
    totals = np.maximum(counts.sum(axis=1), 1)
    rows: list[charts.Datum] = []
    for i, j in np.argwhere(counts):
        share = counts[i, j] / totals[i]
        names = {"true": class_names[i], "predicted": class_names[j], "i": int(i), "j": int(j)}
        kind = {"series": "right" if i == j else "wrong", "share": f"{100 * share:.1f} %"}
        rows.append(names | kind | {"count": int(counts[i, j]), "strength": float(np.cbrt(share))})
    columns = {"true": "true class", "predicted": "predicted class", "count": "count"}
    columns["share"] = "share of the true class"
    axis: dict[str, Any] = {"grid": False, "domain": False, "labels": classes <= MOST_CLASS_NAMES, "labelLimit": 80}
    axis["labelFontSize"] = max(6, min(11, 290 / classes))
    axis_names = f"names_{charts.identifier(name)}"
    axis["labelExpr"] = f"{axis_names}[datum.value]"
    turned = 0 if max(map(len, class_names)) <= 3 else -90
    # by number, since two long names may be one where they are cut
    scale = alt.Scale(type="band", domain=list(range(classes)), paddingInner=0.02, paddingOuter=0)
    x = alt.X("j:O", title="predicted class", scale=scale, axis=alt.Axis(**axis, labelAngle=turned))
    y = alt.Y("i:O", title="true class", scale=scale, axis=alt.Axis(**axis))
    colors = {"right": Style("blue"), "wrong": Style("vermilion")}
    base = alt.Chart().encode(x, y, tooltip=charts.tooltip_of(columns))
    opacity = alt.Opacity("strength:Q", scale=alt.Scale(domain=[0, 1], range=[0, 1]), legend=None)
    names_of_axis = alt.param(name=axis_names, value=[text.short(label, 12) for label in class_names])
    layers = [base.mark_rect().encode(charts.color_of(colors), opacity).add_params(names_of_axis)]
    if classes <= MOST_COUNTS:
        # the color of the paper on strong cells, the ink on weak ones
        color = charts.either(alt.ColorValue, "datum.strength > 0.6", charts.PAPER, charts.INK)
        layers.append(base.mark_text(fontSize=min(11, 130 / classes)).encode(alt.Text("count:Q"), color))
    described = f"Confusion matrix of {title}: {np.trace(counts)} of {counts.sum()} right"
    return charts.Chart(name, described, layers, rows, columns, title, square=True)


def roc_chart(
    name: str,
    title: str,
    labels: NDArray[np.int64],
    probabilities: NDArray[np.floating[Any]],
    class_names: Sequence[str],
) -> charts.Chart | None:
    """ROC curves of all classes that occur beside others; of two classes, of the second. None where there is no such.

    Steps as the threshold falls, from (0, 0) to (1, 1); a tie is one sloping line.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    rows: list[charts.Datum] = []
    areas, legend = dict[str, str](), dict[str, str]()
    for index in [1] if len(class_names) == 2 else range(len(class_names)):
        positive, scores, label = labels == index, probabilities[:, index], class_names[index]
        if positive.any() and not positive.all():
            areas[label] = area = text.fixed(float(roc_auc_score(positive, scores)), 3)
            series = f"{text.short(label, 24)} {area}"
            legend[series] = class_colors(len(class_names))[index]
            for step, (false, true) in enumerate(zip(*roc_curve(positive, scores)[:2], strict=True)):
                row = {"class": label, "series": series, "area": area, "false": float(false), "true": float(true)}
                rows.append(row | {"step": step})
    if not rows:
        return None
    columns = {"class": "class", "area": "AUC", "false": "false positive rate", "true": "true positive rate"}
    place = alt.Legend(title="class, AUC", orient="bottom", columns=3, symbolType="stroke", labelLimit=160)
    scale = alt.Scale(domain=list(legend), range=list(legend.values()))
    color = alt.Color("series:N", scale=scale, legend=place if len(legend) <= MOST_CURVES else None)
    isolated = alt.selection_point(fields=["series"], bind="legend", name="chosen_" + charts.identifier(name))
    sides: dict[str, Any] = {"scale": alt.Scale(domain=[0, 1], nice=False), "axis": alt.Axis(tickCount=5)}
    x = alt.X("false:Q", title="false positive rate (1 − specificity)", **sides)
    y = alt.Y("true:Q", title="true positive rate (recall)", **sides)
    opacity = charts.either(alt.OpacityValue, isolated, 1, 0.08)
    lines = alt.Chart().mark_line(strokeWidth=1.9, strokeJoin="round")
    lines = lines.encode(x, y, alt.Order("step:Q"), color, opacity, tooltip=charts.tooltip_of(columns, "class", "area"))
    layers = [_diagonal(), lines.add_params(isolated)]
    described = "; ".join(f"{label} {area}" for label, area in areas.items())
    description = f"ROC curves of {title}, area of each class: {described}"
    return charts.Chart(name, description, layers, rows, columns, title, square=True)


def _diagonal() -> Any:
    return charts.dashed_line([{"x": 0, "y": 0}, {"x": 1, "y": 1}], charts.SOFT).encode(alt.X("x:Q"), alt.Y("y:Q"))


def reliability_chart(name: str, title: str, bins: Reliability) -> charts.Chart:
    """Accuracy against confidence, a dot for each bin with its interval; below, how many samples each bin has."""
    rows: list[charts.Datum] = []
    width, total, most = 1 / len(bins.counts), sum(bins.counts), max(bins.counts)
    for index, (count, confidence, accuracy) in enumerate(
        zip(bins.counts, bins.confidence, bins.accuracy, strict=True)
    ):
        if count and confidence is not None and accuracy is not None:
            low, high = stats.binomtest(round(accuracy * count), count).proportion_ci(method="wilson")
            series = "holds the line" if low <= confidence <= high else "misses the line"
            row = {"series": series, "count": count, "low": low, "high": high, "confidence": confidence}
            bar = {"left": (index + 0.08) * width, "right": (index + 0.92) * width, "base": 0}
            bar["bar"] = 0.2 * math.log1p(count) / math.log1p(most)
            # one sample is a speck beside a bin of thousands
            rows.append(row | {"accuracy": accuracy} | bar | {"size": min(25 + 28 * math.log10(count), 140)})
    columns = {"confidence": "mean confidence", "accuracy": "accuracy", "low": "low", "high": "high"}
    columns["count"] = "samples"
    sides = alt.Scale(domain=[-0.02, 1.02], nice=False)
    ticks = alt.Axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1])
    left, x = (
        alt.X(f"{name}:Q", title="confidence, the highest probability", scale=sides, axis=ticks)
        for name in ("left", "confidence")
    )
    y, low_y = alt.Y("accuracy:Q", title="accuracy", scale=sides, axis=ticks), alt.Y("low:Q", scale=sides)
    tooltip = [alt.Tooltip(f"{key}:Q", title=word, format=".3~f") for key, word in columns.items()]
    looks = {"misses the line": Style("vermilion"), "holds the line": Style("blue")}
    base, bars = alt.Chart().encode(x, charts.color_of(looks), tooltip=tooltip), alt.Chart().encode(left)
    blocks = bars.mark_rect(color=charts.SOFT, opacity=0.28)
    numbers = bars.mark_text(align="left", baseline="bottom", fontSize=8.5, dy=-2, color=charts.SOFT)
    layers = [
        blocks.encode(alt.X2("right:Q"), alt.Y("base:Q"), alt.Y2("bar:Q"), tooltip=tooltip),
        numbers.encode(alt.Y("bar:Q"), alt.Text("count:Q")),
        _diagonal(),
        base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(low_y, alt.Y2("high:Q")),
        base.mark_circle(opacity=1).encode(y, alt.Size("size:Q", scale=None, legend=None)),
    ]
    missed_bins = sum(row["series"] == "misses the line" for row in rows)
    described = f"{title}: accuracy against confidence in {len(bins.counts)} bins of {total} test samples"
    described += f"; in {missed_bins} of them the interval of the accuracy does not hold the confidence"
    return charts.Chart(name, described, layers, rows, columns, title, square=True)


def distances_chart(name: str, ood: OutOfDistribution) -> charts.Chart:
    """Two histograms over the logarithm of the distance, each by shares, and the threshold that 95 % stay below."""
    inside, outside = text.short(ood.inside, 24), text.short(ood.data, 24)
    looks = {f"test part of {inside}": Style("blue"), outside: Style("vermilion")}
    rows: list[charts.Datum] = []
    edges = ood.distances.edges
    for series, counts in zip(looks, (ood.distances.inside, ood.distances.outside), strict=True):
        total = max(sum(counts), 1)
        for low, high, count in zip(edges, edges[1:], counts, strict=False):
            rows.append({"series": series, "low": low, "high": high, "count": count, "share": 100 * count / total})
    columns = {"series": "data", "low": "from", "high": "to", "count": "samples", "share": "%"}
    scale = alt.Scale(type="log", domain=[edges[0], edges[-1]], nice=False)
    ticks = alt.Axis(grid=False, format="~g", labelOverlap=True, tickCount=6)
    x = alt.X("low:Q", title="KL to the nearest centroid, nats, logarithmic", scale=scale, axis=ticks)
    top = alt.Legend(title=None, orient="top", symbolType="square", labelLimit=190, symbolStrokeWidth=0)
    y = alt.Y("share:Q", title="samples in a bin, %", axis=alt.Axis(domain=False))
    sides = x, alt.X2("high:Q"), y, alt.Y2Datum(0)
    bars = alt.Chart().mark_rect(opacity=0.38)
    bars = bars.encode(*sides, charts.color_of(looks, top), tooltip=charts.tooltip_of(columns))
    detection = ood.scores["distance"]
    look: dict[str, Any] = {"angle": 270, "align": "right", "baseline": "bottom", "dy": -4, "color": charts.SOFT}
    label = alt.Chart(charts.values_of([{"x": detection.threshold}])).mark_text(**look)
    label = label.encode(alt.X("x:Q"), y=alt.value(4), text=alt.value("95 % of the test part"))
    described = (
        f"Histograms of the distance to the nearest centroid: {ood.num_inside} test samples of {inside} and "
        f"{ood.num_outside} samples of {outside}; AUROC {text.fixed(100 * detection.auroc)} %"
    )
    layers = [bars, charts.line_at(detection.threshold), label]
    return charts.Chart(name, described, layers, rows, columns, f"{outside} against {inside}", height=290)
