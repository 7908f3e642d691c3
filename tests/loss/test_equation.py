"""The reference itself, against numbers that can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ncmi.loss import equation

HALF, ASKEW = [0.5, 0.5], [0.25, 0.75]
TO_ASKEW = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)  # KL(HALF‖ASKEW)
TO_HALF = 0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2)  # KL(ASKEW‖HALF)


def table(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_from_feature_to_distribution() -> None:
    odds = (1 + math.exp(-0.6 / 0.5)) / (1 + math.exp(-0.8 / 0.5))  # σ(z_2)/σ(z_1) of z = (0.6, 0.8)/T
    p = equation.distribution(table([4.0, 5.0]), table([1.0, 1.0]), 0.5)
    assert p[0].tolist() == pytest.approx([1 / (1 + odds), odds / (1 + odds)])
    assert equation.simplex(table([0.0, math.log(3)]), "softmax")[0].tolist() == pytest.approx(ASKEW)
    # where all have one length, the same pattern twice as far out is another distribution
    for feature in (table([4.0, 5.0]), table([7.0, 9.0])):
        p = equation.distribution(feature, table([1.0, 1.0]), 0.5, length=2.0)
        one, other = ((1 / (1 + math.exp(-(x - 1) / 2 / 0.5))) for x in feature[0].tolist())
        assert p[0].tolist() == pytest.approx([one / (one + other), other / (one + other)])


def test_divergence_has_a_direction() -> None:
    p, q = table(HALF), table(HALF, ASKEW)
    assert equation.divergences(p, q, "sample_to_centroid")[0].tolist() == pytest.approx([0, TO_ASKEW])
    assert equation.divergences(p, q, "centroid_to_sample")[0].tolist() == pytest.approx([0, TO_HALF])


def test_measures() -> None:
    """Class 0 spreads about HALF by ±¼, class 1 is HALF itself."""
    p, labels = table(ASKEW, [0.75, 0.25], HALF), torch.tensor([0, 0, 1])
    by_class = equation.class_cmi(p, labels)
    assert {c: float(value) for c, value in by_class.items()} == pytest.approx({0: TO_HALF, 1: 0})
    assert float(equation.cmi(p, labels)) == pytest.approx(2 / 3 * TO_HALF)
    # two samples of class 0, whose only wrong centroid is HALF; of class 1, the other centroid is HALF too
    assert float(equation.gamma(p, labels)) == pytest.approx(2 * TO_ASKEW / 2 / 3)
    # four ordered pairs of nine are of different classes
    to_askew = -0.5 * math.log(0.25) - 0.5 * math.log(0.75)
    assert float(equation.gamma(p, labels, "cross_entropy")) == pytest.approx((2 * math.log(2) + 2 * to_askew) / 9)
    assert float(equation.ncmi(p, labels)) == pytest.approx(2 * TO_HALF / TO_ASKEW)


def test_loss() -> None:
    p, q, labels = table(HALF, ASKEW), table(ASKEW, HALF), torch.tensor([0, 0])
    # a is KL(HALF‖ASKEW) and 0; b is half of KL(HALF‖HALF) = 0 and of KL(HALF‖ASKEW)
    with_wrong = {"reduction": "none", "power": -1.0, "direction": "sample_to_centroid"}
    assert float(equation.loss(p[1:], labels[1:], q)) == 0
    assert float(equation.loss(p, labels, q, form="ratio_of_means")) == pytest.approx(2)
    three = table([0.4, 0.6], ASKEW, HALF)
    a, b, c = equation.divergences(table([0.3, 0.7]), three, "sample_to_centroid")[0].tolist()
    ratio = a / (2 / (1 / b + 1 / c))
    sample = table([0.3, 0.7])
    assert equation.loss(sample, torch.tensor([0]), three, **with_wrong).tolist() == pytest.approx([ratio])  # type: ignore[arg-type]
    pi = (1 / a) / (1 / a + 1 / b + 1 / c)
    assert equation.likelihoods(sample, three, -1.0)[0, 0].item() == pytest.approx(pi)
    form = {"form": "likelihood", "power": -1.0, "direction": "sample_to_centroid"}
    hard, soft = torch.tensor([0]), table([0.2, 0.3, 0.5])
    assert float(equation.loss(sample, hard, three, **form)) == pytest.approx(-math.log(pi))  # type: ignore[arg-type]
    bounded = equation.loss(sample, hard, three, robustness=0.5, **form)  # type: ignore[arg-type]
    assert float(bounded) == pytest.approx((1 - math.sqrt(pi)) / 0.5)
    of_all = equation.likelihoods(sample, three, -1.0)[0].log()
    assert float(equation.loss(sample, soft, three, **form)) == pytest.approx(-float(soft[0] @ of_all))  # type: ignore[arg-type]


@pytest.mark.parametrize(("power", "mean"), [(1, 2.5), (0, 2.0), (-1, 1.6), (math.inf, 4), (-math.inf, 1)])
def test_power_means(power: float, mean: float) -> None:
    assert float(equation.power_mean(torch.tensor([1.0, 4.0], dtype=torch.float64), power)) == pytest.approx(mean)
