"""Recipes and Table II of ImageNet on a small folder of JPEGs, costs, and a search, as a user runs them."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import ncmi, read
from PIL import Image

CLASSES = {"ash": (200, 60, 40), "birch": (50, 180, 60), "cedar": (40, 70, 210)}


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like ImageNet's: train and val, a folder a class, JPEGs of different sizes, a color a class in noise."""
    root = tmp_path_factory.mktemp("imagenet")
    random = np.random.default_rng(0)
    for part, count in (("train", 16), ("val", 8)):
        for name, color in CLASSES.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                height, width = random.integers(60, 120, 2)
                pixels = np.array(color) + random.normal(0, 40, (height, width, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)
    return root


def test_the_tiny_recipe(photographs: Path, tmp_path: Path) -> None:
    quick = ("--training.epochs", "2", "--training.batch-size", "8", "--training.accelerator", "cpu")
    out = ncmi("train", photographs, "--recipe", "imagenet.tiny", *quick, "--out", "run", cwd=tmp_path).stdout
    assert "ResNet-18" in out
    recipe, results = read(tmp_path / "run/recipe.json"), read(tmp_path / "run/results.json")
    network = recipe["network"]
    assert (network["stem"], network["width"], network["feature_dim"]) == ("large", 32, 256)
    assert (network["blurpool"], network["zero_init"], network["test_flip"]) == (True, True, True)
    assert recipe["training"]["image_sizes"] == [32, 32, 48, 64]
    assert recipe["data"]["image_size"] == 64
    # ImageNet's val is what is tested on; validation is drawn from train
    assert [results[f"num_{part}"] for part in ("train", "validation", "test")] == [43, 5, 24]
    assert results["readouts"]["cc"]["test"]["accuracy"]["value"] > 0.5  # a third is chance
    again = ncmi("evaluate", "run", cwd=tmp_path).stdout
    assert "ResNet-18" in again or "NCMI" in again
    ncmi("predict", "run", photographs / "val", "--out", "p.csv", cwd=tmp_path)
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert len(lines) == 1 + 24


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    for words, cure in (
        (("train", "--recipe", "imagenet.short"), "imagenet"),
        (("train", "digits", "--network.name", "timm:resnet18", "--network.width", "8"), "--network.width"),
        (("train", "digits", "--network.name", "convnet", "--network.blurpool"), "--network.blurpool"),
    ):
        assert cure in ncmi(*words, cwd=tmp_path, check=2).stderr
    assert not list(tmp_path.iterdir())


def test_table_2_on_a_folder(photographs: Path, tmp_path: Path) -> None:
    words = ("reproduce", "table2", "--imagenet", photographs, "--only", "ncmi-paper", "--seeds", "2", "--dry-run")
    told = ncmi(*words, cwd=tmp_path).stdout
    assert "4 runs in 1 groups" in told
    assert "NCMI (paper)" in told
    assert "test 24" in told
    assert "--imagenet" in ncmi("reproduce", "table2", cwd=tmp_path, check=2).stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_table_2_by_several_processes(photographs: Path, tmp_path: Path) -> None:
    """By torchrun: each run is made by all of them, the first one reports, and the same command goes on."""
    words = f"reproduce table2 --imagenet {photographs} --only ncmi --seeds 1 --epochs 1 --out t".split()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "ncmi"]
    for _ in range(2):
        done = subprocess.run(
            [*command, *words],
            capture_output=True,
            text=True,
            timeout=400,
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("report.html") == 1
        runs = sorted(path.parent for path in (tmp_path / "t/runs").glob("*/results.json"))
        assert [run.name for run in runs] == ["imagenet-resnet18-cross_entropy-seed0", "imagenet-resnet18-ncmi-seed0"]
        for run in runs:
            assert read(run / "environment.json")["processes"] == 2
            assert "resumed" not in read(run / "environment.json")


def test_costs(tmp_path: Path) -> None:
    small = ("--network", "resnet_small", "--classes", "4", "--batch", "2", "--image-size", "8", "--rounds", "1")
    words = ("bench", "cost", *small, "--objectives", "ncmi-paper", "--no-memory", "--accelerator", "cpu")
    out = ncmi(*words, "--out", "c.json", cwd=tmp_path).stdout
    assert "NCMI (paper)" in out
    assert "1.013" in out  # the paper's own ratio
    record = read(tmp_path / "c.json")
    assert [cost["name"] for cost in record["objectives"]] == ["cross_entropy", "ncmi-paper"]
    assert "ncmi-released" in ncmi("bench", "cost", "--objectives", "none", cwd=tmp_path, check=2).stderr
    assert "--classes" in ncmi("bench", "cost", "--classes", "1", cwd=tmp_path, check=2).stderr
    assert "table4" in ncmi("reproduce", "table4", "--dry-run", cwd=tmp_path).stdout
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_sweep_with_the_command_that_trains_its_best(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna", reason="needs optuna")
    data = ("iris", "--objective", "focal", "--training.epochs", "1")
    words = ("sweep", *data, "--search", "objective.gamma=1,3", "--trials", "2", "--out", "s")
    told = ncmi(*words, "--dry-run", cwd=tmp_path).stdout
    assert "objective.gamma one of 1.0, 3.0" in told
    assert not list(tmp_path.iterdir())
    out = ncmi(*words, "--workers", workers, cwd=tmp_path).stdout
    with (tmp_path / "s/trials.csv").open(newline="") as file:
        trials = [(row["trial"], row["state"]) for row in csv.DictReader(file)]
    assert sorted(trials) == [("0", "complete"), ("1", "complete")]
    command = out.partition("to train it: ncmi ")[2].split()
    ncmi(*command, cwd=tmp_path)
    best, results = read(tmp_path / "s/best.json"), read(tmp_path / "s/best/results.json")
    assert best["objective"]["gamma"] in (1.0, 3.0)
    assert {"head", "cc", "lp"} <= results["readouts"].keys()
    assert "--search training.lr" in ncmi("sweep", "iris", "--search", "training.lr", cwd=tmp_path, check=2).stderr
    names = ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK")
    for name, value in zip(("TORCHELASTIC_RUN_ID", *names), ("x", "2", "0", "2", "0"), strict=True):
        monkeypatch.setenv(name, value)
    assert "without torchrun" in ncmi(*words, cwd=tmp_path, check=2).stderr
