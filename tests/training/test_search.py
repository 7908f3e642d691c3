"""The search: what is searched, whose processes may die, what it judges by, and what it leaves in its folder."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

pytest.importorskip("optuna", reason="needs optuna")

from ncmi.objectives.options import CrossEntropyOptions, FocalOptions, NCMIOptions
from ncmi.recipes import ImageData, Network, Recipe, TableData, Training, recipe_from_dict
from ncmi.training import search
from ncmi.training.run_folder import RunFolder
from ncmi.training.search import (
    Dimension,
    SweepError,
    SweepRecord,
    TrialRecord,
    default_dimensions,
    parse_dimension,
    run_sweep,
    run_trial,
    sweep_record,
    with_option,
)

QUICK = Recipe(
    TableData("iris"),
    Network("mlp", width=8, depth=1),
    FocalOptions(),
    Training(epochs=2, accelerator="cpu", threads=1),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # far down: the best rate of small noisy tables lies at 1/64 to 1/256
        ("training.learning-rate", Dimension(name="training.learning_rate", low=5e-3 / 256, high=0.02, log=True)),
        ("training.weight-decay", Dimension(name="training.weight_decay", low=1e-3, high=0.1, log=True)),
        ("objective.gamma", Dimension(name="objective.gamma", low=0.125, high=8.0, log=True)),
        ("objective.gamma=0:3", Dimension(name="objective.gamma", low=0, high=3)),
        ("training.batch-size=16:64", Dimension(name="training.batch_size", low=16, high=64, whole=True)),
        ("training.batch_size=16,32", Dimension(name="training.batch_size", choices=(16, 32))),
        ("training.ema-decay=none,0.9", Dimension(name="training.ema_decay", choices=(None, 0.9))),
        ("network.blurpool", Dimension(name="network.blurpool", choices=(False, True))),
        ("training.optimizer=sgd,adamw", Dimension(name="training.optimizer", choices=("sgd", "adamw"))),
        (
            "training.augmentation.noise=0.01:0.5:log",
            Dimension(name="training.augmentation.noise", low=0.01, high=0.5, log=True),
        ),
    ],
)
def test_what_is_typed(text: str, expected: Dimension) -> None:
    found = parse_dimension(text, QUICK)
    assert (found.name, found.choices, found.log, found.whole) == (
        expected.name,
        expected.choices,
        expected.log,
        expected.whole,
    )
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    "text",
    [
        "training.lr",
        "data.test_fraction=0:1",
        "training",
        "objective.gamma=3:1",
        "objective.gamma=0:1:log",
        "objective.gamma=-1:1",
        "objective.gamma=1:2:3",
        "training.optimizer=sgd,adam",
        "training.batch-size=a,b",
        "training.warmup-epochs",
    ],
)
def test_what_cannot_be_searched_is_told_with_its_name(text: str) -> None:
    with pytest.raises(SweepError, match=f"--search {text.partition('=')[0].replace('-', '.')}"):
        parse_dimension(text, QUICK)


def test_defaults_are_the_rate_and_the_losses_own_option() -> None:
    names = {
        loss.name: [dimension.name for dimension in default_dimensions(replace(QUICK, objective=loss))]
        for loss in (FocalOptions(), NCMIOptions(), CrossEntropyOptions())
    }
    assert names["focal"] == ["training.learning_rate", "objective.gamma"]
    assert names["ncmi"] == ["training.learning_rate", "objective.label_smoothing"]
    assert names["cross_entropy"] == ["training.learning_rate"]


def test_centroids_keep_their_rates_ratio() -> None:
    recipe = replace(QUICK, training=Training(learning_rate=0.1, centroid_learning_rate=0.4))
    changed = with_option(recipe, "training.learning_rate", 0.2).training
    assert (changed.learning_rate, changed.centroid_learning_rate) == pytest.approx((0.2, 0.8))


def test_trials_are_judged_by_a_validation_part_that_is_not_trained_on() -> None:
    recipe = Recipe(ImageData("digits", train_on_all=True), training=Training())
    record = sweep_record(recipe, default_dimensions(recipe))
    assert recipe_from_dict(record.recipe).data.train_on_all is False  # type: ignore[union-attr]
    none = Recipe(ImageData("digits", validation_fraction=0.0))
    with pytest.raises(SweepError, match="validation_fraction=0"):
        sweep_record(none, default_dimensions(none))
    with pytest.raises(SweepError, match="--prune"):
        sweep_record(recipe, default_dimensions(recipe), "macro_f1", prune=True)
    with pytest.raises(SweepError, match="once"):
        sweep_record(recipe, default_dimensions(recipe) * 2)


def test_a_study_that_goes_on(tmp_path: Path) -> None:
    record = sweep_record(QUICK, default_dimensions(QUICK))
    ended: list[TrialRecord] = []
    run_sweep(record, tmp_path / "s", 2, on_trial=ended.append)
    best = run_sweep(record, tmp_path / "s", 3, on_trial=ended.append)
    assert [trial.number for trial in ended] == [0, 1, 2]
    # the first is the recipe as it is
    assert ended[0].params == {"training.learning_rate": 5e-3, "objective.gamma": 2.0}
    assert len({json.dumps(trial.params) for trial in ended}) == 3
    for trial in ended:
        results = RunFolder.open(tmp_path / "s" / trial.run).results()
        assert results.readouts["head"].validation is not None
        assert trial.value == results.readouts["head"].validation.accuracy.value
        recipe = RunFolder.open(tmp_path / "s" / trial.run).recipe()
        assert recipe.training.learning_rate == trial.params["training.learning_rate"]
    assert best.value == max(trial.value for trial in ended if trial.value is not None)
    chosen = recipe_from_dict(json.loads((tmp_path / "s/best.json").read_text()))
    assert chosen.objective == FocalOptions(gamma=best.params["objective.gamma"])
    assert chosen.training.readouts == "all"
    with (tmp_path / "s/trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["validation_accuracy"]) for row in rows] == [trial.value for trial in ended]
    again: list[TrialRecord] = []
    assert run_sweep(record, tmp_path / "s", 3, on_trial=again.append) == best
    assert again == []
    other = sweep_record(replace(QUICK, objective=CrossEntropyOptions()), default_dimensions(QUICK)[:1])
    with pytest.raises(SweepError, match="another --out"):
        run_sweep(other, tmp_path / "s", 3)


def test_a_trial_whose_process_has_died_is_gone_on_with(tmp_path: Path) -> None:
    """The process is killed in the middle of a trial; what it held is let go, and its run is gone on with."""
    record = sweep_record(QUICK, default_dimensions(QUICK))
    search._open(tmp_path / "s", record)
    killed = textwrap.dedent("""
        import os, sys
        from ncmi.training import run, search
        original = run.train
        def train(recipe, path, **options):
            original(recipe, path, **options | {"on_epoch": lambda row: os._exit(9)})
        run.train = train
        search.run_trial("", {"folder": sys.argv[1], "trials": 2})
    """)
    code = subprocess.run([sys.executable, "-c", killed, str(tmp_path / "s")], timeout=240, check=False).returncode
    assert code == 9
    assert not (tmp_path / "s/trials/0000/results.json").exists()
    ended: list[TrialRecord] = []
    run_sweep(record, tmp_path / "s", 2, on_trial=ended.append)
    assert ended[0].run == "trials/0000"
    assert ended[0].params == {"training.learning_rate": 5e-3, "objective.gamma": 2.0}
    assert len({trial.run for trial in ended}) == len(ended) == 2
    with (tmp_path / "s/trials.csv").open(newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["fail", "complete", "complete"]


def test_a_trial_that_is_held_is_left_to_its_process(tmp_path: Path) -> None:
    record = sweep_record(QUICK, default_dimensions(QUICK))
    folder = tmp_path / "s"
    search._open(folder, record)
    study = search._study(folder, record)
    other = search._next(study, record, folder, 2)
    assert other is not None
    content = {"folder": str(folder), "trials": 2}
    with FileLock(search._lock_of(folder, other.number)):
        ended = run_trial("", content)
        assert ended is not None
        assert ended.number == 1
        assert run_trial("", content) is None  # the other one counts


def test_a_trial_that_diverges_is_the_worst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ncmi.training import run

    def diverge(*arguments: Any, **options: Any) -> None:
        raise FloatingPointError("the loss is nan")

    monkeypatch.setattr(run, "train", diverge)
    for metric, value in (("accuracy", 0.0), ("nll", float("inf"))):
        record = sweep_record(QUICK, default_dimensions(QUICK), metric)  # type: ignore[arg-type]
        assert run_sweep(record, tmp_path / metric, 1).value == value


def test_trials_that_fall_behind_end_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna

    recipe = replace(QUICK, training=replace(QUICK.training, epochs=4))
    record = sweep_record(recipe, default_dimensions(recipe), prune=True)
    monkeypatch.setattr(
        optuna.pruners, "MedianPruner", lambda **options: optuna.pruners.ThresholdPruner(lower=0.0, upper=2.0)
    )
    assert run_sweep(record, tmp_path / "kept", 1).state == "COMPLETE"
    monkeypatch.setattr(optuna.pruners, "MedianPruner", lambda **options: optuna.pruners.ThresholdPruner(lower=2.0))
    ended: list[TrialRecord] = []
    with pytest.raises(SweepError, match="--prune"):
        run_sweep(record, tmp_path / "ended", 1, on_trial=ended.append)
    assert [(trial.state, trial.value) for trial in ended] == [("PRUNED", None)]
    assert len(RunFolder.open(tmp_path / "ended/trials/0000").metrics()) <= 1


def test_it_does_not_run_under_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record: SweepRecord = sweep_record(QUICK, default_dimensions(QUICK))
    for name, value in {
        "WORLD_SIZE": 2,
        "RANK": 1,
        "LOCAL_WORLD_SIZE": 2,
        "LOCAL_RANK": 1,
        "GROUP_WORLD_SIZE": 1,
    }.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(SweepError, match="without torchrun"):
        run_sweep(record, tmp_path / "s", 1)
    assert not (tmp_path / "s").exists()
