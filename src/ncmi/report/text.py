"""Numbers, lists and settings as readers see them: the same in the terminal, in Markdown and on the page."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ncmi.recipes import Kind

MISSING = "–"
MINUS = "−"
SIMULATION = "Simulation: no slide of this cohort is real."
# more different values than this are named by the first and the last of them
_MOST_VALUES = 4


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


def significant(value: float, digits: int = 3) -> str:
    """A positive measure with ``digits`` significant digits.

    >>> significant(0.0123456), significant(2.1), significant(1.5e-7)
    ('0.0123', '2.10', '1.5e−07')
    """
    if value == 0:
        return "0"
    if math.isfinite(value) and not 1e-4 <= abs(value) < 1e5:
        return f"{value:.{digits - 1}g}".replace("-", MINUS)
    return fixed(value, max(0, digits - 1 - math.floor(math.log10(abs(value)))) if math.isfinite(value) else 0)


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


PERCENT, SHARE = Unit(100.0, 2, " %", " points"), Unit(1.0, 3)
UNITS: dict[Kind, Unit] = {"table": PERCENT, "image": PERCENT, "bags": SHARE}
"""How the scores of each kind of data are written: accuracy in percent, macro F1 and AUC in 0 … 1."""


def duration(seconds: float) -> str:
    """A time span in the unit that reads best.

    >>> duration(0.126), duration(7.5), duration(161), duration(7380)
    ('0.13 s', '7.5 s', '2 min 41 s', '2 h 3 min')
    """
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "seed"), count(5, "seed")
    ('1 seed', '5 seeds')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def ranges(numbers: Iterable[int]) -> str:
    """Whole numbers, runs of neighbors drawn together.

    >>> ranges((0, 1, 2, 3, 4)), ranges((0, 2, 3)), ranges((7,))
    ('0–4', '0, 2, 3', '7')
    """
    ordered = sorted(set(numbers))
    if len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1:
        return f"{ordered[0]}–{ordered[-1]}"
    return ", ".join(map(str, ordered))


def short(name: str, most: int = 14) -> str:
    """A class name that fits beside a figure.

    >>> short("a name that goes on and on")
    'a name that g…'
    """
    return name if len(name) <= most else name[: most - 1] + "…"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def shared_settings(contents: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Every setting by its dotted name: the common value, or all values where runs differ."""
    flats = [dict(_flat(content)) for content in contents]
    settings: dict[str, str] = {}
    for name in dict.fromkeys(name for flat in flats for name in flat):
        values: list[Any] = [flat.get(name) for flat in flats]
        words = list(dict.fromkeys(map(_value, values)))
        if len(words) > 1 and all(type(value) is int for value in values):
            words = [ranges(values)]
        many = f"{len(words)} values, {min(words)} … {max(words)}"
        settings[name] = " | ".join(words) if len(words) <= _MOST_VALUES else many
    return settings


def section_options(sections: Sequence[dict[str, Any]]) -> str:
    """The options of a network or an objective, without its name, as ``name = value`` pairs."""
    settings = shared_settings(sections)
    return ", ".join(f"{name} = {value}" for name, value in settings.items() if name != "name") or "no options"


def environment_settings(environments: Sequence[dict[str, Any]]) -> dict[str, str]:
    """What all environments say; values that none of them has are left out."""
    return {name: value for name, value in shared_settings(environments).items() if value != MISSING}


def _flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value)) or MISSING
    if value is None:
        return MISSING
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
