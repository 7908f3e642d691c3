"""The command line as a user runs it, reading what it prints and what it leaves behind."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_helpers import Done, ncmi

QUICK = ("--training.epochs", "2", "--training.accelerator", "cpu")


def ncmi_process(*words: object, cwd: Path) -> Done:
    """Run ``python -m ncmi`` as a process of its own; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "ncmi", *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def flat(content: dict[str, Any]) -> dict[str, float]:
    """Nested results as one level, for pytest.approx."""
    return {f"{a} {b}": value for a, inner in content.items() for b, value in inner.items()}


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
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
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
        (("train", "iris", "--objective", "typo"), "unknown objective 'typo'; known: ncmi,"),
        (("train", "iris", "--objective"), "--objective needs a value"),
        (("train", "iris", "--objective.temperature", "-1", *QUICK), "temperature=-1"),
        (("train", "iris", "--training.epochs", "-1"), "epochs=-1"),
        (("train", "iris", "--data.test-fraction", "0.999"), "test"),
        (("resume", "nowhere"), "no run here"),
        (("evaluate", "nowhere"), "no run here"),
        (("predict", "nowhere", "x.csv"), "no run here"),
        (("measure", "nowhere.npz"), "does not exist"),
        (("report", "nowhere"), "neither a comparison folder"),
        (("compare", "iris", "--objectives", "ncmi", "typo"), "unknown objective 'typo'"),
        (("compare", "iris", "--seeds", "0"), "at least one objective and one seed"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = ncmi(*words, cwd=tmp_path, check=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/*")), "nothing is left behind"


def test_unknown_option_exits_with_2(tmp_path: Path) -> None:
    assert "Traceback" not in ncmi("train", "iris", "--no-such-option", cwd=tmp_path, check=2).stderr


def test_train_refuses_a_used_folder(run: Path) -> None:
    before = (run / "results.json").read_bytes()
    done = ncmi("train", "iris", "--out", run, *QUICK, cwd=run.parent, check=2)
    assert "exists and is not empty" in done.stderr
    assert (run / "results.json").read_bytes() == before


def test_evaluate_agrees_with_the_run(run: Path) -> None:
    ncmi("evaluate", run, "--json", "again.json", cwd=run.parent)
    again = json.loads((run.parent / "again.json").read_text())
    first = json.loads((run / "results.json").read_text())
    assert flat(again["readouts"]) == pytest.approx(flat(first["readouts"]), abs=1e-6)
    assert again["information"] == pytest.approx(first["information"], rel=1e-6)


def test_predict_writes_probabilities_and_keeps_files(run: Path, tmp_path: Path) -> None:
    outputs = np.load(run / "test_outputs.npz")
    from ncmi.data import load_dataset, split_dataset

    data = load_dataset("iris")
    test = split_dataset(data, seed=0).test
    assert data.feature_names is not None
    with (tmp_path / "new.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(data.feature_names)
        writer.writerows(data.inputs[test].tolist())
    ncmi("predict", run, "new.csv", "--out", "out.csv", cwd=tmp_path)
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    primary = json.loads((run / "results.json").read_text())["primary_readouts"][0]
    expected = [data.class_names[label] for label in outputs[f"prediction_{primary}"]]
    assert [row["prediction"] for row in rows] == expected
    for row in rows:
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
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert (first["values"], second["values"]) == ("logits", "probabilities")
    means = np.stack([p[labels == c].mean(0) for c in range(4)])
    cmi = np.mean([(p[i] * np.log(p[i] / means[labels[i]])).sum() for i in range(60)])
    gamma = np.mean([sum((means[c] * np.log(means[c] / p[i])).sum() for c in range(4) if c != labels[i]) / 4
                     for i in range(60)])  # fmt: skip
    for measured in (first, second):
        assert measured["cmi"] == pytest.approx(cmi, rel=1e-9)
        assert measured["separation"] == pytest.approx(gamma, rel=1e-9)


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


def test_user_objective_by_import(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from ncmi import ObjectiveOptions, register_objective\n"
        "@register_objective('mine')\n"
        "@dataclass(frozen=True)\n"
        "class Mine(ObjectiveOptions):\n"
        "    epsilon: float = 0.2\n"
        "    target: ClassVar[str] = 'ncmi.baselines.label_smoothing:LabelSmoothingObjective'\n"
    )
    words = ("--imports", "mine", "compare", "iris", "--objectives", "cross_entropy", "mine", "--seeds", "1")
    done = ncmi_process(*words, "--workers", "1", "--out", "c", *QUICK, cwd=tmp_path)
    assert "mine" in done.stdout
    assert json.loads((tmp_path / "c/runs/mine-seed0/recipe.json").read_text())["objective"]["epsilon"] == 0.2


def test_ctrl_c_leaves_a_run_that_resumes_to_the_same_result(tmp_path: Path) -> None:
    options = ("train", "digits", "--training.epochs", "12", "--training.threads", "1", "--training.accelerator", "cpu")
    ncmi_process(*options, "--out", "whole", cwd=tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "ncmi", *options, "--out", "stopped"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "stopped/metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "ncmi resume stopped" in errors
    assert not (tmp_path / "stopped/results.json").exists()
    ncmi_process("resume", "stopped", cwd=tmp_path)
    assert (tmp_path / "stopped/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def test_compare_makes_table_report_and_resumes(tmp_path: Path) -> None:
    words = ("compare", "wine", "--objectives", "cross_entropy", "ncmi", "supcon", "--seeds", "2", "--out", "c", *QUICK)
    done = ncmi(*words, cwd=tmp_path)
    for name in ("NCMI-CC", "NCMI-LP", "Cross-entropy", "SupCon-LP"):
        assert name in done.stdout
    folder = tmp_path / "c"
    results = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("runs/*/results.json")}
    assert len(results) == 6
    # paired: both losses see the same split of a seed
    labels = [np.load(folder / f"runs/{name}-seed1/test_outputs.npz")["labels"] for name in ("ncmi", "cross_entropy")]
    assert np.array_equal(*labels)
    page = (folder / "report.html").read_text()
    assert "NCMI-CC" in page
    assert 'src="http' not in page
    assert "exists and is not empty" in ncmi(*words, cwd=tmp_path, check=2).stderr
    kept = (folder / "runs/ncmi-seed0/results.json").read_bytes()
    (folder / "runs/ncmi-seed1/results.json").unlink()
    ncmi(*words, "--resume", cwd=tmp_path)
    assert (folder / "runs/ncmi-seed0/results.json").read_bytes() == kept
    again = json.loads((folder / "runs/ncmi-seed1/results.json").read_text())
    assert again["readouts"] == results["ncmi-seed1"]["readouts"]
    other = ncmi(*words, "--resume", "--training.learning-rate", "0.1", cwd=tmp_path, check=2)
    assert "by another recipe: give the same options" in other.stderr


def test_ctrl_c_stops_a_comparison_at_once(tmp_path: Path) -> None:
    """The run in progress writes a checkpoint; the one that is next in the queue does not begin."""
    words = ("compare", "wine", "--objectives", "cross_entropy", "ncmi", "focal", "--seeds", "2", "--workers", "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "ncmi", *words, "--out", "c", "--training.epochs", "100000"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal's Ctrl-C reaches the whole group, and not this test
    )
    metrics = tmp_path / "c/runs/cross_entropy-seed0/metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "a comparison with the same command and --resume" in errors
    assert [path.name for path in (tmp_path / "c/runs").iterdir()] == ["cross_entropy-seed0"]
    assert (tmp_path / "c/runs/cross_entropy-seed0/checkpoints/last.safetensors").is_file()
