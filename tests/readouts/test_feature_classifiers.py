"""What centroid comparison, linear probe and neighbors have in common: methods, export, and state that is never stale."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ncmi
from ncmi.loss import equation
from ncmi.loss.centroids import CentroidClassifier, FeatureClassifier
from ncmi.loss.divergence import pairwise_divergence
from ncmi.loss.forms import common_length

C, D = 4, 6
MAKERS: dict[str, Callable[[], FeatureClassifier]] = {
    "cc": lambda: ncmi.CentroidClassifier(C, D, chunk_classes=3),
    "lp": lambda: ncmi.LinearProbe(C, D),
    "knn": lambda: ncmi.NearestNeighbors(C, k=5, chunk=7),
}


def problem(samples: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % C
    return torch.eye(C, D)[labels] + 0.5 * torch.randn(samples, D, generator=generator), labels


def fitted(name: str) -> Any:
    return MAKERS[name]().fit(*problem())  # type: ignore[operator]


def probabilities(name: str, model: Any, features: Tensor) -> Tensor:
    """By plain sums in float64."""
    x = features.double()
    if name == "lp":
        z = (x - model.mean.double()) / model.scale.double()
        return torch.softmax(z @ model.linear.weight.double().T + model.linear.bias.double(), 1).detach()
    train, labels = problem()
    if name == "cc":
        p, q = (equation.distribution(f.double(), None, 0.5) for f in (x, train))
        divergences = equation.divergences(
            p, torch.stack([q[labels == c].mean(0) for c in range(C)]), "sample_to_centroid"
        )
        odds = divergences**-4.0
        return odds / odds.sum(1, keepdim=True)
    cosines = torch.nn.functional.cosine_similarity(x[:, None], train.double()[None], dim=-1)
    least = cosines.sort(dim=1, descending=True).values[:, 4:5]
    weights = torch.where(cosines >= least, (cosines / 0.1).exp(), 0.0)
    votes = torch.stack([weights[:, labels == c].sum(1) for c in range(C)], 1)
    return votes / votes.sum(1, keepdim=True)


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_methods_give_the_same_shapes(name: str) -> None:
    model, (features, _) = fitted(name), problem(23, seed=1)
    expected = probabilities(name, model, features)
    torch.testing.assert_close(model.predict_proba(features).double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(features).exp().double(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(model(features), model.predict_log_proba(features))
    assert torch.equal(model.predict(features), expected.argmax(1))
    assert torch.equal(model.predict(features), model.top_k(features, 1)[:, 0])
    chosen = expected.gather(1, model.top_k(features, k=3))
    torch.testing.assert_close(chosen, expected.topk(3).values, rtol=1e-4, atol=1e-5)
    assert not model(features.requires_grad_()).requires_grad
    for k in (0, C + 1):
        with pytest.raises(ValueError, match=f"k={k}: choose 1 to 4, the number of classes"):
            model.top_k(features, k)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_of_any_integer_dtype_and_what_is_no_tensor(name: str, dtype: torch.dtype) -> None:
    features, labels = problem()
    found = MAKERS[name]().fit(features, labels.to(dtype))  # type: ignore[operator]
    assert torch.equal(found(features), fitted(name)(features))
    with pytest.raises(TypeError, match=r"labels are a list: pass a tensor, torch.as_tensor\(labels\)"):
        MAKERS[name]().fit(features, labels.tolist())  # type: ignore[operator]
    with pytest.raises(TypeError, match="features are a ndarray: pass a tensor"):
        given = (features.numpy(), labels)
        MAKERS[name]().fit(*([[given]] if name == "cc" else given))  # type: ignore[operator]


@pytest.mark.parametrize("name", MAKERS)
def test_export_with_any_batch(name: str) -> None:
    model, (features, _) = fitted(name).eval(), problem(9, seed=1)
    program = torch.export.export(model, (features,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for new in (features, problem(31, seed=2)[0]):
        torch.testing.assert_close(program.module()(new), model(new), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.filterwarnings("ignore")
def test_onnx_with_any_batch(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model, (features, _) = fitted(name).eval(), problem(9, seed=1)
    shapes = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(model, (features,), tmp_path / "m.onnx", dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    for new in (features, problem(31, seed=2)[0]):
        (found,) = session.run(None, {session.get_inputs()[0].name: new.numpy()})
        np.testing.assert_allclose(found, model(new), rtol=1e-5, atol=1e-5)


def plain(classifier: CentroidClassifier, features: Tensor) -> Tensor:
    p = equation.distribution(features.double(), None, 0.5)
    return equation.divergences(p, classifier.sums / classifier.counts.unsqueeze(1), "sample_to_centroid")


def test_tables_are_computed_once_and_never_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, (features, labels) = fitted("cc"), problem(11, seed=3)

    def check(model: CentroidClassifier) -> None:
        torch.testing.assert_close(
            model.divergences(features.to(model.center)).double(), plain(model, features), rtol=1e-4, atol=1e-6
        )

    check(classifier)
    with monkeypatch.context() as patch:
        patch.setattr(CentroidClassifier, "_new_tables", lambda *_: pytest.fail("computed again"))
        check(classifier)
        classifier.predict(features)
    other = ncmi.CentroidClassifier(C, D).fit(features, labels)
    classifier.load_state_dict(other.state_dict())
    check(classifier)
    torch.testing.assert_close(classifier(features), other(features))
    classifier.sums.mul_(torch.linspace(0.5, 1.0, D)).div_(
        classifier.sums.sum(1, keepdim=True) / classifier.counts[:, None]
    )
    check(classifier)
    classifier.partial_fit(-features, labels)
    check(classifier)
    classifier.sums = other.sums + 1 / D
    classifier.counts = other.counts + 1
    check(classifier)
    with torch.inference_mode():
        check(classifier)
        classifier.partial_fit(features.roll(1, 1), labels)
        check(classifier)
    check(classifier)
    for copied in (copy.deepcopy(classifier), pickle.loads(pickle.dumps(classifier))):
        check(copied)
        copied.sums.copy_(other.sums.roll(1, 0))
        copied.counts.copy_(other.counts.roll(1, 0))
        check(copied)
        check(classifier)
    check(classifier.double())  # the same buffers, in another precision
    exact = classifier.fit(problem()[0].double(), problem()[1]).divergences(features.double())
    torch.testing.assert_close(exact, plain(classifier, features), rtol=1e-9, atol=1e-13)
    assert set(classifier.state_dict()) == {"sums", "counts", "center"}
    state = {"sums": other.sums, "counts": other.counts}
    found = torch.func.functional_call(classifier.float(), state, (features,))
    torch.testing.assert_close(found, other(features), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_not_fitted_decides_nothing(name: str) -> None:
    features, _ = problem(11, seed=3)
    unfitted = MAKERS[name]()
    loaded = MAKERS[name]()
    loaded.load_state_dict(unfitted.state_dict())
    for each in (unfitted, loaded):
        for decide in (each, each.evidence, each.predict, each.predict_proba, each.predict_log_proba):
            with pytest.raises(RuntimeError, match=r"call fit\(features, labels\) first"):
                decide(features)
        with pytest.raises(RuntimeError, match=r"call fit"):
            each.top_k(features, 1)
    loaded.load_state_dict(fitted(name).state_dict())
    assert torch.equal(loaded.predict(features), fitted(name).predict(features))


def test_a_probe_of_features_that_say_nothing_is_fitted() -> None:
    probe = ncmi.LinearProbe(2, 3).fit(torch.zeros(4, 3), torch.tensor([0, 1, 0, 1]))
    torch.testing.assert_close(probe.predict_proba(torch.zeros(1, 3)), torch.full((1, 2), 0.5))


def test_the_state_of_neighbors_loads_into_unfitted_ones() -> None:
    features, _ = problem(11, seed=3)
    neighbors = fitted("knn")
    before = neighbors(features)
    other = ncmi.NearestNeighbors(C, k=5)
    other.load_state_dict(neighbors.state_dict())
    assert torch.equal(other(features), before)
    other.fit(*problem(20, seed=5))
    assert torch.equal(neighbors(features), before)
    assert not torch.equal(other(features), before)


@pytest.mark.parametrize("chunk", [2, 4096])
@pytest.mark.parametrize("length", ["own", "common"])
def test_a_small_distance_from_a_centroid_is_exact(length: Any, chunk: int) -> None:
    """Such as that of a training sample from its class: a millionth of KL(·‖U), whose rounding the matrix product has."""
    classes, dim = 5, 64
    centers = 3 * torch.randn(classes, dim, generator=torch.Generator().manual_seed(1))
    model = CentroidClassifier(classes, dim, feature_length=length, chunk_classes=chunk)
    model.fit(centers, torch.arange(classes))
    near = centers + 1e-3 * torch.randn(classes, dim, generator=torch.Generator().manual_seed(2))
    s = common_length(length, dim)
    p, q = (equation.distribution(x.double(), None, model.temperature, length=s) for x in (near, centers))
    expected = equation.kl(p, q)
    found = model.divergences(near)
    torch.testing.assert_close(found.diagonal().double(), expected, rtol=1e-2, atol=0.0)
    # without the exact form this would not hold
    alpha, (_, tables) = (p * dim).log().float(), model._tables(torch.float32)
    product = torch.cat([pairwise_divergence(alpha, *table, "sample_to_centroid") for table in tables], dim=1)
    assert ((product.diagonal().double() - expected) / expected).abs().max() > 0.02
    assert torch.equal(found.argmin(1), torch.arange(classes))


def test_centroids_in_one_place_are_equally_near() -> None:
    """What rounding leaves of their distances favors none of them."""
    center = torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    model = CentroidClassifier(3, 16).fit(torch.cat([center, center, -center]), torch.arange(3))
    assert model.predict_proba(center)[0].tolist() == pytest.approx([0.5, 0.5, 0.0], abs=1e-6)
