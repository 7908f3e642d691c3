"""Runs and comparisons made from Python, on data from files or memory."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from ncmi.api.trained import TrainedRun, as_arguments, python_words
from ncmi.cli import output
from ncmi.cli.options import nearest
from ncmi.data.kinds import kind_of
from ncmi.errors import listing
from ncmi.objectives.options import objective_names, objective_options
from ncmi.recipes import DATA, Recipe, default_training, recipe_from_dict, recipe_to_dict
from ncmi.recipes.names import run_name
from ncmi.report import comparison_table, print_table, read_comparison, to_html, write_report
from ncmi.training import comparison
from ncmi.training.identity import KEPT_DATA
from ncmi.training.run_folder import removed_if_nothing_came

_WIDTH = 120
_OF_COLUMNS = (
    *("label_column", "id_column", "group_column", "split_column", "time_column", "drop", "categorical", "numeric"),
)
"""Options that name columns."""


class ComparisonResults:
    """A finished comparison; :func:`ncmi.compare` gives one.

    Args:
        path: folder of the comparison.

    Attributes:
        path: folder of the comparison.
        runs: run folders by name, such as ``"ncmi-seed0"``.

    Raises:
        ReportError: where no comparison is there.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._record = read_comparison(self.path)
        self.runs = {run.folder.name: run.folder for run in self._record.runs}

    @property
    def table(self) -> pd.DataFrame:
        """One row a loss and read-out: mean, spread, and paired difference from cross-entropy of each score, in 0 … 1.

        Its columns are those of ``table.csv``; see :func:`ncmi.report.comparison_table`.
        """
        return comparison_table(self._record)

    def load(self, objective: str = "ncmi", seed: int | None = None) -> TrainedRun:
        """One of its runs.

        Args:
            objective: name of the loss, or of the entry (``"abmil-ncmi"``).
            seed: of the run; by default the first.

        Raises:
            KeyError: for a run that is not there; the message lists those that are.
        """
        prefix = f"{objective}-seed" if seed is None else f"{objective}-seed{seed}"
        names = [
            name for name in self.runs if name == prefix or name.startswith(prefix if seed is None else f"{prefix}-")
        ]
        if not names:
            raise KeyError(
                f"no run of {objective!r}{'' if seed is None else f' with seed {seed}'}: {listing(list(self.runs))}"
            )
        return TrainedRun(self.runs[names[0]])

    def report(self, out: str | PathLike[str] | None = None) -> Path:
        """Write the page, by default ``report.html`` in the folder with its tables beside it, and return its path."""
        return write_report(self.path, None if out is None else Path(out))

    def __repr__(self) -> str:
        text = io.StringIO()
        print_table(self._record, Console(file=text, width=_WIDTH, force_jupyter=False, highlight=False))
        return text.getvalue().rstrip()

    def _repr_html_(self) -> str:
        return to_html(self._record)


def train(
    data: Any,
    *,
    objective: str = "ncmi",
    network: str | None = None,
    out: str | PathLike[str] | None = None,
    name: str = "data",
    resume: bool = False,
    quiet: bool = False,
    **options: Any,
) -> TrainedRun:
    """Train one classifier into a run folder, as ``ncmi train`` does.

    Args:
        data: a name (digits, wine, breast_cancer, iris), a path of any kind of data that ``ncmi`` reads, a data frame
            with a label column, or ``(X, y)``: a frame, an array ``[N, F]``, uint8 images ``[N, H, W]`` or
            ``[N, H, W, 3]``, a list of PIL's images of one size, or a list of bags ``[N, D]``, with a label each. The
            index of a frame is left out, unless an option names it, such as ``group_column="patient"``. What comes
            from memory is kept as a file in the folder ``data`` beside the run, since a run knows its data by a
            path.
        objective: name of the loss.
        network: name of the network; by default what suits the data.
        out: the run folder; by default ``runs/DATA-OBJECTIVE-seedSEED``.
        name: what data from memory is called.
        resume: go on with a run that was stopped, by the same arguments; a finished one is loaded.
        quiet: print nothing.
        options: any option of the command line by its last name: ``epochs=20`` is ``--training.epochs 20``,
            ``label_column="species"`` is ``--data.label-column species``, ``temperature=0.3`` is
            ``--objective.temperature 0.3``.

    Returns:
        The finished run.

    Raises:
        TypeError: for an unknown option; the message names the nearest.
        ValueError, OSError: for data or options that cannot be trained with; the message names the cure.
        Interrupted: on Ctrl-C; ``resume=True`` goes on.

    Example:
        >>> import ncmi
        >>> import pandas as pd
        >>> from tempfile import TemporaryDirectory
        >>> frame = pd.DataFrame({"length": [1.0, 1.2, 5.1, 4.9] * 10, "kind": ["short", "short", "long", "long"] * 10})
        >>> folder = TemporaryDirectory()
        >>> run = ncmi.train(frame, label_column="kind", out=f"{folder.name}/run", epochs=3, quiet=True)
        >>> run.classes.tolist(), run.predict(pd.DataFrame({"length": [1.1]})).shape
        (['long', 'short'], (1,))
        >>> folder.cleanup()
    """
    from ncmi.training.run import train as run_training

    with python_words():
        recipe = recipe_of(data, Path("runs") if out is None else Path(out).parent, name, objective, network, options)
        folder = Path("runs") / run_name(recipe) if out is None else Path(out)
        show, say = (_nothing, _nothing) if quiet else (output.EpochLog().show, _say)
        with removed_if_nothing_came(folder):
            run_training(recipe, folder, resume=resume, on_epoch=show, on_stage=say)
    return TrainedRun(folder)


def compare(
    data: Any,
    *,
    seeds: int | None = None,
    objectives: Sequence[str] = (),
    networks: Sequence[str] = (),
    workers: int = 0,
    out: str | PathLike[str] | None = None,
    name: str = "data",
    tune: bool = False,
    resume: bool = False,
    quiet: bool = False,
    imports: Sequence[str] = (),
    **options: Any,
) -> ComparisonResults:
    """Which loss trains the better classifier? Losses × seeds on the same splits, as ``ncmi compare`` makes them.

    Runs are made in processes of their own, also from a notebook or a script without a guard.

    Args:
        data, name, options: as for :func:`train`; options of an objective are those of NCMI.
        seeds: number of seeds, each with its own split, the same for all losses; by default 5, of bags 3.
        objectives: names of the losses; by default all, of bags cross_entropy and ncmi.
        networks: names of the networks; by default what suits the data, of bags abmil, transmil, aem and asmil.
        workers: runs side by side, one thread each; 0 for one a processor.
        out: folder of the comparison; by default ``runs/compare-DATA``.
        tune: search the learning rate of each run by its own validation part, from 1/256 to 4 times the usual one or
            further: the same rule for every loss, and 8 or 9 times as many runs.
        resume: go on with an earlier comparison of the same options; finished runs are kept.
        quiet: print nothing.
        imports: modules that register objectives or networks of your own.

    Returns:
        The comparison: shown in a notebook as a table, with ``.table``, ``.report()`` and ``.load("ncmi")``.

    Raises:
        TypeError, ValueError, OSError: as :func:`train`; with a run that failed, after the others have been made.
        Interrupted: on Ctrl-C; ``resume=True`` goes on.

    Example:
        ``ncmi.compare("digits", seeds=5, objectives=["cross_entropy", "ncmi"]).table``
    """
    with python_words():
        recipe = recipe_of(data, Path("runs") if out is None else Path(out).parent, name, "ncmi", None, options)
        plan = comparison.usual_plan(
            recipe,
            seeds=seeds,
            objectives=objectives,
            networks=networks,
            workers=workers,
            imports=imports,
            tune=tune,
        )
        folder = Path("runs") / f"compare-{recipe.data.title}" if out is None else Path(out)
        if quiet:
            comparison.compare(plan, folder, resume=resume)
        else:
            with output.RunCounter(plan.in_words(), len(plan.runs())) as counter:
                comparison.compare(plan, folder, resume=resume, on_run=counter.advance, on_data=_say)
    return ComparisonResults(folder)


def recipe_of(
    data: Any, beside: Path, name: str, objective: str, network: str | None, options: dict[str, Any]
) -> Recipe:
    """The recipe that data and options from Python mean.

    Args:
        data, name, objective, network, options: as for :func:`train`.
        beside: folder in whose folder ``data`` data from memory is kept.
    """
    from ncmi.data.in_memory import is_path, keep

    column = None
    if not is_path(data):
        inputs, labels = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
        asked = [options.get(option) for option in _OF_COLUMNS]
        of_index = [str(one) for names in asked for one in (names if isinstance(names, list | tuple) else [names])]
        data, column = keep(inputs, labels, beside / KEPT_DATA, name, of_index)
    kind = kind_of(str(data), options.get("data_dir"), options.get("images"))
    if objective not in objective_names():
        raise ValueError(f"unknown objective {objective!r}; known: {', '.join(objective_names())}")
    section = DATA[kind](str(data))
    content = recipe_to_dict(Recipe(section, objective=objective_options(objective)(), training=default_training(kind)))
    if network is not None:
        content["network"]["name"] = network
    if column is not None:
        content["data"]["label_column"] = column
    homes = {option: section for section in ("objective", "training", "network", "data") for option in content[section]}
    for option, value in options.items():
        if option not in homes or option in ("kind", "name", "format"):
            raise TypeError(f"unknown option {option!r}{nearest(option, homes)}")
        number = isinstance(value, int) and option.endswith("_column")  # what a frame may call a column
        content[homes[option]][option] = str(value) if number else _plain(value)
    return recipe_from_dict(content)


def _plain(value: Any) -> Any:
    """A value as a recipe's JSON has it."""
    if isinstance(value, PathLike):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.item() if isinstance(value, np.generic) else value


def _say(line: str) -> None:
    output.say(as_arguments(line))


def _nothing(_: Any) -> None:
    """What prints nothing."""
