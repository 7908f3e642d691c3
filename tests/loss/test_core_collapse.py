"""Features that are all the same: what each form of the loss makes of them."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ncmi import NCMILoss, log_nsf, ncmi_loss, to_log_distribution

Direction = Literal["centroid_to_sample", "sample_to_centroid"]


def collapsed(feature: Tensor, classes: int, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """One sample a class, all with this feature ``[D]``, and axis anchors."""
    anchors = log_nsf(10 * torch.eye(len(feature), dtype=torch.float64)[:classes])
    log_p = to_log_distribution(feature.expand(classes, -1), None, temperature)
    return log_p, torch.arange(classes), anchors


@pytest.mark.parametrize("form", ["mean_of_ratios", "ratio_of_means"])
def test_the_papers_separation_rewards_collapse(form: Literal["mean_of_ratios", "ratio_of_means"]) -> None:
    """Against one coordinate's negative direction KL(Q‖P) grows several times as fast as KL(P‖Q)."""
    towards = torch.zeros(512, dtype=torch.float64)
    towards[0] = -1
    direction: Direction = "centroid_to_sample"
    found = [
        float(ncmi_loss(*collapsed(feature, 100, 0.2), separation_direction=direction, form=form))
        for feature in (torch.ones(512, dtype=torch.float64), towards)
    ]
    assert found[0] == pytest.approx(0.80, abs=0.01)
    assert found[1] == pytest.approx(0.33, abs=0.01)


@given(
    st.integers(2, 12),
    st.integers(0, 20),
    st.sampled_from([0.1, 0.2, 0.5, 1.0]),
    st.integers(0, 10**6),
    st.sampled_from([-8.0, -4.0, -1.0]),
)
def test_collapse_never_costs_less_than_chance_by_the_deciding_divergence(
    classes: int, spare: int, temperature: float, seed: int, power: float
) -> None:
    feature = torch.randn(classes + spare, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    samples = collapsed(feature, classes, temperature)
    direction: Direction = "sample_to_centroid"
    ratio = ncmi_loss(*samples, separation_direction=direction, form="mean_of_ratios")
    assert float(ratio) >= classes / (classes - 1) * (1 - 1e-12)
    likelihood = ncmi_loss(*samples, separation_direction=direction, separation_power=power, form="likelihood")
    assert float(likelihood) >= math.log(classes) * (1 - 1e-12)


@given(
    st.integers(2, 12),
    st.integers(2, 20),
    st.sampled_from([0.1, 0.5, 2.0]),
    st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    st.sampled_from([0.0, 0.01, 1.0]),
    st.integers(0, 10**6),
)
def test_collapse_never_costs_less_than_chance_by_default(
    classes: int, dim: int, temperature: float, robustness: float, spread: float, seed: int
) -> None:
    """Wherever the centroids have gone: a mean of −log π_c over all c is log C at least, and the bounded form has its
    own value of chance. The centroids' spread about the feature goes from none to all directions."""
    loss = NCMILoss(classes, dim, temperature=temperature, robustness=robustness).double()
    generator = torch.Generator().manual_seed(seed)
    feature = torch.randn(dim, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        noise = torch.randn(classes, dim, dtype=torch.float64, generator=generator)
        loss.centroid_logits.copy_((1 - spread) * feature + spread * noise)
    repeated = torch.arange(classes).repeat(3)
    found = float(loss.loss(feature.expand(len(repeated), -1), repeated).detach())
    chance = (1 - classes**-robustness) / robustness if robustness else math.log(classes)
    assert found >= chance * (1 - 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [0.0, 1e-9, 1e-7])
@pytest.mark.parametrize(("classes", "dim"), [(2, 2), (5, 8), (100, 512)])
def test_all_centroids_at_the_sample_are_no_certainty(
    classes: int, dim: int, spread: float, dtype: torch.dtype
) -> None:
    """Where nothing but rounding is left of the divergences, the own class's is as rounded as the others'."""
    loss = NCMILoss(classes, dim)
    feature = torch.randn(dim, dtype=torch.float64)
    with torch.no_grad():
        loss.double().centroid_logits.copy_(feature + spread * torch.randn(classes, dim, dtype=torch.float64))
    features = feature.expand(classes, -1).to(dtype).requires_grad_()
    value = loss.to(dtype)(features, torch.arange(classes))
    assert float(value.detach()) >= math.log(classes) * (1 - 1e-5)
    value.backward()
    assert loss.centroid_logits.grad is not None
    assert features.grad is not None
    assert loss.centroid_logits.grad.isfinite().all()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("classes", "dim"), [(2, 2), (5, 8), (100, 512)])
def test_divergences_that_are_rounding_alone_pull_nowhere(classes: int, dim: int, dtype: torch.dtype) -> None:
    """All centroids in one place and the sample there: what was raised to its rounding does not follow its input."""
    loss = NCMILoss(classes, dim).to(dtype)
    feature = torch.randn(dim, dtype=dtype)
    with torch.no_grad():
        loss.centroid_logits.copy_(feature.expand(classes, -1))
    features = feature.expand(classes, -1).clone().requires_grad_()
    loss.loss(features, torch.arange(classes)).backward()
    for gradient in (features.grad, loss.centroid_logits.grad):
        assert gradient is not None
        assert float(gradient.norm()) == 0
