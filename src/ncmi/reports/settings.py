"""Recipes and environments of many runs, told once: what all share, and where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ncmi.reports import text
from ncmi.reports.records import RunRecord

# more different values than this are told by the first and the last of them
_MOST_VALUES = 4


def flatten(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as dotted names.

    >>> flatten({"data": {"name": "digits"}, "format": 1})
    {'data.name': 'digits', 'format': 1}
    """
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def shared(contents: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Every setting by its dotted name: the common value, or all values where runs differ."""
    flats = [flatten(content) for content in contents]
    names = dict.fromkeys(name for flat in flats for name in flat)
    told: dict[str, str] = {}
    for name in names:
        values = [flat.get(name) for flat in flats]
        distinct = list(dict.fromkeys(_told(value) for value in values))
        if len(distinct) == 1:
            told[name] = distinct[0]
        elif all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            told[name] = text.ranges(tuple(value for value in values if isinstance(value, int)))
        elif len(distinct) <= _MOST_VALUES:
            told[name] = " | ".join(distinct)
        else:
            told[name] = f"{len(distinct)} values, {min(distinct)} … {max(distinct)}"
    return told


def recipe_settings(runs: Sequence[RunRecord]) -> tuple[dict[str, str], dict[str, str]]:
    """What the recipes of all runs say of the training, and of all else but the objective, told for itself."""
    keep = [{k: v for k, v in run.recipe.items() if k not in ("objective", "format", "training")} for run in runs]
    return shared([run.recipe["training"] for run in runs]), shared(keep)


def objective_settings(runs: Sequence[RunRecord]) -> str:
    """The options of one entry's objective as ``name = value`` pairs."""
    told = shared([run.recipe["objective"] for run in runs])
    return ", ".join(f"{name} = {value}" for name, value in told.items() if name != "name") or "no options"


def environment_settings(environments: Sequence[dict[str, Any]]) -> dict[str, str]:
    """What all environments say; unknown values are left out."""
    return {name: value for name, value in shared(environments).items() if value != text.MISSING}


def _told(value: Any) -> str:
    if value is None:
        return text.MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_told(part) for part in value) or text.MISSING
    return str(value)
