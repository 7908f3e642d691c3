"""The examples run as they are shipped, and reach what is said of them."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


Printed = Callable[..., list[tuple[str, list[float]]]]


@pytest.fixture
def printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Printed:
    """What an example prints, run as a program in a folder of its own: of each line its text and its numbers."""

    def run(name: str, *options: str) -> list[tuple[str, list[float]]]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *options])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        lines = capsys.readouterr().out.splitlines()
        return [(line, [float(n) for n in re.findall(r"\d+\.\d+(?:e-?\d+)?", line)]) for line in lines]

    return run


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.suffix == ".py"} == {
        "cifar.py",
        "plain_loop.py",
        "scikit_learn.py",
        "slides.py",
    }


def test_plain_loop(printed: Printed, tmp_path: Path) -> None:
    (_, [learned]), (_, [means]), (_, [cmi, separation, ncmi]) = printed("plain_loop.py")
    assert min(learned, means) > 95
    assert ncmi == pytest.approx(cmi / separation, rel=1e-2)
    assert list(tmp_path.iterdir()) == []


def test_scikit_learn(printed: Printed, tmp_path: Path) -> None:
    lines = printed("scikit_learn.py")
    assert [line.split()[0] for line, _ in lines] == ["ncmi", "cross_entropy", "label_smoothing"]
    for _, (accuracy, spread) in lines:
        assert accuracy > 93
        assert 0 <= spread < 10
    assert list(tmp_path.iterdir()) == []


def test_slides(printed: Printed, tmp_path: Path) -> None:
    options = ("--out", "here", "--scale", "0.002", "--epochs", "2")
    *readouts, (last, _) = printed("slides.py", *options)
    assert [line.split(":")[0] for line, _ in readouts] == ["head", "cc", "lp"]
    for _, (f1, low, high, auc) in readouts:
        assert 0 <= low <= f1 <= high <= 1
        assert 0.5 < auc <= 1
    assert last == "the page: ncmi report here/run"
    assert (tmp_path / "here/run/results.json").is_file()


def accuracies_of(lines: list[tuple[str, list[float]]], folder: Path) -> list[list[float]]:
    """Of cross-entropy and NCMI those of head, CC and LP, where all is said and written that should be."""
    assert [line.split(":")[0] for line, _ in lines] == ["Cross-entropy", "NCMI"]
    assert all(re.findall("head|cc|lp", line) == ["head", "cc", "lp"] for line, _ in lines)
    assert sorted(path.name for path in (folder / "here").iterdir()) == ["cifar-cross_entropy", "cifar-ncmi"]
    return [accuracies for _, accuracies in lines]


def test_cifar(printed: Printed, tmp_path: Path, tiny_cifar100: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCMI_DATA", str(tiny_cifar100))
    lines = printed("cifar.py", "--epochs", "1", "--train-per-class", "2", "--out", "here")
    for _, means, probe in accuracies_of(lines, tmp_path):
        assert min(means, probe) > 50  # each class has its color; the head has learned for two steps alone


@pytest.mark.long
@pytest.mark.timeout(1200)  # it judges 15,000 images twice
def test_cifar_on_the_real_data(
    printed: Printed, tmp_path: Path, cifar100_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NCMI_DATA", str(cifar100_dir))
    lines = printed("cifar.py", "--epochs", "1", "--train-per-class", "10", "--out", "here")
    for accuracies in accuracies_of(lines, tmp_path):
        # an epoch on ten images a class learns little, and a read-out never less than chance by far
        assert all(0.5 <= accuracy < 60 for accuracy in accuracies)
