"""Temperature scaling, proper scores and reliability against naive float64 references, and what must always hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss
from torch import Tensor

from ncmi import CentroidClassifier
from ncmi.readouts import calibration
from ncmi.readouts.calibration import (
    LEAST,
    MOST,
    apply_temperature,
    brier_score,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)
from ncmi.readouts.scores import calibration_error, judge

Array = NDArray[np.float64]


def sample(seed: int, count: int = 200, classes: int = 4, sharpness: float = 3.0) -> tuple[Tensor, Tensor]:
    """Log-probabilities and labels drawn from softer ones, so that τ is neither 1 nor at a bound."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((1.2 * logits).softmax(1), 1, generator=generator).squeeze(1)
    return torch.log_softmax(sharpness * logits, dim=1), labels


def softened_nll(log_p: Array, labels: NDArray[np.int64], tau: float, pseudo: float) -> float:
    """Sum over samples and pseudo-samples of −log softmax(log_p / τ), row by row."""
    total = 0.0
    for row, label in zip(log_p, labels, strict=True):
        scaled = row / tau
        normalized = scaled - np.log(np.exp(scaled - scaled.max()).sum()) - scaled.max()
        total -= normalized[label] + pseudo / len(labels) * normalized[np.isfinite(row)].mean()
    return total


def brute_force(log_p: Tensor, labels: Tensor, pseudo: float) -> float:
    found = minimize_scalar(
        lambda t: softened_nll(log_p.numpy(), labels.numpy(), math.exp(t), pseudo),
        bounds=(math.log(LEAST), math.log(MOST)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return math.exp(found.x)


# --- τ


@pytest.mark.parametrize("pseudo", [0.0, 0.5, 7.0])
@pytest.mark.parametrize(("seed", "sharpness"), [(0, 3.0), (1, 0.2), (2, 25.0)])
def test_temperature_is_where_the_likelihood_is_highest(seed: int, sharpness: float, pseudo: float) -> None:
    log_p, labels = sample(seed, sharpness=sharpness)
    expected = brute_force(log_p, labels, pseudo)
    assert fit_temperature(log_p, labels, pseudo_samples=pseudo) == pytest.approx(expected, rel=1e-5)
    assert expected == pytest.approx(sharpness / 1.2, rel=0.35), "the labels were drawn with this sharpness"


def test_temperature_of_two_classes_by_hand() -> None:
    logits = torch.tensor([[4.0, 0.0]]).expand(4, 2)
    # three of four are right: p = 3/4, so 4/τ = log 3; half a sample more of either class: (3 + ¼)/(4 + ½)
    labels = torch.tensor([0, 0, 0, 1])
    assert fit_temperature(logits, labels, pseudo_samples=0) == pytest.approx(4 / math.log(3), rel=1e-9)
    assert fit_temperature(logits, labels) == pytest.approx(4 / math.log(3.25 / 1.25), rel=1e-9)


def test_parts_of_any_size_and_precision_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    log_p, labels = sample(3)
    expected = fit_temperature(log_p, labels)
    assert fit_temperature(log_p.float(), labels) == pytest.approx(expected, rel=1e-5)
    assert fit_temperature(log_p.half(), labels.int()) == pytest.approx(expected, rel=1e-2)
    monkeypatch.setattr(calibration, "_ROWS", 7)
    assert fit_temperature(log_p, labels) == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 10_000), st.floats(0.05, 20), st.floats(-30, 30))
def test_logits_will_do_and_their_scale_is_taken_out(seed: int, scale: float, shift: float) -> None:
    log_p, labels = sample(seed, count=40)
    once = fit_temperature(log_p, labels)
    again = fit_temperature(scale * log_p + shift, labels)
    assert again == pytest.approx(min(max(scale * once, LEAST), MOST), rel=1e-6)


@given(st.integers(0, 10_000), st.integers(1, 30), st.floats(0.01, 100))
def test_every_decision_is_kept(seed: int, count: int, tau: float) -> None:
    log_p, labels = sample(seed, count=count)
    assert torch.equal(apply_temperature(log_p, tau).argmax(1), log_p.argmax(1))
    calibrated = apply_temperature(log_p, fit_temperature(log_p, labels))
    assert torch.equal(calibrated.argmax(1), log_p.argmax(1))
    torch.testing.assert_close(calibrated.exp().sum(1), torch.ones(count, dtype=torch.float64))


@given(st.integers(0, 10_000), st.integers(1, 30), st.floats(0.01, 50), st.floats(0.02, 50))
def test_what_is_minimized_is_not_above_that_of_any_other_temperature(
    seed: int, count: int, sharpness: float, other: float
) -> None:
    log_p, labels = sample(seed, count=count, sharpness=sharpness)
    plain = apply_temperature(log_p, fit_temperature(log_p, labels, pseudo_samples=0))
    for tau in (1.0, other):
        compared = negative_log_likelihood(apply_temperature(log_p, tau), labels)
        assert negative_log_likelihood(plain, labels) <= compared + 1e-9
    rows, indices = log_p.numpy(), labels.numpy()
    best = softened_nll(rows, indices, fit_temperature(log_p, labels), 0.5)
    assert best <= softened_nll(rows, indices, other, 0.5) + 1e-9


def test_for_centroid_distances_it_is_the_exponent() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    features = 2 * torch.eye(8)[labels] + torch.randn(120, 8, generator=generator)
    classifier = CentroidClassifier(3, 8, power=6.0).fit(features[:60], labels[:60])
    tau = fit_temperature(classifier.predict_log_proba(features[60:]), labels[60:])
    assert tau != pytest.approx(1, abs=0.05)
    other = CentroidClassifier(3, 8, power=6.0 / tau).fit(features[:60], labels[:60])
    torch.testing.assert_close(
        other.predict_log_proba(features), apply_temperature(classifier.predict_log_proba(features), tau)
    )
    assert fit_temperature(other.predict_log_proba(features[60:]), labels[60:]) == pytest.approx(1, rel=1e-4)


# --- where there is no minimum


def test_without_an_error_likelihood_asks_for_certainty_and_half_a_sample_does_not() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]]).expand(20, 3)
    labels = torch.zeros(20, dtype=torch.long)
    assert fit_temperature(logits, labels, pseudo_samples=0) == LEAST
    tau = fit_temperature(logits, labels)
    assert tau == pytest.approx(brute_force(logits.double(), labels, 0.5), rel=1e-5)
    assert 0.3 < tau < 1
    # the more samples say so, the surer
    assert fit_temperature(logits[:1].expand(2000, 3), torch.zeros(2000, dtype=torch.long)) < tau


def test_worse_than_chance_is_flattened() -> None:
    log_p = torch.log_softmax(torch.tensor([[3.0, 0.0, 0.0]]), 1).expand(10, 3)
    assert fit_temperature(log_p, torch.full((10,), 1)) == MOST


def test_rows_without_any_difference_keep_one() -> None:
    assert fit_temperature(torch.full((5, 3), -math.log(3)), torch.tensor([0, 1, 2, 0, 0])) == 1


def test_a_class_that_no_sample_has() -> None:
    log_p, labels = sample(4)
    labels = labels.clamp_max(2)
    assert fit_temperature(log_p, labels) == pytest.approx(brute_force(log_p, labels, 0.5), rel=1e-5)


def test_classes_of_probability_zero() -> None:
    log_p, labels = sample(5, count=60)
    wider = torch.cat([log_p, torch.full((60, 1), -torch.inf, dtype=torch.float64)], dim=1)
    expected = fit_temperature(log_p, labels)
    assert fit_temperature(wider, labels) == pytest.approx(expected, rel=1e-9)
    # samples of the impossible class change nothing: no τ helps them
    more = torch.cat([wider, wider[:5]])
    impossible = torch.cat([labels, torch.full((5,), 4)])
    assert fit_temperature(more, impossible) == pytest.approx(expected, rel=1e-9)
    assert fit_temperature(wider, torch.full((60,), 4)) == 1
    calibrated = apply_temperature(wider, 2.0)
    assert bool((calibrated[:, 4] == -torch.inf).all())
    assert not bool(calibrated.isnan().any())
    assert negative_log_likelihood(wider, torch.full((60,), 4)) == math.inf


@pytest.mark.parametrize(
    ("log_p", "labels", "message"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.long), r"log_p is torch.float32 \[3\]: expected .* \[N, C\]"),
        (torch.zeros(3, 2, dtype=torch.long), torch.zeros(3, dtype=torch.long), "log_p is torch.int64"),
        (torch.zeros(3, 2), torch.tensor([0, 1, 2]), "labels run to 2 but num_classes is 2"),
        (torch.zeros(3, 2), torch.tensor([0, 1]), "3 samples but 2 labels"),
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.long), "empty"),
        (torch.tensor([[0.0, math.nan]]), torch.tensor([0]), r"log_p holds NaN, \+inf or a row of −inf"),
        (torch.tensor([[0.0, math.inf]]), torch.tensor([0]), "log_p holds NaN"),
        (torch.tensor([[-math.inf, -math.inf]]), torch.tensor([0]), "log_p holds NaN"),
    ],
)
def test_what_cannot_be_judged_is_refused(log_p: Tensor, labels: Tensor, message: str) -> None:
    for function in (fit_temperature, negative_log_likelihood, brier_score, reliability):
        with pytest.raises(ValueError, match=message):
            function(log_p, labels)


def test_settings_out_of_range_are_refused() -> None:
    log_p, labels = sample(0, count=3)
    with pytest.raises(ValueError, match="pseudo_samples=-1: must be at least 0"):
        fit_temperature(log_p, labels, pseudo_samples=-1)
    for tau in (0.0, -2.0, math.nan):
        with pytest.raises(ValueError, match="must be above 0; fit_temperature gives one"):
            apply_temperature(log_p, tau)
    with pytest.raises(ValueError, match="bins=0"):
        reliability(log_p, labels, bins=0)


# --- scores and reliability


@pytest.mark.parametrize("classes", [2, 5])
def test_proper_scores(classes: int) -> None:
    log_p, labels = sample(6, classes=classes)
    p, y = log_p.exp().numpy(), labels.tolist()
    assert negative_log_likelihood(log_p, labels) == pytest.approx(log_loss(labels, p, labels=range(classes)), rel=1e-9)
    brier = np.mean([sum((p[i, c] - (c == y[i])) ** 2 for c in range(classes)) for i in range(len(p))])
    assert brier_score(log_p, labels) == pytest.approx(brier, rel=1e-12)
    assert brier_score(log_p.float(), labels) == pytest.approx(brier, rel=1e-5)


def by_hand(
    p: Array, labels: NDArray[np.int64], bins: int
) -> tuple[list[int], list[float | None], list[float | None], float]:
    counts: list[int] = []
    confidence: list[float | None] = []
    accuracy: list[float | None] = []
    error = 0.0
    for index in range(bins):
        inside = [
            i for i in range(len(p))
            if index / bins <= p[i].max() < (index + 1) / bins or (index == bins - 1 and p[i].max() >= 1)
        ]  # fmt: skip
        counts.append(len(inside))
        if not inside:
            confidence.append(None)
            accuracy.append(None)
            continue
        sure, right = np.mean([p[i].max() for i in inside]), np.mean([p[i].argmax() == labels[i] for i in inside])
        confidence.append(float(sure))
        accuracy.append(float(right))
        error += len(inside) / len(p) * abs(sure - right)
    return counts, confidence, accuracy, error


@pytest.mark.parametrize("bins", [1, 4, 15])
@pytest.mark.parametrize("sharpness", [0.3, 3.0, 400.0])
def test_reliability_by_hand(bins: int, sharpness: float) -> None:
    log_p, labels = sample(7, sharpness=sharpness)
    counts, confidence, accuracy, error = by_hand(log_p.exp().numpy(), labels.numpy(), bins)
    diagram = reliability(log_p, labels, bins)
    assert diagram.counts == counts
    for values, expected in ((diagram.confidence, confidence), (diagram.accuracy, accuracy)):
        assert [value is None for value in values] == [value is None for value in expected]
        assert [v for v in values if v is not None] == pytest.approx([v for v in expected if v is not None], abs=1e-12)
    assert calibration_error(diagram) == pytest.approx(error, abs=1e-12)


@pytest.mark.parametrize("sharpness", [1.0, 5.0, 400.0])
def test_single_precision_gives_the_same_calibration_error(sharpness: float) -> None:
    # at the sharpest most confidences are exactly 1 in float32, and lie in the same bin as 0.95
    log_p, labels = sample(8, count=500, sharpness=sharpness)
    expected = by_hand(log_p.exp().numpy(), labels.numpy(), 15)[3]
    assert calibration_error(reliability(log_p.float(), labels)) == pytest.approx(expected, abs=1e-6)
    assert judge(log_p, labels, "abcd").calibration_error == pytest.approx(expected, abs=1e-12)


def test_a_confidence_of_one_is_in_the_last_bin() -> None:
    log_p = torch.tensor([[1.0, 0.0], [0.95, 0.05]]).log().clamp_min(-90)
    # together: mean confidence 0.975, accuracy ½; in two bins it would be the mean of |0 − 1| and |1 − 0.95|
    diagram = reliability(log_p, torch.tensor([1, 0]))
    assert calibration_error(diagram) == pytest.approx(0.475, abs=1e-6)
    assert diagram.counts == [0] * 14 + [2]


def test_a_confidence_that_rounds_above_one_is_one() -> None:
    above = torch.tensor([[1e-7, -20.0], [-20.0, 1e-7]])  # as float32 logarithms of votes come out
    diagram = reliability(above, torch.tensor([0, 1]))
    assert diagram.confidence[-1] == 1
    assert calibration_error(diagram) == 0
