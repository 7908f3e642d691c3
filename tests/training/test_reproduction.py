"""The paper's tables and figures as plans, and making them from small runs."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from ncmi.data.bags.cohort import load_cohort
from ncmi.data.bags.splits import split_cohort
from ncmi.objectives.options import NCMIOptions, ObjectiveOptions
from ncmi.recipes import Augmentation, BagData, BagNetwork, ImageData, Network, Recipe, Training
from ncmi.slides.simulation import SimulationOptions, SlideRow, read_table, write_simulation
from ncmi.training import reproduction
from ncmi.training.comparison import ComparisonError
from ncmi.training.reproduction import (
    EXPERIMENTS,
    TABLE3_DATA,
    Experiment,
    Group,
    Scale,
    cohort_data,
    plan_experiment,
    reproduce,
    scales_of,
)
from ncmi.training.schema import ComparisonRecord, ReproductionRecord, Results, read_record

COHORTS = {"camelyon17": ("c17", "c17.csv"), "bracs": ("bracs", "bracs.csv")}


def groups_of(experiment: Experiment, scale: Scale, **choice: Any) -> tuple[Group, ...]:
    """The plan, with slides or ImageNet where it needs some."""
    folder = "ILSVRC" if experiment == "table2" else None
    cohorts = COHORTS if experiment == "table3" else {}
    return plan_experiment(experiment, scale, cohorts=cohorts, imagenet_folder=folder, **choice)


SCALES = [(experiment, scale) for experiment in get_args(Experiment) for scale in scales_of(experiment)]


@pytest.mark.parametrize(("experiment", "scale"), SCALES)
def test_every_run_has_its_own_folder_and_each_group_its_baseline(experiment: Experiment, scale: Scale) -> None:
    groups = groups_of(experiment, scale, seeds=(0, 1))
    runs = [run for group in groups for run in group.plan.runs()]
    assert len({name for name, _ in runs}) == len(runs)
    assert all(name.startswith("../../runs/") for name, _ in runs)
    for group in groups:
        assert "cross_entropy" in {entry.recipe.objective.name for entry in group.plan.entries}
        assert {recipe.training.seed for _, recipe in group.plan.runs()} == {0, 1}
        assert len({entry.recipe.data for entry in group.plan.entries}) == 1
    shared = {(recipe.data, recipe.training.epochs) for _, recipe in runs}
    assert len(shared) == (2 if experiment == "table3" else 1) or experiment == "figure2"


def test_experiments_are_all_described() -> None:
    assert tuple(EXPERIMENTS) == get_args(Experiment)


def test_equal_names_are_equal_runs_in_all_experiments() -> None:
    """Folders are shared: what bears one name must be one recipe."""
    for scale in get_args(Scale):
        known: dict[str, Recipe] = {}
        experiments = [experiment for experiment, its_scale in SCALES if its_scale == scale]
        for experiment in experiments:
            for group in groups_of(experiment, scale, seeds=(0,)):
                for name, recipe in group.plan.runs():
                    assert known.setdefault(name, recipe) == recipe
        assert len(known) > 20 or experiments == ["table2"]


def test_the_table_of_imagenet() -> None:
    groups = groups_of("table2", "paper", seeds=(0,), epochs=300)
    assert [group.name for group in groups] == ["resnet50", "resnet101"]
    for group in groups:
        recipes = {entry.name.partition("-")[2].partition("-")[2]: entry.recipe for entry in group.plan.entries}
        assert {"cross_entropy", "label_smoothing", "focal", "supcon", "ncmi-paper", "ncmi"} <= recipes.keys()
        for recipe in recipes.values():
            assert isinstance(recipe.data, ImageData)
            assert (recipe.data.name, recipe.data.train_on_all) == ("ILSVRC", True)
            training = recipe.training
            assert (training.epochs, training.batch_size, training.learning_rate) == (300, 1024, 0.5)
        assert recipes["ncmi-paper"].training.alternation.mode == "phases"
        assert recipes["supcon"].training.augmentation.varies_color
        assert not recipes["cross_entropy"].training.augmentation.varies_color
    (small,) = groups_of("table2", "small", seeds=(0,), only=("focal",))
    assert {entry.recipe.network.name for entry in small.plan.entries} == {"resnet18"}
    with pytest.raises(ComparisonError, match="--imagenet"):
        plan_experiment("table2", "paper", seeds=(0,))
    with pytest.raises(ComparisonError, match="--imagenet"):
        plan_experiment("table1", "paper", seeds=(0,), imagenet_folder="x")
    for experiment, scale in (("table2", "released"), ("table1", "short")):
        with pytest.raises(ComparisonError, match="--scale"):
            groups_of(experiment, scale, seeds=(0,))  # type: ignore[arg-type]


def test_table_of_the_paper() -> None:
    groups = plan_experiment("table1", "paper", seeds=(0,))
    assert [group.name for group in groups] == ["resnet18", "resnet34", "resnet50", "resnet101"]
    by_name = {entry.name: entry.recipe for entry in groups[0].plan.entries}
    assert by_name["resnet18-supcon"].training.augmentation == Augmentation.supcon()
    assert by_name["resnet18-ncmi-paper"].training.alternation.mode == "phases"
    cells = {
        (options.distribution, options.center)
        for group in plan_experiment("table5", "paper", seeds=(0,))
        for entry in group.plan.entries
        if isinstance(options := entry.recipe.objective, NCMIOptions)
    }
    assert cells == {("nsf", "frozen"), ("nsf", "none"), ("softmax", "frozen"), ("softmax", "none")}


def test_learning_rate_follows_the_batch_size() -> None:
    rates = {
        entry.recipe.training.batch_size: entry.recipe.training.learning_rate
        for group in plan_experiment("figure3", "released", seeds=(0,))
        for entry in group.plan.entries
    }
    assert rates[128] == pytest.approx(0.1)
    assert all(rate / batch == pytest.approx(0.1 / 128) for batch, rate in rates.items())


def test_only_some_entries_keep_the_baseline() -> None:
    (group,) = plan_experiment("table1", "small", seeds=(0,), only=("focal", "ncmi-released"))
    assert [entry.label for entry in group.plan.entries] == ["Cross-entropy", "Focal", "NCMI (released)"]
    with pytest.raises(ComparisonError, match=r"unknown entry 'nmci': table1 has cross_entropy, .*ncmi-released"):
        plan_experiment("table1", "small", seeds=(0,), only=("nmci",))


def test_published_and_present_forms_stand_side_by_side() -> None:
    """Options of NCMI in table 1: what was published or measured keeps its anchors; the default is what users get."""
    (group,) = plan_experiment("table1", "small", seeds=(0,))
    options = {entry.label: entry.recipe.objective for entry in group.plan.entries}
    assert options["NCMI (default)"] == NCMIOptions()
    others = {label: one for label, one in options.items() if isinstance(one, NCMIOptions) and one != NCMIOptions()}
    assert len(others) == 5
    assert {one.anchor_scale for one in others.values()} == {10.0}
    assert {one.separation_power for one in others.values()} == {1.0, -4.0}


def test_figure_2_chooses_its_networks_itself() -> None:
    for choice in ({"only": ("focal",)}, {"networks": ("resnet9",)}):
        with pytest.raises(ComparisonError, match="leave --only and --networks out"):
            plan_experiment("figure2", "small", seeds=(0,), **choice)  # type: ignore[arg-type]


def test_table_3_is_every_network_with_both_objectives() -> None:
    camelyon, bracs = groups_of("table3", "paper", seeds=(0, 1), workers=1, imports=("x",))
    assert [(group.name, group.title) for group in (camelyon, bracs)] == [
        ("camelyon17", "CAMELYON-17"),
        ("bracs", "BRACS"),
    ]
    assert [entry.name for entry in camelyon.plan.entries] == [
        f"camelyon17-{network}-{objective}"
        for network in ("abmil", "transmil", "aem", "asmil")
        for objective in ("cross_entropy", "ncmi")
    ]
    assert camelyon.plan.entries[1].label == "ABMIL, NCMI"
    assert camelyon.plan.title == "Table III, CAMELYON-17"
    assert camelyon.plan.imports == ("x",)
    for entry in camelyon.plan.entries:
        training = entry.recipe.training
        assert (training.optimizer, training.learning_rate, training.weight_decay) == ("adamw", 1e-4, 1e-5)
        assert (training.batch_size, training.schedule, training.epochs) == (1, "cosine", 50)
        assert training.selection == "best"
        assert isinstance(entry.recipe.network, BagNetwork)
        assert entry.recipe.network.name == entry.name.split("-")[1]
        assert entry.recipe.data == cohort_data("camelyon17", "c17", "c17.csv")
    assert camelyon.plan.entries[1].recipe.objective == NCMIOptions()
    assert not any(group.plan.describe(None).simulation for group in (camelyon, bracs))
    assert bracs.plan.entries[0].recipe.data == cohort_data("bracs", "bracs", "bracs.csv")
    (only,) = plan_experiment(
        "table3", "paper", seeds=(0,), only=("focal",), networks=("aem",), cohorts={"bracs": ("f", "l")}, epochs=3
    )
    assert [entry.label for entry in only.plan.entries] == ["Cross-entropy", "Focal"]
    assert only.plan.entries[0].recipe.training.epochs == 3


def test_table_3_needs_slides_and_labels(tmp_path: Path) -> None:
    with pytest.raises(ComparisonError, match="no table of labels given: give the CSV of BRACS"):
        plan_experiment("table3", "paper", seeds=(0,), cohorts={"bracs": (tmp_path, None)})
    for cohorts in ({}, {"musk": (tmp_path, "labels.csv")}):
        with pytest.raises(ComparisonError, match="nothing to make Table III of"):
            plan_experiment("table3", "paper", seeds=(0,), cohorts=cohorts)
    with pytest.raises(ComparisonError, match="unknown network 'cnn'"):
        groups_of("table3", "paper", seeds=(0,), networks=("cnn",))
    for choice in ({"epochs": 3}, {"cohorts": COHORTS}):
        with pytest.raises(ComparisonError, match="table1 has neither slides nor epochs to choose"):
            plan_experiment("table1", "small", seeds=(0,), **choice)


def test_what_is_chosen_of_the_data_of_table_3() -> None:
    """It is a part of what bags have, with their defaults; what the cohorts settle is not among it."""
    assert all(getattr(BagData("x"), name) == value for name, value in asdict(TABLE3_DATA).items())
    settled = {"labels", "classes", "label_column", "holdout", "split_column", "splits", "folds", "unit", "slide_table"}
    assert not settled & asdict(TABLE3_DATA).keys()
    (group,) = plan_experiment(
        "table3",
        "paper",
        seeds=(0,),
        cohorts={"bracs": ("f", "l")},
        data=replace(TABLE3_DATA, bad="skip", split_seed=3),
    )
    expected = replace(cohort_data("bracs", "f", "l"), bad="skip", split_seed=3)
    assert {entry.recipe.data for entry in group.plan.entries} == {expected}
    with pytest.raises(ComparisonError, match="make table3"):
        plan_experiment("table1", "small", seeds=(0,), data=replace(TABLE3_DATA, bad="skip"))


def test_a_simulation_has_a_table_of_its_own_and_says_so(tmp_path: Path) -> None:
    rows = [SlideRow(f"s{i}", f"p{i}", ("negative", "macro")[i % 2], center=str(i % 5)) for i in range(10)]
    out = write_simulation(tmp_path / "simulated", rows, SimulationOptions(feature_dim=24, scale=0.01))
    (group,) = plan_experiment(
        "table3", "paper", seeds=(0, 1), networks=("abmil",), cohorts={"camelyon17": (out / "features", None)}
    )
    assert group.title == "CAMELYON-17 (simulation)"
    assert "(simulation)" in group.plan.title
    assert group.plan.describe(None).simulation
    assert group.plan.entries[0].recipe.data.labels == str(out / "labels.csv")
    assert len(group.plan.runs()) == 4


def test_camelyon17_is_tested_on_centers_3_and_4(tmp_path: Path, data_dir: Path) -> None:
    table = data_dir / "labels" / "camelyon17.csv"
    out = write_simulation(tmp_path / "c", table, SimulationOptions(feature_dim=24, scale=0.001), workers=2)
    data = cohort_data("camelyon17", out, table)
    cohort = load_cohort(data)
    split = split_cohort(cohort, data, 0)
    centers = [
        {cohort.slides[i].values["center"] for i in part.tolist()}
        for part in (split.train, split.validation, split.test)
    ]
    assert centers == [set("012"), set("012"), set("34")]
    assert len(split.test) == 200
    assert cohort.class_names == ("negative", "itc", "micro", "macro")


def test_bracs_has_its_own_split_without_the_patient_on_two_sides(tmp_path: Path, data_dir: Path) -> None:
    table = data_dir / "labels" / "bracs.csv"
    out = write_simulation(
        tmp_path / "b", table, SimulationOptions(cohort="bracs", feature_dim=24, scale=0.001), workers=2
    )
    data = cohort_data("bracs", out, table)
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


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scale "small" on digits, in a second a run. On some CPUs, torch's convolutions of 4 channels break the heap."""

    def recipe(objective: ObjectiveOptions) -> Recipe:
        training = Training(epochs=1, batch_size=64, accelerator="cpu", augmentation=Augmentation.cifar())
        return Recipe(ImageData("digits", train_per_class=20), Network("resnet_small", width=8), objective, training)

    scales: dict[str, Callable[..., Recipe]] = {"small": recipe}
    monkeypatch.setattr(reproduction, "_RECIPES", scales)


@pytest.mark.usefixtures("tiny")
def test_experiments_share_finished_runs(tmp_path: Path) -> None:
    only = ("cross_entropy", "ncmi-released")
    names: list[str] = []
    table = plan_experiment("table1", "small", seeds=(0, 1), only=only, workers=2)
    folder = reproduce("table1", "small", table, tmp_path, on_run=lambda name, results: names.append(name))
    assert len(names) == 4
    record = read_record(folder / "reproduction.json", ReproductionRecord)
    assert record.title == EXPERIMENTS["table1"].title
    assert [(group.name, group.title) for group in record.groups] == [("resnet_small", "ResNet-small")]
    comparison = read_record(folder / "resnet_small/comparison.json", ComparisonRecord)
    for entry in comparison.entries:
        for run in entry.runs:
            assert read_record(folder / "resnet_small" / run / "results.json", Results).objective == entry.objective
    written = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.glob("runs/*/results.json")}
    assert len(written) == 4
    # another experiment of the same runs, and one more seed, which goes on where the first two were made
    figure = plan_experiment("figure4", "small", seeds=(0, 1), only=only, workers=2)
    again: list[str] = []
    reproduce("figure4", "small", figure, tmp_path, on_run=lambda name, results: again.append(name))
    assert sorted(again) == sorted(names)
    more = plan_experiment("table1", "small", seeds=(0, 1, 2), only=("cross_entropy",), workers=2)
    reproduce("table1", "small", more, tmp_path)
    assert (tmp_path / "runs/resnet_small-cross_entropy-seed2/results.json").is_file()
    assert all((path.stat().st_mtime_ns, path.read_bytes()) == before for path, before in written.items())


@pytest.mark.usefixtures("tiny")
def test_another_recipe_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    plan = plan_experiment("table1", "small", seeds=(0,), only=("cross_entropy",))
    reproduce("table1", "small", plan, tmp_path)
    before = (tmp_path / "table1/resnet_small/comparison.json").read_bytes()
    other = plan_experiment("table1", "small", seeds=(0,), only=("cross_entropy",), data_dir=str(tmp_path))
    with pytest.raises(ComparisonError, match="Cross-entropy by another recipe: give the same options"):
        reproduce("table1", "small", other, tmp_path)
    assert (tmp_path / "table1/resnet_small/comparison.json").read_bytes() == before


@pytest.mark.usefixtures("tiny")
def test_a_failed_run_lets_the_others_finish(tmp_path: Path) -> None:
    # contrastive augmentation needs color, digits have none
    plan = plan_experiment("table1", "small", seeds=(0,), only=("supcon", "focal"))
    with pytest.raises(ComparisonError, match=r"1 of 3 runs failed: resnet_small-supcon-seed0: .*"):
        reproduce("table1", "small", plan, tmp_path)
    assert (tmp_path / "runs/resnet_small-focal-seed0/results.json").is_file()
