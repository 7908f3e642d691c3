"""Where each feature has its own length: steps cannot run away, and a large temperature drops out."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import ncmi
from ncmi.loss import equation

sizes = st.tuples(st.integers(1, 6), st.integers(2, 9), st.integers(2, 12))  # B, C, D
seeds = st.integers(0, 2**31)
temperatures = st.sampled_from([0.1, 0.5, 3.0])
scales = st.floats(-3, 3)


def problem(size: tuple[int, int, int], seed: int, temperature: float) -> tuple[ncmi.NCMILoss, Tensor, Tensor]:
    """A loss with random directions, features, labels; float64."""
    batch, classes, dim = size
    generator = torch.Generator().manual_seed(seed)
    loss = ncmi.NCMILoss(classes, dim, temperature=temperature, feature_length="own").double()
    with torch.no_grad():
        loss.centroid_logits.normal_(generator=generator)
    features = torch.randn(batch, dim, dtype=torch.float64, generator=generator)
    return loss, features, torch.randint(classes, (batch,), generator=generator)


def gradients(loss: ncmi.NCMILoss, features: Tensor, labels: Tensor) -> list[Tensor]:
    """Loss, gradient of the features, gradient of the directions."""
    f = features.clone().requires_grad_()
    value = loss.loss(f, labels)
    return [value.detach(), *torch.autograd.grad(value, (f, loss.centroid_logits))]


@given(sizes, seeds, temperatures, scales, scales)
def test_lengths_do_not_count(
    size: tuple[int, int, int], seed: int, temperature: float, one: float, other: float
) -> None:
    """Each class by its own factor, each sample by its own; a gradient shrinks as its vector grows."""
    loss, features, labels = problem(size, seed, temperature)
    value, by_features, by_directions = gradients(loss, features, labels)
    by_class = torch.logspace(one, other, size[1], dtype=torch.float64).unsqueeze(1)
    by_sample = torch.logspace(other, one, size[0], dtype=torch.float64).unsqueeze(1)
    with torch.no_grad():
        loss.centroid_logits *= by_class
    scaled, by_scaled_features, by_scaled_directions = gradients(loss, features * by_sample, labels)
    close = {"rtol": 1e-7, "atol": 1e-9}
    torch.testing.assert_close(scaled, value, **close)
    torch.testing.assert_close(by_scaled_features * by_sample, by_features, **close)
    torch.testing.assert_close(by_scaled_directions * by_class, by_directions, **close)


@given(sizes, seeds, temperatures)
def test_gradients_are_orthogonal_to_their_directions(
    size: tuple[int, int, int], seed: int, temperature: float
) -> None:
    """So a step makes a direction longer and the next step's turn smaller: none can run away."""
    loss, features, labels = problem(size, seed, temperature)
    _, by_features, by_directions = gradients(loss, features, labels)
    for gradient, vector in ((by_features, features), (by_directions, loss.centroid_logits.detach())):
        along = (gradient * vector).sum(1)
        assert (along.abs() <= 1e-12 + 1e-10 * gradient.norm(dim=1) * vector.norm(dim=1)).all()
    before = loss.centroid_logits.detach().norm(dim=1)
    stepped = loss.centroid_logits.detach() - 10.0 * by_directions
    assert (stepped.norm(dim=1) >= before * (1 - 1e-12)).all()


@given(sizes, seeds, st.sampled_from([1e-2, 1.0, 1e2]))
def test_centroids_stay_where_features_can_be(size: tuple[int, int, int], seed: int, rate: float) -> None:
    """After steps of any length every centroid is the distribution of some feature."""
    loss, features, labels = problem(size, seed, 0.5)
    optimizer = torch.optim.SGD(loss.parameters(), lr=rate, momentum=0.9)
    for _ in range(5):
        optimizer.zero_grad()
        loss(features, labels).backward()
        optimizer.step()
    reached = loss.log_distribution(loss.centroid_logits.detach())
    torch.testing.assert_close(loss.log_centroids().detach(), reached)
    assert loss.loss(features, labels).isfinite()


def mean_free(x: Tensor) -> Tensor:
    return x - x.mean(1, keepdim=True)


def squared_distances(features: Tensor, directions: Tensor) -> Tensor:
    """‖u' − w'_c‖², ``[B, C]``, of the unit vectors less the means of their components."""
    u, w = (mean_free(x / x.norm(dim=1, keepdim=True)) for x in (features, directions))
    return (u[:, None] - w[None]).square().sum(-1)


wide = st.tuples(st.integers(1, 6), st.integers(2, 9), st.integers(8, 64))


@given(wide, seeds, st.sampled_from([20.0, 50.0, 200.0]))
def test_large_temperature_leaves_distances_of_mean_free_vectors(
    size: tuple[int, int, int], seed: int, temperature: float
) -> None:
    """KL(P‖Q_c) = ‖u' − w'_c‖²/(8 D T²), to a relative error of 1/T: log(D·P) is half of the mean-free logits."""
    loss, features, _ = problem(size, seed, temperature)
    distances = squared_distances(features, loss.centroid_logits.detach())
    p, q = loss.log_distribution(features).exp(), loss.log_centroids().detach().exp()
    divergence = equation.divergences(p, q, "sample_to_centroid")
    alpha = (p * size[2]).log()
    half = mean_free(features / features.norm(dim=1, keepdim=True)) / (2 * temperature)
    assert ((alpha - half).norm(dim=1) <= half.norm(dim=1) / temperature).all()
    leading = distances / (8 * size[2] * temperature**2)
    assert ((divergence / leading - 1).abs() <= 1 / temperature).all()
    # so the likelihood depends on T no more: −γ log of the distance, up to a constant
    limit = torch.log_softmax(-loss.likelihood_power * distances.log(), dim=1)
    assert (loss.predict_log_proba(features).detach() - limit).abs().max() <= 4 * loss.likelihood_power / temperature


@given(wide, seeds)
def test_large_temperature_leaves_cosines(size: tuple[int, int, int], seed: int) -> None:
    """Of vectors that have no mean the distance is 2(1 − cos): the logits are −γ log(1 − cos) up to a constant."""
    loss, features, _ = problem(size, seed, 50.0)
    with torch.no_grad():
        loss.centroid_logits.copy_(mean_free(loss.centroid_logits))
    features = mean_free(features)
    w = loss.centroid_logits.detach()
    cosines = (features @ w.T) / (features.norm(dim=1, keepdim=True) * w.norm(dim=1))
    limit = torch.log_softmax(-loss.likelihood_power * torch.log1p(-cosines), dim=1)
    assert (loss.predict_log_proba(features).detach() - limit).abs().max() <= 4 * loss.likelihood_power / 50


def test_reflected_directions_are_lost_at_a_large_temperature() -> None:
    """Unit vectors that differ in the mean of their components alone: T = 0.5 tells them apart, T = 50 hardly."""
    one, other = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([[0.0, -1.0]], dtype=torch.float64)
    apart = []
    for temperature in (0.5, 50.0):
        p, q = (ncmi.to_log_distribution(x, None, temperature).exp() for x in (one, other))
        apart.append(math.sqrt(float((p * (p.log() - q.log())).sum()) * temperature**2))
    assert apart[0] > 10 * apart[1]
