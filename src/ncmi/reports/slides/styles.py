"""How methods of a comparison look in its figures."""

from __future__ import annotations

from collections.abc import Sequence

from ncmi.reports.figures.palette import Style, styles
from ncmi.reports.slides.statistics import Cell, methods


def method_styles(cells: Sequence[Cell]) -> dict[str, Style]:
    """A style for each method, in the order of the table; an objective's own goes to its last read-out there."""
    objective = {cell.method: cell.objective for cell in cells}
    order = methods(cells)
    chosen = styles((method, objective[method]) for method in reversed(order))
    return {method: chosen[method] for method in order}
