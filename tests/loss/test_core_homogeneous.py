"""The homogeneous coordinate: length counts, in the loss, the likelihood and the comparison with true centroids."""

from __future__ import annotations

import math
from typing import Any

import comparison
import pytest
import torch

import ncmi
from ncmi.loss import equation
from ncmi.objectives.options import make_objective

B, C, D = 7, 4, 9
FORMS: tuple[dict[str, Any], ...] = (
    {},
    {"center": "ema"},
    {"distribution": "softmax"},
    {"centroids": "class_mean"},
    {
        "anchor_scale": 5.0,
        "form": "mean_of_ratios",
        "separation_power": 1.0,
        "separation_direction": "centroid_to_sample",
        "center": "ema",
    },
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("h", [0.3, 1.0])
def test_values_and_gradients(form: dict[str, Any], h: float) -> None:
    torch.manual_seed(0)
    loss = ncmi.NCMILoss(C, D, temperature=0.4, homogeneous=h, **form).double()
    if loss.running_center is not None:
        loss.running_center.mean.normal_()
    features, labels = torch.randn(B, D, dtype=torch.float64, requires_grad=True), torch.randint(C, (B,))
    value = loss.loss(features, labels)
    found = torch.autograd.grad(value, (features, *loss.parameters()))

    z = loss.centroid_logits.detach().clone().requires_grad_()
    p = equation.distribution(features, loss.center, 0.4, loss.distribution, h)
    on_sphere = 0.4 if loss.on_feature_sphere else None
    q = comparison.centroids(z, on_sphere, loss.distribution)
    options = {"form": loss.form, "power": loss.separation_power, "direction": loss.separation_direction}
    expected = equation.loss(p, labels, q, **options)
    torch.testing.assert_close(value, expected)
    wanted = torch.autograd.grad(expected, (features, z) if loss.centroid_mode == "learned" else (features,))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_all_distributions_and_centroids_are_one_wider() -> None:
    loss = ncmi.NCMILoss(C, D, homogeneous=1.0)
    features = torch.randn(B, D)
    assert loss.feature_dim == D
    assert loss.log_distribution(features).shape == (B, D + 1)
    assert loss.log_centroids().shape == (C, D + 1)
    assert loss.predict_proba(features).shape == (B, C)
    again = ncmi.NCMILoss(C, D, homogeneous=1.0)
    again.load_state_dict(loss.state_dict())
    with pytest.raises(RuntimeError, match=r"homogeneous=1\.0"):
        ncmi.NCMILoss(C, D).load_state_dict(loss.state_dict())


def test_length_counts_with_it_and_not_without() -> None:
    """Two classes along one ray: no direction tells them apart."""
    torch.manual_seed(0)
    ray = torch.rand(D)
    lengths = torch.cat([1 + torch.rand(40), 4 + torch.rand(40)])
    features, labels = lengths[:, None] * ray, torch.arange(2).repeat_interleave(40)
    right = {}
    for h in (0.0, 1.0):
        loss = ncmi.NCMILoss(2, D, homogeneous=h)
        optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
        for _ in range(200):
            optimizer.zero_grad()
            loss(features, labels).backward()
            optimizer.step()
        comparison = loss.centroid_classifier().fit(features, labels)
        right[h] = [float((guess == labels).float().mean()) for guess in
                    (loss.scores(features).argmax(1), comparison.predict(features))]  # fmt: skip
    assert right[1.0] == [1.0, 1.0]
    assert max(right[0.0]) < 0.9


def test_true_centroids_have_it_too() -> None:
    torch.manual_seed(0)
    loss = ncmi.NCMILoss(C, D, homogeneous=0.5, center="frozen", center_updates=2)
    features, labels = torch.randn(40, D, dtype=torch.float64), torch.randint(C, (40,))
    loss(features.float(), labels)
    classifier = loss.centroid_classifier().double().fit(features, labels)
    p = equation.distribution(features, classifier.center, 0.5, "nsf", 0.5)
    means = torch.stack(list(equation.true_centroids(p, labels).values()))
    torch.testing.assert_close(classifier.centroids, means)
    torch.testing.assert_close(classifier.divergences(features), equation.divergences(p, means, "sample_to_centroid"))


def test_a_feature_at_the_center_still_has_a_place() -> None:
    found = ncmi.to_log_distribution(torch.zeros(1, D), None, 0.5, homogeneous=1.0).exp()
    assert found.argmax() == D
    torch.testing.assert_close(found.sum(), torch.tensor(1.0))


@pytest.mark.parametrize("h", [-1.0, math.inf, math.nan])
def test_not_a_coordinate(h: float) -> None:
    with pytest.raises(ValueError, match="homogeneous="):
        ncmi.NCMILoss(C, D, homogeneous=h)


def test_an_option_by_name() -> None:
    assert make_objective("ncmi", C, D, homogeneous=1.0).log_distribution(torch.randn(2, D)).shape == (2, D + 1)
