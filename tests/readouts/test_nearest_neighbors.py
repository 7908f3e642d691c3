"""The k-nearest-neighbor read-out against the same thing written naively."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from ncmi import NearestNeighbors


def problem(samples: int, queries: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(samples, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (samples,), generator=generator)
    return features, labels, torch.randn(queries, 5, generator=generator, dtype=torch.float64)


def naive_votes(features: Tensor, labels: Tensor, queries: Tensor, k: int, temperature: float) -> list[list[float]]:
    votes = []
    for query in queries.tolist():
        cosines = []
        for row, label in zip(features.tolist(), labels.tolist(), strict=True):
            dot = sum(a * b for a, b in zip(query, row, strict=True))
            cosines.append((dot / math.hypot(*query) / math.hypot(*row), label))
        nearest = sorted(cosines, reverse=True)[:k]
        total = sum(math.exp(cosine / temperature) for cosine, _ in nearest)
        votes.append([sum(math.exp(s / temperature) for s, label in nearest if label == c) / total for c in range(4)])
    return votes


@given(
    samples=st.integers(1, 30),
    queries=st.integers(1, 7),
    k=st.integers(1, 40),
    temperature=st.sampled_from([0.05, 0.1, 1.0]),
    chunk=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_equals_the_naive_votes(samples: int, queries: int, k: int, temperature: float, chunk: int, seed: int) -> None:
    features, labels, new = problem(samples, queries, seed)
    neighbors = NearestNeighbors(4, k=k, temperature=temperature, chunk=chunk).fit(features, labels)
    votes = neighbors.votes(new)
    expected = torch.tensor(naive_votes(features, labels, new, k, temperature), dtype=torch.float64)
    torch.testing.assert_close(votes, expected)
    torch.testing.assert_close(votes.sum(-1), torch.ones(queries, dtype=torch.float64))
    assert torch.equal(neighbors.predict(new), expected.argmax(-1))


def test_equals_scikit_learn_where_all_votes_are_alike() -> None:
    features, labels, new = problem(200, 50)
    ours = NearestNeighbors(4, k=7, temperature=1e6).fit(features, labels)
    theirs = KNeighborsClassifier(7, metric="cosine", algorithm="brute").fit(features.numpy(), labels.numpy())
    np.testing.assert_allclose(ours.votes(new), theirs.predict_proba(new.numpy()), atol=1e-5)


def test_the_length_of_a_feature_does_not_matter() -> None:
    features, labels, new = problem(40, 9)
    a = NearestNeighbors(4).fit(features, labels)
    b = NearestNeighbors(4).fit(features * torch.linspace(0.01, 1000, 40)[:, None], labels)
    torch.testing.assert_close(a.votes(new), b.votes(-3 * -new))


def test_it_keeps_a_copy() -> None:
    features, labels, new = problem(40, 9)
    neighbors = NearestNeighbors(4).fit(features, labels)
    before = neighbors.votes(new)
    labels.fill_(0)
    features.zero_()
    assert torch.equal(neighbors.votes(new), before)
    assert neighbors.votes(new[:0]).shape == (0, 4)


def test_before_fit() -> None:
    with pytest.raises(RuntimeError, match=r"no neighbors yet: call fit\(features, labels\) first"):
        NearestNeighbors(4).predict(torch.ones(1, 5))


@pytest.mark.parametrize("options", [{"k": 0}, {"temperature": 0.0}, {"chunk": 0}, {"num_classes": 1}])
def test_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs at least 2 classes, 1 neighbor, chunks of 1 and a temperature above"):
        NearestNeighbors(**{"num_classes": 4, **options})


@pytest.mark.parametrize("options", [{"k": 2.5}, {"temperature": "1"}, {"chunk": 1.0}, {"num_classes": True}])
def test_options_are_numbers(options: dict[str, Any]) -> None:
    name = next(iter(options))
    with pytest.raises(ValueError, match=rf"{name}=.*: must be a (whole )?number"):
        NearestNeighbors(**{"num_classes": 4, **options})
