"""Confidence against accuracy, as run folders hold it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ncmi.reports.files import JsonObject, ReportError

STATES = ("test", "calibrated")


@dataclass(frozen=True)
class Bins:
    """Test samples in bins of equal width by their confidence; mean confidence and accuracy, NaN in an empty bin."""

    counts: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]


def read_reliability(results: JsonObject) -> dict[str, dict[str, Bins]]:
    """For each read-out its bins as trained (``"test"``) and after division by τ (``"calibrated"``), where it has them.

    Of a run of an earlier version nothing.

    Raises:
        ReportError: if lists are missing, mistyped, empty, of different length, or hold other than counts and shares.
    """
    if "reliability" not in results.content:
        return {}
    section = results.child("reliability")
    return {
        name: {state: _bins(section.child(name).child(state)) for state in STATES if state in found}
        for name, found in section.content.items()
        if isinstance(found, dict)
    }


def _bins(found: JsonObject) -> Bins:
    counts, *shares = (found.items(key) for key in ("counts", "confidence", "accuracy"))
    whole = all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in counts)
    numbers = all(
        (share is None) == (count == 0) and (share is None or (isinstance(share, int | float) and 0 <= share <= 1))
        for values in shares
        for count, share in zip(counts, values, strict=False)
    )
    if not counts or not whole or not numbers or any(len(values) != len(counts) for values in shares):
        raise ReportError(f"{found.path}: {found.place[:-1]!r} holds no bins: restore the file or run it again")
    confidence, accuracy = (tuple(math.nan if one is None else float(one) for one in values) for values in shares)
    return Bins(tuple(counts), confidence, accuracy)
