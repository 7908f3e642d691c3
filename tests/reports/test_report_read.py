"""Reading run folders and comparison folders: what is found, and what every kind of damage is answered with."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ncmi.reports import ReportError, read_comparison, read_run

NewRun = Callable[..., Path]
NewComparison = Callable[..., Path]


def edit(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    content.update(changes)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_a_finished_run_is_read_completely(new_run: NewRun) -> None:
    folder = new_run("ncmi", 3)
    run = read_run(folder)
    raw = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (run.objective, run.seed, run.data, run.state) == ("ncmi", 3, "digits", "finished")
    assert run.results is not None
    assert run.results.readouts["lp"].test_accuracy == raw["readouts"]["lp"]["test_accuracy"]
    assert run.results.primary_readouts == ("cc", "lp")
    assert run.results.ncmi == raw["information"]["ncmi"]
    assert run.results.class_names == tuple("0123456789")
    assert run.metrics.index.tolist() == list(range(1, 21))
    assert run.metrics["validation_cmi"].tolist() == [line["validation_cmi"] for line in lines]
    outputs = run.outputs()
    assert outputs.features.shape == (360, 64)
    accuracy = float((outputs.predictions["cc"] == outputs.labels).mean())
    assert accuracy == raw["readouts"]["cc"]["test_accuracy"]


def test_undefined_measures_are_nan(new_run: NewRun) -> None:
    folder = new_run("supcon")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rows[0]["validation_cmi"] = None
    rows[1]["validation_cmi"] = math.nan
    del rows[2]["validation_cmi"]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = read_run(folder).metrics["validation_cmi"]
    assert found.isna().tolist() == [True] * 3 + [False] * 17


def test_an_unfinished_run_says_how_far_it_came(new_run: NewRun) -> None:
    run = read_run(new_run("focal", 1, stopped_after=6))
    assert run.results is None
    assert run.state == "stopped after epoch 6 of 20"
    assert len(run.metrics) == 6


def test_a_run_stopped_in_the_middle_of_a_line_is_read_up_to_there(new_run: NewRun) -> None:
    folder = new_run("focal", 1, stopped_after=6)
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"epoch": 7, "train_lo')
    assert read_run(folder).metrics.index.tolist() == [1, 2, 3, 4, 5, 6]


def test_an_epoch_repeated_after_a_resume_counts_once(new_run: NewRun) -> None:
    folder = new_run("focal", 1, stopped_after=3)
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"epoch": 3, "train_loss": 0.125}\n')
    metrics = read_run(folder).metrics
    assert metrics.index.tolist() == [1, 2, 3]
    assert metrics.loc[3, "train_loss"] == 0.125


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"not a run folder \(no recipe.json\): give the folder"):
        read_run(tmp_path)
    with pytest.raises(ReportError, match=r"not a comparison folder \(no comparison.json\)"):
        read_comparison(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("recipe.json", "{", "recipe.json: damaged, not JSON .*: restore the file or run it again"),
        ("recipe.json", "[1]", "recipe.json: holds a list, not a JSON object"),
        ("recipe.json", '{"format": 2}', "recipe.json: has format 2, this version reads 1"),
        ("recipe.json", '{"format": 1}', "recipe.json: the key 'data' is missing"),
        ("environment.json", "nonsense", "environment.json: damaged"),
        ("results.json", '{"format": 1, "status"', "results.json: damaged"),
        ("results.json", '{"format": 1, "status": "finished"}', "results.json: the key 'readouts' is missing"),
        ("metrics.jsonl", '{"epoch": 1}\n{"epo\n{"epoch": 3}\n', "metrics.jsonl, line 2: damaged, not JSON"),
        ("metrics.jsonl", '{"epoch": 1}\n3\n', "metrics.jsonl, line 2: not a JSON object"),
        ("metrics.jsonl", '{"epoch": "one"}\n', "line 1: epoch' is 'one', not a whole number"),
        ("metrics.jsonl", '{"epoch": 1, "seconds": true}\n', "seconds' is True, not a number"),
    ],
)
def test_damage_names_the_file(new_run: NewRun, name: str, content: str, message: str) -> None:
    folder = new_run()
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(ReportError, match=message):
        read_run(folder)


def test_binary_in_place_of_text_names_the_file(new_run: NewRun) -> None:
    folder = new_run()
    (folder / "metrics.jsonl").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ReportError, match=r"metrics.jsonl: damaged, not text"):
        read_run(folder)
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(ReportError, match=r"metrics.jsonl: cannot be read"):
        read_run(folder)


def test_primary_readouts_must_have_been_measured(new_run: NewRun) -> None:
    folder = new_run()
    edit(folder / "results.json", primary_readouts=["cc", "oracle"])
    with pytest.raises(ReportError, match=r"'primary_readouts' \['oracle'\] have no entry in 'readouts'"):
        read_run(folder)


def test_results_of_another_status_are_no_results(new_run: NewRun) -> None:
    folder = new_run()
    edit(folder / "results.json", status="diverged")
    assert read_run(folder).results is None


def test_damaged_outputs_name_the_file(new_run: NewRun) -> None:
    folder = new_run()
    run, path = read_run(folder), folder / "test_outputs.npz"
    whole = path.read_bytes()
    for damaged in (b"", b"no archive", whole[: len(whole) // 2], whole[:200] + bytes(200) + whole[400:]):
        path.write_bytes(damaged)
        with pytest.raises(ReportError, match=r"test_outputs.npz: damaged, not an .npz archive .*: run it again"):
            run.outputs()
    path.unlink()
    with pytest.raises(ReportError, match=r"test_outputs.npz: missing"):
        run.outputs()


def test_pickled_objects_are_never_loaded(new_run: NewRun) -> None:
    folder = new_run()
    run = read_run(folder)
    np.savez(folder / "test_outputs.npz", labels=np.array([{"a": 1}], dtype=object), features=np.zeros((1, 2)))
    with pytest.raises(ReportError, match=r"test_outputs.npz: damaged"):
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
    with pytest.raises(ReportError, match=r"labels run outside 0\.\.9"):
        run.outputs()


def test_a_comparison_lists_what_is_unfinished(full_comparison: Path) -> None:
    record = read_comparison(full_comparison)
    assert (record.data, record.seeds, record.baseline) == ("digits", (0, 1, 2, 3, 4), "cross_entropy")
    assert len(record.entries) == 13
    assert len(record.runs) == 63
    found = {run.folder.name: run.state for run in record.unfinished}
    assert found == {"opl-seed4": "stopped after epoch 7 of 20", "cmic-seed4": "not started"}
    assert [run.seed for run in record.entries[0].runs] == [0, 1, 2, 3, 4]


def test_a_comparison_without_any_finished_run_is_an_error(new_comparison: NewComparison) -> None:
    folder = new_comparison(["ncmi"], seeds=[0, 1], unfinished=[("ncmi", 0)], missing=[("ncmi", 1)])
    with pytest.raises(ReportError, match=r"none of its 2 runs has finished: continue the comparison"):
        read_comparison(folder)


def test_one_damaged_run_stops_a_comparison(new_comparison: NewComparison) -> None:
    folder = new_comparison(seeds=[0])
    (folder / "runs/ncmi-seed0/results.json").write_text("{", encoding="utf-8")
    with pytest.raises(ReportError, match=r"ncmi-seed0.results\.json: damaged"):
        read_comparison(folder)


def test_a_damaged_comparison_file_names_the_place(new_comparison: NewComparison) -> None:
    folder = new_comparison(seeds=[0])
    edit(folder / "comparison.json", entries=[{"label": "NCMI", "objective": 3, "runs": []}])
    with pytest.raises(ReportError, match=r"'entries\[0\].objective' is 3, not a string"):
        read_comparison(folder)
    edit(folder / "comparison.json", entries=["ncmi"])
    with pytest.raises(ReportError, match=r"'entries\[0\]' is not an object"):
        read_comparison(folder)
