"""Colours. A figure is drawn in fixed colours, which the page replaces: legible in light and in dark.

Objectives: one hue each from the Okabe–Ito set (safe for the colour-blind) and, because hues run out before
objectives do, a line style as well. NCMI is vermilion, cross-entropy the colour of the ink.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable
from dataclasses import dataclass

# name on the page: (as drawn and in light, in dark)
TONES: dict[str, tuple[str, str]] = {
    "ink": ("#1d2129", "#e7e9ec"),
    "soft": ("#5b626d", "#a2a9b4"),
    "grid": ("#dcdfe4", "#3a3f48"),
    "paper": ("#fefefe", "#16181c"),
    "vermilion": ("#c94f00", "#ff8a3d"),
    "blue": ("#0067a6", "#4ea8e0"),
    "sky": ("#2f9bd8", "#8fd0f7"),
    "green": ("#00805f", "#2fc497"),
    "orange": ("#c98500", "#f2b632"),
    "pink": ("#b5578d", "#e596c4"),
}
SOLID, DASHED, DOTTED, MIXED = "-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (5, 1.5, 1.2, 1.5))
LineStyle = str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class Style:
    """How one objective looks in every figure of a report."""

    tone: str
    line: LineStyle

    @property
    def colour(self) -> str:
        """The colour that the figure is drawn in."""
        return TONES[self.tone][0]

    @property
    def dashes(self) -> str:
        """The line style as an SVG ``stroke-dasharray``, for a line of width 2."""
        return "" if isinstance(self.line, str) else " ".join(f"{2 * part:g}" for part in self.line[1])


KNOWN: dict[str, Style] = {
    "ncmi": Style("vermilion", SOLID),
    "cross_entropy": Style("ink", SOLID),
    "label_smoothing": Style("blue", SOLID),
    "focal": Style("green", SOLID),
    "poly": Style("orange", SOLID),
    "square": Style("pink", SOLID),
    "squentropy": Style("sky", SOLID),
    "anticlass": Style("blue", DASHED),
    "opl": Style("green", DASHED),
    "supcon": Style("orange", DASHED),
    "cmic": Style("pink", DASHED),
    "generalised_cross_entropy": Style("sky", DASHED),
    "symmetric_cross_entropy": Style("blue", DOTTED),
}
_HUES = ("blue", "green", "orange", "pink", "sky", "vermilion")
_SPARE = tuple(Style(tone, line) for line in (DASHED, DOTTED, MIXED) for tone in ("sky", "vermilion", *_HUES[:4]))


def styles(keys: Iterable[tuple[str, str]]) -> dict[str, Style]:
    """A style for each (label, objective): the objective's own, or another where it is unknown or taken.

    Another: a hue that nothing else has, if there is one, then the own hue in another line style, then a spare style.
    """
    wanted = dict(iter(keys))
    chosen: dict[str, Style] = {}
    for label, objective in wanted.items():
        style = KNOWN.get(objective)
        if style is not None and style not in chosen.values():
            chosen[label] = style
    for label, objective in wanted.items():
        if label not in chosen:
            chosen[label] = _another(objective, set(chosen.values()))
    # in the order asked for
    return {label: chosen[label] for label in wanted}


def _another(objective: str, taken: set[Style]) -> Style:
    hues = [tone for tone in _HUES if tone not in {style.tone for style in taken}]
    own = [Style(KNOWN[objective].tone, line) for line in (DASHED, DOTTED, MIXED)] if objective in KNOWN else []
    free = [style for style in (*(Style(tone, SOLID) for tone in hues), *own, *_SPARE) if style not in taken]
    # beyond all of them styles repeat
    return free[0] if free else _SPARE[len(taken) % len(_SPARE)]


# of middling lightness: points are pixels, the same on light and on dark paper
_CLASSES = (
    "#3f7fd6",
    "#e0792b",
    "#3aa657",
    "#d1495b",
    "#8e6bd1",
    "#9a7350",
    "#d873b8",
    "#8a8f98",
    "#a8a02c",
    "#27a9bd",
)


def class_colours(count: int) -> list[str]:
    """A colour for each class; beyond ten classes, hues all round the circle in three lightnesses."""
    if count <= len(_CLASSES):
        return list(_CLASSES[:count])
    colours = []
    for index in range(count):
        red, green, blue = colorsys.hls_to_rgb(index / count, (0.42, 0.55, 0.66)[index % 3], 0.55)
        colours.append(f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}")
    return colours


def variables(dark: bool) -> str:
    """The tones as CSS custom properties."""
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in TONES.items())
