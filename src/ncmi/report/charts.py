"""Every chart, described once with Altair: interactive on a page, SVG and PNG for documents.

A chart has one table of values, of which ``columns`` are for readers: these are what a page lets them download. Values
carry ``part``, which says by which mark they are drawn, and ``series``, the name in the legend that isolates them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import numpy as np

from ncmi.report.palette import TONES, Style

Datum = dict[str, Any]
Interval = tuple[float, float] | None
_WIDTH = 400
INK, SOFT, _GRID, PAPER = (TONES[name][0] for name in ("ink", "soft", "grid", "paper"))
_OTHERS = "isolated !== '' && datum.series !== isolated"
# with a key held, so that the page itself still scrolls; fingers scroll the page, too
_ZOOM: dict[str, Any] = {
    "bind": "scales",
    "zoom": "wheel![event.ctrlKey || event.metaKey || event.shiftKey]",
    "translate": "[pointerdown[event.pointerType === 'mouse'], window:pointerup] > window:pointermove!",
}
_AXIS_COLORS: dict[str, Any] = {"labelColor": SOFT, "titleColor": SOFT, "domainColor": SOFT, "tickColor": SOFT}
_AXIS_SIZES: dict[str, Any] = {"labelFontSize": 11, "titleFontSize": 11.5, "titlePadding": 8, "labelPadding": 5}
_CONFIG: dict[str, Any] = {
    "font": "Liberation Sans, Arial, DejaVu Sans, Noto Sans, sans-serif",
    "background": "transparent",
    "padding": 2,
    "view": {"stroke": None},
    "mark": {"aria": False},
    "text": {"color": INK, "fontSize": 11},
    "title": {"color": INK, "fontSize": 13, "fontWeight": 700, "anchor": "start", "offset": 10, "limit": 380},
    "axis": {**_AXIS_COLORS, **_AXIS_SIZES, "titleFontWeight": "normal", "gridColor": _GRID, "ticks": False},
}


@dataclass(frozen=True)
class Chart:
    """One chart, which is ``height`` pixels high where it is 400 wide, or else ``square``.

    Attributes:
        name: unique on a page, and the name of the files that are downloaded.
        description: what the picture shows, for those who cannot see it.
        layers: its marks, one over the other, which are drawn from ``rows``, its table of values.
        columns: of ``rows``, for readers: what each is called.
        legend: names of series that can be isolated, with their looks.
        small: whether it is one of many of its kind.
        framed: whether a line goes around it.
    """

    name: str
    description: str
    layers: Sequence[alt.Chart]
    rows: list[Datum]
    columns: Mapping[str, str]
    title: str
    height: float = 245
    square: bool = False
    legend: Mapping[str, Style] = field(default_factory=dict)
    small: bool = False
    framed: bool = False

    def specification(self) -> dict[str, Any]:
        """Vega-Lite, in the colors of light paper; the page sets width and height."""
        # put together here: a LayerChart of Altair copies all of each layer four times
        datasets: dict[str, Any] = {}
        layers, params = list[dict[str, Any]](), list[dict[str, Any]]()
        for place, mark in enumerate(self.layers):
            layer = mark.to_dict(validate=False, context={"top_level": False, "data": None, "datasets": datasets})
            found = layer.pop("params", [])
            if any("select" in param for param in found):
                # what follows the pointer has to say in which layer
                layer["name"] = f"view_{identifier(self.name)}_{place}"
            params += [param | ({"views": [layer["name"]]} if "select" in param else {}) for param in found]
            layers.append(layer)
        return {
            "$schema": alt.SCHEMA_URL,
            "config": _CONFIG,
            "title": self.title,
            "description": self.description,
            "params": [*params, {"name": "isolated", "value": ""}],
            "data": {"values": _plain(self.rows)},
            "datasets": datasets,
            "layer": layers,
        } | ({"view": {"stroke": _GRID}} if self.framed else {})


def to_document(charts: Sequence[Chart], *, columns: int = 2) -> tuple[bytes, bytes]:
    """All charts as one SVG and one PNG on light paper: from left to right, then downwards, a legend above them."""
    import vl_convert

    views: list[dict[str, Any]] = []
    shared: dict[str, dict[str, Any]] = {"params": {}, "datasets": {}}
    legend = {name: style for chart in charts for name, style in chart.legend.items()}
    drawn = [(chart, _still(chart.specification())) for chart in charts]
    heads = [_legend(legend).to_dict(validate=False)] if legend else []
    for view in [*(view for _, view in drawn), *heads]:
        shared["params"] |= {param["name"]: param for param in view.pop("params", [])}
        shared["datasets"] |= view.pop("datasets", {})
    for chart, view in drawn:
        width = _WIDTH / 2 if chart.small else _WIDTH
        kept = {key: value for key, value in view.items() if key not in ("config", "$schema")}
        views.append(kept | {"width": width, "height": width if chart.square else chart.height})
    scales = dict.fromkeys(("color", "strokeDash", "shape", "size", "opacity"), "independent")
    grid = {"concat": views, "columns": columns, "spacing": 26, "resolve": {"scale": scales}}
    content = {"vconcat": [*heads, grid], "params": list(shared["params"].values()), "spacing": 20}
    content |= {"datasets": shared["datasets"], "config": _CONFIG | {"background": PAPER, "padding": 14}}
    svg = vl_convert.vegalite_to_svg(content)
    return svg.encode(), vl_convert.vegalite_to_png(content, ppi=144)


def _still(content: Any) -> Any:
    """A specification without what follows the pointer, whose names would clash in one picture of many charts."""
    if isinstance(content, list):
        return [_still(part) for part in content]
    if not isinstance(content, dict):
        return content
    if isinstance(content.get("condition"), dict) and "param" in content["condition"]:
        return {"value": content["condition"]["value"]}
    params = [param for param in content.get("params", []) if "select" not in param]
    rest = {key: _still(value) for key, value in content.items() if key != "params"}
    return rest | ({"params": params} if params else {})


def _legend(styles: Mapping[str, Style]) -> Any:
    """Lines with their names, four side by side, and no wider than these are: the picture would be as wide."""
    width = 230 * min(4, len(styles))
    lefts = {name: 230 * (place % 4) for place, name in enumerate(styles)}
    rows: list[Datum] = [
        {"series": name, "x": left, "end": left + 30, "name": left + 37, "y": 20 * (place // 4)}
        for place, (name, left) in enumerate(lefts.items())
    ]
    scale = alt.Scale(domain=[0, width], range=[0, width], nice=False)
    base = alt.Chart(values_of(rows)).encode(alt.Y("y:Q", axis=None, scale=scale))
    x = alt.X("x:Q", axis=None, scale=scale)
    lines = base.mark_rule(strokeWidth=2.5).encode(x, alt.X2("end:Q"), color_of(styles), dashes_of(styles))
    names = base.mark_text(align="left", baseline="middle").encode(alt.X("name:Q"), alt.Text("series:N"))
    return (lines + names).properties(width=width, height=20 * (1 + (len(styles) - 1) // 4))


def values_of(rows: Sequence[Datum]) -> alt.InlineData:
    return alt.InlineData(values=_plain(rows))


def _plain(value: Any) -> Any:
    """Rows as JSON has them: numbers in six digits, None for what is not finite."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def only(*parts: str) -> alt.FieldOneOfPredicate:
    """The rows that a mark draws."""
    return alt.FieldOneOfPredicate(field="part", oneOf=list(parts))


def color_of(styles: Mapping[str, Style], legend: alt.Legend | None = None) -> alt.Color:
    scale = alt.Scale(domain=list(styles), range=[style.color for style in styles.values()])
    return alt.Color("series:N", scale=scale, legend=legend)


def dashes_of(styles: Mapping[str, Style]) -> alt.StrokeDash:
    scale = alt.Scale(domain=list(styles), range=[list(style.dashes) for style in styles.values()])
    return alt.StrokeDash("series:N", scale=scale, legend=None)


def either(channel: Any, predicate: Any, shown: Any, otherwise: Any) -> Any:
    """A channel with one of two values.

    Channels are made here, not by Altair from their names: for each of those it goes through all of its schema.
    """
    condition: Any = alt.condition(predicate, alt.value(shown), alt.value(otherwise))
    return channel(otherwise, condition=condition["condition"])


def faint(opacity: float) -> Any:
    """An opacity, of which nearly nothing is left where another series is isolated."""
    return either(alt.OpacityValue, _OTHERS, 0.06, opacity)


def tooltip_of(columns: Mapping[str, str], *names: str, **words: str) -> list[alt.Tooltip]:
    """What the pointer is told: of ``columns`` those of these names, or all; and other fields by their titles."""
    shown = {name: columns[name] for name in names or columns} | words
    return [alt.Tooltip(f"{name}:N", title=title) for name, title in shown.items()]


def line_at(value: float, color: str = INK) -> Any:
    """A dashed upright line."""
    # data of its own: of the chart's it would be drawn once a row, until nothing of it is transparent
    mark = alt.Chart(values_of([{}])).mark_rule(color=color, strokeWidth=1, strokeDash=[4, 3], opacity=0.6)
    return mark.encode(alt.XDatum(value))


def dashed_line(rows: Sequence[Datum], color: str) -> Any:
    """A dashed line through points, which is to be encoded."""
    return alt.Chart(values_of(rows)).mark_line(color=color, strokeWidth=1, strokeDash=[4, 3])


def zoom(name: str, **options: Any) -> alt.Parameter:
    """What makes a chart follow the wheel and the pointer."""
    return alt.selection_interval(name="zoom_" + identifier(name), **_ZOOM, **options)


def round_numbers(low: float, high: float) -> list[float]:
    """The ticks of a logarithmic axis."""
    decades = math.log10(high / low)
    steps = (1.0, 2.0, 5.0) if decades < 1.6 else (1.0, 3.0) if decades < 3 else (1.0,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    return [tick for tick in ticks if low / 1.1 <= tick <= high * 1.1]


def identifier(name: str) -> str:
    """A name that Vega takes for a variable."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)
