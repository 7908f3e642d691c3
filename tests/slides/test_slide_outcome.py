"""Which slides are looked at, plans of comparisons, and predictions that cannot be made."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slide_helpers import WIDTH, rows, slide_recipe, write_cohort

from ncmi.data.bags.bag import BagError
from ncmi.objectives.options import CrossEntropyOptions
from ncmi.training.bags import slides_to_show
from ncmi.training.comparison import ComparisonError, Plan, compare, entries_of
from ncmi.training.prediction import predict
from ncmi.training.run import train
from ncmi.training.run_folder import RunFolder


@given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_chosen_slides_are_few_and_different(count: int, classes: int, most: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    chosen = slides_to_show(labels, random.dirichlet(np.ones(classes), count), most)
    assert len(chosen) == len(set(chosen)) == min(most, count)


def test_the_surest_right_ones_come_first_then_the_surest_wrong_ones() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    p = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.99, 0.01]])
    assert slides_to_show(labels, p, 4) == [1, 3, 2, 4]
    assert slides_to_show(labels, p, 5) == [1, 3, 2, 4, 0]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(slide_recipe(table, objective=CrossEntropyOptions()), folder)
    return folder


def write_bag(path: Path, x: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"] = x


def test_features_of_another_encoder_cannot_be_predicted(tmp_path: Path, run: Path) -> None:
    write_bag(tmp_path / "new" / "a.h5", np.zeros((3, WIDTH + 1), np.float32))
    with pytest.raises(BagError, match=rf"a: features of width {WIDTH + 1}.*encoder"):
        predict(run, tmp_path / "new", tmp_path / "p.csv")
    assert not (tmp_path / "p.csv").exists()


def test_bad_slides_stop_a_prediction_or_are_left_out(tmp_path: Path, run: Path) -> None:
    write_bag(tmp_path / "new" / "good.h5", np.ones((3, WIDTH), np.float32))
    write_bag(tmp_path / "new" / "nan.h5", np.full((3, WIDTH), np.nan, np.float32))
    write_bag(tmp_path / "new" / "empty.h5", np.zeros((0, WIDTH), np.float32))
    with pytest.raises(BagError):
        predict(run, tmp_path / "new", tmp_path / "p.csv")
    assert not (tmp_path / "p.csv").exists()
    predicted = predict(run, tmp_path / "new", tmp_path / "p.csv", bad="skip")
    assert predicted.rows == 1
    assert {name for name, _ in predicted.skipped} == {"nan", "empty"}
    assert [row["id"] for row in rows(tmp_path / "p.csv")] == ["good"]
    with pytest.raises(ValueError, match="read-out"):
        predict(run, tmp_path / "new", tmp_path / "q.csv", readout="knn")


def test_a_run_that_fails_does_not_stop_the_others(tmp_path: Path, table: Path) -> None:
    recipe = slide_recipe(table, objective=CrossEntropyOptions())
    entries = entries_of(recipe, ["cross_entropy"], ["mean"])
    broken = replace(
        entries[0], name="broken", recipe=replace(recipe, network=replace(recipe.network, name="aem", heads=5))
    )
    damaged = write_cohort(tmp_path / "damaged")
    write_bag(damaged.parent / "features" / "slide03.h5", np.full((3, WIDTH), np.nan, np.float32))
    unusable = replace(entries[0], name="unusable", recipe=slide_recipe(damaged))
    with pytest.raises(ComparisonError, match="2 of 3 runs failed: ") as failed:
        compare(Plan((broken, unusable, entries[0]), (0,), workers=1), tmp_path / "c")
    assert re.search(r"broken-seed0: .*heads", str(failed.value))
    # what a worker finds wrong comes back from it
    told = r"unusable-seed0: .*'slide03': \d+ NaN or infinite features.*--data\.bad skip"
    assert re.search(told, str(failed.value))
    assert RunFolder(tmp_path / "c" / "runs" / "mean-cross_entropy-seed0").finished
    # another plan into the same folder would mix two experiments
    other = entries_of(replace(recipe, training=replace(recipe.training, epochs=3)), ["cross_entropy"], ["mean"])
    with pytest.raises(ComparisonError, match="another recipe"):
        compare(Plan(other, (0,), workers=1), tmp_path / "c", resume=True)
