"""Reading runs, comparisons and reproductions: what is read, and what every kind of damage is answered with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import (
    CE,
    CLASSES,
    NCMI,
    edit,
    write_bag_comparison,
    write_bag_run,
    write_comparison,
    write_ood,
    write_reproduction,
    write_run,
)

from ncmi.readouts.scores import judge
from ncmi.report.records import ReportError, read_comparison, read_folder, read_reproduction, read_run

NewRun = Callable[..., Path]
NewComparison = Callable[..., Path]
Change = Callable[[dict[str, Any]], object]
QUICK: dict[str, Any] = {"patients": 20, "resamples": 20, "attention": 0, "epochs": 3}
ROW = '{"epoch": 1, "steps": 1, "learning_rate": 0.1, "train_loss": 1.0, "seconds": 0.1, "peak_memory_mb": 1.0}\n'


@pytest.fixture
def bag_run(tmp_path: Path) -> Path:
    return write_bag_run(tmp_path / "run", skipped=[("lost", "no features")], **QUICK)


# --- runs


def test_a_finished_run_is_read_completely(new_run: NewRun) -> None:
    folder = new_run("ncmi", 3)
    run = read_run(folder)
    raw = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (run.kind, run.objective, run.seed, run.data, run.state) == ("table", "ncmi", 3, "digits", "finished")
    assert (run.label, run.network_label, run.epochs, run.batch_size) == ("NCMI", "ConvNet", 20, 64)
    results = run.finished
    assert results.readouts["lp"].test.accuracy.value == raw["readouts"]["lp"]["test"]["accuracy"]["value"]
    assert results.primary_readouts == ["head", "cc", "lp"]
    assert results.information.ncmi == raw["information"]["ncmi"]
    assert results.class_names == list("0123456789")
    assert run.metrics.index.tolist() == list(range(1, 21))
    assert run.metrics["validation_cmi"].tolist() == [line["validation_cmi"] for line in lines]
    outputs = run.outputs()
    assert outputs.features.shape == (360, 64)
    accuracy = float((outputs.predictions["cc"] == outputs.labels).mean())
    assert accuracy == raw["readouts"]["cc"]["test"]["accuracy"]["value"]


def test_a_run_on_bags_is_read_as_it_was_written(bag_run: Path) -> None:
    run = read_run(bag_run)
    results = run.finished
    assert (run.kind, run.network_label, run.objective, run.label, run.seed) == ("bags", "ABMIL", "ncmi", "NCMI", 0)
    assert (run.folds, run.fold, run.state, run.data) == (0, 0, "finished", "camelyon")
    assert results.class_names == list(CLASSES)
    assert [(one.name, one.reason) for one in results.skipped] == [("lost", "no features")]
    assert list(run.metrics.index) == [1, 2, 3]
    assert run.metrics["validation_macro_f1"].notna().all()
    written = json.loads((bag_run / "results.json").read_text(encoding="utf-8"))["readouts"]["lp"]["test"]
    test = results.readouts["lp"].test
    assert test.macro_f1.value == written["macro_f1"]["value"]
    assert test.classes[2].recall.high == written["classes"][2]["recall"]["high"]
    assert (test.samples, test.groups, test.resamples) == (40, 8, written["resamples"])


def test_the_outputs_of_bags_give_back_the_scores(bag_run: Path) -> None:
    run = read_run(bag_run)
    outputs = run.outputs()
    assert len(outputs.names) == len(outputs.groups) == 40
    for readout, result in run.finished.readouts.items():
        again = judge(np.log(outputs.probabilities[readout]), outputs.labels, CLASSES)
        assert again.macro_f1.value == pytest.approx(result.test.macro_f1.value, abs=1e-12)
        assert again.macro_auc.value == pytest.approx(result.test.macro_auc.value, abs=1e-12)


def test_undefined_measures_are_nan(new_run: NewRun) -> None:
    folder = new_run("supcon")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rows[0]["validation_cmi"] = None
    del rows[1]["validation_cmi"]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert read_run(folder).metrics["validation_cmi"].isna().tolist() == [True] * 2 + [False] * 18


@pytest.mark.parametrize("epochs", [0, 6])
def test_an_unfinished_run_says_how_far_it_came(new_run: NewRun, tmp_path: Path, epochs: int) -> None:
    for folder in (
        new_run("focal", 1, stopped_after=epochs),
        write_bag_run(tmp_path / "bags", stopped_after=epochs, **(QUICK | {"epochs": 20})),
    ):
        run = read_run(folder)
        assert run.results is None
        assert run.state == f"stopped after epoch {epochs} of 20"
        assert len(run.metrics) == epochs
        with pytest.raises(ReportError, match="the run has not finished: finish it"):
            _ = run.finished


def test_a_run_stopped_in_the_middle_of_a_line_is_read_up_to_there(new_run: NewRun) -> None:
    folder = new_run("focal", 1, stopped_after=6)
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"epoch": 7, "train_lo')
    assert read_run(folder).metrics.index.tolist() == [1, 2, 3, 4, 5, 6]


def test_an_epoch_repeated_after_a_resume_counts_once(new_run: NewRun) -> None:
    folder = new_run("focal", 1, stopped_after=3)
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(ROW.replace('"epoch": 1', '"epoch": 3').replace("1.0", "0.125", 1))
    metrics = read_run(folder).metrics
    assert metrics.index.tolist() == [1, 2, 3]
    assert metrics.loc[3, "train_loss"] == 0.125


def test_an_objective_that_is_registered_nowhere_is_read_all_the_same(new_run: NewRun) -> None:
    folder = new_run("focal")
    edit(folder / "recipe.json", lambda recipe: recipe["objective"].update(name="mine", sharpness=2.0))
    run = read_run(folder)
    assert (run.label, run.recipe["objective"]["sharpness"]) == ("mine", 2.0)


def test_a_run_without_validation_part_has_none(new_run: NewRun, tmp_path: Path) -> None:
    for folder in (
        new_run("focal", validation=False),
        write_bag_run(tmp_path / "bags", validation=False, **QUICK),
    ):
        run = read_run(folder)
        assert run.finished.readouts["head"].validation is None
        assert run.finished.readouts["head"].calibration is None
        assert run.metrics["validation_accuracy"].isna().all()


def test_a_folder_that_is_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"no recipe.json here: give the folder"):
        read_run(tmp_path)
    with pytest.raises(ReportError, match=r"no comparison.json here: give the folder"):
        read_comparison(tmp_path)
    with pytest.raises(ReportError, match=r"no reproduction.json here: give the folder"):
        read_reproduction(tmp_path)
    with pytest.raises(ReportError, match="give the folder that `ncmi train`"):
        read_folder(tmp_path)


def _results(change: Change) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "results.json", change)


def _write(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_write("recipe.json", "{"), "recipe.json: damaged"),
        (_write("recipe.json", "[1]"), "recipe.json: damaged"),
        (_write("recipe.json", '{"format": 1}'), "recipe.json: format 1, this version reads format 2"),
        (_write("recipe.json", '{"format": 2}'), "recipe.json: damaged .*`data`"),
        (lambda folder: edit(folder / "recipe.json", lambda c: c["network"].pop("name")), r"`name`.*network"),
        (lambda folder: edit(folder / "recipe.json", lambda c: c["data"].update(folds="x")), r"data\.folds"),
        (_write("environment.json", "nonsense"), "environment.json: damaged"),
        (_write("results.json", '{"format": 2, "kind"'), "results.json: damaged"),
        (_write("results.json", '{"format": 2}'), "results.json: damaged .*missing required field"),
        (_results(lambda c: c.update(format=9)), r"results.json: format 9, this version reads format 2"),
        (_results(lambda c: c.update(epochs="many")), r"results.json: damaged .*epochs"),
        (_results(lambda c: c.update(skipped=["x"])), r"results.json: damaged .*skipped"),
        (_results(lambda c: c["readouts"]["cc"]["test"].pop("macro_f1")), r"macro_f1"),
        (_results(lambda c: c["readouts"]["cc"].update(reliability=[1])), r"results.json: damaged .*reliability"),
        (_results(lambda c: c.update(primary_readouts=["cc", "oracle"])), r"'primary_readouts' \['oracle'\] have no"),
        (_results(lambda c: c.update(primary_readouts=[])), r"'primary_readouts' \[\] have no entry"),
        (_write("metrics.jsonl", f"{ROW}{{\n{ROW}"), r"metrics.jsonl.*line 2"),
        (_write("metrics.jsonl", f"{ROW}3\n"), r"metrics.jsonl.*line 2"),
        (_write("metrics.jsonl", ROW.replace('"epoch": 1', '"epoch": "one"')), r"metrics.jsonl.*epoch.*run it again"),
        (
            _write("metrics.jsonl", ROW.replace('"seconds": 0.1', '"seconds": true')),
            r"metrics.jsonl.*seconds.*run it again",
        ),
        (lambda folder: (folder / "metrics.jsonl").write_bytes(b"\xff\xfe\x00\x80"), r"metrics.jsonl.*run it again"),
        (lambda folder: (folder / "metrics.jsonl").unlink(), r"metrics.jsonl.*run it again"),
    ],
)
def test_damage_names_the_file(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    for folder in (write_run(tmp_path / "table"), write_bag_run(tmp_path / "bags", **QUICK)):
        damage(folder)
        with pytest.raises(ReportError, match=message):
            read_run(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda bins: bins["counts"].append(1),
        lambda bins: bins.update(counts=[], confidence=[], accuracy=[]),
        lambda bins: bins["counts"].__setitem__(0, -1),
        lambda bins: bins["confidence"].__setitem__(0, 0.5),
        lambda bins: bins.update(accuracy=[1.5] * 15),
        lambda bins: bins.update(confidence=[None] * 15),
        lambda bins: bins["counts"].__setitem__(0, 2.5),
        lambda bins: bins.update(confidence=["high"] * 15),
        lambda bins: bins.pop("confidence"),
    ],
)
def test_damaged_bins_name_file_and_place(new_run: NewRun, change: Change) -> None:
    folder = new_run()
    edit(folder / "results.json", lambda results: change(results["readouts"]["cc"]["reliability"]["test"]))
    with pytest.raises(ReportError, match=r"results.json: damaged .*reliability.*restore"):
        read_run(folder)


# --- outputs


def test_damaged_outputs_name_the_file(new_run: NewRun) -> None:
    folder = new_run()
    run, path = read_run(folder), folder / "test_outputs.npz"
    whole = path.read_bytes()
    for damaged in (b"", b"no archive", whole[: len(whole) // 2], whole[:200] + bytes(200) + whole[400:]):
        path.write_bytes(damaged)
        with pytest.raises(ReportError, match=r"test_outputs.npz: .*run it again"):
            run.outputs()
    path.unlink()
    with pytest.raises(ReportError, match=r"test_outputs.npz: .*run it again"):
        run.outputs()


def test_pickled_objects_are_never_loaded(new_run: NewRun) -> None:
    folder = new_run()
    run = read_run(folder)
    np.savez(folder / "test_outputs.npz", labels=np.array([{"a": 1}], dtype=object), features=np.zeros((1, 2)))
    with pytest.raises(ReportError, match=r"test_outputs.npz: .*run it again"):
        run.outputs()


def test_outputs_must_belong_together(new_run: NewRun) -> None:
    folder = new_run()
    run, path = read_run(folder), folder / "test_outputs.npz"
    np.savez(path, labels=np.zeros(3, dtype=np.int64))
    with pytest.raises(ReportError, match=r"lacks features"):
        run.outputs()
    np.savez(path, labels=np.zeros(3, dtype=np.int64), features=np.zeros((4, 2)))
    with pytest.raises(ReportError, match=r"differ in length"):
        run.outputs()
    np.savez(path, labels=np.array([0, 1, 10]), features=np.zeros((3, 2)))
    with pytest.raises(ReportError, match=r"labels .*run outside 0\.\.9"):
        run.outputs()


# --- out-of-distribution data


def test_ood_files_are_read_in_order_of_their_names(new_run: NewRun) -> None:
    folder = new_run()
    write_ood(folder, "other")
    write_ood(folder, "another")
    (folder / "ood.txt").write_text("not ours")
    assert [one.data for one in read_run(folder).ood()] == ["another", "other"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 3}, "format 3, this version reads format 2"),
        ({"data": None}, "data"),
        ({"scores": {}}, "'scores' lacks 'distance'"),
        ({"scores": {"distance": {"auroc": 0.5}}}, "fpr95"),
        ({"distances": {"edges": [2.0, 1.0], "inside": [1], "outside": [1]}}, "distances"),
        ({"distances": {"edges": [1.0, 1.0], "inside": [1], "outside": [1]}}, "distances"),
        ({"distances": {"edges": [1.0, 2.0], "inside": [1, 1], "outside": [1]}}, "distances"),
        ({"distances": {"edges": [1.0, "2"], "inside": [1], "outside": [1]}}, "edges"),
        ({"distances": {"edges": [1.0], "inside": [], "outside": []}}, "distances"),
        ({"distances": {"edges": [1.0, 2.0], "inside": [0.5], "outside": [1]}}, "inside"),
    ],
)
def test_a_damaged_ood_file_names_the_folder_and_the_cure(
    new_run: NewRun, changes: dict[str, Any], message: str
) -> None:
    folder = new_run("ncmi", 0)
    path = write_ood(folder, **changes)
    with pytest.raises(ReportError, match=message) as raised:
        read_run(folder).ood()
    assert str(folder) in str(raised.value)
    assert "`ncmi evaluate" in str(raised.value)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ReportError, match="damaged"):
        read_run(folder).ood()


# --- comparisons


def test_a_comparison_lists_what_is_unfinished(full_comparison: Path) -> None:
    record = read_comparison(full_comparison)
    assert (record.data, record.seeds, record.baseline) == ("digits", (0, 1, 2, 3, 4), "cross_entropy")
    assert (record.kind, record.folds, record.simulation, record.baseline_label) == ("table", 0, False, "CE")
    assert len(record.entries) == 13
    assert len(record.runs) == 63
    states = {run.folder.name: run.state for run in record.unfinished}
    assert states == {"opl-seed4": "stopped after epoch 7 of 20", "cmic-seed4": "not started"}
    assert [run.seed for run in record.entries[0].runs] == [0, 1, 2, 3, 4]


def test_a_comparison_of_bags_lists_what_is_not_finished(tmp_path: Path) -> None:
    folder = write_bag_comparison(
        tmp_path / "c", ("abmil", "aem"), seeds=(0, 1), missing=["aem-ncmi-seed1"], **(QUICK | {"resamples": 0})
    )
    (folder / "runs" / "abmil-ncmi-seed0" / "results.json").unlink()
    record = read_comparison(folder)
    assert len(record.runs) == 6
    assert [(run.folder.name, run.state) for run in record.unfinished] == [
        ("abmil-ncmi-seed0", "stopped after epoch 3 of 3"),
        ("aem-ncmi-seed1", "not started"),
    ]
    assert (record.folds, record.simulation, record.class_names) == (0, False, list(CLASSES))
    assert [entry.label for entry in record.entries] == ["ABMIL, CE", "ABMIL, NCMI", "AEM, CE", "AEM, NCMI"]
    assert [entry.objective_label for entry in record.entries] == ["CE", "NCMI"] * 2


def test_a_run_that_is_a_simulation_makes_the_comparison_one(tmp_path: Path) -> None:
    folder = write_bag_comparison(tmp_path / "s", ("abmil",), seeds=(0,), simulation=True, **(QUICK | {"resamples": 0}))
    edit(folder / "comparison.json", lambda content: content.update(simulation=False))
    assert read_comparison(folder).simulation


def test_a_comparison_without_any_finished_run_is_an_error(new_comparison: NewComparison) -> None:
    folder = new_comparison(["ncmi"], seeds=[0, 1], unfinished=[("ncmi", 0)], missing=[("ncmi", 1)])
    with pytest.raises(ReportError, match=r"none of its 2 runs has finished: continue the comparison"):
        read_comparison(folder)


def test_one_damaged_run_stops_a_comparison(new_comparison: NewComparison) -> None:
    folder = new_comparison(seeds=[0])
    (folder / "runs/ncmi-seed0/results.json").write_text("{", encoding="utf-8")
    with pytest.raises(ReportError, match=r"ncmi-seed0.results\.json: damaged"):
        read_comparison(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(entries=["ncmi"]), r"comparison.json: damaged .*entries\[0?\.*"),
        (lambda c: c["entries"][0].update(objective=3), r"comparison.json: damaged .*objective"),
        (lambda c: c["entries"][1].update(label="NCMI"), r"two entries are labeled 'NCMI': give each a label"),
        (lambda c: c["entries"][0]["runs"].append(c["entries"][0]["runs"][0]), r"NCMI has seed 0 twice: remove one"),
        (lambda c: c.pop("baseline"), r"baseline"),
        (lambda c: c.pop("kind"), r"kind"),
        (lambda c: c.update(format=1), r"comparison.json: format 1, this version reads format 2"),
    ],
)
def test_a_damaged_comparison_names_file_and_place(new_comparison: NewComparison, change: Change, message: str) -> None:
    folder = new_comparison(seeds=[0])
    edit(folder / "comparison.json", change)
    with pytest.raises(ReportError, match=message):
        read_comparison(folder)


def test_a_fold_that_occurs_twice_is_an_error(tmp_path: Path) -> None:
    folder = write_bag_comparison(tmp_path / "c", ("abmil",), ("ncmi",), seeds=(0,), folds=2, **QUICK)
    edit(folder / "comparison.json", lambda c: c["entries"][0]["runs"].append(c["entries"][0]["runs"][1]))
    with pytest.raises(ReportError, match=r"NCMI has seed 0, fold 1 twice: remove one of the two runs"):
        read_comparison(folder)


def test_runs_on_other_classes_do_not_compare(tmp_path: Path) -> None:
    bags = write_bag_comparison(tmp_path / "c", ("abmil",), ("ncmi",), seeds=(0,), **QUICK)
    write_bag_run(bags / "runs" / "odd", seed=1, class_names=("no", "yes"), **QUICK)
    edit(bags / "comparison.json", lambda content: content["entries"][0]["runs"].append("runs/odd"))
    with pytest.raises(ReportError, match=r"has the classes no, yes, other runs have negative, itc, micro, macro"):
        read_comparison(bags)
    table = write_comparison(tmp_path / "t", ("ncmi",), (0,))
    write_run(table / "runs" / "odd", seed=1, class_names=("no", "yes"))
    edit(table / "comparison.json", lambda content: content["entries"][0]["runs"].append("runs/odd"))
    with pytest.raises(ReportError, match=r"has the classes no, yes, other runs have 0, 1"):
        read_comparison(table)


# --- reproductions


@pytest.fixture
def table1(tmp_path: Path) -> Path:
    return write_reproduction(
        tmp_path / "out", "table1", {"resnet18": [CE, NCMI], "resnet34": [CE]}, seeds=[0], missing=[("ce", 1)]
    )


def test_a_reproduction_is_its_comparisons(table1: Path) -> None:
    record = read_reproduction(table1)
    assert (record.experiment, record.scale, record.seeds) == ("table1", "paper", (0,))
    assert [(group.name, group.title, len(group.runs)) for group in record.groups] == [
        ("resnet18", "resnet18", 2),
        ("resnet34", "resnet34", 1),
    ]
    assert ".." not in str(record.runs[0].folder.relative_to(table1.parent))
    assert read_folder(table1).folder == table1
    assert read_folder(record) is record


def test_figure_2_has_no_baseline(tmp_path: Path) -> None:
    record = read_reproduction(write_reproduction(tmp_path, "figure2", {"networks": [CE]}, seeds=[0]))
    assert record.groups[0].baseline == ""


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("reproduction.json", "{", r"reproduction.json: damaged"),
        ("reproduction.json", lambda c: c.pop("experiment"), r"experiment"),
        ("reproduction.json", lambda c: c.update(experiment="table9"), r"unknown experiment 'table9': use the ncmi"),
        ("reproduction.json", lambda c: c.update(scale="huge"), r"unknown scale 'huge'"),
        ("reproduction.json", lambda c: c.update(groups=[3]), r"reproduction.json: damaged .*groups"),
        (
            "reproduction.json",
            lambda c: c.update(groups=[{"name": "../x", "title": "x"}]),
            r"group '../x' is no name of a folder",
        ),
        ("resnet18/comparison.json", "[]", r"comparison.json: damaged"),
        ("resnet18/comparison.json", lambda c: c.update(entries=[]), r"resnet18: compares nothing"),
        ("../runs/ce-seed0/results.json", "{", r"ce-seed0/results.json: damaged"),
    ],
)
def test_a_damaged_reproduction_names_the_file(table1: Path, name: str, change: Any, message: str) -> None:
    if isinstance(change, str):
        (table1 / name).write_text(change, encoding="utf-8")
    else:
        edit(table1 / name, change)
    with pytest.raises(ReportError, match=message):
        read_reproduction(table1)


def test_a_group_without_its_folder_names_the_cure(table1: Path) -> None:
    (table1 / "resnet34/comparison.json").unlink()
    with pytest.raises(ReportError, match=r"resnet34: no comparison.json: reproduce it again"):
        read_reproduction(table1)


def test_a_reproduction_without_any_finished_run_is_an_error(tmp_path: Path) -> None:
    folder = write_reproduction(tmp_path, "table1", {"resnet18": [CE]}, unfinished=[("ce", k) for k in range(3)])
    with pytest.raises(ReportError, match=r"none of its 3 runs has finished: continue the reproduction"):
        read_reproduction(folder)
