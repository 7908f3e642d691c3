"""CMI, Γ and NCMI against sums over all pairs, and centroid comparison against plain divergences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import ncmi
from ncmi.loss import equation


def outputs(n: int, dim: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    log_p = (2 * torch.randn(n, dim, generator=generator, dtype=torch.float64)).log_softmax(-1)
    return log_p, torch.randint(classes, (n,), generator=generator)


@pytest.mark.parametrize("separation", ["centroid_kl", "cross_entropy"])
def test_measure_equals_the_sums_over_all_pairs(separation: str) -> None:
    log_p, labels = outputs(500, 12, 7)
    measures = ncmi.measure(log_p, labels, 7, separation)  # type: ignore[arg-type]
    p = log_p.exp()
    assert measures.cmi == pytest.approx(float(equation.cmi(p, labels)), rel=1e-9)
    assert (
        measures.gamma == measures.separation == pytest.approx(float(equation.gamma(p, labels, separation)), rel=1e-9)
    )
    assert measures.ncmi == pytest.approx(float(equation.ncmi(p, labels, separation)), rel=1e-9)
    by_class = equation.class_cmi(p, labels)
    assert measures.per_class_cmi.tolist() == pytest.approx([float(by_class[c]) for c in range(7)], rel=1e-9)


@given(st.integers(2, 40), st.integers(2, 6), st.integers(2, 4), st.integers(1, 39), st.integers(0, 1000))
def test_parts_add_up(n: int, dim: int, classes: int, cut: int, seed: int) -> None:
    log_p, labels = outputs(n, dim, classes, seed)
    whole = ncmi.measure(log_p, labels, classes)
    parts = [ncmi.InformationAccumulator(classes, dim) for _ in range(2)]
    parts[0].update(log_p[:cut], labels[:cut])
    parts[1].update(log_p[cut:], labels[cut:])
    merged = parts[0].merge(parts[1]).compute()
    assert merged.cmi == pytest.approx(whole.cmi, rel=1e-9, abs=1e-12)
    assert merged.separation == pytest.approx(whole.separation, rel=1e-9, abs=1e-12)
    assert whole.cmi >= 0


def test_many_chunks_are_one_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    log_p, labels = outputs(101, 6, 3)
    whole = ncmi.measure(log_p, labels, 3)
    monkeypatch.setattr("ncmi.loss.information._CHUNK", 7)
    assert ncmi.measure(log_p, labels, 3)[:3] == pytest.approx(whole[:3], rel=1e-12)


def test_a_class_without_samples_is_left_out() -> None:
    log_p, labels = outputs(60, 5, 3)
    with_gap = ncmi.measure(log_p, torch.where(labels == 2, 3, labels), 4)
    assert with_gap[:3] == pytest.approx(ncmi.measure(log_p, labels, 3)[:3], rel=1e-12)
    assert math.isnan(float(with_gap.per_class_cmi[2]))


def test_one_class_has_no_separation() -> None:
    log_p, _ = outputs(10, 4, 2)
    found = ncmi.measure(log_p, torch.zeros(10, dtype=torch.long), 1)
    assert found.separation == pytest.approx(0, abs=1e-12)
    assert math.isnan(found.ncmi)


def test_equal_distributions_have_no_concentration_to_lose() -> None:
    log_p = torch.tensor([[0.3, 0.7]], dtype=torch.float64).log().expand(5, 2)
    assert ncmi.measure(log_p, torch.zeros(5, dtype=torch.long), 1).cmi == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(
    ("log_p", "labels", "message"),
    [
        (torch.zeros(2, 3), torch.tensor([0, 1]), "not log-distributions: apply"),
        (torch.full((2, 3), torch.nan), torch.tensor([0, 1]), "holds NaN: check"),
        (torch.full((2, 3), math.nan), torch.tensor([0, 1]), "NaN"),
        (torch.tensor([[0.0, -math.inf]]), torch.tensor([0]), "exactly 0"),
        (torch.randn(2, 3).log_softmax(-1), torch.tensor([0, 5]), "num_classes"),
        (torch.randn(2, 3).log_softmax(-1), torch.tensor([0]), "one label for each sample"),
    ],
)
def test_measure_refuses(log_p: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ncmi.measure(log_p, labels, 2)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_maps_and_labels_that_do_not_count(dtype: torch.dtype) -> None:
    """As the rows that count, one below the other."""
    log_p, labels = outputs(120, 5, 3)
    ignored = torch.arange(120) % 7 == 0
    expected = ncmi.measure(log_p[~ignored], labels[~ignored], 3)
    marked = labels.masked_fill(ignored, 255).to(dtype) if dtype == torch.uint8 else labels.to(dtype)
    marked = marked if dtype == torch.uint8 else marked.masked_fill(ignored, -100)
    ignore = {"ignore_index": 255} if dtype == torch.uint8 else {}
    maps = log_p.reshape(2, 10, 6, 5).movedim(-1, 1)
    found = ncmi.measure(maps, marked.reshape(2, 10, 6), 3, **ignore)
    assert found[:3] == pytest.approx(expected[:3], rel=1e-12)
    torch.testing.assert_close(found.per_class_cmi, expected.per_class_cmi)
    accumulator = ncmi.InformationAccumulator(3, 5, **ignore)
    for part, of_part in zip(maps, marked.reshape(2, 10, 6), strict=True):
        accumulator.update(part.unsqueeze(0), of_part.unsqueeze(0))
    before = accumulator.update(log_p[ignored], marked[ignored]).compute()
    assert before[:3] == pytest.approx(expected[:3], rel=1e-12)
    with pytest.raises(ValueError, match="no samples yet"):
        ncmi.measure(log_p[ignored], marked[ignored], 3, **ignore)


def test_what_is_no_tensor_or_no_class_is_said() -> None:
    log_p, labels = outputs(8, 4, 2)
    with pytest.raises(TypeError, match=r"labels are a list: pass a tensor, torch.as_tensor\(labels\)"):
        ncmi.measure(log_p, labels.tolist(), 2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="log_p are a ndarray: pass a tensor"):
        ncmi.measure(log_p.numpy(), labels, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pass integer labels, not soft targets"):
        ncmi.measure(log_p, torch.nn.functional.one_hot(labels, 2).double(), 2)


def test_the_state_of_an_accumulator() -> None:
    log_p, labels = outputs(50, 6, 3)
    first = ncmi.InformationAccumulator(3, 6).update(log_p[:20], labels[:20])
    state = first.state_dict()
    assert torch.equal(state["counts"], torch.bincount(labels[:20], minlength=3).double())
    second = ncmi.InformationAccumulator(3, 6)
    second.load_state_dict(state)
    first.update(log_p[20:], labels[20:])  # what was given is a copy
    second.update(log_p[20:], labels[20:])
    assert second.compute()[:3] == first.compute()[:3] == ncmi.measure(log_p, labels, 3)[:3]
    assert second.reset().update(log_p[:9], labels[:9]).compute()[:3] == ncmi.measure(log_p[:9], labels[:9], 3)[:3]
    assert second.to("cpu") is second
    assert first.to("meta").counts.device.type == "meta"
    for other in ({"counts": state["counts"]}, ncmi.InformationAccumulator(3, 5).state_dict()):
        with pytest.raises(ValueError, match="is not that of 3 classes × 6"):
            second.load_state_dict(other)


def test_nothing_seen_is_an_error() -> None:
    with pytest.raises(ValueError, match="no samples yet"):
        ncmi.InformationAccumulator(2, 3).compute()
    with pytest.raises(ValueError, match="cannot merge"):
        ncmi.InformationAccumulator(2, 3).merge(ncmi.InformationAccumulator(2, 4))


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_centroid_comparison_is_the_least_divergence(chunk: int) -> None:
    features, labels = torch.randn(80, 16, dtype=torch.float64), torch.randint(5, (80,))
    new = torch.randn(30, 16, dtype=torch.float64)
    classifier = ncmi.CentroidClassifier(5, 16, temperature=0.3, chunk_classes=chunk).double().fit(features, labels)
    p, p_new = (equation.distribution(x, None, 0.3) for x in (features, new))
    means = torch.stack(list(equation.true_centroids(p, labels).values()))
    divergences = equation.divergences(p_new, means, "sample_to_centroid")
    torch.testing.assert_close(classifier.divergences(new), divergences, rtol=1e-9, atol=1e-14)
    assert torch.equal(classifier.predict(new), divergences.argmin(1))
    assert torch.equal(classifier.top_k(new, 3), divergences.topk(3, largest=False).indices)
    expected = (divergences**-classifier.power).log() - (divergences**-classifier.power).sum(1, keepdim=True).log()
    torch.testing.assert_close(classifier.predict_log_proba(new), expected, rtol=1e-7, atol=1e-9)


def test_fit_takes_batches_and_forgets() -> None:
    features, labels = torch.randn(20, 8), torch.arange(20) % 4
    whole = ncmi.CentroidClassifier(4, 8).fit(features, labels)
    batches = ncmi.CentroidClassifier(4, 8).fit(-features, labels)
    batches.fit(zip(features.split(7), labels.split(7), strict=True))
    torch.testing.assert_close(batches.centroids, whole.centroids)


def test_a_class_without_samples_is_never_predicted() -> None:
    classifier = ncmi.CentroidClassifier(3, 4).fit(torch.eye(4)[:2], torch.tensor([0, 2]))
    assert set(classifier.predict(torch.randn(50, 4)).tolist()) <= {0, 2}
    with pytest.raises(RuntimeError, match="call fit"):
        _ = ncmi.CentroidClassifier(3, 4).centroids
    with pytest.raises(ValueError, match="k=4"):
        classifier.top_k(torch.randn(1, 4), 4)


@pytest.mark.parametrize(("classes", "dim"), [(2, 1), (5, 4), (10, 64)])
def test_simplex_frame_has_equal_angles(classes: int, dim: int) -> None:
    frame = ncmi.anchor_directions(classes, dim, "etf").double()
    expected = torch.full((classes, classes), -1 / (classes - 1), dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(frame @ frame.T, expected, atol=1e-5, rtol=0)


def test_below_the_simplex_the_nearest_anchors_are_farther_apart_than_by_chance() -> None:
    frame, chance = (ncmi.anchor_directions(100, 50, anchors) for anchors in ("etf", "random"))
    torch.testing.assert_close(frame.norm(dim=1), torch.ones(100))

    def nearest(directions: Tensor) -> float:
        return float((directions @ directions.T).fill_diagonal_(-1).max())

    assert nearest(frame) < 0.6 * nearest(chance)
    assert torch.equal(frame, ncmi.anchor_directions(100, 50, "etf"))


def test_axis_anchors_need_as_many_dimensions_as_classes() -> None:
    with pytest.raises(ValueError, match=r"D=512 is smaller than C=1000: axis anchors need D ≥ C; use anchors='etf'"):
        ncmi.NCMILoss(1000, 512, anchors="axis")
    assert torch.equal(
        ncmi.NCMILoss(1000, 512).log_centroids(), ncmi.NCMILoss(1000, 512, anchors="etf").log_centroids()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_classes": 1}, "at least 2 classes"), ({"chunk_classes": 0}, "chunks"), ({"power": 0.0}, "power above 0")],
)
def test_centroid_classifier_refuses(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ncmi.CentroidClassifier(**{"num_classes": 3, "feature_dim": 4, **options})  # type: ignore[arg-type]


def test_features_without_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"fit\(features, labels\)"):
        ncmi.CentroidClassifier(3, 4).fit(torch.randn(5, 4))


def test_accumulator_refuses_and_passes_over_nothing() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ncmi.InformationAccumulator(0, 3)
    log_p, labels = outputs(30, 5, 3)
    accumulator = ncmi.InformationAccumulator(3, 5)
    accumulator.update(log_p, labels)
    before = accumulator.compute()
    accumulator.update(log_p[:0], labels[:0])
    assert accumulator.compute()[:3] == before[:3]
    with pytest.raises(ValueError, match="unknown separation 'typo'"):
        accumulator.compute("typo")  # type: ignore[arg-type]
