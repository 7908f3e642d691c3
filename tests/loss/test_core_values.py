"""Loss and gradients against the plain float64 formulas, for every form of the loss and from small to large."""

from __future__ import annotations

import itertools

import comparison
import pytest
import torch
from torch import Tensor

import ncmi
from ncmi.loss import equation
from ncmi.loss.simplex import log_simplex

FORMS = ("mean_of_ratios", "ratio_of_means", "likelihood")


def problem(batch: int, classes: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, labels and centroid logits."""
    torch.manual_seed(classes * 10_000 + dim)
    features = torch.randn(batch, dim, dtype=torch.float64)
    logits = torch.randn(classes, dim, dtype=torch.float64)
    return features, torch.randint(classes, (batch,)), logits


def values_and_gradients(
    features: Tensor, labels: Tensor, logits: Tensor, kind: str, temperature: float, **options: object
) -> tuple[list[Tensor], list[Tensor]]:
    """Ours, and the reference's: loss, gradient of the features, gradient of the centroids through their logits."""
    results = []
    for ours in (True, False):
        f, z = (x.clone().requires_grad_() for x in (features, logits))
        if ours:
            log_p, log_q = ncmi.to_log_distribution(f, None, temperature, kind), log_simplex(z, kind)  # type: ignore[arg-type]
            renamed = {
                {"power": "separation_power", "direction": "separation_direction"}.get(k, k): v
                for k, v in options.items()
            }
            value = ncmi.ncmi_loss(log_p, labels, log_q, **renamed)  # type: ignore[arg-type]
        else:
            p, q = equation.distribution(f, None, temperature, kind), equation.simplex(z, kind)
            value = equation.loss(p, labels, q, **options)  # type: ignore[arg-type]
        # of "none" a weighted sum, so that no sample's gradient hides behind another's
        total = (value * torch.arange(1, value.numel() + 1)).sum() if value.dim() else value
        results.append([value.detach(), *torch.autograd.grad(total, (f, z))])
    return results[0], results[1]


def assert_equal(found: list[Tensor], expected: list[Tensor], bound: float = 1e-10) -> None:
    for name, one, other in zip(("loss", "features", "centroids"), found, expected, strict=True):
        assert comparison.relative_error(one, other) <= bound, name


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("direction", comparison.DIRECTIONS)
@pytest.mark.parametrize("power", comparison.POWERS)
def test_every_form(power: float, direction: str, soft: bool) -> None:
    features, labels, logits = problem(6, 4, 5)
    targets = torch.rand(6, 4, dtype=torch.float64).softmax(1) if soft else labels
    weights = torch.tensor([0.5, 2.0, 1.0, 0.0], dtype=torch.float64)
    options = itertools.product(comparison.KINDS, FORMS, ("mean", "sum", "none"), (None, weights), (0.0, 0.2))
    for kind, form, reduction, weight, smoothing in options:
        if (form == "likelihood" and not -torch.inf < power < 0) or (form == "ratio_of_means" and reduction != "mean"):
            continue
        found, expected = values_and_gradients(
            features,
            targets,
            logits,
            kind,
            0.4,
            form=form,
            reduction=reduction,
            power=power,
            direction=direction,
            weight=weight,
            label_smoothing=smoothing,
        )
        assert_equal(found, expected)


@pytest.mark.parametrize("direction", comparison.DIRECTIONS)
@pytest.mark.parametrize("power", [1.0, -4.0])
@pytest.mark.parametrize(("classes", "dim"), [(2, 2), (2, 2048), (30, 2), (26, 128), (100, 10), (1000, 16), (12, 2048)])
def test_from_small_to_large(classes: int, dim: int, power: float, direction: str) -> None:
    features, labels, logits = problem(4, classes, dim)
    found, expected = values_and_gradients(
        features, labels, logits, "nsf", 0.5, form="mean_of_ratios", power=power, direction=direction
    )
    assert_equal(found, expected)


@pytest.mark.parametrize(("classes", "dim"), [(1000, 2), (1000, 512), (100, 2048)])
def test_largest_sizes_in_the_papers_form(classes: int, dim: int) -> None:
    features, labels, logits = problem(2, classes, dim)
    found, expected = values_and_gradients(
        features, labels, logits, "nsf", 0.2, form="mean_of_ratios", power=1.0, direction="centroid_to_sample"
    )
    assert_equal(found, expected)


@pytest.mark.parametrize("power", [1.0, -4.0])
def test_soft_targets_of_many_classes(power: float) -> None:
    features, _, logits = problem(3, 40, 64)
    targets = torch.rand(3, 40, dtype=torch.float64).softmax(1)
    found, expected = values_and_gradients(
        features, targets, logits, "nsf", 0.5, form="ratio_of_means", power=power, direction="centroid_to_sample"
    )
    assert_equal(found, expected)


@pytest.mark.parametrize("temperature", [0.02, 0.05, 1.0, 50.0])
def test_any_temperature(temperature: float) -> None:
    """Near the vertices of the simplex and near its middle."""
    features, labels, logits = problem(5, 6, 16)
    for power, direction in itertools.product((1.0, -2.0), comparison.DIRECTIONS):
        found, expected = values_and_gradients(
            features,
            labels,
            logits,
            "nsf",
            temperature,
            form="mean_of_ratios",
            power=power,
            direction=direction,
        )
        assert_equal(found, expected)


def test_center_and_leading_dimensions() -> None:
    feature, center = torch.randn(3, 2, 7, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    for kind in comparison.KINDS:
        found = ncmi.to_log_distribution(feature, center, 0.3, kind)  # type: ignore[arg-type]
        torch.testing.assert_close(found.exp(), equation.distribution(feature, center, 0.3, kind))
    torch.testing.assert_close(ncmi.log_nsf(feature).exp(), equation.simplex(feature, "nsf"))


def test_log_nsf_of_extreme_logits() -> None:
    """Where σ underflows: log σ(z) = z for very negative z, and 0 for very positive."""
    z = torch.tensor([[-1000.0, -1000.0, -1001.0], [1000.0, 0.0, -1000.0]], requires_grad=True)
    expected = torch.stack(
        [
            torch.tensor([0.0, 0.0, -1.0]).log_softmax(0),
            torch.tensor([0.0, -torch.log(torch.tensor(2.0)), -1000.0]).log_softmax(0),
        ]
    )
    log_p = ncmi.log_nsf(z)
    torch.testing.assert_close(log_p, expected)
    log_p.sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
