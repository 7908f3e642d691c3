"""What loggers are shown of a run; services are stood in for by fakes that write down what they are told."""

from __future__ import annotations

import csv
import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from training_helpers import make_recipe, metrics, signal_at

from ncmi.cli import main
from ncmi.errors import Interrupted
from ncmi.training.run import train
from ncmi.training.run_folder import RunFolder

EVERY = ("csv", "wandb", "mlflow", "trackio")


class Service(ModuleType):
    """A package that writes down what it is told."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.begun: list[dict[str, Any]] = []
        self.shown: list[tuple[str, float, int]] = []
        self.ended: list[Any] = []

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.shown += [(name, value, step) for name, value in numbers.items()]


def wandb() -> Service:
    service = Service("wandb")

    def init(**options: Any) -> Any:
        service.begun.append(options)
        return SimpleNamespace(
            id=options["id"] or "w1", log=service.log, finish=lambda exit_code: service.ended.append(exit_code)
        )

    service.init = init  # type: ignore[attr-defined]
    return service


def trackio() -> Service:
    service = Service("trackio")

    def init(**options: Any) -> Any:
        service.begun.append(options)
        return SimpleNamespace(name=options["name"])

    service.init, service.finish = init, lambda: service.ended.append(0)  # type: ignore[attr-defined]
    return service


def mlflow() -> Service:
    service = Service("mlflow")

    class MlflowClient:
        def get_experiment_by_name(self, name: str) -> None:
            return None

        def create_experiment(self, name: str) -> str:
            return "7"

        def create_run(self, experiment: str, run_name: str) -> Any:
            service.begun.append({"name": run_name})
            return SimpleNamespace(info=SimpleNamespace(run_id="m1"))

        def log_param(self, run: str, name: str, value: Any) -> None:
            service.begun[-1][name] = value

        def log_metric(self, run: str, name: str, value: float, step: int) -> None:
            assert run == "m1"
            service.shown.append((name, value, step))

        def set_terminated(self, run: str, status: str) -> None:
            service.ended.append(0 if status == "FINISHED" else 1)

    service.MlflowClient = MlflowClient  # type: ignore[attr-defined]
    return service


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> dict[str, Service]:
    made = {service.__name__: service for service in (wandb(), mlflow(), trackio())}
    for name, service in made.items():
        monkeypatch.setitem(sys.modules, name, service)
    return made


def expected(run: Path) -> set[tuple[str, float, int]]:
    """Every number of every epoch, and measures of the test part."""
    rows = metrics(run)
    numbers = {
        (name, row[name], row["epoch"]) for row in rows for name in row if name != "epoch" and row[name] is not None
    }
    measures = RunFolder(run).results().information
    return numbers | {("test_cmi", measures.cmi, len(rows)), ("test_ncmi", measures.ncmi, len(rows))}


def test_every_epoch_is_shown_once_by_each_logger_also_by_a_resumed_run(
    services: dict[str, Service], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    recipe = make_recipe(epochs=3, logger=EVERY)
    with signal_at(6), pytest.raises(Interrupted):
        train(recipe, run)
    assert [service.ended for service in services.values()] == [[1], [1], [0]]
    train(recipe, run, resume=True)
    for name, service in services.items():
        assert set(service.shown) >= expected(run), name
        assert len(set(service.shown)) == len(service.shown), name
        assert service.ended[-1] == 0
    first, second = services["wandb"].begun
    assert (first["id"], second["id"], second["resume"]) == (None, "w1", "allow")
    assert first["config"]["training"]["epochs"] == 3
    assert [begun["resume"] for begun in services["trackio"].begun] == ["never", "allow"]
    assert len(services["mlflow"].begun) == 1
    assert services["mlflow"].begun[0]["objective.name"] == "ncmi"
    assert json.loads((run / "loggers.json").read_text()) == {"wandb": "w1", "mlflow": "m1", "trackio": "wine-run"}
    with (run / "csv" / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    epochs = [(int(line["step"]), float(line["validation_ncmi"])) for line in lines if line["validation_ncmi"]]
    assert epochs == [(row["epoch"], pytest.approx(row["validation_ncmi"])) for row in metrics(run)]
    assert any(line["test_ncmi"] for line in lines)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_what_is_not_installed_is_told_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=f"--training.logger {name}.*pip install {name}"):
        train(make_recipe(logger=(name,)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for verb in ("train", "compare"):
        assert main([verb, "wine", "--training.logger", "csv", name, "--out", str(tmp_path / "run")]) == 2
        assert f"pip install {name}" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_a_logger_is_named_once() -> None:
    with pytest.raises(ValueError, match="logger"):
        make_recipe(logger=("csv", "csv"))
