"""The command line as a user runs it, reading what it prints and what it leaves behind."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_helpers import PATIENCE, begin_ncmi, flat, ncmi, read, rows, wait_for

from ncmi.data.load import load_dataset
from ncmi.data.splits import split_dataset

QUICK = ("--training.epochs", "2", "--training.accelerator", "cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on iris."""
    folder = tmp_path_factory.mktemp("cli")
    done = ncmi("train", "iris", "--out", "run", *QUICK, cwd=folder)
    assert "epoch" in done.stdout
    assert "centroid comparison (CC)" in done.stdout
    return folder / "run"


def test_help_is_quick_and_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from ncmi.cli import main\n"
        "try: main(['compare', '--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert 'torch' not in sys.modules and 'sklearn' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "--training.learning-rate" in done.stdout
    assert "--objective.temperature" in done.stdout


def test_help_shows_the_chosen_objectives_options(tmp_path: Path) -> None:
    done = ncmi("train", "--objective", "focal", "--help", cwd=tmp_path)
    assert "--objective.gamma" in done.stdout
    assert "--objective.temperature" not in done.stdout


def test_version(tmp_path: Path) -> None:
    assert ncmi("--version", cwd=tmp_path).stdout.startswith("ncmi 0.")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "nothing-here"), "nothing-here"),
        (("train", "iris", "--objective", "typo"), "'typo'; known: ncmi,"),
        (("train", "iris", "--objective"), "--objective needs a value"),
        (("train", "iris", "--network.name", "typo"), "'typo'; known: mlp,"),
        (("train", "iris", "--objective.temperature", "-1", *QUICK), "--objective.temperature -1"),
        (("train", "iris", "--training.epochs", "-1"), "--training.epochs -1"),
        (("train", "iris", "--training.epochs", "many"), "--training.epochs"),
        (
            ("train", "iris", "--training.devices", "2", "--training.batch-size", "1"),
            "--training.batch-size 1, --training.devices 2",
        ),
        (("train", "iris", "--data.test-fraction", "0.999"), "test"),
        (("resume", "nowhere"), "nowhere"),
        (("evaluate", "nowhere"), "nowhere"),
        (("predict", "nowhere", "x.csv"), "nowhere"),
        (("measure", "nowhere.npz"), "nowhere.npz"),
        (("report", "nowhere"), "nowhere"),
        (("compare", "iris", "--objectives", "ncmi", "typo"), "'typo'; known: ncmi,"),
        (("compare", "iris", "--seeds", "0"), "one seed"),
        (("--imports", "no_such_module", "train", "iris"), "--imports no_such_module"),
    ],
)
def test_bad_input_is_told_with_exit_code_2(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = ncmi(*words, cwd=tmp_path, check=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "pip install" not in done.stderr
    assert "__" not in done.stderr
    assert not list(tmp_path.iterdir()), "nothing is left behind"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without the device")
def test_a_device_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = ncmi("train", "iris", "--training.accelerator", "cuda", cwd=tmp_path, check=2)
    assert "--training.accelerator" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_unknown_option_exits_with_2(tmp_path: Path) -> None:
    assert "Traceback" not in ncmi("train", "iris", "--no-such-option", cwd=tmp_path, check=2).stderr


def test_train_refuses_a_used_folder(run: Path) -> None:
    before = (run / "results.json").read_bytes()
    done = ncmi("train", "iris", "--out", run, *QUICK, cwd=run.parent, check=2)
    assert "choose another folder" in done.stderr
    assert (run / "results.json").read_bytes() == before


def test_evaluate_agrees_with_the_run(run: Path) -> None:
    ncmi("evaluate", run, "--json", "again.json", cwd=run.parent)
    again, first = read(run.parent / "again.json"), read(run / "results.json")
    assert flat(again["readouts"]) == pytest.approx(flat(first["readouts"]), abs=1e-6)
    assert again["information"] == pytest.approx(first["information"], rel=1e-6)


def test_predict_writes_probabilities_and_keeps_files(run: Path, tmp_path: Path) -> None:
    outputs = np.load(run / "test_outputs.npz")
    data = load_dataset("iris")
    test = split_dataset(data, seed=0).test
    assert data.feature_names is not None
    with (tmp_path / "new.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(data.feature_names)
        writer.writerows(data.inputs[test].tolist())
    ncmi("predict", run, "new.csv", "--out", "out.csv", cwd=tmp_path)
    predicted = rows(tmp_path / "out.csv")
    primary = read(run / "results.json")["primary_readouts"][0]
    expected = [data.class_names[label] for label in outputs[f"prediction_{primary}"]]
    assert list(predicted[0]) == [
        *("id", "prediction", "probability", "distance"),
        *(f"p({name})" for name in data.class_names),
    ]
    assert [row["prediction"] for row in predicted] == expected
    for row in predicted:
        probabilities = [float(value) for name, value in row.items() if name.startswith("p(")]
        assert sum(probabilities) == pytest.approx(1, abs=1e-4)
        assert float(row["probability"]) == max(probabilities)
    assert "exists" in ncmi("predict", run, "new.csv", "--out", "out.csv", cwd=tmp_path, check=2).stderr
    ncmi("predict", run, "new.csv", "--out", "out.csv", "--overwrite", "--readout", "lp", cwd=tmp_path)


def test_predict_names_missing_columns(run: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("a,b\n1,2\n")
    done = ncmi("predict", run, "new.csv", cwd=tmp_path, check=2)
    assert "new.csv" in done.stderr
    assert not (tmp_path / "predictions.csv").exists()


def test_measure_logits_and_probabilities_agree(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(60, 5)), generator.integers(0, 4, 60)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.savez(tmp_path / "logits.npz", logits=logits, labels=labels)
    np.savez(tmp_path / "p.npz", x=p, y=labels)
    ncmi("measure", "logits.npz", "--json", "a.json", cwd=tmp_path)
    ncmi("measure", "p.npz", "--json", "b.json", cwd=tmp_path)
    first, second = (read(tmp_path / name) for name in ("a.json", "b.json"))
    assert (first["values"], second["values"]) == ("logits", "probabilities")
    means = np.stack([p[labels == c].mean(0) for c in range(4)])
    cmi = np.mean([(p[i] * np.log(p[i] / means[labels[i]])).sum() for i in range(60)])
    gamma = np.mean([sum((means[c] * np.log(means[c] / p[i])).sum() for c in range(4) if c != labels[i]) / 4
                     for i in range(60)])  # fmt: skip
    for measured in (first, second):
        assert measured["information"]["cmi"] == pytest.approx(cmi, rel=1e-9)
        assert measured["information"]["separation"] == pytest.approx(gamma, rel=1e-9)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"logits": np.zeros((3, 2))}, "call the outputs"),
        ({"logits": np.zeros((3, 2)), "labels": np.zeros(4, dtype=int)}, "expected"),
        ({"logits": np.full((3, 2), np.nan), "labels": np.zeros(3, dtype=int)}, "NaN"),
        ({"probabilities": np.array([[1.0, 0.0], [0.5, 0.5]]), "labels": np.array([0, 1])}, "exactly 0"),
        ({"logits": np.zeros((3, 2)), "labels": np.array([0, -1, 1])}, "labels"),
    ],
)
def test_measure_refuses(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    done = ncmi("measure", "x.npz", cwd=tmp_path, check=2)
    assert message in done.stderr
    assert "x.npz" in done.stderr


def test_measure_refuses_pickles(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", logits=np.array([{"a": 1}], dtype=object), labels=np.array([0]))
    assert "not a readable" in ncmi("measure", "x.npz", cwd=tmp_path, check=2).stderr


def test_report_of_a_run(run: Path, tmp_path: Path) -> None:
    ncmi("report", run, "--out", tmp_path / "page.html", cwd=tmp_path)
    page = (tmp_path / "page.html").read_text()
    assert "<svg" in page
    assert "iris" in page


def test_doctor_checks_the_loss(tmp_path: Path) -> None:
    done = ncmi("doctor", cwd=tmp_path)
    assert "✓ loss and gradient" in done.stdout
    assert "✗" not in done.stdout


def write_objective(folder: Path) -> None:
    """A module with an objective of the user's own, called mine."""
    (folder / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from ncmi import ObjectiveOptions, register_objective\n"
        "@register_objective('mine')\n"
        "@dataclass(frozen=True)\n"
        "class Mine(ObjectiveOptions):\n"
        "    epsilon: float = 0.2\n"
        "    target: ClassVar[str] = 'ncmi.objectives.label_smoothing:LabelSmoothingObjective'\n"
    )


def test_user_objective_by_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write_objective(tmp_path)
    words = ("--imports", "mine", "compare", "iris", "--objectives", "cross_entropy", "mine", "--seeds", "1")
    done = ncmi(*words, "--workers", "1", "--out", "c", *QUICK, cwd=tmp_path)
    assert "mine" in done.stdout
    assert read(tmp_path / "c/runs/mine-seed0/recipe.json")["objective"]["epsilon"] == 0.2


def test_ctrl_c_leaves_a_run_that_resumes_to_the_same_result(tmp_path: Path) -> None:
    options = ("train", "digits", "--training.epochs", "12", "--training.threads", "1", "--training.accelerator", "cpu")
    ncmi(*options, "--out", "whole", cwd=tmp_path)
    process = begin_ncmi(*options, "--out", "stopped", cwd=tmp_path)
    wait_for(tmp_path / "stopped/metrics.jsonl", process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, errors
    assert "ncmi resume stopped" in errors
    assert not (tmp_path / "stopped/results.json").exists()
    ncmi("resume", "stopped", cwd=tmp_path)
    assert (tmp_path / "stopped/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def test_compare_makes_table_report_and_resumes(tmp_path: Path) -> None:
    words = ("compare", "wine", "--objectives", "cross_entropy", "ncmi", "supcon", "--seeds", "2", "--out", "c", *QUICK)
    done = ncmi(*words, cwd=tmp_path)
    for name in ("NCMI-CC", "NCMI-LP", "Cross-entropy", "SupCon-LP"):
        assert name in done.stdout
    folder = tmp_path / "c"
    results = {path.parent.name: read(path) for path in folder.glob("runs/*/results.json")}
    assert len(results) == 6
    # paired: both losses see the same split of a seed
    labels = [np.load(folder / f"runs/{name}-seed1/test_outputs.npz")["labels"] for name in ("ncmi", "cross_entropy")]
    assert np.array_equal(*labels)
    page = (folder / "report.html").read_text()
    assert "NCMI-CC" in page
    assert 'src="http' not in page
    assert "--resume" in ncmi(*words, cwd=tmp_path, check=2).stderr
    kept = (folder / "runs/ncmi-seed0/results.json").read_bytes()
    (folder / "runs/ncmi-seed1/results.json").unlink()
    ncmi(*words, "--resume", cwd=tmp_path)
    assert (folder / "runs/ncmi-seed0/results.json").read_bytes() == kept
    again = read(folder / "runs/ncmi-seed1/results.json")
    assert again["readouts"] == results["ncmi-seed1"]["readouts"]
    other = ncmi(*words, "--resume", "--training.learning-rate", "0.1", cwd=tmp_path, check=2)
    assert "give the same options" in other.stderr


def test_compare_tunes_the_rate_of_each_run_and_goes_on(tmp_path: Path) -> None:
    words = ["compare", "iris", "--objectives", "cross_entropy", "ncmi", "--seeds", "1", "--out", "c", *QUICK]
    words += ["--training.learning-rate", "0.01"]
    tuned = [*words, "--tune"]
    said = ncmi(*tuned, "--dry-run", cwd=tmp_path).stdout
    assert "each at 8 or 9 learning rates = 2 runs to keep" in said
    folder = tmp_path / "c"
    process = begin_ncmi(*tuned, "--workers", "1", cwd=tmp_path)
    wait_for(folder / "trials/cross_entropy-seed0-rate0.00390625/results.json", process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, errors
    assert not (folder / "report.html").exists()
    done = ncmi(*tuned, "--resume", cwd=tmp_path)
    assert "chosen by the accuracy of its own validation part" in " ".join(done.stdout.split())
    assert not (folder / "trials").exists()
    for name in ("ncmi", "cross_entropy"):
        run = folder / f"runs/{name}-seed0"
        tuning, recipe, results = (read(run / f"{file}.json") for file in ("tuning", "recipe", "results"))
        assert recipe["training"]["learning_rate"] == pytest.approx(0.01 * tuning["multiple"])
        assert recipe["training"]["seed"] == 0
        # the run that is kept is the trial that did best on its validation part
        assert len(tuning["tried"]) in (8, 9)
        best = max(one["score"] for one in tuning["tried"])
        assert results["readouts"]["head"]["validation"]["accuracy"]["value"] == best
    assert "learning rate, in multiples of the usual" in (folder / "report.html").read_text()
    ncmi("report", "c/runs/ncmi-seed0", cwd=tmp_path)
    assert "of the usual one, was chosen by the accuracy" in (folder / "runs/ncmi-seed0/report.html").read_text()
    assert "was begun with --tune" in ncmi(*words, "--resume", cwd=tmp_path, check=2).stderr


def test_ctrl_c_stops_a_comparison_at_once(tmp_path: Path) -> None:
    """The run in progress writes a checkpoint; the one that is next in the queue does not begin.

    Its worker, a process of its own, knows the user's objective.
    """
    write_objective(tmp_path)
    words = ("--imports", "mine", "compare", "wine", "--objectives", "mine", "ncmi", "--seeds", "2", "--workers", "1")
    process = begin_ncmi(*words, "--out", "c", "--training.epochs", "100000", cwd=tmp_path)
    run = tmp_path / "c/runs/mine-seed0"
    wait_for(run / "metrics.jsonl", process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    assert list((tmp_path / "c/runs").iterdir()) == [run]
    assert read(run / "recipe.json")["objective"]["epsilon"] == 0.2
    assert (run / "checkpoints/last.safetensors").is_file()
