"""Features that are all the same: what each form of the loss makes of them."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ncmi import log_nsf, ncmi_loss, to_log_distribution

Direction = Literal["centroid_to_sample", "sample_to_centroid"]


def collapsed(feature: Tensor, classes: int, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """One sample a class, all with this feature ``[D]``, and axis anchors."""
    anchors = log_nsf(10 * torch.eye(len(feature), dtype=torch.float64)[:classes])
    log_p = to_log_distribution(feature.expand(classes, -1), None, temperature)
    return log_p, torch.arange(classes), anchors


@pytest.mark.parametrize("reduction", ["mean_of_ratios", "ratio_of_means"])
def test_the_papers_separation_rewards_collapse(reduction: Literal["mean_of_ratios", "ratio_of_means"]) -> None:
    """Against one coordinate's negative direction KL(Q‖P) grows several times as fast as KL(P‖Q)."""
    towards = torch.zeros(512, dtype=torch.float64)
    towards[0] = -1
    direction: Direction = "centroid_to_sample"
    found = [
        float(ncmi_loss(*collapsed(feature, 100, 0.2), separation_direction=direction, reduction=reduction))
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
    ratio = ncmi_loss(*samples, separation_direction=direction, reduction="mean_of_ratios")
    assert float(ratio) >= classes / (classes - 1) * (1 - 1e-12)
    likelihood = ncmi_loss(*samples, separation_direction=direction, separation_power=power, reduction="log_likelihood")
    assert float(likelihood) >= math.log(classes) * (1 - 1e-12)
