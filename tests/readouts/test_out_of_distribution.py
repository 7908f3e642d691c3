"""Out-of-distribution data: AUROC by counting pairs, FPR95 by its definition, scores against naive float64 ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import ncmi
from ncmi.loss import equation
from ncmi.readouts.out_of_distribution import OOD_SCORES, check_ood_features, compare_ood, detection, ood_scores

# --- AUROC and FPR95


def by_definition(inside: list[float], outside: list[float]) -> tuple[float, float]:
    pairs = [1.0 if o > i else 0.5 if o == i else 0.0 for o in outside for i in inside]
    accepting = [t for t in sorted(inside) if sum(i <= t for i in inside) >= 0.95 * len(inside)]
    return sum(pairs) / len(pairs), sum(o <= accepting[0] for o in outside) / len(outside)


# few different values: ties within and between the two
scores_with_ties = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=60)


@given(scores_with_ties, scores_with_ties)
def test_detection_with_ties(inside: list[float], outside: list[float]) -> None:
    measured = detection(torch.tensor(inside), torch.tensor(outside))
    auroc, fpr95 = by_definition(inside, outside)
    assert measured.auroc == pytest.approx(auroc, abs=1e-12)
    assert measured.fpr95 == pytest.approx(fpr95, abs=1e-12)
    assert sum(i <= measured.threshold for i in inside) >= 0.95 * len(inside)


@given(st.integers(0, 10_000), st.integers(1, 200), st.integers(1, 200))
def test_detection_without_ties(seed: int, n: int, m: int) -> None:
    generator = np.random.default_rng(seed)
    inside, outside = generator.normal(size=n).tolist(), (0.7 + generator.normal(size=m)).tolist()
    tensors = torch.tensor(inside, dtype=torch.float64), torch.tensor(outside, dtype=torch.float64)
    auroc, fpr95 = by_definition(inside, outside)
    assert detection(*tensors).auroc == pytest.approx(auroc, abs=1e-12)
    assert detection(*tensors).fpr95 == pytest.approx(fpr95, abs=1e-12)
    # the same from the other side
    assert detection(*tensors[::-1]).auroc == pytest.approx(1 - auroc, abs=1e-12)


def test_a_constant_score_tells_nothing_apart() -> None:
    measured = detection(torch.full((20,), 3.0), torch.full((5,), 3.0))
    assert (measured.auroc, measured.fpr95, measured.threshold) == (0.5, 1.0, 3.0)


def test_exactly_95_percent_are_enough() -> None:
    inside = torch.arange(20.0)
    assert detection(inside, torch.tensor([18.5, 30.0])).threshold == 18.0
    assert detection(inside, torch.tensor([18.5, 30.0])).fpr95 == 0.0


@pytest.mark.parametrize(
    ("inside", "outside", "message"),
    [
        (torch.zeros(0), torch.zeros(2), "0 samples inside and 2 outside: give at least one of each"),
        (torch.zeros(2), torch.zeros(0), "give at least one of each"),
        (torch.zeros(2), torch.tensor([math.nan]), "a score is NaN or infinite"),
        (torch.tensor([math.inf]), torch.zeros(2), "a score is NaN or infinite"),
    ],
)
def test_detection_refuses(inside: Tensor, outside: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detection(inside, outside)


# --- the scores


def fitted(
    dim: int = 8, center: Tensor | None = None, classes: int = 3
) -> tuple[ncmi.CentroidClassifier, Tensor, Tensor]:
    """CC fitted to clusters, with their features and labels."""
    labels = torch.arange(60) % classes
    features = 2 * torch.eye(dim, dtype=torch.float64)[labels] + torch.randn(60, dim, dtype=torch.float64)
    classifier = ncmi.CentroidClassifier(classes, dim, temperature=0.3, center=center).double()
    return classifier.partial_fit(features, labels), features, labels


def test_scores_against_naive_ones() -> None:
    center = torch.full((8,), 0.1, dtype=torch.float64)
    classifier, features, labels = fitted(center=center)
    p = equation.distribution(features, center, 0.3)
    kl = equation.divergences(p, torch.stack(list(equation.true_centroids(p, labels).values())), "sample_to_centroid")
    scores = ood_scores(classifier, features, classifier.predict_log_proba(features))
    assert tuple(scores) == OOD_SCORES
    nearest = kl.amin(1)
    np.testing.assert_allclose(scores["distance"], nearest, rtol=1e-9)
    np.testing.assert_allclose(scores["distance_ratio"], nearest / ((kl.sum(1) - nearest) / 2), rtol=1e-9)
    pi = kl**-classifier.power
    np.testing.assert_allclose(scores["max_probability"], 1 - pi.amax(1) / pi.sum(1), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(scores["feature_norm"], -np.linalg.norm(features - center, axis=1), rtol=1e-12)


def test_certainties_that_round_to_one_are_still_told_apart() -> None:
    classifier, features, _ = fitted()
    head = torch.nn.Linear(8, 3)
    sure = 40 * features[:30].float() * (1 + torch.arange(30))[:, None]
    log_p, log_p_sure = (head(rows).detach().log_softmax(1) for rows in (features.float(), sure))
    assert float((log_p_sure.exp().amax(1) == 1).double().mean()) > 0.5
    unsure = ood_scores(classifier.float(), sure, log_p_sure)["max_probability"]
    positive = unsure[unsure > 0]
    assert len(positive.unique()) == len(positive) > 20
    np.testing.assert_allclose(
        ood_scores(classifier, features.float(), log_p)["max_probability"], 1 - log_p.double().exp().amax(1), atol=1e-6
    )


def test_a_class_without_training_samples_is_left_out() -> None:
    _, features, labels = fitted()
    classifier = ncmi.CentroidClassifier(3, 8).double().partial_fit(features[labels < 2], labels[labels < 2])
    scores = ood_scores(classifier, features, classifier.predict_log_proba(features))
    assert all(bool(torch.isfinite(values).all()) for values in scores.values())
    two = classifier.divergences(features)[:, :2]
    torch.testing.assert_close(scores["distance_ratio"], two.amin(1) / two.amax(1))


def test_comparison_is_complete_and_counts_every_sample() -> None:
    classifier, features, _ = fitted()

    def scores_of(rows: Tensor) -> dict[str, Tensor]:
        return ood_scores(classifier, rows, classifier.predict_log_proba(rows))

    inside, outside = scores_of(features), scores_of(torch.randn(25, 8, dtype=torch.float64))
    detections, distances = compare_ood(inside, outside)
    assert (sum(distances.inside), sum(distances.outside)) == (60, 25)
    assert len(distances.edges) == len(distances.inside) + 1
    assert tuple(detections) == OOD_SCORES
    for name, measured in detections.items():
        auroc, fpr95 = by_definition(inside[name].tolist(), outside[name].tolist())
        assert measured.auroc == pytest.approx(auroc, abs=1e-12)
        assert measured.fpr95 == pytest.approx(fpr95, abs=1e-12)
    # the same samples on both sides, and a single one
    assert compare_ood(inside, inside)[0]["distance"].auroc == pytest.approx(0.5)
    single = scores_of(features[:1])
    distances = compare_ood(single, single)[1]
    assert sum(distances.inside) == sum(distances.outside) == 1


def test_features_that_are_not_finite_are_refused() -> None:
    features = torch.randn(4, 8, dtype=torch.float64)
    check_ood_features(features, "other")
    features[1:3, 0] = math.inf
    with pytest.raises(ValueError, match=r"other: 2 of 4 samples have features that are not finite"):
        check_ood_features(features, "other")
