"""Statistics against NumPy, SciPy and scikit-learn, computed here from the files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import CLASSES, FIXED, edit, edit_outputs, set_results, write_bag_comparison, write_comparison
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score

from ncmi.readouts.scores import paired_difference
from ncmi.recipes.names import READOUTS
from ncmi.report.published import cohort_of, published_accuracy, published_bags
from ncmi.report.records import ReportError, read_comparison
from ncmi.report.statistics import (
    Difference,
    Row,
    best_of_table,
    best_rows,
    by_readout,
    comparison_rows,
    complete_rows,
    t_interval,
    wilcoxon_p,
    without_head,
)
from ncmi.report.tables import comparison_table, print_table

NewComparison = Callable[..., Path]
QUICK: dict[str, Any] = {"patients": 25, "resamples": 0, "attention": 0, "epochs": 2}


def value(folder: Path, run: str, readout: str, score: str = "accuracy") -> float:
    content = json.loads((folder / "runs" / run / "results.json").read_text(encoding="utf-8"))
    return float(content["readouts"][readout]["test"][score]["value"])


def rows_of(folder: Path) -> tuple[Row, ...]:
    return comparison_rows(read_comparison(folder))


def row(folder: Path, name: str) -> Row:
    return pick(rows_of(folder), name)


def pick(rows: tuple[Row, ...], name: str) -> Row:
    (found,) = [one for one in rows if one.name == name]
    return found


def difference(row: Row, score: str = "accuracy") -> Difference:
    found = row.scores[score].difference
    assert found is not None
    return found


# --- tables and images


def test_rows_are_entries_by_readouts_in_the_stated_order(full_rows: tuple[Row, ...]) -> None:
    rows = full_rows
    assert len(rows) == 13 * 4
    assert list(dict.fromkeys(row.readout for row in rows)) == ["head", "cc", "lp", "knn"]
    for readout in ("head", "cc", "lp", "knn"):
        same = [row for row in rows if row.readout == readout]
        assert [row.entry.objective_label for row in same[:2]] == ["NCMI", "CE"]
        others = [row.scores["accuracy"].mean for row in same[2:]]
        assert len(others) == 11
        assert others == sorted(others, reverse=True)
        assert [row.entry.objective_label for row in same if row.is_baseline] == ["CE"]


def test_a_table_shows_by_the_head_only_those_who_are_trained_to_decide_by_it(full_rows: tuple[Row, ...]) -> None:
    rows = full_rows
    shown = by_readout(rows)
    assert list(shown) == ["head", "cc", "lp"]
    assert "SupCon" not in [row.method for row in shown["head"]]
    assert "SupCon-LP" in [row.method for row in shown["lp"]]
    assert without_head(rows) == ["SupCon"]
    assert list(by_readout(rows, ("lp", "knn"))) == ["lp", "knn"]


@pytest.mark.parametrize(
    ("name", "objective", "readout"),
    [
        ("NCMI", "ncmi", "head"),
        ("NCMI-CC", "ncmi", "cc"),
        ("NCMI-LP", "ncmi", "lp"),
        ("NCMI-kNN", "ncmi", "knn"),
        ("Focal", "focal", "head"),
        ("SupCon-LP", "supcon", "lp"),
    ],
)
def test_moments_and_interval_paired_with_the_same_readout_of_the_baseline(
    full_comparison: Path, full_rows: tuple[Row, ...], name: str, objective: str, readout: str
) -> None:
    ours = np.array([value(full_comparison, f"{objective}-seed{seed}", readout) for seed in range(5)])
    base = np.array([value(full_comparison, f"cross_entropy-seed{seed}", readout) for seed in range(5)])
    found = pick(full_rows, name)
    score = found.scores["accuracy"]
    assert score.mean == pytest.approx(ours.mean(), abs=1e-14)
    assert score.sd == pytest.approx(math.sqrt(((ours - ours.mean()) ** 2).sum() / 4), abs=1e-14)
    assert difference(found).mean == pytest.approx((ours - base).mean(), abs=1e-14)
    expected = stats.ttest_rel(ours, base).confidence_interval(0.95)
    assert difference(found).interval == pytest.approx((expected.low, expected.high), abs=1e-11)
    assert bool(difference(found).sign) == (stats.ttest_rel(ours, base).pvalue < 0.05)


def test_cost_and_information(full_comparison: Path, full_rows: tuple[Row, ...]) -> None:
    results = [
        json.loads((full_comparison / f"runs/poly-seed{seed}/results.json").read_text(encoding="utf-8"))
        for seed in range(5)
    ]
    found = pick(full_rows, "PolyLoss")
    assert found.epoch_seconds == np.median([result["epoch_seconds"] for result in results])
    assert found.peak_memory_mb == max(result["peak_memory_mb"] for result in results)
    for name in ("cmi", "separation", "ncmi", "cross_entropy_separation", "cross_entropy_ncmi"):
        assert found.information[name] == pytest.approx(np.mean([r["information"][name] for r in results]))


def test_pairs_are_only_the_common_seeds(new_comparison: NewComparison) -> None:
    folder = new_comparison(seeds=range(5), missing=[("ncmi", 0)], unfinished=[("cross_entropy", 3)])
    found = row(folder, "NCMI-CC")
    assert found.seeds == (1, 2, 3, 4)
    assert difference(found).seeds == (1, 2, 4)
    expected = [
        value(folder, f"ncmi-seed{seed}", "cc") - value(folder, f"cross_entropy-seed{seed}", "cc") for seed in (1, 2, 4)
    ]
    assert difference(found).values == pytest.approx(expected)
    half = stats.t.ppf(0.975, 2) * np.std(expected, ddof=1) / math.sqrt(3)
    assert difference(found).interval == pytest.approx((np.mean(expected) - half, np.mean(expected) + half))


def test_the_same_seed_on_another_split_is_no_pair(new_comparison: NewComparison) -> None:
    folder = new_comparison(seeds=range(3))
    edit(folder / "runs/ncmi-seed1/recipe.json", lambda recipe: recipe["data"].update(split_seed=17))
    assert difference(row(folder, "NCMI-CC")).seeds == (0, 2)


def test_one_seed_has_no_deviation_and_no_interval(new_comparison: NewComparison) -> None:
    found = row(new_comparison(seeds=[4]), "NCMI-LP")
    assert math.isnan(found.scores["accuracy"].sd)
    assert found.scores["accuracy"].interval is None
    assert difference(found).interval is None
    assert difference(found).sign == 0
    assert math.isnan(difference(found).wilcoxon_p)


def test_without_baseline_there_are_no_differences(new_comparison: NewComparison) -> None:
    rows = rows_of(new_comparison(["ncmi", "focal"], seeds=range(2)))
    assert [row.scores["accuracy"].difference for row in rows] == [None] * 8


def test_differences_without_spread_count_as_indistinguishable(new_comparison: NewComparison) -> None:
    folder = new_comparison(seeds=range(2))
    # float32 leaves a difference of 6e-8 between the two
    for seed, (ours, base) in enumerate([(355, 351), (353, 349)]):
        set_results(folder / f"runs/ncmi-seed{seed}", "cc", accuracy=float(np.float32(ours / 359)))
        set_results(folder / f"runs/cross_entropy-seed{seed}", "cc", accuracy=float(np.float32(base / 359)))
    found = difference(row(folder, "NCMI-CC"))
    assert found.too_coarse
    assert found.interval == pytest.approx((4 / 359, 4 / 359), abs=1e-5)
    assert found.sign == 0


def test_means_over_fewer_seeds_are_never_the_best(new_comparison: NewComparison) -> None:
    folder = new_comparison(["ncmi", "cross_entropy", "focal"], seeds=range(2), missing=[("focal", 1)])
    set_results(folder / "runs/focal-seed0", accuracy=1.0)
    heads = by_readout(rows_of(folder))["head"]
    assert "Focal" not in [row.method for row in complete_rows(heads, "accuracy")]
    assert "Focal" not in [row.method for row in best_rows(heads, "accuracy")]


def test_the_best_of_a_table_is_the_best_of_each_readout(full_rows: tuple[Row, ...]) -> None:
    rows = [row for group in by_readout(full_rows).values() for row in group]
    best = best_of_table(rows, "accuracy")
    assert {row.readout for row in best} == {"head", "cc", "lp"}
    for readout in ("head", "cc", "lp"):
        means = [row.scores["accuracy"].mean for row in rows if row.readout == readout and len(row.seeds) == 5]
        assert {round(100 * row.scores["accuracy"].mean, 2) for row in best if row.readout == readout} == {
            round(100 * max(means), 2)
        }


def test_an_objective_may_have_another_first_readout_than_the_head(tmp_path: Path) -> None:
    rows = rows_of(write_comparison(tmp_path / "c", ("ncmi",), (0,), options=FIXED))
    assert [row.method for row in rows if row.is_first] == ["NCMI-CC"]
    assert [row.method for row in rows if row.is_primary] == ["NCMI-CC", "NCMI-LP"]
    assert "head" not in by_readout(rows)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=12))
def test_interval_equals_scipy(values: list[float]) -> None:
    found = t_interval(values)
    assert found is not None
    if float(np.std(values, ddof=1)) == 0:
        assert found == pytest.approx((values[0], values[0]))
    else:
        expected = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_signed_rank_p() -> None:
    # all 2^5 signs are equally likely: the most extreme two of them
    assert wilcoxon_p([0.001, 0.002, 0.003, 0.004, 0.005]) == pytest.approx(2 / 32)
    assert math.isnan(wilcoxon_p([0.1, 0.2, 0.3, 0.4]))
    assert wilcoxon_p([0.0] * 5) == 1.0
    # accuracies that went through float32
    single = [float(np.float32(k / 359) - np.float32(350 / 359)) for k in (351, 352, 350, 349, 353)]
    assert wilcoxon_p(single) == pytest.approx(stats.wilcoxon([1, 2, 0, -1, 3]).pvalue)
    # in floating point 0.975 - 0.972 and 0.981 - 0.978 are not the same number
    broken = [0.975 - 0.972, 0.981 - 0.978, 0.972 - 0.975, 0.984 - 0.978, 0.983 - 0.974]
    assert wilcoxon_p(broken) == pytest.approx(stats.wilcoxon([1, 1, -1, 2, 3]).pvalue)


# --- bags


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag_comparison(
        tmp_path_factory.mktemp("plain") / "c",
        ("abmil", "asmil"),
        prefix="patient",
        missing=["asmil-ncmi-seed1"],
        **QUICK,
    )


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag_comparison(
        tmp_path_factory.mktemp("folded") / "c",
        ("abmil",),
        seeds=(0, 1, 2),
        folds=3,
        missing=["abmil-ncmi-seed2-fold1"],
        **QUICK,
    )


@pytest.fixture(scope="module")
def plain_rows(plain: Path) -> tuple[Row, ...]:
    return rows_of(plain)


@pytest.fixture(scope="module")
def folded_rows(folded: Path) -> tuple[Row, ...]:
    return rows_of(folded)


def predictions(folder: Path, run: str, readout: str) -> tuple[list[str], list[str], Any, Any]:
    """Slides, patients, labels and probabilities of the test part, read by hand, in order of the slides' names."""
    with (folder / "runs" / run / "slides.csv").open(newline="", encoding="utf-8") as file:
        rows = sorted((row for row in csv.DictReader(file) if row["part"] == "test"), key=lambda row: row["slide"])
    p = np.array([[float(row[f"{readout}:{name}"]) for name in CLASSES] for row in rows])
    labels = np.array([CLASSES.index(row["label"]) for row in rows])
    return [row["slide"] for row in rows], [row["patient"] for row in rows], labels, p


def test_bags_pair_lp_with_lp_and_cc_with_cc(plain: Path, plain_rows: tuple[Row, ...]) -> None:
    """What was wrong once: NCMI's linear probe against cross-entropy's head."""
    assert {row.readout for row in plain_rows} == {"head", "cc", "lp"}
    for row in plain_rows:
        if row.is_baseline:
            continue
        run = f"{row.entry.network}-ncmi-seed"
        base = f"{row.entry.network}-cross_entropy-seed"
        for score in ("macro_f1", "macro_auc", "balanced_accuracy", "accuracy"):
            seeds = difference(row, score).seeds
            expected = [
                value(plain, f"{run}{seed}", row.readout, score) - value(plain, f"{base}{seed}", row.readout, score)
                for seed in seeds
            ]
            assert difference(row, score).values == pytest.approx(expected, abs=1e-14)


def test_means_and_differences_over_seeds(plain: Path, plain_rows: tuple[Row, ...]) -> None:
    assert [row.name for row in plain_rows] == [
        f"{network}, {objective}{'' if readout == 'head' else '-' + READOUTS[readout]}"
        for readout in ("head", "cc", "lp")
        for network in ("ABMIL", "ASMIL")
        for objective in ("NCMI", "CE")
    ]
    for score in ("macro_f1", "macro_auc", "balanced_accuracy", "accuracy"):
        ours = [value(plain, f"abmil-ncmi-seed{seed}", "lp", score) for seed in (0, 1, 2)]
        base = [value(plain, f"abmil-cross_entropy-seed{seed}", "lp", score) for seed in (0, 1, 2)]
        found = pick(plain_rows, "ABMIL, NCMI-LP")
        assert found.scores[score].mean == pytest.approx(np.mean(ours), abs=1e-12)
        assert found.scores[score].sd == pytest.approx(np.std(ours, ddof=1), abs=1e-12)
        interval = stats.ttest_rel(ours, base).confidence_interval(0.95)
        assert difference(found, score).mean == pytest.approx(np.mean(ours) - np.mean(base), abs=1e-12)
        assert difference(found, score).interval == pytest.approx((interval.low, interval.high), abs=1e-12)
        assert difference(found, score).sign == (int(interval.low > 0) - int(interval.high < 0))
    baseline = pick(plain_rows, "ABMIL, CE")
    assert baseline.is_baseline
    assert all(score.difference is None for score in baseline.scores.values())


def test_a_missing_run_is_left_out_of_pairs_alone(plain: Path, plain_rows: tuple[Row, ...]) -> None:
    found = pick(plain_rows, "ASMIL, NCMI")
    assert found.seeds == (0, 2)
    assert difference(found, "macro_auc").seeds == (0, 2)
    base = [value(plain, f"asmil-cross_entropy-seed{seed}", "head", "macro_auc") for seed in (0, 2)]
    ours = [value(plain, f"asmil-ncmi-seed{seed}", "head", "macro_auc") for seed in (0, 2)]
    assert difference(found, "macro_auc").mean == pytest.approx(np.mean(ours) - np.mean(base), abs=1e-12)
    # means over different seeds are not called the best
    best = best_of_table(plain_rows, "macro_auc")
    assert [row for row in best if row.entry.network == "asmil"] == []
    for readout in ("head", "cc", "lp"):
        same = [row for row in plain_rows if (row.entry.network, row.readout) == ("abmil", readout)]
        assert {row.scores["macro_auc"].mean for row in best if row.readout == readout} == {
            max(row.scores["macro_auc"].mean for row in same)
        }


@pytest.mark.parametrize("score", ["accuracy", "balanced_accuracy", "macro_f1", "macro_auc"])
def test_intervals_over_groups_are_those_of_paired_difference(
    plain: Path, plain_rows: tuple[Row, ...], score: str
) -> None:
    found = difference(pick(plain_rows, "ASMIL, NCMI-CC"), score)
    ours = [predictions(plain, f"asmil-ncmi-seed{seed}", "cc") for seed in (0, 2)]
    base = [predictions(plain, f"asmil-cross_entropy-seed{seed}", "cc") for seed in (0, 2)]
    _, patients, labels, _ = ours[0]
    reference = paired_difference(
        labels, np.stack([one[3] for one in ours]), np.stack([one[3] for one in base]), patients, score
    )
    assert found.over_groups == pytest.approx((reference.low, reference.high), abs=1e-12)
    assert found.mean == pytest.approx(reference.value, abs=1e-12)


def test_folds_of_a_repeat_are_pooled_before_anything_is_averaged(folded: Path, folded_rows: tuple[Row, ...]) -> None:
    assert read_comparison(folded).folds == 3
    pooled: dict[str, list[float]] = {"macro_f1": [], "macro_auc": []}
    for seed in (0, 1):
        parts = [predictions(folded, f"abmil-ncmi-seed{seed}-fold{fold}", "lp") for fold in range(3)]
        labels, p = np.concatenate([one[2] for one in parts]), np.concatenate([one[3] for one in parts])
        assert len(labels) == 125
        assert len({slide for one in parts for slide in one[0]}) == 125
        pooled["macro_f1"].append(f1_score(labels, p.argmax(1), average="macro"))
        p = p / p.sum(1, keepdims=True)
        pooled["macro_auc"].append(roc_auc_score(labels, p, average="macro", multi_class="ovr"))
    found = pick(folded_rows, "NCMI-LP")
    # the third repeat lacks a fold
    assert found.seeds == (0, 1)
    for score, values in pooled.items():
        assert found.scores[score].values == pytest.approx(values, abs=1e-9)
        assert found.scores[score].sd == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    assert len(difference(found, "macro_auc").values) == 2
    assert pick(folded_rows, "CE").seeds == (0, 1, 2)


def test_fold_by_fold_every_finished_fold_counts(folded: Path, folded_rows: tuple[Row, ...]) -> None:
    values = [
        value(folded, f"abmil-ncmi-seed{seed}-fold{fold}", "head", "macro_f1")
        for seed in range(3)
        for fold in range(3)
        if (seed, fold) != (2, 1)
    ]
    spread = pick(folded_rows, "NCMI").scores["macro_f1"].folds
    assert spread is not None
    assert (spread.mean, spread.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)), abs=1e-12)
    assert len(spread.values) == 8


def test_one_fold_alone_may_be_compared(tmp_path: Path) -> None:
    folder = write_bag_comparison(tmp_path / "c", ("abmil",), seeds=(0, 1), folds=3, **QUICK)

    def keep_one(content: dict[str, Any]) -> None:
        for entry in content["entries"]:
            entry["runs"] = [run for run in entry["runs"] if run.endswith("fold1")]

    edit(folder / "comparison.json", keep_one)
    assert row(folder, "NCMI").seeds == (0, 1)
    assert difference(row(folder, "NCMI"), "macro_f1").seeds == (0, 1)


def test_folds_that_share_a_slide_are_no_folds_of_one_cross_validation(tmp_path: Path) -> None:
    folder = write_bag_comparison(tmp_path / "c", ("abmil",), ("ncmi",), seeds=(0,), folds=2, **QUICK)
    with np.load(folder / "runs" / "abmil-ncmi-seed0-fold0" / "test_outputs.npz") as archive:
        name = archive["names"][0]
    edit_outputs(folder / "runs" / "abmil-ncmi-seed0-fold1", lambda arrays: arrays["names"].__setitem__(0, name))
    with pytest.raises(ReportError, match=r"is tested on in two folds of seed 0, so these are no folds of one"):
        rows_of(folder)


def test_published_folds_that_overlap_are_not_pooled(tmp_path: Path) -> None:
    """As CLAM's, drawn anew for each fold: means over folds, paired by fold, and so it is said."""
    folder = write_bag_comparison(tmp_path / "c", ("abmil",), seeds=(0,), folds=3, **QUICK)
    for run in sorted((folder / "runs").iterdir()):
        edit(run / "recipe.json", lambda content: content["data"].update(splits="splits"))
        with np.load(run.with_name(f"{run.name[:-1]}0") / "test_outputs.npz") as archive:
            name = archive["names"][0]
        edit_outputs(run, lambda arrays, name=name: arrays["names"].__setitem__(0, name))  # type: ignore[misc]
    first, baseline = row(folder, "NCMI"), row(folder, "CE")
    assert not first.pooled
    score, other = first.scores["macro_f1"], baseline.scores["macro_f1"]
    assert score.folds is not None
    assert other.folds is not None
    assert score.mean == pytest.approx(score.folds.mean, abs=1e-12)
    assert score.fold_differences is not None
    expected = np.subtract(score.folds.values, other.folds.values)
    assert score.fold_differences.values == pytest.approx(expected.tolist(), abs=1e-12)
    assert other.fold_differences is None
    numbers = comparison_table(read_comparison(folder)).set_index("method").loc["NCMI"]
    assert not numbers["pooled"]
    assert numbers["macro_f1_fold_sd"] == pytest.approx(score.folds.sd)
    console = Console(width=140, record=True, file=io.StringIO())
    print_table(folder, console)
    printed = console.export_text()
    assert "overlap" in printed
    assert "of a fold" in printed


def test_runs_that_test_on_different_bags_are_no_pairs(tmp_path: Path) -> None:
    folder = write_bag_comparison(tmp_path / "c", ("abmil",), seeds=(0, 1), **QUICK)

    def drop(arrays: dict[str, Any]) -> None:
        for name, array in arrays.items():
            arrays[name] = array[1:]

    edit_outputs(folder / "runs" / "abmil-ncmi-seed1", drop)
    found = row(folder, "NCMI")
    assert found.seeds == (0, 1)
    assert difference(found, "macro_f1").seeds == (0,)
    assert difference(found, "macro_f1").interval is None


def test_repeats_with_test_bags_of_their_own_have_no_interval_over_groups(tmp_path: Path) -> None:
    folder = write_bag_comparison(tmp_path / "c", ("abmil",), seeds=(0, 1), **QUICK)
    for objective in ("ncmi", "cross_entropy"):
        edit_outputs(
            folder / "runs" / f"abmil-{objective}-seed1",
            lambda arrays: arrays.update(names=np.char.replace(arrays["names"], "slide_003", "slide_903")),
        )
    found = difference(row(folder, "NCMI"), "macro_f1")
    assert len(found.values) == 2
    assert found.over_groups is None


def test_one_seed_has_an_interval_over_groups_alone(tmp_path: Path) -> None:
    found = row(write_bag_comparison(tmp_path / "c", ("abmil",), seeds=(0,), **QUICK), "NCMI")
    assert math.isnan(found.scores["macro_auc"].sd)
    assert difference(found, "macro_auc").interval is None
    assert difference(found, "macro_auc").over_groups is not None


# --- the paper's values


def test_published_values_stand_beside_real_slides_of_the_cohort_alone(
    plain: Path, plain_rows: tuple[Row, ...], folded: Path, tmp_path: Path
) -> None:
    def published(row: Row) -> tuple[float | None, float | None]:
        return row.scores["macro_f1"].published, row.scores["macro_auc"].published

    assert cohort_of(read_comparison(plain)) == "camelyon17"
    assert published(pick(plain_rows, "ABMIL, CE")) == (0.522, 0.853)
    assert published(pick(plain_rows, "ASMIL, NCMI-LP")) == (0.710, 0.914)
    assert published(pick(plain_rows, "ASMIL, NCMI")) == (None, None)
    assert published(pick(plain_rows, "ASMIL, CE-LP")) == (None, None)
    # other slides
    assert cohort_of(read_comparison(folded)) is None
    # the same names, simulated
    simulated = write_bag_comparison(tmp_path / "s", ("abmil",), seeds=(0,), prefix="patient", simulation=True, **QUICK)
    assert cohort_of(read_comparison(simulated)) is None
    assert all(published(row) == (None, None) for row in rows_of(simulated))
    # other classes
    two = write_bag_comparison(
        tmp_path / "t", ("abmil",), seeds=(0,), prefix="patient", class_names=("negative", "macro"), **QUICK
    )
    assert cohort_of(read_comparison(two)) is None


def test_the_paper_s_table_of_slides() -> None:
    networks, cohorts = ("abmil", "transmil", "aem", "asmil"), ("camelyon17", "bracs")
    cells = [
        published_bags(cohort, network, objective, readout)
        for cohort in cohorts
        for network in networks
        for objective, readout in (("cross_entropy", "head"), ("ncmi", "lp"))
    ]
    assert cells == [
        *((0.522, 0.853), (0.567, 0.892), (0.554, 0.792), (0.582, 0.853)),
        *((0.647, 0.887), (0.663, 0.907), (0.689, 0.898), (0.710, 0.914)),
        *((0.680, 0.866), (0.701, 0.872), (0.631, 0.841), (0.662, 0.878)),
        *((0.742, 0.905), (0.779, 0.918), (0.781, 0.914), (0.824, 0.936)),
    ]
    assert published_bags("bracs", "mean", "ncmi", "lp") == ()
    assert published_bags(None, "abmil", "ncmi", "lp") == ()


def test_published_cells_of_the_ablation() -> None:
    def cell(distribution: str, center: str, readout: str = "cc", network: str = "resnet18") -> float | None:
        options = {"name": "ncmi", "separation_power": 1.0, "distribution": distribution, "center": center}
        return published_accuracy(network, options, readout)

    assert [cell("nsf", "frozen"), cell("nsf", "none"), cell("softmax", "frozen"), cell("softmax", "none")] == [
        76.45,
        74.9,
        1.72,
        5.64,
    ]
    assert cell("softmax", "none", "lp") is None
    assert cell("nsf", "none", network="resnet50") is None
    assert published_accuracy("resnet_small", {"name": "cross_entropy"}, "head") is None
