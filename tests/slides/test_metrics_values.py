"""Metrics of slides against scikit-learn and torchmetrics in float64, and what they say where one is undefined."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    recall_score,
    roc_auc_score,
)
from torchmetrics.functional.classification import multiclass_f1_score

from ncmi.files import finite
from ncmi.slides.metrics import slide_metrics
from ncmi.slides.weighted_scores import SCORES, weighted_auc

Array = NDArray[np.float64]
NAMES = ("negative", "itc", "micro", "macro")


def cohort(
    seed: int, slides: int = 120, classes: int = 4, *, levels: int | None = None
) -> tuple[Any, Array, list[str]]:
    """Labels with every class, probabilities that know something of them, patients; few ``levels`` make ties."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(slides) % classes)
    scores = rng.gamma(0.7, size=(slides, classes))
    scores[np.arange(slides), labels] += 0.4
    if levels:
        scores = np.ceil(scores * levels / scores.max()) + 1
    patients = [f"patient {number}" for number in rng.integers(0, slides // 4, slides)]
    return labels, scores / scores.sum(axis=1, keepdims=True), patients


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("levels", [None, 3])
def test_values_are_those_of_scikit_learn(seed: int, levels: int | None) -> None:
    labels, probabilities, patients = cohort(seed, levels=levels)
    found = slide_metrics(labels, probabilities, patients, NAMES, resamples=0)
    decided = probabilities.argmax(axis=1)
    assert found["macro_f1"]["value"] == pytest.approx(f1_score(labels, decided, average="macro"), abs=1e-12)
    assert found["auc"]["value"] == pytest.approx(
        roc_auc_score(labels, probabilities, average="macro", multi_class="ovr"), abs=1e-12
    )
    assert found["balanced_accuracy"]["value"] == pytest.approx(balanced_accuracy_score(labels, decided), abs=1e-12)
    assert found["accuracy"]["value"] == pytest.approx(accuracy_score(labels, decided), abs=1e-12)
    recall = recall_score(labels, decided, average=None)
    assert [found["recall"][name]["value"] for name in NAMES] == pytest.approx(list(recall), abs=1e-12)
    assert found["confusion"] == confusion_matrix(labels, decided).tolist()
    assert (found["slides"], found["patients"]) == (120, len(set(patients)))
    assert found["notes"] == []


def test_macro_f1_is_that_of_torchmetrics_and_not_micro_f1() -> None:
    labels, probabilities, patients = cohort(3)
    labels[labels == 3] = 0
    found = slide_metrics(labels, probabilities, patients, NAMES, resamples=0)["macro_f1"]["value"]
    reference = multiclass_f1_score(torch.tensor(probabilities), torch.tensor(labels), num_classes=4, average="macro")
    assert found == pytest.approx(float(reference), abs=1e-6)  # torchmetrics averages in float32
    decided = probabilities.argmax(axis=1)
    assert abs(found - f1_score(labels, decided, average="micro")) > 0.03


@pytest.mark.parametrize("levels", [None, 3])
def test_of_two_classes_the_ordinary_auc(levels: int | None) -> None:
    labels, probabilities, patients = cohort(1, classes=2, levels=levels)
    found = slide_metrics(labels, probabilities, patients, ("normal", "tumour"), resamples=0)
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(labels, probabilities[:, 1]), abs=1e-12)
    # the second column alone counts
    changed = probabilities.copy()
    changed[:, 0] = 0.5
    assert slide_metrics(labels, changed, patients, "ab", resamples=0)["auc"] == found["auc"]


def test_a_class_without_slides_is_left_out_with_a_note() -> None:
    labels, probabilities, patients = cohort(2)
    labels[labels == 1] = 0
    found = slide_metrics(labels, probabilities, patients, NAMES, resamples=50)
    decided = probabilities.argmax(axis=1)
    assert 1 in decided
    present = [0, 2, 3]
    one_by_one = [roc_auc_score(labels == c, probabilities[:, c]) for c in present]
    assert found["auc"]["value"] == pytest.approx(np.mean(one_by_one), abs=1e-12)
    recall = recall_score(labels, decided, average=None, labels=present)
    assert found["balanced_accuracy"]["value"] == pytest.approx(recall.mean(), abs=1e-12)
    # as in scikit-learn: the class was decided for, wrongly, so its F1 is 0
    assert found["macro_f1"]["value"] == pytest.approx(f1_score(labels, decided, average="macro"), abs=1e-12)
    assert math.isnan(found["recall"]["itc"]["value"])
    assert math.isnan(found["recall"]["itc"]["low"])
    assert found["notes"] == ["No slide of itc: left out of AUC, balanced accuracy and recall."]
    # where nothing is decided for it either, it takes no part
    probabilities[:, 1] = 0
    decided = probabilities.argmax(axis=1)
    again = slide_metrics(labels, probabilities, patients, NAMES, resamples=0)["macro_f1"]["value"]
    assert again == pytest.approx(np.mean(f1_score(labels, decided, average=None, labels=present)), abs=1e-12)


def test_one_class_alone_has_no_auc() -> None:
    probabilities = np.array([[0.9, 0.1], [0.3, 0.7], [0.8, 0.2]])
    found = slide_metrics([0, 0, 0], probabilities, ["a", "b", "c"], ("normal", "tumour"), resamples=20)
    assert math.isnan(found["auc"]["value"])
    assert math.isnan(found["auc"]["high"])
    assert found["accuracy"]["value"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"]["value"] == pytest.approx(2 / 3)
    assert found["notes"] == ["Only one class occurs (none of tumour): AUC is not defined."]
    json.dumps(finite(found), allow_nan=False)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3)), min_size=2, max_size=25).filter(
        lambda rows: sum(w for _, p, w in rows if p) > 0 and sum(w for _, p, w in rows if not p) > 0
    )
)
def test_weighted_auc_counts_pairs(rows: list[tuple[int, bool, int]]) -> None:
    scores, positive, weights = (np.array(column) for column in zip(*rows, strict=True))
    wins = total = 0.0
    for s, p, w in rows:
        for t, q, v in rows:
            if p and not q:
                wins += w * v * (1.0 if s > t else 0.5 if s == t else 0.0)
                total += w * v
    found = weighted_auc(scores.astype(float), positive, weights[None].astype(float))
    assert found == pytest.approx([wins / total], abs=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = roc_auc_score(positive, scores, sample_weight=weights)
    assert found == pytest.approx([reference], abs=1e-12)


@given(st.integers(0, 1000))
def test_auc_only_knows_order_and_renaming_classes_changes_no_mean(seed: int) -> None:
    labels, probabilities, patients = cohort(seed, slides=40, levels=4)
    found = slide_metrics(labels, probabilities, patients, NAMES, resamples=0)
    assert slide_metrics(labels, np.exp(3 * probabilities), patients, NAMES, resamples=0) == found
    order = np.array([2, 0, 3, 1])
    # ties between classes go to the first class, so columns are kept apart before they change places
    apart = probabilities + 1e-6 * np.arange(4)
    first = slide_metrics(labels, apart, patients, NAMES, resamples=0)
    renamed = slide_metrics(order[labels], apart[:, np.argsort(order)], patients, NAMES, resamples=0)
    for name in SCORES:
        assert renamed[name]["value"] == pytest.approx(first[name]["value"], abs=1e-12)


def test_a_perfect_model_scores_one_everywhere() -> None:
    labels = np.arange(20) % 4
    found = slide_metrics(labels, np.eye(4)[labels], list(range(20)), NAMES, resamples=100)
    for name in SCORES:
        assert found[name] == {"value": 1.0, "low": 1.0, "high": 1.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 1, 4]}, r"labels run from 0 to 4, but there are 3 classes: check the labels"),
        ({"labels": [0, -1, 2]}, r"labels run from -1 to 2"),
        ({"labels": [0.0, 1.0, 2.0]}, r"labels are float64: give the classes' numbers as integers"),
        ({"labels": [0, 1]}, r"labels of shape \(2,\), 3 patients and probabilities of 3 slides: give one label"),
        ({"patients": ["a"]}, r"1 patients and probabilities of 3 slides"),
        ({"class_names": "ab"}, r"2 class names, but probabilities of 3 classes: give a name for each column"),
        ({"probabilities": [[0.2, math.nan, 0.8]] * 3}, r"not all finite: check the model"),
        ({"probabilities": [0.2, 0.8]}, r"probabilities of shape \(2,\): give \[n, C\]"),
        ({"probabilities": [[1.0]] * 3}, r"with C of at least 2"),
    ],
)
def test_what_does_not_belong_together_is_refused(change: dict[str, Any], message: str) -> None:
    given_: dict[str, Any] = {
        "labels": [0, 1, 2],
        "probabilities": np.eye(3),
        "patients": ["a", "b", "c"],
        "class_names": "xyz",
    }
    with pytest.raises(ValueError, match=message):
        slide_metrics(**(given_ | change))
