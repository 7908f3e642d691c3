"""What scores are called, how they are written and which way they are better: one table for terminal, CSV and page."""

import math
from dataclasses import dataclass

MISSING = "–"
MINUS = "−"


def fixed(value: float, digits: int = 2) -> str:
    """A number with a fixed count of decimals and a true minus sign.

    >>> fixed(-0.125, 1), fixed(float("nan"))
    ('−0.1', '–')
    """
    if not math.isfinite(value):
        return MISSING
    text = f"{value:.{digits}f}"
    # −0.00 would claim a sign that the digits do not show
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)


def signed(value: float, digits: int = 2) -> str:
    """Like :func:`fixed`, with a plus sign in front of positive numbers.

    >>> signed(0.3), signed(-0.3), signed(0.0)
    ('+0.30', '−0.30', '0.00')
    """
    text = fixed(value, digits)
    return text if text == MISSING or text.startswith(MINUS) or float(text) == 0 else f"+{text}"


@dataclass(frozen=True)
class Unit:
    """How scores in 0 … 1 and their differences are written.

    >>> PERCENT.mean_sd(0.975, 0.0031), SHARE.mean_sd(0.5, float("nan"))
    ('97.50 ± 0.31', '0.500')
    >>> PERCENT.interval((-0.001, 0.007)), SHARE.bounds((0.44, 0.6)), SHARE.interval(None)
    ('−0.10 … +0.70', '0.440 … 0.600', '–')
    """

    factor: float
    digits: int
    sign: str = ""
    """Behind a score in a heading or sentence."""
    difference: str = ""
    """Behind a difference in a sentence."""

    def fixed(self, value: float | None) -> str:
        """A score; a dash for none."""
        return MISSING if value is None else fixed(self.factor * value, self.digits)

    def rounded(self, value: float) -> float:
        """A score as exactly as it is written."""
        return round(self.factor * value, self.digits)

    def signed(self, value: float) -> str:
        """A difference."""
        return signed(self.factor * value, self.digits)

    def mean_sd(self, mean: float, sd: float) -> str:
        """Mean ± sample standard deviation; the mean alone where there is no deviation."""
        return f"{self.fixed(mean)} ± {self.fixed(sd)}" if math.isfinite(sd) else self.fixed(mean)

    def interval(self, bounds: tuple[float, float] | None) -> str:
        """An interval of a difference."""
        ends = [self.signed(bound) for bound in bounds or (math.nan,)]
        return MISSING if MISSING in ends else " … ".join(ends)

    def bounds(self, bounds: tuple[float | None, float | None] | None) -> str:
        """An interval of a score."""
        ends = [self.fixed(bound) for bound in bounds or (None,)]
        return MISSING if MISSING in ends else " … ".join(ends)


PERCENT, SHARE, FINE = Unit(100.0, 2, " %", " points"), Unit(1.0, 3), Unit(1.0, 4)


@dataclass(frozen=True)
class Metric:
    """A score: what it is called, in full and in a narrow column, how it is written, and whether less is better."""

    label: str
    short: str
    unit: Unit
    less_is_better: bool = False


METRICS: dict[str, Metric] = {
    "accuracy": Metric("Accuracy", "Accuracy", PERCENT),
    "balanced_accuracy": Metric("Balanced accuracy", "Balanced", PERCENT),
    "macro_f1": Metric("Macro F1", "Macro F1", FINE),
    "macro_auc": Metric("Macro AUC", "Macro AUC", FINE),
    "top5_accuracy": Metric("Top-5 accuracy", "Top 5", PERCENT),
    "nll": Metric("NLL", "NLL", FINE, less_is_better=True),
    "brier": Metric("Brier score", "Brier", FINE, less_is_better=True),
    "calibration_error": Metric("Calibration error", "ECE", PERCENT, less_is_better=True),
    "cmi": Metric("CMI", "CMI", FINE, less_is_better=True),
    "separation": Metric("Γ", "Γ", FINE),
    "ncmi": Metric("NCMI", "NCMI", FINE, less_is_better=True),
}
SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "nll", "calibration_error")
"""The scores by which read-outs are told apart everywhere; NLL is also known as log-loss."""


def scores_in_order(*, unequal: bool) -> tuple[str, ...]:
    """The scores as they stand in a table: of unequal classes those first in which every class counts alike.

    >>> scores_in_order(unequal=True)[:3]
    ('macro_f1', 'balanced_accuracy', 'accuracy')
    """
    first = ("macro_f1", "balanced_accuracy") if unequal else ()
    return (*first, *(name for name in SCORES if name not in first))


def unit_of(kind: str, score: str) -> Unit:
    """How a score is written on a kind of data: shares of slides are written in 0 … 1, as the field does.

    >>> unit_of("table", "accuracy").fixed(0.975), unit_of("bags", "accuracy").fixed(0.975)
    ('97.50', '0.975')
    """
    shares = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "top5_accuracy")
    return SHARE if kind == "bags" and score in shares else METRICS[score].unit


def heading_of(kind: str, score: str, *, short: bool = False) -> str:
    """A score over a column of a table.

    >>> heading_of("table", "balanced_accuracy"), heading_of("table", "calibration_error", short=True)
    ('Balanced accuracy %', 'ECE %')
    """
    return (METRICS[score].short if short else METRICS[score].label) + unit_of(kind, score).sign


def in_words(score: str) -> str:
    """A score in a sentence.

    >>> in_words("macro_f1"), in_words("cmi")
    ('macro F1', 'CMI')
    """
    name = METRICS[score].label
    return name if name[:2].isupper() else name[0].lower() + name[1:]
