"""The samples that a run is given: limited, damaged and undivided training parts, the same whenever they are asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_helpers import assert_same_run, disturb_generators, leaves, make_recipe, signal_at, weights

from ncmi.data.load import load_dataset
from ncmi.data.splits import noisy_labels, split_dataset
from ncmi.errors import Interrupted
from ncmi.objectives.options import CrossEntropyOptions, NCMIOptions, ObjectiveOptions
from ncmi.recipes import Data, ImageData, Recipe, TableData
from ncmi.report import write_report
from ncmi.training.evaluation import evaluate_run
from ncmi.training.model import load_model
from ncmi.training.run import train
from ncmi.training.run_folder import RunFolder
from ncmi.training.samples import SampleSource, split_of
from ncmi.training.sources import open_source

DAMAGED = TableData("wine", label_noise=0.3, imbalance=3.0)


def recipe_on(data: Data, objective: ObjectiveOptions | None = None, **training: Any) -> Recipe:
    return replace(make_recipe(objective, **training), data=data)


def test_only_the_training_labels_are_wrong() -> None:
    recipe = recipe_on(TableData("wine", label_noise=0.4, imbalance=2.0, train_per_class=20), seed=3)
    clean = load_dataset("wine")
    before = clean.labels.clone()
    source = SampleSource(recipe, clean)
    labels, split = source.labels, source.split
    assert torch.equal(clean.labels, before)
    assert source.dataset is clean
    expected = split_dataset(clean, train_per_class=20, imbalance=2.0, seed=3)
    for name in ("train", "validation", "test"):
        assert torch.equal(getattr(split, name), getattr(expected, name))
    # 20·2^(−c/2), of the true classes
    assert torch.bincount(clean.labels[split.train]).tolist() == [20, 14, 10]
    noisy = noisy_labels(clean.labels, 3, 0.4, "symmetric", seed=3)
    assert torch.equal(labels[split.train], noisy[split.train])
    assert 10 <= int((labels != clean.labels).sum()) <= 26  # 44 of them, 18 expected
    rest = torch.ones(len(clean), dtype=torch.bool)
    rest[split.train] = False
    assert torch.equal(labels[rest], clean.labels[rest])


def test_damage_depends_on_the_splits_seed_alone() -> None:
    clean = load_dataset("wine")

    def labels(recipe: Recipe) -> torch.Tensor:
        return SampleSource(recipe, clean).labels

    ncmi, other = (recipe_on(DAMAGED, objective, seed=5) for objective in (NCMIOptions(), CrossEntropyOptions()))
    assert torch.equal(labels(ncmi), labels(other))
    assert torch.equal(labels(ncmi), labels(recipe_on(DAMAGED, seed=5, epochs=7, batch_size=3)))
    assert not torch.equal(labels(ncmi), labels(recipe_on(DAMAGED, seed=6)))
    fixed = replace(DAMAGED, split_seed=5)
    assert torch.equal(labels(recipe_on(fixed, seed=6)), labels(ncmi))
    undamaged = recipe_on(TableData("wine"), seed=5)
    assert labels(undamaged) is clean.labels
    assert torch.equal(split_of(undamaged.data, clean, seed=5).train, split_dataset(clean, seed=5).train)


@pytest.mark.parametrize("objective", [NCMIOptions(), CrossEntropyOptions()])
def test_loss_and_readouts_learn_the_wrong_labels_and_are_judged_by_the_right_ones(
    objective: ObjectiveOptions, tmp_path: Path
) -> None:
    """Where nearly every label is that of the next class, everything that is learned is wrong."""
    data = TableData("wine", label_noise=0.99, noise_kind="pair")
    results = train(recipe_on(data, objective, epochs=20, learning_rate=1e-2), tmp_path / "run")
    assert set(results.readouts) == {"head", "cc", "lp", "knn"}
    for readout in results.readouts.values():
        assert readout.test.accuracy.value < 0.1
        assert readout.validation.accuracy.value < 0.1
    outputs, clean = RunFolder(tmp_path / "run").outputs(), load_dataset("wine")
    np.testing.assert_array_equal(outputs.labels, clean.labels[split_dataset(clean).test])
    for predictions in outputs.predictions.values():
        assert ((outputs.labels + 1) % 3 == predictions).mean() > 0.9


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
    source = SampleSource(recipe, clean)
    train_labels = source.labels[source.split.train]
    assert results.num_train == len(train_labels) < len(split_dataset(clean).train)
    # CC's class counts, and the loss's, are those of the wrong labels
    counts = torch.bincount(train_labels, minlength=3)
    assert counts.tolist() != torch.bincount(clean.labels[source.split.train]).tolist()
    assert weights(cut)["/model/cc.counts"].tolist() == counts.tolist()
    if isinstance(objective, CrossEntropyOptions):
        assert weights(cut)["/model/objective.class_weights.counts"].tolist() == counts.tolist()
    again = evaluate_run(cut)
    assert leaves(again.readouts) == pytest.approx(leaves(results.readouts), abs=1e-6)
    assert leaves(again.information) == pytest.approx(leaves(results.information), rel=1e-5)


def test_centroids_put_to_class_means_are_those_of_the_wrong_labels(tmp_path: Path) -> None:
    from ncmi.loss.alternating import Alternation

    recipe = recipe_on(DAMAGED, NCMIOptions(centroids="fixed"), alternation=Alternation("class_means"))
    train(recipe, tmp_path / "run")
    model = load_model(tmp_path / "run")
    source = SampleSource(recipe, load_dataset("wine"))
    with torch.no_grad():
        train_part = source.features(model, source.split.train)
        p = model.objective.log_distribution(train_part.features).exp()
        means = torch.stack([p[source.labels[source.split.train] == c].mean(0) for c in range(3)])
        torch.testing.assert_close(model.objective.log_centroids().exp(), means, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label_noise": 1.0}, "label_noise=1.0: must be at least 0 and below 1, such as 0.4"),
        ({"label_noise": 40.0}, "label_noise=40.0"),
        ({"label_noise": -0.1}, "label_noise=-0.1"),
        ({"label_noise": float("nan")}, "label_noise=nan"),
        ({"imbalance": 0.01}, "imbalance=0.01: must be at least 1"),
        ({"imbalance": float("inf")}, "imbalance=inf"),
        ({"imbalance": float("nan")}, "imbalance=nan"),
    ],
)
def test_out_of_range(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageData("digits", **fields)  # type: ignore[arg-type]


def test_an_unknown_kind_leaves_nothing_behind(tmp_path: Path) -> None:
    recipe = recipe_on(TableData("wine", label_noise=0.1, noise_kind="confusion"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="section 'data': Invalid enum value 'confusion'"):
        train(recipe, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_training_on_all_leaves_validation_out_everywhere(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = []
    results = train(recipe_on(TableData("wine", train_on_all=True)), tmp_path / "run", on_epoch=rows.append)
    assert (results.num_validation, results.num_train + results.num_test) == (0, 178)
    assert results.best_epoch == results.epochs == 3
    for readout in results.readouts.values():
        assert (readout.validation, readout.calibration, list(readout.reliability)) == (None, None, ["test"])
    assert all(row["validation_accuracy"] is None and row["validation_ncmi"] is None for row in rows)
    assert leaves(evaluate_run(tmp_path / "run").readouts) == pytest.approx(leaves(results.readouts), abs=1e-6)
    assert load_model(tmp_path / "run").objective.num_classes == 3
    assert RunFolder(tmp_path / "run").results() == results
    assert write_report(tmp_path / "run").is_file()


def test_outside_data_without_finite_features_is_named(tmp_path: Path) -> None:
    train(recipe_on(TableData("wine"), epochs=1), tmp_path / "run")
    huge = tmp_path / "huge.npz"
    np.savez(huge, x=np.full((2, 13), 3e38, np.float32))
    with pytest.raises(ValueError, match=r"huge\.npz: 2 of 2 samples have features that are not finite"):
        evaluate_run(tmp_path / "run", ood=[str(huge)])


def test_training_on_all_resumes(tmp_path: Path) -> None:
    recipe = recipe_on(TableData("wine", train_on_all=True), checkpoint_steps=1)
    whole = train(recipe, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(row: dict[str, object]) -> None:
        if row["epoch"] == 2:
            raise Stop

    with pytest.raises(Stop):
        train(recipe, tmp_path / "stopped", on_epoch=stop)
    assert train(recipe, tmp_path / "stopped", resume=True).readouts == whole.readouts


def test_limited_training(tmp_path: Path) -> None:
    assert train(recipe_on(TableData("wine", train_per_class=10)), tmp_path / "run").num_train == 30
    assert json.loads((tmp_path / "run/recipe.json").read_text())["data"]["train_per_class"] == 10


def test_data_of_another_kind_than_the_recipes_is_refused(tmp_path: Path) -> None:
    for given in (load_dataset("digits"), None):
        with pytest.raises(ValueError, match=r"is data of kind 'image', .*TableData, .*: use ImageData\('digits'\)"):
            train(recipe_on(TableData("digits")), tmp_path / "run", data=given)
    assert list(tmp_path.iterdir()) == []


def test_rows_that_are_trained_and_tested_on_are_said(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [f"{a:.3f},{b:.3f}" for a, b in random.normal(size=(180, 2))]
    path, arrays = tmp_path / "t.csv", tmp_path / "t.npz"
    for lines, repeated in ((rows[:30] * 6, True), (rows, False)):
        labels = [i * 7 % 5 % 2 for i in range(180)]
        table = [f"{line},{'uv'[label]}" for line, label in zip(lines, labels, strict=True)]
        path.write_text("\n".join(["a,b,label", *table, ""]))
        np.savez(arrays, X=np.array([line.split(",") for line in lines], np.float32), y=labels)
        for file in (path, arrays):
            notes = [note for note in open_source(recipe_on(TableData(str(file)))).notes if "of 36 test rows" in note]
            assert len(notes) == repeated
            assert not notes or ("--data.group-column" in notes[0] and notes[0].startswith("3"))
