"""How far a run has come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Progress:
    """The part of a run's state that is neither a weight nor an optimiser's."""

    epoch: int = 0  # epochs finished
    step: int = 0  # steps finished in the present epoch
    total_steps: int = 0
    epoch_seconds: float = 0.0  # spent in the present epoch before the last stop
    best: list[float] = field(default_factory=list)  # compared item by item; more is better
    best_epoch: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
