"""One run of the study, and the store that keeps what is known of it: one small JSON file a run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from _study_sets import SETS
from ncmi.options import objective_options
from ncmi.recipes import Recipe, recipe_from_dict

FORMAT = 1
Pairs = tuple[tuple[str, Any], ...]


class StudyError(ValueError):
    """The study cannot be made as asked; the message names the cure."""


def pairs(values: Mapping[str, Any]) -> Pairs:
    """A mapping in order of its names, as a dataclass may hold it that is looked up."""
    return tuple(sorted(values.items()))


@dataclass(frozen=True)
class Setting:
    """A loss and what is changed of options, training and data; all else is the set's recipe and the loss's default."""

    objective: str
    options: Pairs = ()
    training: Pairs = ()
    data: Pairs = ()

    @classmethod
    def of(
        cls,
        objective: str,
        options: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Setting:
        """From mappings."""
        return cls(objective, pairs(options or {}), pairs(training or {}), pairs(data or {}))

    def on(self, data: Mapping[str, Any]) -> Setting:
        """The same with other changes of the data."""
        return replace(self, data=pairs(data))

    def told(self) -> str:
        """What is changed, as text."""
        changed = (*self.options, *self.training, *self.data)
        return " ".join(
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in changed
        )


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        place: of its seed among the seeds of its kind; with the cost it settles the order of runs.
        factor: of the set's usual seconds.
    """

    set: str
    setting: Setting
    seed: int
    place: int = field(default=0, compare=False)
    factor: float = field(default=1.0, compare=False)

    @property
    def seconds(self) -> float:
        """What it should take on one core."""
        one = SETS[self.set]
        # NCMI's loss is more work than a small perceptron
        return one.seconds * self.factor * (1.8 if one.flat and self.setting.objective == "ncmi" else 1.0)

    @property
    def order(self) -> float:
        """Jobs are done in rising order: cheap sets first, and each seed of a dear one when its turn has come."""
        return self.seconds * (self.place + 1)

    @property
    def path(self) -> Path:
        """Of its record, below the study's folder."""
        asked = json.dumps([self.setting.options, self.setting.training, self.setting.data])
        digest = hashlib.sha256(asked.encode()).hexdigest()[:8]
        return Path("runs") / self.set / f"{self.setting.objective}-{digest}-seed{self.seed}.json"

    def recipe(self) -> Recipe:
        """Of the run.

        Raises:
            StudyError: where this version knows no such loss, option or field.
        """
        setting = self.setting
        try:
            recipe = SETS[self.set].recipe(objective_options(setting.objective)(**dict(setting.options)))
            training = replace(recipe.training, **{"accelerator": "cpu", **dict(setting.training)})
            # runs are short and none is gone on with
            training = replace(training, seed=self.seed, threads=1, checkpoint_seconds=3600.0)
            return replace(recipe, data=replace(recipe.data, **dict(setting.data)), training=training)
        except (TypeError, KeyError) as error:
            raise StudyError(f"{self.told()}: this version of ncmi does not know it ({error})") from None

    def told(self) -> str:
        """For a line of the progress."""
        return " ".join(part for part in (self.set, self.setting.objective, self.setting.told()) if part)


@dataclass(frozen=True)
class Record:
    """What is known of a finished run; ``content`` is its file."""

    content: dict[str, Any]

    @property
    def diverged(self) -> bool:
        """Whether training broke down."""
        return "error" in self.content

    def readout(self, name: str) -> str:
        """The name of a read-out: ``"primary"`` is the first one by which the loss is judged."""
        return str(self.content["primary_readouts"][0]) if name == "primary" else name

    def score(self, readout: str, measure: str) -> float:
        """Such as ``("head", "test_accuracy")``, in percent; NaN where training broke down."""
        if self.diverged:
            return math.nan
        return 100 * float(self.content["readouts"][self.readout(readout)][measure])


class Store:
    """The records of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[Job, Record] = {}

    def get(self, job: Job) -> Record | None:
        """The record of a run, if it was made by the same recipe as the run would be now.

        Fields that recipes have got since then count as equal where they have their default.
        """
        if job not in self._known:
            record = self._read(job)
            if record is None:
                return None
            self._known[job] = record
        return self._known[job]

    def _read(self, job: Job) -> Record | None:
        try:
            content = json.loads((self.folder / job.path).read_text(encoding="utf-8"))
            same = content["format"] == FORMAT and recipe_from_dict(content["recipe"]) == job.recipe()
        except (OSError, KeyError, TypeError, ValueError):
            return None
        return Record(content) if same else None

    def asked(self) -> list[Record]:
        """The records that were asked for so far."""
        return list(self._known.values())
