"""Plans of comparisons on every kind of data, and making them: what is refused, kept, gone on with and counted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from queue_work import double, double_there
from training_helpers import made_up_results, made_up_scores

from ncmi.objectives.options import CrossEntropyOptions, NCMIOptions
from ncmi.recipes import BagData, BagNetwork, Network, Recipe, TableData, recipe_from_dict
from ncmi.report import comparison_rows, read_comparison, write_report
from ncmi.training import comparison, workers
from ncmi.training.comparison import (
    ComparisonError,
    Entry,
    Plan,
    compare,
    compare_many,
    entries_of,
    record_of,
)
from ncmi.training.schema import (
    ComparisonRecord,
    Readout,
    Results,
    SchemaError,
    read_record,
    write_record,
)
from ncmi.training.workers import _see_own_devices, devices_of, run_side_by_side

BAGS = Recipe(BagData("cohort/features", folds=3))
TABLE = Recipe(TableData("tables/wine.csv"))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Recipe]]:
    """Runs that are not trained: the queue is kept, in this process; an objective of temperature 9 fails."""
    runs: list[tuple[str, Recipe]] = []

    def train_one(path: str, content: dict[str, Any], imports: tuple[str, ...]) -> Results:
        recipe = recipe_from_dict(content)
        if recipe.objective == NCMIOptions(temperature=9.0):
            raise ValueError("temperature 9")
        runs.append((path, recipe))
        results = made_up_results(recipe, head=Readout(test=made_up_scores(0.5)))
        write_record(Path(path) / "results.json", results)
        return results

    def in_this_process(
        work: Callable[[str, Any], Results],
        tasks: Mapping[str, Any],
        workers: int,
        on_run: Callable[[str, Any], None],
        before: Callable[[Callable[..., Any]], None],
    ) -> dict[str, str]:
        before(lambda asked, *arguments: {})
        failures = {}
        for path, content in tasks.items():
            try:
                on_run(Path(path).name, work(path, content))
            except ValueError as error:
                failures[path] = str(error)
        return failures

    monkeypatch.setattr(comparison, "train_one", train_one)
    monkeypatch.setattr(comparison, "run_side_by_side", in_this_process)
    return runs


def test_entries_are_called_by_what_they_vary() -> None:
    recipe = replace(TABLE, objective=NCMIOptions(temperature=0.3))
    ncmi, focal = entries_of(recipe, ["ncmi", "focal"])
    assert [(entry.name, entry.label) for entry in (ncmi, focal)] == [("ncmi", "NCMI"), ("focal", "Focal")]
    # the recipe's own options for its own objective, defaults for the others
    assert ncmi.recipe == recipe
    assert focal.recipe == replace(recipe, objective=focal.recipe.objective)
    assert focal.recipe.objective == type(focal.recipe.objective)()
    several = entries_of(TABLE, ["ncmi"], ["mlp", "resnet18"])
    assert [(entry.name, entry.label) for entry in several] == [
        ("mlp-ncmi", "MLP, NCMI"),
        ("resnet18-ncmi", "ResNet-18, NCMI"),
    ]
    # of bags the network is part of the name in any case
    assert [(entry.name, entry.label) for entry in entries_of(BAGS, ["ncmi"])] == [("abmil-ncmi", "NCMI")]
    (mean,) = entries_of(replace(BAGS, network=BagNetwork(width=64)), ["ncmi"], ["mean"])
    assert mean.recipe.network == BagNetwork("mean", width=64)


@pytest.mark.parametrize(
    ("recipe", "objectives", "networks", "message"),
    [
        (BAGS, ["ncmi"], ["abmill"], "unknown network 'abmill'; known: abmil, transmil"),
        (BAGS, ["ncmi"], ["resnet18"], "unknown network 'resnet18'"),
        (BAGS, ["nmci"], ["abmil"], "unknown objective 'nmci'; known: "),
        (TABLE, ["nmci"], [], "unknown objective 'nmci'; known: "),
    ],
)
def test_names_that_do_not_exist(recipe: Recipe, objectives: list[str], networks: list[str], message: str) -> None:
    with pytest.raises(ComparisonError, match=message):
        entries_of(recipe, objectives, networks)


def test_what_a_plan_needs() -> None:
    entry = Entry("a", "A", TABLE)
    with pytest.raises(ComparisonError, match="name each one once"):
        Plan((entry, entry), (0,))
    with pytest.raises(ComparisonError, match="at least one objective and one seed"):
        Plan((entry,), ())
    with pytest.raises(ComparisonError, match="at least one"):
        Plan((), (0,))
    with pytest.raises(ValueError, match="--workers -1"):
        Plan((entry,), (0,), workers=-1)


def test_runs_of_a_table_are_seed_by_seed() -> None:
    recipe = replace(TABLE, training=replace(TABLE.training, threads=7, devices=2))
    plan = Plan(entries_of(recipe, ["cross_entropy", "ncmi"]), (4, 5))
    assert [name for name, _ in plan.runs()] == [
        "runs/cross_entropy-seed4",
        "runs/ncmi-seed4",
        "runs/cross_entropy-seed5",
        "runs/ncmi-seed5",
    ]
    for name, one in plan.runs():
        assert name.endswith(f"{one.objective.name}-seed{one.training.seed}")
        assert (one.training.threads, one.training.devices) == (1, 1)
        assert one.data == TABLE.data


def test_runs_of_bags_are_pairs_in_every_fold() -> None:
    entries = entries_of(BAGS, ["cross_entropy", "ncmi"], ["abmil", "mean"])
    plan = Plan(entries, (4, 5))
    runs = plan.runs()
    assert len({name for name, _ in runs}) == len(runs) == 24
    for entry in entries:
        listed = plan.runs_of(entry)
        assert [run for run in runs if run in listed] == listed
        folds = [(one.training.seed, one.data.fold) for _, one in listed if isinstance(one.data, BagData)]
        assert folds == [(seed, fold) for seed in (4, 5) for fold in range(3)]
    assert runs[0][0] == "runs/abmil-cross_entropy-seed4-fold0"
    # entry by entry within a fold, so that pairs are finished early
    assert [name for name, _ in runs[:4]] == [f"runs/{entry.name}-seed4-fold0" for entry in entries]
    one_fold = Entry("a", "A", replace(BAGS, data=BagData("cohort/features", folds=3, fold=2)))
    assert [name for name, _ in Plan((one_fold,), (0,), all_folds=False).runs()] == ["runs/a-seed0-fold2"]
    without = Entry("a", "A", Recipe(BagData("cohort/features")))
    assert [name for name, _ in Plan((without,), (0,), runs_folder="../r").runs()] == ["../r/a-seed0"]


def test_what_a_comparison_says_of_itself() -> None:
    plan = Plan(entries_of(BAGS, ["cross_entropy", "ncmi"], ["mean"]), (0, 1), title="Musk")
    record = plan.describe("ncmi compare cohort")
    assert (record.kind, record.title, record.data) == ("bags", "Musk", "cohort")
    assert (record.seeds, record.folds, record.simulation) == ([0, 1], 3, False)
    assert (record.baseline, record.command) == ("cross_entropy", "ncmi compare cohort")
    entry = record.entries[1]
    assert (entry.name, entry.network, entry.objective) == ("mean-ncmi", "mean", "ncmi")
    assert entry.runs == [f"runs/mean-ncmi-seed{seed}-fold{fold}" for seed in (0, 1) for fold in range(3)]
    assert recipe_from_dict(entry.recipe) == plan.entries[1].recipe
    table = Plan(entries_of(TABLE, ["ncmi"]), (0,)).describe(None)
    assert (table.kind, table.data, table.folds) == ("table", "wine", 0)


def test_slides_that_are_simulated_are_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "SIMULATION.json").write_text("{}")
    plan = Plan(entries_of(Recipe(BagData(str(tmp_path / "features"))), ["ncmi"]), (0,))
    assert plan.describe(None).simulation


@pytest.mark.parametrize("recipe", [TABLE, BAGS], ids=["table", "bags"])
def test_a_comparison_goes_on_and_is_never_overwritten(
    tmp_path: Path, trained: list[tuple[str, Recipe]], recipe: Recipe
) -> None:
    folder = tmp_path / "c"
    plan = Plan(entries_of(recipe, ["cross_entropy", "ncmi"]), (0,))
    heard: list[str] = []
    with pytest.raises(ComparisonError, match="holds no comparison to go on with: leave --resume out"):
        compare(plan, folder, resume=True)
    assert not folder.exists()
    compare(plan, folder, command="first", on_run=lambda name, results: heard.append(name))
    assert heard == [Path(name).name for name, _ in plan.runs()]
    assert [path for path, _ in trained] == [str(folder / name) for name, _ in plan.runs()]
    first = read_record(folder / "comparison.json", ComparisonRecord)
    assert first.total_seconds > 0
    with pytest.raises(ComparisonError, match="exists and is not empty: choose another --out"):
        compare(plan, folder)
    # more seeds and more entries go on where these were made
    more = Plan(entries_of(recipe, ["cross_entropy", "ncmi", "focal"]), (0, 1))
    compare(more, folder, resume=True, command="second")
    second = read_record(folder / "comparison.json", ComparisonRecord)
    assert second.total_seconds > first.total_seconds
    assert (second.seeds, len(second.entries), second.command) == ([0, 1], 3, "second")


@pytest.mark.parametrize("recipe", [TABLE, BAGS], ids=["table", "bags"])
def test_another_plan_is_refused_and_nothing_is_lost(
    tmp_path: Path, trained: list[tuple[str, Recipe]], recipe: Recipe
) -> None:
    plan = Plan(entries_of(recipe, ["cross_entropy", "ncmi"]), (0,))
    compare(plan, tmp_path / "c")
    before = (tmp_path / "c/comparison.json").read_bytes()
    done = len(trained)
    others = (
        replace(recipe, training=replace(recipe.training, epochs=3)),
        replace(recipe, data=replace(recipe.data, split_seed=1)),
    )
    for other in others:
        with pytest.raises(ComparisonError, match="Cross-entropy by another recipe: give the same options"):
            compare(Plan(entries_of(other, ["cross_entropy", "ncmi"]), (0,)), tmp_path / "c", resume=True)
        # whatever its seeds
        with pytest.raises(ComparisonError, match="another recipe"):
            compare(Plan(entries_of(other, ["cross_entropy"]), (7,)), tmp_path / "c", resume=True)
    assert (tmp_path / "c/comparison.json").read_bytes() == before
    assert len(trained) == done
    # seed and fold are the plan's
    same = replace(recipe, training=replace(recipe.training, seed=7))
    if isinstance(same.data, BagData):
        same = replace(same, data=replace(same.data, fold=1))
    compare(Plan(entries_of(same, ["cross_entropy"]), (7,)), tmp_path / "c", resume=True)
    assert len(trained) > done


def test_a_file_in_the_way_and_a_damaged_comparison(tmp_path: Path, trained: list[tuple[str, Recipe]]) -> None:
    plan = Plan(entries_of(TABLE, ["ncmi"]), (0,))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ComparisonError, match="choose another --out"):
        compare(plan, tmp_path / "file")
    compare(plan, tmp_path / "c")
    (tmp_path / "c/comparison.json").write_text("{")
    with pytest.raises(SchemaError, match=r"comparison\.json: damaged"):
        compare(plan, tmp_path / "c", resume=True)
    assert (tmp_path / "c/comparison.json").read_text() == "{"
    assert len(trained) == 1


def test_recipes_of_an_earlier_version_have_the_defaults_of_what_they_lack(tmp_path: Path) -> None:
    plan = Plan(entries_of(TABLE, ["cross_entropy"]), (0,))
    record = plan.describe(None)
    content = record.entries[0].recipe
    for name in ("label_noise", "noise_kind", "imbalance"):
        del content["data"][name]
    write_record(tmp_path / "comparison.json", record)
    record_of(tmp_path, plan.describe(None), resume=True)
    write_record(tmp_path / "comparison.json", record)
    noisy = replace(TABLE, data=TableData("tables/wine.csv", label_noise=0.2))
    with pytest.raises(ComparisonError, match="another recipe"):
        record_of(tmp_path, Plan(entries_of(noisy, ["cross_entropy"]), (0,)).describe(None), resume=True)


def test_what_fails_is_told_after_the_others_have_had_their_chance(
    tmp_path: Path, trained: list[tuple[str, Recipe]]
) -> None:
    broken = Entry("broken", "Broken", replace(TABLE, objective=NCMIOptions(temperature=9.0)))
    plan = Plan((broken, *entries_of(TABLE, ["cross_entropy"])), (0,))
    with pytest.raises(ComparisonError, match=r"1 of 2 runs failed: broken-seed0: temperature 9"):
        compare(plan, tmp_path / "c")
    assert read_record(tmp_path / "c/runs/cross_entropy-seed0/results.json", Results).objective == "cross_entropy"
    assert read_record(tmp_path / "c/comparison.json", ComparisonRecord).total_seconds > 0


def test_several_comparisons_share_runs_of_one_folder(tmp_path: Path, trained: list[tuple[str, Recipe]]) -> None:
    plan = Plan(entries_of(TABLE, ["cross_entropy", "ncmi"]), (0,), runs_folder="../runs")
    less = replace(plan, entries=plan.entries[:1])
    compare_many([(plan, tmp_path / "a"), (less, tmp_path / "b")])
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["cross_entropy-seed0", "ncmi-seed0"]
    assert len(trained) == 2
    compare_many([(plan, tmp_path / "a"), (less, tmp_path / "new")], resume=None)
    assert (tmp_path / "new/comparison.json").is_file()


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_of_a_launcher_make_all_runs_and_the_first_writes(
    rank: int, tmp_path: Path, trained: list[tuple[str, Recipe]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", rank), ("WORLD_SIZE", 2), ("LOCAL_RANK", rank), ("LOCAL_WORLD_SIZE", 2)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(comparison, "ask_here", lambda work, *arguments: {})
    heard: list[str] = []
    plan = Plan(entries_of(TABLE, ["cross_entropy", "ncmi"]), (0, 1))
    compare(plan, tmp_path / "c", on_run=lambda name, results: heard.append(name))
    names = [Path(name).name for name, _ in plan.runs()]
    assert [Path(path).name for path, _ in trained] == names
    assert heard == (names if rank == 0 else [])
    assert (tmp_path / "c/comparison.json").exists() == (rank == 0)


@pytest.fixture
def _light_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh ones that import nothing before they are asked."""
    monkeypatch.setattr(workers, "_WARM", "json")


@pytest.mark.usefixtures("_light_processes")
def test_the_queue_tells_what_came_out_and_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And each process has a device of its own, by the environment; the one that asks keeps its own."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-7,2")
    heard: dict[str, tuple[int, str]] = {}
    failures = run_side_by_side(double_there, {"x/a": 1, "x/b": -3, "x/c": 5}, 2, heard.__setitem__)
    assert {name: number for name, (number, _) in heard.items()} == {"a": 2, "c": 10}
    assert failures.keys() == {"x/b"}
    what, _, device = failures["x/b"].rpartition(" on ")
    assert what == "-3 is negative"
    assert {heard["a"][1], device} == {"5", "GPU-7"}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5, GPU-7,2"


def test_devices_in_turn() -> None:
    four = ("0", "1", "2", "3")
    assert [devices_of(place, 1, four) for place in range(5)] == [("0",), ("1",), ("2",), ("3",), ("0",)]
    assert [devices_of(place, 2, four) for place in range(3)] == [("0", "1"), ("2", "3"), ("0", "1")]
    assert devices_of(1, 3, four) == devices_of(0, 8, four) == four
    assert devices_of(3, 1, ()) == ()


@pytest.mark.parametrize(("visible", "seen"), [("", ""), ("-1", "-1"), ("3", "3"), ("1,-1", "1,-1"), ("4,6", "6")])
def test_what_is_hidden_stays_hidden(monkeypatch: pytest.MonkeyPatch, visible: str, seen: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    _see_own_devices(1, 1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen


def test_devices_are_counted_where_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that it is put back
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    for count, seen in ((0, None), (1, None), (2, "1")):
        monkeypatch.setattr("torch.cuda.device_count", lambda count=count: count)
        _see_own_devices(3, 1)
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == seen


@pytest.mark.usefixtures("_light_processes")
def test_what_finished_tasks_decide_is_done_by_the_same_processes() -> None:
    heard: dict[str, int] = {}

    def more() -> dict[str, int]:
        # what is asked for next depends on what has come out
        return {f"x/{len(heard)}": 100} if "a" in heard and len(heard) < 3 else {}

    assert run_side_by_side(double, {"x/a": 1}, 1, heard.__setitem__, more=more) == {}
    assert heard == {"a": 2, "1": 200, "2": 200}


@pytest.mark.usefixtures("fresh_processes")
def test_runs_in_fresh_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Really trained, two side by side; the second time finished runs just give their results."""
    training = replace(TABLE.training, epochs=1, accelerator="cpu")
    recipe = Recipe(TableData("wine"), Network("mlp", width=8, depth=1), CrossEntropyOptions(), training)
    plan = Plan(entries_of(recipe, ["cross_entropy", "ncmi"]), (0,), workers=2)
    made: dict[str, Results] = {}
    compare(plan, tmp_path / "c", on_run=made.__setitem__)
    assert {name: results.objective for name, results in made.items()} == {
        "cross_entropy-seed0": "cross_entropy",
        "ncmi-seed0": "ncmi",
    }
    record = read_record(tmp_path / "c/comparison.json", ComparisonRecord)
    assert record.machine == json.loads((tmp_path / "c/runs/cross_entropy-seed0/environment.json").read_text())
    again: dict[str, Results] = {}
    monkeypatch.undo()  # what is finished needs no fresh processes
    compare(plan, tmp_path / "c", resume=True, on_run=again.__setitem__)
    assert msgspec.to_builtins(again) == msgspec.to_builtins(made)


def test_what_cannot_be_made_is_not_in_the_way_of_the_corrected_command(tmp_path: Path) -> None:
    broken = Entry("broken", "Broken", replace(TABLE, network=Network("mlp", weights="nowhere.pth")))
    wine = [
        replace(entry, recipe=replace(entry.recipe, data=TableData("wine")))
        for entry in (*entries_of(TABLE, ["cross_entropy", "ncmi"]), broken)
    ]
    with pytest.raises(ComparisonError, match=r"1 of 3 runs cannot be made: broken-seed0: .*nowhere"):
        compare(Plan(tuple(wine), (0,)), tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_folds_of_a_table_are_put_together(tmp_path: Path) -> None:
    """Every row is decided once; accuracy is that of all folds, not of one."""
    training = replace(TABLE.training, epochs=1, accelerator="cpu")
    data = TableData("wine", folds=3, split_seed=1)
    recipe = Recipe(data, Network("mlp", width=8, depth=1), CrossEntropyOptions(), training)
    made: dict[str, Results] = {}
    plan = Plan(entries_of(recipe, ["cross_entropy", "ncmi"]), (0,), workers=2)
    compare(plan, tmp_path / "c", on_run=made.__setitem__)
    folds = [made[f"ncmi-seed0-fold{fold}"] for fold in range(3)]
    right = sum(run.readouts["head"].test.accuracy.value * run.num_test for run in folds)  # type: ignore[misc]
    assert sum(run.num_test for run in folds) == 178
    rows = comparison_rows(read_comparison(tmp_path / "c"))
    row = next(row for row in rows if row.entry.objective == "ncmi" and row.readout == "head")
    assert row.scores["accuracy"].values == pytest.approx((right / 178,))
    assert "every sample is decided once" in write_report(tmp_path / "c").read_text().replace("\n", " ")
