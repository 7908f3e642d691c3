"""The study of NCMI's default: its statistics against published figures, its choices, and that it can be stopped."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks lie beside the package in a checkout only")

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


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import a benchmark's module by name, as its script does; forgotten afterwards."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_ranks_and_critical_differences_are_the_published_ones(bench: Any) -> None:
    module = bench("_study_statistics")
    np.testing.assert_allclose(module.ranks(AUC).mean(0), [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    for alpha, table in ((0.05, Q_05), (0.10, Q_10)):
        np.testing.assert_allclose([module.studentised(k, alpha) for k in range(2, 11)], table, atol=1.5e-3)
    assert module.critical_difference(4, 14, 0.10) == pytest.approx(1.12, abs=5e-3)  # as in its section 3.2.4


def test_friedman_and_holm_against_their_definitions(bench: Any) -> None:
    module = bench("_study_statistics")
    scores = np.random.default_rng(0).normal(size=(9, 5)) + np.arange(5) / 3
    sets, methods = scores.shape
    average = stats.rankdata(-scores, axis=1).mean(0)
    chi_square = 12 * sets / (methods * (methods + 1)) * ((average**2).sum() - methods * (methods + 1) ** 2 / 4)
    found = module.friedman(scores)
    assert found.chi_square == pytest.approx(chi_square)
    assert found.p == pytest.approx(stats.chi2.sf(chi_square, methods - 1))
    assert found.f == pytest.approx((sets - 1) * chi_square / (sets * (methods - 1) - chi_square))
    assert module.friedman(np.ones((4, 3))).p == 1.0
    # smallest times 3, next times 2, never below the one before
    assert module.holm([0.02, 0.001, math.nan, 0.015])[:2] == pytest.approx([0.03, 0.003])
    assert module.holm([0.02, 0.001, math.nan, 0.015])[3] == pytest.approx(0.03)
    assert math.isnan(module.holm([0.5, math.nan])[1])


def test_cliques_are_the_largest_groups_within_the_difference(bench: Any) -> None:
    module = bench("_study_statistics")
    random = np.random.default_rng(1)
    for _ in range(30):
        values = sorted(random.uniform(1, 6, size=6).round(2).tolist())
        within = {(a, b) for a, b in itertools.combinations(range(6), 2) if values[b] - values[a] <= 1.5}
        largest = {(a, b) for a, b in within if not any(c <= a and b <= d for c, d in within - {(a, b)})}
        assert set(module.cliques(values, 1.5)) == largest


def test_a_lucky_neighbour_gains_less_on_seeds_it_was_not_chosen_on(bench: Any) -> None:
    module = bench("_study_statistics")
    noise = np.random.default_rng(2).normal(size=(8, 6))
    scores = {str(place): dict(enumerate(row)) for place, row in enumerate(noise)}
    found = module.neighbourhood(scores, "0")
    gains = []
    for half in itertools.combinations(range(6), 3):
        rest = [seed for seed in range(6) if seed not in half]
        chosen = noise[:, list(half)].mean(1).argmax()
        gains.append((noise[chosen] - noise[0])[rest].mean())
    assert found.honest == pytest.approx(np.mean(gains))
    assert found.gain.mean == pytest.approx(noise.mean(1).max() - noise[0].mean())
    assert found.honest < found.gain.mean
    same = module.neighbourhood({"default": {0: 1.0, 1: 2.0}, "other": {0: 1.0, 1: 2.0}}, "default")
    assert (same.best, same.honest, same.times) == ("default", 0.0, same.halvings)


def fake_study(bench: Any, accuracy: Any) -> Any:
    """A study whose runs have the validation accuracy that a function of the setting gives; test would choose else."""
    jobs, module = bench("_study_jobs"), bench("_study_search")

    def get(job: Any) -> Any:
        value = accuracy(job.setting)
        if value is None:
            return None
        readouts = {"head": {"validation_accuracy": value, "test_accuracy": 1 - value}}
        return jobs.Record({"primary_readouts": ["head"], "readouts": readouts})

    return module.Study(store=SimpleNamespace(get=get), sets=("digits",))


def test_the_search_is_by_validation_and_in_two_stages(bench: Any) -> None:
    methods, search = bench("_study_methods"), bench("_study_search").search
    grid = ({"epsilon": 0.05}, {"epsilon": 0.2})
    smoothing = methods.Method("ls", "LS", "label_smoothing", rates=(1.0, 0.5, 2.5), grid=grid)
    usual = bench("_study_search").base_job("digits", smoothing).recipe().training.learning_rate

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
    assert (unknown.choice, len(unknown.jobs)) == (None, 15)
    study = fake_study(bench, accuracy)
    tuning = {job.seed for job in found.jobs}
    assert tuning == {100, 101, 102, 103, 104}
    assert not tuning & set(study.final_seeds("digits"))
    # NCMI is not searched
    assert search(study, "digits", methods.NCMI).jobs == ()


def test_learning_rates_follow_the_batch(bench: Any) -> None:
    plan, methods = bench("_study_plan"), bench("_study_methods")
    study = fake_study(bench, lambda setting: 0.5)
    base, sgd_base = (
        bench("_study_search").base_job(name, methods.NCMI).recipe().training for name in ("digits", "cifar100")
    )
    assert (base.optimiser, sgd_base.optimiser) == ("adamw", "sgd")
    quarter = base.batch_size // 4
    assert dict(plan.batch_setting(study, "digits", methods.NCMI, quarter)[0].training) == {
        "batch_size": quarter,
        "learning_rate": pytest.approx(base.learning_rate / 2),
        "centroid_learning_rate": pytest.approx(base.centroid_learning_rate / 2),
    }
    sgd = dict(plan.batch_setting(study, "cifar100", methods.NCMI, 4 * sgd_base.batch_size)[0].training)
    assert sgd["learning_rate"] == pytest.approx(4 * sgd_base.learning_rate)
    unscaled = plan.batch_setting(replace(study, scale_rate=False), "digits", methods.NCMI, quarter)[0]
    assert dict(unscaled.training) == {"batch_size": quarter}


def test_a_record_counts_only_for_its_own_recipe(bench: Any, tmp_path: Path) -> None:
    jobs = bench("_study_jobs")
    job = jobs.Job("wine", jobs.Setting.of("focal", {"gamma": 0.7}), 3)
    recipe = importlib.import_module("ncmi.recipes").recipe_to_dict(job.recipe())
    path = tmp_path / job.path
    path.parent.mkdir(parents=True)

    def known(**changes: Any) -> bool:
        path.write_text(json.dumps({"format": 1, "recipe": {**recipe, **changes}}))
        return jobs.Store(tmp_path).get(job) is not None

    assert known()
    # as one of a version whose recipes did not have this field yet
    assert known(data={name: value for name, value in recipe["data"].items() if name != "label_column"})
    assert not known(training={**recipe["training"], "epochs": 7})
    assert not known(objective={**recipe["objective"], "gamma": 0.8})
    path.write_text("{")
    assert jobs.Store(tmp_path).get(job) is None
    with pytest.raises(jobs.StudyError, match="does not know it"):
        jobs.Job("wine", jobs.Setting.of("focal", {"nonsense": 1}), 0).recipe()


def test_nuclei_of_an_image_are_in_one_part(bench: Any, tmp_path: Path) -> None:
    groups = np.repeat(np.arange(100, dtype=np.uint8), 8)
    images = np.broadcast_to(groups[:, None, None, None], (800, 27, 27, 3)).copy()
    labels = np.tile(np.arange(4, dtype=np.uint8), 200)
    names = np.array(["a", "b", "c", "d"])
    np.savez(tmp_path / "colon_nuclei27.npz", x=images, bag=groups, nucleus_class=labels, class_names=names)
    loaded = bench("_study_sets").load_set("colon_nuclei", [tmp_path], 1)
    found = loaded.dataset.inputs[:, 0, 0, 0]
    start = len(found) - len(loaded.dataset.fixed_test)
    parts = [set(part.tolist()) for part in found.tensor_split([start, start + loaded.validation_rows])]
    assert [len(part) for part in parts] == [60, 20, 20]
    assert len(set.union(*parts)) == 100
    assert torch.bincount(loaded.dataset.labels[:start]).tolist() == [120] * 4


def test_superclasses_and_headless_tables(bench: Any, tmp_path: Path) -> None:
    module = bench("_study_loaders")
    names = sorted(name for group in module.COARSE.values() for name in group.split())
    assert len(set(names)) == 100
    labels = module.coarse_labels(names, torch.tensor([names.index("orchid"), names.index("tank")]))
    assert labels.tolist() == [2, 19]
    (tmp_path / "vowel.dat").write_text("0,1, 0, 1.5,-2, b\n1,2,0,3,4,a\n")
    dataset = module.keel((tmp_path,), "vowel", "vowel.dat", 3)
    assert dataset.inputs.tolist() == [[1.5, -2.0], [3.0, 4.0]]
    assert (dataset.labels.tolist(), dataset.class_names) == ([1, 0], ("a", "b"))


@pytest.mark.parametrize(
    ("sets", "told"), [(4, "there is no such test"), (6, "no difference can"), (8, "nearly all sets")]
)
def test_ranks_say_what_the_data_sets_can_show(bench: Any, sets: int, told: str) -> None:
    jobs, tables, methods = bench("_study_jobs"), bench("_study_tables"), bench("_study_methods").TRANSFER[:4]

    def outcome(mean: float) -> Any:
        contents = [
            {"primary_readouts": ["head"], "readouts": {"head": {"test_accuracy": mean + shift}}}
            for shift in (-0.01, 0.01)
        ]
        records = {seed: jobs.Record(content) for seed, content in enumerate(contents)}
        return tables.Outcome(jobs.Setting("any"), records, "primary")

    outcomes = {
        str(name): {one.name: outcome(0.8 - place / 100 - name / 1000 * place) for place, one in enumerate(methods)}
        for name in range(sets)
    }
    report = tables.Report()
    text = bench("_study_ranks").ranking(report, methods, outcomes)
    assert told in text
    assert list(report.figures["ranks"]["average"].values()) == [1, 2, 3, 4]
    assert report.pictures["critical-difference"].startswith(b"\x89PNG")
    if sets == 8:
        # the least p three times, the smallest by Holm times 3
        assert text.count("| 0.00781 | 0.0234 |") == 3


def test_pictures(bench: Any) -> None:
    module, style = bench("_study_figures"), importlib.import_module("ncmi.reports.figures.palette").KNOWN["ncmi"]
    png = module.difference_diagram({"NCMI": 1.5, "CE": 2.0, "Focal": 3.0}, 1.0, 8, "NCMI")
    curves = module.accuracy_curves({"iris": [("NCMI", [[1.0, 2.0], [2.0, 3.0]], style)]})
    assert png.startswith(b"\x89PNG")
    assert curves.startswith(b"\x89PNG")


def test_it_goes_on_where_it_was_stopped(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = (
        f"study.py transfer --tiny --sets iris --methods ncmi cross_entropy --rates 1 2 --out {out} --workers".split()
    )
    command = [sys.executable, str(BENCHMARKS / words[0]), *words[1:], "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 200
    while len(list(out.glob("runs/iris/*.json"))) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/iris/*.json")}
    assert 2 <= len(before) < 6

    monkeypatch.setattr(sys, "argv", [*words, "0"])
    assert bench("study").main() == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # 2 of the search and 2 × 2 final ones
    assert len(list(out.glob("runs/iris/*.json"))) == 6
    assert [path.name for path in out.iterdir() if path.is_dir()] == ["runs"]
    printed = capsys.readouterr().out
    assert "### Test accuracy, %" in printed
    content = json.loads((out / "transfer.json").read_text())
    assert content["sets"]["iris"]["ncmi"]["seeds"] == [0, 1]
    assert sum(one["runs"] for one in content["code"]) == 6
    assert content["machine"]["torch"] == torch.__version__
    monkeypatch.setattr(sys, "argv", [*words, "0", "--dry-run"])
    assert bench("study").main() == 0
    assert capsys.readouterr().out.startswith("0 runs, 0 s")
