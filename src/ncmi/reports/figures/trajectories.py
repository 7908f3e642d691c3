"""CMI, Γ, NCMI and accuracy on the validation set, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ncmi.reports.figures.drawing import Drawing
from ncmi.reports.figures.palette import Style
from ncmi.reports.figures.svg import Panel, grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 400, 245
# a curve of more points than this is no smoother at this size, only larger
_MOST_POINTS = 120
# measures whose largest and smallest value are further apart than this are drawn on a logarithmic axis
_LOG_RATIO = 12.0
_ACCURACY_TICKS = (0.0, 50.0, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9)


@dataclass(frozen=True)
class Series:
    """Curves of one objective: one data frame of metrics per seed."""

    label: str
    style: Style
    metrics: Sequence[pd.DataFrame]


@dataclass(frozen=True)
class Curve:
    """Mean, lowest and highest value over seeds, per epoch."""

    epochs: NDArray[np.int64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def curve(metrics: Sequence[pd.DataFrame], column: str) -> Curve:
    """Mean over seeds with the range from lowest to highest; where a seed has no value, over the others."""
    table = pd.concat([frame[column] for frame in metrics], axis=1).sort_index().replace([np.inf, -np.inf], np.nan)
    table = table.dropna(how="all")
    if len(table) > _MOST_POINTS:
        table = table.iloc[np.unique(np.linspace(0, len(table) - 1, _MOST_POINTS).round().astype(int))]
    return Curve(
        table.index.to_numpy(dtype=np.int64),
        table.mean(axis=1).to_numpy(dtype=float),
        table.min(axis=1).to_numpy(dtype=float),
        table.max(axis=1).to_numpy(dtype=float),
    )


def trajectory_panels(series: Sequence[Series], *, single: bool = False) -> list[Panel]:
    """Panels of CMI, Γ, NCMI and accuracy on validation data; for a ``single`` run the training loss too."""
    return [drawing.panel() for drawing in trajectory_drawings(series, single=single)]


def trajectory_drawings(
    series: Sequence[Series], *, single: bool = False, name: str = "", heading: str = ""
) -> list[Drawing]:
    """What :func:`trajectory_panels` shows; ``name`` keeps several on one page apart, ``heading`` goes in front.

    What no run has measured is left out: without a validation part, that is all but the training loss.
    """
    drawings = [
        _measure(series, "validation_cmi", f"{heading}CMI (concentration)", "CMI, nats", name),
        _measure(series, "validation_separation", f"{heading}Γ (separation)", "Γ, nats", name),
        _measure(series, "validation_ncmi", f"{heading}NCMI = CMI / Γ", "NCMI", name),
        _accuracy(series, name, heading),
    ]
    if single:
        drawings.append(_measure(series, "train_loss", "Training loss", "loss", name))
    return [drawing for drawing in drawings if drawing is not None]


def _measure(series: Sequence[Series], column: str, title: str, unit: str, name: str) -> Drawing | None:
    curves = [curve(one.metrics, column) for one in series]
    values = np.concatenate([np.concatenate([c.low, c.high]) for c in curves])
    if not len(values):
        return None
    logarithmic = bool(values.min() > 0 and values.max() / values.min() > _LOG_RATIO)

    def draw(axes: Axes) -> None:
        for index, (one, drawn) in enumerate(zip(series, curves, strict=True)):
            _draw(axes, index, one.style, drawn.epochs, drawn.mean, drawn.low, drawn.high)
        if logarithmic:
            axes.set_yscale("log")
            _plain_log_ticks(axes)
        _finish(axes, title, unit + (", logarithmic" if logarithmic else ""))

    told = f"{title} on {'training' if column.startswith('train') else 'validation'} data by epoch"
    return Drawing(column.replace("_", "-") + name, told, _WIDTH, _HEIGHT, draw)


def _accuracy(series: Sequence[Series], name: str, heading: str) -> Drawing | None:
    """Accuracy on an axis that is logarithmic in the error, so that 98 and 99 % are told apart."""
    curves = [curve(one.metrics, "validation_accuracy") for one in series]
    values = np.concatenate([np.concatenate([c.low, c.high]) for c in curves])
    if not len(values):
        return None
    errors = 100 * (1 - values)
    perfect = errors <= 1e-9
    # 0 % error has no logarithm: it is drawn at the top edge, a little above the best accuracy below 100 %
    floor = 0.7 * float(errors[~perfect].min()) if not perfect.all() else 0.7
    limit = min(100.0, 1.2 * max(float(errors.max()), floor))
    ticks = _accuracy_ticks(floor, limit, bool(perfect.any()))

    def draw(axes: Axes) -> None:
        for index, (one, drawn) in enumerate(zip(series, curves, strict=True)):
            mean, low, high = (np.maximum(100 * (1 - part), floor) for part in (drawn.mean, drawn.high, drawn.low))
            _draw(axes, index, one.style, drawn.epochs, mean, low, high)
        axes.set_yscale("log")
        axes.set_ylim(limit, floor)
        axes.yaxis.set_minor_locator(_null_locator())
        axes.set_yticks(list(ticks), list(ticks.values()))
        _finish(axes, f"{heading}Validation accuracy", "accuracy, %, logarithmic in the error")

    return Drawing(f"validation-accuracy{name}", f"{heading}Validation accuracy by epoch", _WIDTH, _HEIGHT, draw)


def _accuracy_ticks(floor: float, limit: float, perfect: bool) -> dict[float, str]:
    """Error in percent and accuracy as a label, for errors between ``floor``, drawn as 100 %, and ``limit``."""
    from matplotlib.ticker import MaxNLocator

    shown = [tick for tick in _ACCURACY_TICKS if floor <= 100 - tick <= limit]
    if len(shown) < 3:
        # a narrow range: whatever round numbers lie in it
        shown = [tick for tick in MaxNLocator(4).tick_values(100 - limit, 100 - floor) if floor <= 100 - tick <= limit]
    if not perfect:
        return {100 - tick: f"{tick:.6g}" for tick in shown}
    return {100 - tick: f"{tick:.6g}" for tick in shown if 100 - tick > 1.25 * floor} | {floor: "100"}


def _draw(
    axes: Axes,
    index: int,
    style: Style,
    epochs: NDArray[np.int64],
    mean: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> None:
    front = 3 if style.tone in ("vermilion", "ink") else 2
    if len(epochs) and not np.array_equal(low, high):
        band = axes.fill_between(epochs, low, high, color=style.colour, alpha=0.10, linewidth=0, zorder=front - 1.5)
        band.set_gid(f"series:{index}")
    (line,) = axes.plot(
        epochs,
        mean,
        color=style.colour,
        linestyle=style.line,
        linewidth=2.2 if front == 3 else 1.4,
        marker="o" if len(epochs) == 1 else None,
        zorder=front,
    )
    line.set_gid(f"series:{index}")


def _finish(axes: Axes, title: str, unit: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.set_ylabel(unit, labelpad=6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10]))
    axes.margins(x=0.02)
    axes.spines["left"].set_visible(False)
    grid(axes, "y")


def _plain_log_ticks(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator

    low, high = axes.get_ylim()
    decades = np.log10(high / low)
    subs = (1.0, 2.0, 5.0) if decades < 1.6 else (1.0, 3.0) if decades < 3 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_minor_locator(_null_locator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _null_locator() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()
