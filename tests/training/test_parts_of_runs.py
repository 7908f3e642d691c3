"""Runs on limited data, and runs that train on the validation part as well."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from training_helpers import make_recipe

from ncmi.evaluation import evaluate_run
from ncmi.recipes import Data
from ncmi.reports import read_run, write_report
from ncmi.training import load_model, train


def test_training_on_all_leaves_validation_out_everywhere(tmp_path: Path) -> None:
    recipe = replace(make_recipe(), data=Data("wine", train_on_all=True))
    rows: list[dict[str, object]] = []
    results = train(recipe, tmp_path / "run", on_epoch=rows.append)
    assert (results["num_validation"], results["num_train"] + results["num_test"]) == (0, 178)
    assert results["best_epoch"] == results["epochs"] == 3
    for readout in results["readouts"].values():
        assert {name.split("_")[0] for name in readout} == {"test"}
    assert all(row["validation_accuracy"] is None and row["validation_ncmi"] is None for row in rows)
    again = evaluate_run(tmp_path / "run")
    for name, readout in again["readouts"].items():
        assert readout == pytest.approx(results["readouts"][name], abs=1e-6)
    assert load_model(tmp_path / "run").objective.num_classes == 3
    assert read_run(tmp_path / "run").results is not None
    assert write_report(tmp_path / "run").is_file()


def test_training_on_all_resumes(tmp_path: Path) -> None:
    recipe = replace(make_recipe(checkpoint_steps=1), data=Data("wine", train_on_all=True))
    whole = train(recipe, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(row: dict[str, object]) -> None:
        if row["epoch"] == 2:
            raise Stop

    with pytest.raises(Stop):
        train(recipe, tmp_path / "stopped", on_epoch=stop)
    resumed = train(recipe, tmp_path / "stopped", resume=True)
    assert resumed["readouts"] == whole["readouts"]


def test_limited_training(tmp_path: Path) -> None:
    recipe = replace(make_recipe(), data=Data("wine", train_per_class=10))
    assert train(recipe, tmp_path / "run")["num_train"] == 30
    assert json.loads((tmp_path / "run/recipe.json").read_text())["data"]["train_per_class"] == 10


def test_information_holds_both_separations(tmp_path: Path) -> None:
    found = train(make_recipe(), tmp_path / "run")["information"]
    assert found["ncmi"] == pytest.approx(found["cmi"] / found["separation"])
    assert found["cross_entropy_ncmi"] == pytest.approx(found["cmi"] / found["cross_entropy_separation"])
    assert found["cross_entropy_separation"] != pytest.approx(found["separation"])
