"""Simulated bags made when they are asked for: a cohort of any size without a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ncmi.slides.bag import Bag, BagError, BagSource
from ncmi.slides.simulation.lesions import plan_slide
from ncmi.slides.simulation.options import SimulationOptions
from ncmi.slides.simulation.slide import PATCH_LEVEL0, SimulatedSlide, simulate_slide
from ncmi.slides.simulation.table import SlideRow


class SimulatedBags(BagSource):
    """Bags of a simulation, each made anew whenever it is loaded; the same as :func:`write_simulation` writes.

    Args:
        options: of the simulation.
        rows: of the slides.
        path: what error messages call it.

    Example:
        >>> options = SimulationOptions(feature_dim=32, scale=0.05)
        >>> bags = SimulatedBags(options, [SlideRow("a", "p", "macro", centre="0")])
        >>> bags.shape("a") == tuple(bags.load("a").features.shape), bags.label("a")
        (True, 'macro')
    """

    def __init__(self, options: SimulationOptions, rows: Sequence[SlideRow], path: str | Path = "simulation") -> None:
        self.path = Path(path)
        self.options = options
        self.rows = {row.name: row for row in rows}
        self.names = tuple(sorted(self.rows))

    def shape(self, name: str) -> tuple[int, int]:
        """(N, D_feat) of a bag, without making it."""
        return plan_slide(self.options, self._row(name)).instances, self.options.feature_dim

    def load(self, name: str) -> Bag:
        """Make a bag."""
        slide = self.truth(name)
        return Bag(name, torch.from_numpy(slide.features), torch.from_numpy(slide.coords), PATCH_LEVEL0)

    def truth(self, name: str) -> SimulatedSlide:
        """Make a bag with the truth about every patch."""
        return simulate_slide(self.options, self._row(name))

    def label(self, name: str) -> str:
        """The label of a bag, from the table."""
        return self._row(name).label

    def _row(self, name: str) -> SlideRow:
        if name not in self.rows:
            raise BagError(f"{self.path}: no slide {name!r} in this simulation; its table lists all there are")
        return self.rows[name]
