"""The examples run as they are shipped, and reach what is said of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(1200)  # two of them take a minute of a processor of their own

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def printed(name: str, *options: str, folder: Path, **environment: str) -> list[tuple[str, list[float]]]:
    """What an example prints, run in a folder of its own: of each line its text and its numbers."""
    ended = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *options],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return [(line, [float(n) for n in re.findall(r"\d+\.\d+(?:e-?\d+)?", line)]) for line in ended.stdout.splitlines()]


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.suffix == ".py"} == {
        "cifar.py",
        "plain_loop.py",
        "scikit_learn.py",
        "slides.py",
    }


def test_plain_loop(tmp_path: Path) -> None:
    (_, [learned]), (_, [means]), (_, [cmi, separation, ncmi]) = printed("plain_loop.py", folder=tmp_path)
    assert min(learned, means) > 95
    assert ncmi == pytest.approx(cmi / separation, rel=1e-2)
    assert list(tmp_path.iterdir()) == []


def test_scikit_learn(tmp_path: Path) -> None:
    lines = printed("scikit_learn.py", folder=tmp_path)
    assert [line.split()[0] for line, _ in lines] == ["ncmi", "cross_entropy", "label_smoothing"]
    for _, (accuracy, spread) in lines:
        assert accuracy > 93
        assert 0 <= spread < 10
    assert list(tmp_path.iterdir()) == []


def test_slides(tmp_path: Path) -> None:
    options = ("--out", "here", "--scale", "0.002", "--epochs", "2")
    *readouts, (last, _) = printed("slides.py", *options, folder=tmp_path)
    assert [line.split(":")[0] for line, _ in readouts] == ["head", "cc", "lp"]
    for _, (f1, low, high, auc) in readouts:
        assert 0 <= low <= f1 <= high <= 1
        assert 0.5 < auc <= 1
    assert last == "the page: ncmi report here/run"
    assert (tmp_path / "here/run/results.json").is_file()


def test_cifar(tmp_path: Path, cifar100_dir: Path) -> None:
    options = ("--epochs", "1", "--train-per-class", "10", "--out", "here")
    lines = printed("cifar.py", *options, folder=tmp_path, NCMI_DATA=str(cifar100_dir))
    assert [line.split(":")[0] for line, _ in lines] == ["Cross-entropy", "NCMI"]
    for line, accuracies in lines:
        assert re.findall("head|cc|lp", line) == ["head", "cc", "lp"]
        # an epoch on ten images a class learns little, and a read-out never less than chance by far
        assert all(0.5 <= accuracy < 60 for accuracy in accuracies)
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["cifar-cross_entropy", "cifar-ncmi"]
