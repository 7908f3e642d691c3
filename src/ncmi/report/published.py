"""What the paper printed, to stand beside what was measured here and never to be mixed with it.

Source: arXiv 2601.02543, one value each without a spread. Tables I and V: test accuracy on CIFAR-100 in percent; in
Table I the rows of Squentropy and SquareLoss are the same for three networks. Table III: macro F1 and macro AUC on
CAMELYON-17 and BRACS, with the paper's features, split and form of NCMI.
"""

import re
from collections.abc import Mapping
from typing import Any

from ncmi.report.records import Comparison, EntryRuns

SOURCE, SOURCE_OF_BAGS = "arXiv 2601.02543, Tables I and V", "arXiv 2601.02543, Table III"

_NETWORKS = ("resnet18", "resnet34", "resnet50", "resnet101")
_TABLE_1: Mapping[tuple[str, str], tuple[float, float, float, float]] = {
    ("cross_entropy", "head"): (75.44, 76.42, 76.96, 77.39),
    ("label_smoothing", "head"): (75.92, 76.77, 77.06, 77.37),
    ("anticlass", "head"): (76.28, 76.31, 76.30, 76.69),
    ("squentropy", "head"): (75.71, 76.62, 77.15, 77.74),
    ("square", "head"): (75.10, 76.62, 77.15, 77.74),
    ("poly", "head"): (75.59, 76.87, 76.46, 77.77),
    ("supcon", "lp"): (73.00, 74.53, 74.88, 75.77),
    ("focal", "head"): (76.34, 76.62, 77.32, 77.76),
    ("ncmi", "cc"): (76.45, 76.97, 77.50, 77.81),
    ("ncmi", "lp"): (76.94, 77.34, 77.76, 78.23),
}
# of ResNet-18 by centroid comparison: (output map, whether features are centered)
_TABLE_5 = {("nsf", True): 76.45, ("nsf", False): 74.9, ("softmax", True): 1.72, ("softmax", False): 5.64}
# cohort, network: macro F1 and macro AUC of cross-entropy by its head, then of NCMI by linear probe
_TABLE_3: Mapping[tuple[str, str], tuple[tuple[float, float], tuple[float, float]]] = {
    ("camelyon17", "abmil"): ((0.522, 0.853), (0.567, 0.892)),
    ("camelyon17", "transmil"): ((0.554, 0.792), (0.582, 0.853)),
    ("camelyon17", "aem"): ((0.647, 0.887), (0.663, 0.907)),
    ("camelyon17", "asmil"): ((0.689, 0.898), (0.710, 0.914)),
    ("bracs", "abmil"): ((0.680, 0.866), (0.701, 0.872)),
    ("bracs", "transmil"): ((0.631, 0.841), (0.662, 0.878)),
    ("bracs", "aem"): ((0.742, 0.905), (0.779, 0.918)),
    ("bracs", "asmil"): ((0.781, 0.914), (0.824, 0.936)),
}
_SLIDES = {"camelyon17": r"patient_\d{3}_node_\d", "bracs": r"BRACS_\d+"}
_CAMELYON_CLASSES = frozenset({"negative", "itc", "micro", "macro"})


def published_accuracy(network: str, objective: dict[str, Any], readout: str) -> float | None:
    """The paper's test accuracy on CIFAR-100 in percent, or None where it printed none.

    ``objective`` holds the options as in a recipe. NCMI counts as the paper's only with p = 1: the paper knows no other
    power of the separation.

    >>> published_accuracy("resnet18", {"name": "focal"}, "head")
    76.34
    """
    name = str(objective.get("name"))
    if network not in _NETWORKS or (name == "ncmi" and objective.get("separation_power") != 1.0):
        return None
    cell = (str(objective.get("distribution")), objective.get("center") != "none")
    if name == "ncmi" and cell != ("nsf", True):
        return _TABLE_5.get(cell) if network == "resnet18" and readout == "cc" else None
    row = _TABLE_1.get((name, readout))
    return None if row is None else row[_NETWORKS.index(network)]


def published_bags(cohort: str | None, network: str, objective: str, readout: str) -> tuple[float, ...]:
    """The paper's macro F1 and macro AUC on slides; nothing where it printed none or the cohort is another.

    >>> published_bags("bracs", "asmil", "ncmi", "lp"), published_bags("bracs", "asmil", "ncmi", "cc")
    ((0.824, 0.936), ())
    """
    place = {("cross_entropy", "head"): 0, ("ncmi", "lp"): 1}.get((objective, readout))
    row = _TABLE_3.get((cohort or "", network))
    return () if place is None or row is None else row[place]


def published_scores(entry: EntryRuns, readout: str, cohort: str | None, *, cifar: bool) -> dict[str, float]:
    """The paper's scores of an entry in 0 … 1: on CIFAR-100 as published, or of bags of a published cohort."""
    accuracy = published_accuracy(entry.network, entry.runs[0].recipe["objective"], readout) if cifar else None
    cells = published_bags(cohort, entry.network, entry.objective, readout)
    scores = dict(zip(("macro_f1", "macro_auc"), cells, strict=False))
    return scores if accuracy is None else {"accuracy": accuracy / 100}


def cohort_of(record: Comparison) -> str | None:
    """The published cohort of a comparison, by the names of its slides and classes; None for any other.

    A simulation is none of them, whatever its slides are called.

    Raises:
        ReportError: if the outputs of the first run cannot be read.
    """
    if record.kind != "bags" or record.simulation or not record.runs:
        return None
    classes = {name.lower() for name in record.class_names}
    slides = record.runs[0].outputs().names
    for cohort, pattern in _SLIDES.items():
        fits = classes == _CAMELYON_CLASSES if cohort == "camelyon17" else len(classes) == 3
        if fits and slides and all(re.fullmatch(pattern, slide) for slide in slides):
            return cohort
    return None
