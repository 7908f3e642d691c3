"""Means, pooled folds, paired differences and published values of a comparison, against naive references."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score
from slides_folders import CLASSES, write_comparison_of_slides

from ncmi.reports import ReportError
from ncmi.reports.slides import comparison_cells, read_slide_comparison
from ncmi.reports.slides.comparison_words import comparison_verdict
from ncmi.reports.slides.published import cohort_of
from ncmi.reports.slides.records import SlideEntry
from ncmi.reports.slides.repeats import repeats_of
from ncmi.reports.slides.statistics import Cell, best_cells, methods, plain_label
from ncmi.reports.slides.styles import method_styles
from ncmi.slides.metrics import paired_difference
from ncmi.slides.published import Published, published

QUICK: dict[str, Any] = {"patients": 25, "resamples": 0, "attention": 0, "epochs": 2}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comparison_of_slides(
        tmp_path_factory.mktemp("plain") / "c",
        ("abmil", "asmil"),
        prefix="patient",
        missing=["asmil-ncmi-seed1"],
        **QUICK,
    )


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comparison_of_slides(
        tmp_path_factory.mktemp("folded") / "c",
        ("abmil",),
        seeds=(0, 1, 2),
        folds=3,
        missing=["abmil-ncmi-seed2-fold1"],
        **QUICK,
    )


@pytest.fixture(scope="module")
def plain_cells(plain: Path) -> tuple[Cell, ...]:
    return comparison_cells(read_slide_comparison(plain))


@pytest.fixture(scope="module")
def folded_cells(folded: Path) -> tuple[Cell, ...]:
    return comparison_cells(read_slide_comparison(folded))


def cell(cells: tuple[Cell, ...], network: str, method: str) -> Cell:
    (found,) = [one for one in cells if (one.network, one.method) == (network, method)]
    return found


def value(folder: Path, run: str, readout: str, score: str) -> float:
    content = json.loads((folder / "runs" / run / "results.json").read_text(encoding="utf-8"))
    return float(content["readouts"][readout]["test"][score]["value"])


def predictions(folder: Path, run: str, readout: str) -> tuple[list[str], list[str], Any, Any]:
    """Slides, patients, labels and probabilities of the test part, read by hand, in order of the slides' names."""
    with (folder / "runs" / run / "slides.csv").open(newline="", encoding="utf-8") as file:
        rows = sorted((row for row in csv.DictReader(file) if row["part"] == "test"), key=lambda row: row["slide"])
    p = np.array([[float(row[f"{readout}:{name}"]) for name in CLASSES] for row in rows])
    labels = np.array([CLASSES.index(row["label"]) for row in rows])
    return [row["slide"] for row in rows], [row["patient"] for row in rows], labels, p


def test_means_and_differences_over_seeds(plain: Path, plain_cells: tuple[Cell, ...]) -> None:
    cells = plain_cells
    assert [(one.network, one.method) for one in cells] == [
        (network, method) for network in ("ABMIL", "ASMIL") for method in ("CE", "NCMI-LP", "NCMI-CC", "NCMI")
    ]
    for score in ("macro_f1", "auc", "balanced_accuracy", "accuracy"):
        own = [value(plain, f"abmil-ncmi-seed{seed}", "lp", score) for seed in (0, 1, 2)]
        base = [value(plain, f"abmil-cross_entropy-seed{seed}", "head", score) for seed in (0, 1, 2)]
        found = cell(cells, "ABMIL", "NCMI-LP")
        assert found.scores[score].mean == pytest.approx(np.mean(own), abs=1e-12)
        assert found.scores[score].sd == pytest.approx(np.std(own, ddof=1), abs=1e-12)
        reference = stats.ttest_rel(own, base)
        interval = reference.confidence_interval(0.95)
        assert found.differences[score].mean == pytest.approx(np.mean(own) - np.mean(base), abs=1e-12)
        assert found.differences[score].interval == pytest.approx((interval.low, interval.high), abs=1e-12)
        assert found.differences[score].sign == (int(interval.low > 0) - int(interval.high < 0))
    baseline = cell(cells, "ABMIL", "CE")
    assert baseline.is_baseline
    assert baseline.differences == {}
    assert baseline.over_patients is None


def test_a_missing_run_is_left_out_of_pairs_alone(plain: Path, plain_cells: tuple[Cell, ...]) -> None:
    cells = plain_cells
    found = cell(cells, "ASMIL", "NCMI")
    assert found.seeds == (0, 2)
    assert found.differences["auc"].seeds == (0, 2)
    base = [value(plain, f"asmil-cross_entropy-seed{seed}", "head", "auc") for seed in (0, 2)]
    own = [value(plain, f"asmil-ncmi-seed{seed}", "head", "auc") for seed in (0, 2)]
    assert found.differences["auc"].mean == pytest.approx(np.mean(own) - np.mean(base), abs=1e-12)
    # means over different seeds are not called the best
    assert best_cells([one for one in cells if one.network == "ASMIL"], "auc") == []
    best = best_cells([one for one in cells if one.network == "ABMIL"], "auc")
    assert {one.scores["auc"].mean for one in best} == {
        max(one.scores["auc"].mean for one in cells if one.network == "ABMIL")
    }


@pytest.mark.parametrize("score", ["macro_f1", "auc"])
def test_intervals_over_patients_are_those_of_paired_difference(
    plain: Path, plain_cells: tuple[Cell, ...], score: str
) -> None:
    found = cell(plain_cells, "ASMIL", "NCMI-CC")
    own = [predictions(plain, f"asmil-ncmi-seed{seed}", "cc") for seed in (0, 2)]
    base = [predictions(plain, f"asmil-cross_entropy-seed{seed}", "head") for seed in (0, 2)]
    _, patients, labels, _ = own[0]
    reference = paired_difference(
        labels, np.stack([one[3] for one in own]), np.stack([one[3] for one in base]), patients, score
    )
    assert found.over_patients is not None
    assert found.over_patients[score] == pytest.approx((reference["low"], reference["high"]), abs=1e-12)
    assert found.differences[score].mean == pytest.approx(reference["value"], abs=1e-12)


def test_folds_of_a_repeat_are_pooled_before_anything_is_averaged(folded: Path, folded_cells: tuple[Cell, ...]) -> None:
    assert read_slide_comparison(folded).folds == 3
    cells = folded_cells
    pooled: dict[str, list[float]] = {"macro_f1": [], "auc": []}
    for seed in (0, 1):
        parts = [predictions(folded, f"abmil-ncmi-seed{seed}-fold{fold}", "lp") for fold in range(3)]
        labels, p = np.concatenate([one[2] for one in parts]), np.concatenate([one[3] for one in parts])
        assert len(labels) == 125
        assert len({slide for one in parts for slide in one[0]}) == 125
        pooled["macro_f1"].append(f1_score(labels, p.argmax(1), average="macro"))
        p = p / p.sum(1, keepdims=True)
        pooled["auc"].append(roc_auc_score(labels, p, average="macro", multi_class="ovr"))
    found = cell(cells, "ABMIL", "NCMI-LP")
    # the third repeat lacks a fold
    assert found.seeds == (0, 1)
    for score, values in pooled.items():
        assert found.scores[score].values == pytest.approx(values, abs=1e-9)
        assert found.scores[score].sd == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    assert len(found.differences["auc"].values) == 2
    assert cell(cells, "ABMIL", "CE").seeds == (0, 1, 2)


def test_fold_by_fold_every_finished_fold_counts(folded: Path, folded_cells: tuple[Cell, ...]) -> None:
    found = cell(folded_cells, "ABMIL", "NCMI")
    values = [
        value(folded, f"abmil-ncmi-seed{seed}-fold{fold}", "head", "macro_f1")
        for seed in range(3)
        for fold in range(3)
        if (seed, fold) != (2, 1)
    ]
    spread = found.folds["macro_f1"]
    assert (spread.mean, spread.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)), abs=1e-12)
    assert spread.count == 8


def test_folds_that_share_a_slide_are_no_folds_of_one_cross_validation(tmp_path: Path) -> None:
    folder = write_comparison_of_slides(tmp_path / "c", ("abmil",), ("ncmi",), seeds=(0,), folds=2, **QUICK)
    run = folder / "runs" / "abmil-ncmi-seed0-fold1" / "slides.csv"
    run.write_text(run.read_text(encoding="utf-8").replace(",train,", ",test,"), encoding="utf-8")
    with pytest.raises(ReportError, match=r"is a test slide of two folds of seed 0, so these are no folds of one"):
        comparison_cells(read_slide_comparison(folder))


def test_runs_that_test_on_different_slides_are_no_pairs(tmp_path: Path) -> None:
    folder = write_comparison_of_slides(tmp_path / "c", ("abmil",), seeds=(0, 1), **QUICK)
    path = folder / "runs" / "abmil-ncmi-seed1" / "slides.csv"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "slide_003_node_0" not in line), encoding="utf-8")
    found = cell(comparison_cells(read_slide_comparison(folder)), "ABMIL", "NCMI")
    assert found.seeds == (0, 1)
    assert found.differences["macro_f1"].seeds == (0,)
    assert found.differences["macro_f1"].interval is None


def test_repeats_with_test_slides_of_their_own_have_no_interval_over_patients(tmp_path: Path) -> None:
    folder = write_comparison_of_slides(tmp_path / "c", ("abmil",), seeds=(0, 1), **QUICK)
    for objective in ("ncmi", "cross_entropy"):
        path = folder / "runs" / f"abmil-{objective}-seed1" / "slides.csv"
        path.write_text(path.read_text(encoding="utf-8").replace("slide_003", "slide_903"), encoding="utf-8")
    found = cell(comparison_cells(read_slide_comparison(folder)), "ABMIL", "NCMI")
    assert len(found.differences["macro_f1"].values) == 2
    assert found.over_patients is None


def test_without_the_baseline_there_are_no_differences(tmp_path: Path) -> None:
    folder = write_comparison_of_slides(tmp_path / "c", ("abmil",), ("ncmi",), seeds=(0, 1), **QUICK)
    record = read_slide_comparison(folder)
    cells = comparison_cells(record)
    assert all(one.differences == {} and not one.is_baseline for one in cells)
    assert comparison_verdict(record, cells)[0] == (
        "No method has a complete repeat in common with cross-entropy: there is nothing to compare."
    )


def test_published_values_stand_beside_real_slides_of_the_cohort_alone(
    plain: Path, plain_cells: tuple[Cell, ...], folded: Path, tmp_path: Path
) -> None:
    record = read_slide_comparison(plain)
    assert cohort_of(record) == "camelyon17"
    cells = plain_cells
    assert cell(cells, "ABMIL", "CE").published == Published(0.522, 0.853)
    assert cell(cells, "ASMIL", "NCMI-LP").published == Published(0.710, 0.914)
    assert cell(cells, "ASMIL", "NCMI").published is None
    # other slides
    assert cohort_of(read_slide_comparison(folded)) is None
    # the same names, simulated
    simulated = write_comparison_of_slides(
        tmp_path / "s", ("abmil",), seeds=(0,), prefix="patient", simulation=True, **QUICK
    )
    assert cohort_of(read_slide_comparison(simulated)) is None
    assert all(one.published is None for one in comparison_cells(read_slide_comparison(simulated)))
    # other classes
    two = write_comparison_of_slides(
        tmp_path / "t", ("abmil",), seeds=(0,), prefix="patient", class_names=("negative", "macro"), **QUICK
    )
    assert cohort_of(read_slide_comparison(two)) is None


def test_a_run_that_is_a_simulation_makes_the_comparison_one(plain: Path, tmp_path: Path) -> None:
    folder = write_comparison_of_slides(
        tmp_path / "s", ("abmil",), seeds=(0,), prefix="patient", simulation=True, **QUICK
    )
    path = folder / "comparison.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["simulation"] = False
    path.write_text(json.dumps(content), encoding="utf-8")
    assert read_slide_comparison(folder).simulation
    assert not read_slide_comparison(plain).simulation


def test_the_paper_s_table() -> None:
    networks, cohorts = ("abmil", "transmil", "aem", "asmil"), ("camelyon17", "bracs")
    cells = [
        published(cohort, network, objective, readout)  # type: ignore[arg-type]
        for cohort in cohorts
        for network in networks
        for objective, readout in (("cross_entropy", "head"), ("ncmi", "lp"))
    ]
    assert [one and (one.f1, one.auc) for one in cells] == [
        *((0.522, 0.853), (0.567, 0.892), (0.554, 0.792), (0.582, 0.853)),
        *((0.647, 0.887), (0.663, 0.907), (0.689, 0.898), (0.710, 0.914)),
        *((0.680, 0.866), (0.701, 0.872), (0.631, 0.841), (0.662, 0.878)),
        *((0.742, 0.905), (0.779, 0.918), (0.781, 0.914), (0.824, 0.936)),
    ]
    assert published("bracs", "mean", "ncmi", "lp") is None
    assert published(None, "abmil", "ncmi", "lp") is None


@pytest.mark.parametrize(
    ("label", "network", "plain_one"),
    [
        ("NCMI", "abmil", "NCMI"),
        ("ABMIL, NCMI", "abmil", "NCMI"),
        ("Mean, Cross-entropy", "mean", "Cross-entropy"),
        ("CE (TransMIL)", "transmil", "CE"),
        ("aem · NCMI-p4", "aem", "NCMI-p4"),
        ("ABMIL", "abmil", "ABMIL"),
        ("maximal NCMI", "max", "maximal NCMI"),
    ],
)
def test_labels_lose_the_name_of_their_network(label: str, network: str, plain_one: str) -> None:
    assert plain_label(SlideEntry(label, network, "ncmi", (), ())) == plain_one


def test_ncmi_and_the_baseline_have_the_looks_of_their_own(plain_cells: tuple[Cell, ...]) -> None:
    looks = method_styles(plain_cells)
    assert list(looks) == ["CE", "NCMI-LP", "NCMI-CC", "NCMI"]
    assert (looks["CE"].tone, looks["NCMI"].tone) == ("ink", "vermilion")
    assert len({look.tone for look in looks.values()}) == 4


def test_the_verdict_counts_what_the_cells_hold(plain: Path, plain_cells: tuple[Cell, ...]) -> None:
    record = read_slide_comparison(plain)
    cells = plain_cells
    sentences = comparison_verdict(record, cells)
    for sentence, method in zip(sentences, methods(cells)[1:], strict=False):
        differences = [one.differences["macro_f1"] for one in cells if one.method == method]
        above = sum(one.mean > 0 for one in differences)
        mean = np.mean([one.mean for one in differences])
        sign = "+" if mean > 0 else "−"
        assert sentence.startswith(
            f"{method} against CE: macro F1 is higher with {above} of 2 networks, by {sign}{abs(mean):.3f} in the mean ("
        )
    assert "1 run not finished, and left out." in sentences
    assert any("not corrected for there being 12 of them" in sentence for sentence in sentences)
    assert not any("Simulation" in sentence for sentence in sentences)


def test_one_seed_concludes_nothing_about_seeds(tmp_path: Path) -> None:
    folder = write_comparison_of_slides(tmp_path / "c", ("abmil",), seeds=(0,), **QUICK)
    record = read_slide_comparison(folder)
    cells = comparison_cells(record)
    sentences = comparison_verdict(record, cells)
    assert "One repeat has no interval over repeats: nothing can be concluded about other seeds." in sentences
    assert "distinguishab" not in " ".join(sentences)
    found = cell(cells, "ABMIL", "NCMI")
    assert math.isnan(found.scores["auc"].sd)
    assert found.over_patients is not None


def test_repeats_are_keyed_by_seed_and_split(plain: Path) -> None:
    record = read_slide_comparison(plain)
    repeats = repeats_of(record.entries[0], 0)
    assert list(repeats) == [(0, None), (1, None), (2, None)]
    assert all(list(one.test.slides) == sorted(one.test.slides) for one in repeats.values())
