"""Two processes on gloo train the slide classifier that one trains."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from slide_helpers import read, rows, write_cohort
from slide_process_driver import CASES, recipe_of

from ncmi.training.run import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("processes")
    write_cohort(root / "cohort", slides=24, patients=12)
    driver = Path(__file__).with_name("slide_process_driver.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(driver), str(root)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one(trained: Path, case: str) -> None:
    train(recipe_of(case, trained / "cohort" / "labels.csv", 1), trained / f"{case}-one")
    one, two = (load_file(trained / f"{case}-{number}" / "model.safetensors") for number in ("one", "two"))
    assert list(one) == list(two)
    for name, value in one.items():
        if "/lp." not in name:  # a fit of its own, to rounding
            torch.testing.assert_close(value.float(), two[name].float(), rtol=2e-4, atol=2e-5)
    tables = [rows(trained / f"{case}-{number}" / "slides.csv") for number in ("one", "two")]
    for mine, theirs in zip(*tables, strict=True):
        assert mine["slide"] == theirs["slide"]
        for name in ("head:none", "head:one", "cc:other"):
            assert float(mine[name]) == pytest.approx(float(theirs[name]), abs=2e-4)
    epochs = [read(trained / f"{case}-{number}", "results.json")["epochs"] for number in ("one", "two")]
    assert epochs == [2, 2]
