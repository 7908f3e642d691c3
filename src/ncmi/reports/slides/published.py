"""Which published cohort the slides of a comparison are of."""

from __future__ import annotations

import re
from typing import Literal

from ncmi.reports.slides.read_results import read_slide_table
from ncmi.reports.slides.records import SlideComparison

CohortName = Literal["camelyon17", "bracs"]
_SLIDES: dict[CohortName, str] = {"camelyon17": r"patient_\d{3}_node_\d", "bracs": r"BRACS_\d+"}
_CLASSES = frozenset({"negative", "itc", "micro", "macro"})


def cohort_of(record: SlideComparison) -> CohortName | None:
    """By the names of the slides and classes: CAMELYON-17 in four classes, BRACS in three; None for any other.

    A simulation is none of them, whatever its slides are called.

    Raises:
        ReportError: if the slides of the first run cannot be read.
    """
    if record.simulation or not record.runs:
        return None
    classes = {name.lower() for name in record.class_names}
    slides = read_slide_table(record.runs[0]).slides
    for cohort, pattern in _SLIDES.items():
        fits = classes == _CLASSES if cohort == "camelyon17" else len(classes) == 3
        if fits and slides and all(re.fullmatch(pattern, slide) for slide in slides):
            return cohort
    return None
