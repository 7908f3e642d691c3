"""The tables of the study: methods with their own small grids, NCMI's neighbourhood, damaged data, batch sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """One line of a table.

    Attributes:
        name: in commands.
        label: in tables.
        objective: name of the loss.
        options: that differ from its default.
        rates: learning rates that it may choose from, in multiples of the recipe's; a single 1 is no search.
        grid: further options, each tried at the best of these rates.
    """

    name: str
    label: str
    objective: str
    options: Options = field(default_factory=dict)
    rates: tuple[float, ...] = (1.0,)
    grid: tuple[Options, ...] = ()


RATES = (1.0, 0.4, 2.0)
NCMI = Method("ncmi", "NCMI", "ncmi")

TRANSFER = (
    NCMI,  # at its default, not searched
    Method("cross_entropy", "Cross-entropy", "cross_entropy", rates=RATES),
    Method(
        "label_smoothing",
        "Label smoothing",
        "label_smoothing",
        rates=RATES,
        grid=({"epsilon": 0.05}, {"epsilon": 0.2}),
    ),
    Method("focal", "Focal", "focal", rates=RATES, grid=({"gamma": 1.0},)),
    Method("poly", "PolyLoss", "poly", rates=RATES, grid=({"epsilon": 3.0},)),
    Method("squentropy", "Squentropy", "squentropy", rates=RATES),
)

# label, options of NCMI, and multiples of the recipe's learning rates or whole values of the training
NEIGHBOURS: tuple[tuple[str, Options, Options], ...] = (
    ("default", {}, {}),
    ("learning rate ×0.5", {}, {"learning_rate": 0.5}),
    ("learning rate ×2.5", {}, {"learning_rate": 2.5}),
    ("centroid rate ×0.2", {}, {"centroid_learning_rate": 0.2}),
    ("centroid rate ×5", {}, {"centroid_learning_rate": 5.0}),
    ("temperature 0.25", {"temperature": 0.25}, {}),
    ("temperature 1", {"temperature": 1.0}, {}),
    ("p = −4", {"separation_power": -4.0}, {}),
    ("p = −8", {"separation_power": -8.0}, {}),
    ("p = −16", {"separation_power": -16.0}, {}),
    ("free centroids, κ = 10", {"anchor_scale": 10.0}, {}),
    ("robustness 0.3", {"robustness": 0.3}, {}),
    ("ETF anchors", {"anchors": "etf"}, {}),
    ("fixed centroids", {"centroids": "fixed"}, {}),
    ("frozen centre", {"centre": "frozen"}, {}),
)

# NCMI where labels are wrong: the likelihood is bounded, the more the surer the model is
ROBUST: Options = {"robustness": "auto"}
# every method has the same rates to choose from here, NCMI as well, and its rivals another value of their own option
NOISE = (
    Method("cross_entropy", "Cross-entropy", "cross_entropy", rates=RATES),
    Method("ncmi", "NCMI", "ncmi", rates=RATES),
    Method("ncmi_robust", "NCMI (robust)", "ncmi", ROBUST, rates=RATES),
    Method("label_smoothing", "Label smoothing", "label_smoothing", rates=RATES, grid=({"epsilon": 0.3},)),
    Method("gce", "Generalised CE", "generalised_cross_entropy", rates=RATES, grid=({"q": 0.4},)),
    Method("sce", "Symmetric CE", "symmetric_cross_entropy", rates=RATES, grid=({"alpha": 6.0, "beta": 0.1},)),
)
ROBUST_RIVALS = ("gce", "sce")
NoiseKind = Literal["symmetric", "pair"]
LEVELS = (0.4, 0.2, 0.0)
KINDS: tuple[NoiseKind, ...] = ("symmetric", "pair")

BATCH = (NCMI, Method("cross_entropy", "Cross-entropy", "cross_entropy"))
BATCH_SIZES: dict[str, tuple[int, ...]] = {
    "digits": (8, 32, 128, 512, 1024),
    "letter": (8, 32, 128, 512, 1024),
    "cifar100": (32, 128, 512),
}

TAIL_RATIO = 100.0
TAIL = (
    Method("cross_entropy", "Cross-entropy", "cross_entropy"),
    Method("ncmi", "NCMI", "ncmi"),
    Method("ncmi_balanced", "NCMI (balanced)", "ncmi", {"class_weights": "balanced"}),
    Method("balanced_ce", "Balanced CE", "cross_entropy", {"class_weights": "balanced"}),
    Method("adjusted_ce", "Logit-adjusted CE", "cross_entropy", {"logit_adjustment": 1.0}),
)
DAMAGED_SETS = ("digits", "letter", "cifar100")

CURVES = (NCMI, Method("cross_entropy", "Cross-entropy", "cross_entropy"))


def told(options: Options) -> str:
    """Options as text.

    >>> told({"gamma": 1.0, "anchors": "etf"}), told({})
    ('anchors etf, gamma 1', '')
    """
    shown = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in options.items()}
    return ", ".join(f"{name.replace('_', ' ')} {shown[name]}" for name in sorted(shown))
