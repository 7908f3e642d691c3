"""Charts of what is measured epoch by epoch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ncmi.report import charts
from ncmi.report.palette import Style

# a curve of more points than this is no smoother at this size, only larger
_MOST_POINTS = 120
# measures whose largest and smallest value are further apart than this are drawn on a logarithmic axis
_LOG_RATIO = 12.0
_ACCURACY_TICKS = (0.0, 50.0, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9)


MEASURES = {
    "train_loss": ("Training loss", "loss of the objective"),
    "train_penalty": ("Penalty of the network", "penalty, added to the loss"),
    "validation_loss": ("Validation loss", "NLL of the head, nats"),
    "validation_cmi": ("CMI (concentration)", "CMI, nats"),
    "validation_separation": ("Γ (separation)", "Γ, nats"),
    "validation_ncmi": ("NCMI = CMI / Γ", "NCMI"),
    "validation_accuracy": ("Validation accuracy", "accuracy, %, logarithmic in the error"),
    "validation_macro_f1": ("Validation macro F1", "macro F1"),
    "validation_macro_auc": ("Validation AUC", "macro AUC"),
}
"""Measures by epoch: their title and unit."""
_EPOCH_COLUMNS = {"series": "method", "epoch": "epoch", "mean": "", "low": "lowest seed", "high": "highest seed"}


def curve(metrics: Sequence[pd.DataFrame], column: str) -> pd.DataFrame:
    """``mean``, ``low`` and ``high`` over seeds by epoch; where a seed has no value, over the others."""
    table = pd.concat([frame[column] for frame in metrics], axis=1).sort_index().replace([np.inf, -np.inf], np.nan)
    table = table.dropna(how="all")
    if len(table) > _MOST_POINTS:
        table = table.iloc[np.unique(np.linspace(0, len(table) - 1, _MOST_POINTS).round().astype(int))]
    return pd.DataFrame({"mean": table.mean(axis=1), "low": table.min(axis=1), "high": table.max(axis=1)})


def epoch_charts(
    metrics: Mapping[str, Sequence[pd.DataFrame]],
    styles: Mapping[str, Style],
    measures: Sequence[str],
    *,
    name: str = "",
    heading: str = "",
    kept: int | None = None,
) -> list[charts.Chart]:
    """One chart for each measure that some run has and that is not zero throughout.

    Args:
        metrics: one data frame per seed, by the label of an objective.
        styles: their looks.
        measures: of :data:`MEASURES`.
        name: keeps several on one page apart.
        heading: stands in front of titles.
        kept: an epoch that is marked.
    """
    drawn = []
    for measure in measures:
        curves = {label: curve(frames, measure) for label, frames in metrics.items()}
        values = np.concatenate([frame.to_numpy().ravel() for frame in curves.values()])
        if len(values) and (values != 0).any():
            layers, rows = _curves(curves, values, styles, measure, kept)
            layers[0] = layers[0].add_params(charts.zoom(measure + name, encodings=["x"]))
            title, part = heading + MEASURES[measure][0], "training" if measure.startswith("train") else "validation"
            names = measure.replace("_", "-") + name, f"{title} on {part} data by epoch"
            columns, legend = _EPOCH_COLUMNS | {"mean": measure}, styles if len(curves) > 1 else {}
            drawn.append(charts.Chart(*names, layers, rows, columns, title, legend=legend))
    return drawn


def _curves(
    curves: Mapping[str, pd.DataFrame],
    values: NDArray[np.float64],
    styles: Mapping[str, Style],
    measure: str,
    kept: int | None,
) -> tuple[list[Any], list[charts.Datum]]:
    unit = MEASURES[measure][1]
    if measure == "validation_accuracy":
        scale, axis, floor = _accuracy_axis(values)
    else:
        scale, axis, floor = *_log_axis(values), 0.0
        unit += ", logarithmic" if scale.to_dict().get("type") == "log" else ""
    rows: list[charts.Datum] = []
    for label, frame in curves.items():
        for epoch, (mean, low, high) in zip(frame.index, frame.to_numpy(), strict=True):
            places = [max(100 * (1 - value), floor) for value in (mean, high, low)] if floor else [mean, low, high]
            row = {"series": label, "epoch": int(epoch), "mean": mean, "low": low, "high": high, "words": f"{mean:.4g}"}
            rows.append(row | dict(zip(("y", "y1", "y2"), places, strict=True)))
    ticks = alt.Axis(grid=False, tickMinStep=1, format="d", tickCount=8)
    x = alt.X("epoch:Q", title="epoch", scale=alt.Scale(nice=False, zero=False, padding=4), axis=ticks)
    y, y1 = (alt.Y(f"{name}:Q", title=unit, scale=scale, axis=axis) for name in ("y", "y1"))
    base = alt.Chart().encode(x, charts.color_of(styles))
    few = max(map(len, curves.values()), default=0) == 1
    line = base.mark_line(strokeWidth=1.9, point=few, interpolate="linear", clip=True)
    tooltip = charts.tooltip_of(_EPOCH_COLUMNS, "series", "epoch", words="mean")
    layers = [
        base.mark_area(opacity=0.1, clip=True).encode(y1, alt.Y2("y2:Q"), charts.faint(0.1)),
        line.encode(y, charts.dashes_of(styles), charts.faint(1)),
        # what the pointer finds: wide and invisible
        base.mark_circle(size=130, opacity=0).encode(y, tooltip=tooltip),
    ]
    single = len(curves) == 1 and (values == np.repeat(values[::3], 3)).all()
    return layers[1 if single else 0 :] + ([] if kept is None else [charts.line_at(kept, charts.SOFT)]), rows


def _log_axis(values: NDArray[np.float64]) -> tuple[alt.Scale, alt.Axis]:
    """A logarithmic axis where values are far apart, with round numbers on it."""
    low, high = float(values.min()), float(values.max())
    if not (low > 0 and high / low > _LOG_RATIO):
        return alt.Scale(zero=False), alt.Axis(domain=False, tickCount=5, format="~g")
    axis = alt.Axis(domain=False, values=charts.round_numbers(low, high), format="~g")
    return alt.Scale(type="log", nice=False, padding=6), axis


def _accuracy_axis(accuracies: NDArray[np.float64]) -> tuple[alt.Scale, alt.Axis, float]:
    """An axis for errors in percent that is labeled with accuracies, and the error as which 0 is drawn.

    It is logarithmic in the error, so that 98 and 99 % are told apart.
    """
    errors = 100 * (1 - accuracies)
    perfect = errors <= 1e-9
    # 0 % error has no logarithm: it is drawn at the top edge, a little above the best accuracy below 100 %
    floor = 0.7 * float(errors[~perfect].min()) if not perfect.all() else 0.7
    limit = min(100.0, 1.2 * max(float(errors.max()), floor))
    shown = [tick for tick in _ACCURACY_TICKS if floor <= 100 - tick <= limit]
    if len(shown) < 3:
        # a narrow range: whatever round numbers lie in it
        step = 10.0 ** math.floor(math.log10((limit - floor) / 2))
        step *= next(factor for factor in (5, 2, 1) if factor * step <= (limit - floor) / 2)
        first = math.ceil((100 - limit) / step)
        shown = [step * place for place in range(first, first + 12) if floor <= 100 - step * place <= limit]
    ticks = [100 - tick for tick in shown]
    words = "format(100 - datum.value, '.6~g')"
    if perfect.any():
        ticks = [*(tick for tick in ticks if tick > 1.25 * floor), floor]
        words = f"datum.value < {1.01 * floor!r} ? '100' : {words}"
    scale = alt.Scale(type="log", domain=[limit, floor], nice=False)
    return scale, alt.Axis(domain=False, values=ticks, labelExpr=words), floor
