"""Processes that are killed, terminated or interrupted leave a run that resumes bitwise."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kill_driver import DEATHS, INTERRUPTED, recipe_of
from training_helpers import assert_same_run

from ncmi.training import train
from ncmi.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dead")
    driver = Path(__file__).with_name("kill_driver.py")
    subprocess.run([sys.executable, str(driver), str(root)], check=True, timeout=240, capture_output=True)
    return root


@pytest.mark.parametrize("death", DEATHS)
def test_resumes_bitwise(death: str, dead: Path, tmp_path: Path) -> None:
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
