"""What a trained slide classifier comes to: metrics by read-out, a table of all slides, attention of some."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ncmi.calibration import negative_log_likelihood
from ncmi.files import write_atomically
from ncmi.slides.bag import Bag
from ncmi.slides.cohort import Cohort
from ncmi.slides.metrics import slide_metrics
from ncmi.slides.model import SlideModel
from ncmi.training.evaluate import Features, fit_cc_and_lp, information
from ncmi.training.session import write_arrays

READOUTS = ("head", "cc", "lp")
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SlideOutcome:
    """How the read-outs decide.

    Attributes:
        metrics: by read-out and part ("validation", "test"), see :func:`ncmi.slides.metrics.slide_metrics`, and "nll".
        probabilities: by read-out and part ("train" too), ``[n, C]``.
        distances: by part, KL(P‖S_c) in nats to the classes' mean distributions over the training part, ``[n, C]``.
        information: CMI, Γ and NCMI of the test part.
    """

    metrics: dict[str, dict[str, Any]]
    probabilities: dict[str, dict[str, Floats]]
    distances: dict[str, Floats]
    information: dict[str, float]


@torch.no_grad()
def slide_results(
    model: SlideModel, parts: dict[str, Features], indices: dict[str, Tensor], cohort: Cohort
) -> SlideOutcome:
    """Fit CC and LP to ``parts["train"]``, and judge the read-outs on the other parts.

    Args:
        model: trained, in evaluation mode; its read-outs are fitted.
        parts: bag vectors and labels of "train", "validation" (if any) and "test".
        indices: of each part's slides in the cohort.
        cohort: for names and patients.
    """
    fit_cc_and_lp(model, parts["train"])
    probabilities: dict[str, dict[str, Floats]] = {}
    metrics: dict[str, dict[str, Any]] = {}
    for readout in READOUTS:
        log_p = {name: model.log_proba(part.features, readout).double().cpu() for name, part in parts.items()}
        probabilities[readout] = {name: value.exp().numpy() for name, value in log_p.items()}
        metrics[readout] = {}
        for name in ("validation", "test"):
            if name in parts:
                labels = parts[name].labels.cpu()
                patients = [cohort.slides[index].patient for index in indices[name].tolist()]
                judged = slide_metrics(labels.numpy(), probabilities[readout][name], patients, cohort.class_names)
                metrics[readout][name] = judged | {"nll": negative_log_likelihood(log_p[name], labels)}
    distances = {name: model.cc.divergences(part.features).double().cpu().numpy() for name, part in parts.items()}
    return SlideOutcome(metrics, probabilities, distances, information(model, parts["test"]))


def write_slide_table(path: Path, found: SlideOutcome, indices: dict[str, Tensor], cohort: Cohort) -> None:
    """Write slides.csv: a line for each slide of each part, with every read-out's probabilities and the distances."""
    classes = cohort.class_names
    heading = ["slide", "patient", "part", "label", "instances"]
    heading += [f"{readout}:{name}" for readout in READOUTS for name in classes]
    heading += [f"distance:{name}" for name in classes]

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(heading)
            for part, chosen in indices.items():
                for row, index in enumerate(chosen.tolist()):
                    slide = cohort.slides[index]
                    values = [found.probabilities[readout][part][row] for readout in READOUTS]
                    numbers = np.concatenate([*values, found.distances[part][row]])
                    about = [slide.name, slide.patient, part, classes[int(cohort.labels[index])]]
                    count = cohort.source.shape(slide.name)[0]
                    # nine digits: what is judged from this file is judged as it was in single precision
                    writer.writerow([*about, count, *(f"{number:.9g}" for number in numbers.tolist())])

    write_atomically(path, write)


def write_attention(
    folder: Path, model: SlideModel, found: SlideOutcome, test: Tensor, cohort: Cohort, most: int
) -> None:
    """Write the attention over some test slides, one file each; see :func:`chosen_slides`."""
    if most == 0:
        return
    labels = cohort.labels[test.cpu()].numpy()
    folder.mkdir(exist_ok=True)
    for row in chosen_slides(labels, found.probabilities[model.objective.readouts[0]]["test"], most):
        bag = cohort.source.load(cohort.slides[int(test[row])].name)
        arrays: dict[str, Any] = {"attention": attention_over(model, bag)}
        if bag.coords is not None:
            arrays["coords"] = bag.coords.numpy()
        if bag.patch_size is not None:
            arrays["patch_size"] = np.int64(bag.patch_size)
        write_arrays(folder / f"{bag.name}.npz", arrays)


@torch.no_grad()
def attention_over(model: SlideModel, bag: Bag) -> NDArray[np.float32]:
    """Attention ``[N]`` of a model in evaluation mode over a bag."""
    features = bag.features.to(next(model.backbone.parameters(), model.mean).device)
    attention: NDArray[np.float32] = model(features).attention.float().cpu().numpy()
    return attention


def chosen_slides(labels: NDArray[np.int64], probabilities: Floats, most: int) -> list[int]:
    """Rows to look at: in turn through the classes the surest right slide, then the surest wrong one, and so on."""
    decided = probabilities.argmax(1)
    sure = probabilities.max(1)
    queues = []
    for right in (True, False):
        for one in np.unique(labels):
            rows = np.flatnonzero((labels == one) & ((decided == labels) == right))
            queues.append(rows[np.argsort(-sure[rows], kind="stable")].tolist())
    chosen: list[int] = []
    while len(chosen) < most and any(queues):
        for queue in queues:
            if queue and len(chosen) < most:
                chosen.append(queue.pop(0))
    return chosen
