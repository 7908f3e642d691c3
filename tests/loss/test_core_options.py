"""Objectives by name: options name the objective's keywords; their defaults and checks exist once."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, dataclass, fields
from importlib import import_module
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import ncmi
from ncmi.objectives.options import NCMIOptions


def target_of(options: type[ncmi.ObjectiveOptions]) -> Any:
    module, _, attribute = options.target.partition(":")
    found = getattr(import_module(module), attribute)
    assert callable(found)
    return found


@pytest.mark.parametrize("name", ncmi.objective_names())
def test_every_option_is_a_keyword_without_a_default_of_its_own(name: str) -> None:
    options = ncmi.objective_options(name)
    assert options.name == name
    target = ncmi.NCMILoss if name == "ncmi" else target_of(options)
    parameters = inspect.signature(target).parameters
    assert list(parameters)[:2] == ["num_classes", "feature_dim"]
    if name != "ncmi":  # it takes what its options take, and has no keyword besides
        assert list(parameters)[2:] == ["options"]
        assert target.options_type is options
    for field in fields(options):
        assert field.default is not MISSING
        assert name != "ncmi" or parameters[field.name].default == field.default, field.name


BAD_OPTIONS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("ncmi", {"temperature": -1.0}, "must be above 0"),
    ("ncmi", {"distribution": "sparsemax"}, "use one of nsf, softmax"),
    ("ncmi", {"feature_length": -1.0}, "feature_length=-1.0.* above 0"),
    ("ncmi", {"feature_length": "unit"}, "unknown feature_length .unit.: use one of auto, own, common"),
    ("ncmi", {"centroids": "moving"}, "use one of fixed, learned, class_mean"),
    ("ncmi", {"anchors": "corners"}, "use one of auto, axis, etf, random"),
    ("ncmi", {"anchor_scale": 0.0}, "anchor_scale=0.0: must be above 0"),
    ("ncmi", {"center": "mean"}, "use one of none, ema, frozen"),
    ("ncmi", {"center_decay": 1.0}, "center_decay=1.0"),
    ("ncmi", {"centroid_decay": -0.1}, "centroid_decay=-0.1"),
    ("ncmi", {"separation_power": 1.0}, "needs a finite separation_power below 0"),
    ("ncmi", {"separation_direction": "both"}, "use one of centroid_to_sample, sample_to_centroid"),
    ("ncmi", {"form": "sum"}, "use one of likelihood, mean_of_ratios, ratio_of_means"),
    ("ncmi", {"label_smoothing": 2.0}, "at least 0 and at most 1"),
    ("ncmi", {"robustness": 2.0}, r"choose 0 \(clean labels\) to 1"),
    ("ncmi", {"robustness": 0.5, "form": "mean_of_ratios"}, "bounds a likelihood"),
    ("ncmi", {"weight": "inverse"}, "use 'balanced'"),
    ("focal", {"gamma": -1.0}, "gamma=-1.0: must be at least 0"),
    ("supcon", {"projection_dim": 0}, "at least 1"),
)


@pytest.mark.parametrize(("name", "options", "message"), BAD_OPTIONS)
def test_options_check_themselves_without_data(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ncmi.objective_options(name)(**options)


def test_ncmi_options_leave_out_only_what_a_file_cannot_hold() -> None:
    keywords = {name for name, p in inspect.signature(ncmi.NCMILoss).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert keywords - {field.name for field in fields(NCMIOptions)} <= {
        "center_updates",
        "anchor_seed",
        "reduction",
        "ignore_index",
        # how many classes are gone through, not what is computed
        "chunk_classes",
        "negligible",
        "sampled_classes",
        "sparse_gradient",
    }


@pytest.mark.parametrize("name", ncmi.objective_names())
def test_made_by_name(name: str) -> None:
    objective = ncmi.make_objective(name, 4, 6)
    assert isinstance(objective, ncmi.Objective)
    assert (objective.num_classes, objective.feature_dim) == (4, 6)
    features = torch.randn(5, 6) if objective.views == 1 else torch.randn(5, objective.views, 6)
    labels = torch.tensor([0, 1, 2, 3, 0])
    value = objective.loss(features, labels)
    assert value.shape == ()
    assert value.isfinite()
    assert objective.scores(torch.randn(5, 6)).shape == (5, 4)
    log_p = objective.log_distribution(torch.randn(5, 6))
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(5))
    # every parameter has exactly one owner among the two optimizers
    owned = [id(p) for p in (*objective.network_parameters(), *objective.centroid_parameters())]
    assert sorted(owned) == sorted(id(p) for p in objective.parameters())


def test_options_reach_the_objective() -> None:
    loss = ncmi.make_objective("ncmi", 3, 8, temperature=0.25, centroids="fixed", center="ema", separation_power=-2.0)
    assert isinstance(loss, ncmi.NCMILoss)
    assert (loss.temperature, loss.centroid_mode, loss.separation_power) == (0.25, "fixed", -2.0)
    assert loss.center is not None
    with pytest.raises(TypeError, match="temprature"):
        ncmi.make_objective("ncmi", 3, 8, temprature=1.0)
    with pytest.raises(KeyError, match="unknown objective 'nmci'; known: ncmi, cross_entropy"):
        ncmi.make_objective("nmci", 3, 8)


class MarginObjective(ncmi.LinearHeadObjective):
    """A user's own: the multi-class margin loss."""

    def __init__(self, num_classes: int, feature_dim: int, *, margin: float) -> None:
        super().__init__(num_classes, feature_dim)
        self.margin = margin

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.multi_margin_loss(logits, labels, margin=self.margin)


@pytest.fixture
def margin() -> str:
    @ncmi.register_objective("margin")
    @dataclass(frozen=True)
    class MarginOptions(ncmi.ObjectiveOptions):
        margin: float = 1.0
        target: ClassVar[str] = f"{__name__}:MarginObjective"

    return "margin"


def test_a_users_objective(margin: str) -> None:
    assert ncmi.objective_names()[-1] == margin
    objective = ncmi.make_objective(margin, 3, 5, margin=0.5)
    assert isinstance(objective, MarginObjective)
    assert objective.margin == 0.5
    features, labels = torch.randn(4, 5), torch.tensor([0, 1, 2, 0])
    expected = nn.functional.multi_margin_loss(objective.scores(features), labels, margin=0.5)
    torch.testing.assert_close(objective(features, labels), expected)
    with pytest.raises(ValueError, match="objective 'margin' is registered already; choose another name"):
        ncmi.register_objective(margin)(NCMIOptions)
    assert ncmi.objective_options("ncmi") is NCMIOptions


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((1, 5), "num_classes=1: a classifier needs at least 2"), ((3, 0), "feature_dim=0: the network's feature needs")],
)
def test_objectives_check_their_sizes(arguments: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MarginObjective(*arguments, margin=1.0)
