"""Fake folders of reproduced tables and figures, made of the fake runs that all report tests use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NewRun = Callable[..., Path]
RELEASED = {"separation_power": 1.0, "distribution": "nsf", "centre": "frozen", "temperature": 0.2}


@dataclass(frozen=True)
class FakeEntry:
    """One entry of a group: its run folders are called ``name-seedK``."""

    name: str
    label: str
    objective: str = "cross_entropy"
    options: Mapping[str, Any] = field(default_factory=dict)
    network: str = "resnet18"
    width: int = 0
    epochs: int = 8
    batch_size: int = 64


CE = FakeEntry("ce", "Cross-entropy")
NCMI = FakeEntry("ncmi-released", "NCMI (released)", "ncmi", RELEASED)
POWER = FakeEntry("ncmi-power", "NCMI (p = −4, fixed)", "ncmi", {**RELEASED, "separation_power": -4.0})


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_group_run(runs: Path, new_run: NewRun, entry: FakeEntry, seed: int, **options: Any) -> None:
    """Write one run folder below ``runs``, unless it is there."""
    folder = runs / f"{entry.name}-seed{seed}"
    if folder.exists():
        return
    made = new_run(entry.objective, seed, epochs=entry.epochs, **options)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(made, folder)

    def change(recipe: dict[str, Any]) -> None:
        recipe["data"]["name"] = "cifar100"
        recipe["backbone"] = {"name": entry.network, "width": entry.width}
        recipe["objective"] = {"name": entry.objective, **entry.options}
        recipe["training"]["batch_size"] = entry.batch_size

    edit(folder / "recipe.json", change)


def write_reproduction_folder(
    root: Path,
    new_run: NewRun,
    experiment: str,
    groups: Mapping[str, Sequence[FakeEntry]],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    scale: str = "paper",
    unfinished: Sequence[tuple[str, int]] = (),
    missing: Sequence[tuple[str, int]] = (),
    **options: Any,
) -> Path:
    """Write ``root/experiment`` and the run folders in ``root/runs``; return the experiment's folder."""
    folder = root / experiment
    folder.mkdir(parents=True)
    titles = [{"name": name, "title": name.replace("-batch", ", batch ")} for name in groups]
    content = {"format": 1, "experiment": experiment, "title": f"Title of {experiment}", "scale": scale}
    (folder / "reproduction.json").write_text(json.dumps({**content, "groups": titles}), encoding="utf-8")
    for name, entries in groups.items():
        (folder / name).mkdir()
        described = []
        for entry in entries:
            for seed in seeds:
                if (entry.name, seed) not in missing:
                    stopped = 3 if (entry.name, seed) in unfinished else None
                    write_group_run(root / "runs", new_run, entry, seed, stopped_after=stopped, **options)
            described.append(
                {
                    "label": entry.label,
                    "objective": entry.objective,
                    "runs": [f"../../runs/{entry.name}-seed{seed}" for seed in seeds],
                    "recipe": {
                        "data": {"name": "cifar100"},
                        "backbone": {"name": entry.network, "width": entry.width},
                        "objective": {"name": entry.objective, **entry.options},
                        "training": {"batch_size": entry.batch_size, "epochs": entry.epochs},
                    },
                }
            )
        comparison = {
            "format": 1,
            "data": "cifar100",
            "seeds": list(seeds),
            "entries": described,
            "baseline": "cross_entropy",
            "command": f"ncmi reproduce {experiment}",
            "total_seconds": 10.0,
            "machine": {"cpu": "Example CPU, 2 cores"},
        }
        (folder / name / "comparison.json").write_text(json.dumps(comparison), encoding="utf-8")
    return folder


def set_results(folder: Path, run: str, readout: str = "head", **values: float | None) -> None:
    """Set ``accuracy`` (percent) of a read-out, or measures of a run, in its ``results.json``."""

    def change(results: dict[str, Any]) -> None:
        for name, value in values.items():
            if name == "accuracy":
                assert value is not None
                results["readouts"][readout]["test_accuracy"] = value / 100
            else:
                results["information"][name] = value

    edit(folder.parent / "runs" / run / "results.json", change)


def without_validation(folder: Path) -> None:
    """Make all runs such that they trained on all training data."""
    for run in (folder.parent / "runs").iterdir():

        def change(results: dict[str, Any]) -> None:
            results["num_validation"] = 0
            for readout in results["readouts"].values():
                del readout["validation_accuracy"]

        edit(run / "results.json", change)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        for row in rows:
            row.update({name: None for name in row if name.startswith("validation_")})
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
