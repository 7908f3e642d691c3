"""What the paper printed, to stand beside what was measured here and never to be mixed with it.

Source: arXiv 2601.02543, one value each without a spread. Tables I and V: test accuracy on CIFAR-100 in percent; in
Table I the rows of Squentropy and SquareLoss are the same for three networks. Table II: top-1 accuracy on ImageNet.
Table III: macro F1 and macro AUC on CAMELYON-17 and BRACS, with the paper's features, split and form of NCMI. Table IV:
time and memory of an epoch of ImageNet.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from ncmi.report.records import Comparison, EntryRuns

SOURCE, SOURCE_OF_BAGS = "arXiv 2601.02543, Tables I and V", "arXiv 2601.02543, Table III"
SOURCE_OF_IMAGENET, SOURCE_OF_COST = "arXiv 2601.02543, Table II", "arXiv 2601.02543, Table IV"
Images = Literal["cifar100", "imagenet"]
"""The sets of images that the paper printed accuracies of."""

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
_LARGE_NETWORKS = ("resnet50", "resnet101")
_TABLE_2: Mapping[tuple[str, str], tuple[float | None, float | None]] = {
    ("cross_entropy", "head"): (76.24, 78.42),
    ("label_smoothing", "head"): (78.37, 79.10),
    ("focal", "head"): (78.11, 79.75),
    ("supcon", "lp"): (63.78, None),
    ("ncmi", "cc"): (79.01, 79.97),
    ("ncmi", "lp"): (78.92, 79.83),
}
# seconds and GB of an epoch of ResNet-50 with batches of 1024 on eight A5000
_TABLE_4 = {"cross_entropy": (399, 102), "focal": (402, 105), "supcon": (592, 180), "ncmi": (404, 108)}
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


def published_accuracy(
    network: str, objective: dict[str, Any], readout: str, images: Images = "cifar100"
) -> float | None:
    """The paper's test accuracy in percent, or None where it printed none.

    ``objective`` holds the options as in a recipe. NCMI counts as the paper's only with p = 1: the paper knows no other
    power of the separation.

    >>> published_accuracy("resnet18", {"name": "focal"}, "head")
    76.34
    >>> published_accuracy("resnet101", {"name": "focal"}, "head", "imagenet")
    79.75
    """
    name = str(objective.get("name"))
    networks = _NETWORKS if images == "cifar100" else _LARGE_NETWORKS
    if network not in networks or (name == "ncmi" and not _is_papers(objective)):
        return None
    cell = (str(objective.get("distribution")), objective.get("center") != "none")
    if name == "ncmi" and cell != ("nsf", True):
        is_ablation = images == "cifar100" and network == "resnet18" and readout == "cc"
        return _TABLE_5.get(cell) if is_ablation else None
    row = (_TABLE_1 if images == "cifar100" else _TABLE_2).get((name, readout))
    return None if row is None else row[networks.index(network)]


def published_cost(objective: dict[str, Any]) -> tuple[float, float] | None:
    """Time and memory of a loss over those of cross-entropy, as the paper printed them for ResNet-50 on ImageNet.

    >>> [round(ratio, 3) for ratio in published_cost({"name": "supcon"})]
    [1.484, 1.765]
    """
    name = str(objective.get("name"))
    if name not in _TABLE_4 or (name == "ncmi" and not _is_papers(objective)):
        return None
    return tuple(own / base for own, base in zip(_TABLE_4[name], _TABLE_4["cross_entropy"], strict=True))  # type: ignore[return-value]


def _is_papers(objective: dict[str, Any]) -> bool:
    return objective.get("separation_power") == 1.0


def published_bags(cohort: str | None, network: str, objective: str, readout: str) -> tuple[float, ...]:
    """The paper's macro F1 and macro AUC on slides; nothing where it printed none or the cohort is another.

    >>> published_bags("bracs", "asmil", "ncmi", "lp"), published_bags("bracs", "asmil", "ncmi", "cc")
    ((0.824, 0.936), ())
    """
    place = {("cross_entropy", "head"): 0, ("ncmi", "lp"): 1}.get((objective, readout))
    row = _TABLE_3.get((cohort or "", network))
    return () if place is None or row is None else row[place]


def published_scores(entry: EntryRuns, readout: str, cohort: str | None, images: Images | None) -> dict[str, float]:
    """The paper's scores of an entry in 0 … 1: on images as published, or of bags of a published cohort."""
    objective = entry.runs[0].recipe["objective"]
    accuracy = None if images is None else published_accuracy(entry.network, objective, readout, images)
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
