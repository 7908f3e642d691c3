"""What lies at the edges gives a finite result or an error that names the cure."""

from __future__ import annotations

from typing import Any

import comparison
import numpy as np
import pytest
import torch
from torch import Tensor

import ncmi

PAPER: dict[str, Any] = {
    "form": "mean_of_ratios",
    "separation_power": 1.0,
    "separation_direction": "centroid_to_sample",
}
FORMS = [
    {**form, "centroids": centroids} for form in ({}, PAPER, {**PAPER, "separation_power": -4.0}) for centroids in
    ("fixed", "learned", "class_mean")
]  # fmt: skip


def assert_trains(loss: ncmi.NCMILoss, features: Tensor, labels: Tensor) -> Tensor:
    """Loss and all gradients are finite; returns the features' gradient."""
    features = features.detach().requires_grad_()
    value = loss(features, labels)
    value.sum().backward()
    assert value.isfinite().all()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    for parameter in loss.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert all(x.isfinite().all() for x in loss.state_dict().values())
    assert loss.predict_proba(features.detach()).isfinite().all()
    return features.grad


@pytest.mark.parametrize("options", FORMS)
@pytest.mark.parametrize("center", ["none", "ema", "frozen"])
def test_unusual_batches(options: dict[str, Any], center: str) -> None:
    for length in comparison.LENGTHS:
        take_unusual_batches(ncmi.NCMILoss(4, 6, center=center, temperature=0.2, feature_length=length, **options))  # type: ignore[arg-type]


def take_unusual_batches(loss: ncmi.NCMILoss) -> None:
    random = torch.randn(5, 6)
    assert_trains(loss, random, torch.tensor([0, 1, 1, 0, 3]))  # class 2 is absent
    assert_trains(loss, random, torch.full((5,), 2))  # one class only
    assert_trains(loss, random[:1], torch.tensor([3]))  # B = 1
    assert_trains(loss, random, torch.eye(4)[torch.tensor([0, 1, 1, 0, 3])])  # soft targets
    assert_trains(loss, torch.zeros(5, 6), torch.tensor([0, 1, 2, 3, 0]))
    assert_trains(loss, random * 1e4, torch.tensor([0, 1, 2, 3, 0]))
    assert_trains(loss, -random.abs() * 1e4, torch.tensor([0, 1, 2, 3, 0]))
    assert_trains(loss, random * 1e-4, torch.tensor([0, 1, 2, 3, 0]))
    assert_trains(loss, (random * 1e4).half(), torch.tensor([0, 1, 2, 3, 0]))
    assert_trains(loss, torch.full((5, 6), 6e4, dtype=torch.float16), torch.tensor([0, 1, 2, 3, 0]))


@pytest.mark.parametrize("options", FORMS)
@pytest.mark.parametrize(
    ("classes", "dim", "anchors"), [(2, 2, "axis"), (2, 50, "axis"), (9, 3, "etf"), (9, 3, "random")]
)
def test_few_classes_and_narrow_features(options: dict[str, Any], classes: int, dim: int, anchors: str) -> None:
    loss = ncmi.NCMILoss(classes, dim, anchors=anchors, temperature=0.2, **options)  # type: ignore[arg-type]
    assert_trains(loss, torch.randn(7, dim), torch.randint(classes, (7,)))


@pytest.mark.parametrize("options", FORMS)
def test_a_sample_at_the_only_wrong_centroid(options: dict[str, Any]) -> None:
    """C = 2 and P = Q_wrong: b is zero up to rounding, and the ratio large, not infinite or negative."""
    loss = ncmi.NCMILoss(2, 3, temperature=0.1, anchor_scale=10.0, **options)
    features, labels = torch.tensor([[4.0, 0.0, 0.0], [0.0, 5.0, 0.0]]), torch.tensor([1, 0])
    assert_trains(loss, features, labels)
    assert loss.loss(features, labels) > 10


def test_zero_features_are_uniform_and_still_learn() -> None:
    loss = ncmi.NCMILoss(4, 6)
    assert torch.allclose(loss.log_distribution(torch.zeros(2, 6)).exp(), torch.full((2, 6), 1 / 6))
    assert assert_trains(loss, torch.zeros(2, 6), torch.tensor([0, 1])).abs().sum() > 0


def test_integer_types_of_labels() -> None:
    """Labels come from files as bytes, too."""
    features, labels = torch.randn(5, 6), torch.tensor([0, 1, 2, 3, 0])
    for options in FORMS:
        for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
            losses = [ncmi.NCMILoss(4, 6, weight="balanced", **options) for _ in range(2)]
            assert torch.equal(losses[0](features, labels.to(dtype)), losses[1](features, labels))
            assert_trains(losses[0], features, labels.to(dtype))


@pytest.mark.parametrize("form", [{}, PAPER | {"feature_length": "own"}])
@pytest.mark.parametrize("training", [True, False])
def test_errors_of_a_batch_name_the_cure(form: dict[str, Any], training: bool) -> None:
    loss = ncmi.NCMILoss(10, 12, weight="balanced", center="ema", centroids="fixed", **form).train(training)
    features, labels = torch.randn(3, 12), torch.tensor([0, 1, 2])
    before = {name: value.clone() for name, value in loss.state_dict().items() if "counts" not in name}
    for wrong_features, wrong_labels, message in (
        (features, torch.tensor([0, 12, 3]), "labels run to 12 but num_classes is 10: pass num_classes=13"),
        (features, torch.tensor([0, -1, 3]), "labels run from -1: classes count from 0.*ignore_index=-1"),
        (features, torch.tensor([0, 255, 3]), "labels run to 255.*ignore_index=255"),
        (features, torch.tensor([0.0, 1.0, 2.0]), r"labels are torch.float32.*use labels.long\(\)"),
        (features, torch.tensor([True, False, True]), r"labels are torch.bool.*use labels.long\(\)"),
        (features, labels[:, None], r"shape \[3, 1\].*use labels.squeeze\(-1\)"),
        (features, labels[:2], "3 samples but 2 labels: pass one label for each sample"),
        (features, torch.ones(3, 9) / 9, "9 columns but num_classes is 10: pass one column for each class"),
        (features, torch.full((3, 10), 0.5), "do not sum to 1: divide each row by its sum"),
        (features, torch.ones(3, 10), "one class for each sample"),
        (features, -torch.ones(3, 10), "soft targets are negative or NaN: pass probabilities"),
        (features[:0], labels[:0], "empty batch.*skip batches without samples"),
        (features[:, :11], labels, r"features \[3, 11\]: expected \[B, 12\]"),
        (features.masked_fill(torch.arange(12) == 3, torch.nan), labels, "row 0.*NaN.*lower the learning rate"),
        (features / torch.tensor([[1.0], [0.0], [1.0]]), labels, "row 1.*infinite.*clip gradients"),
        # a length is a sum of squares
        (features * torch.tensor([[1.0], [1.0], [1e30 if form else 3e38]]), labels, "row 2.*beyond 1e19"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            loss(wrong_features, wrong_labels)
    after = loss.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_errors_of_the_function_name_the_cure() -> None:
    log_p, labels, log_q = torch.randn(3, 4).log_softmax(1), torch.tensor([0, 1, 1]), torch.randn(2, 4).log_softmax(1)
    assert ncmi.ncmi_loss(log_p, labels, log_q).isfinite()
    impossible = torch.tensor([[0.5, 0.5, 0.0, 0.0]]).log()
    for arguments, options, message in (
        ((log_p, labels, log_q[:1]), {}, "at least C=2 classes"),
        ((log_p[:, :1], labels, log_q[:, :1]), {}, "a simplex of D=2"),
        ((log_p, labels, log_q[:, :3]), {}, r"log_p \[3, 4\]: expected \[B, 3\]"),
        ((log_p[0], labels, log_q), {}, "pass one label for each sample"),
        ((log_p, labels, log_q[0]), {}, r"expected \[C, D\]"),
        ((impossible.expand(3, 4), labels, log_q), {}, "row 0.*probability of exactly 0: take log_softmax or log_nsf"),
        ((log_p, labels, impossible.expand(2, 4)), {}, "row 0.*probability of exactly 0"),
        ((log_p, labels, log_q), {"reduction": "max"}, "unknown reduction 'max': use one of mean, sum, none"),
        ((log_p, labels, log_q), {"separation_direction": "both"}, "unknown separation_direction 'both': use one of"),
        ((log_p, labels, log_q), {"separation_power": torch.nan}, "separation_power is NaN: use 1"),
        ((log_p, labels, log_q), {"form": "likelihood"}, "needs a finite separation_power below 0, got 1.0"),
        ((log_p, labels, log_q), {"weight": torch.ones(3)}, r"weight \[3\]: expected \[2\]"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            ncmi.ncmi_loss(*arguments, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((1, 8), {}, "num_classes=1: a classifier needs at least 2 classes"),
        ((3, 1), {"anchors": "random"}, "D ≥ 2, got D=1: widen the network"),
        ((3, 0), {}, "feature_dim=0"),
        ((9, 8), {"anchors": "axis"}, "D=8 is smaller than C=9: axis anchors need D ≥ C; use anchors='etf' or 'random'"),
        ((3, 8), {"temperature": 0.0}, "temperature=0.0: it divides the feature and must be above 0"),
        ((3, 8), {"temperature": torch.nan}, "temperature=nan"),
        ((3, 8), {"distribution": "sparsemax"}, "unknown distribution 'sparsemax': use one of nsf, softmax"),
        ((3, 8), {"centroids": "moving"}, "unknown centroids 'moving': use one of fixed, learned, class_mean"),
        ((3, 8), {"center": "mean"}, "unknown center 'mean': use one of none, ema, frozen"),
        ((3, 8), {"anchors": "corners"}, "unknown anchors 'corners'"),
        ((3, 8), {"anchor_scale": 0.0}, "anchor_scale=0.0: must be above 0 and finite, or None"),
        ((3, 8), {"anchor_scale": torch.nan}, "anchor_scale=nan: must be above 0 and finite, or None"),
        ((3, 8), {"centroids": "fixed", "anchor_scale": -1.0}, "anchor_scale=-1.0: must be above 0"),
        ((3, 8), {"center": "ema", "center_decay": 1.0}, "center_decay=1.0"),
        ((3.0, 8), {}, "num_classes=3.0: must be a whole number"),
        ((3, 8.5), {}, "feature_dim=8.5: must be a whole number"),
        ((True, 8), {}, "num_classes=True: must be a whole number"),
        ((3, 8), {"temperature": "0.5"}, "temperature='0.5': must be a number"),
        ((3, 8), {"temperature": [0.5]}, "temperature=.0.5.: must be a number"),
        ((3, 8), {"temperature": torch.inf}, "temperature=inf: .*above 0 and finite"),
        ((3, 8), {"separation_power": "-4"}, "separation_power='-4': must be a number"),
        ((3, 8), {"robustness": None}, "robustness=None: must be a number"),
        ((3, 8), {"label_smoothing": "0.1"}, "label_smoothing='0.1': must be a number"),
        ((3, 8), {"anchor_scale": torch.inf}, "anchor_scale=inf: must be above 0 and finite"),
        ((3, 8), {"negligible": "no"}, "negligible='no': must be a number"),
        ((3, 8), {"center": "ema", "center_updates": 1.5}, "center_updates=1.5: must be a whole number"),
        ((3, 8), {"ignore_index": 0.5}, "ignore_index=0.5: must be a whole number"),
        ((3, 8), {"anchor_seed": 0.5}, "anchor_seed=0.5: must be a whole number"),
        ((3, 8), {"feature_length": [1.0]}, "use own, common, or a length above 0"),
        ((3, 8), {"weight": ["a", "b", "c"]}, "weight must be 3 numbers"),
        ((3, 8), {"center": "frozen", "center_updates": 0}, "center_updates=0: must be at least 1"),
        ((3, 8), {"centroids": "class_mean", "centroid_decay": -0.1}, "centroid_decay=-0.1"),
        ((3, 8), {"weight": "inverse"}, "unknown weight 'inverse': use 'balanced'"),
        ((3, 8), {"weight": [1.0, 2.0]}, "weight must be 3 numbers ≥ 0, one a class, not all 0"),
        ((3, 8), {"weight": [0.0, 0.0, 0.0]}, "not all 0"),
        ((3, 8), {"weight": [1.0, -1.0, 1.0]}, "numbers ≥ 0"),
        ((3, 8), {"weight": torch.tensor([1.0, torch.nan, 1.0])}, "numbers ≥ 0"),
    ],
)  # fmt: skip
def test_errors_of_construction_name_the_cure(
    arguments: tuple[int, int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ncmi.NCMILoss(*arguments, **options)


def test_other_sizes_are_whole_and_other_options_numbers() -> None:
    for make, message in (
        (lambda: ncmi.NCMIHead(8.0, 3), "in_features=8.0: must be a whole number"),
        (lambda: ncmi.CentroidClassifier(3, 8.0), "feature_dim=8.0: must be a whole number"),
        (lambda: ncmi.CentroidClassifier(3, 8, power="4"), "power='4': must be a number"),
        (lambda: ncmi.InformationAccumulator(2.0, 3), "num_classes=2.0: must be a whole number"),
        (lambda: ncmi.anchor_directions(3.0, 8, "axis"), "num_classes=3.0: must be a whole number"),
        (lambda: ncmi.to_log_distribution(torch.ones(1, 3), None, "0.5"), "temperature='0.5': must be a number"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    ncmi.NCMILoss(np.int64(3), np.int32(8), temperature=np.float32(0.5), ignore_index=np.int64(-1))


def test_errors_of_setters_name_the_cure() -> None:
    loss = ncmi.NCMILoss(3, 8, anchor_scale=10.0, weight="balanced")
    with pytest.raises(ValueError, match=r"centroids must be \[3, 8\] positive probabilities"):
        loss.set_centroids(torch.full((2, 8), 0.125))
    with pytest.raises(ValueError, match="positive probabilities"):
        loss.set_centroids(torch.eye(3, 8))
    with pytest.raises(TypeError, match=r"torch\.as_tensor"):
        loss.set_centroids([[0.125] * 8] * 3)
    for mode in ("fixed", "learned", "class_mean"):
        with pytest.raises(ValueError, match="do not sum to 1: divide each row by its sum"):
            ncmi.NCMILoss(3, 8, centroids=mode, feature_length="common").set_centroids(torch.ones(3, 8))
    with pytest.raises(ValueError, match=r"class counts \[2\]: expected one for each of 3 classes"):
        loss.set_class_counts(torch.ones(2))


def test_predicting_in_inference_mode_does_not_spoil_training() -> None:
    for options in FORMS:
        loss = ncmi.NCMILoss(4, 6, **options)
        with torch.inference_mode():
            loss.to(torch.float32)
            loss.predict_proba(torch.randn(3, 6))
        assert_trains(loss, torch.randn(3, 6), torch.eye(4)[:3])
        assert_trains(loss, torch.randn(3, 6), torch.arange(3))
