"""Bootstrap over groups (patients) against a naive loop over the same resamples; and that its intervals mean what they say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score, roc_auc_score

from ncmi.readouts import bootstrap
from ncmi.readouts.bootstrap import group_draws, group_numbers, percentile_interval, resampled
from ncmi.readouts.scores import INTERVAL_METRICS, Estimate, Judge, Scores, judge, paired_difference

NAMES = ("a", "b", "c")


def scores_of(labels: Any, probabilities: Any, groups: Any, names: Any = NAMES, **options: Any) -> Scores:
    with np.errstate(divide="ignore"):
        return judge(np.log(probabilities), labels, names, groups=groups, **options)


def cohort(seed: int, slides: int = 60, patients: int = 14) -> tuple[NDArray[np.int64], NDArray[np.float64], list[int]]:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(slides) % 3)
    scores = np.round(rng.gamma(1.0, size=(slides, 3)), 1) + 0.1
    scores[np.arange(slides), labels] += 0.6
    return labels, scores / scores.sum(axis=1, keepdims=True), [int(n) for n in rng.integers(0, patients, slides)]


def naive_scores(labels: Any, probabilities: Any) -> dict[str, float]:
    decided = probabilities.argmax(axis=1)
    recall = recall_score(labels, decided, average=None, labels=[0, 1, 2])
    return {
        "macro_f1": float(f1_score(labels, decided, average="macro")),
        "macro_auc": float(roc_auc_score(labels, probabilities, average="macro", multi_class="ovr")),
        "balanced_accuracy": float(balanced_accuracy_score(labels, decided)),
        "accuracy": float(accuracy_score(labels, decided)),
        **{f"recall {name}": float(recall[index]) for index, name in enumerate(NAMES)},
    }


def resample(numbers: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Slides of a resample, one by one: all slides of a patient, as often as the patient was drawn."""
    return np.array(
        [
            slide
            for patient, times in enumerate(counts)
            for _ in range(times)
            for slide in np.flatnonzero(numbers == patient)
        ]
    )


def test_intervals_are_those_of_a_naive_loop() -> None:
    labels, probabilities, patients = cohort(0, patients=40)
    numbers = group_numbers(patients)
    draws = group_draws(numbers, labels, resamples=60, seed=5)
    assert draws.shape == (60, len(set(patients)))
    naive = []
    for counts in draws:
        chosen = resample(numbers, counts)
        naive.append(naive_scores(labels[chosen], probabilities[chosen]))
    scores = scores_of(labels, probabilities, patients, resamples=60, confidence=0.9, seed=5)
    assert (scores.resamples, scores.confidence, scores.notes) == (60, 0.9, [])
    estimates = {name: getattr(scores, name) for name in INTERVAL_METRICS}
    estimates |= {f"recall {one.name}": one.recall for one in scores.classes}
    for name, estimate in estimates.items():
        values = [one[name] for one in naive]
        assert estimate.low == pytest.approx(np.percentile(values, 5), abs=1e-12)
        assert estimate.high == pytest.approx(np.percentile(values, 95), abs=1e-12)
        assert estimate.low < estimate.high


@pytest.mark.parametrize("metric", INTERVAL_METRICS)
def test_paired_differences_are_those_of_a_naive_loop(metric: str) -> None:
    labels, first, patients = cohort(1)
    second = cohort(2)[1]
    numbers = group_numbers(patients)
    draws = group_draws(numbers, labels, resamples=40, seed=9)
    naive = []
    for counts in draws:
        chosen = resample(numbers, counts)
        naive.append(
            naive_scores(labels[chosen], first[chosen])[metric] - naive_scores(labels[chosen], second[chosen])[metric]
        )
    difference = paired_difference(labels, first, second, patients, metric, resamples=40, seed=9)
    a, b = naive_scores(labels, first)[metric], naive_scores(labels, second)[metric]
    assert (difference.a, difference.b, difference.value) == pytest.approx((a, b, a - b), abs=1e-12)
    assert (difference.low, difference.high) == pytest.approx(tuple(np.percentile(naive, [2.5, 97.5])), abs=1e-12)
    assert (difference.samples, difference.groups, difference.resamples) == (60, len(set(patients)), 40)


def test_of_several_runs_the_mean_is_compared() -> None:
    labels, first, patients = cohort(1)
    runs = np.stack([first, cohort(3)[1]])
    difference = paired_difference(labels, runs, first, patients, "macro_f1", resamples=30)
    one, other = (scores_of(labels, run, patients, resamples=0).macro_f1.value for run in runs)
    assert one is not None
    assert other is not None
    assert difference.value == pytest.approx((one + other) / 2 - one, abs=1e-12)
    assert difference.low < difference.value < difference.high  # type: ignore[operator]


def test_a_model_does_not_differ_from_itself() -> None:
    labels, probabilities, patients = cohort(4)
    difference = paired_difference(labels, probabilities, probabilities, patients, "macro_auc", resamples=50)
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(
        ValueError, match="metric='f1' is none of macro_f1, macro_auc, balanced_accuracy, accuracy: give one"
    ):
        paired_difference([0, 1], np.eye(2), np.eye(2), ["a", "b"], "f1")
    with pytest.raises(ValueError, match=r"shape \(2, 2\), \(3, 3\): give \[n, C\], the same for all"):
        paired_difference([0, 1], np.eye(2), np.eye(3), ["a", "b"])


def test_every_resample_holds_every_class_and_patients_as_many_as_there_are() -> None:
    # the last patient alone has class 2, so a third of all plain resamples would lack it
    labels = np.array([0, 1] * 10 + [2])
    numbers = np.array([*range(10)] * 2 + [10])
    draws = group_draws(numbers, labels, resamples=500, seed=1)
    assert draws.shape == (500, 11)
    assert (draws.sum(axis=1) == 11).all()
    assert (draws[:, 10] > 0).all()
    # beyond that nobody is favored: the others share what is left evenly
    expected = (11 - draws[:, 10].mean()) / 10
    assert np.abs(draws[:, :10].mean(axis=0) - expected).max() < 5 * math.sqrt(expected / 500)
    assert not np.array_equal(draws, group_draws(numbers, labels, resamples=500, seed=2))
    np.testing.assert_array_equal(draws, group_draws(numbers, labels, resamples=500, seed=1))


def test_classes_of_one_patient_each_are_told_where_complete_resamples_run_out() -> None:
    labels = np.arange(12)
    probabilities = np.eye(12)
    scores = scores_of(labels, probabilities, list(range(12)), [str(c) for c in labels], resamples=100)
    # one resample of 12!/12^12 = 1/19,000 holds them all
    assert scores.resamples < 100
    assert f"A class is in so few groups that only {scores.resamples} of 100 resamples" in scores.notes[0]


def test_one_patient_has_no_interval() -> None:
    scores = scores_of([0, 1, 2], np.eye(3), ["p"] * 3)
    assert scores.macro_f1 == scores.classes[0].recall == Estimate(value=1.0)
    assert (scores.groups, scores.resamples) == (1, 0)
    assert scores.notes == ["Samples of one group alone have no interval over groups."]


def test_slides_of_one_patient_count_together() -> None:
    """Copies of a slide of the same patient tell nothing new, copies with patients of their own would."""
    labels, probabilities, _ = cohort(6, slides=30)
    copied = np.repeat(np.arange(30), 8)
    together = scores_of(labels[copied], probabilities[copied], list(copied))
    single = scores_of(labels, probabilities, list(range(30)))
    apart = scores_of(labels[copied], probabilities[copied], list(range(240)))

    def width(scores: Scores) -> float:
        return float(scores.accuracy.high - scores.accuracy.low)  # type: ignore[operator]

    assert width(together) == pytest.approx(width(single), rel=0.15)
    assert width(apart) == pytest.approx(width(single) / math.sqrt(8), rel=0.25)


def test_intervals_hold_the_truth_about_as_often_as_they_promise() -> None:
    """Accuracy of patients with three slides each, right or wrong together in part."""
    rng = np.random.default_rng(0)
    held, trials, truth = 0, 200, 0.7
    for trial in range(trials):
        right = rng.random((40, 1)) < np.where(rng.random((40, 3)) < 0.6, truth, rng.beta(7, 3, size=(40, 3)))
        labels = rng.integers(0, 2, size=120)
        decided = np.where(right.ravel(), labels, 1 - labels)
        accuracy = scores_of(
            labels, np.eye(2)[decided], list(np.repeat(range(40), 3)), "ab", resamples=200, seed=trial
        ).accuracy
        held += accuracy.low <= truth <= accuracy.high  # type: ignore[operator]
    assert 0.89 <= held / trials <= 0.98


def test_weights_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, probabilities, patients = cohort(7)
    whole = scores_of(labels, probabilities, patients, resamples=40)
    monkeypatch.setattr(bootstrap, "_MOST_WEIGHTS", 7 * 60)
    assert scores_of(labels, probabilities, patients, resamples=40) == whole


def test_resampled_gives_rows_in_the_order_of_the_draws() -> None:
    labels, probabilities, patients = cohort(8)
    numbers = group_numbers(patients)
    draws = group_draws(numbers, labels, resamples=5)
    judged = Judge(labels, probabilities)
    found = resampled(judged, numbers, draws)
    for index, counts in enumerate(draws):
        alone = judged(counts[numbers][None].astype(float))
        assert found["macro_f1"][index] == pytest.approx(alone["macro_f1"][0], abs=1e-12)
        assert found["recall"][index] == pytest.approx(alone["recall"][0], abs=1e-12)


def test_interval_of_nothing_is_nothing() -> None:
    assert all(math.isnan(bound) for bound in percentile_interval(np.empty(0)))
