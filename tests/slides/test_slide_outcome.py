"""Which slides are looked at, plans of comparisons, and predictions that cannot be made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slide_helpers import WIDTH, read, rows, slide_recipe, write_cohort

from ncmi.comparison import ComparisonError
from ncmi.options import CrossEntropyOptions
from ncmi.slides.bag import BagError
from ncmi.slides.compare import SlidePlan, compare_slides, slide_entries
from ncmi.slides.outcome import chosen_slides
from ncmi.slides.predict import predict_slides
from ncmi.slides.run import train_slides


@given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_chosen_slides_are_few_and_different(count: int, classes: int, most: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    chosen = chosen_slides(labels, random.dirichlet(np.ones(classes), count), most)
    assert len(chosen) == len(set(chosen)) == min(most, count)


def test_the_surest_right_ones_come_first_then_the_surest_wrong_ones() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    p = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.99, 0.01]])
    assert chosen_slides(labels, p, 4) == [1, 3, 2, 4]
    assert chosen_slides(labels, p, 5) == [1, 3, 2, 4, 0]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train_slides(slide_recipe(table, objective=CrossEntropyOptions()), folder)
    return folder


def write_bag(path: Path, x: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"] = x


def test_features_of_another_encoder_cannot_be_predicted(tmp_path: Path, run: Path) -> None:
    write_bag(tmp_path / "new" / "a.h5", np.zeros((3, WIDTH + 1), np.float32))
    with pytest.raises(BagError, match=rf"a: features of width {WIDTH + 1}.*encoder"):
        predict_slides(run, tmp_path / "new", tmp_path / "p.csv")
    assert not (tmp_path / "p.csv").exists()


def test_bad_slides_stop_a_prediction_or_are_left_out(tmp_path: Path, run: Path) -> None:
    write_bag(tmp_path / "new" / "good.h5", np.ones((3, WIDTH), np.float32))
    write_bag(tmp_path / "new" / "nan.h5", np.full((3, WIDTH), np.nan, np.float32))
    write_bag(tmp_path / "new" / "empty.h5", np.zeros((0, WIDTH), np.float32))
    with pytest.raises(BagError):
        predict_slides(run, tmp_path / "new", tmp_path / "p.csv")
    assert not (tmp_path / "p.csv").exists()
    count, skipped = predict_slides(run, tmp_path / "new", tmp_path / "p.csv", bad="skip")
    assert count == 1
    assert {name for name, _ in skipped} == {"nan", "empty"}
    assert [row["slide"] for row in rows(tmp_path / "p.csv")] == ["good"]
    with pytest.raises(ValueError, match="read-out"):
        predict_slides(run, tmp_path / "new", tmp_path / "q.csv", readout="knn")


def test_plans_are_pairs(table: Path) -> None:
    recipe = slide_recipe(table, data={"folds": 3})
    entries = slide_entries(recipe, ["abmil", "mean"], ["cross_entropy", "ncmi"])
    plan = SlidePlan(entries, (4, 5))
    runs = plan.all_runs()
    assert len({name for name, _ in runs}) == len(runs) == 24
    for entry in entries:
        found = [(one.training.seed, one.data.fold) for _, one in plan.runs(entry)]
        assert found == [(seed, fold) for seed in (4, 5) for fold in range(3)]
    with pytest.raises(ComparisonError, match="unknown network"):
        slide_entries(recipe, ["abmill"], ["ncmi"])
    with pytest.raises(ComparisonError, match="unknown objective"):
        slide_entries(recipe, ["abmil"], ["nmci"])
    with pytest.raises(ComparisonError, match="same name"):
        SlidePlan((entries[0], entries[0]), (0,))
    with pytest.raises(ComparisonError, match="at least one"):
        SlidePlan(entries, ())


def test_a_run_that_fails_does_not_stop_the_others(tmp_path: Path, table: Path) -> None:
    recipe = slide_recipe(table, objective=CrossEntropyOptions())
    entries = slide_entries(recipe, ["mean"], ["cross_entropy"])
    broken = replace(
        entries[0], name="broken", recipe=replace(recipe, network=replace(recipe.network, name="aem", heads=5))
    )
    with pytest.raises(ComparisonError, match=r"1 of 2 runs failed: broken-seed0: .*heads"):
        compare_slides(SlidePlan((broken, entries[0]), (0,), workers=1), tmp_path / "c")
    assert read(tmp_path / "c" / "runs" / "mean-cross_entropy-seed0", "results.json")["status"] == "finished"
    # another plan into the same folder would mix two experiments
    other = slide_entries(replace(recipe, training=replace(recipe.training, epochs=3)), ["mean"], ["cross_entropy"])
    with pytest.raises(ComparisonError, match="another recipe"):
        compare_slides(SlidePlan(other, (0,), workers=1), tmp_path / "c", resume=True)
