"""Simulated cohorts like CAMELYON-17 and BRACS: real tables and sizes, made-up patch features, and the truth."""

from ncmi.slides.simulation.lesions import Lesion, SlidePlan, plan_slide
from ncmi.slides.simulation.linked import link_cohort
from ncmi.slides.simulation.numbers import Stated, describe_simulation
from ncmi.slides.simulation.options import Difficulty, SimulationOptions
from ncmi.slides.simulation.reading import is_simulated, open_simulation, simulated_table, simulation_of
from ncmi.slides.simulation.slide import SimulatedSlide, simulate_slide
from ncmi.slides.simulation.source import SimulatedBags
from ncmi.slides.simulation.table import SlideRow, make_table, read_table
from ncmi.slides.simulation.truth import attention_auc, oracle_metrics, oracle_probabilities
from ncmi.slides.simulation.writing import MARK, simulation_bytes, write_simulation

__all__ = [
    "MARK",
    "Difficulty",
    "Lesion",
    "SimulatedBags",
    "SimulatedSlide",
    "SimulationOptions",
    "SlidePlan",
    "SlideRow",
    "Stated",
    "attention_auc",
    "describe_simulation",
    "is_simulated",
    "link_cohort",
    "make_table",
    "open_simulation",
    "oracle_metrics",
    "oracle_probabilities",
    "plan_slide",
    "read_table",
    "simulate_slide",
    "simulated_table",
    "simulation_bytes",
    "simulation_of",
    "write_simulation",
]
