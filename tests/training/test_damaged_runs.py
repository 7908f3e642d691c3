"""Runs on damaged training parts: what is damaged, what is not, and that it is the same damage whenever it is asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_helpers import assert_same_run, disturb_generators, make_recipe, signal_at, weights

from ncmi.comparison import ComparisonError, Entry, Plan, compare
from ncmi.data import load_dataset, noisy_labels, split_dataset
from ncmi.evaluation import evaluate_run, features_of
from ncmi.files import write_json
from ncmi.options import CrossEntropyOptions, NCMIOptions, ObjectiveOptions
from ncmi.recipes import Data, Recipe, recipe_from_dict, recipe_to_dict
from ncmi.training import Interrupted, load_model, train
from ncmi.training.parts import dataset_of, parts_of, split_of

DAMAGED = Data("wine", label_noise=0.3, imbalance=3.0)


def recipe_on(data: Data, objective: ObjectiveOptions | None = None, **training: Any) -> Recipe:
    return replace(make_recipe(objective, **training), data=data)


def test_only_the_training_labels_are_wrong() -> None:
    recipe = recipe_on(Data("wine", label_noise=0.4, imbalance=2.0, train_per_class=20), seed=3)
    clean = dataset_of(recipe.data)
    before = clean.labels.clone()
    dataset, split = parts_of(recipe, clean)
    assert torch.equal(clean.labels, before)
    assert dataset.inputs is clean.inputs
    expected = split_dataset(clean, train_per_class=20, imbalance=2.0, seed=3)
    for name in ("train", "validation", "test"):
        assert torch.equal(getattr(split, name), getattr(expected, name))
    # 20·2^(−c/2), of the true classes
    assert torch.bincount(clean.labels[split.train]).tolist() == [20, 14, 10]
    noisy = noisy_labels(clean.labels, 3, 0.4, "symmetric", seed=3)
    assert torch.equal(dataset.labels[split.train], noisy[split.train])
    assert 10 <= int((dataset.labels != clean.labels).sum()) <= 26  # 44 of them, 18 expected
    rest = torch.ones(len(clean), dtype=torch.bool)
    rest[split.train] = False
    assert torch.equal(dataset.labels[rest], clean.labels[rest])


def test_damage_depends_on_the_splits_seed_alone() -> None:
    clean = load_dataset("wine")

    def labels(recipe: Recipe) -> torch.Tensor:
        return parts_of(recipe, clean)[0].labels

    ncmi, other = (recipe_on(DAMAGED, objective, seed=5) for objective in (NCMIOptions(), CrossEntropyOptions()))
    assert torch.equal(labels(ncmi), labels(other))
    assert torch.equal(labels(ncmi), labels(recipe_on(DAMAGED, seed=5, epochs=7, batch_size=3)))
    assert not torch.equal(labels(ncmi), labels(recipe_on(DAMAGED, seed=6)))
    fixed = replace(DAMAGED, split_seed=5)
    assert torch.equal(labels(recipe_on(fixed, seed=6)), labels(ncmi))
    undamaged = recipe_on(Data("wine"), seed=5)
    assert parts_of(undamaged, clean)[0] is clean
    assert torch.equal(split_of(undamaged, clean).train, split_dataset(clean, seed=5).train)


@pytest.mark.parametrize("objective", [NCMIOptions(), CrossEntropyOptions()])
def test_loss_and_readouts_learn_the_wrong_labels_and_are_judged_by_the_right_ones(
    objective: ObjectiveOptions, tmp_path: Path
) -> None:
    """Where nearly every label is that of the next class, everything that is learned is wrong."""
    data = Data("wine", label_noise=0.99, noise_kind="pair")
    results = train(recipe_on(data, objective, epochs=20, learning_rate=1e-2), tmp_path / "run")
    assert set(results["readouts"]) == {"head", "cc", "lp", "knn"}
    for found in results["readouts"].values():
        assert found["test_accuracy"] < 0.1
        assert found["validation_accuracy"] < 0.1
    with np.load(tmp_path / "run/test_outputs.npz") as outputs:
        clean = load_dataset("wine")
        np.testing.assert_array_equal(outputs["labels"], clean.labels[split_dataset(clean).test])
        for readout in results["readouts"]:
            assert ((outputs["labels"] + 1) % 3 == outputs[f"prediction_{readout}"]).mean() > 0.9


@pytest.mark.parametrize("objective", [NCMIOptions(), CrossEntropyOptions("balanced")])
def test_stopped_resumed_and_evaluated(objective: ObjectiveOptions, tmp_path: Path) -> None:
    recipe = recipe_on(DAMAGED, objective, batch_size=16)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    results = train(recipe, whole)
    with signal_at(6), pytest.raises(Interrupted):
        train(recipe, cut)
    disturb_generators()
    train(recipe, cut, resume=True)
    assert_same_run(whole, cut)

    clean = load_dataset("wine")
    dataset, split = parts_of(recipe, clean)
    assert results["num_train"] == len(split.train) < len(split_dataset(clean).train)
    # CC's class counts, and the loss's, are those of the wrong labels
    counts = torch.bincount(dataset.labels[split.train], minlength=3)
    assert counts.tolist() != torch.bincount(clean.labels[split.train]).tolist()
    assert weights(cut)["/model/cc.counts"].tolist() == counts.tolist()
    if isinstance(objective, CrossEntropyOptions):
        assert weights(cut)["/model/objective.class_weights.counts"].tolist() == counts.tolist()
    found = evaluate_run(cut)
    for readout, scores in found["readouts"].items():
        assert scores == pytest.approx(results["readouts"][readout], abs=1e-6)
    assert found["information"] == pytest.approx(results["information"], rel=1e-5)


def test_centroids_put_to_class_means_are_those_of_the_wrong_labels(tmp_path: Path) -> None:
    from ncmi.options import Alternation

    recipe = recipe_on(DAMAGED, NCMIOptions(centroids="fixed"), alternation=Alternation("class_means"))
    train(recipe, tmp_path / "run")
    model = load_model(tmp_path / "run")
    dataset, split = parts_of(recipe, load_dataset("wine"))
    with torch.no_grad():
        p = model.objective.log_distribution(features_of(model, dataset.inputs[split.train])).exp()
        means = torch.stack([p[dataset.labels[split.train] == c].mean(0) for c in range(3)])
        torch.testing.assert_close(model.objective.log_centroids().exp(), means, rtol=1e-4, atol=1e-6)


def without_damage(content: dict[str, Any]) -> dict[str, Any]:
    """The recipe as it was written before damage could be asked for."""
    for name in ("label_noise", "noise_kind", "imbalance"):
        del content["data"][name]
    for name in ("class_weights", "logit_adjustment"):
        content["objective"].pop(name, None)
    return content


def test_recipes_and_comparisons_of_old(tmp_path: Path) -> None:
    recipe = make_recipe(CrossEntropyOptions(), epochs=1)
    assert recipe_from_dict(without_damage(recipe_to_dict(recipe))) == recipe
    results = train(recipe, tmp_path / "c/runs/cross_entropy-seed0")
    path = tmp_path / "c/runs/cross_entropy-seed0/recipe.json"
    write_json(path, without_damage(json.loads(path.read_text())))
    assert train(recipe, path.parent, resume=True) == results
    again = evaluate_run(path.parent)["readouts"]
    assert again["head"] == pytest.approx(results["readouts"]["head"], abs=1e-6)

    # a comparison with this finished run in it goes on, and one of another recipe does not
    plan = Plan((Entry("cross_entropy", "CE", recipe),), (0,), workers=1)
    description = json.loads(json.dumps(plan.describe(None)))
    without_damage(description["entries"][0]["recipe"])
    write_json(tmp_path / "c/comparison.json", description)
    heard: list[str] = []
    compare(plan, tmp_path / "c", resume=True, on_run=lambda name, found: heard.append(name))
    assert heard == ["cross_entropy-seed0"]
    noisy = replace(recipe, data=replace(recipe.data, label_noise=0.2))
    with pytest.raises(ComparisonError, match="by another recipe: give the same options"):
        compare(Plan((Entry("cross_entropy", "CE", noisy),), (0,)), tmp_path / "c", resume=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label_noise": 1.0}, "label_noise=1.0: must be at least 0 and below 1, such as 0.4"),
        ({"label_noise": 40.0}, "label_noise=40.0"),
        ({"label_noise": -0.1}, "label_noise=-0.1"),
        ({"label_noise": float("nan")}, "label_noise=nan"),
        ({"imbalance": 0.01}, "imbalance=0.01: must be at least 1, the largest class over the smallest, such as 100"),
        ({"imbalance": float("inf")}, "imbalance=inf"),
        ({"imbalance": float("nan")}, "imbalance=nan"),
    ],
)
def test_out_of_range(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Data("digits", **fields)  # type: ignore[arg-type]


def test_an_unknown_kind_leaves_nothing_behind(tmp_path: Path) -> None:
    recipe = recipe_on(Data("wine", label_noise=0.1, noise_kind="confusion"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="section 'data': Invalid enum value 'confusion'"):
        train(recipe, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
