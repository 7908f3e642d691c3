"""Where centroids start: directions as far apart as the dimension allows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import ncmi
from ncmi.loss import centroids


def cosines(anchors: Tensor) -> Tensor:
    """Of all pairs of different anchors."""
    gram = anchors.double() @ anchors.double().T
    return gram[~torch.eye(len(anchors), dtype=torch.bool)]


def test_axes() -> None:
    assert torch.equal(ncmi.anchor_directions(3, 5, "axis"), torch.eye(3, 5))


@pytest.mark.parametrize(("classes", "dim", "kind"), [(3, 5, "axis"), (5, 5, "axis"), (6, 5, "etf"), (9, 2, "etf")])
def test_auto_takes_axes_while_they_last(classes: int, dim: int, kind: Any) -> None:
    for seed in (0, 3):
        found = ncmi.anchor_directions(classes, dim, "auto", seed)
        assert torch.equal(found, ncmi.anchor_directions(classes, dim, kind, seed))


@given(st.integers(2, 12), st.integers(2, 12), st.sampled_from(["etf", "random"]), st.integers(0, 99))
def test_unit_vectors_no_two_the_same(classes: int, dim: int, anchors: Any, seed: int) -> None:
    found = ncmi.anchor_directions(classes, dim, anchors, seed)
    assert found.shape == (classes, dim)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(classes))
    assert cosines(found).max() < (0.99 if anchors == "etf" else 1 - 1e-9)
    assert torch.equal(found, ncmi.anchor_directions(classes, dim, anchors, seed))
    assert not torch.equal(found, ncmi.anchor_directions(classes, dim, anchors, seed + 1))


@pytest.mark.parametrize(("classes", "dim"), [(2, 2), (7, 6), (7, 7), (7, 40), (100, 99), (100, 512)])
def test_simplex_has_all_cosines_equal(classes: int, dim: int) -> None:
    found = cosines(ncmi.anchor_directions(classes, dim, "etf"))
    torch.testing.assert_close(found, torch.full_like(found, -1 / (classes - 1)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("classes", "dim"), [(4, 2), (8, 4), (100, 64), (1000, 512)])
def test_cross_polytope_has_no_acute_angle(classes: int, dim: int) -> None:
    assert cosines(ncmi.anchor_directions(classes, dim, "etf")).max() < 1e-6


@pytest.mark.parametrize(
    ("classes", "dim", "best"),
    [
        (5, 2, math.cos(2 * math.pi / 5)),
        (10, 2, math.cos(2 * math.pi / 10)),
        (12, 3, math.cos(math.radians(63.4349))),  # icosahedron
        (24, 4, 0.5),  # the kissing configuration
    ],
)
def test_driven_apart_close_to_the_best_known(classes: int, dim: int, best: float) -> None:
    assert cosines(ncmi.anchor_directions(classes, dim, "etf")).max() < best + 0.12


@pytest.mark.parametrize(
    ("classes", "dim", "prime"), [(1001, 34, 17), (2000, 128, 61), pytest.param(9000, 512, 251, marks=pytest.mark.long)]
)
def test_waves_are_unions_of_cross_polytopes(classes: int, dim: int, prime: int) -> None:
    """Within 4p classes cosines are 0 or −1, between them at most 1/√p, where random ones reach four times as much."""
    found = ncmi.anchor_directions(classes, dim, "etf")
    torch.testing.assert_close(found.norm(dim=1), torch.ones(classes))
    first = cosines(found[: 4 * prime])
    assert torch.minimum(first.abs(), (first + 1).abs()).max() < 1e-5
    largest = max(float((part @ found.T).sort(dim=1).values[:, -2].max()) for part in found.split(1000))
    assert largest < 1 / math.sqrt(prime) + 1e-5
    assert not torch.equal(found, ncmi.anchor_directions(classes, dim, "etf", seed=1))


@pytest.mark.parametrize(("prime", "degree"), [(5, 2), (5, 3), (7, 3), (7, 4)])
def test_waves_are_exponentials_of_polynomials(prime: int, degree: int) -> None:
    """Against complex numbers: the same cosines, all different, and none above Weil's bound."""
    classes = 4 * prime**2 + 1 if degree > 2 else 4 * prime**2
    x = torch.arange(prime, dtype=torch.float64)
    rows = []
    for number in range(classes):
        block, within = divmod(number, 4 * prime)
        turn, linear = divmod(within, prime)
        higher = [block // prime**k % prime for k in range(degree - 1)]
        phase = sum(a * x ** (k + 2) for k, a in enumerate(higher)) + linear * x
        rows.append(torch.exp(2j * math.pi * (phase / prime + turn / 4)) / math.sqrt(prime))
    expected = torch.stack(rows)
    found = centroids._waves(classes, prime, degree, torch.eye(2 * prime)).double()
    torch.testing.assert_close(found @ found.T, (expected @ expected.mH).real, rtol=0, atol=1e-5)
    assert cosines(found).max() < (degree - 1) / math.sqrt(prime) + 1e-5


@pytest.mark.parametrize(("classes", "dim", "before"), [(1500, 9, 0.735), (2000, 32, 0.359), (3000, 16, 0.579)])
def test_fewer_rounds_drive_apart_as_far(classes: int, dim: int, before: float) -> None:
    """``before`` is what a hundred rounds reached."""
    assert cosines(ncmi.anchor_directions(classes, dim, "etf")).max() < before + 0.02


def test_too_many_classes_to_drive_apart_are_left_at_random_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work is bounded, whatever the number of classes."""
    monkeypatch.setattr(centroids, "_MOST_WORK", 1.0)
    with pytest.warns(UserWarning, match="1001 classes are too many to drive their anchors apart in 6 dimensions"):
        found = ncmi.anchor_directions(1001, 6, "etf")
    torch.testing.assert_close(found.norm(dim=1), torch.ones(1001))
    assert cosines(ncmi.anchor_directions(1001, 32, "etf")).max() <= 2 / math.sqrt(13)  # waves of degree 3


def test_random_directions_are_nearly_orthogonal() -> None:
    found = cosines(ncmi.anchor_directions(200, 1024, "random"))
    assert found.abs().max() < 6 / math.sqrt(1024)
    assert abs(float(found.std()) * math.sqrt(1024) - 1) < 0.1


def test_errors_name_the_cure() -> None:
    with pytest.raises(ValueError, match="D=3 is smaller than C=4: axis anchors need D ≥ C; use anchors='etf'"):
        ncmi.anchor_directions(4, 3, "axis")
    with pytest.raises(ValueError, match="unknown anchors 'corners': use one of auto, axis, etf, random"):
        ncmi.anchor_directions(4, 3, "corners")  # type: ignore[arg-type]
