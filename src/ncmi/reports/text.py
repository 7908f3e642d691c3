"""Numbers as readers see them: the same in the terminal, in Markdown and on the page."""

from __future__ import annotations

import math

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


def significant(value: float, digits: int = 3) -> str:
    """A positive measure with ``digits`` significant digits.

    >>> significant(0.0123456), significant(2.1), significant(1.5e-7)
    ('0.0123', '2.10', '1.5e−07')
    """
    if not math.isfinite(value):
        return MISSING
    if value != 0 and not 1e-4 <= abs(value) < 1e5:
        return f"{value:.{digits - 1}g}".replace("-", MINUS)
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}".replace("-", MINUS)


def mean_sd(mean: float, sd: float) -> str:
    """Mean ± sample standard deviation; the mean alone where there is no deviation.

    >>> mean_sd(97.5, 0.31), mean_sd(97.5, float("nan"))
    ('97.50 ± 0.31', '97.50')
    """
    return f"{fixed(mean)} ± {fixed(sd)}" if math.isfinite(sd) else fixed(mean)


def interval(bounds: tuple[float, float] | None) -> str:
    """Two signed bounds.

    >>> interval((-0.1, 0.7)), interval(None)
    ('−0.10 … +0.70', '–')
    """
    return MISSING if bounds is None else f"{signed(bounds[0])} … {signed(bounds[1])}"


def duration(seconds: float) -> str:
    """A time span in the unit that reads best.

    >>> duration(0.126), duration(7.5), duration(161), duration(7380)
    ('0.13 s', '7.5 s', '2 min 41 s', '2 h 3 min')
    """
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "seed"), count(5, "seed")
    ('1 seed', '5 seeds')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def ranges(numbers: tuple[int, ...]) -> str:
    """Whole numbers, runs of neighbours drawn together.

    >>> ranges((0, 1, 2, 3, 4)), ranges((0, 2, 3)), ranges((7,))
    ('0–4', '0, 2, 3', '7')
    """
    ordered = sorted(set(numbers))
    if len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1:
        return f"{ordered[0]}–{ordered[-1]}"
    return ", ".join(str(number) for number in ordered)


def short(name: str, most: int = 14) -> str:
    """A class name that fits beside a figure.

    >>> short("a name that goes on and on")
    'a name that g…'
    """
    return name if len(name) <= most else name[: most - 1] + "…"
