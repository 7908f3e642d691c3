"""Simulated cohorts like CAMELYON-17 and BRACS: real tables and sizes, made-up patch features, and the truth."""

from ncmi.slides.simulation.files import link_cohort, open_simulation, write_simulation
from ncmi.slides.simulation.options import Difficulty, SimulationOptions, SlideRow, describe_simulation, read_table
from ncmi.slides.simulation.truth import attention_auc, oracle_scores

__all__ = [
    "Difficulty",
    "SimulationOptions",
    "SlideRow",
    "attention_auc",
    "describe_simulation",
    "link_cohort",
    "open_simulation",
    "oracle_scores",
    "read_table",
    "write_simulation",
]
