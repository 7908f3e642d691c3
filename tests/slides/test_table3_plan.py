"""Table III as a plan: which runs, on which split, with which training."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ncmi.comparison import ComparisonError
from ncmi.options import NCMIOptions
from ncmi.slides.bag import BagError
from ncmi.slides.cohort import load_cohort
from ncmi.slides.simulation import SlideRow, read_table, write_simulation
from ncmi.slides.splits import split_cohort
from ncmi.slides.table3 import table3_data, table3_entries, table3_plans


def test_every_network_with_both_objectives() -> None:
    entries = table3_entries("camelyon17", "features", "labels.csv")
    assert [entry.name for entry in entries] == [
        f"{network}-{objective}"
        for network in ("abmil", "transmil", "aem", "asmil")
        for objective in ("cross_entropy", "ncmi")
    ]
    for entry in entries:
        training = entry.recipe.training
        assert (training.optimiser, training.learning_rate, training.weight_decay) == ("adamw", 1e-4, 1e-5)
        assert (training.batch_size, training.schedule, training.epochs) == (1, "cosine", 50)
        assert training.selection == "best"
        assert entry.recipe.network.name == entry.name.split("-")[0]
        assert entry.recipe.data == table3_data("camelyon17", "features", "labels.csv")
    assert entries[1].recipe.objective == NCMIOptions()
    assert table3_entries("bracs", "f", "l", epochs=3)[0].recipe.training.epochs == 3
    with pytest.raises(ComparisonError, match="unknown network 'cnn'"):
        table3_entries("bracs", "f", "l", networks=["cnn"])


def test_plans_of_a_simulation_find_its_table_and_say_so(tmp_path: Path) -> None:
    rows = [SlideRow(f"s{i}", f"p{i}", ("negative", "macro")[i % 2], centre=str(i % 5)) for i in range(10)]
    out = write_simulation(tmp_path / "simulated", rows, feature_dim=24, scale=0.01)
    plans = table3_plans(
        camelyon17=(out / "features", None), networks=["abmil"], seeds=(0, 1), workers=1, imports=["x"]
    )
    (plan,) = plans.values()
    assert list(plans) == ["camelyon17"]
    assert plan.simulation
    assert "(simulation)" in plan.title
    assert plan.entries[0].recipe.data.labels == str(out / "labels.csv")
    assert len(plan.all_runs()) == 4
    assert plan.imports == ("x",)


def test_plans_of_real_features_need_labels(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="no table of labels given: give the CSV of BRACS"):
        table3_plans(bracs=(tmp_path, None))
    with pytest.raises(BagError, match="nothing to make Table III of"):
        table3_plans()
    plans = table3_plans(camelyon17=(tmp_path, "c.csv"), bracs=(tmp_path, "b.csv"))
    assert list(plans) == ["camelyon17", "bracs"]
    assert not any(plan.simulation or "simul" in plan.title for plan in plans.values())


def test_camelyon17_is_tested_on_centres_3_and_4(tmp_path: Path, data_dir: Path) -> None:
    table = data_dir / "labels" / "camelyon17.csv"
    out = write_simulation(tmp_path / "c", table, feature_dim=24, scale=0.001, workers=2)
    data = table3_data("camelyon17", out, table)
    cohort = load_cohort(data)
    split = split_cohort(cohort, data, 0)
    centres = [
        {cohort.slides[i].values["center"] for i in part.tolist()}
        for part in (split.train, split.validation, split.test)
    ]
    assert centres == [set("012"), set("012"), set("34")]
    assert len(split.test) == 200
    assert cohort.class_names == ("negative", "itc", "micro", "macro")


def test_bracs_has_its_own_split_without_the_patient_on_two_sides(tmp_path: Path, data_dir: Path) -> None:
    table = data_dir / "labels" / "bracs.csv"
    out = write_simulation(tmp_path / "b", table, cohort="bracs", feature_dim=24, scale=0.001, workers=2)
    data = table3_data("bracs", out, table)
    cohort = load_cohort(data)
    split = split_cohort(cohort, data, 0)
    assert len(split.test) == 87
    assert 0 < len(split.left_out) < 20
    assert len(split.train) + len(split.validation) + len(split.test) + len(split.left_out) == 547
    assert cohort.class_names == ("BT", "AT", "MT")
    # the simulation's own table is as good as the real one
    with (out / "labels.csv").open(newline="") as ours, table.open(newline="") as theirs:
        assert list(csv.DictReader(ours)) == list(csv.DictReader(theirs))
    assert read_table(out / "labels.csv", "bracs") == read_table(table, "bracs")
