"""gradcheck of every autograd function that is written by hand, and what each does at its limits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from ncmi import NCMILoss
from ncmi.loss import equation, kernels
from ncmi.loss.divergence import CentroidSums, CentroidView, _LinearTerms, pairwise_divergence, wrong_sum
from ncmi.loss.functional import wrong_class_mean
from ncmi.loss.kernels import likelihood_surprisal
from ncmi.loss.simplex import _LogNSF, log_nsf, to_log_distribution, unit_vector


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_log_nsf() -> None:
    assert gradcheck(_LogNSF.apply, (random(3, 5),))
    assert torch.autograd.gradgradcheck(_LogNSF.apply, (random(2, 3),))


def test_unit_vector() -> None:
    center = torch.randn(5, dtype=torch.float64)
    assert gradcheck(lambda f: unit_vector(f, center), (random(3, 5),))


def test_log_nsf_of_direction() -> None:
    center = torch.randn(5, dtype=torch.float64)
    assert gradcheck(lambda f: to_log_distribution(f, center, 0.3), (random(3, 5),))
    assert gradcheck(lambda f: to_log_distribution(f, center, 0.3, "nsf", 0.7), (random(3, 5),))


def test_likelihood_surprisal() -> None:
    """Of distributions: the hand-written gradient leaves out the direction in which they would not sum to one."""
    labels = torch.tensor([0, 2, 2, 1, 0])

    def surprisal(f: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        alpha, beta = (log_nsf(one) + torch.log(torch.tensor(6.0, dtype=torch.float64)) for one in (f, q))
        gap = (torch.expm1(beta) - beta).mean(1).detach()
        return likelihood_surprisal(alpha, beta, gap, labels, -4.0)

    features, centroids = random(5, 6), random(3, 6)
    assert gradcheck(lambda f, q: surprisal(f, q)[0], (features, centroids))
    log_p, log_q = log_nsf(features.detach()), log_nsf(centroids.detach())
    expected = -4 * equation.divergences(log_p.exp(), log_q.exp(), "sample_to_centroid").log()
    value, logits = surprisal(features, centroids)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(value.detach(), torch.nn.functional.cross_entropy(expected, labels, reduction="none"))


@pytest.mark.parametrize("distance", [0.1, 0.05, 0.02, 0.01])
def test_what_is_left_to_learn_is_not_lost_in_rounding(distance: float) -> None:
    """Features close to their centroids: losses down to 1e-17, whose gradient float32 keeps."""
    torch.manual_seed(0)
    loss = NCMILoss(20, 256, temperature=0.1)
    labels = torch.randint(20, (16,))
    features = torch.eye(256)[labels] + distance * torch.nn.functional.normalize(torch.randn(16, 256), dim=1)
    found = []
    for dtype in (torch.float32, torch.float64):
        f = features.to(dtype).requires_grad_()
        value = loss.to(dtype).loss(f, labels)
        found.append((value.detach().double(), torch.autograd.grad(value, f)[0].double()))
    (value, gradient), (expected, expected_gradient) = found
    assert 0 < expected < 1e-2
    assert abs(value - expected) <= 1e-5 * expected
    assert (gradient - expected_gradient).norm() <= 1e-4 * expected_gradient.norm()


def test_a_sample_at_a_wrong_centroid_has_a_large_finite_loss() -> None:
    """π_y down to e^−300, which float32 does not hold."""
    torch.manual_seed(0)
    loss = NCMILoss(1000, 1024)
    labels = torch.arange(8)
    wrong = torch.eye(1024)[labels + 1] + 3e-4 * torch.randn(8, 1024)
    found = []
    for dtype in (torch.float32, torch.float64):
        f = wrong.to(dtype).requires_grad_()
        value = loss.to(dtype).loss(f, labels)
        found.append((value.detach().double(), torch.autograd.grad(value, f)[0].double()))
    (value, gradient), (expected, expected_gradient) = found
    assert expected > 100
    # the divergence from the wrong centroid is near its rounding
    torch.testing.assert_close(value, expected, rtol=1e-2, atol=0)
    assert (gradient - expected_gradient).norm() <= 0.02 * expected_gradient.norm()


def test_gradient_of_a_direction_under_autocast_is_that_without() -> None:
    gradients = []
    for enabled in (False, True):
        torch.manual_seed(0)
        f, weight = torch.randn(4, 64, requires_grad=True), torch.randn(4, 64)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            (unit_vector(f) * weight).sum().backward()
            (to_log_distribution(f, None, 0.5) * weight).sum().backward()
        gradients.append(f.grad)
    torch.testing.assert_close(*gradients)


def test_linear_terms() -> None:
    assert gradcheck(lambda a, b, s: _LinearTerms.apply(a, b, s, 3), (random(4, 5), random(4, 5), random(5)))


@pytest.mark.parametrize("block", [6, 2**18], ids=["many blocks", "one block"])
@pytest.mark.parametrize("scale", [0.5, 8.0], ids=["near uniform", "far from uniform"])
def test_sweep_terms(monkeypatch: pytest.MonkeyPatch, block: int, scale: float) -> None:
    """Both functions of the sweep at once; far from uniform it takes the branch for ratios close to zero."""
    monkeypatch.setattr(kernels, "_BLOCK", block)
    labels = torch.tensor([0, 2, 2, 1, 0])
    features, logits = random(5, 3), (scale * random(4, 3)).detach().requires_grad_()
    assert gradcheck(lambda f, z: kernels.sweep_terms(f, 0.3, labels, z), (features, logits))
    view = CentroidView(log_nsf(logits.detach()), "centroid_to_sample")
    assert gradcheck(lambda f: kernels.sweep_terms(f, 0.3, labels, view), (features,))


@pytest.mark.parametrize("direction", ["centroid_to_sample", "sample_to_centroid"])
def test_pairwise_divergence_and_power_means(direction: str) -> None:
    view = CentroidView(torch.randn(4, 6, dtype=torch.float64).log_softmax(1), direction)  # type: ignore[arg-type]

    def means(f: Tensor, power: float) -> Tensor:
        alpha = to_log_distribution(f, None, 0.5) + torch.log(torch.tensor(6.0, dtype=torch.float64))
        return wrong_class_mean(pairwise_divergence(alpha, *view.table(), view.direction), power)

    for power in (3.0, 1.0, 0.0, -4.0, -torch.inf, torch.inf):
        assert gradcheck(lambda f, power=power: means(f, power), (random(3, 6),))


def test_second_derivatives_are_refused_where_they_would_be_wrong() -> None:
    f = random(2, 3)
    (first,) = torch.autograd.grad(unit_vector(f).pow(3).sum(), f, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_zero_vector_has_the_gradient_of_the_identity() -> None:
    f = torch.zeros(2, 3, requires_grad=True)
    (unit_vector(f) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    torch.testing.assert_close(f.grad, torch.tensor([1.0, 2.0, 3.0]).expand(2, 3))


def test_divergences_lost_in_rounding_stay_positive() -> None:
    """A sum that rounds to zero or below keeps a finite ratio and logarithm."""
    sums = CentroidSums(torch.tensor([0.1, 0.2]), torch.tensor(0.3), torch.zeros(2))
    found = wrong_sum(torch.tensor([-0.2, -0.1 - 1e-8]), torch.tensor([0, 1]), sums)
    assert (found > 0).all()
    assert (found < 1e-7).all()
    uniform = torch.zeros(1, 2)
    assert pairwise_divergence(uniform, uniform, torch.zeros(1), "sample_to_centroid").log().isfinite().all()
