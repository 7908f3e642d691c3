"""The learning rate of each run of a comparison, chosen by the run's own validation part, by one rule for every loss.

A rate is worth more than a loss: losses that are compared at their usual rates are compared by how well these suit
them. Each run has a search of its own, since with random splits the test samples of one seed are validation samples of
another.
"""

import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from ncmi.files import write_json
from ncmi.recipes import Recipe, recipe_to_dict
from ncmi.training.comparison import ComparisonError, train_one
from ncmi.training.run_folder import RunFolder
from ncmi.training.schema import TUNING, Results, TriedRate, TuningRecord, write_record

BROKE_DOWN = "broke-down.json"
"""In the folder of a trial whose loss was no longer finite."""
P = TypeVar("P")


@dataclass(frozen=True)
class SearchGrid(Generic[P]):
    """Values to choose from.

    Attributes:
        points: in their order; what has none has nothing outside the start.
        start: places of those that are always tried. While the best has a neighbor that has not been tried, that one is
            tried as well.

    >>> grid = SearchGrid((1, 2, 4, 8), (1, 2))
    >>> grid.untried([]), grid.untried([1, 2], best=2), grid.untried([1, 2, 3], best=2)
    ([1, 2], [3], [])
    """

    points: tuple[P, ...]
    start: tuple[int, ...]

    def untried(self, tried: Collection[int], best: int = 0) -> list[int]:
        """Places that are still to be tried, none at the end of a search.

        Args:
            tried: places that have been.
            best: the best of them, which counts once the start has been tried.
        """
        if first := [place for place in self.start if place not in tried]:
            return first
        return [place for place in (best - 1, best + 1) if 0 <= place < len(self.points) and place not in tried]


MULTIPLES = SearchGrid(tuple(2.0**power for power in range(-10, 5)), tuple(range(2, 13, 2)))
"""Learning rates, in multiples of the recipe's: 1/256, 1/64, 1/16, 1/4, 1 and 4 are always tried. Accuracy can have a
second peak at low rates, where wrong labels and noise are not memorized, and a search that starts at the usual rate and
climbs stays at the first one."""


def best_of(scores: Mapping[int, float]) -> int:
    """The place of the best score; of equals the recipe's own rate, or else the lowest."""
    return max(sorted(scores), key=lambda place: (round(scores[place], 9), MULTIPLES.points[place] == 1))


def metric_of(results: Results) -> Literal["accuracy", "macro_f1", "macro_auc"]:
    """What rates are judged by: accuracy, macro F1 where classes are unequal, and macro AUC with bags."""
    if results.kind == "bags":
        return "macro_auc"
    return "macro_f1" if results.readouts[results.primary_readouts[0]].test.unequal else "accuracy"


def try_rate(path: str, content: dict[str, Any], imports: tuple[str, ...] = ()) -> Results | None:
    """One run at one rate, gone on with where it has been begun; None where its loss breaks down, which is noted in its
    folder.
    """
    (Path(path) / BROKE_DOWN).unlink(missing_ok=True)
    try:
        return train_one(path, content, imports)
    except FloatingPointError as error:
        write_json(Path(path) / BROKE_DOWN, {"error": str(error)})
        return None


@dataclass(eq=False)
class _Search:
    """The search of one run: where the run will lie, its recipe, and its rates by their place in the grid."""

    path: Path
    recipe: Recipe
    trials: Path
    scores: dict[int, float] = field(default_factory=dict)
    asked: set[Path] = field(default_factory=set)

    def trial(self, place: int) -> Path:
        return self.trials / f"{self.path.name}-rate{MULTIPLES.points[place]:g}"

    def recipe_at(self, multiple: float) -> Recipe:
        training = self.recipe.training
        rates = (multiple * training.learning_rate, multiple * training.centroid_learning_rate)
        return replace(self.recipe, training=replace(training, learning_rate=rates[0], centroid_learning_rate=rates[1]))

    def wanted(self) -> dict[Path, Recipe]:
        """What is to be made before the next step of the search, which so does not depend on which trial ends first;
        nothing at its end.

        What an earlier call has finished is asked for too: training sees that it is of the same recipe and data, and
        gives its results.
        """
        tried: dict[int, float] = {}
        while places := MULTIPLES.untried(tried, best_of(tried) if tried else 0):
            if missing := [place for place in places if place not in self.scores]:
                return {self.trial(place): self.recipe_at(MULTIPLES.points[place]) for place in missing}
            tried |= {place: self.scores[place] for place in places}
        return {}

    def learn(self, place: int, results: Results | None) -> None:
        """A rate has been tried; ComparisonError where that gave no validation score."""
        if results is None:
            self.scores[place] = float("-inf")
            return
        validation, metric = results.readouts[results.primary_readouts[0]].validation, metric_of(results)
        value = None if validation is None else getattr(validation, metric).value
        if value is None:
            raise ComparisonError(
                f"there is no {metric} of its validation part to choose a learning rate by: give a larger one, in "
                "which every class occurs (--data.validation-fraction 0.15), or leave --tune out; in both cases with "
                "another --out"
            )
        self.scores[place] = float(value)

    def finish(self) -> Results:
        """Make the best trial the run.

        Raises:
            ComparisonError: where training broke down at every rate.
        """
        place = best_of(self.scores)
        if self.scores[place] == float("-inf"):
            rates = [self.recipe_at(MULTIPLES.points[each]).training.learning_rate for each in sorted(self.scores)]
            raise ComparisonError(
                f"training broke down at every learning rate from {rates[0]:g} to {rates[-1]:g}: look for values in "
                "the data that are far from the others, or search around another --training.learning-rate; in both "
                "cases with another --out"
            )
        folder = RunFolder(self.trial(place))
        results = folder.results()
        tried = [
            TriedRate(multiple=MULTIPLES.points[each], score=None if score == float("-inf") else score)
            for each, score in sorted(self.scores.items())
        ]
        at_end = place in (0, len(MULTIPLES.points) - 1)
        record = TuningRecord(metric=metric_of(results), multiple=MULTIPLES.points[place], at_end=at_end, tried=tried)
        write_record(folder.path / TUNING, record)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        folder.path.replace(self.path)
        return results

    def tidy(self) -> None:
        """Remove the trials that have not become the run, so that no test result stands beside its own."""
        for place in range(len(MULTIPLES.points)):
            shutil.rmtree(self.trial(place), ignore_errors=True)


class RateSearch:
    """The searches of all runs of a comparison, for processes that ask for more.

    Args:
        runs: recipe of each run, at its usual rate, by the path of its folder.
        trials: folder of the runs at single rates, which go on after a stop.
        on_run: called with name and results of each run whose rate is chosen, also by an earlier call.

    Attributes:
        failures: why a run has no rate, by its path.
    """

    def __init__(self, runs: Mapping[str, Recipe], trials: Path, on_run: Callable[[str, Results], None]) -> None:
        self.left = [_Search(Path(path), recipe, trials) for path, recipe in runs.items()]
        self.trials, self.on_run = trials, on_run
        self.failures: dict[str, str] = {}
        # of trials their place in the grid, of runs that were made earlier none
        self._names: dict[str, tuple[_Search, int | None]] = {search.path.name: (search, None) for search in self.left}
        for search in self.left:
            self._names |= {search.trial(place).name: (search, place) for place in range(len(MULTIPLES.points))}

    def more(self) -> dict[str, dict[str, Any]]:
        """Recipes of trials by folder: those of the first search that has any which are not in hand."""
        for search in list(self.left):
            made = RunFolder(search.path)
            if made.finished:  # by an earlier call
                chosen = made.tuning()
                wanted = {search.path: search.recipe_at(chosen.multiple if chosen else 1.0)}
            elif search.path.exists():
                self._drop(search, f"{search.path} is in the way and is no finished run: move or remove it")
                continue
            elif not (wanted := search.wanted()):
                self._finish(search)
                continue
            if new := {path: recipe for path, recipe in wanted.items() if path not in search.asked}:
                search.asked |= set(new)
                return {str(path): recipe_to_dict(recipe) for path, recipe in new.items()}
        if not self.left and self.trials.is_dir() and not any(self.trials.iterdir()):
            self.trials.rmdir()
        return {}

    def finished(self, name: str, results: Results | None) -> None:
        """A trial has come to its end, or a run of an earlier call was found to be what it should be."""
        search, place = self._names[name]
        if search not in self.left:
            return
        if place is None and results is not None:
            self._made(search, results)
        elif place is not None:
            try:
                search.learn(place, results)
            except ComparisonError as error:
                self._drop(search, str(error))

    def by_run(self, failures: Mapping[str, str]) -> dict[str, str]:
        """What went wrong with single trials, by path, as what went wrong with their runs: the first reason of each."""
        reasons: dict[str, str] = {}
        for path, reason in failures.items():
            reasons.setdefault(str(self._names[Path(path).name][0].path), reason)
        return reasons

    def _finish(self, search: _Search) -> None:
        try:
            self._made(search, search.finish())
        except ComparisonError as error:
            self._drop(search, str(error))

    def _made(self, search: _Search, results: Results) -> None:
        search.tidy()
        self.left.remove(search)
        self.on_run(search.path.name, results)

    def _drop(self, search: _Search, reason: str) -> None:
        self.left.remove(search)
        self.failures[str(search.path)] = reason
