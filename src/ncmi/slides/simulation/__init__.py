"""Simulated cohorts like CAMELYON-17 and BRACS: real tables and sizes, made-up patch features, and the truth."""

from ncmi.slides.simulation.files import write_simulation
from ncmi.slides.simulation.options import Difficulty, SimulationOptions, SlideRow, describe_simulation, read_table

__all__ = ["Difficulty", "SimulationOptions", "SlideRow", "describe_simulation", "read_table", "write_simulation"]
