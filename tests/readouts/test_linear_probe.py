"""The linear probe against scikit-learn's logistic regression."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ncmi import LinearProbe
from ncmi.data.load import load_dataset


def problem(classes: int = 3, samples: int = 200, dim: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(classes)
    labels = torch.arange(samples) % classes
    centers = torch.randn(classes, dim, generator=generator)
    scales = torch.logspace(-2, 3, dim)  # no two columns alike
    return (centers[labels] + 1.5 * torch.randn(samples, dim, generator=generator)) * scales + 7 * scales, labels


def sklearn_probabilities(features: Tensor, labels: Tensor, l2: float, at: Tensor) -> np.ndarray[Any, Any]:
    """mean CE + (l2/2)‖W‖² has the minimum of ½‖W‖² + C·Σ CE at C = 1/(N·l2); with two classes scikit-learn's one
    vector of weights is the difference of our two, whose squares add up to half of its own."""
    scaler = StandardScaler().fit(features.double().numpy())
    c = (2 if int(labels.max()) == 1 else 1) / (len(labels) * l2)
    regression = LogisticRegression(C=c, tol=1e-10, max_iter=10_000)
    regression.fit(scaler.transform(features.double().numpy()), labels.numpy())
    return np.asarray(regression.predict_proba(scaler.transform(at.double().numpy())))


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("l2", [1e-3, 0.1])
def test_equals_logistic_regression(classes: int, l2: float) -> None:
    features, labels = problem(classes)
    probe = LinearProbe(classes, 6, l2=l2).fit(features, labels)
    new = problem(classes + 1)[0]
    for at in (features, new):
        expected = sklearn_probabilities(features, labels, l2, at)
        np.testing.assert_allclose(probe.predict_log_proba(at).exp(), expected, atol=1e-4)
        np.testing.assert_array_equal(probe.predict(at), expected.argmax(1))
        torch.testing.assert_close(probe(at), probe.logits(at).log_softmax(-1))


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
def test_weights_are_repetitions(solver: Any) -> None:
    """Of the same standardized columns; by SGD nearly, whose batches differ."""
    features, labels = problem(samples=60)
    features = (features - features.mean(0)) / features.std(0, correction=0)
    weights = torch.arange(60) % 4
    probe = LinearProbe(3, 6, solver=solver, batch_size=10_000, epochs=300).fit(features, labels, weights)
    scaler = StandardScaler().fit(features.double().numpy())
    regression = LogisticRegression(C=1 / (1e-3 * int(weights.sum())), tol=1e-10, max_iter=10_000)
    regression.fit(scaler.transform(features.double().numpy()), labels.numpy(), sample_weight=weights.numpy())
    expected = regression.predict_proba(scaler.transform(features.double().numpy()))
    np.testing.assert_allclose(probe.predict_proba(features), expected, atol=1e-4 if solver == "lbfgs" else 0.1)


def test_real_data_and_more_features_than_samples() -> None:
    data = load_dataset("wine")
    wide = torch.cat([data.inputs, data.inputs.square(), data.inputs.sqrt()], dim=1).repeat(1, 3)[::2]
    labels = data.labels[::2]
    probe = LinearProbe(3, wide.shape[1], l2=1e-2).fit(wide, labels)
    expected = sklearn_probabilities(wide, labels, 1e-2, wide)
    np.testing.assert_allclose(probe.predict_log_proba(wide).exp(), expected, atol=1e-4)


def test_the_minimum_is_a_minimum() -> None:
    features, labels = problem()
    probe = LinearProbe(3, 6, l2=0.01).fit(features, labels)
    x = (features.double() - features.double().mean(0)) / features.double().std(0, correction=0)
    weight, bias = (p.detach().double().requires_grad_() for p in (probe.linear.weight, probe.linear.bias))
    objective = torch.nn.functional.cross_entropy(x @ weight.T + bias, labels) + 0.005 * weight.square().sum()
    objective.backward()
    assert float(weight.grad.abs().max()) < 1e-6  # type: ignore[union-attr]
    assert float(bias.grad.abs().max()) < 1e-6  # type: ignore[union-attr]


def test_sgd_comes_close() -> None:
    features, labels = problem()
    exact = LinearProbe(3, 6, l2=0.01).fit(features, labels)
    sgd = LinearProbe(3, 6, l2=0.01, solver="sgd", batch_size=32).fit(features, labels)
    # batches of another order end elsewhere, near by
    other = LinearProbe(3, 6, l2=0.01, solver="sgd", batch_size=32, seed=1).fit(features, labels)
    assert not torch.equal(sgd.linear.weight, other.linear.weight)
    for probe in (sgd, other):
        error = probe.predict_log_proba(features).exp() - exact.predict_log_proba(features).exp()
        assert float(error.abs().max()) < 0.06
    # the whole set as one batch, and long enough: the same minimum
    full = LinearProbe(3, 6, l2=0.01, solver="sgd", epochs=400).fit(features, labels)
    torch.testing.assert_close(
        full.predict_log_proba(features).exp(), exact.predict_log_proba(features).exp(), atol=1e-4, rtol=0
    )
    again = LinearProbe(3, 6, l2=0.01, solver="sgd", batch_size=32).fit(features, labels)
    assert torch.equal(sgd.linear.weight, again.linear.weight)


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_any_precision_of_features(solver: Any, dtype: torch.dtype) -> None:
    features, labels = problem()
    features = (features / features.abs().amax(0)).to(dtype)
    probe = LinearProbe(3, 6, solver=solver, epochs=2).fit(features, labels)
    same = LinearProbe(3, 6, solver=solver, epochs=2).fit(features.float(), labels)
    assert probe.predict_log_proba(features).dtype == torch.float32
    torch.testing.assert_close(probe.logits(features), same.logits(features.float()), atol=1e-4, rtol=1e-4)


def test_fit_forgets_and_leaves_the_features_alone() -> None:
    features, labels = problem()
    before = features.clone().requires_grad_()
    probe = LinearProbe(3, 6).fit(features * 5 + 1, (labels + 1) % 3)
    with torch.no_grad():  # as an evaluation would call it
        probe.fit(before, labels)
    assert before.grad is None
    assert torch.equal(before, features)
    fresh = LinearProbe(3, 6).fit(features, labels)
    assert all(torch.equal(a, b) for a, b in zip(probe.state_dict().values(), fresh.state_dict().values(), strict=True))
    copy = LinearProbe(3, 6)
    copy.load_state_dict(fresh.state_dict())
    assert torch.equal(copy.logits(features), fresh.logits(features))


@pytest.mark.parametrize("value", [0.1, 1e4 + 0.1, 0.0, -3e-7])
def test_a_constant_column_has_no_say(value: float) -> None:
    features, labels = problem()
    with_constant = torch.cat([features, torch.full((len(features), 1), value)], dim=1)
    probe = LinearProbe(3, 7).fit(with_constant, labels)
    assert probe.scale[-1] == 1
    plain = LinearProbe(3, 6).fit(features, labels)
    moved = with_constant.clone()
    moved[:, -1] += 1e-3
    torch.testing.assert_close(probe.logits(moved), plain.logits(features), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "adam"}, "unknown solver 'adam': .*'lbfgs'"),
        ({"l2": -1.0}, "l2=-1.0: must be at least 0"),
        ({"l2": "0.1"}, "l2='0.1': must be a number"),
        ({"num_classes": 3.0}, "num_classes=3.0: must be a whole number"),
        ({"feature_dim": 4.5}, "feature_dim=4.5: must be a whole number"),
        ({"epochs": 1.5}, "epochs=1.5: must be a whole number"),
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
        ({"learning_rate": float("inf")}, "learning_rate=inf: must be above 0 and finite"),
        ({"num_classes": 1}, "num_classes=1, .*needs at least 2 classes"),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearProbe(**{"num_classes": 3, "feature_dim": 4, **options})


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (torch.ones(2, 4), torch.tensor([0, 3]), "labels run to 3 but num_classes is 3"),
        (torch.ones(2, 4), torch.tensor([0, -1]), "labels run from -1"),
        (torch.ones(2, 4), torch.tensor([0.0, 1.0]), "must be integers"),
        (torch.ones(3, 4), torch.tensor([0, 1]), r"features \[3, 4\] and 2 labels: give \[N, D\]"),
        (torch.ones(2, 2, 4), torch.tensor([0, 1]), r"features \[2, 2, 4\] and 2 labels"),
        (torch.tensor([[1.0, float("nan")]]), torch.tensor([0]), "NaN or infinity: the network that made them has div"),
        (torch.tensor([[1.0, float("inf")]]), torch.tensor([0]), "NaN or infinity"),
        (torch.ones(0, 4), torch.ones(0, dtype=torch.long), "empty batch"),
    ],
)
def test_what_cannot_be_fitted(features: Tensor, labels: Tensor, message: str) -> None:
    from ncmi import NearestNeighbors

    for readout in (LinearProbe(3, 4), NearestNeighbors(3)):
        with pytest.raises(ValueError, match=message):
            readout.fit(features, labels)
