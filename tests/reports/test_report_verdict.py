"""The sentences say what the numbers say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy import stats

from ncmi.reports import read_comparison, read_run
from ncmi.reports.verdict import run_verdict, verdict

NewComparison = Callable[..., Path]


def comparison_with(new_comparison: NewComparison, ncmi: list[float], base: list[float], **options: object) -> Path:
    """Give the CC read-out of NCMI and the head of cross-entropy these accuracies."""
    folder = new_comparison(seeds=range(len(ncmi)), **options)
    for objective, readout, values in (("ncmi", "cc", ncmi), ("cross_entropy", "head", base)):
        for seed, value in enumerate(values):
            path = folder / f"runs/{objective}-seed{seed}/results.json"
            content = json.loads(path.read_text(encoding="utf-8"))
            content["readouts"][readout]["test_accuracy"] = value
            path.write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_above_but_not_distinguishable(new_comparison: NewComparison) -> None:
    folder = comparison_with(new_comparison, [0.97, 0.98, 0.96], [0.965, 0.965, 0.965])
    interval = stats.ttest_1samp([0.5, 1.5, -0.5], 0).confidence_interval()
    assert verdict(read_comparison(folder))[0] == (
        "NCMI-CC is above cross-entropy by +0.50 points "
        f"(95 % interval −{-interval.low:.2f} … +{interval.high:.2f}, 3 paired seeds): "
        "not distinguishable from zero."
    )


@pytest.mark.parametrize(
    ("ncmi", "expected"),
    [
        ([0.98, 0.981, 0.979], "is above cross-entropy by +1.50 points (95 % interval +1.25 … +1.75"),
        ([0.95, 0.951, 0.949], "is below cross-entropy by 1.50 points (95 % interval −1.75 … −1.25"),
    ],
)
def test_distinguishable(new_comparison: NewComparison, ncmi: list[float], expected: str) -> None:
    sentence = verdict(read_comparison(comparison_with(new_comparison, ncmi, [0.965] * 3)))[0]
    assert expected in sentence
    assert sentence.endswith("3 paired seeds): distinguishable from zero.")


def test_equal_means(new_comparison: NewComparison) -> None:
    sentence = verdict(read_comparison(comparison_with(new_comparison, [0.96, 0.97], [0.97, 0.96])))[0]
    assert sentence.startswith("NCMI-CC equals cross-entropy in the mean (0.00 points)")
    assert sentence.endswith("not distinguishable from zero.")


def test_one_seed_concludes_nothing(new_comparison: NewComparison) -> None:
    sentence = verdict(read_comparison(comparison_with(new_comparison, [0.99], [0.9])))[0]
    assert sentence == (
        "NCMI-CC is above cross-entropy by +9.00 points (1 paired seed): one pair has no interval, "
        "so nothing can be concluded."
    )


def test_equal_differences_are_called_too_coarse(new_comparison: NewComparison) -> None:
    sentence = verdict(read_comparison(comparison_with(new_comparison, [0.75, 0.5], [0.5, 0.25])))[0]
    assert sentence.endswith("all seeds agree exactly, too coarse a measurement for an interval.")


def test_the_rest_of_the_verdict(full_comparison: Path) -> None:
    sentences = verdict(read_comparison(full_comparison))
    assert sentences[1].startswith("NCMI-LP is ")
    assert "highest mean" in sentences[2]
    assert "(2 rows with missing seeds left out); the highest of many is in part the luckiest" in sentences[2]
    assert "Of the other methods, SupCon-LP is distinguishably below cross-entropy." in sentences
    assert sentences[-1] == "The test set has 360 samples: one sample more or less is 0.28 points."


def test_without_baseline(new_comparison: NewComparison) -> None:
    sentences = verdict(read_comparison(new_comparison(["ncmi", "focal"], seeds=range(2))))
    assert sentences[0].startswith("No run of the baseline (cross-entropy) has finished")


def test_without_ncmi_the_best_other_row_is_judged(new_comparison: NewComparison) -> None:
    sentences = verdict(read_comparison(new_comparison(["cross_entropy", "focal"], seeds=range(2))))
    assert sentences[0].startswith("Focal ")


def test_without_a_common_seed(new_comparison: NewComparison) -> None:
    folder = new_comparison(seeds=range(2), missing=[("ncmi", 0), ("cross_entropy", 1)])
    assert verdict(read_comparison(folder))[0] == (
        "NCMI-CC has no run with a seed and split of cross-entropy: there is nothing to compare."
    )


def test_a_single_run(new_run: Callable[..., Path]) -> None:
    folder = new_run("ncmi", 2)
    content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    cc, lp = (100 * content["readouts"][name]["test_accuracy"] for name in ("cc", "lp"))
    assert run_verdict(read_run(folder))[0] == (
        f"Test accuracy on digits, seed 2: {cc:.2f} % (NCMI-CC), {lp:.2f} % (NCMI-LP)."
    )
    unfinished = run_verdict(read_run(new_run("focal", 0, stopped_after=4)))
    assert unfinished == ["This run is not finished: it stopped after epoch 4 of 20. There are no test results yet."]
