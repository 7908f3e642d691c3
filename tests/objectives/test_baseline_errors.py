"""Bad input: what is refused, and that the message names the cure."""

from __future__ import annotations

from typing import Any

import baseline_reference as reference
import pytest
import torch
from torch import Tensor

from ncmi.loss.checks import as_rows, check_labels
from ncmi.objectives import cross_entropy_loss, opl_loss, supcon_loss
from ncmi.objectives.class_means import ClassMeans
from ncmi.objectives.options import make_objective

BAD_LABELS = [
    (torch.tensor([0, 12]), r"labels run to 12 but num_classes is 10: pass num_classes=13"),
    (torch.tensor([10, 9]), r"labels run to 10 but num_classes is 10: pass num_classes=11"),
    (torch.tensor([0, -1]), r"labels run from -1.*leave out the samples"),
    (torch.tensor([0.0, 1.0]), r"labels are torch\.float32.*labels\.long\(\)"),
    (torch.tensor([True, False]), r"labels are torch\.bool.*labels\.long\(\)"),
    (torch.tensor([[0], [1]]), r"labels have shape \[2, 1\].*labels\.(flatten\(\)|squeeze\(-1\))"),
    (torch.tensor([], dtype=torch.long), r"empty batch: .*skip|one label for each sample"),
    (torch.tensor([0, 1, 2]), r"2 samples but 3 labels"),
]
BAD_TARGETS = [
    (torch.full((2, 9), 1 / 9), r"soft targets have 9 columns but num_classes is 10"),
    (torch.full((0, 10), 0.1), r"empty batch|one label for each sample"),
    (torch.full((3, 10), 0.1), r"2 samples but 3 labels"),
    (torch.full((2, 10), 1.0), r"do not sum to 1"),
    (torch.full((2, 10), 0.4), r"do not sum to 1: divide"),
    (torch.eye(10)[:2] * 2 - torch.eye(10)[2:4], r"negative or NaN: pass probabilities"),
    (torch.full((2, 10), float("nan")), r"negative or NaN"),
]
BAD_OPTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("label_smoothing", {"epsilon": 1.5}, "epsilon=1.5: must be at least 0 and at most 1"),
    ("focal", {"gamma": -1.0}, "gamma=-1.0: must be at least 0"),
    ("poly", {"epsilon": -2.0}, "at least -1 and finite, usually 1"),
    ("square", {"k": 0.0}, "k=0.0: must be above 0 and finite, None"),
    ("square", {"target_value": -1.0}, "target_value=-1.0: must be above 0"),
    ("anticlass", {"gamma": float("nan")}, "gamma=nan: must be at least 0"),
    ("opl", {"opl_weight": -1.0}, "opl_weight=-1.0: must be at least 0"),
    ("opl", {"gamma": -1.0}, "gamma=-1.0: must be at least 0"),
    ("supcon", {"temperature": 0.0}, "must be above 0 and finite, usually 0.1"),
    ("supcon", {"projection_dim": 0}, "at least 1, usually 128"),
    ("supcon", {"prototype_decay": 1.0}, "prototype_decay=1.0: .*at least 0 and below 1"),
    ("cmic", {"separation_weight": -0.1}, "separation_weight=-0.1: must be at least 0"),
    ("cmic", {"centroid_decay": -0.1}, "centroid_decay=-0.1: .*at least 0 and below 1"),
    ("generalized_cross_entropy", {"q": 0.0}, "q=0.0: must be above 0 and at most 1, usually 0.7"),
    ("generalized_cross_entropy", {"q": 1.5}, "q=1.5: must be above 0 and at most 1"),
    ("symmetric_cross_entropy", {"alpha": -1.0}, "alpha=-1.0: must be at least 0"),
    ("symmetric_cross_entropy", {"beta": float("nan")}, "beta=nan: must be at least 0"),
    ("symmetric_cross_entropy", {"alpha": 0.0, "beta": 0.0}, "one of them must be above 0, e.g. 0.1 and 1"),
    ("symmetric_cross_entropy", {"log_zero": 0.0}, "below 0, usually -4"),
    ("symmetric_cross_entropy", {"log_zero": float("-inf")}, "must be finite and below 0"),
    ("cross_entropy", {"weight": "inverse"}, "unknown weight 'inverse': use 'balanced'"),
    ("cross_entropy", {"weight": [1.0, 2.0]}, "weight must be 10 numbers ≥ 0"),
    ("cross_entropy", {"logit_adjustment": -1.0}, "at least 0 and finite, usually 1"),
    ("cross_entropy", {"logit_adjustment": float("inf")}, "at least 0 and finite"),
    ("focal", {"gamma": float("inf")}, "gamma=inf: must be at least 0 and finite"),
    ("focal", {"gamma": "2"}, "gamma='2': must be a number"),
    ("focal", {"gamma": None}, "gamma=None: must be a number"),
    ("supcon", {"projection_dim": 1.5}, "projection_dim=1.5: must be a whole number"),
    ("square", {"k": True}, "k=True: must be a number"),
]


def features_for(name: str) -> tuple[Any, Tensor]:
    objective = make_objective(name, 10, 3)
    return objective, torch.ones((2, 3) if objective.views == 1 else (2, 2, 3))


@pytest.mark.parametrize("name", reference.NAMES)
@pytest.mark.parametrize(("labels", "message"), BAD_LABELS)
def test_bad_labels(name: str, labels: Tensor, message: str) -> None:
    objective, features = features_for(name)
    with pytest.raises(ValueError, match=message):
        objective(features, labels)


@pytest.mark.parametrize("name", reference.ON_LOGITS)
@pytest.mark.parametrize(("targets", "message"), BAD_TARGETS)
def test_bad_soft_targets(name: str, targets: Tensor, message: str) -> None:
    objective, features = features_for(name)
    with pytest.raises(ValueError, match=message):
        objective(features, targets)


@pytest.mark.parametrize("name", reference.PAIRING)
def test_pairs_need_labels(name: str) -> None:
    objective, features = features_for(name)
    with pytest.raises(ValueError, match=r"cannot take soft targets: pass integer labels \[B\], without mixup"):
        objective(features, torch.full((2, 10), 0.1))


@pytest.mark.parametrize("loss", [opl_loss, supcon_loss])
def test_pure_pair_losses_check_what_they_can(loss: Any) -> None:
    assert loss(torch.eye(2), torch.tensor([0, 10**6])).isfinite()
    with pytest.raises(ValueError, match="labels run from -1"):
        loss(torch.eye(2), torch.tensor([0, -1]))


@pytest.mark.parametrize(("name", "options", "message"), BAD_OPTIONS)
def test_bad_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_objective(name, 10, 3, **options)
    built_directly = type(make_objective(name, 10, 3))
    with pytest.raises(ValueError, match=message):
        built_directly(10, 3, **options)


def test_supcon_needs_views() -> None:
    with pytest.raises(ValueError, match=r"features have shape \[2, 3\].*two augmentations"):
        make_objective("supcon", 10, 3)(torch.ones(2, 3), torch.tensor([0, 1]))


def test_logits_and_labels_fit() -> None:
    with pytest.raises(ValueError, match="squeeze"):
        cross_entropy_loss(torch.ones(3), torch.tensor([1]))
    with pytest.raises(TypeError, match=r"torch.as_tensor\(labels\)"):
        cross_entropy_loss(torch.ones(1, 3), [1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"torch.as_tensor\(logits\)"):
        cross_entropy_loss([[1.0, 2.0]], torch.tensor([1]))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", reference.ON_LOGITS)
def test_ignored_samples_and_maps(name: str, problem: Any) -> None:
    """A label of −100 does not count, maps are samples, and without any that counts the loss is 0 with a graph."""
    objective, features, labels = problem(name)
    some = labels.clone()
    some[::3] = -100
    kept = some >= 0
    torch.testing.assert_close(objective.loss(features, some), objective.loss(features[kept], labels[kept]))
    width = features.shape[-1]
    maps, of_maps = features.reshape(1, -1, 1, width).movedim(-1, 1), some.reshape(1, -1, 1)
    torch.testing.assert_close(objective.loss(maps, of_maps), objective.loss(features[kept], labels[kept]))
    features = features.detach().clone().requires_grad_()
    value = objective.loss(features, torch.full_like(labels, -100))
    value.backward()
    assert value == 0
    assert not features.grad.any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
@pytest.mark.parametrize("name", reference.NAMES)
def test_any_integer_is_a_label(name: str, dtype: torch.dtype, problem: Any) -> None:
    objective, features, labels = problem(name)
    assert torch.equal(objective(features, labels.to(dtype)), objective(features, labels))
    objective.observe(features, labels.to(dtype))


def test_checks_accept_what_is_right() -> None:
    check_labels(torch.tensor([0, 9]), 10)
    as_rows(torch.zeros(2, 5), torch.tensor([0, 9]), 10)
    as_rows(torch.zeros(3, 5), torch.rand(3, 1000).softmax(-1).bfloat16(), 1000)


def test_values_are_not_read_on_other_devices() -> None:
    """There the check would stall the device; shapes and dtypes are still checked."""
    check_labels(torch.empty(2, dtype=torch.long, device="meta"), 10)
    as_rows(torch.empty(2, 5, device="meta"), torch.empty(2, 10, device="meta"), 10)
    with pytest.raises(ValueError, match="empty batch"):
        check_labels(torch.empty(0, dtype=torch.long, device="meta"), 10)


def test_decay_is_named() -> None:
    with pytest.raises(ValueError, match="decay=2"):
        ClassMeans(2, 2, 2)
