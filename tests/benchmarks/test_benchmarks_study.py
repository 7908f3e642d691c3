"""The study of NCMI's default: its statistics against published figures, its choices, and that it can be stopped."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

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


def fake_study(bench: Any, accuracy: Any, **options: Any) -> Any:
    """A study whose runs have the validation accuracy that a function of the setting gives; test would choose else."""
    plan = bench("_study_plan")

    class Fake(plan.Study):
        def get(self, run: Any) -> Any:
            value = accuracy(run.setting)
            if value is None:
                return None
            return plan.Record("head", {"head": {"validation_accuracy": value, "test_accuracy": 1 - value}})

    return Fake(Path("nowhere"), ("digits",), **options)


def test_the_search_is_by_validation_and_in_two_stages(bench: Any) -> None:
    plan = bench("_study_plan")
    search = plan.search
    grid = ({"epsilon": 0.05}, {"epsilon": 0.2})
    smoothing = plan.Method("ls", "LS", "label_smoothing", rates=(1.0, 0.5, 2.5), grid=grid)
    usual = plan.usual_recipe("digits", smoothing).training.learning_rate

    def accuracy(setting: Any) -> float:
        rate, epsilon = dict(setting.training).get("learning_rate", usual), dict(setting.options).get("epsilon", 0.1)
        return 0.5 + rate / usual / 100 + (0.1 if epsilon == 0.2 else 0.0)

    found = search(fake_study(bench, accuracy), "digits", smoothing)
    assert [(one.rate, dict(one.options)) for one in found.tried] == [
        (1.0, {}),
        (0.5, {}),
        (2.5, {}),
        (2.5, {"epsilon": 0.05}),
        (2.5, {"epsilon": 0.2}),
    ]
    assert dict(found.choice.setting.options) == {"epsilon": 0.2}
    assert dict(found.choice.setting.training) == {"learning_rate": pytest.approx(2.5 * usual)}
    tie = search(fake_study(bench, lambda setting: 0.5), "digits", smoothing)
    assert (tie.choice.rate, tie.choice.options) == (1.0, {})
    unknown = search(fake_study(bench, lambda setting: None), "digits", smoothing)
    assert (unknown.choice, len(unknown.runs)) == (None, 15)
    study = fake_study(bench, accuracy)
    tuning = {run.seed for run in found.runs}
    assert tuning == {100, 101, 102, 103, 104}
    assert not tuning & {run.seed for run in study.final_runs("digits", found.choice.setting)}
    # NCMI is not searched
    assert search(study, "digits", plan.NCMI).runs == ()


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
    with pytest.raises(plan.StudyError, match="does not know it"):
        plan.Run("wine", plan.Setting.of("focal", {"nonsense": 1}), 0).recipe()


def test_headless_tables(bench: Any, tmp_path: Path) -> None:
    module = bench("_study_sets")
    (tmp_path / "vowel.dat").write_text("0,1, 0, 1.5,-2, b\n1,2,0,3,4,a\n")
    arrays = module.keel((tmp_path,), "vowel.dat", 3)
    assert arrays["x"].tolist() == [[1.5, -2.0], [3.0, 4.0]]
    assert (arrays["y"].tolist(), arrays["class_names"].tolist()) == ([1, 0], ["a", "b"])
    # what the library reads of it
    recipe = bench("_study_plan").Run("vowel", bench("_study_plan").Setting.of("ncmi"), 0).recipe()
    path = Path(module.placed(recipe, (tmp_path,), tmp_path / "made").data.name)
    dataset = importlib.import_module("ncmi.data.load").load_dataset(str(path))
    assert (dataset.labels.tolist(), dataset.class_names, dataset.kind) == ([1, 0], ("a", "b"), "table")


@pytest.mark.parametrize(("sets", "told"), [(4, "possible p is 0.125"), (8, "possible p is 0.00781")])
def test_ranks_say_what_the_data_sets_can_show(bench: Any, sets: int, told: str) -> None:
    tables, methods = bench("_study_tables"), bench("_study_plan").TRANSFER[:4]
    scores = {
        str(name): pd.DataFrame(
            {
                method.name: np.array([0.79, 0.81]) - place / 100 * (1 + name / 10)
                for place, method in enumerate(methods)
            }
        )
        for name in np.arange(sets)
    }
    report = tables.Report()
    text = tables.ranking(report, {method.name: method.label for method in methods}, scores)
    assert told in text
    assert list(report.figures["ranks"]["average"].values()) == [1, 2, 3, 4]
    assert report.pictures["critical-difference"].startswith(b"\x89PNG")
    if sets == 8:
        # the least p three times, the smallest by Holm times 3
        assert text.count("| 0.00781 | 0.0234 |") == 3


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("transfer", ("Settings chosen", "| digits | **79.05 ± 0.07** |", "won/tied/lost")),
        ("neighborhood", ("What choosing a neighbor would gain", "default")),
        ("noise", ("symmetric, 40 % wrong", "right labels", "better of GCE and SCE", "robustness auto")),
        ("batch", ("| digits, batch | 8 | 32 |", "✓")),
        ("tail", ("balanced accuracy", "100 times")),
        ("curves", ("digits, after epoch | 1 | 2 |", "NCMI − Cross-entropy")),
    ],
)
def test_every_part_has_its_tables(bench: Any, tmp_path: Path, part: str, words: tuple[str, ...]) -> None:
    plan, command = bench("_study_plan"), bench("study")

    class Fake(plan.Study):
        def get(self, run: Any) -> Any:
            # NCMI is half a point better than the others
            value = 0.785 + 0.005 * (run.setting.objective == "ncmi") + run.seed / 1000
            measures = dict.fromkeys(plan.MEASURES, value)
            readouts = dict.fromkeys(("head", "cc", "lp", "knn"), measures)
            return self.known.setdefault(run, plan.Record("head", readouts, [value - 0.1, value], 1.0, "abc"))

    study = Fake(tmp_path, ("digits",), seeds=2, tune_seeds=1)
    text = command.write_report(part, study)
    assert all(word in text for word in words), text
    content = json.loads((tmp_path / f"{part}.json").read_text())
    assert content["open_runs"] == 0
    if part == "curves":
        assert (tmp_path / "curves-curves.png").read_bytes().startswith(b"\x89PNG")
    assert content["code"] == [{"commit": "abc", "runs": len(study.known)}]
    assert "digits" in content["sets"]


def test_a_report_without_runs_says_that_they_are_missing(bench: Any, tmp_path: Path) -> None:
    plan, command = bench("_study_plan"), bench("study")
    for part in command.PARTS:
        text = command.write_report(part, plan.Study(tmp_path, ("digits",), seeds=1))
        assert "of this plan still to be made" in text
        assert json.loads((tmp_path / f"{part}.json").read_text())["sets"] == {}


def test_it_goes_on_where_it_was_stopped(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    most = 2

    def one_by_one(work: Any, tasks: dict[str, Any], workers: int, on_run: Any, before: Any) -> dict[str, str]:
        """As the library's queue, in this process; the user stops it after so many runs."""
        before(lambda asked, *arguments: asked(*arguments))
        for count, (path, content) in enumerate(tasks.items()):
            if count == most:
                raise KeyboardInterrupt
            on_run(Path(path).name, work(path, content))
        return {}

    monkeypatch.setattr("ncmi.training.comparison.run_side_by_side", one_by_one)
    out = tmp_path / "out"
    words = [
        "transfer",
        "--epochs",
        "2",
        "--seeds",
        "2",
        "--tune-seeds",
        "1",
        "--sets",
        "iris",
        "--methods",
        "ncmi",
        "cross_entropy",
    ]
    monkeypatch.setattr(sys, "argv", ["study.py", *words, "--out", str(out)])
    assert bench("study").main() == 130
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/iris/*/results.json")}
    assert len(before) == 2

    most = 100
    assert bench("study").main() == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # 3 of the search and 2 × 2 final ones
    assert len(list(out.glob("runs/iris/*/results.json"))) == 7
    assert not list(out.rglob("model.safetensors"))
    printed = capsys.readouterr().out
    assert "### Test accuracy, %" in printed
    content = json.loads((out / "transfer.json").read_text())
    assert content["sets"]["iris"]["ncmi"]["seeds"] == [0, 1]
    assert sum(one["runs"] for one in content["code"]) == 7
    assert content["machine"]["torch"] == torch.__version__
