"""Learning rates chosen by each run's own validation part: which are tried, which is kept, and what is left of it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from training_helpers import made_up_results, made_up_scores

from ncmi.files import write_json
from ncmi.readouts.scores import ClassScores, Estimate, Scores
from ncmi.recipes import BagData, ImageData, Recipe, TableData, Training, recipe_from_dict, recipe_to_dict
from ncmi.training import comparison, rehearsal
from ncmi.training.comparison import ComparisonError, Plan, compare, entries_of, processors_of
from ncmi.training.run_folder import RunFolderError
from ncmi.training.schema import (
    TUNING,
    Readout,
    Results,
    TriedRate,
    TuningRecord,
    read_record,
    tuning_in_words,
    write_record,
)
from ncmi.training.tuning import BROKE_DOWN, MULTIPLES, RateSearch, best_of, metric_of, try_rate

RECIPE = Recipe(TableData("tables/wine.csv"), training=Training(learning_rate=0.008, centroid_learning_rate=0.002))
START = [1 / 256, 1 / 64, 1 / 16, 1 / 4, 1.0, 4.0]


def results_of(recipe: Recipe, validation: Scores | None, test: float = 0.5) -> Results:
    """Judged by the head; what a second read-out says is nobody's business."""
    other = Readout(test=made_up_scores(0.9), validation=made_up_scores(0.9))
    return made_up_results(recipe, head=Readout(test=made_up_scores(test), validation=validation), cc=other)


class World:
    """Trials that are not trained: their validation accuracy is a function of the rate's multiple, their test accuracy
    the opposite, so that a choice by the test part would be another one. None breaks down."""

    def __init__(self, accuracy: Callable[[float], float | None]) -> None:
        self.accuracy, self.made = accuracy, list[float]()

    def try_rate(self, path: str, content: dict[str, Any], imports: tuple[str, ...] = ()) -> Results | None:
        recipe = recipe_from_dict(content)
        if (Path(path) / "results.json").exists():  # training looks at it once more
            return read_record(Path(path) / "results.json", Results)
        multiple = recipe.training.learning_rate / RECIPE.training.learning_rate
        assert recipe.training.centroid_learning_rate == pytest.approx(multiple * 0.002)
        assert Path(path).name.endswith(f"-rate{multiple:g}")
        self.made.append(multiple)
        Path(path).mkdir(parents=True, exist_ok=True)
        value = self.accuracy(multiple)
        if value is None:
            write_json(Path(path) / BROKE_DOWN, {"error": "nan"})
            return None
        results = results_of(recipe, made_up_scores(value), test=1 - value)
        write_record(Path(path) / "results.json", results)
        return results


def peak_at(multiple: float) -> Callable[[float], float]:
    return lambda each: 0.9 - 0.01 * abs(math.log2(each / multiple))


def work_off(search: RateSearch, world: World, rng: random.Random | None = None, most: int = 10**9) -> None:
    """As processes would, which end in any order; stopped after so many trials."""
    hand: dict[str, Any] = {}
    while most > 0:
        if not hand or (rng is not None and rng.random() < 0.5):
            hand |= search.more()
        if not hand:
            return
        path = rng.choice(sorted(hand)) if rng is not None else next(iter(hand))
        search.finished(Path(path).name, world.try_rate(path, hand.pop(path)))
        most -= 1


def searched(folder: Path, runs: int, heard: dict[str, Results]) -> RateSearch:
    recipes = {str(folder / f"runs/ncmi-seed{seed}"): RECIPE for seed in range(runs)}
    return RateSearch(recipes, folder / "trials", heard.__setitem__)


@pytest.mark.parametrize("peak", [1 / 1024, 1 / 512, 1 / 32, 1.0, 2.0, 8.0, 16.0])
def test_the_best_rate_is_found_and_its_trial_becomes_the_run(peak: float, tmp_path: Path) -> None:
    world, heard = World(peak_at(peak)), dict[str, Results]()
    search = searched(tmp_path, 1, heard)
    work_off(search, world)
    assert world.made[:6] == START
    assert len(set(world.made)) == len(world.made) == 8 + (not 1 / 256 < peak < 8)
    record = read_record(tmp_path / "runs/ncmi-seed0" / TUNING, TuningRecord)
    assert (record.multiple, record.metric) == (peak, "accuracy")
    assert record.at_end == (peak in (1 / 1024, 16.0))
    assert [one.multiple for one in record.tried] == sorted(world.made)
    assert [one.score for one in record.tried] == [peak_at(peak)(one.multiple) for one in record.tried]
    # both neighbors of the best are known, unless the grid ends there
    assert {peak / 2, peak * 2} & set(MULTIPLES.points) <= set(world.made)
    kept = read_record(tmp_path / "runs/ncmi-seed0/results.json", Results)
    assert heard == {"ncmi-seed0": kept}
    assert kept.readouts["head"].test.accuracy.value == pytest.approx(0.1)  # the worst by the test part
    # nothing of the others, whose test results are nobody's business
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert not search.failures


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.sampled_from([None, 0.2, 0.4, 0.6, 0.8]), min_size=15, max_size=15),
    seed=st.integers(0, 10**6),
    stops=st.lists(st.integers(0, 12), max_size=4),
)
def test_neither_the_order_of_trials_nor_a_stop_changes_the_choice(
    tmp_path_factory: pytest.TempPathFactory, values: list[float | None], seed: int, stops: list[int]
) -> None:
    by_multiple = dict(zip(MULTIPLES.points, values, strict=True))
    folders = [tmp_path_factory.mktemp("search") for _ in range(2)]
    worlds = [World(by_multiple.__getitem__) for _ in folders]
    heard: list[dict[str, Results]] = [{}, {}]
    plain = searched(folders[0], 2, heard[0])
    work_off(plain, worlds[0])
    rng = random.Random(seed)
    for most in stops:
        work_off(searched(folders[1], 2, heard[1]), worlds[1], rng, most)
    other = searched(folders[1], 2, heard[1])
    work_off(other, worlds[1], rng)
    # no trial twice, but for those that broke down
    for whole in (True, False):
        made = [[one for one in world.made if (by_multiple[one] is not None) == whole] for world in worlds]
        assert sorted(made[0]) == sorted(made[1]) if whole else set(made[0]) == set(made[1])
    assert heard[0] == heard[1]
    assert sorted(plain.failures.values()) == sorted(other.failures.values())
    for one in heard[0]:
        records = [read_record(folder / "runs" / one / TUNING, TuningRecord) for folder in folders]
        assert records[0] == records[1]
        known = {each.multiple: each.score for each in records[0].tried}
        assert set(START) <= set(known)
        best = max(score for score in known.values() if score is not None)
        assert known[records[0].multiple] == best
        if known[1.0] == best:
            assert records[0].multiple == 1.0
    if all(by_multiple[multiple] is None for multiple in START):
        assert not heard[0]
        assert all("broke down at every learning rate" in reason for reason in plain.failures.values())


def test_of_equals_the_usual_rate_or_else_the_lowest_is_taken() -> None:
    usual = MULTIPLES.points.index(1.0)
    assert best_of({2: 0.5, usual: 0.5, 12: 0.5}) == usual
    assert best_of({2: 0.5, usual: 0.4, 12: 0.5}) == 2
    # which is not a matter of rounding
    assert best_of({2: 0.1 + 0.2, usual: 0.3}) == usual


def test_what_rates_are_judged_by() -> None:
    table = results_of(RECIPE, None)
    assert metric_of(table) == "accuracy"
    assert metric_of(msgspec.structs.replace(table, kind="bags")) == "macro_auc"
    nothing = Estimate(value=None)
    classes = [
        ClassScores(name=name, support=support, precision=nothing, recall=nothing, f1=nothing)
        for name, support in (("a", 900), ("b", 20))
    ]
    scores = msgspec.structs.replace(made_up_scores(0.5), samples=920, classes=classes)
    unequal = msgspec.structs.replace(table, readouts={"head": Readout(test=scores)})
    assert unequal.readouts["head"].test.unequal
    assert metric_of(unequal) == "macro_f1"


@pytest.mark.parametrize("scores", [None, made_up_scores(None)])
def test_a_run_without_a_validation_score_has_no_rate_and_the_others_have(
    scores: Scores | None, tmp_path: Path
) -> None:
    world, heard = World(peak_at(1.0)), dict[str, Results]()
    search = searched(tmp_path, 2, heard)
    first = list(search.more())
    for path in first:  # of which some are still in hand when the first comes back
        search.finished(Path(path).name, results_of(RECIPE, scores))
    work_off(search, world)
    assert list(heard) == ["ncmi-seed1"]
    ((path, reason),) = search.failures.items()
    assert path.endswith("ncmi-seed0")
    assert "no accuracy of its validation part" in reason


def test_a_loss_that_is_no_longer_finite_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks_down(path: str, content: dict[str, Any], imports: tuple[str, ...]) -> Results:
        raise FloatingPointError("the loss is nan")

    monkeypatch.setattr("ncmi.training.tuning.train_one", breaks_down)
    assert try_rate(str(tmp_path), {}) is None
    assert "the loss is nan" in (tmp_path / BROKE_DOWN).read_text()


def test_a_diverging_loss_is_a_rate_that_breaks_down(tmp_path: Path) -> None:
    """As for every other loss: NCMI looks for values that are not finite before the loop does."""
    training = replace(Training(epochs=3, accelerator="cpu"), learning_rate=1e25, centroid_learning_rate=1e25)
    recipe = Recipe(TableData("wine"), training=training)
    assert try_rate(str(tmp_path / "trial"), recipe_to_dict(recipe)) is None
    assert (tmp_path / "trial" / BROKE_DOWN).exists()
    # at a rate that is none the worse for it the note goes
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / BROKE_DOWN).write_text("{}")
    calm = replace(recipe, training=Training(epochs=1, accelerator="cpu"))
    assert try_rate(str(tmp_path / "other"), recipe_to_dict(calm)) is not None
    assert not (tmp_path / "other" / BROKE_DOWN).exists()


def test_a_plan_that_leaves_nothing_to_choose_by(tmp_path: Path) -> None:
    images = entries_of(Recipe(ImageData("digits", train_on_all=True)), ["ncmi"])
    with pytest.raises(ComparisonError, match="--tune needs a validation part that is not trained on"):
        Plan(images, (0,), tune=True)
    Plan(images, (0,))
    for data in (TableData("iris", validation_fraction=0.0), TableData("iris", test_fraction=0.0)):
        # without a test part the validation part takes its place
        plan = Plan(entries_of(Recipe(data), ["ncmi"]), (0,), tune=True)
        with pytest.raises(
            ComparisonError, match=r"nothing was begun: 1 of 1 .* needs a validation part beside the test"
        ):
            compare(plan, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_how_much_it_is() -> None:
    plan = Plan(entries_of(RECIPE, ["ncmi"]), (0,), workers=64, tune=True)
    assert "8 or 9 learning rates" in plan.in_words()
    assert "learning rates" not in replace(plan, tune=False).in_words()
    # of a single run several trials go side by side
    assert (processors_of(plan), processors_of(replace(plan, tune=False))) == (6, 1)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Comparisons make their trials in it, in this process."""
    world = World(lambda multiple: 0.7)

    def in_this_process(
        work: Any, tasks: Mapping[str, Any], workers: int, on_run: Any, before: Any, more: Any
    ) -> dict[str, str]:
        before(lambda asked, *arguments: {})
        waiting, failures = dict(tasks), dict[str, str]()
        while waiting := waiting or more():
            path = next(iter(waiting))
            try:
                on_run(Path(path).name, work(path, waiting.pop(path)))
            except MemoryError as error:
                failures[path] = str(error)
        return failures

    monkeypatch.setattr("ncmi.training.tuning.try_rate", world.try_rate)
    monkeypatch.setattr(comparison, "run_side_by_side", in_this_process)
    return world


def test_a_comparison_is_tuned_or_is_not(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(entries_of(RECIPE, ["cross_entropy", "ncmi"]), (0, 1), tune=True)
    heard: list[str] = []
    compare(plan, tmp_path / "c", on_run=lambda name, results: heard.append(name))
    assert heard == [f"{name}-seed{seed}" for seed in (0, 1) for name in ("cross_entropy", "ncmi")]
    assert len(world.made) == 4 * 8
    heard.clear()
    compare(plan, tmp_path / "c", resume=True, on_run=lambda name, results: heard.append(name))
    assert len(world.made) == 4 * 8
    assert len(heard) == 4
    with pytest.raises(ComparisonError, match="was begun with --tune"):
        compare(replace(plan, tune=False), tmp_path / "c", resume=True)
    (tmp_path / "c/runs/ncmi-seed1/results.json").unlink()
    with pytest.raises(
        ComparisonError, match=r"1 of 4 runs failed: ncmi-seed1: .*is in the way and is no finished run"
    ):
        compare(plan, tmp_path / "c", resume=True)
    heard.clear()
    world.accuracy = lambda multiple: None
    with pytest.raises(ComparisonError, match="1 of 1 runs failed: ncmi-seed0: training broke down at every"):
        compare(replace(plan, entries=plan.entries[1:], seeds=(0,)), tmp_path / "broken")
    with FileLock(tmp_path / "broken/.lock"), pytest.raises(RunFolderError, match="another process"):
        compare(replace(plan, entries=plan.entries[1:], seeds=(0,)), tmp_path / "broken", resume=True)
    for name, value in (("RANK", 0), ("WORLD_SIZE", 2), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 2)):
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ComparisonError, match="without torchrun"):
        compare(plan, tmp_path / "launched")
    assert not (tmp_path / "launched").exists()


def test_what_fails_is_told_of_the_run_once(tmp_path: Path, world: World) -> None:
    def accuracy(multiple: float) -> float:
        if multiple > 1:
            raise MemoryError("not enough memory")
        return 0.7

    world.accuracy = accuracy
    plan = Plan(entries_of(RECIPE, ["ncmi"]), (0,), tune=True)
    with pytest.raises(ComparisonError, match="1 of 1 runs failed: ncmi-seed0: not enough memory") as caught:
        compare(plan, tmp_path / "c")
    assert caught.value.failures == {"ncmi-seed0": "not enough memory"}
    world.accuracy = peak_at(1 / 16)
    made = len(world.made)
    compare(plan, tmp_path / "c", resume=True)
    assert len(world.made) == made + 3  # what had failed, and the neighbors of the best


@pytest.mark.parametrize("networks", [["mean"], ["mean", "abmil"]])
def test_folds_and_networks_have_searches_of_their_own(networks: list[str], tmp_path: Path, world: World) -> None:
    bags = Recipe(BagData("cohort/features", folds=3), training=RECIPE.training)
    seen = dict[str, float]()

    def judged(path: str, content: dict[str, Any], imports: tuple[str, ...] = ()) -> Results:
        recipe = recipe_from_dict(content)
        multiple = recipe.training.learning_rate / RECIPE.training.learning_rate
        peak = 4.0**-recipe.data.fold if recipe.network.name == "mean" else 0.25
        scores = made_up_scores(0.5, macro_auc=peak_at(peak)(multiple))
        results = results_of(recipe, scores)
        seen[f"{recipe.network.name} {recipe.data.fold}"] = peak
        Path(path).mkdir(parents=True, exist_ok=True)
        write_record(Path(path) / "results.json", results)
        return results

    world.try_rate = judged  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ncmi.training.tuning.try_rate", judged)
        compare(Plan(entries_of(bags, ["ncmi"], networks), (0,), tune=True), tmp_path / "c")
    assert len(seen) == 3 * len(networks)
    for name, peak in seen.items():
        network, fold = name.split()
        record = read_record(tmp_path / f"c/runs/{network}-ncmi-seed0-fold{fold}" / TUNING, TuningRecord)
        assert (record.metric, record.multiple) == ("macro_auc", peak)


def test_data_that_has_changed_is_found_on_going_on(tmp_path: Path) -> None:
    lines = [f"{place % 7},{place % 3},{'ab'[place % 2]}" for place in range(60)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["x,z,label", *lines]))
    recipe = Recipe(TableData(str(path), label_column="label"), training=Training(epochs=1, accelerator="cpu"))
    plan = Plan(entries_of(recipe, ["cross_entropy"]), (0,), tune=True)
    compare(plan, tmp_path / "c")
    kept = (tmp_path / "c/runs/cross_entropy-seed0/results.json").read_bytes()
    path.write_text("\n".join(["x,z,label", "6,2,b", *lines[1:]]))
    rehearsal._LOADED.clear()  # as in another process
    with pytest.raises(ComparisonError, match=r"1 of 1 runs failed: cross_entropy-seed0: .*chang"):
        compare(plan, tmp_path / "c", resume=True)
    assert (tmp_path / "c/runs/cross_entropy-seed0/results.json").read_bytes() == kept


def tuned(multiple: float, *, at_end: bool = False) -> TuningRecord:
    tried = [TriedRate(multiple=multiple, score=0.5)]
    return TuningRecord(metric="accuracy", multiple=multiple, at_end=at_end, tried=tried)


def test_what_is_said_of_choices() -> None:
    assert tuning_in_words({"NCMI": []}, 3) == []
    chosen = {"NCMI": [tuned(1.0), tuned(1 / 64), tuned(1 / 16)], "Focal": [tuned(2.0), tuned(2.0)]}
    (one,) = tuning_in_words(chosen, 5)
    assert "NCMI ×1/64 to ×1, median ×1/16; Focal ×2" in one
    assert one.startswith("Each run's learning rate was chosen by the accuracy of its own validation part")
    first, second = tuning_in_words({"NCMI": [tuned(1 / 1024, at_end=True), tuned(1.0)]}, 3)
    assert first.startswith("The learning rates of 2 of 3 runs were chosen")
    assert second.startswith("1 of the 2 rates is at an end")
    first, second = tuning_in_words({"NCMI": [tuned(16.0, at_end=True)]}, 1)
    assert first == "Its learning rate, ×16 of the usual one, was chosen by the accuracy of its validation part."
    assert second.startswith("It is at an end")
