"""Read-outs of large data: bounds on their work, and the same answers as without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from ncmi.readouts import calibration, linear_probe
from ncmi.readouts.linear_probe import LinearProbe, stratified_sample
from ncmi.readouts.neighbors import usual_neighbors
from ncmi.readouts.scores import Judge, judge, weighted_auc


def problem(samples: int = 4000, classes: int = 5, dim: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (samples,), generator=generator)
    centers = 1.5 * torch.randn(classes, dim, generator=generator)
    mixing = torch.randn(dim, dim, generator=generator)
    return (centers[labels] + torch.randn(samples, dim, generator=generator)) @ mixing + 3, labels


def objective(probe: LinearProbe, features: Tensor, labels: Tensor, weights: Tensor | None = None) -> float:
    losses = F.cross_entropy(probe.logits(features).double(), labels, reduction="none")
    mean = losses.mean() if weights is None else (losses * weights).sum() / weights.sum()
    return float((mean + 0.5 * probe.l2 * probe.linear.weight.double().square().sum()).detach())


@pytest.mark.parametrize("weighted", [False, True])
def test_batches_come_to_the_same_minimum(weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_probe, "_STEPS", 500)
    features, labels = problem()
    weights = (torch.arange(len(labels)) % 3).float() if weighted else None
    exact = LinearProbe(5, 12, solver="lbfgs").fit(features, labels, weights)
    batches = LinearProbe(5, 12, solver="batches").fit(features, labels, weights)
    assert exact.converged
    least = objective(exact, features, labels, weights)
    assert least - 1e-6 <= objective(batches, features, labels, weights) <= least + 1e-3
    assert float((exact.predict(features) == batches.predict(features)).double().mean()) > 0.995


def test_small_problems_are_solved_exactly_and_large_ones_by_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = problem(400)
    auto, exact = LinearProbe(5, 12).fit(features, labels), LinearProbe(5, 12, solver="lbfgs").fit(features, labels)
    assert torch.equal(auto.linear.weight, exact.linear.weight)
    assert auto.converged
    assert 0 < auto.iterations < auto.max_iterations
    monkeypatch.setattr(linear_probe, "_EXACT_WORK", 400 * 5 * 12 - 1)
    monkeypatch.setattr(linear_probe, "_STEPS", 7)
    large = LinearProbe(5, 12).fit(features, labels)
    # seven steps are too few, and it is said
    assert (large.iterations, large.converged) == (7, False)
    assert (exact.samples, large.samples) == (400, 400)
    monkeypatch.setattr(linear_probe, "_WORK", 1)
    monkeypatch.setattr(linear_probe, "_ROWS", 50)
    least = LinearProbe(5, 12).fit(features, labels, torch.ones(400))
    assert least.iterations == 1
    assert 50 <= least.samples <= 55


def test_an_exact_fit_that_is_cut_short_is_not_called_converged() -> None:
    features, labels = problem()
    assert not LinearProbe(5, 12, max_iterations=2, solver="lbfgs").fit(features, labels).converged


def test_a_sample_has_each_class_by_its_share_and_no_class_is_lost() -> None:
    sizes = (9000, 900, 90, 2)
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    rows = stratified_sample(labels, 500)
    counts = torch.bincount(labels[rows], minlength=4)
    assert len(rows) == len(rows.unique()) <= 504
    for size, count in zip(sizes, counts.tolist(), strict=True):
        assert max(1, int(500 * size / sum(sizes)) - 1) <= count <= 500 * size / sum(sizes) + 2
    assert torch.equal(rows, rows.sort().values)
    assert torch.equal(stratified_sample(labels, 500), rows)
    assert torch.equal(stratified_sample(labels, len(labels)), torch.arange(len(labels)))


def test_neighbors_cost_no_more_than_linear_time() -> None:
    work = [samples * usual_neighbors(samples, 10) for samples in (50_000, 200_000, 1_000_000)]
    assert max(work) <= 1_000_000_000
    assert usual_neighbors(20_000, 10) == 20_000


@pytest.mark.parametrize("classes", [2, 60])
def test_scores_of_many_classes_are_scikit_learns(classes: int) -> None:
    generator = np.random.default_rng(0)
    labels = np.r_[np.arange(classes), generator.integers(0, classes, 900)]
    # ties, within and across classes
    p = np.round(generator.dirichlet(np.ones(classes), len(labels)), 2) + 1e-3
    p /= p.sum(1, keepdims=True)
    scores = judge(np.log(p), labels, [str(c) for c in range(classes)])
    columns = [1] if classes == 2 else range(classes)
    # of the logarithms, which rounding may make alike where probabilities are not
    expected = np.mean([roc_auc_score(labels == column, np.log(p)[:, column]) for column in columns])
    assert scores.macro_auc.value == pytest.approx(expected, abs=1e-12)
    once = np.ones((1, len(labels)))
    twice = Judge(labels, np.log(p))(np.concatenate([once, 2 * once]))
    for name, values in twice.items():
        np.testing.assert_allclose(values[0], values[1], rtol=1e-13, err_msg=name)
    positive = labels == 1
    both = weighted_auc(p[:, 1], positive, np.concatenate([once, once]))
    assert weighted_auc(p[:, 1], positive, once)[0] == pytest.approx(both[0], rel=1e-13)


def test_confusions_are_the_most_frequent_mistakes() -> None:
    labels = np.array([0] * 10 + [1] * 4 + [2] * 2)
    decided = np.array([0] * 7 + [1] * 3 + [1] * 3 + [2] + [1, 1])
    scores = judge(np.log(np.eye(3)[decided] * 0.9 + 0.03), labels, ["a", "b", "c"])
    told: list[Any] = [(pair.label, pair.prediction, pair.count, pair.share) for pair in scores.confusions]
    assert told == [("a", "b", 3, 0.3), ("c", "b", 2, 1.0), ("b", "c", 1, 0.25)]


def test_unequal_classes_are_those_beyond_twice_the_size() -> None:
    def unequal(*sizes: int) -> Any:
        labels = np.repeat(np.arange(len(sizes)), sizes)
        return judge(np.log(np.full((len(labels), len(sizes)), 1 / len(sizes))), labels, "abc"[: len(sizes)]).unequal

    assert unequal(20, 10, 10) is None
    largest, smallest = unequal(21, 10, 15)
    assert (largest.name, smallest.name, largest.support, smallest.support) == ("a", "b", 21, 10)
    # a class that does not occur is not the smallest
    assert unequal(10, 0, 10) is None


def test_the_temperature_is_found_in_a_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each looks at all samples × classes: of a thousand classes that is the time that there is."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 10, (300,), generator=generator)
    log_p = (torch.randn(300, 10, generator=generator) + 4 * F.one_hot(labels, 10)).log_softmax(1)
    betas: list[float] = []
    slope = calibration._slope

    def counted(rows: Tensor, targets: Tensor, beta: float) -> tuple[float, float]:
        betas.append(beta)
        return slope(rows, targets, beta)

    monkeypatch.setattr(calibration, "_slope", counted)
    temperature = calibration.fit_temperature(log_p, labels, pseudo_samples=0)
    assert len(betas) <= 15
    scaled = [float(F.cross_entropy(log_p.double() / (temperature * by), labels)) for by in (1, 1 - 1e-4, 1 + 1e-4)]
    assert min(scaled) == scaled[0]
