"""A run that was stopped or killed and taken up again ends bitwise where the uninterrupted one ends."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kill_driver import DEATHS, INTERRUPTED, recipe_of
from training_helpers import (
    RESUME_CASES,
    assert_same_run,
    disturb_generators,
    make_recipe,
    metrics,
    results,
    signal_at,
    weights,
)

from ncmi.errors import Interrupted
from ncmi.training import sources as sources_module
from ncmi.training.checkpoint import load_checkpoint
from ncmi.training.loop import Loop
from ncmi.training.run import train
from ncmi.training.run_folder import RunFolder, RunFolderError

STEPS = 4  # of an epoch


@pytest.mark.parametrize("case", RESUME_CASES)
def test_stopped_twice_and_resumed(case: str, tmp_path: Path) -> None:
    recipe = RESUME_CASES[case]()
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(recipe, whole)

    disturb_generators()
    with signal_at(STEPS + 2), pytest.raises(Interrupted, match="epoch 2 after step 2"):
        train(recipe, cut)
    assert not (cut / "results.json").exists()
    assert len(metrics(cut)) == 1
    disturb_generators()
    # at the last step of an epoch: all its steps are done, its evaluation is not
    with signal_at(2 * STEPS, signal.SIGTERM), pytest.raises(Interrupted, match="epoch 2 after step 4"):
        train(recipe, cut, resume=True)
    disturb_generators()
    train(recipe, cut, resume=True)

    assert_same_run(whole, cut)
    first, last = metrics(whole)[0], metrics(whole)[-1]
    assert first["train_loss"] > last["train_loss"]  # it was not for nothing


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    for seed in (0, 1):
        train(make_recipe(seed=seed), tmp_path / str(seed))
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "0", tmp_path / "1")


def test_lost_dropout_state_would_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RESUME_CASES["cross-entropy-everything"]()
    train(recipe, tmp_path / "whole")
    with signal_at(STEPS + 2), pytest.raises(Interrupted):
        train(recipe, tmp_path / "cut")
    monkeypatch.setattr("ncmi.training.loop.set_random_state", lambda state, device: None)
    train(recipe, tmp_path / "cut", resume=True)
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("patience", [None, 1])
def test_stopped_in_the_final_evaluation(patience: int | None, tmp_path: Path) -> None:
    # a learning rate this small changes no decision: patience ends the run after the second epoch
    recipe = make_recipe(learning_rate=1e-9, centroid_learning_rate=1e-9, patience=patience)
    train(recipe, tmp_path / "whole")
    assert results(tmp_path / "whole").epochs == (3 if patience is None else 2)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources_module, "judge_readouts", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "cut")
    train(recipe, tmp_path / "cut", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_stopped_before_the_first_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(epochs=1)
    train(recipe, tmp_path / "whole")

    def die(self: Loop, batch: torch.Tensor) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", die)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "cut")
    train(recipe, tmp_path / "cut", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_finished_run_gives_its_results_and_is_left_alone(tmp_path: Path) -> None:
    recipe = make_recipe(epochs=1)
    first = train(recipe, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert train(recipe, tmp_path / "run", resume=True) == first == results(tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_the_same_recipe_twice_is_the_same_run(tmp_path: Path) -> None:
    recipe = make_recipe(checkpoint_steps=3)
    for name in ("a", "b"):
        disturb_generators()
        train(recipe, tmp_path / name)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "a").values())


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dead")
    driver = Path(__file__).with_name("kill_driver.py")
    subprocess.run([sys.executable, str(driver), str(root)], check=True, timeout=240, capture_output=True)
    return root


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("death", DEATHS)
def test_killed_and_resumed(death: str, dead: Path, tmp_path: Path) -> None:
    number = DEATHS[death][1]
    exits = json.loads((dead / "exits.json").read_text())
    assert exits[death] == (-signal.SIGKILL if number == signal.SIGKILL else INTERRUPTED)
    folder = dead / death
    assert not (folder / "results.json").exists()
    # a killed run goes on from its last checkpoint, a stopped one from where it stopped
    saved = load_checkpoint(folder / "checkpoints" / "last.safetensors")["progress"]["total_steps"]
    assert saved == (5 if number == signal.SIGKILL else 6)

    train(recipe_of(death), tmp_path / "whole")
    train(recipe_of(death), folder, resume=True)
    assert_same_run(tmp_path / "whole", folder)
    assert list(folder.rglob("*.partial")) == []


def test_the_same_call_begins_goes_on_and_gives_results(tmp_path: Path) -> None:
    recipe = make_recipe(batch_size=0)  # to be settled by the data
    train(recipe, tmp_path / "whole")
    cut = tmp_path / "cut"
    with signal_at(STEPS + 2, signal.SIGUSR1), pytest.raises(Interrupted, match="epoch 2 after step 2"):
        train(recipe, cut, resume="auto")
    # how many devices there are is no part of a run
    train(replace(recipe, training=replace(recipe.training, checkpoint_minutes=5.0)), cut, resume="auto")
    assert_same_run(tmp_path / "whole", cut)
    before = {path: path.stat().st_mtime_ns for path in cut.rglob("*")}
    assert train(recipe, cut, resume="auto") == results(cut)
    assert {path: path.stat().st_mtime_ns for path in cut.rglob("*")} == before


def test_another_recipe_does_not_go_on_by_itself(tmp_path: Path) -> None:
    train(make_recipe(epochs=1), tmp_path / "run", resume="auto")
    before = (tmp_path / "run" / "recipe.json").read_bytes()
    with pytest.raises(RunFolderError, match=r"another recipe: .*choose another --out"):
        train(make_recipe(epochs=1, seed=1), tmp_path / "run", resume="auto")
    assert (tmp_path / "run" / "recipe.json").read_bytes() == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("not a run")
    with pytest.raises(RunFolderError, match="choose another folder"):
        train(make_recipe(epochs=1), tmp_path / "notes", resume="auto")


def test_the_number_of_devices_is_no_part_of_a_recipe(tmp_path: Path) -> None:
    one, two = make_recipe(epochs=1), make_recipe(epochs=1, devices=2)
    assert one == two
    folder = RunFolder.create(tmp_path / "run", two)
    assert folder.recipe().training.devices == 1


def test_checkpoints_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr("ncmi.training.loop.time.monotonic", lambda: 40.0 * next(clock))
    saved: list[int] = []
    save = Loop._save

    def noted(self: Loop) -> None:
        saved.append(self.progress.total_steps)
        save(self)

    monkeypatch.setattr(Loop, "_save", noted)
    train(make_recipe(epochs=1, batch_size=8, checkpoint_minutes=2.0), tmp_path / "run")
    assert saved[0] == 3  # of fifteen: a look at the clock is two thirds of a minute
    assert len(saved) > 3
