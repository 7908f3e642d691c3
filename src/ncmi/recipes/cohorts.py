"""The cohorts of slides that the paper reports on (2601.02543, Table III), split as published."""

from pathlib import Path
from typing import Any

from ncmi.recipes.data import BagData

COHORT_TITLES: dict[str, str] = {"camelyon17": "CAMELYON-17", "bracs": "BRACS"}
_SPLITS: dict[str, dict[str, Any]] = {
    "camelyon17": {
        "label_column": "label",
        "classes": ("negative", "itc", "micro", "macro"),
        "holdout_column": "center",
        "holdout": ("3", "4"),
    },
    "bracs": {
        "label_column": "label_coarse",
        "classes": ("BT", "AT", "MT"),
        "split_column": "split",
        "patient_overlap": "drop",
    },
}


def cohort_data(cohort: str, features: str | Path, labels: str | Path) -> BagData:
    """Features and labels of a cohort, split as published.

    CAMELYON-17: four classes, test on centers 3 and 4, validation on 15 % of the other centers' patients. BRACS: three
    coarse classes, the official split; of patients on two sides the slides outside the test part are left out.

    Args:
        cohort: "camelyon17" or "bracs".
        features: of the slides, in any layout.
        labels: CSV with the columns slide_id, patient_id, center, label; or slide_id, patient_id, split, label_coarse.

    Raises:
        ValueError: for another cohort.
    """
    if cohort not in _SPLITS:
        raise ValueError(f"unknown cohort {cohort!r}; known: {', '.join(_SPLITS)}")
    return BagData(
        str(features), labels=str(labels), slide_column="slide_id", patient_column="patient_id", **_SPLITS[cohort]
    )
