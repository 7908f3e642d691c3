"""Run and comparison folders of slides: what is read of them, and every damage told with file and cure."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slides_folders import CLASSES, write_comparison_of_slides, write_slides_run

from ncmi.reports import ReportError
from ncmi.reports.slides import is_slides_folder, read_slide_comparison, read_slide_run, write_slides_report
from ncmi.reports.slides.read_results import read_slide_table
from ncmi.slides.metrics import slide_metrics

QUICK: dict[str, Any] = {"patients": 20, "resamples": 20, "attention": 0, "epochs": 3}


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_table(path: Path, line: int, column: str, value: str) -> None:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows[line - 2][column] = value
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_slides_run(tmp_path / "run", skipped=[("lost", "no features")], **QUICK)


def test_a_run_is_read_as_it_was_written(run: Path) -> None:
    record = read_slide_run(run)
    assert record.results is not None
    assert (record.network, record.objective, record.label, record.seed) == ("ABMIL", "ncmi", "NCMI", 0)
    assert (record.folds, record.fold, record.state, record.data) == (0, 0, "finished", "camelyon")
    assert record.results.class_names == CLASSES
    assert record.results.primary_readouts == ("head", "cc", "lp")
    assert record.results.skipped == (("lost", "no features"),)
    assert list(record.metrics.index) == [1, 2, 3]
    assert record.metrics["validation_macro_f1"].notna().all()
    written = json.loads((run / "results.json").read_text(encoding="utf-8"))["readouts"]["lp"]["test"]
    found = record.results.test["lp"]
    assert found.scores["macro_f1"].value == written["macro_f1"]["value"]
    assert found.recall["micro"].high == written["recall"]["micro"]["high"]
    np.testing.assert_array_equal(found.confusion, written["confusion"])
    assert (found.slides, found.patients, found.bootstrap) == (40, 8, written["bootstrap"])


def test_the_table_of_slides_gives_back_the_metrics(run: Path) -> None:
    record = read_slide_run(run)
    assert record.results is not None
    table = read_slide_table(record)
    test = table.part("test")
    assert set(table.parts) == {"train", "validation", "test"}
    assert len(test.slides) == 40
    for readout, found in record.results.test.items():
        again = slide_metrics(test.labels, test.probabilities[readout], test.patients, CLASSES, resamples=0)
        assert again["macro_f1"]["value"] == pytest.approx(found.scores["macro_f1"].value, abs=1e-12)
        assert again["auc"]["value"] == pytest.approx(found.scores["auc"].value, abs=1e-12)


@pytest.mark.parametrize("epochs", [0, 2])
def test_an_unfinished_run_is_read_with_what_there_is(tmp_path: Path, epochs: int) -> None:
    record = read_slide_run(write_slides_run(tmp_path / "run", stopped_after=epochs, **QUICK))
    assert record.results is None
    assert record.state == f"stopped after epoch {epochs} of 3"
    assert len(record.metrics) == epochs
    with pytest.raises(ReportError, match="the run has not finished: finish it"):
        read_slide_table(record)


def test_values_that_are_not_defined_are_nan(run: Path) -> None:
    edit(run / "results.json", lambda c: c["readouts"]["head"]["test"]["auc"].update(value=None, low=None, high=None))
    found = read_slide_run(run).results
    assert found is not None
    assert math.isnan(found.test["head"].scores["auc"].value)


def test_a_run_without_validation_part_has_none(tmp_path: Path) -> None:
    record = read_slide_run(write_slides_run(tmp_path / "run", validation=False, **QUICK))
    assert record.results is not None
    assert record.results.validation == {}
    assert record.results.best_epoch is None


def test_features_called_just_that_are_named_by_the_folder_around_them(run: Path) -> None:
    edit(run / "results.json", lambda c: c.update(data="features"))
    assert read_slide_run(run).data == "camelyon"


def _results(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda run: edit(run / "results.json", change)


def _table(line: int, column: str, value: str) -> Callable[[Path], None]:
    return lambda run: edit_table(run / "slides.csv", line, column, value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_results(lambda c: c.pop("class_names")), r"results.json: the key 'class_names' is missing: run it again"),
        (_results(lambda c: c.update(format=9)), r"results.json: has format 9, this version reads 1"),
        (_results(lambda c: c.update(epochs="many")), r"results.json: 'epochs' is 'many', not a whole number"),
        (
            _results(lambda c: c["readouts"]["cc"]["test"]["recall"].pop("itc")),
            r"results.json: the key 'readouts.cc.test.recall.itc' is missing",
        ),
        (
            _results(lambda c: c["readouts"]["cc"]["test"].update(confusion=[[1]])),
            r"'readouts.cc.test.confusion' is no table of counts of 4 classes",
        ),
        (
            _results(lambda c: c["readouts"]["cc"]["test"].update(confusion="x")),
            r"'readouts.cc.test.confusion' is 'x', not a list",
        ),
        (_results(lambda c: c.update(primary_readouts=["knn"])), r"'primary_readouts' \['knn'\] have no entry"),
        (_results(lambda c: c.update(skipped=["x"])), r"'skipped' is no list of slides with reasons"),
        (_table(3, "label", "benign"), r"slides.csv, line 3: label is 'benign', none of negative, itc, micro, macro"),
        (_table(4, "part", "tset"), r"slides.csv, line 4: part is 'tset', none of train, validation, test"),
        (_table(5, "cc:itc", "nan"), r"slides.csv, line 5: holds something else than numbers"),
        (_table(5, "instances", ""), r"slides.csv, line 5: holds something else than numbers"),
        (_table(6, "slide", "slide_000_node_0"), r"slides.csv: the slide slide_000_node_0 occurs twice"),
        (lambda run: (run / "slides.csv").unlink(), r"slides.csv: cannot be read .*run it again"),
        (lambda run: (run / "slides.csv").write_text("", encoding="utf-8"), r"slides.csv: damaged, not CSV"),
        (lambda run: (run / "slides.csv").write_text("slide\na\n", encoding="utf-8"), r"lacks the column 'patient'"),
        (lambda run: (run / "slides.csv").write_bytes(b"slide,\xff\n"), r"slides.csv: damaged, not CSV"),
        (lambda run: (run / "metrics.jsonl").write_text("{\n{}\n"), r"metrics.jsonl, line 1: damaged, not JSON"),
        (lambda run: (run / "results.json").write_text('{"format": 1'), r"results.json: damaged, not JSON"),
        (lambda run: edit(run / "recipe.json", lambda c: c["network"].pop("name")), r"'network.name' is missing"),
        (lambda run: edit(run / "recipe.json", lambda c: c["data"].update(folds="x")), r"'data.folds' is 'x'"),
        (lambda run: edit(run / "recipe.json", lambda c: c.pop("kind")), r"no run on slides: use `ncmi report`"),
        (lambda run: (run / "recipe.json").unlink(), r"neither a comparison folder .* nor a run folder"),
    ],
)
def test_every_damage_is_told_with_its_file_and_nothing_is_written(
    run: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(run)
    before = sorted(path.name for path in run.iterdir())
    with pytest.raises(ReportError, match=message):
        write_slides_report(run)
    assert sorted(path.name for path in run.iterdir()) == before


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    return write_comparison_of_slides(tmp_path / "comparison", ("abmil",), seeds=(0, 1), **(QUICK | {"resamples": 0}))


def test_a_comparison_lists_what_is_not_finished(tmp_path: Path) -> None:
    folder = write_comparison_of_slides(
        tmp_path / "c", ("abmil", "aem"), seeds=(0, 1), missing=["aem-ncmi-seed1"], **(QUICK | {"resamples": 0})
    )
    (folder / "runs" / "abmil-ncmi-seed0" / "results.json").unlink()
    record = read_slide_comparison(folder)
    assert len(record.runs) == 6
    assert [(run.folder.name, run.state) for run in record.unfinished] == [
        ("abmil-ncmi-seed0", "stopped after epoch 3 of 3"),
        ("aem-ncmi-seed1", "not started"),
    ]
    assert (record.folds, record.simulation, record.class_names) == (0, False, CLASSES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("kind"), r"no comparison on slides: use `ncmi report`"),
        (lambda c: c["entries"][1].update(label="CE"), r"two entries of abmil are labelled 'CE': name them apart"),
        (lambda c: c["entries"].append("x"), r"'entries\[2\]' is not an object"),
        (
            lambda c: c["entries"][0].update(runs=["runs/none"]) or c["entries"].pop(1),
            r"none of its 1 runs has finished",
        ),
        (lambda c: c["entries"][0]["runs"].append(c["entries"][0]["runs"][0]), r"CE has seed 0, fold 0 twice: remove"),
        (lambda c: c.pop("baseline"), r"the key 'baseline' is missing"),
    ],
)
def test_a_damaged_comparison_is_told(comparison: Path, change: Callable[[Any], object], message: str) -> None:
    edit(comparison / "comparison.json", change)
    with pytest.raises(ReportError, match=message):
        write_slides_report(comparison)
    assert not (comparison / "report.html").exists()


def test_runs_on_other_classes_do_not_compare(comparison: Path) -> None:
    folder = comparison / "runs" / "abmil-ncmi-seed1"
    for path in sorted(folder.iterdir()):
        path.unlink()
    folder.rmdir()
    write_slides_run(folder, seed=1, class_names=("no", "yes"), **QUICK)
    with pytest.raises(ReportError, match=r"has the classes no, yes, other runs have negative, itc, micro, macro"):
        read_slide_comparison(comparison)


def test_folders_of_slides_are_told_from_others(run: Path, comparison: Path, tmp_path: Path) -> None:
    assert is_slides_folder(run)
    assert is_slides_folder(comparison)
    assert not is_slides_folder(tmp_path)
    (tmp_path / "recipe.json").write_text('{"format": 1}', encoding="utf-8")
    assert not is_slides_folder(tmp_path)
    (tmp_path / "recipe.json").write_text("{", encoding="utf-8")
    assert not is_slides_folder(tmp_path)
