"""One picture, drawn twice: as a panel of a page, and together with others as a file for documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ncmi.reports.figures.palette import TONES, Style
from ncmi.reports.figures.svg import Panel, canvas, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# pixels across a PNG: sharp where a document shows it at half this width
_PIXELS = 1800
_LEGEND_LINE = 22


@dataclass(frozen=True)
class Drawing:
    """What draws into axes. ``name`` is unique on a page; sizes are SVG units; ``dpi`` is that of points in masses."""

    name: str
    description: str
    width: float
    height: float
    draw: Callable[[Axes], None]
    dpi: int = 160

    def panel(self) -> Panel:
        """The drawing as an SVG for a page."""
        with canvas(self.width, self.height) as figure:
            self.draw(figure.add_subplot())
            return Panel(to_svg(figure, self.name, self.description, dpi=self.dpi))


def document(
    drawings: Sequence[Drawing], *, columns: int = 2, legend: dict[str, Style] | None = None
) -> tuple[bytes, bytes]:
    """All drawings as one SVG and one PNG on light paper that need no page around them.

    Args:
        drawings: at least one; from left to right, then downwards.
        columns: drawings side by side.
        legend: names of curves with their styles, above all drawings.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke

    columns = min(columns, len(drawings))
    rows = [drawings[start : start + columns] for start in range(0, len(drawings), columns)]
    heights = [max(one.height for one in row) for row in rows]
    width = max(sum(one.width for one in row) for row in rows)
    names = dict(legend or {})
    lines = -(-len(names) // columns)
    paper = TONES["paper"][0]
    # letters as shapes: the file looks the same wherever it is opened
    with canvas(width, sum(heights) + lines * _LEGEND_LINE, svg__fonttype="path", savefig__facecolor=paper) as figure:
        places = figure.add_gridspec(len(rows), columns, height_ratios=heights)
        for index, one in enumerate(drawings):
            one.draw(figure.add_subplot(places[index // columns, index % columns]))
        for text in figure.findobj(lambda artist: artist.get_gid() == "halo"):
            text.set_path_effects([withStroke(linewidth=3, foreground=paper)])
        if names:
            handles = []
            for name, style in names.items():
                look: dict[str, Any] = {"color": style.colour, "linestyle": style.line, "linewidth": 2}
                handles.append(Line2D([], [], label=name, **look))
            figure.legend(handles=handles, loc="outside upper left", ncols=columns, frameon=False, handlelength=2.6)
        svg, png = BytesIO(), BytesIO()
        figure.savefig(svg, format="svg", dpi=200, metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=72 * _PIXELS / width, metadata={"Software": None})
    return svg.getvalue(), png.getvalue()
