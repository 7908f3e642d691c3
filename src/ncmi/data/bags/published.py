"""The tables of CAMELYON-17's and BRACS' slides as they are published, brought to the columns that Table III needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ncmi.data.bags.labels import LabelError, patients_by_name, read_text_frame, slide_name
from ncmi.data.columns import PATIENT_COLUMNS, SLIDE_COLUMNS, called_like
from ncmi.errors import listing
from ncmi.files import write_text

if TYPE_CHECKING:
    import pandas as pd

CAMELYON_CLASSES = ("negative", "itc", "micro", "macro")
BRACS_COARSE = {"N": "BT", "PB": "BT", "UDH": "BT", "FEA": "AT", "ADH": "AT", "DCIS": "MT", "IC": "MT"}
"""The three coarse classes of the seven lesions: benign, atypical, malignant; in the order of AEM's numbers, 0 … 6."""
_BRACS_NAMES = {"BENIGN": "BT", "ATYPICAL": "AT", "MALIGNANT": "MT", "BT": "BT", "AT": "AT", "MT": "MT"}
_BRACS_PARTS = {"training": "train", "validation": "val", "testing": "test"}
_LABELS = ("label", "stage", "wsi_label", "class", "target", "label_fine", "label_coarse")
_NODES_OF_A_CENTER = 20  # patients: CAMELYON-17 numbers them center by center
_NODE = re.compile(r"patient_(\d{3})_node_\d", re.IGNORECASE)


def write_canonical(cohort: str, table: Path, folder: Path) -> Path:
    """The table of a cohort with the columns that Table III is made by: itself, or one that is written to ``folder``.

    CAMELYON-17 needs slide_id, patient_id, center, label; its own ``stages.csv`` (patient, stage: a row a patient and
    a row a node), and tables of slides with classes by name or number (0 … 3), with or without patients and centers,
    are brought to that. BRACS needs slide_id, patient_id, split, label_coarse; its own table (WSI Filename, Patient Id,
    WSI label, Set) has seven lesions, which become three classes; AEM's has them by number, and split_info.

    Raises:
        LabelError: for a table that does not say what is needed.
    """
    frame = read_text_frame(table)
    wanted = ("slide_id", "patient_id", *(("center", "label") if cohort == "camelyon17" else ("split", "label_coarse")))
    classes = CAMELYON_CLASSES if cohort == "camelyon17" else tuple(BRACS_COARSE.values())
    if set(wanted) <= set(frame.columns) and set(frame[wanted[-1]]) <= {*classes, ""}:
        return table
    columns = _CONVERTERS[cohort](frame, table)
    rows = zip(*(columns[name] for name in wanted), strict=True)
    path = folder / f"{cohort}.csv"
    write_text(path, "\n".join([",".join(wanted), *(",".join(row) for row in rows)]) + "\n")
    return path


def _column(frame: pd.DataFrame, usual: tuple[str, ...]) -> list[str] | None:
    names = called_like(frame.columns, usual)
    return list(frame[names[0]]) if names else None


def _needed(frame: pd.DataFrame, path: Path, what: str, usual: tuple[str, ...]) -> list[str]:
    if (values := _column(frame, usual)) is None:
        raise LabelError(f"{path}: no column of {what}, there is {listing(list(frame.columns))}: give one")
    return values


def _camelyon17(frame: pd.DataFrame, path: Path) -> dict[str, list[str]]:
    texts = _column(frame, SLIDE_COLUMNS) or _needed(frame, path, "slides", PATIENT_COLUMNS)
    # stages.csv has a row of each patient as well: patient_000.zip with pN0
    frame = frame[[bool(_NODE.search(text)) for text in texts]]
    slides = [slide_name(text) for text in texts if _NODE.search(text)]
    if not slides:
        raise LabelError(f"{path}: no slide patient_NNN_node_N, as CAMELYON-17 names them: give its table")
    labels = _needed(frame, path, "labels", _LABELS)
    if all(label in ("0", "1", "2", "3") for label in labels):
        labels = [CAMELYON_CLASSES[int(label)] for label in labels]
    labels = [label.lower().removesuffix("-metastases").strip() for label in labels]
    if unknown := sorted(set(labels) - {*CAMELYON_CLASSES, ""}):
        raise LabelError(f"{path}: unknown label {listing(unknown)}: give {', '.join(CAMELYON_CLASSES)}, or 0 to 3")
    centers = _column(frame, ("center", "centre", "medical_center"))
    numbers = [int(match[1]) if (match := _NODE.search(slide)) else 0 for slide in slides]
    by_number = [str(number // _NODES_OF_A_CENTER) for number in numbers]
    return {
        "slide_id": slides,
        "patient_id": list(patients_by_name(slides)[0]),
        "center": centers or by_number,
        "label": labels,
    }


def _bracs(frame: pd.DataFrame, path: Path) -> dict[str, list[str]]:
    slides = [slide_name(text) for text in _needed(frame, path, "slides", SLIDE_COLUMNS)]
    labels = _column(frame, ("label_coarse",)) or _needed(frame, path, "labels", _LABELS)
    names = ("BT", "AT", "MT") if all(label in ("0", "1", "2") for label in labels) else tuple(BRACS_COARSE)
    if all(label in map(str, range(len(names))) for label in labels):
        labels = [names[int(label)] for label in labels]
    coarse = [BRACS_COARSE.get(label.upper(), _BRACS_NAMES.get(label.upper(), label)) for label in labels]
    if unknown := sorted(set(coarse) - set(_BRACS_NAMES.values())):
        raise LabelError(f"{path}: unknown label {listing(unknown)}: give {', '.join(BRACS_COARSE)}, or BT, AT, MT")
    parts = _needed(frame, path, "parts (Set: Training, Validation, Testing)", ("set", "split", "part", "split_info"))
    return {
        "slide_id": slides,
        "patient_id": _needed(frame, path, "patients", PATIENT_COLUMNS),
        "split": [_BRACS_PARTS.get(part.lower(), part.lower()) for part in parts],
        "label_coarse": coarse,
    }


_CONVERTERS: Mapping[str, Callable[[pd.DataFrame, Path], dict[str, list[str]]]] = {
    "camelyon17": _camelyon17,
    "bracs": _bracs,
}
