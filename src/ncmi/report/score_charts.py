"""Charts of scores: means with their intervals row by row, by batch size, and against NCMI."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import altair as alt
import numpy as np

from ncmi.report import charts, text
from ncmi.report.palette import DASHED, Style


@dataclass(frozen=True)
class Dots:
    """One mean with its interval, and the values that it is the mean of, by name (seeds).

    ``row`` is its name at the axis; several series of one row lie below each other.
    """

    row: str
    series: str
    mean: float
    interval: charts.Interval = None
    points: Mapping[str, float] = field(default_factory=dict)


def dots_chart(
    name: str,
    title: str,
    axis: str,
    dots: Sequence[Dots],
    styles: Mapping[str, Style],
    unit: text.Unit = text.SHARE,
    *,
    reference: float | None = None,
    domain: tuple[float, float] | None = None,
    point: str = "seed",
) -> charts.Chart:
    """Means as diamonds, their intervals as bars, single values as dots; row by row from the top down.

    Args:
        name, title: see :class:`Chart`.
        axis: stands below it.
        dots: in order, their values in 0 … 1; a mean that is NaN is left out, one far below all
            others is named in words.
        styles: of the series; a legend where there are several in a row.
        unit: in which values are drawn.
        reference: where a dashed line stands, in 0 … 1.
        domain: of the axis, in ``unit``; by default what the values need, and no more of intervals than three
            times their range.
        point: what one value is.
    """
    order = list(dict.fromkeys(dot.row for dot in dots))
    members = {row: [dot for dot in dots if dot.row == row] for row in order}
    most = max(map(len, members.values()), default=1)
    known = [dot for dot in dots if math.isfinite(dot.mean)]
    limit = off_scale([unit.factor * dot.mean for dot in known]) if known and domain is None else -math.inf
    lines = [unit.factor * reference] if reference is not None and math.isfinite(reference) else []
    shown, rows = list(lines), list[charts.Datum]()
    for dot in known:
        mean, points = unit.factor * dot.mean, {key: unit.factor * value for key, value in dot.points.items()}
        place = (members[dot.row].index(dot) + 0.5) / most + (most - len(members[dot.row])) / (2 * most)
        row = {"row": dot.row, "series": dot.series, "part": "mean", "place": place, "mean": mean}
        if mean < limit:
            rows.append(row | {"part": "far", "words": f"← {unit.fixed(dot.mean)} (off the scale)"})
            continue
        low, high = (unit.factor * bound for bound in dot.interval or (math.nan, math.nan))
        words = {"bounds": unit.bounds(dot.interval), "words": unit.fixed(dot.mean)}
        rows.append(row | {"low": low, "high": high} | words | {"n": len(points) or None})
        spread = float(np.ptp([*points.values(), mean])) if points else math.inf
        shown += [*points.values(), mean]
        if math.isfinite(low) and math.isfinite(high):
            # an interval from two seeds may be ten times as wide as all that was measured: it runs off the edge
            shown += [max(low, mean - 2 * spread), min(high, mean + 2 * spread)]
        for index, (key, value) in enumerate(points.items() if len(points) > 1 else ()):
            offset = 0.5 * (index / (len(points) - 1) - 0.5) / most
            look = {"part": point, "place": place + offset, "words": text.fixed(value, unit.digits)}
            rows.append(row | look | {"value": value, point: key})
    margin = 0.04 * (max(shown) - min(shown)) or 10.0**-unit.digits if shown else 0.5
    sides = domain or ((min(shown) - margin, max(shown) + margin) if shown else (0.0, 1.0))
    columns = {"row": "row", "series": "method", "part": "what", point: point}
    columns |= {name: name for name in ("value", "mean", "low", "high")}
    scale, ticks = alt.Scale(domain=list(sides), nice=False, zero=False), alt.Axis(tickCount=6, format="~g")
    low_x, mean_x = (alt.X(f"{name}:Q", title=axis, scale=scale, axis=ticks) for name in ("low", "mean"))
    bands = alt.Scale(type="band", domain=order, paddingInner=0.0 if most == 1 else 0.12)
    y = alt.Y("row:N", scale=bands, title=None, axis=alt.Axis(labelColor=charts.INK, domain=False, labelLimit=190))
    offset_ = alt.YOffset("place:Q", scale=alt.Scale(domain=[0, 1]))
    base = alt.Chart().encode(y=y, yOffset=offset_, color=charts.color_of(styles))
    means, singles, far = (base.transform_filter(charts.only(part)) for part in ("mean", point, "far"))
    names = [alt.Tooltip("row:N", title=" "), alt.Tooltip("series:N", title="method")][: 2 if most > 1 else 1]
    of_mean = [*names, alt.Tooltip("words:N", title="mean"), alt.Tooltip("bounds:N", title="95 % interval")]
    of_point = [*names, alt.Tooltip(f"{point}:N"), alt.Tooltip("words:N", title="value")]
    diamonds = means.mark_point(shape="diamond", size=85, filled=True, stroke=charts.PAPER, strokeWidth=1)
    layers = [
        *map(charts.line_at, lines),
        means.mark_rule(strokeWidth=1.6, clip=True).encode(x=low_x, x2="high:Q", opacity=charts.faint(0.9)),
        singles.mark_circle(size=26).encode(x="value:Q", opacity=charts.faint(0.55), tooltip=of_point),
        diamonds.encode(x=mean_x, opacity=charts.faint(1), tooltip=of_mean),
        far.mark_text(align="left").encode(x=alt.value(4), text="words:N"),
    ]
    described = "; ".join(f"{row['row']}, {row['series']} {row['words']}" for row in rows if row["part"] == "mean")
    height, legend = (23 if most == 1 else 16 * most + 10) * len(order) + 76, styles if most > 1 else {}
    description = f"{title}. {described}"
    return charts.Chart(name, description, alt.layer(*layers), rows, columns, title, height=height, legend=legend)


def off_scale(means: Sequence[float]) -> float:
    """The lowest mean that is drawn to scale: a failed method must not squeeze all others into a corner.

    >>> off_scale([97.0, 98.0, 98.5, 11.0]) > 11
    True
    >>> off_scale([97.0, 98.0, 98.5, 96.5]) <= 96.5
    True
    """
    middle = float(np.median(means))
    return middle - max(0.02 * abs(middle), 6 * float(np.median(np.abs(np.asarray(means) - middle))))


@dataclass(frozen=True)
class Line:
    """One method with one read-out: mean accuracy (0 … 1) and its deviation (NaN of one seed) by batch size.

    ``kind`` counts the read-outs of one method, which share a color and differ in their markers.
    """

    name: str
    style: Style
    kind: int
    batch_sizes: tuple[int, ...]
    means: tuple[float, ...]
    sds: tuple[float, ...]


def batch_size_chart(name: str, title: str, lines: Sequence[Line]) -> charts.Chart:
    """Means with bars of one standard deviation by batch size; points of one size stand a little apart."""
    styles = {line.name: Style(line.style.tone, DASHED if line.kind else line.style.dashes) for line in lines}
    sizes = sorted({size for line in lines for size in line.batch_sizes})
    rows: list[charts.Datum] = []
    for place, line in enumerate(lines):
        shift = 2 ** (0.05 * (place - (len(lines) - 1) / 2))
        for size, mean, sd in zip(line.batch_sizes, line.means, line.sds, strict=True):
            row = {"series": line.name, "size": size, "x": size * shift, "kind": line.kind, "mean": 100 * mean}
            bounds = {"sd": 100 * sd, "low": 100 * (mean - sd), "high": 100 * (mean + sd)}
            rows.append(row | bounds | {"words": text.PERCENT.mean_sd(mean, sd)})
    columns = {"series": "method", "size": "batch size", "mean": "test accuracy, %", "sd": "sd"}
    scale = alt.Scale(type="log", base=2, domain=[sizes[0] / 1.25, sizes[-1] * 1.25], nice=False)
    x = alt.X("x:Q", title="batch size, logarithmic", scale=scale, axis=alt.Axis(grid=False, values=sizes, format="d"))
    y = alt.Y("mean:Q", title="test accuracy, %", scale=alt.Scale(zero=False), axis=alt.Axis(domain=False))
    tooltip = [*charts.tooltip_of(columns, "series", "size"), alt.Tooltip("words:N", title="test accuracy, %")]
    base = alt.Chart().encode(x=x, color=charts.color_of(styles), opacity=charts.faint(1), tooltip=tooltip)
    shapes = alt.Shape("kind:O", scale=alt.Scale(range=["circle", "square", "triangle-up", "diamond"]), legend=None)
    chart = alt.layer(
        base.mark_line(strokeWidth=1.6).encode(y=y, strokeDash=charts.dashes_of(styles)),
        base.mark_rule(strokeWidth=1.3).encode(y=alt.Y("low:Q", scale=alt.Scale(zero=False)), y2="high:Q"),
        base.mark_point(filled=True, size=55).encode(y=y, shape=shapes),
    )
    described = []
    for line in lines:
        points = zip(line.batch_sizes, line.means, line.sds, strict=True)
        means = ", ".join(f"{size}: {text.PERCENT.mean_sd(mean, sd)} %" for size, mean, sd in points)
        described.append(f"{line.name}: {means}")
    description = f"Test accuracy by batch size. {'; '.join(described)}"
    return charts.Chart(name, description, chart, rows, columns, title, height=340, legend=styles)


@dataclass(frozen=True)
class NetworkPoint:
    """One network of a correlation: means over its seeds, and (NCMI, accuracy in percent) of each seed."""

    network: str
    epochs: int
    ncmi: float
    accuracy: float
    seeds: Sequence[tuple[float, float]]


def correlation_chart(
    name: str, title: str, points: Sequence[NetworkPoint], logarithmic: bool, in_words: str, *, trend: bool = True
) -> charts.Chart:
    """NCMI against test accuracy: means over seeds as large points with the number of epochs, single seeds as small.

    Args:
        name, title: see :class:`Chart`.
        points: the networks.
        logarithmic: whether NCMI is drawn on a logarithmic axis.
        in_words: the correlation.
        trend: whether to draw the line of least squares.
    """
    tones = ("sky", "blue", "green", "orange", "vermilion", "pink")
    networks = list(dict.fromkeys(point.network for point in points))
    styles = {network: Style(tones[place % len(tones)]) for place, network in enumerate(networks)}
    longest = max((point.epochs for point in points), default=1) or 1
    rows: list[charts.Datum] = []
    for point in points:
        common = {"series": point.network, "epochs": point.epochs}
        size = (5 + 5.5 * math.sqrt(point.epochs / longest)) ** 2
        rows.append(common | {"part": "mean", "ncmi": point.ncmi, "accuracy": point.accuracy, "size": size})
        for ncmi, accuracy in point.seeds if len(point.seeds) > 1 else ():
            rows.append(common | {"part": "seed", "ncmi": ncmi, "accuracy": accuracy, "size": 12.0})
    columns = {"series": "network", "epochs": "epochs", "part": "what", "ncmi": "test NCMI", "accuracy": "accuracy, %"}
    scale, axis = alt.Scale(zero=False, padding=14), alt.Axis(format="~g", tickCount=6)
    if logarithmic:
        ticks = charts.round_numbers(*(pick(point.ncmi for point in points) for pick in (min, max)))
        scale, axis = alt.Scale(type="log", nice=False, padding=14), alt.Axis(format="~g", values=ticks)
    x = alt.X("ncmi:Q", title="test NCMI" + (", logarithmic" if logarithmic else ""), scale=scale, axis=axis)
    y = alt.Y("accuracy:Q", title="test accuracy, %", scale=alt.Scale(zero=False, padding=14))
    tooltip = [*charts.tooltip_of(columns, "series", "epochs")]
    tooltip += [alt.Tooltip(f"{key}:Q", title=columns[key], format=".4~g") for key in ("ncmi", "accuracy")]
    base = alt.Chart().encode(x=x, y=y, color=charts.color_of(styles), tooltip=tooltip)
    size_ = alt.Size("size:Q", scale=None, legend=None)
    seeds, means = (base.transform_filter(charts.only(part)) for part in ("seed", "mean"))
    points_ = means.mark_point(filled=True, stroke=charts.PAPER, strokeWidth=1)
    numbers = means.mark_text(align="left", dx=8, dy=-7, fontSize=10)
    layers = [
        seeds.mark_circle().encode(size=size_, opacity=charts.faint(0.45)).add_params(charts.zoom(name)),
        points_.encode(size=size_, opacity=charts.faint(1), shape=alt.Shape("series:N", legend=None)),
        numbers.encode(text="epochs:Q", color=alt.value(charts.SOFT)),
    ]
    if trend:
        values, accuracies = (np.array([getattr(point, key) for point in points]) for key in ("ncmi", "accuracy"))
        drawn = np.log10(values) if logarithmic else values
        slope, start = np.polyfit(drawn, accuracies, 1)
        ends = [
            {"ncmi": float(values[at]), "accuracy": float(start + slope * drawn[at])}
            for at in (drawn.argmin(), drawn.argmax())
        ]
        layers.insert(0, charts.dashed_line(ends, charts.INK).encode(x=x, y=y))
    return charts.Chart(
        name, f"{title}. {in_words}", alt.layer(*layers), rows, columns, title, height=360, legend=styles
    )
