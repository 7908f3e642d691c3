"""Running class means, and what they are used for."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import baseline_reference as reference
import pytest
import torch

from ncmi.objectives.class_means import ClassMeans
from ncmi.objectives.interface import Objective
from ncmi.objectives.options import make_objective, objective_options


def test_means_forget_exponentially_and_without_bias() -> None:
    """Against the same sums in Python; class 2 is missing from the second step, class 3 from all."""
    steps = [([[1.0], [3.0], [7.0], [2.0]], [0, 0, 1, 2]), ([[5.0], [1.0]], [0, 1]), ([[2.0], [8.0]], [0, 2])]
    running = ClassMeans(4, 1, decay=0.6).double()
    sums, counts = [0.0] * 4, [0.0] * 4
    for vectors, labels in steps:
        running.observe(torch.tensor(vectors, dtype=torch.float64), torch.tensor(labels))
        running.update()
        for c in range(4):
            if c in labels:
                mine = [v[0] for v, y in zip(vectors, labels, strict=True) if y == c]
                sums[c], counts[c] = 0.6 * sums[c] + sum(mine), 0.6 * counts[c] + len(mine)
    expected = torch.tensor([[s / n if n else 0.0] for s, n in zip(sums, counts, strict=True)], dtype=torch.float64)
    torch.testing.assert_close(running.means(), expected, rtol=1e-14, atol=0)
    assert running.seen().tolist() == [True, True, True, False]


def test_first_step_gives_its_own_means_whatever_the_decay() -> None:
    vectors, labels = (
        torch.randn(6, 3, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 0, 0, 1, 1, 1]),
    )
    running = ClassMeans(2, 3, decay=0.9999)
    running.observe(vectors, labels)
    assert running.means().abs().max() == 0  # nothing before the optimizer step
    running.update()
    torch.testing.assert_close(running.means(), torch.stack([vectors[:3].mean(0), vectors[3:].mean(0)]))


def test_micro_batches_of_any_size_count_as_one_step() -> None:
    vectors, labels = (
        torch.randn(7, 3, generator=torch.Generator().manual_seed(1)),
        torch.tensor([0, 1, 0, 1, 0, 0, 1]),
    )
    whole, parts = ClassMeans(2, 3, 0.5), ClassMeans(2, 3, 0.5)
    for _ in range(2):
        whole.observe(vectors, labels)
        for part in (slice(0, 1), slice(1, 5), slice(5, 7)):
            parts.observe(vectors[part], labels[part])
        whole.update()
        parts.update()
    torch.testing.assert_close(parts.means(), whole.means())


def test_soft_targets_weigh_the_vectors() -> None:
    running = ClassMeans(2, 1, 0.9)
    running.observe(torch.tensor([[1.0], [4.0]]), torch.tensor([[0.75, 0.25], [0.5, 0.5]]))
    running.update()
    torch.testing.assert_close(running.means(), torch.tensor([[2.75 / 1.25], [2.25 / 0.75]]))


def test_half_precision_vectors_are_summed_in_float32() -> None:
    vectors = torch.rand(400, 2, generator=torch.Generator().manual_seed(2)).bfloat16()
    running = ClassMeans(2, 2, 0.9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        running.observe(vectors, torch.zeros(400, dtype=torch.long))
    running.update()
    torch.testing.assert_close(running.means()[0], vectors.float().mean(0), rtol=1e-5, atol=0)


def test_an_update_without_observation_changes_nothing() -> None:
    running = ClassMeans(2, 1, 0.5)
    running.observe(torch.ones(1, 1), torch.tensor([1]))
    running.update()
    before = copy.deepcopy(running.state_dict())
    running.update()
    for key, value in running.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_supcon_scores_are_cosines_with_the_class_means(problem: Callable[..., Any]) -> None:
    objective, features, labels = problem("supcon")
    fresh = make_objective("supcon", 4, 5).double()
    fresh.load_state_dict({**objective.state_dict(), **{k: v for k, v in fresh.state_dict().items() if "proto" in k}})
    assert (fresh.scores(features[:, 0]) == -1).all()
    fresh.observe(features, labels)
    fresh.update()
    embeddings = fresh.embed(features)
    assert embeddings.requires_grad
    assert not fresh.prototypes.sums.requires_grad
    scores = fresh.scores(features[:, 1])
    for c in range(3):
        prototype = embeddings[labels == c].flatten(0, 1).mean(0)
        for i in range(len(labels)):
            torch.testing.assert_close(scores[i, c], reference.cosine(embeddings[i, 1], prototype))
    assert (scores[:, 3] == -1).all()
    log_p = fresh.log_distribution(features[:, 1])
    torch.testing.assert_close(log_p, (scores / fresh.options.temperature).log_softmax(-1))


def test_cmic_centroids_are_the_class_means_of_the_probabilities() -> None:
    torch.manual_seed(3)
    objective = make_objective("cmic", 3, 4)
    features, labels = torch.randn(5, 4), torch.tensor([0, 0, 2, 2, 2])
    objective.observe(features, labels)
    objective.update()
    p = objective.head(features).softmax(-1)
    expected = torch.stack([p[:2].mean(0), torch.zeros(3), p[2:].mean(0)])
    torch.testing.assert_close(objective.centroids.means(), expected.detach())
    assert "centroids.sums" not in dict(objective.named_parameters())


def test_cmic_survives_a_centroid_that_underflowed() -> None:
    objective = make_objective("cmic", 2, 1)
    with torch.no_grad():
        objective.head.weight.copy_(torch.tensor([[500.0], [-500.0]]))
    features = torch.tensor([[1.0], [-1.0]])
    objective.observe(features, torch.tensor([0, 1]))
    objective.update()
    assert objective.centroids.means().min() == 0
    assert objective(features, torch.tensor([1, 0])).isfinite()


@pytest.mark.parametrize("name", reference.NAMES)
def test_state_survives_saving_and_pickling(name: str, problem: Callable[..., Any]) -> None:
    objective, features, labels = problem(name)
    objective.observe(features, labels)  # between two updates: the pending sums belong to the state
    file = io.BytesIO()
    torch.save(objective.state_dict(), file)
    loaded = make_objective(name, objective.num_classes, objective.feature_dim).double()
    loaded.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    rows = features if objective.views == 1 else features[:, 0]
    for other in (loaded, pickle.loads(pickle.dumps(objective)), copy.deepcopy(objective)):
        assert torch.equal(other.loss(features, labels), objective.loss(features, labels))
        assert torch.equal(other.scores(rows), objective.scores(rows))
        twin = copy.deepcopy(objective)
        other.update()
        twin.update()
        assert all(torch.equal(a, b) for a, b in zip(other.buffers(), twin.buffers(), strict=True))


@pytest.mark.parametrize("name", reference.NAMES)
def test_interface(name: str, problem: Callable[..., Any]) -> None:
    objective, features, _ = problem(name, torch.float32)
    assert isinstance(objective, Objective)
    assert objective.couples_samples == (name in ("opl", "supcon", "cmic"))
    assert objective.views == (2 if name == "supcon" else 1)
    assert objective.readouts == (("lp",) if name == "supcon" else ("head",))
    rows = features if objective.views == 1 else features[:, 0]
    assert objective.scores(rows).shape == (6, 4)
    torch.testing.assert_close(objective.log_distribution(rows).exp().sum(-1), torch.ones(6))
    assert {id(p) for p in objective.network_parameters()} == {id(p) for p in objective.parameters()}
    assert list(objective.centroid_parameters()) == []


@pytest.mark.parametrize("name", reference.NAMES)
def test_options_and_constructor_agree(name: str) -> None:
    options = objective_options(name)
    kind = type(make_objective(name, 3, 4))
    assert kind.options_type is options
    assert kind(3, 4).options == options()


@pytest.mark.parametrize("name", reference.NAMES)
def test_descends(name: str) -> None:
    """Forty steps, with the trainer's sequence of calls, lower the loss and tell three points apart."""
    torch.manual_seed(4)
    objective = make_objective(name, 3, 4)
    features, labels = torch.eye(4)[[0, 0, 1, 1, 2, 2]], torch.tensor([0, 0, 1, 1, 2, 2])
    batch = features if objective.views == 1 else torch.stack([features, features + 0.01], 1)
    optimizer = torch.optim.SGD(objective.network_parameters(), lr=0.2)
    losses = []
    for _ in range(40):
        loss = objective(batch, labels)
        optimizer.zero_grad()
        loss.backward()
        objective.observe(batch, labels)
        optimizer.step()
        objective.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert objective.scores(features).argmax(-1).tolist() == labels.tolist()
