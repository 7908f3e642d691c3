"""What became of slides that were to be embedded."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ncmi.files import write_text


@dataclass(frozen=True)
class EmbedResult:
    """What became of a slide.

    Attributes:
        slide: its name.
        status: "embedded"; "no patches" (nothing to embed) or "failed": neither has a features file of this call.
        patches: how many features the file has.
        reason: why there is none.
        made: made by this call; False where an earlier one had made it.
        seconds: that it took.
    """

    slide: str
    status: Literal["embedded", "no patches", "failed"]
    patches: int = 0
    reason: str = ""
    made: bool = True
    seconds: float = 0.0


def write_summary(path: Path, results: Iterable[EmbedResult]) -> None:
    """Write one line a slide: slide, status, patches, reason."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["slide", "status", "patches", "reason"])
    writer.writerows([result.slide, result.status, result.patches, result.reason] for result in results)
    write_text(path, table.getvalue())
