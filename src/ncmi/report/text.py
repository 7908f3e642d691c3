"""Numbers, lists and settings as readers see them: the same in the terminal, in Markdown and on the page."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ncmi.readouts.metrics import MINUS as MINUS
from ncmi.readouts.metrics import MISSING as MISSING
from ncmi.readouts.metrics import fixed as fixed
from ncmi.readouts.metrics import signed as signed

SIMULATION = "Simulation: no slide of this cohort is real."
# more different values than this are named by the first and the last of them
_MOST_VALUES = 4


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
        numbers = all(type(value) in (int, float) for value in values)
        ends = map(_value, (min(values), max(values))) if numbers else (min(words), max(words))
        many = f"{len(words)} values, {' … '.join(ends)}"
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
