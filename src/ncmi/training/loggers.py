"""Where a run's epochs are shown besides its folder: TensorBoard, CSV, Weights & Biases, MLflow, Trackio."""

from __future__ import annotations

import json
import math
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ncmi.files import write_json
from ncmi.recipes import Recipe, recipe_to_dict
from ncmi.training.schema import Results

PROJECT = "ncmi"
"""What services call the project, or the experiment, of all runs."""
IDS = "loggers.json"
"""File of a run folder with the names that services gave the run, by which a resumed run goes on there."""
_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}
_FINAL = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "nll", "calibration_error")


def check_loggers(names: Iterable[str]) -> None:
    """See that what loggers need is installed, without importing it.

    Raises:
        ModuleNotFoundError: naming the package and how it is installed.
    """
    for name in names:
        package = _PACKAGES.get(name)
        if package is not None and find_spec(package) is None:
            raise ModuleNotFoundError(
                f"--training.logger {name} needs {package}, which is not installed: pip install {package}", name=package
            )


class Writer(ABC):
    """What shows the numbers of one run somewhere.

    Args:
        folder: of the run.
        recipe: of the run.
        known: the name that :attr:`id` had when the run was begun, None for a new run.
        earlier: rows of the epochs that an earlier session has finished.

    Attributes:
        id: name of the run there; None where it has none but its folder.
    """

    id: str | None = None

    @abstractmethod
    def __init__(
        self, folder: Path, recipe: Recipe, known: str | None, earlier: Sequence[Mapping[str, Any]]
    ) -> None: ...

    @abstractmethod
    def write(self, numbers: dict[str, float], epoch: int) -> None:
        """Show numbers of an epoch."""

    @abstractmethod
    def close(self, finished: bool) -> None:
        """The session has come to its end, or has been stopped."""


class _TensorBoard(Writer):
    def __init__(self, folder: Path, recipe: Recipe, known: str | None, earlier: Sequence[Mapping[str, Any]]) -> None:
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        # epochs that an earlier session has shown, but not finished, are shown once
        self._logger = TensorBoardLogger(folder, name="", version="tensorboard", purge_step=len(earlier) + 1)

    def write(self, numbers: dict[str, float], epoch: int) -> None:
        self._logger.log_metrics(numbers, epoch)
        self._logger.save()

    def close(self, finished: bool) -> None:
        self._logger.finalize("success" if finished else "aborted")


class _CSV(Writer):
    def __init__(self, folder: Path, recipe: Recipe, known: str | None, earlier: Sequence[Mapping[str, Any]]) -> None:
        from lightning_fabric.loggers.csv_logs import CSVLogger

        # it begins anew in any case: what it held is written again
        shutil.rmtree(folder / "csv", ignore_errors=True)
        self._logger = CSVLogger(folder, name="", version="csv", flush_logs_every_n_steps=1)
        for row in earlier:
            self.write(_numbers(row), row["epoch"])

    def write(self, numbers: dict[str, float], epoch: int) -> None:
        self._logger.log_metrics(dict(numbers), epoch)

    def close(self, finished: bool) -> None:
        self._logger.finalize("success" if finished else "aborted")


class _Wandb(Writer):
    def __init__(self, folder: Path, recipe: Recipe, known: str | None, earlier: Sequence[Mapping[str, Any]]) -> None:
        import wandb

        self._run: Any = wandb.init(
            project=PROJECT,
            name=f"{recipe.data.title}-{folder.name}",
            dir=str(folder),
            config=recipe_to_dict(recipe),
            id=known,
            resume=None if known is None else "allow",
        )
        self.id = str(self._run.id)

    def write(self, numbers: dict[str, float], epoch: int) -> None:
        self._run.log(numbers, step=epoch)

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


class _MLflow(Writer):
    def __init__(self, folder: Path, recipe: Recipe, known: str | None, earlier: Sequence[Mapping[str, Any]]) -> None:
        import mlflow

        self._client: Any = mlflow.MlflowClient()
        if known is None:
            experiment = self._client.get_experiment_by_name(PROJECT)
            number = self._client.create_experiment(PROJECT) if experiment is None else experiment.experiment_id
            run = self._client.create_run(number, run_name=f"{recipe.data.title}-{folder.name}")
            known = str(run.info.run_id)
            for section, values in recipe_to_dict(recipe).items():
                for name, value in values.items() if isinstance(values, dict) else ():
                    self._client.log_param(known, f"{section}.{name}", value)
        self.id = known

    def write(self, numbers: dict[str, float], epoch: int) -> None:
        for name, value in numbers.items():
            self._client.log_metric(self.id, name, value, step=epoch)

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self.id, "FINISHED" if finished else "FAILED")


class _Trackio(Writer):
    def __init__(self, folder: Path, recipe: Recipe, known: str | None, earlier: Sequence[Mapping[str, Any]]) -> None:
        import trackio

        self._trackio: Any = trackio
        run = trackio.init(
            project=PROJECT,
            name=known or f"{recipe.data.title}-{folder.name}",
            config=recipe_to_dict(recipe),
            resume="never" if known is None else "allow",
        )
        self.id = str(run.name)

    def write(self, numbers: dict[str, float], epoch: int) -> None:
        self._trackio.log(numbers, step=epoch)

    def close(self, finished: bool) -> None:
        self._trackio.finish()


_WRITERS: dict[str, type[Writer]] = {
    "tensorboard": _TensorBoard,
    "csv": _CSV,
    "wandb": _Wandb,
    "mlflow": _MLflow,
    "trackio": _Trackio,
}


class RunLog:
    """Shows a run in all places that its recipe names; they are opened with the first numbers.

    Args:
        names: of the loggers.
        folder: of the run.
        recipe: of the run.
    """

    def __init__(self, names: Sequence[str], folder: Path, recipe: Recipe) -> None:
        self._names, self._folder, self._recipe = names, folder, recipe
        self._earlier: Sequence[Mapping[str, Any]] = ()
        self._writers: list[Writer] = []

    def take_up(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Go on behind the epochs of an earlier session."""
        self._earlier = tuple(rows)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Show an epoch's row of metrics, CMI, Γ and NCMI of the validation part among them."""
        self._write(_numbers(row), row["epoch"])

    def results(self, results: Results) -> None:
        """Show how a finished run does on its test part: scores by read-out, CMI, Γ and NCMI."""
        numbers: dict[str, Any] = {}
        for name, readout in results.readouts.items():
            for score in _FINAL:
                value = getattr(readout.test, score)
                numbers[f"test_{name}_{score}"] = getattr(value, "value", value)
        measures = results.information
        numbers |= {f"test_{name}": getattr(measures, name) for name in ("cmi", "separation", "ncmi")}
        self._write(_numbers(numbers), results.epochs)

    def close(self, finished: bool) -> None:
        """Close all places."""
        for writer in self._writers:
            writer.close(finished)

    def _write(self, numbers: dict[str, float], epoch: int) -> None:
        if self._names and not self._writers:
            path = self._folder / IDS
            known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            for name in self._names:
                self._writers.append(_WRITERS[name](self._folder, self._recipe, known.get(name), self._earlier))
            ids = {name: writer.id for name, writer in zip(self._names, self._writers, strict=True) if writer.id}
            if ids:
                write_json(path, ids)
        for writer in self._writers:
            writer.write(numbers, epoch)


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """What of a row can be shown as a curve."""
    numbers = {name: float(value) for name, value in row.items() if name != "epoch" and value is not None}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


@contextmanager
def open_log(names: Sequence[str], folder: Path, recipe: Recipe) -> Iterator[RunLog]:
    """The log of a run, closed when the session ends."""
    log = RunLog(names, folder, recipe)
    try:
        yield log
    except BaseException:
        log.close(finished=False)
        raise
    log.close(finished=True)
