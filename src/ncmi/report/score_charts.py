"""Charts of scores: means with their intervals row by row, by batch size, and against NCMI."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import altair as alt
import numpy as np

from ncmi.readouts.metrics import PERCENT, SHARE, Unit
from ncmi.report import charts, text
from ncmi.report.palette import DASHED, Style
from ncmi.report.reproduction import Correlation
from ncmi.report.statistics import Spread


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
    unit: Unit = SHARE,
    *,
    reference: float = math.nan,
    domain: tuple[float, float] | None = None,
    point: str = "seed",
) -> charts.Chart:
    """Means as diamonds, their intervals as bars, single values as dots; row by row from the top down.

    Args:
        name, title: see :class:`Chart`.
        axis: stands below it.
        dots: in order, their values in 0 … 1; a mean that is NaN is left out, one far below all others is named in
            words.
        styles: of the series; a legend where there are several in a row.
        unit: in which values are drawn.
        reference: where a dashed line stands, in 0 … 1.
        domain: of the axis, in ``unit``; by default what the values need, and no more of intervals than three
            times their range.
        point: what one value is.
    """
    members: dict[str, list[Dots]] = {}
    for dot in dots:
        members.setdefault(dot.row, []).append(dot)
    most = max(map(len, members.values()), default=1)
    known = [dot for dot in dots if math.isfinite(dot.mean)]
    limit = off_scale([unit.factor * dot.mean for dot in known]) if known and domain is None else -math.inf
    lines = [unit.factor * reference] if math.isfinite(reference) else []
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
    bands = alt.Scale(type="band", domain=list(members), paddingInner=0.0 if most == 1 else 0.12)
    y = alt.Y("row:N", scale=bands, title=None, axis=alt.Axis(labelColor=charts.INK, domain=False, labelLimit=190))
    offset_ = alt.YOffset("place:Q", scale=alt.Scale(domain=[0, 1]))
    base = alt.Chart().encode(y, offset_, charts.color_of(styles))
    means, singles, far = (base.transform_filter(charts.only(part)) for part in ("mean", point, "far"))
    names = {"row": " "} | ({"series": "method"} if most > 1 else {})
    of_mean = charts.tooltip_of(names, words="mean", bounds="95 % interval")
    of_point = charts.tooltip_of(names, **{point: point}, words="value")
    diamonds = means.mark_point(shape="diamond", size=85, filled=True, stroke=charts.PAPER, strokeWidth=1)
    layers = [
        *map(charts.line_at, lines),
        means.mark_rule(strokeWidth=1.6, clip=True).encode(low_x, alt.X2("high:Q"), charts.faint(0.9)),
        singles.mark_circle(size=26).encode(alt.X("value:Q"), charts.faint(0.55), tooltip=of_point),
        diamonds.encode(mean_x, charts.faint(1), tooltip=of_mean),
        far.mark_text(align="left").encode(alt.Text("words:N"), x=alt.value(4)),
    ]
    described = "; ".join(f"{row['row']}, {row['series']} {row['words']}" for row in rows if row["part"] == "mean")
    height, legend = (23 if most == 1 else 16 * most + 10) * len(members) + 76, styles if most > 1 else {}
    description = f"{title}. {described}"
    return charts.Chart(name, description, layers, rows, columns, title, height=height, legend=legend)


def off_scale(means: Sequence[float]) -> float:
    """The lowest mean that is drawn to scale: a failed method must not squeeze all others into a corner.

    >>> off_scale([97.0, 98.0, 98.5, 11.0]) > 11
    True
    >>> off_scale([97.0, 98.0, 98.5, 96.5]) <= 96.5
    True
    """
    middle = float(np.median(means))
    return middle - max(0.02 * abs(middle), 6 * float(np.median(np.abs(np.asarray(means) - middle))))


def batch_size_chart(name: str, title: str, methods: Mapping[str, tuple[Style, Mapping[int, Spread]]]) -> charts.Chart:
    """Means with bars of one standard deviation by batch size; points of one size stand a little apart.

    Args:
        name, title: see :class:`Chart`.
        methods: by name a style, and accuracies (0 … 1) by batch size. Read-outs of one method share a color, and
            differ in their lines and markers.
    """
    sizes = sorted({size for _, spreads in methods.values() for size in spreads})
    styles: dict[str, Style] = {}
    rows, described = list[charts.Datum](), []
    for place, (method, (style, spreads)) in enumerate(methods.items()):
        kind = sum(style == other for other, _ in list(methods.values())[:place])
        styles[method] = Style(style.tone, DASHED) if kind else style
        shift = 2 ** (0.05 * (place - (len(methods) - 1) / 2))
        words = {size: PERCENT.mean_sd(spread.mean, spread.sd) for size, spread in spreads.items()}
        for size, spread in spreads.items():
            mean, sd = 100 * spread.mean, 100 * spread.sd
            row = {"series": method, "size": size, "x": size * shift, "kind": kind, "mean": mean, "sd": sd}
            rows.append(row | {"low": mean - sd, "high": mean + sd, "words": words[size]})
        described.append(f"{method}: {', '.join(f'{size}: {mean} %' for size, mean in words.items())}")
    columns = {"series": "method", "size": "batch size", "mean": "test accuracy, %", "sd": "sd"}
    scale = alt.Scale(type="log", base=2, domain=[sizes[0] / 1.25, sizes[-1] * 1.25], nice=False)
    x = alt.X("x:Q", title="batch size, logarithmic", scale=scale, axis=alt.Axis(grid=False, values=sizes, format="d"))
    y = alt.Y("mean:Q", title="test accuracy, %", scale=alt.Scale(zero=False), axis=alt.Axis(domain=False))
    tooltip = charts.tooltip_of(columns, "series", "size", words="test accuracy, %")
    base = alt.Chart().encode(x, charts.color_of(styles), charts.faint(1), tooltip=tooltip)
    shapes = alt.Shape("kind:O", scale=alt.Scale(range=["circle", "square", "triangle-up", "diamond"]), legend=None)
    layers = [
        base.mark_line(strokeWidth=1.6).encode(y, charts.dashes_of(styles)),
        base.mark_rule(strokeWidth=1.3).encode(alt.Y("low:Q", scale=alt.Scale(zero=False)), alt.Y2("high:Q")),
        base.mark_point(filled=True, size=55).encode(y, shapes),
    ]
    description = f"Test accuracy by batch size. {'; '.join(described)}"
    return charts.Chart(name, description, layers, rows, columns, title, height=340, legend=styles)


def correlation_chart(name: str, correlation: Correlation) -> charts.Chart:
    """NCMI against test accuracy: means over seeds as large points with the number of epochs, single seeds as small.

    With the line of least squares where there is a correlation.
    """
    tones, points = ("sky", "blue", "green", "orange", "vermilion", "pink"), correlation.points
    networks = dict.fromkeys(point.network for point in points)
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
    values, accuracies = (np.array([getattr(point, key) for point in points]) for key in ("ncmi", "accuracy"))
    heading, scale, axis = "test NCMI", alt.Scale(zero=False, padding=14), alt.Axis(format="~g", tickCount=6)
    if correlation.logarithmic:
        ticks = charts.round_numbers(float(values.min()), float(values.max()))
        heading += ", logarithmic"
        scale, axis = alt.Scale(type="log", nice=False, padding=14), alt.Axis(format="~g", values=ticks)
    x = alt.X("ncmi:Q", title=heading, scale=scale, axis=axis)
    y = alt.Y("accuracy:Q", title="test accuracy, %", scale=alt.Scale(zero=False, padding=14))
    tooltip = charts.tooltip_of(columns, "series", "epochs")
    tooltip += [alt.Tooltip(f"{key}:Q", title=columns[key], format=".4~g") for key in ("ncmi", "accuracy")]
    base = alt.Chart().encode(x, y, charts.color_of(styles), tooltip=tooltip)
    size_ = alt.Size("size:Q", scale=None, legend=None)
    seeds, means = (base.transform_filter(charts.only(part)) for part in ("seed", "mean"))
    circles = means.mark_point(filled=True, stroke=charts.PAPER, strokeWidth=1)
    numbers = means.mark_text(align="left", dx=8, dy=-7, fontSize=10)
    layers = [
        seeds.mark_circle().encode(size_, charts.faint(0.45)).add_params(charts.zoom(name)),
        circles.encode(size_, charts.faint(1), alt.Shape("series:N", legend=None)),
        numbers.encode(alt.Text("epochs:Q"), alt.ColorValue(charts.SOFT)),
    ]
    if math.isfinite(correlation.plotted.r):
        drawn = np.log10(values) if correlation.logarithmic else values
        slope, start = np.polyfit(drawn, accuracies, 1)
        ends = [
            {"ncmi": float(values[at]), "accuracy": float(start + slope * drawn[at])}
            for at in (drawn.argmin(), drawn.argmax())
        ]
        layers.insert(0, charts.dashed_line(ends, charts.INK).encode(x, y))
    title, description = correlation.title, f"{correlation.title}. {correlation.in_words()}"
    return charts.Chart(name, description, layers, rows, columns, title, height=360, legend=styles)
