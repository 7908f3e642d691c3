"""What training asks of every objective in place of looking at its type."""

from __future__ import annotations

import pytest
import torch

import ncmi
from ncmi.objectives.options import NCMIOptions, make_objective, objective_names


@pytest.mark.parametrize("name", objective_names())
def test_every_objective_has_a_centroid_classifier_and_says_whether_it_sets_centroids(name: str) -> None:
    objective = make_objective(name, 3, 6)
    classifier = objective.centroid_classifier().partial_fit(torch.randn(9, 6), torch.arange(9) % 3)
    assert classifier.predict(torch.randn(4, 6)).shape == (4,)
    assert objective.sets_centroids == (name == "ncmi")
    if not objective.sets_centroids:
        before = {key: value.clone() for key, value in objective.state_dict().items()}
        objective.check_settable()
        objective.set_centroids(classifier.centroids)
        assert all(torch.equal(value, before[key]) for key, value in objective.state_dict().items())


def test_the_classifier_of_ncmi_has_its_map() -> None:
    objective = NCMIOptions(temperature=0.2, distribution="softmax", feature_length=1.3, center="ema").build(3, 6)
    assert isinstance(objective, ncmi.NCMILoss)
    objective(torch.randn(5, 6), torch.tensor([0, 1, 2, 0, 1]))
    classifier = objective.centroid_classifier()
    features = torch.randn(7, 6)
    torch.testing.assert_close(classifier.log_distribution(features), objective.log_distribution(features))
    assert classifier.power == objective.likelihood_power


def test_centroids_go_where_they_are_put_or_say_why_not() -> None:
    target = torch.rand(3, 6).softmax(1)
    for options in (
        NCMIOptions(centroids="fixed"),
        NCMIOptions(anchor_scale=10.0),
        NCMIOptions(centroids="class_mean"),
        NCMIOptions(feature_length="common"),
    ):
        objective = options.build(3, 6)
        objective.check_settable()
        objective.set_centroids(target)
        assert isinstance(objective, ncmi.NCMILoss)
        torch.testing.assert_close(objective.log_centroids().exp().detach(), target)
    with pytest.raises(ValueError, match="use anchor_scale=10, centroids='fixed', or feature_length='common'"):
        NCMIOptions(feature_length="own").build(3, 6).check_settable()
