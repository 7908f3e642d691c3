"""What the paper printed for slides, to stand beside what is measured on the real cohorts and nowhere else.

Source: arXiv 2601.02543, Table III: macro F1 and macro AUC, one value without a spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SOURCE = "arXiv 2601.02543, Table III"
TITLES: Mapping[str, str] = {"camelyon17": "CAMELYON-17", "bracs": "BRACS"}


@dataclass(frozen=True)
class Published:
    """One printed cell: macro F1 and macro AUC."""

    f1: float
    auc: float


# network: cross-entropy, then NCMI by linear probe
_TABLE_3: Mapping[str, Mapping[str, tuple[Published, Published]]] = {
    "camelyon17": {
        "abmil": (Published(0.522, 0.853), Published(0.567, 0.892)),
        "transmil": (Published(0.554, 0.792), Published(0.582, 0.853)),
        "aem": (Published(0.647, 0.887), Published(0.663, 0.907)),
        "asmil": (Published(0.689, 0.898), Published(0.710, 0.914)),
    },
    "bracs": {
        "abmil": (Published(0.680, 0.866), Published(0.701, 0.872)),
        "transmil": (Published(0.631, 0.841), Published(0.662, 0.878)),
        "aem": (Published(0.742, 0.905), Published(0.779, 0.918)),
        "asmil": (Published(0.781, 0.914), Published(0.824, 0.936)),
    },
}
_PLACES = {("cross_entropy", "head"): 0, ("ncmi", "lp"): 1}


def published(
    cohort: Literal["camelyon17", "bracs"] | None,
    network: str,
    objective: str,
    readout: str,
    *,
    simulation: bool = False,
) -> Published | None:
    """The paper's cell, or None where it printed none, the cohort is another, or the slides are simulated.

    >>> published("bracs", "asmil", "ncmi", "lp")
    Published(f1=0.824, auc=0.936)
    >>> published("bracs", "asmil", "ncmi", "cc"), published("bracs", "asmil", "ncmi", "lp", simulation=True)
    (None, None)
    """
    place = _PLACES.get((objective, readout))
    if cohort is None or place is None or simulation or network not in _TABLE_3[cohort]:
        return None
    return _TABLE_3[cohort][network][place]
