"""The paper's tables and figures as plans, and making them from small runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from ncmi import reproduction
from ncmi.comparison import ComparisonError, Entry, Plan
from ncmi.options import NCMIOptions, ObjectiveOptions
from ncmi.recipes import Augmentation, Backbone, Data, Recipe, Training
from ncmi.reproduction import EXPERIMENTS, Experiment, Scale, plan_experiment, reproduce


@pytest.mark.parametrize("scale", get_args(Scale))
@pytest.mark.parametrize("experiment", get_args(Experiment))
def test_every_run_has_its_own_folder_and_each_group_its_baseline(experiment: Experiment, scale: Scale) -> None:
    groups = plan_experiment(experiment, scale, seeds=(0, 1))
    runs = [run for group in groups for run in group.plan.runs()]
    assert len({name for name, _ in runs}) == len(runs)
    assert all(name.startswith("../../runs/") for name, _ in runs)
    for group in groups:
        assert "cross_entropy" in {entry.recipe.objective.name for entry in group.plan.entries}
        assert {recipe.training.seed for _, recipe in group.plan.runs()} == {0, 1}
    shared = {(recipe.data, recipe.training.epochs) for _, recipe in runs}
    assert experiment == "figure2" or len(shared) == 1


def test_equal_names_are_equal_runs_in_all_experiments() -> None:
    """Folders are shared: what bears one name must be one recipe."""
    for scale in get_args(Scale):
        known: dict[str, Recipe] = {}
        for experiment in get_args(Experiment):
            for group in plan_experiment(experiment, scale, seeds=(0,)):
                for name, recipe in group.plan.runs():
                    assert known.setdefault(name, recipe) == recipe
        assert len(known) > 20


def test_table_of_the_paper() -> None:
    groups = plan_experiment("table1", "paper", seeds=(0,))
    assert [group.name for group in groups] == ["resnet18", "resnet34", "resnet50", "resnet101"]
    by_name = {entry.name: entry.recipe for entry in groups[0].plan.entries}
    assert by_name["resnet18-supcon"].training.augmentation == Augmentation.supcon()
    assert by_name["resnet18-ncmi-paper"].training.alternation.mode == "phases"
    cells = {
        (options.distribution, options.centre)
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


def test_a_plan_needs_entries_of_different_names() -> None:
    entry = Entry("a", "A", Recipe(Data("wine")))
    with pytest.raises(ComparisonError, match="name each one once"):
        Plan((entry, entry), (0,))
    with pytest.raises(ComparisonError, match="at least one objective and one seed"):
        Plan((entry,), ())


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scale "small" on digits, in a second a run."""

    def recipe(objective: ObjectiveOptions) -> Recipe:
        training = Training(epochs=1, batch_size=64, accelerator="cpu", augmentation=Augmentation.cifar())
        return Recipe(Data("digits", train_per_class=20), Backbone("resnet_small", width=4), objective, training)

    scales: dict[str, Callable[..., Recipe]] = {"small": recipe}
    monkeypatch.setattr(reproduction, "_RECIPES", scales)


def names_of(done: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return sorted(name for name, _ in done)


@pytest.mark.usefixtures("tiny")
def test_experiments_share_finished_runs(tmp_path: Path) -> None:
    only = ("cross_entropy", "ncmi-released")
    made: list[tuple[str, dict[str, Any]]] = []
    table = plan_experiment("table1", "small", seeds=(0, 1), only=only)
    folder = reproduce("table1", "small", table, tmp_path, on_run=lambda *run: made.append(run))
    assert len(names_of(made)) == 4
    described = json.loads((folder / "reproduction.json").read_text())
    assert described["title"] == EXPERIMENTS["table1"]
    assert described["groups"] == [{"name": "resnet_small", "title": "resnet_small"}]
    comparison = json.loads((folder / "resnet_small/comparison.json").read_text())
    for entry in comparison["entries"]:
        for run in entry["runs"]:
            assert (folder / "resnet_small" / run / "results.json").is_file()
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/results.json")}
    figure = plan_experiment("figure4", "small", seeds=(0, 1), only=only)
    again: list[tuple[str, dict[str, Any]]] = []
    reproduce("figure4", "small", figure, tmp_path, on_run=lambda *run: again.append(run))
    assert names_of(again) == names_of(made)
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/results.json")}
    # one more seed goes on where the first two were made
    more = plan_experiment("table1", "small", seeds=(0, 1, 2), only=("cross_entropy",))
    reproduce("table1", "small", more, tmp_path)
    assert (tmp_path / "runs/resnet_small-cross_entropy-seed2/results.json").is_file()


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
    # contrastive augmentation needs colour, digits have none
    plan = plan_experiment("table1", "small", seeds=(0,), only=("supcon", "focal"))
    with pytest.raises(ComparisonError, match=r"1 of 3 runs failed: resnet_small-supcon-seed0: .*"):
        reproduce("table1", "small", plan, tmp_path)
    assert (tmp_path / "runs/resnet_small-focal-seed0/results.json").is_file()
