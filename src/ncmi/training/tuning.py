"""The learning rate of each run of a comparison, chosen by the run's own validation part, by one rule for every loss.

A rate is worth more than a loss: losses that are compared at their usual rates are compared by how well these suit
them. Each run has a search of its own, since with random splits the test samples of one seed are validation samples of
another.
"""

import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
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
    """One run at one rate, in a process of its own; None where its loss breaks down, which is noted in its folder."""
    try:
        return train_one(path, content, imports)
    except FloatingPointError as error:
        write_json(Path(path) / BROKE_DOWN, {"error": str(error)})
        return None


@dataclass
class _Search:
    """The search of one run: where the run will lie, its recipe, and its rates by their place in the grid."""

    path: Path
    recipe: Recipe
    trials: Path
    scores: dict[int, float] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)

    def trial(self, place: int) -> Path:
        return self.trials / f"{self.path.name}-rate{MULTIPLES.points[place]:g}"

    def recipe_at(self, place: int) -> Recipe:
        multiple, training = MULTIPLES.points[place], self.recipe.training
        rates = (multiple * training.learning_rate, multiple * training.centroid_learning_rate)
        return replace(self.recipe, training=replace(training, learning_rate=rates[0], centroid_learning_rate=rates[1]))

    @cached_property
    def by_name(self) -> dict[str, int]:
        return {self.trial(place).name: place for place in range(len(MULTIPLES.points))}

    def look(self) -> None:
        """Learn of trials that an earlier call has made."""
        for place in range(len(MULTIPLES.points)):
            folder = RunFolder(self.trial(place))
            if (folder.path / BROKE_DOWN).exists():
                self.scores[place] = float("-inf")
            elif folder.finished:
                self.learn(place, folder.results())

    def learn(self, place: int, results: Results | None) -> None:
        """A rate has been tried; ComparisonError where that gave no validation score."""
        score = float("-inf")
        if results is not None:
            validation, metric = results.readouts[results.primary_readouts[0]].validation, metric_of(results)
            value = None if validation is None else getattr(validation, metric).value
            if value is None:
                raise ComparisonError(
                    f"{self.path.name}: there is no {metric} of a validation part to choose a learning rate by: give a "
                    "larger one (--data.validation-fraction 0.15), or leave --tune out"
                )
            score = float(value)
        self.scores[place] = score

    def open_places(self) -> list[int]:
        """What is to be tried before the next step of the search, which so does not depend on which trial ends first;
        none at its end.
        """
        tried: dict[int, float] = {}
        while wanted := MULTIPLES.untried(tried, best_of(tried) if tried else 0):
            if missing := [place for place in wanted if place not in self.scores]:
                return missing
            tried |= {place: self.scores[place] for place in wanted}
        return []

    def finish(self) -> Results:
        """Make the best trial the run.

        Raises:
            FloatingPointError: where training broke down at every rate.
        """
        place = best_of(self.scores)
        if self.scores[place] == float("-inf"):
            raise FloatingPointError(
                f"training broke down at every learning rate from "
                f"{self.recipe_at(min(self.scores)).training.learning_rate:g} to "
                f"{self.recipe_at(max(self.scores)).training.learning_rate:g}: look for values in the data that are "
                "far from the others, or give another --training.learning-rate to search around"
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
        """Remove the trials that have not become the run."""
        for place in range(len(MULTIPLES.points)):
            shutil.rmtree(self.trial(place), ignore_errors=True)


class RateSearch:
    """The searches of all runs of a comparison, for processes that ask for more.

    Args:
        runs: recipe of each run, at its usual rate, by the path of its folder.
        trials: folder of the runs at single rates, which go on after a stop.
        on_run: called with name and results of each run whose rate is chosen.

    Attributes:
        failures: why a run has no rate, by its path.
    """

    def __init__(self, runs: Mapping[str, Recipe], trials: Path, on_run: Callable[[str, Results], None]) -> None:
        self.left = [_Search(Path(path), recipe, trials) for path, recipe in runs.items()]
        self.trials, self.on_run = trials, on_run
        self.failures: dict[str, str] = {}
        self._looked: set[Path] = set()

    def more(self) -> dict[str, dict[str, Any]]:
        """Recipes of trials by folder: those of the first search that has any which are not in hand."""
        for search in list(self.left):
            if search.path not in self._looked:
                self._looked.add(search.path)
                if RunFolder(search.path).finished:
                    search.tidy()  # an earlier call may have been stopped before it had done so
                    self.left.remove(search)
                    continue
                if search.path.exists():
                    raise ComparisonError(f"{search.path} is in the way and is no finished run: move or remove it")
                search.look()
            places = search.open_places()
            if not places:
                self.left.remove(search)
                self._finish(search)
                continue
            if new := [place for place in places if place not in search.asked]:
                search.asked |= set(new)
                return {str(search.trial(place)): recipe_to_dict(search.recipe_at(place)) for place in new}
        if not self.left and self.trials.is_dir() and not any(self.trials.iterdir()):
            self.trials.rmdir()
        return {}

    def finished(self, name: str, results: Results | None) -> None:
        """A trial has come to its end."""
        search, place = next((each, each.by_name[name]) for each in self.left if name in each.by_name)
        search.learn(place, results)

    def _finish(self, search: _Search) -> None:
        try:
            results = search.finish()
        except FloatingPointError as error:
            self.failures[str(search.path)] = str(error)
        else:
            search.tidy()  # no test result is left to stand beside the run's own
            self.on_run(search.path.name, results)
