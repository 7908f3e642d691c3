"""Two gloo processes train what one process trains with the same global batch, and count every sample once."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from batch_normalized_driver import FOLDER_CASES, image_recipe, write_image_folder, write_images
from process_driver import FEW, LOOP_CASES, PROCESS_CASES, STOPPED_AT, UNEVEN, ZERO, loop_of, recipe_of
from training_helpers import assert_same_run, leaves, metrics, results, weights, without_times

from ncmi.data.batches import process_shares
from ncmi.data.load import load_dataset, load_samples
from ncmi.data.splits import split_dataset
from ncmi.errors import PeerLost
from ncmi.training.model import load_model
from ncmi.training.run import train
from ncmi.training.run_folder import RunFolder
from ncmi.training.samples import split_of


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    root = tmp_path_factory.mktemp("pair")
    write_images(root / "images.npz")
    write_image_folder(root / "images.npz", root / "images")
    driver = Path(__file__).with_name("process_driver.py")
    with (root / "errors.txt").open("w") as errors:  # no pipe: the process that stands still would hold it
        ended = subprocess.run([sys.executable, str(driver), str(root)], check=False, timeout=480, stderr=errors)
    if (root / "met-1.json").exists():
        with suppress(ProcessLookupError):
            os.kill(json.loads((root / "met-1.json").read_text())["pid"], signal.SIGKILL)
    return root, subprocess.CompletedProcess(ended.args, ended.returncode, "", (root / "errors.txt").read_text())


def test_the_batches_are_uneven() -> None:
    samples = len(split_dataset(load_dataset("wine")).train)
    last = [process_shares(samples % size, 2) for size in (UNEVEN, FEW, ZERO)]
    assert last == [(10, 9), (3, 2), (1, 0)]


@pytest.mark.parametrize("case", PROCESS_CASES)
def test_two_processes_equal_one(
    case: str, pair: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    root, ended = pair
    assert (root / case / "results.json").exists(), ended.stderr[-2000:]
    train(recipe_of(case, 1), tmp_path / "one")
    one, two = weights(tmp_path / "one"), weights(root / case)
    assert list(one) == list(two)
    # the linear probe is not trained by the two: L-BFGS stops where its gradient is below 1e-7
    for name in (name for name in one if not name.startswith("/model/lp.")):
        torch.testing.assert_close(two[name], one[name], rtol=1e-6, atol=1e-6, msg=name)
    mine, theirs = (
        {name: value for name, value in without_times(row).items() if value is not None}
        for folder in (tmp_path / "one", root / case)
        for row in metrics(folder)
    )
    assert len(mine) > 8
    assert theirs == pytest.approx(mine, rel=1e-4, abs=1e-6)

    # evaluation has counted every sample once
    single, double = results(tmp_path / "one"), results(root / case)
    assert torch.equal(two["/model/cc.counts"], one["/model/cc.counts"])
    assert int(two["/model/cc.counts"].sum()) == double.num_train
    # a calibration error jumps where rounding moves a probability into the next bin, and the AUC of votes where it
    # parts two that are equal
    jumps = re.compile("error$|/reliability/|^knn/.*/macro_auc/")
    theirs, mine = (
        {name: value for name, value in leaves(scores.readouts).items() if not jumps.search(name)}
        for scores in (double, single)
    )
    assert theirs == pytest.approx(mine, abs=1e-4)
    assert leaves(double.information) == pytest.approx(leaves(single.information), rel=1e-4)
    with np.load(tmp_path / "one" / "test_outputs.npz") as a, np.load(root / case / "test_outputs.npz") as b:
        np.testing.assert_array_equal(a["labels"], b["labels"])
        np.testing.assert_allclose(a["features"], b["features"], rtol=2e-3, atol=1e-5)


def test_batch_normalization_is_one_in_two_processes(pair: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    root, ended = pair
    for case in ("plain", "average"):
        run = root / case
        assert (run / "results.json").exists(), ended.stderr[-2000:]
        information = results(run).information
        assert all(math.isfinite(getattr(information, name)) for name in information.__struct_fields__)
        assert all(math.isfinite(row["train_loss"]) for row in metrics(run))
        assert not list(run.rglob("*.partial"))
        seen = [json.loads((root / f"{case}-{rank}.json").read_text()) for rank in (0, 1)]
        # statistics of half a batch each: they differ in training and are one set wherever features are judged
        assert seen[0]["extracted"] == seen[1]["extracted"]
        assert len(seen[0]["extracted"]) >= 5
        assert seen[0]["weights"] == seen[1]["weights"]
        assert [writer["written"].count("results.json") for writer in seen] == [1, 0]
        # what is saved is what was judged
        model = load_model(run)
        features = torch.from_numpy(RunFolder(run).outputs().features).float()
        recipe = image_recipe(str(root / "images.npz"), devices=2)
        dataset = load_samples(recipe.data)
        with torch.no_grad():
            mine = model(dataset.inputs[split_of(recipe.data, dataset, seed=0).test])
        torch.testing.assert_close(features, mine, rtol=2e-3, atol=1e-3)


def test_images_in_files_train_as_those_in_memory(pair: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Each of two processes decodes its own share of a batch alone."""
    root, ended = pair
    held, lazy = (root / case for case in FOLDER_CASES)
    assert (lazy / "results.json").exists(), ended.stderr[-2000:]
    assert_same_run(held, lazy)


Pair = tuple[Path, subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("case", LOOP_CASES)
def test_every_objective_is_the_same_on_two_processes(case: str, pair: Pair, tmp_path: Path) -> None:
    root, ended = pair
    assert (root / f"{case}-1.pt").exists(), ended.stderr[-2000:]
    one = loop_of(case, 1, tmp_path / "one")
    for rank in (0, 1):
        state = torch.load(root / f"{case}-{rank}.pt", weights_only=True)
        torch.testing.assert_close(state, one, rtol=1e-9, atol=1e-9)


def test_a_signal_to_one_stops_both_after_the_same_step(pair: Pair) -> None:
    root, ended = pair
    met = [json.loads((root / f"met-{rank}.json").read_text())["signal"] for rank in (0, 1)]
    number, where, saved = met[0]
    assert met[0] == met[1]
    assert (number, saved) == (signal.SIGUSR1, True), ended.stderr[-2000:]
    assert f"epoch 2 after step {STOPPED_AT - 4}" in where
    # the network's draws go on too
    assert_same_run(root / "whole", root / "stopped")
    environment = RunFolder(root / "stopped").environment()
    assert environment["processes"] == 2
    assert len(environment["resumed"]) == 1


def test_an_error_of_all_is_told_by_the_first(pair: Pair) -> None:
    root, _ = pair
    taken = [json.loads((root / f"met-{rank}.json").read_text())["taken"] for rank in (0, 1)]
    assert "exists and is not empty" in taken[0]
    assert taken[1].startswith("ToldElsewhere")


def test_one_that_stands_still_ends_the_other(pair: Pair) -> None:
    root, ended = pair
    assert not (root / "still" / "results.json").exists()
    assert ended.returncode == PeerLost.exit_code
    assert re.search(r"rank 1 .*epoch 1, step 1", ended.stderr)
