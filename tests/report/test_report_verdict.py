"""The sentences say what the numbers say, and by which read-out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import FIXED, set_results, write_bag_comparison, write_bag_run, write_comparison
from scipy import stats

from ncmi.report.records import Comparison, ReportError, read_comparison, read_run
from ncmi.report.statistics import Row, comparison_rows
from ncmi.report.text import SIMULATION
from ncmi.report.verdict import run_verdict, verdict
from ncmi.training.schema import TUNING, TriedRate, TuningRecord, memorized_in_words, write_record

NewComparison = Callable[..., Path]
QUICK: dict[str, Any] = {"patients": 25, "resamples": 0, "attention": 0, "epochs": 2}
READOUTS = ("head", "cc", "lp")


def sentences_of(folder: Path) -> list[str]:
    record = read_comparison(folder)
    return verdict(record, comparison_rows(record))


def comparison_with(
    new_comparison: NewComparison,
    ncmi: list[float],
    base: list[float],
    readouts: tuple[str, ...] = READOUTS,
    **options: object,
) -> Path:
    """Give NCMI and cross-entropy these accuracies by these read-outs."""
    folder = new_comparison(seeds=range(len(ncmi)), **options)
    for objective, values in (("ncmi", ncmi), ("cross_entropy", base)):
        for seed, value in enumerate(values):
            for readout in readouts:
                set_results(folder / f"runs/{objective}-seed{seed}", readout, accuracy=value)
    return folder


def test_above_but_not_distinguishable(new_comparison: NewComparison) -> None:
    folder = comparison_with(new_comparison, [0.97, 0.98, 0.96], [0.965, 0.965, 0.965])
    interval = stats.ttest_1samp([0.5, 1.5, -0.5], 0).confidence_interval()
    sentences = sentences_of(folder)
    assert sentences[0] == (
        "By the trained head NCMI is above CE by +0.50 points "
        f"(95 % interval −{-interval.low:.2f} … +{interval.high:.2f}, 3 paired seeds): "
        "not distinguishable from zero."
    )
    # CC and LP say the same: once is enough
    assert sentences[1].startswith("Highest mean accuracy: by the trained head NCMI (97.00 %, of 2 rows); by CC NCMI")


@pytest.mark.parametrize(
    ("ncmi", "expected"),
    [
        ([0.98, 0.981, 0.979], "is above CE by +1.50 points (95 % interval +1.25 … +1.75"),
        ([0.95, 0.951, 0.949], "is below CE by 1.50 points (95 % interval −1.75 … −1.25"),
    ],
)
def test_distinguishable(new_comparison: NewComparison, ncmi: list[float], expected: str) -> None:
    sentence = sentences_of(comparison_with(new_comparison, ncmi, [0.965] * 3))[0]
    assert expected in sentence
    assert sentence.endswith("3 paired seeds): distinguishable from zero.")


def test_equal_means(new_comparison: NewComparison) -> None:
    sentence = sentences_of(comparison_with(new_comparison, [0.96, 0.97], [0.97, 0.96]))[0]
    assert sentence.startswith("By the trained head NCMI equals CE in the mean (0.00 points)")
    assert sentence.endswith("not distinguishable from zero.")


def test_readouts_that_differ_have_a_sentence_each(new_comparison: NewComparison) -> None:
    folder = comparison_with(new_comparison, [0.97, 0.98, 0.96], [0.965] * 3)
    for seed in range(3):
        set_results(folder / f"runs/ncmi-seed{seed}", "lp", accuracy=0.95)
    sentences = sentences_of(folder)
    assert sentences[0].startswith("By the trained head NCMI is above CE by +0.50 points")
    assert sentences[1].startswith("By LP NCMI is below CE by 1.50 points")
    assert sentences[2].startswith("Highest mean accuracy: by the trained head NCMI (97.00 %, of 2 rows)")
    assert "by LP CE (96.50 %" in sentences[2]


def test_a_first_readout_that_is_not_the_head_is_named(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "c", ("ncmi", "cross_entropy"), (0, 1), options=FIXED)
    for name in ("ncmi", "cross_entropy"):
        for seed in (0, 1):
            set_results(folder / f"runs/{name}-seed{seed}", "cc", accuracy=0.9 + 0.01 * seed)
            set_results(folder / f"runs/{name}-seed{seed}", "lp", accuracy=0.9 if name == "ncmi" else 0.91)
            set_results(folder / f"runs/{name}-seed{seed}", "head", accuracy=0.1)
    sentences = sentences_of(folder)
    assert sentences[0].startswith("By CC, its own first read-out, NCMI equals CE in the mean (0.00 points)")
    assert sentences[1].startswith("By LP NCMI is below CE by 1.00 points")


def test_one_seed_concludes_nothing(new_comparison: NewComparison) -> None:
    sentences = sentences_of(comparison_with(new_comparison, [0.99], [0.9]))
    assert sentences[0] == (
        "By the trained head NCMI is above CE by +9.00 points (1 paired seed): one pair has no interval, "
        "so nothing can be concluded about other seeds."
    )
    assert "One seed has no interval over seeds: nothing can be concluded about other seeds." in sentences


def test_equal_differences_are_called_too_coarse(new_comparison: NewComparison) -> None:
    sentence = sentences_of(comparison_with(new_comparison, [0.75, 0.5], [0.5, 0.25]))[0]
    assert sentence.endswith("all seeds agree exactly, too coarse a measurement for an interval.")


def test_the_rest_of_the_verdict(full_record: Comparison, full_rows: tuple[Row, ...]) -> None:
    sentences = verdict(full_record, full_rows)
    assert sentences[1].startswith("By CC NCMI is ")
    assert sentences[2].startswith("By LP NCMI is ")
    assert sentences[3].startswith("Highest mean accuracy: by the trained head ")
    assert "2 with missing seeds left out" in sentences[3]
    assert sentences[3].endswith("; the highest of many is in part the luckiest.")
    assert (
        "Of the other methods, each against CE by the same read-out, SupCon-LP is distinguishably below it."
        in sentences
    )
    assert "Without a trained head of its own, and so not judged by one: SupCon." in sentences
    # 11 by the head, 12 by CC and 12 by LP
    assert any("not corrected for there being 35 of them" in sentence for sentence in sentences)
    assert sentences[-2:] == [
        "The test set has 360 samples: one sample more or less is 0.28 points.",
        "2 runs not finished, and left out.",
    ]


def test_without_baseline(new_comparison: NewComparison) -> None:
    sentences = sentences_of(new_comparison(["ncmi", "focal"], seeds=range(2)))
    assert sentences[0].startswith("No run of the baseline (Cross-entropy) has finished")


def test_without_ncmi_the_best_other_row_is_judged(new_comparison: NewComparison) -> None:
    sentences = sentences_of(new_comparison(["cross_entropy", "focal"], seeds=range(2)))
    assert sentences[0].startswith("By the trained head Focal ")


def test_without_a_common_seed(new_comparison: NewComparison) -> None:
    folder = new_comparison(seeds=range(2), missing=[("ncmi", 0), ("cross_entropy", 1)])
    assert sentences_of(folder)[0] == (
        "By the trained head NCMI has no run with a seed and split of CE: there is nothing to compare."
    )


# --- bags


def test_the_verdict_on_several_networks_counts_what_the_rows_hold(tmp_path: Path) -> None:
    folder = write_bag_comparison(
        tmp_path / "c", ("abmil", "asmil"), prefix="patient", missing=["asmil-ncmi-seed1"], **QUICK
    )
    record = read_comparison(folder)
    rows = comparison_rows(record)
    sentences = verdict(record, rows)
    for sentence, readout, by in zip(sentences, READOUTS, ("by the trained head", "by CC", "by LP"), strict=False):
        differences = [
            row.scores["macro_f1"].difference for row in rows if row.readout == readout and not row.is_baseline
        ]
        means = [one.mean for one in differences if one]
        mean = np.mean(means)
        sign = "+" if mean > 0 else "−"
        assert sentence.startswith(
            f"NCMI against CE, {by}: macro F1 is higher with {sum(one > 0 for one in means)} of 2 networks, by "
            f"{sign}{abs(mean):.3f} in the mean ("
        )
    assert "1 run not finished, and left out." in sentences
    assert any("not corrected for there being 12 of them" in sentence for sentence in sentences)
    assert not any("Simulation" in sentence for sentence in sentences)


def test_one_seed_of_bags_concludes_nothing_about_seeds(tmp_path: Path) -> None:
    sentences = sentences_of(write_bag_comparison(tmp_path / "c", ("abmil", "aem"), seeds=(0,), **QUICK))
    assert "One seed has no interval over seeds: nothing can be concluded about other seeds." in sentences
    assert "distinguishab" not in " ".join(sentences)


def test_a_simulation_is_called_one_after_the_headline(tmp_path: Path) -> None:
    sentences = sentences_of(write_bag_comparison(tmp_path / "c", ("abmil",), seeds=(0, 1), simulation=True, **QUICK))
    assert sentences[0].startswith("By the trained head NCMI is ")
    assert " in macro F1 (95 % interval" in sentences[0]
    assert " in macro AUC (95 % interval" in sentences[0]
    assert sentences[1] == SIMULATION


def test_bags_without_the_baseline(tmp_path: Path) -> None:
    sentences = sentences_of(write_bag_comparison(tmp_path / "c", ("abmil",), ("ncmi",), seeds=(0, 1), **QUICK))
    assert sentences[0].startswith("No run of the baseline (Cross-entropy) has finished")


# --- runs


def test_a_single_run(new_run: Callable[..., Path]) -> None:
    folder = new_run("ncmi", 2)
    readouts = read_run(folder).finished.readouts
    head, cc, lp = (f"{100 * (readouts[name].test.accuracy.value or 0):.2f} %" for name in READOUTS)
    assert run_verdict(read_run(folder))[0] == (
        f"Test accuracy on digits, seed 2: {head} (NCMI), {cc} (NCMI-CC), {lp} (NCMI-LP)."
    )
    unfinished = run_verdict(read_run(new_run("focal", 0, stopped_after=4)))
    assert unfinished == ["This run is not finished: it stopped after epoch 4 of 20. There are no test results yet."]


def test_a_single_run_on_bags(tmp_path: Path) -> None:
    run = read_run(
        write_bag_run(tmp_path / "r", skipped=[("lost", "none")], **(QUICK | {"resamples": 50, "patients": 100}))
    )
    sentences = run_verdict(run)
    test = run.finished.readouts["head"].test
    f1, auc = test.macro_f1, test.macro_auc
    assert sentences[0] == (
        f"ABMIL with NCMI reaches macro F1 {f1.value:.3f} (95 % interval {f1.low:.3f} … {f1.high:.3f}) and macro AUC "
        f"{auc.value:.3f} ({auc.low:.3f} … {auc.high:.3f}) on 200 test slides of 40 patients."
    )
    text = " ".join(sentences)
    assert "Without looking at any slide, AUC is 0.500" in text
    assert "Read out otherwise, macro F1 and macro AUC are: CC 0." in text
    assert "1 slide could not be used and took no part" in text
    assert sentences[-1].startswith("One run says nothing about the spread over seeds")
    fold = run_verdict(read_run(write_bag_run(tmp_path / "f", folds=3, fold=1, simulation=True, **QUICK)))
    assert fold[1] == SIMULATION
    assert "This is fold 2 of 3: the result is that of all folds together." in fold


def with_losses(folder: Path, losses: list[float]) -> None:
    """Give a run these log-losses of its validation part, epoch by epoch."""
    path = folder / "metrics.jsonl"
    first = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    rows = [first | {"epoch": epoch, "validation_loss": loss} for epoch, loss in enumerate(losses, 1)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0.7, 0.4, 0.6, 0.9], "lowest after epoch 2 (0.4) and is 0.9 at the end"),
        ([0.7, 0.4, 0.6, 0.79], ""),
        ([0.1, 0.05, 0.15], ""),  # twice and more, of nearly nothing
        ([0.9, 0.4], ""),
    ],
)
def test_a_network_that_memorizes_is_told(
    losses: list[float], expected: str, new_comparison: NewComparison, tmp_path: Path
) -> None:
    folder = new_comparison(seeds=range(2))
    for seed in range(2):
        with_losses(folder / f"runs/cross_entropy-seed{seed}", [0.5])
        with_losses(folder / f"runs/ncmi-seed{seed}", losses if seed == 0 else [0.5])
    of_run = [one for one in run_verdict(read_run(folder / "runs/ncmi-seed0")) if "memorize" in one]
    of_all = [one for one in sentences_of(folder) if "memorize" in one]
    assert len(of_run) == len(of_all) == bool(expected)
    if expected:
        assert expected in of_run[0]
        assert of_all[0].startswith("In 1 of 4 runs")
        # one of five is no rule
        losses_of = [[0.5]] * 4 + [losses]
        assert memorized_in_words(losses_of[1:])
        assert not memorized_in_words(losses_of)
    # where the best epoch is judged, what comes later does not count
    path = folder / "runs/ncmi-seed0" / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"selection": "best"}), encoding="utf-8")
    assert not [one for one in run_verdict(read_run(folder / "runs/ncmi-seed0")) if "memorize" in one]


def test_rates_that_were_searched_are_told(new_comparison: NewComparison) -> None:
    folder = new_comparison(seeds=range(2))
    assert not [one for one in sentences_of(folder) if "learning rate" in one and "chosen" in one]
    for name, seed, multiple in (("ncmi", 0, 1 / 64), ("ncmi", 1, 1.0), ("cross_entropy", 0, 2.0)):
        run = folder / f"runs/{name}-seed{seed}"
        with_losses(run, [0.7, 0.4, 0.9])
        tried = [TriedRate(multiple=multiple, score=0.5)]
        record = TuningRecord(metric="macro_f1", multiple=multiple, at_end=False, tried=tried)
        write_record(run / TUNING, record)
    with_losses(folder / "runs/cross_entropy-seed1", [0.5])
    (one,) = [one for one in sentences_of(folder) if "chosen" in one]
    assert "learning rates of 3 of 4 runs were chosen by the macro F1" in one
    assert "NCMI ×1/64 to ×1, median ×1/64; Cross-entropy ×2." in one
    # no advice to search for what has been searched
    assert not [one for one in sentences_of(folder) if "memorize" in one]
    (own,) = [one for one in run_verdict(read_run(folder / "runs/cross_entropy-seed0")) if "chosen" in one]
    assert own.startswith("Its learning rate, ×2 of the usual one, was chosen")
    (folder / "runs/ncmi-seed0" / TUNING).write_text("{")
    with pytest.raises(ReportError, match=r"tuning\.json: damaged"):
        read_comparison(folder)
