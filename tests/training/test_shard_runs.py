"""Runs on shards: the same whoever reads, stopped and gone on with, with broken images; judged as what is kept is."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training_helpers import assert_same_run, disturb_generators, leaves, signal_at

pytest.importorskip("simplejpeg", reason='needs pip install "ncmi[images]"')
pytest.importorskip("cv2", reason='needs pip install "ncmi[images]"')

from ncmi.data.shards.index import read_index
from ncmi.data.shards.write import write_shards
from ncmi.errors import Interrupted
from ncmi.loss.alternating import Alternation
from ncmi.objectives.options import CrossEntropyOptions, NCMIOptions, ObjectiveOptions, SupConOptions
from ncmi.recipes import Augmentation, ImageData, Network, Recipe, Training
from ncmi.training import shards as shard_training
from ncmi.training import streams
from ncmi.training.evaluation import evaluate_run
from ncmi.training.prediction import predict
from ncmi.training.run import train
from ncmi.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    generator = np.random.default_rng(0)
    for label in range(3):
        for part, count in (("train", 24), ("test", 8)):
            (root / "folder" / part / str(label)).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 200, (20, 24, 3))
                pixels[..., label] += 40
                file = io.BytesIO()
                Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=92)
                (root / "folder" / part / str(label) / f"{number}.jpg").write_bytes(file.getvalue())
    write_shards(root / "folder", root / "shards", images_per_shard=20)
    return root / "shards"


def recipe_of(
    shards: Path,
    objective: ObjectiveOptions | None = None,
    *,
    readers: int = 0,
    broken_limit: int = 100,
    **training: object,
) -> Recipe:
    data = ImageData(str(shards), image_size=12, test_size=14, readers=readers, broken_limit=broken_limit)
    options: dict[str, object] = {"epochs": 2, "batch_size": 16, "accelerator": "cpu", "threads": 1, **training}
    varied = Augmentation(enabled=True, crop_scale=(0.4, 1.0), flip=True, noise=0.0)
    network = Network("convnet", width=4, depth=1, feature_dim=8)
    return Recipe(data, network, objective or NCMIOptions(), Training(augmentation=varied, **options))  # type: ignore[arg-type]


def same_but_for_readers(folder: Path) -> None:
    """Let a run be compared with one that other processes read for."""
    path = folder / "recipe.json"
    path.write_text(path.read_text().replace('"readers": 2', '"readers": 0'))


def test_stopped_and_gone_on_with(shards: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(recipe_of(shards, accumulate=2), whole)
    with signal_at(3), pytest.raises(Interrupted):
        train(recipe_of(shards, accumulate=2, readers=2), cut)
    disturb_generators()
    train(recipe_of(shards, accumulate=2, readers=2), cut, resume=True)
    same_but_for_readers(cut)
    assert_same_run(whole, cut)


def test_every_way_of_varying_and_setting_centroids(shards: Path, tmp_path: Path) -> None:
    colors = Augmentation.supcon()
    recipe = recipe_of(shards, SupConOptions(projection_dim=8), epochs=1)
    results = train(replace(recipe, training=replace(recipe.training, augmentation=colors)), tmp_path / "views")
    assert results.num_train + results.num_validation + results.num_test == 96
    recipe = recipe_of(
        shards, NCMIOptions(), epochs=2, alternation=Alternation("class_means"), image_sizes=(8, 12), selection="best"
    )
    assert train(recipe, tmp_path / "means").epochs == 2


def test_squares_are_cut_out(shards: Path, tmp_path: Path) -> None:
    """On the device, where crops and mirroring have been done while reading."""
    losses = []
    for cutout in (0.0, 0.5):
        recipe = recipe_of(shards, epochs=1)
        varied = replace(recipe.training.augmentation, cutout=cutout)
        train(replace(recipe, training=replace(recipe.training, augmentation=varied)), tmp_path / f"{cutout:g}")
        losses.append(RunFolder(tmp_path / f"{cutout:g}").metrics()[0].train_loss)
    assert losses[0] != losses[1]


def test_small_and_streamed_parts_are_judged_alike(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(shards, epochs=2, neighbors_limit=50)
    kept = train(recipe, tmp_path / "kept")
    again = evaluate_run(tmp_path / "kept")
    assert leaves(again.readouts) == pytest.approx(leaves(kept.readouts), abs=1e-6)
    assert leaves(again.information) == pytest.approx(leaves(kept.information), abs=1e-6)
    # as if the features of a part were too many to be kept
    monkeypatch.setattr(streams, "KEPT_VALUES", 100)
    streamed = train(recipe, tmp_path / "streamed")
    for readout in ("head", "cc"):
        assert leaves(streamed.readouts[readout].test) == pytest.approx(leaves(kept.readouts[readout].test), abs=1e-6)
    fit = streamed.readouts["lp"].fit
    assert fit is not None
    assert fit.samples == fit.available == streamed.num_train
    difference = streamed.readouts["lp"].test.accuracy.value - kept.readouts["lp"].test.accuracy.value  # type: ignore[operator]
    assert abs(difference) < 0.15
    outputs = RunFolder(tmp_path / "streamed").outputs()
    assert 0 < len(outputs.labels) < streamed.num_test == 24
    assert len(outputs.names) == len(outputs.features) == len(outputs.labels)


def test_broken_images_of_all_processes_count(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What another process has met counts at the end of an epoch, and is named with what this one has met."""
    names = read_index(str(shards)).names
    monkeypatch.setattr(shard_training, "all_rows", lambda mine, device: torch.cat((mine, torch.tensor([7, 3, 7]))))
    results = train(recipe_of(shards, epochs=1, broken_limit=2), tmp_path / "run")
    assert [item.name for item in results.skipped] == [names[3], names[7]]
    assert not caplog.records  # the one that has met them says so
    with pytest.raises(ValueError, match=r"2 broken images.*--data\.broken-limit"):
        train(recipe_of(shards, epochs=2, broken_limit=1), tmp_path / "refused")
    assert not (tmp_path / "refused" / "metrics.jsonl").exists()


def test_no_neighbors_unless_asked_for(shards: Path, tmp_path: Path) -> None:
    assert set(train(recipe_of(shards, CrossEntropyOptions(), epochs=1), tmp_path / "run").readouts) == {
        "head",
        "cc",
        "lp",
    }


def test_files_are_predicted_as_shards_are(shards: Path, tmp_path: Path) -> None:
    train(recipe_of(shards, epochs=1), tmp_path / "run")
    for name, inputs in (("files", shards.parent / "folder" / "test"), ("shards", shards)):
        predict(tmp_path / "run", inputs, tmp_path / f"{name}.csv")
    of_files, of_shards = (
        {
            row.split(",")[0].removeprefix("test/"): row.split(",")[1:]
            for row in (tmp_path / f"{name}.csv").read_text().splitlines()[1:]
        }
        for name in ("files", "shards")
    )
    assert len(of_files) == 24
    assert all(of_shards[name] == row for name, row in of_files.items())


def test_bit_rot_in_a_run(shards: Path, tmp_path: Path) -> None:
    index = read_index(str(shards))
    copy = tmp_path / "copy"
    copy.mkdir()
    rows = [int(np.flatnonzero(index.part == part)[5]) for part in (0, 2)]
    for path in shards.iterdir():
        if path.is_file():
            content = bytearray(path.read_bytes())
            for row in rows:
                if index.record.shards[index.shard[row]].name == path.name:
                    content[int(index.offset[row]) + 300] ^= 16
            (copy / path.name).write_bytes(bytes(content))
    recipe = recipe_of(copy, epochs=2)
    results = train(replace(recipe, data=replace(recipe.data, validation_fraction=0.0)), tmp_path / "run")
    assert [item.name for item in results.skipped] == [index.names[row] for row in sorted(rows)]
    assert results.readouts["head"].test.samples == 23
    with pytest.raises(ValueError, match=r"--data\.broken-limit"):
        train(recipe_of(copy, broken_limit=0), tmp_path / "refused")
    assert torch.isfinite(torch.tensor(results.information.ncmi))


@pytest.mark.long
def test_several_processes_are_one(shards: Path, tmp_path: Path) -> None:
    """By torchrun: validation after each epoch is that of one process, whoever reads which images."""
    options = "--data.image-size 12 --network.name mlp --network.width 16 --training.epochs 2 --training.batch-size 18"
    options += " --training.accelerator cpu --training.threads 1 --training.precision 64-true --data.readers 1"
    options += (
        " --training.augmentation.enabled --training.augmentation.crop-scale 0.4 1 --training.augmentation.noise 0"
    )
    losses = {}
    for processes in (1, 3):
        out = tmp_path / str(processes)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command += ["-m", "ncmi", "train", str(shards), *options.split(), "--out", str(out)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=250, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        assert done.returncode == 0, done.stderr[-2000:]
        losses[processes] = [(row.train_loss, row.validation_loss) for row in RunFolder(out).metrics()]
    assert len(losses[1]) == 2
    np.testing.assert_allclose(losses[3], losses[1], rtol=1e-10)
