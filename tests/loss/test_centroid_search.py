"""Top-k classes in chunks are those of all divergences in float64; tables follow what they come from."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import ncmi
from ncmi.loss import equation
from ncmi.loss.search import CentroidSearch


def expected(p: torch.Tensor, q: torch.Tensor, k: int) -> torch.Tensor:
    return equation.divergences(p.double(), q.double(), "sample_to_centroid").topk(k, largest=False).indices


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"feature_length": "common"},
        {"centroids": "fixed", "anchors": "random"},
        {"centroids": "class_mean"},
        {
            "centroids": "fixed",
            "anchors": "signs",
            "separation_power": 1.0,
            "separation_direction": "centroid_to_sample",
            "form": "mean_of_ratios",
        },
    ],
)
@pytest.mark.parametrize("chunk", [1, 17, 1000])
def test_top_k_of_a_loss(options: dict[str, Any], chunk: int) -> None:
    torch.manual_seed(0)
    loss = ncmi.NCMILoss(101, 12, **options).double()
    features = torch.randn(20, 12, dtype=torch.float64)
    features[0] = features[1]
    result = CentroidSearch(loss, chunk).top_k(features, 5)
    p, q = loss.log_distribution(features).exp().detach(), loss.centroids.detach()
    assert torch.equal(result.classes, expected(p, q, 5))
    # anchors are made in float32, in which a class mean sums to one
    torch.testing.assert_close(result.divergences[:, 0], equation.kl(p, q[result.classes[:, 0]]), rtol=1e-4, atol=1e-6)
    assert torch.equal(result.classes[:, 0], loss.predict(features))


def test_the_table_follows_its_parameter() -> None:
    torch.manual_seed(0)
    head = ncmi.NCMIHead(8, 6)
    search = CentroidSearch(head)
    features = torch.randn(9, 8)
    search.top_k(features, 1)
    table = search.table()[0]
    search.top_k(features, 1)
    assert search.table()[0] is table
    with torch.no_grad():
        head.centroid_logits.copy_(head.centroid_logits.flip(0))
    assert torch.equal(search.top_k(features, 1).classes[:, 0], head.predict(features))
    head.centroid_logits = torch.nn.Parameter(torch.randn(6, 8))
    assert torch.equal(search.top_k(features, 1).classes[:, 0], head.predict(features))


def test_classes_without_samples_are_not_found() -> None:
    torch.manual_seed(0)
    classifier = ncmi.CentroidClassifier(7, 8).fit(torch.randn(40, 8), torch.randint(5, (40,)))
    result = CentroidSearch(classifier, 2).top_k(torch.randn(30, 8), 5)
    assert int(result.classes.max()) == 4
    with pytest.raises(ValueError, match="choose 1 to 7"):
        CentroidSearch(classifier).top_k(torch.randn(3, 8), 8)


def test_an_index_of_faiss_finds_the_same() -> None:
    pytest.importorskip("faiss")
    torch.manual_seed(0)
    loss = ncmi.NCMILoss(500, 16, anchors="random")
    features, search = torch.randn(20, 16), CentroidSearch(loss)
    exact = search.top_k(features, 3)
    assert torch.equal(search.approximate_top_k(features, 3).classes, exact.classes)
    some = search.approximate_top_k(features, 3, "IVF8,Flat", probes=8)
    assert torch.equal(some.classes, exact.classes)
