"""Damaged training parts and the losses for them, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_helpers import flat, ncmi, read

QUICK = ("--training.epochs", "1", "--training.accelerator", "cpu", "--training.threads", "1")


def test_train_and_evaluate_on_noisy_labels(tmp_path: Path) -> None:
    words = ("--data.label-noise", "0.4", "--data.noise-kind", "pair", "--data.imbalance", "10")
    ncmi("train", "digits", *words, "--out", "run", *QUICK, cwd=tmp_path)
    data = read(tmp_path / "run/recipe.json")["data"]
    assert (data["label_noise"], data["noise_kind"], data["imbalance"]) == (0.4, "pair", 10.0)
    first = read(tmp_path / "run/results.json")
    assert first["num_train"] < 600  # of 1168
    ncmi("evaluate", "run", "--json", "again.json", cwd=tmp_path)
    again = read(tmp_path / "again.json")
    assert flat(again["readouts"]) == pytest.approx(flat(first["readouts"]), abs=1e-6)


def test_help_tells_the_options(tmp_path: Path) -> None:
    told = ncmi("train", "--help", cwd=tmp_path).stdout
    for option in ("--data.label-noise", "--data.noise-kind", "--data.imbalance"):
        assert option in told
    told = ncmi("train", "--objective", "cross_entropy", "--help", cwd=tmp_path).stdout
    for option in ("--objective.weight", "--objective.logit-adjustment"):
        assert option in told


@pytest.mark.parametrize(
    "words",
    [
        ("--objective", "generalized_cross_entropy", "--objective.q", "0.5"),
        ("--objective", "symmetric_cross_entropy", "--objective.alpha", "6", "--objective.beta", "0.1"),
        ("--objective", "cross_entropy", "--objective.weight", "balanced"),
        ("--objective", "cross_entropy", "--objective.logit-adjustment", "1"),
    ],
)
def test_losses_by_name(words: tuple[str, ...], tmp_path: Path) -> None:
    ncmi("train", "iris", *words, "--out", "run", *QUICK, cwd=tmp_path)
    written = read(tmp_path / "run/recipe.json")["objective"]
    assert written["name"] == words[1]
    option = words[2].removeprefix("--objective.").replace("-", "_")
    assert str(written[option]).removesuffix(".0") == words[3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data.label-noise", "40"), "--data.label-noise 40"),
        (("--data.imbalance", "0.01"), "--data.imbalance 0.01: must be at least 1"),
        (("--objective", "generalized_cross_entropy", "--objective.q", "0"), "--objective.q 0"),
        (("--objective", "symmetric_cross_entropy", "--objective.alpha", "-1"), "--objective.alpha -1"),
        (("--objective", "cross_entropy", "--objective.logit-adjustment", "-1"), "--objective.logit-adjustment -1"),
    ],
)
def test_wrong_values(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = ncmi("train", "iris", *words, *QUICK, cwd=tmp_path, check=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_unknown_kind(tmp_path: Path) -> None:
    ncmi("train", "iris", "--data.noise-kind", "typo", *QUICK, cwd=tmp_path, check=2)
    assert list(tmp_path.iterdir()) == []
