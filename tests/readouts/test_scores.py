"""Scores of decisions against scikit-learn in float64, and what they say where one is undefined."""

from __future__ import annotations

import math
import subprocess
import sys
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
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
    top_k_accuracy_score,
)
from sklearn.metrics import confusion_matrix as reference_confusion

from ncmi.readouts.scores import INTERVAL_METRICS, Estimate, Scores, confusion_matrix, judge, weighted_auc

Array = NDArray[np.float64]
NAMES = ("negative", "itc", "micro", "macro")


def scores_of(labels: Any, probabilities: Any, groups: Any = None, names: Any = NAMES, **options: Any) -> Scores:
    """Of probabilities, which may be 0, and need not sum to one where only their order is looked at."""
    with np.errstate(divide="ignore"):
        return judge(np.log(probabilities), labels, names, groups=groups, **options)


def cohort(
    seed: int, samples: int = 120, classes: int = 4, *, levels: int | None = None
) -> tuple[Any, Array, list[str]]:
    """Labels with every class, probabilities that know something of them, patients; few ``levels`` make ties."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(samples) % classes)
    scores = rng.gamma(0.7, size=(samples, classes))
    scores[np.arange(samples), labels] += 0.4
    if levels:
        scores = np.ceil(scores * levels / scores.max()) + 1
    groups = [f"patient {number}" for number in rng.integers(0, samples // 4, samples)]
    return labels, scores / scores.sum(axis=1, keepdims=True), groups


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("levels", [None, 3])
def test_values_are_those_of_scikit_learn(seed: int, levels: int | None) -> None:
    labels, probabilities, groups = cohort(seed, levels=levels)
    scores = scores_of(labels, probabilities, groups, resamples=0)
    decided = probabilities.argmax(axis=1)
    assert scores.macro_f1.value == pytest.approx(f1_score(labels, decided, average="macro"), abs=1e-12)
    assert scores.macro_auc.value == pytest.approx(
        roc_auc_score(labels, probabilities, average="macro", multi_class="ovr"), abs=1e-12
    )
    assert scores.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(labels, decided), abs=1e-12)
    assert scores.accuracy.value == pytest.approx(accuracy_score(labels, decided), abs=1e-12)
    assert scores.nll == pytest.approx(log_loss(labels, probabilities), rel=1e-12)
    assert [one.name for one in scores.classes] == list(NAMES)
    for value, reference in (
        ([one.recall.value for one in scores.classes], recall_score(labels, decided, average=None)),
        ([one.precision for one in scores.classes], precision_score(labels, decided, average=None)),
        ([one.f1 for one in scores.classes], f1_score(labels, decided, average=None)),
        ([one.support for one in scores.classes], np.bincount(labels)),
    ):
        assert value == pytest.approx(list(reference), abs=1e-12)
    np.testing.assert_array_equal(confusion_matrix(labels, decided, 4), reference_confusion(labels, decided))
    assert (scores.samples, scores.groups, scores.resamples) == (120, len(set(groups)), 0)
    assert scores.notes == []
    # without groups the same values, and no interval however many resamples are asked for
    alone = scores_of(labels, probabilities)
    assert (alone.groups, alone.resamples, alone.top5_accuracy) == (None, 0, None)
    assert all(getattr(alone, name) == getattr(scores, name) for name in INTERVAL_METRICS)
    assert scores_of(labels, probabilities, per_class=False).classes == []


def test_many_samples_of_many_classes() -> None:
    """N = 10,000 and C = 100, from tensors; nothing of the size N×C² is made."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(10_000, 100, generator=generator)
    labels = torch.multinomial((2 * logits).softmax(1), 1, generator=generator).squeeze(1)
    log_p = logits.log_softmax(1)
    scores = judge(log_p, labels, [str(c) for c in range(100)])
    p, y, decided = log_p.exp().double().numpy(), labels.numpy(), logits.argmax(1).numpy()
    assert scores.accuracy.value == pytest.approx(accuracy_score(y, decided), abs=1e-12)
    assert scores.macro_f1.value == pytest.approx(f1_score(y, decided, average="macro"), abs=1e-12)
    assert scores.macro_auc.value == pytest.approx(
        np.mean([roc_auc_score(y == c, log_p[:, c]) for c in range(100)]), abs=1e-12
    )
    assert scores.top5_accuracy == pytest.approx(top_k_accuracy_score(y, p, k=5), abs=1e-12)


def test_of_equal_scores_five_count_and_no_more() -> None:
    """As with votes of few neighbors: most classes have none, and are not all among the five highest."""
    log_p = torch.full((12, 12), -50.0, dtype=torch.float64)
    log_p[:, 7] = 0.0
    scores = judge(log_p, torch.arange(12), [str(c) for c in range(12)])
    assert scores.top5_accuracy == pytest.approx(5 / 12)  # classes 7 and 0 to 3


def test_macro_f1_leaves_out_what_does_not_occur_and_is_not_micro_f1() -> None:
    labels, probabilities, groups = cohort(3)
    labels[labels == 3] = 0
    value = scores_of(labels, probabilities, groups, resamples=0).macro_f1.value
    decided = probabilities.argmax(axis=1)
    f1 = [2 * ((labels == c) & (decided == c)).sum() / ((labels == c).sum() + (decided == c).sum()) for c in range(4)]
    assert value == pytest.approx(np.mean(f1), abs=1e-12)
    assert abs(value - f1_score(labels, decided, average="micro")) > 0.03


@pytest.mark.parametrize("levels", [None, 3])
def test_of_two_classes_the_ordinary_auc(levels: int | None) -> None:
    labels, probabilities, groups = cohort(1, classes=2, levels=levels)
    scores = scores_of(labels, probabilities, groups, ("normal", "tumor"), resamples=0)
    assert scores.macro_auc.value == pytest.approx(roc_auc_score(labels, probabilities[:, 1]), abs=1e-12)
    # the second column alone counts
    changed = probabilities.copy()
    changed[:, 0] = 0.5
    assert scores_of(labels, changed, groups, "ab", resamples=0).macro_auc == scores.macro_auc


def test_a_class_without_samples_is_left_out_with_a_note() -> None:
    labels, probabilities, groups = cohort(2)
    labels[labels == 1] = 0
    scores = scores_of(labels, probabilities, groups, resamples=50)
    decided = probabilities.argmax(axis=1)
    assert 1 in decided
    present = [0, 2, 3]
    one_by_one = [roc_auc_score(labels == c, probabilities[:, c]) for c in present]
    assert scores.macro_auc.value == pytest.approx(np.mean(one_by_one), abs=1e-12)
    recall = recall_score(labels, decided, average=None, labels=present)
    assert scores.balanced_accuracy.value == pytest.approx(recall.mean(), abs=1e-12)
    # as in scikit-learn: the class was decided for, wrongly, so its F1 is 0
    assert scores.macro_f1.value == pytest.approx(f1_score(labels, decided, average="macro"), abs=1e-12)
    itc = scores.classes[1]
    assert (itc.name, itc.support, itc.precision, itc.recall, itc.f1) == ("itc", 0, 0.0, Estimate(value=None), 0.0)
    assert scores.notes == ["No sample of itc: left out of AUC, balanced accuracy and recall."]
    # where nothing is decided for it either, it takes no part
    probabilities[:, 1] = 0
    decided = probabilities.argmax(axis=1)
    again = scores_of(labels, probabilities, groups, resamples=0)
    assert again.macro_f1.value == pytest.approx(
        np.mean(f1_score(labels, decided, average=None, labels=present)), abs=1e-12
    )
    assert (again.classes[1].precision, again.classes[1].f1) == (None, None)


def test_one_class_alone_has_no_auc() -> None:
    probabilities = np.array([[0.9, 0.1], [0.3, 0.7], [0.8, 0.2]])
    scores = scores_of([0, 0, 0], probabilities, ["a", "b", "c"], ("normal", "tumor"), resamples=20)
    assert scores.macro_auc == Estimate(value=None)
    assert scores.accuracy.value == pytest.approx(2 / 3)
    assert scores.balanced_accuracy.value == pytest.approx(2 / 3)
    # three groups are few, and said to be
    only_one, few = scores.notes
    assert only_one == "Only one class occurs (none of tumor): AUC is not defined."
    assert few.startswith("Of normal there are fewer than 10 groups")


def test_a_label_of_probability_zero_has_no_likelihood() -> None:
    scores = scores_of([0, 1], [[1.0, 0.0], [1.0, 0.0]], names="ab")
    assert scores.nll is None
    assert scores.brier == pytest.approx(1.0)
    assert scores.calibration_error == pytest.approx(0.5)


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
    area = weighted_auc(scores.astype(float), positive, weights[None].astype(float))
    assert area == pytest.approx([wins / total], abs=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = roc_auc_score(positive, scores, sample_weight=weights)
    assert area == pytest.approx([reference], abs=1e-12)


@given(st.integers(0, 1000))
def test_auc_only_knows_order_and_renaming_classes_changes_no_mean(seed: int) -> None:
    labels, probabilities, groups = cohort(seed, samples=40, levels=4)
    first, again = (scores_of(labels, p, groups, resamples=0) for p in (probabilities, np.exp(3 * probabilities)))
    assert all(getattr(again, name) == getattr(first, name) for name in INTERVAL_METRICS)
    assert again.classes == first.classes
    order = np.array([2, 0, 3, 1])
    # ties between classes go to the first class, so columns are kept apart before they change places
    apart = probabilities + 1e-6 * np.arange(4)
    first = scores_of(labels, apart, groups, resamples=0)
    renamed = scores_of(order[labels], apart[:, np.argsort(order)], groups, resamples=0)
    for name in INTERVAL_METRICS:
        assert getattr(renamed, name).value == pytest.approx(getattr(first, name).value, abs=1e-12)


def test_a_perfect_model_scores_one_everywhere() -> None:
    """All resamples agree that it is perfect, which is no interval of width zero: the exact one, or none."""
    labels = np.arange(48) % 4
    scores = scores_of(labels, np.eye(4)[labels], list(range(48)), resamples=100)
    for name in INTERVAL_METRICS[:3]:
        assert getattr(scores, name) == Estimate(value=1.0)
    assert scores.accuracy == Estimate(value=1.0, low=pytest.approx(0.025 ** (1 / 48)), high=1.0)
    assert scores.classes[0].recall == Estimate(value=1.0, low=pytest.approx(0.025 ** (1 / 12)), high=1.0)


def test_few_groups_of_a_class_have_an_exact_interval_or_none() -> None:
    """One positive of 21 is no certainty, and neither are two patients."""
    labels = np.arange(21) // 20
    probabilities = np.where(labels[:, None] == [0, 1], 0.9, 0.1)
    scores = scores_of(labels, probabilities, list(range(21)), ("no", "yes"), resamples=100)
    assert scores.classes[1].recall == Estimate(value=1.0, low=pytest.approx(0.025), high=1.0)
    assert scores.macro_f1 == Estimate(value=1.0)
    assert any("Of yes there are fewer than 10 groups" in note for note in scores.notes)
    # two patients of three slides: slides of a patient are no independent trials
    labels, decided = np.array([0, 1, 1, 0, 1, 1]), np.array([0, 1, 0, 0, 1, 0])
    scores = scores_of(labels, np.eye(2)[decided], list("aaabbb"), ("no", "yes"), resamples=100)
    assert scores.accuracy == Estimate(value=pytest.approx(2 / 3))
    assert scores.classes[1].recall == Estimate(value=pytest.approx(0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 1, 4]}, r"labels run from 0 to 4, but there are 3 classes: check the labels"),
        ({"labels": [0, -1, 2]}, r"labels run from -1 to 2"),
        ({"labels": [0.0, 1.0, 2.0]}, r"labels are float32: give the classes' numbers as integers"),
        ({"labels": [0, 1]}, r"labels of shape \(2,\), 3 groups and probabilities of 3 samples: give one label"),
        ({"groups": ["a"]}, r"1 groups and probabilities of 3 samples"),
        ({"names": "ab"}, r"2 class names, but probabilities of 3 classes: give a name for each column"),
        ({"probabilities": [[0.2, math.nan, 0.8]] * 3}, r"not all finite: check the model"),
        ({"probabilities": [0.2, 0.8]}, r"probabilities of shape \(2,\): give \[n, C\]"),
        ({"probabilities": [[1.0]] * 3}, r"with C of at least 2"),
    ],
)
def test_what_does_not_belong_together_is_refused(change: dict[str, Any], message: str) -> None:
    given_: dict[str, Any] = {
        "labels": [0, 1, 2],
        "probabilities": np.eye(3),
        "groups": ["a", "b", "c"],
        "names": "xyz",
    }
    with pytest.raises(ValueError, match=message):
        scores_of(**(given_ | change))


def test_scores_are_read_without_torch() -> None:
    code = "import sys, ncmi.readouts.scores, ncmi.training.schema; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
