"""Colors and line styles. Charts are drawn in fixed colors, for which the page puts its own: legible in light and dark.

Objectives: one hue each from the Okabe–Ito set (safe for the color-blind) and, because hues run out before
objectives do, a line style as well. NCMI is vermilion, cross-entropy the color of the ink.
"""

import colorsys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

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
"""Name on the page: (as drawn and in light, in dark)."""
SOLID, DASHED, DOTTED, MIXED = (1, 0), (10, 4), (2.4, 3.2), (10, 3, 2.4, 3)


@dataclass(frozen=True)
class Style:
    """How one objective looks in every figure of a report: a tone, and the dashes of its lines."""

    tone: str
    dashes: tuple[float, ...] = SOLID

    @property
    def color(self) -> str:
        """The color that charts are drawn in."""
        return TONES[self.tone][0]


KNOWN: dict[str, Style] = {
    "ncmi": Style("vermilion"),
    "cross_entropy": Style("ink"),
    "label_smoothing": Style("blue"),
    "focal": Style("green"),
    "poly": Style("orange"),
    "square": Style("pink"),
    "squentropy": Style("sky"),
    "anticlass": Style("blue", DASHED),
    "opl": Style("green", DASHED),
    "supcon": Style("orange", DASHED),
    "cmic": Style("pink", DASHED),
    "generalized_cross_entropy": Style("sky", DASHED),
    "symmetric_cross_entropy": Style("blue", DOTTED),
}
_HUES = ("blue", "green", "orange", "pink", "sky", "vermilion")


def styles(keys: Iterable[tuple[str, str]]) -> dict[str, Style]:
    """A style for each (label, objective): the objective's own, or another where it is unknown or taken.

    Another: a hue that nothing else has, if there is one, then the own hue in another line style, then any that is
    free; beyond all of them styles repeat.
    """
    # of a mapping the keys are meant
    wanted = dict(iter(keys))
    chosen: dict[str, Style] = {}
    for label, objective in wanted.items():
        if (style := KNOWN.get(objective)) and style not in chosen.values():
            chosen[label] = style
    for label, objective in wanted.items():
        if label not in chosen:
            free = (style for style in _others(objective, set(chosen.values())) if style not in chosen.values())
            chosen[label] = next(free, Style(_HUES[len(chosen) % len(_HUES)], MIXED))
    return {label: chosen[label] for label in wanted}


def _others(objective: str, taken: set[Style]) -> Iterator[Style]:
    """Candidates for an objective whose own style is taken, the best first."""
    tones = {style.tone for style in taken}
    yield from (Style(tone) for tone in _HUES if tone not in tones)
    if objective in KNOWN:
        yield from (Style(KNOWN[objective].tone, dashes) for dashes in (DASHED, DOTTED, MIXED))
    yield from (Style(tone, dashes) for dashes in (DASHED, DOTTED, MIXED) for tone in ("sky", "vermilion", *_HUES[:4]))


# of middling lightness: the same on light and on dark paper
_CLASSES = ["3f7fd6", "e0792b", "3aa657", "d1495b", "8e6bd1", "9a7350", "d873b8", "8a8f98", "a8a02c", "27a9bd"]


def class_colors(count: int) -> list[str]:
    """A color for each class; beyond ten classes, hues all round the circle in three lightnesses."""
    if count <= len(_CLASSES):
        return [f"#{color}" for color in _CLASSES[:count]]
    hues = (colorsys.hls_to_rgb(at / count, (0.42, 0.55, 0.66)[at % 3], 0.55) for at in range(count))
    return ["#" + "".join(f"{round(255 * part):02x}" for part in color) for color in hues]
