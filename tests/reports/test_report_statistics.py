"""Statistics against NumPy and SciPy, computed here from the files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ncmi.reports import ReportError, comparison_rows, read_comparison
from ncmi.reports.statistics import Row, best_rows, complete_rows, t_interval, wilcoxon_p

NewComparison = Callable[..., Path]


def accuracy(folder: Path, objective: str, readout: str, seed: int) -> float:
    content = json.loads((folder / f"runs/{objective}-seed{seed}/results.json").read_text(encoding="utf-8"))
    return 100 * float(content["readouts"][readout]["test_accuracy"])


def set_accuracy(folder: Path, objective: str, readout: str, values: dict[int, float]) -> None:
    for seed, value in values.items():
        path = folder / f"runs/{objective}-seed{seed}/results.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        content["readouts"][readout]["test_accuracy"] = value
        path.write_text(json.dumps(content), encoding="utf-8")


def row(folder: Path, method: str) -> Row:
    return next(row for row in comparison_rows(read_comparison(folder)) if row.method == method)


def test_rows_are_methods_by_readouts_in_the_stated_order(full_comparison: Path) -> None:
    rows = comparison_rows(read_comparison(full_comparison))
    assert [row.method for row in rows[:3]] == ["NCMI-CC", "NCMI-LP", "CE"]
    assert "SupCon-LP" in [row.method for row in rows]
    others = [row.mean for row in rows[3:]]
    assert len(others) == 11
    assert others == sorted(others, reverse=True)
    assert [row.method for row in rows if row.is_baseline] == ["CE"]


@pytest.mark.parametrize(
    ("method", "objective", "readout"),
    [("NCMI-CC", "ncmi", "cc"), ("NCMI-LP", "ncmi", "lp"), ("Focal", "focal", "head"), ("SupCon-LP", "supcon", "lp")],
)
def test_moments_and_paired_interval(full_comparison: Path, method: str, objective: str, readout: str) -> None:
    own = np.array([accuracy(full_comparison, objective, readout, seed) for seed in range(5)])
    base = np.array([accuracy(full_comparison, "cross_entropy", "head", seed) for seed in range(5)])
    found = row(full_comparison, method)
    assert found.mean == pytest.approx(own.mean(), abs=1e-12)
    assert found.sd == pytest.approx(math.sqrt(((own - own.mean()) ** 2).sum() / 4), abs=1e-12)
    assert found.difference is not None
    assert found.difference.mean == pytest.approx((own - base).mean(), abs=1e-12)
    expected = stats.ttest_rel(own, base).confidence_interval(0.95)
    assert found.difference.interval == pytest.approx((expected.low, expected.high), abs=1e-9)
    significant = stats.ttest_rel(own, base).pvalue < 0.05
    assert bool(found.difference.sign) == significant


def test_cost_and_information(full_comparison: Path) -> None:
    results = [
        json.loads((full_comparison / f"runs/poly-seed{seed}/results.json").read_text(encoding="utf-8"))
        for seed in range(5)
    ]
    found = row(full_comparison, "PolyLoss")
    assert found.epoch_seconds == np.median([result["epoch_seconds"] for result in results])
    assert found.peak_memory_mb == max(result["peak_memory_mb"] for result in results)
    for name in ("cmi", "separation", "ncmi"):
        assert getattr(found, name) == pytest.approx(np.mean([r["information"][name] for r in results]))


def test_pairs_are_only_the_common_seeds(new_comparison: NewComparison) -> None:
    folder = new_comparison(seeds=range(5), missing=[("ncmi", 0)], unfinished=[("cross_entropy", 3)])
    found = row(folder, "NCMI-CC")
    assert found.seeds == (1, 2, 3, 4)
    assert found.difference is not None
    assert found.difference.seeds == (1, 2, 4)
    expected = [accuracy(folder, "ncmi", "cc", s) - accuracy(folder, "cross_entropy", "head", s) for s in (1, 2, 4)]
    assert found.difference.values == pytest.approx(expected)
    half = stats.t.ppf(0.975, 2) * np.std(expected, ddof=1) / math.sqrt(3)
    assert found.difference.interval == pytest.approx((np.mean(expected) - half, np.mean(expected) + half))


def test_the_same_seed_on_another_split_is_no_pair(new_comparison: NewComparison) -> None:
    folder = new_comparison(seeds=range(3))
    path = folder / "runs/ncmi-seed1/recipe.json"
    recipe = json.loads(path.read_text(encoding="utf-8"))
    recipe["data"]["split_seed"] = 17
    path.write_text(json.dumps(recipe), encoding="utf-8")
    difference = row(folder, "NCMI-CC").difference
    assert difference is not None
    assert difference.seeds == (0, 2)


def test_one_seed_has_no_deviation_and_no_interval(new_comparison: NewComparison) -> None:
    found = row(new_comparison(seeds=[4]), "NCMI-LP")
    assert math.isnan(found.sd)
    assert found.interval is None
    assert found.difference is not None
    assert found.difference.interval is None
    assert found.difference.sign == 0
    assert math.isnan(found.difference.wilcoxon_p)


def test_without_baseline_there_are_no_differences(new_comparison: NewComparison) -> None:
    folder = new_comparison(["ncmi", "focal"], seeds=range(2))
    assert [row.difference for row in comparison_rows(read_comparison(folder))] == [None] * 3


def test_a_seed_that_occurs_twice_is_an_error(new_comparison: NewComparison) -> None:
    folder = new_comparison(seeds=range(2))
    path = folder / "runs/ncmi-seed1/recipe.json"
    path.write_text((folder / "runs/ncmi-seed0/recipe.json").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(ReportError, match="NCMI has seed 0 twice: remove one of the two runs"):
        comparison_rows(read_comparison(folder))


def test_differences_without_spread_count_as_indistinguishable(new_comparison: NewComparison) -> None:
    folder = new_comparison(seeds=range(2))
    # float32 leaves a difference of 6e-6 points between the two
    set_accuracy(folder, "ncmi", "cc", {0: float(np.float32(355 / 359)), 1: float(np.float32(353 / 359))})
    set_accuracy(folder, "cross_entropy", "head", {0: float(np.float32(351 / 359)), 1: float(np.float32(349 / 359))})
    difference = row(folder, "NCMI-CC").difference
    assert difference is not None
    assert difference.too_coarse
    assert difference.interval == pytest.approx((400 / 359, 400 / 359), abs=1e-3)
    assert difference.sign == 0


def test_means_over_fewer_seeds_are_never_the_best(new_comparison: NewComparison) -> None:
    folder = new_comparison(["ncmi", "cross_entropy", "focal"], seeds=range(2), missing=[("focal", 1)])
    set_accuracy(folder, "focal", "head", {0: 1.0})
    rows = comparison_rows(read_comparison(folder))
    assert "Focal" not in [row.method for row in complete_rows(rows)]
    assert "Focal" not in [row.method for row in best_rows(rows)]


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=12))
def test_interval_equals_scipy(values: list[float]) -> None:
    found = t_interval(values)
    assert found is not None
    spread = float(np.std(values, ddof=1))
    if spread == 0:
        assert found == pytest.approx((values[0], values[0]))
    else:
        expected = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_signed_rank_p() -> None:
    # all 2^5 signs are equally likely: the most extreme two of them
    assert wilcoxon_p([0.1, 0.2, 0.3, 0.4, 0.5]) == pytest.approx(2 / 32)
    assert math.isnan(wilcoxon_p([0.1, 0.2, 0.3, 0.4]))
    assert wilcoxon_p([0.0] * 5) == 1.0
    # accuracies that went through float32
    single = [100 * float(np.float32(k / 359) - np.float32(350 / 359)) for k in (351, 352, 350, 349, 353)]
    assert wilcoxon_p(single) == pytest.approx(stats.wilcoxon([1, 2, 0, -1, 3]).pvalue)
    # in floating point 97.5 - 97.2 and 98.1 - 97.8 are not the same number
    broken = [97.5 - 97.2, 98.1 - 97.8, 97.2 - 97.5, 98.4 - 97.8, 98.3 - 97.4]
    assert wilcoxon_p(broken) == pytest.approx(stats.wilcoxon([1, 1, -1, 2, 3]).pvalue)
