"""From a matplotlib figure to an SVG for a page: small, coloured by the page, without clashing names."""

from __future__ import annotations

import html
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

from ncmi.reports.figures.palette import TONES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _SOFT, _GRID, _PAPER = (TONES[name][0] for name in ("ink", "soft", "grid", "paper"))

_RC: dict[str, object] = {
    # text stays text: small, searchable, in the page's own font
    "svg.fonttype": "none",
    "svg.hashsalt": "ncmi",
    # a class may be called "$x$"
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 10.5,
    "text.color": _INK,
    "axes.labelcolor": _SOFT,
    "axes.labelsize": 10.5,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.edgecolor": _SOFT,
    "axes.linewidth": 0.8,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "path.simplify_threshold": 0.3,
}


@dataclass(frozen=True)
class Panel:
    """One SVG of a figure; ``wide`` panels take the whole width of the page."""

    svg: str
    wide: bool = False


@contextmanager
def canvas(width: float, height: float, **settings: object) -> Iterator[Figure]:
    """A figure of ``width × height`` SVG units, in the report's style. Draw inside the ``with``.

    ``settings`` are matplotlib's, with two underscores for the dot, in place of the style's own.

    No window system and no pyplot state: a report may be written from any thread.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = _RC | {name.replace("__", "."): value for name, value in settings.items()}
    with matplotlib.rc_context(style), warnings.catch_warnings():  # type: ignore[arg-type]
        # the page's font draws the text, so what matplotlib's own font lacks is no loss
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def grid(axes: Axes, axis: str) -> None:
    """Light lines across, no ticks along them."""
    axes.grid(visible=True, axis="y" if axis == "y" else "x")
    axes.tick_params(axis="y" if axis == "y" else "x", length=0)


def to_svg(figure: Figure, name: str, description: str, *, dpi: int = 160) -> str:
    """Render to an inline ``<svg>``.

    Args:
        figure: drawn inside :func:`canvas`.
        name: unique on the page; goes in front of every id.
        description: what the picture shows, for those who cannot see it.
        dpi: resolution of whatever was drawn with ``rasterized=True``.

    Artists with the gid ``series:K`` get the classes ``series sK``, those with ``halo`` the class ``halo``.
    """
    buffer = StringIO()
    figure.savefig(buffer, format="svg", dpi=dpi, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None  # matplotlib always writes it
    body = svg[svg.index(">") + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'id="series:(\d+)[^"]*"', r'class="series s\1"', body)
    body = re.sub(r'id="halo"', 'class="halo"', body)
    # groups are named by matplotlib for nobody; what is pointed at keeps its name, made unique on the page
    body = re.sub(r'<g id="(?:[a-zA-Z]+_[\w.]*)">', "<g>", body)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'xlink:href="#', f'href="#{name}-', body)
    body = body.replace("xlink:href=", "href=").replace("url(#", f"url(#{name}-")
    body = re.sub(r'(?<= [dxy]=")[^"]*', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), body)
    for tone, (colour, _) in TONES.items():
        body = body.replace(colour, f"var(--{tone})")
    # matplotlib's font family, wherever it stands, gives way to the page's
    body = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 var(--sans)", body)
    body = re.sub(r"\n\s*", "\n", body)
    label = html.escape(description, quote=True)
    return f'<svg {box[0]} role="img" aria-label="{label}">{body}'
