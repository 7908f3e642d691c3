"""Run folders hold all that a run needs, agree with themselves, and refuse what would damage them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_helpers import RESUME_CASES, make_recipe, metrics, results, signal_at

from ncmi.data.load import load_dataset
from ncmi.data.splits import split_dataset
from ncmi.errors import Interrupted
from ncmi.files import PARTIAL
from ncmi.objectives.options import CrossEntropyOptions, NCMIOptions
from ncmi.recipes import TableData, recipe_from_dict
from ncmi.training.checkpoint import CheckpointError
from ncmi.training.model import load_model
from ncmi.training.run import train
from ncmi.training.run_folder import RunFolder, RunFolderError
from ncmi.training.schema import EpochMetrics, SchemaError

RECIPE = make_recipe(epochs=2, selection="best", logger=("tensorboard",))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(RECIPE, folder)
    return folder


def test_everything_is_there(run: Path) -> None:
    files = {
        str(path.relative_to(run)) for path in run.rglob("*") if path.is_file() and path.parent.name != "tensorboard"
    }
    assert files == {
        ".lock",
        "recipe.json",
        "environment.json",
        "metrics.jsonl",
        "metrics.csv",
        "results.json",
        "model.safetensors",
        "test_outputs.npz",
        "data.json",
        "misclassified.csv",
        "checkpoints/last.safetensors",
        "checkpoints/best.safetensors",
    }
    environment = json.loads((run / "environment.json").read_text())
    assert {"date", "ncmi", "python", "torch", "platform", "cpu", "device", "threads", "commit"} <= set(environment)
    assert environment["torch"] == torch.__version__
    assert environment["device"] == "cpu"


def test_the_recipe_is_written_as_resolved(run: Path, tmp_path: Path) -> None:
    written = recipe_from_dict(json.loads((run / "recipe.json").read_text()))
    assert written == RECIPE == RunFolder.open(run).recipe()
    open_ended = make_recipe(epochs=1, batch_size=0, network=replace(RECIPE.network, name="auto", feature_dim=0))
    train(open_ended, tmp_path / "open")
    resolved = RunFolder.open(tmp_path / "open").recipe()
    assert (resolved.training.batch_size, resolved.network.name, resolved.network.feature_dim) == (32, "mlp", 128)
    assert train(open_ended, tmp_path / "open", resume=True).epochs == 1
    assert train(resolved, tmp_path / "open", resume=True).epochs == 1


def test_metrics_agree(run: Path) -> None:
    rows = metrics(run)
    with (run / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [{name: float(value) if value else None for name, value in row.items()} for row in table] == rows
    assert [row["epoch"] for row in rows] == [1, 2]
    columns = {"train_loss", "validation_accuracy", "validation_cmi", "validation_separation", "validation_ncmi"}
    assert columns | {"learning_rate", "steps", "seconds", "peak_memory_mb"} <= set(rows[0])
    assert rows[0]["validation_ncmi"] == pytest.approx(rows[0]["validation_cmi"] / rows[0]["validation_separation"])
    assert all(row["seconds"] > 0 and row["peak_memory_mb"] > 10 for row in rows)


def test_metrics_that_are_no_numbers(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    common = {"steps": 4, "learning_rate": 0.5, "train_loss": 2.0, "seconds": 1.0, "peak_memory_mb": 9.0}
    rows = [
        {"epoch": epoch, "validation_ncmi": value, **common} for epoch, value in ((1, float("nan")), (2, float("inf")))
    ]
    folder.write_metrics(rows)
    assert metrics(tmp_path) == [{**row, "validation_ncmi": None} for row in rows]
    assert [(row.epoch, row.validation_ncmi) for row in folder.metrics()] == [(1, None), (2, None)]
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0] == ",".join(EpochMetrics.__struct_fields__)
    assert lines[1:] == [f"{epoch},4,0.5,2.0,,,,,,,,,1.0,9.0" for epoch in (1, 2)]


def test_results(run: Path) -> None:
    found, split = results(run), split_dataset(load_dataset("wine"))
    parts = (split.train, split.validation, split.test)
    assert json.loads((run / "results.json").read_text())["format"] == 2
    assert (found.num_train, found.num_validation, found.num_test) == tuple(map(len, parts))
    assert (found.kind, found.data, found.network, found.objective, found.seed) == ("table", "wine", "mlp", "ncmi", 0)
    assert (found.primary_readouts, found.class_names) == (["head", "cc", "lp"], ["class_0", "class_1", "class_2"])
    assert set(found.readouts) == {"head", "cc", "lp", "knn"}
    # 13·16 + 16, 16·8 + 8, three centroids of 8: what is trained, without the probe
    assert found.parameters == 224 + 136 + 24
    outputs = RunFolder(run).outputs()
    assert list(outputs.predictions) == list(found.readouts)
    for readout, scores in found.readouts.items():
        hits = outputs.predictions[readout] == outputs.labels
        assert scores.test.accuracy.value == pytest.approx(hits.mean())
    np.testing.assert_array_equal(outputs.labels, load_dataset("wine").labels[split.test])
    assert outputs.features.dtype == np.float16


@pytest.mark.parametrize("case", ["ncmi", "ncmi-class-means-ema", "cross-entropy-everything", "supcon"])
def test_load_model_predicts_what_the_run_predicted(case: str, tmp_path: Path) -> None:
    train(RESUME_CASES[case](), tmp_path / "run")
    model, data = load_model(tmp_path / "run"), load_dataset("wine")
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        features = model(data.inputs[split_dataset(data).test])
    outputs = RunFolder(tmp_path / "run").outputs()
    np.testing.assert_array_equal(outputs.features, features.half())
    for readout in ("head", "cc", "lp"):
        log_p = model.log_proba(features, readout)
        np.testing.assert_array_equal(outputs.predictions[readout], log_p.argmax(-1))
        torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(len(log_p)))
    with pytest.raises(ValueError, match="unknown read-out 'knn': use 'head', 'cc' or 'lp'"):
        model.log_proba(features, "knn")


def test_nothing_is_overwritten(run: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with pytest.raises(RunFolderError, match=f"{run} exists and is not empty: choose another"):
        train(RECIPE, run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunFolderError, match="is a file: choose another folder"):
        train(RECIPE, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert train(make_recipe(epochs=1), tmp_path / "empty").epochs == 1


@pytest.mark.parametrize(
    "recipe",
    [
        make_recipe(data="no-such-data"),
        make_recipe(network=replace(RECIPE.network, name="convnet")),
        make_recipe(network=replace(RECIPE.network, name="no-such-network")),
        make_recipe(NCMIOptions(anchors="axis"), network=replace(RECIPE.network, feature_dim=2)),
        make_recipe(schedule="cosin"),
        replace(RECIPE, data=TableData("wine", test_fraction=0.6, validation_fraction=0.6)),
    ],
)
def test_what_cannot_be_trained_leaves_nothing(recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NCMI_DATA", raising=False)
    with pytest.raises((ValueError, FileNotFoundError)):
        train(recipe, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [{"learning_rate": 0.1}, {"seed": 1}, {"epochs": 3}, {"objective": CrossEntropyOptions()}],
    ids=["learning_rate", "seed", "epochs", "objective"],
)
def test_another_recipe_is_not_resumed(change: dict[str, Any], run: Path) -> None:
    other = make_recipe(**{"epochs": 2, "selection": "best", "logger": ("tensorboard",), **change})
    with pytest.raises(RunFolderError, match="holds another recipe: resume it with its own, or choose another"):
        train(other, run, resume=True)


def test_no_run_to_resume_or_load(tmp_path: Path) -> None:
    for use in (lambda path: train(RECIPE, path, resume=True), load_model, RunFolder.open):
        with pytest.raises(RunFolderError, match=r"no run here \(recipe.json is missing\): give a run folder"):
            use(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": 2', r"recipe.json: damaged .*restore the file"),
        ("[]", "recipe.json: damaged, not a JSON object"),
        ("\xff", "recipe.json: damaged"),
        ("{}", "recipe.json: recipe format None: this version reads format 2"),
        ('{"format": 1}', "recipe.json: recipe format 1: this version reads format 2"),
        ('{"format": 2}', "recipe.json: recipe, section 'data'"),
    ],
)
def test_damaged_recipe(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(content, encoding="latin-1")
    for use in (lambda: train(RECIPE, tmp_path, resume=True), RunFolder(tmp_path).recipe):
        with pytest.raises(RunFolderError, match=message) as caught:
            use()
        assert str(caught.value).count("recipe.json") == 1


def copy_of(run: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(run, tmp_path / "copy"))


def test_damaged_results(run: Path, tmp_path: Path) -> None:
    copy = copy_of(run, tmp_path)
    (copy / "results.json").write_text((run / "results.json").read_text()[:50])
    with pytest.raises(SchemaError, match=r"results.json: damaged .*restore the file or run it again"):
        train(RECIPE, copy, resume=True)
    with pytest.raises(RunFolderError, match=r"nothing.json: cannot be read \(No such file or directory\)"):
        RunFolder(copy).read("nothing.json")


def test_damaged_model(run: Path, tmp_path: Path) -> None:
    copy = copy_of(run, tmp_path)
    model = copy / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged"):
        load_model(copy)
    # another run's model does not fit the recipe
    train(make_recipe(network=replace(RECIPE.network, width=24), epochs=1), tmp_path / "other")
    model.write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: does not fit recipe\.json .*restore both"
    ) as caught:
        load_model(copy)
    assert "\n" not in str(caught.value)
    model.write_bytes((run / "checkpoints" / "last.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"model\.safetensors: does not fit recipe\.json"):
        load_model(copy)
    model.unlink()
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        load_model(copy)


def test_damaged_checkpoint(tmp_path: Path) -> None:
    recipe = make_recipe()
    with signal_at(6), pytest.raises(Interrupted):
        train(recipe, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoints" / "last.safetensors"
    whole = checkpoint.read_bytes()
    (checkpoint.parent / "previous.safetensors").unlink(missing_ok=True)
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    for damaged in (whole[:1000], bytes(flipped)):
        checkpoint.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"last\.safetensors: damaged .*remove this file and resume"):
            train(recipe, tmp_path / "run", resume=True)
    # of another model, and of no loop at all
    train(make_recipe(CrossEntropyOptions(), epochs=1), tmp_path / "other")
    for name in ("checkpoints/last.safetensors", "model.safetensors"):
        checkpoint.write_bytes((tmp_path / "other" / name).read_bytes())
        with pytest.raises(CheckpointError, match=r"last\.safetensors: not of this recipe and data") as caught:
            train(recipe, tmp_path / "run", resume=True)
        assert "\n" not in str(caught.value)
    checkpoint.write_bytes(whole)
    assert train(recipe, tmp_path / "run", resume=True).epochs == 3


def test_tensorboard(run: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    rows = metrics(run)
    shown = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    known = {name for name, value in rows[0].items() if value is not None} - {"epoch"}
    assert {name for name in shown if not name.startswith("test_")} == known
    for name in known:
        assert shown[name] == [(row["epoch"], pytest.approx(row[name], rel=1e-6)) for row in rows]
    results = RunFolder(run).results()
    assert shown["test_ncmi"] == [(2, pytest.approx(results.information.ncmi, rel=1e-6))]
    assert shown["test_head_accuracy"] == [(2, pytest.approx(results.readouts["head"].test.accuracy.value, rel=1e-6))]
    train(make_recipe(epochs=1), tmp_path / "quiet")
    assert not (tmp_path / "quiet" / "tensorboard").exists()


def test_on_epoch_hears_every_row(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    train(make_recipe(), tmp_path / "run", on_epoch=heard.append)
    assert heard == metrics(tmp_path / "run")


def test_two_processes_never_train_into_one_folder(tmp_path: Path) -> None:
    train(make_recipe(), tmp_path / "run")
    (tmp_path / "run/results.json").unlink()
    folder = RunFolder(tmp_path / "run")
    half_written = folder.path / f".metrics.csv.abc{PARTIAL}"
    half_written.write_text("of the other process")
    with folder.lock():
        before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
        with pytest.raises(RunFolderError, match="another process trains into this folder: wait until"):
            train(make_recipe(), tmp_path / "run", resume=True)
        assert before == {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    assert train(make_recipe(), tmp_path / "run", resume=True).epochs == 3
    assert not half_written.exists()
