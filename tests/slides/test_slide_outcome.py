"""Which slides are looked at, plans of comparisons, and predictions that cannot be made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slide_helpers import WIDTH, rows, slide_recipe, write_cohort

from ncmi.cli.output import print_results
from ncmi.data.bags.bag import BagError
from ncmi.objectives.options import CrossEntropyOptions
from ncmi.recipes import recipe_to_dict
from ncmi.training.bags import slides_to_show
from ncmi.training.comparison import ComparisonError, Plan, compare, entries_of
from ncmi.training.prediction import predict
from ncmi.training.rehearsal import rehearse
from ncmi.training.run import train


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


def test_bad_slides_are_marked_left_out_or_stop_a_prediction(tmp_path: Path, run: Path) -> None:
    write_bag(tmp_path / "new" / "good.h5", np.ones((3, WIDTH), np.float32))
    write_bag(tmp_path / "new" / "nan.h5", np.full((3, WIDTH), np.nan, np.float32))
    write_bag(tmp_path / "new" / "empty.h5", np.zeros((0, WIDTH), np.float32))
    with pytest.raises(BagError, match=r"(nan|empty)\.h5"):
        predict(run, tmp_path / "new", tmp_path / "p.csv", bad="error")
    assert not (tmp_path / "p.csv").exists()
    predicted = predict(run, tmp_path / "new", tmp_path / "skipped.csv", bad="skip")
    assert predicted.rows == 1
    assert {name for name, _ in predicted.skipped} == {"nan", "empty"}
    (good,) = rows(tmp_path / "skipped.csv")
    assert predict(run, tmp_path / "new", tmp_path / "p.csv") == predicted  # marked, unless it is said otherwise
    marked = {row["id"]: row for row in rows(tmp_path / "p.csv")}
    assert marked.pop("good") == {**good, "reason": ""}
    assert {name: row.pop("reason") for name, row in marked.items()} == dict(predicted.skipped)
    assert all(set(row.values()) == {name, ""} for name, row in marked.items())
    with pytest.raises(ValueError, match="read-out"):
        predict(run, tmp_path / "new", tmp_path / "q.csv", readout="nothing")


def test_what_stands_against_a_comparison_is_found_before_it_is_begun(tmp_path: Path, table: Path) -> None:
    recipe = slide_recipe(table, objective=CrossEntropyOptions())
    (mean,) = entries_of(recipe, ["cross_entropy"], ["mean"])
    broken = replace(recipe, network=replace(recipe.network, name="aem", heads=5))
    faults = rehearse({"mean": recipe_to_dict(mean.recipe), "broken": recipe_to_dict(broken)}, ())
    assert list(faults) == ["broken"]
    assert "heads" in faults["broken"]
    damaged = write_cohort(tmp_path / "damaged")
    write_bag(damaged.parent / "features" / "slide03.h5", np.full((3, WIDTH), np.nan, np.float32))
    # what a worker finds wrong comes back from it
    with pytest.raises(ComparisonError, match=r"'slide03': \d+ NaN or infinite features.*--data\.bad skip"):
        compare(Plan(entries_of(slide_recipe(damaged), ["ncmi"]), (0,), workers=1), tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_patients_as_the_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Patients of one label over several slides: their slides' mean probabilities decide, and are judged by patient."""
    table = write_cohort(tmp_path / "cohort", slides=48)
    lines = table.read_text().splitlines()
    # a patient's slides are of its class: number // 3 of slides of the same class
    fields = [line.split(",") for line in lines[1:]]
    for number, field in enumerate(fields):
        field[1] = f"p{field[3]}{number // 6}"
    table.write_text("\n".join([lines[0], *map(",".join, fields)]) + "\n")
    results = train(slide_recipe(table), tmp_path / "run")
    slides, patients = rows(tmp_path / "run" / "slides.csv"), rows(tmp_path / "run" / "patients.csv")
    assert {row["patient"] for row in slides} == {row["patient"] for row in patients}
    for row in patients:
        of_patient = [slide for slide in slides if slide["patient"] == row["patient"]]
        assert (row["label"], int(row["slides"])) == (of_patient[0]["label"], len(of_patient))
        for column in (name for name in row if ":" in name):
            mean = sum(float(slide[column]) for slide in of_patient) / len(of_patient)
            assert float(row[column]) == pytest.approx(mean, abs=1e-6)
    test = [row for row in patients if row["part"] == "test"]
    right = [max(("none", "one", "other"), key=lambda name: float(row[f"head:{name}"])) == row["label"] for row in test]
    scores = results.readouts["head"].patients
    assert scores is not None
    assert (scores.samples, scores.groups) == (len(test), len(test))
    assert scores.accuracy.value == pytest.approx(sum(right) / len(test))
    print_results(results)
    assert "one decision a patient" in capsys.readouterr().out


def test_patients_with_slides_of_several_classes_have_no_label(tmp_path: Path) -> None:
    results = train(slide_recipe(write_cohort(tmp_path / "cohort")), tmp_path / "run")
    assert not (tmp_path / "run" / "patients.csv").exists()
    assert results.readouts["head"].patients is None
