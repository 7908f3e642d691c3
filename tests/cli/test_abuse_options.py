"""Wrong options and values at the command line: one line that names the option as it is typed, and nothing left."""

from __future__ import annotations

from pathlib import Path

import pytest
from abuse_helpers import QUICK, refused
from cli_helpers import ncmi

from ncmi.cli.options import as_spelled, as_typed, nearest

VALUES = [
    ("--training.learning-rate", "-1", "--training.learning-rate -1"),
    ("--training.learning-rate", "0", "--training.learning-rate 0"),
    ("--training.learning-rate", "nan", "--training.learning-rate"),
    ("--training.learning-rate", "fast", "'fast' is no number"),
    ("--training.epochs", "-1", "--training.epochs -1"),
    ("--training.epochs", "1.5", "no whole number"),
    ("--training.epochs", "many", "--training.epochs"),
    ("--training.batch-size", "-3", "--training.batch-size -3"),
    ("--training.batch_size", "-3", "--training.batch-size -3"),
    ("--training.momentum", "1", "--training.momentum 1"),
    ("--training.weight-decay", "-0.1", "--training.weight-decay"),
    ("--training.optimizer", "adam", "adamw"),
    ("--training.schedule", "triangular", "cosine"),
    ("--training.precision", "16", "32-true"),
    ("--training.accelerator", "tpu", "cpu"),
    ("--training.devices", "0", "--training.devices 0"),
    ("--training.threads", "0", "--training.threads 0"),
    ("--training.clip-norm", "0", "--training.clip-norm 0"),
    ("--training.ema-decay", "1", "--training.ema-decay 1"),
    ("--training.patience", "0", "--training.patience 0"),
    ("--training.seed", "-1", "--training.seed -1"),
    ("--training.checkpoint-seconds", "-1", "--training.checkpoint-seconds"),
    ("--training.warmup-epochs", "-1", "--training.warmup-epochs"),
    ("--training.augmentation.rotation", "999", "--training.augmentation.rotation 999"),
    ("--training.augmentation.hue", "2", "--training.augmentation.hue 2"),
    ("--training.alternation.network-steps", "0", "network"),
    ("--objective.temperature", "0", "--objective.temperature"),
    ("--objective.temperature", "-inf", "--objective.temperature"),
    ("--objective.form", "best", "likelihood"),
    ("--objective.robustness", "2", "--objective.robustness"),
    ("--objective.label-smoothing", "7", "--objective.label-smoothing 7"),
    ("--objective.center-decay", "1", "--objective.center-decay"),
    ("--network.width", "-1", "--network.width -1"),
    ("--network.width", "10000000", "not enough memory"),
    ("--network.width", "99999999999999", "memory"),
    ("--network.depth", "-1", "--network.depth"),
    ("--network.dropout", "1", "--network.dropout 1"),
    ("--network.name", "resnet-9000", "resnet9"),
    ("--network.weights", "nowhere.pth", "nowhere.pth"),
    ("--data.validation-fraction", "1", "--data.validation-fraction 1"),
    ("--data.test-fraction", "-0.5", "--data.test-fraction"),
    ("--data.test-fraction", "0.999", "test"),
    ("--data.label-noise", "40", "--data.label-noise 40"),
    ("--data.noise-kind", "typo", "symmetric"),
    ("--data.imbalance", "0.01", "--data.imbalance"),
    ("--data.train-per-class", "0", "--data.train-per-class 0"),
    ("--data.split-seed", "-1", "--data.split-seed -1"),
    ("--data.folds", "1", "--data.folds 1"),
    ("--data.fold", "5", "--data.fold"),
]
WORDS = [
    (("train", "iris", "--epochs", "3"), "--training.epochs"),
    (("train", "iris", "--learning-rate", "0.1"), "--training.learning-rate"),
    (("train", "iris", "--training.epochz", "3"), "did you mean --training.epochs"),
    (("train", "iris", "--no-such-option"), "--no-such-option"),
    (("train", "iris", "--objective.gamma", "2"), "--objective.gamma"),
    (("train", "iris", "extra"), "extra"),
    (("train", "iris", "--training.epochs"), "--training.epochs"),
    (("train",), "missing"),
    (("predict", "run"), "missing"),
    (("trian", "iris"), "did you mean train"),
    (("train", "irsi"), "irsi"),
    (("train", ""), "data"),
    (("train", "x" * 5000), "name"),
    (("train", "iris", "--out", "x" * 5000, *QUICK), "name"),
    (("train", "bad\0name"), "\\x00"),
    (("train", "iris", "--out", "bad\0name", *QUICK), "null"),
    (("train", "iris\x1b[31m"), "\\x1b[31m"),
    (("train", "iris", "--objective", "typo"), "cross_entropy"),
    (("train", "iris", "--objective"), "--objective needs a value"),
    (("train", "iris", "--objective", "--quiet"), "--objective needs a value"),
    (("train", "--recipe", "typo"), "cifar100.small"),
    (("train", "wine", "--recipe", "cifar100.small"), "--recipe"),
    (("evaluate", "run", "--objective", "focal"), "--objective does not go with evaluate"),
    (("report", "run", "--dry-run"), "--dry-run does not go with report"),
    (("--imports", "no_such_module", "train", "iris"), "no_such_module"),
    (("--imports", "../up", "train", "iris"), "--imports"),
    (("--imports", "", "train", "iris"), "--imports"),
    (("compare", "iris", "--objectives", "ncmi", "typo"), "typo"),
    (("compare", "iris", "--objectives", "ncmi", "ncmi"), "ncmi"),
    (("compare", "iris", "--networks", "typo", "--seeds", "1"), "typo"),
    (("compare", "iris", "--seeds", "0"), "seed"),
    (("compare", "iris", "--seeds", "-2"), "seed"),
    (("compare", "iris", "--seeds", "1", "--network.weights", "nowhere.pth"), "nowhere.pth"),
    (("compare", "iris", "--seeds", "1", "--data.test-fraction", "0.999"), "test"),
    (("compare", "iris", "--seeds", "1", "--resume"), "--resume"),
    (("compare", "nowhere.csv"), "nowhere.csv"),
    (("reproduce", "table9"), "table1"),
    (("reproduce", "table1", "--only", "typo"), "typo"),
    (("reproduce", "table1", "--data-dir", "nowhere"), "nowhere"),
    (("reproduce", "table3"), "CAMELYON"),
    (("resume", "nowhere"), "nowhere"),
    (("resume", "nowhere", "--epochs", "5"), "nowhere"),
    (("evaluate", "nowhere"), "nowhere"),
    (("predict", "nowhere", "x.csv"), "nowhere"),
    (("report", "nowhere"), "nowhere"),
    (("measure", "nowhere.npz"), "nowhere.npz"),
    (("measure", "nowhere.npz", "--values", "typo"), "logits"),
    (("slides", "typo"), "tile"),
    (("slides", "tile", "nowhere"), "nowhere"),
    (("slides", "check", "nowhere"), "nowhere"),
    (("--print-completion", "powershell"), "bash"),
    (("--print-completion",), "--print-completion"),
]


@pytest.mark.parametrize(("option", "value", "says"), VALUES)
def test_values_out_of_range(option: str, value: str, says: str, tmp_path: Path) -> None:
    refused("train", "iris", *QUICK, option, value, cwd=tmp_path, says=says)


@pytest.mark.parametrize(("words", "says"), WORDS, ids=range(len(WORDS)))
def test_words_that_make_no_command(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    refused(*words, cwd=tmp_path, says=says)


def test_what_stands_against_many_runs_is_said_once(tmp_path: Path) -> None:
    words = ("compare", "iris", "--objectives", "ncmi", "cross-entropy", "focal", "--seeds", "3", *QUICK)
    done = refused(*words, "--network.weights", "nowhere.pth", "--out", "c", cwd=tmp_path, says="9 of 9 runs")
    assert done.stderr.count("nowhere.pth") == 1


def test_hyphens_and_underscores_are_one(tmp_path: Path) -> None:
    for name in ("cross-entropy", "cross_entropy"):
        words = ("--objective", name, "--training.schedule", "one-cycle", "--training.batch_size", "16")
        done = ncmi("train", "breast-cancer", *words, "--dry-run", cwd=tmp_path)
        assert "objective cross_entropy" in done.stdout
    assert as_spelled("log-probabilities", ["logits", "log_probabilities"]) == "log_probabilities"
    assert as_spelled("ncmi_released", ["ncmi-released"]) == "ncmi-released"
    assert as_spelled("other-thing", ["ncmi"]) == "other-thing"


def test_messages_name_options_as_they_are_typed() -> None:
    options = {"--training.clip-norm": (), "--training.epochs": (), "--data.epochs": (), "--data.train-on-all": ()}
    assert as_typed("clip gradients (clip_norm=1)", options) == "clip gradients (--training.clip-norm 1)"
    assert as_typed("epochs=0", options, "data") == "--data.epochs 0"
    assert as_typed("train_on_all leaves nothing", options) == "--data.train-on-all leaves nothing"
    # words, columns in quotes and paths are no options
    for plain in (
        "write numpy.savez(clip_norm=…, epochs=(1, 2))",
        *("all epochs are done", "'clip_norm'", "runs/clip_norm/x", "clip_norm.csv: damaged", "no such=1"),
    ):
        assert as_typed(plain, options) == plain


def test_the_nearest_option_is_found() -> None:
    known = ["--training.epochs", "--training.learning-rate", "--data.label-column"]
    assert "--training.learning-rate?" in nearest("--lr-learning-rate", known) or nearest("--lerning-rate", known)
    assert nearest("--label_column", known) == ": did you mean --data.label-column?"
    assert nearest("--xyzzy", known) == ""


@pytest.mark.parametrize("verb", ["train", "compare"])
def test_help_shows_what_decides_the_other_options(verb: str, tmp_path: Path) -> None:
    told = ncmi(verb, "--help", cwd=tmp_path).stdout
    for option in ("--objective", "--recipe", "--imports", "--config", "--dry-run", "--quiet", "cross_entropy"):
        assert option in told
    assert "--dry-run" not in ncmi("report", "--help", cwd=tmp_path).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(shell: str, tmp_path: Path) -> None:
    assert "--training.learning-rate" in ncmi("--print-completion", shell, cwd=tmp_path).stdout
