"""The likelihood form in chunks of classes equals the plain equation, whatever the chunk, and says what it leaves out."""

from __future__ import annotations

import math
from typing import Any

import comparison
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import ncmi
from ncmi.loss import equation
from ncmi.loss.chunked import ChunkPlan, Skips, chunked_surprisal, sample_classes
from ncmi.loss.forms import FeatureLength
from ncmi.loss.likelihood import Map, plain_surprisal


def problem(
    classes: int, dim: int, length: FeatureLength, dtype: torch.dtype = torch.float64, **options: Any
) -> tuple[ncmi.NCMILoss, Tensor, Tensor]:
    """A loss with moved centroids; samples of which some lie close by their own and one by a wrong centroid."""
    torch.manual_seed(classes + dim)
    loss = ncmi.NCMILoss(classes, dim, feature_length=length, anchors="random", **options).to(dtype)
    size = loss.feature_length or 1.0
    with torch.no_grad():
        loss.centroid_logits += 0.3 * size * torch.randn(classes, dim) / math.sqrt(dim)
    features = size * torch.randn(12, dim, dtype=dtype) / math.sqrt(dim)
    labels = torch.randint(classes, (12,))
    centroids = loss.centroid_logits.detach()
    features[:4] = centroids[labels[:4]] + 0.05 * features[:4]
    features[4] = centroids[(labels[4] + 1) % classes] + 1e-3 * features[4]
    return loss, features.requires_grad_(), labels


def results(loss: ncmi.NCMILoss, features: Tensor, labels: Tensor) -> list[Tensor]:
    value = loss.loss(features, labels)
    upstream = torch.linspace(0.5, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
    wanted = [x for x in (features, loss.centroid_logits) if x.requires_grad]
    return [value.detach(), *torch.autograd.grad(value, wanted, upstream)]


@pytest.mark.parametrize("length", comparison.LENGTHS)
@pytest.mark.parametrize("chunk", [1, 7, 50, 1000])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"robustness": 0.7, "reduction": "sum"},
        {"label_smoothing": 0.1, "weight": torch.linspace(0.5, 2, 50)},
        {"reduction": "none", "weight": "balanced", "ignore_index": 3},
        {"anchor_scale": 5.0},
        {"centroids": "fixed"},
        {"centroids": "class_mean"},
        {"center": "frozen", "robustness": "auto"},
    ],
)
def test_equals_the_unchunked(chunk: int, length: FeatureLength, options: dict[str, Any]) -> None:
    loss, features, labels = problem(50, 16, length, **options)
    labels[7] = 3
    whole = results(loss, features, labels)
    loss.chunk_classes, loss.negligible = chunk, 0.0
    for part, expected in zip(results(loss, features, labels), whole, strict=True):
        assert comparison.relative_error(part, expected) <= 1e-12
    assert loss.skips == Skips(0, loss.skips.of_samples, 0, 50, 0.0)  # type: ignore[union-attr]


@pytest.mark.parametrize("length", comparison.LENGTHS)
def test_equals_the_equation(length: FeatureLength) -> None:
    loss, features, labels = problem(40, 24, length, chunk_classes=9)
    # close by a wrong centroid it is the plain sum that loses digits
    features, labels = features.detach()[5:].requires_grad_(), labels[5:]
    f, w = (x.detach().clone().requires_grad_() for x in (features, loss.centroid_logits))
    pi = equation.likelihoods(comparison.samples(loss, f), comparison.centroids(loss, w), loss.separation_power)
    value = -pi.log().gather(1, labels.unsqueeze(1)).mean()
    expected = [value.detach(), *torch.autograd.grad(value, (f, w), torch.tensor(0.5).double())]
    for part, other in zip(results(loss, features, labels), expected, strict=True):
        assert comparison.relative_error(part, other) <= 1e-12


@settings(max_examples=40, deadline=None)
@given(
    classes=st.integers(2, 40),
    dim=st.integers(2, 12),
    samples=st.integers(1, 6),
    chunk=st.integers(1, 50),
    length=st.sampled_from((None, 0.7, 4.0)),
    duplicates=st.booleans(),
    at_centroid=st.booleans(),
    seed=st.integers(0, 999),
)
def test_any_sizes(
    classes: int,
    dim: int,
    samples: int,
    chunk: int,
    length: float | None,
    duplicates: bool,
    at_centroid: bool,
    seed: int,
) -> None:
    """Chunks change nothing, also where centroids are equal or samples lie at them."""
    generator = torch.Generator().manual_seed(seed)
    to = Map(0.5, "nsf", length, -3.0)
    points = torch.randn(classes, dim, dtype=torch.float64, generator=generator)
    features = torch.randn(samples, dim, dtype=torch.float64, generator=generator)
    labels = torch.randint(classes, (samples,), generator=generator)
    if duplicates:
        points[classes // 2] = points[0]
    if at_centroid:
        features[0] = points[0]
    features.requires_grad_(), points.requires_grad_()
    whole = plain_surprisal(features, points, None, labels, to)
    part, _ = chunked_surprisal(features, points, None, labels, to, ChunkPlan(chunk, 0.0))
    torch.testing.assert_close(part, whole, rtol=1e-7, atol=1e-10)
    of_part, of_whole = (torch.autograd.grad(x.sum(), (features, points)) for x in (part, whole))
    if at_centroid:  # to be exactly there is to have a gradient of rounding
        assert all(x.isfinite().all() for x in of_part)
        return
    for one, other in zip(of_part, of_whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-12 + 1e-6 * other.abs().max().item())


@pytest.mark.parametrize("length", comparison.LENGTHS)
@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e3])
def test_extremes_of_float32(length: FeatureLength, size: float) -> None:
    loss, features, labels = problem(30, 8, length, torch.float32)
    with torch.no_grad():
        features *= size
        features[3] = 0
        loss.centroid_logits[5] *= size
    whole = results(loss, features, labels)
    loss.chunk_classes = 11
    for part, expected in zip(results(loss, features, labels), whole, strict=True):
        assert part.isfinite().all()
        assert comparison.relative_error(part, expected.double()) <= 1e-4


@pytest.mark.parametrize("length", comparison.LENGTHS)
def test_what_is_left_out_is_light_and_reported(length: FeatureLength) -> None:
    """Samples at their own class's centroid have no weight beside one that is wrong, nor have far centroids."""
    torch.manual_seed(0)
    loss = ncmi.NCMILoss(400, 32, feature_length=length, anchors="random", chunk_classes=64, separation_power=-40.0)
    loss.double()
    labels = torch.randint(400, (30,))
    features = loss.centroid_logits.detach()[labels].clone()
    features[1:] += 0.02 * features.norm(dim=1).mean() * torch.randn(29, 32, dtype=torch.float64)
    features[0] = loss.centroid_logits.detach()[7] + features[1] / 4
    features.requires_grad_()
    loss.negligible = 0.0
    exact = results(loss, features, labels)
    loss.negligible = 1e-7
    part = results(loss, features, labels)
    assert loss.skips is not None
    assert loss.skips.samples >= 20
    assert loss.skips.centroids > 0
    assert 0 <= loss.skips.share <= 1e-7
    assert torch.equal(part[0], exact[0])
    for one, other in zip(part[1:], exact[1:], strict=True):
        assert comparison.relative_error(one, other.double()) <= 1e-6
    untouched = (part[2] == 0).all(1)
    assert int(untouched.sum()) >= loss.skips.centroids
    assert not untouched[labels[0]]


def test_autocast_and_half_precision() -> None:
    loss, features, labels = problem(60, 16, "own", torch.float32, chunk_classes=17)
    for dtype in (torch.bfloat16, torch.float16):
        half = features.detach().to(dtype)
        expected = loss.loss(half.float(), labels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss.loss(half, labels)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected)


def test_derivatives_of_derivatives() -> None:
    loss, features, labels = problem(9, 6, "own", chunk_classes=4)
    features = features.detach()[5:8].requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda f, _: loss.loss(f, labels[5:8]), (features, loss.centroid_logits), fast_mode=True
    )


def test_state_and_function_transforms_do_not_know_of_chunks() -> None:
    chunked, whole = (ncmi.NCMILoss(20, 8, chunk_classes=size) for size in (3, "auto"))  # type: ignore[arg-type]
    whole.load_state_dict(chunked.state_dict())
    assert chunked.state_dict().keys() == whole.state_dict().keys()
    features, labels = torch.randn(4, 8), torch.arange(4)
    expected = torch.func.grad(lambda f: whole.loss(f, labels))(features)
    with pytest.warns(UserWarning, match="leave chunk_classes out"):
        gradient = torch.func.grad(lambda f: chunked.loss(f, labels))(features)
    torch.testing.assert_close(gradient, expected)
    with pytest.warns(UserWarning, match="leave chunk_classes out"):
        value = torch.compile(chunked.loss, backend="eager")(features, labels)
    torch.testing.assert_close(value, whole.loss(features, labels))


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"chunk_classes": 0}, "chunk_classes"),
        ({"chunk_classes": 4, "form": "mean_of_ratios", "separation_power": 1.0}, "auto"),
        ({"chunk_classes": 4, "distribution": "softmax"}, "auto"),
        ({"negligible": 1.0}, "negligible"),
        ({"sampled_classes": 5, "label_smoothing": 0.1}, "leave it out"),
        ({"sparse_gradient": True}, "sampled_classes"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], cure: str) -> None:
    with pytest.raises(ValueError, match=cure):
        ncmi.NCMILoss(20, 8, **options)


def test_soft_targets_are_refused_where_chunks_were_asked_for() -> None:
    loss = ncmi.NCMILoss(20, 8, chunk_classes=3)
    with pytest.raises(ValueError, match="soft targets"):
        loss(torch.randn(4, 8), torch.full((4, 20), 0.05))


# A sample of the classes


def test_a_sample_of_all_classes_is_exact() -> None:
    loss, features, labels = problem(30, 8, "own")
    whole = results(loss, features, labels)
    loss.sampled_classes = 30
    for part, expected in zip(results(loss, features, labels), whole, strict=True):
        assert comparison.relative_error(part, expected) <= 1e-12
    loss.sampled_classes = 10
    assert not torch.equal(results(loss, features, labels)[0], whole[0])
    loss.eval()
    torch.testing.assert_close(loss(features, labels), whole[0])


def test_samples_of_classes_hold_the_labels_and_stand_for_the_others() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([7, 7, 99, 0])
    times = torch.zeros(100, dtype=torch.float64)
    for _ in range(1000):
        sample = sample_classes(labels, 100, 10)
        assert torch.equal(sample.classes[sample.labels], labels)
        assert len(sample.classes.unique()) == len(sample.classes)
        times.index_add_(0, sample.classes, sample.offset.double().exp())
    # each class counts once on average: the labels' always, the others ten times in a hundred by about ten
    assert torch.equal(times[[0, 7, 99]], torch.full((3,), 1000.0).double())
    torch.testing.assert_close(times / 1000, torch.ones(100).double(), atol=0.45, rtol=0)


def test_sparse_gradient_of_a_sample() -> None:
    loss, features, labels = problem(200, 8, "own", sampled_classes=20, sparse_gradient=True)
    optimizer = torch.optim.SparseAdam(loss.parameters())
    before = loss.centroid_logits.detach().clone()
    loss(features, labels).backward()
    assert loss.centroid_logits.grad is not None
    assert loss.centroid_logits.grad.is_sparse
    optimizer.step()
    moved = (loss.centroid_logits.detach() != before).any(1)
    assert moved[labels].all()
    assert moved.sum() <= 20 + len(labels.unique())
