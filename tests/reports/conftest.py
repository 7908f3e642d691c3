"""Fake run folders that look like real ones: ten classes, twenty epochs, every objective, five seeds."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# objective: (label, primary read-outs, test error in %, spread of the clusters, final CMI, final separation)
OBJECTIVES: dict[str, tuple[str, tuple[str, ...], float, float, float, float]] = {
    "ncmi": ("NCMI", ("cc", "lp"), 1.7, 0.20, 0.004, 0.06),
    "cross_entropy": ("CE", ("head",), 2.1, 0.45, 0.05, 2.1),
    "label_smoothing": ("LS", ("head",), 1.9, 0.25, 0.09, 2.6),
    "focal": ("Focal", ("head",), 2.3, 0.50, 0.12, 1.7),
    "poly": ("PolyLoss", ("head",), 2.0, 0.42, 0.04, 2.2),
    "square": ("SquareLoss", ("head",), 2.2, 0.28, 0.20, 1.1),
    "squentropy": ("Squentropy", ("head",), 2.0, 0.33, 0.10, 1.9),
    "anticlass": ("AntiClass", ("head",), 2.4, 0.40, 0.03, 2.4),
    "opl": ("OPL", ("head",), 2.1, 0.30, 0.06, 2.0),
    "supcon": ("SupCon", ("lp",), 3.4, 0.24, 0.02, 0.8),
    "cmic": ("CMIC-DL", ("head",), 1.8, 0.35, 0.02, 2.9),
    "generalised_cross_entropy": ("GCE", ("head",), 2.5, 0.38, 0.03, 1.8),
    "symmetric_cross_entropy": ("SCE", ("head",), 2.2, 0.36, 0.02, 2.0),
}
READOUTS = ("head", "cc", "lp", "knn")
DIGITS = tuple("0123456789")


def write_run(
    folder: Path,
    objective: str = "ncmi",
    seed: int = 0,
    *,
    epochs: int = 20,
    stopped_after: int | None = None,
    class_names: Sequence[str] = DIGITS,
    num_test: int = 360,
    dim: int = 64,
) -> Path:
    """Write one run folder; ``stopped_after`` leaves it unfinished."""
    _, primary, error, spread, cmi, separation = OBJECTIVES[objective]
    classes = len(class_names)
    split = np.random.default_rng(seed)
    labels = split.permutation(np.arange(num_test) % classes)
    hard = split.random(num_test)  # the same samples are hard for every objective: pairing helps
    rng = np.random.default_rng([seed, zlib.crc32(objective.encode())])

    folder.mkdir(parents=True)
    recipe = {
        "format": 1,
        "data": {"name": "digits", "validation_fraction": 0.2, "test_fraction": 0.2, "split_seed": seed},
        "backbone": {"name": "convnet", "width": 32, "feature_dim": dim},
        "objective": {"name": objective, **({"temperature": 0.5} if objective == "ncmi" else {})},
        "training": {
            "epochs": epochs,
            "batch_size": 64,
            "optimiser": "sgd",
            "learning_rate": 0.1,
            "seed": seed,
        },
    }
    (folder / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    environment = {
        "python": "3.11.9",
        "torch": "2.13.0",
        "ncmi": "0.1.0",
        "platform": "Linux-6.1-x86_64",
        "cpu": "Example CPU, 2 cores",
        "device": "cpu",
        "commit": None,
    }
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")

    done = epochs if stopped_after is None else stopped_after
    rows = []
    for epoch in range(1, done + 1):
        decay = float(np.exp(-3.5 * (epoch - 1) / epochs))
        noise = rng.normal(size=5)
        validation_error = min(0.9, error / 100 * (1 + 12 * decay**2) * float(np.exp(0.15 * noise[0])))
        this_cmi = cmi * (1 + 25 * decay**2) * float(np.exp(0.1 * noise[1]))
        this_separation = separation * (1 - 0.8 * decay) * float(np.exp(0.05 * noise[2]))
        rows.append(
            {
                "epoch": epoch,
                "steps": 18,
                "learning_rate": 0.1 * decay,
                "train_loss": 2.3 * decay + 0.02,
                "train_accuracy": min(1.0, 1 - 0.6 * validation_error),
                "validation_accuracy": round((1 - validation_error) * 288) / 288,
                "validation_cmi": this_cmi,
                "validation_separation": this_separation,
                "validation_ncmi": this_cmi / this_separation,
                "seconds": 0.11 + 0.02 * abs(noise[3]) + (0.12 if objective == "supcon" else 0.0),
                "peak_memory_mb": 412.0 + 3 * abs(noise[4]),
            }
        )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if stopped_after is not None:
        return folder

    means = np.linalg.qr(rng.normal(size=(dim, max(classes, 2))))[0].T[:classes]
    other = (labels + 1 + (labels * 7 + seed) % (classes - 1)) % classes
    # the harder a sample, the nearer it lies to the class that it is mistaken for
    doubt = (np.clip(0.62 - 0.5 * hard**0.3, 0, 1) * (0.7 + spread))[:, None]
    centre = (1 - doubt) * means[labels] + doubt * means[other]
    features = 3 * (centre + spread * rng.normal(size=(num_test, dim)) / 5)
    arrays: dict[str, Any] = {"labels": labels.astype(np.int64), "features": features.astype(np.float16)}
    readouts = {}
    for readout in READOUTS:
        difficulty = hard + 0.004 * rng.normal(size=num_test)
        wrong = difficulty < error / 100 + 0.002 * rng.normal()
        prediction = np.where(wrong, other, labels)
        arrays[f"prediction_{readout}"] = prediction.astype(np.int64)
        readouts[readout] = {
            "test_accuracy": float((prediction == labels).mean()),
            "validation_accuracy": rows[-1]["validation_accuracy"],
        }
    np.savez_compressed(folder / "test_outputs.npz", **arrays)
    results = {
        "format": 1,
        "status": "finished",
        "data": "digits",
        "objective": objective,
        "seed": seed,
        "epochs": epochs,
        "readouts": readouts,
        "primary_readouts": list(primary),
        "information": {key: rows[-1][f"validation_{key}"] for key in ("cmi", "separation", "ncmi")},
        "epoch_seconds": float(np.median([row["seconds"] for row in rows])),
        "total_seconds": float(sum(row["seconds"] for row in rows)) + 0.6,
        "peak_memory_mb": max(row["peak_memory_mb"] for row in rows),
        "num_train": 1149,
        "num_validation": 288,
        "num_test": num_test,
        "class_names": list(class_names),
    }
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


def write_comparison(
    folder: Path,
    objectives: Sequence[str] = tuple(OBJECTIVES),
    seeds: Sequence[int] = range(5),
    *,
    unfinished: Sequence[tuple[str, int]] = (),
    missing: Sequence[tuple[str, int]] = (),
    **options: Any,
) -> Path:
    """Write a comparison folder; ``unfinished`` and ``missing`` are (objective, seed) pairs."""
    entries = []
    for objective in objectives:
        runs = []
        for seed in seeds:
            name = f"runs/{objective}-seed{seed}"
            runs.append(name)
            if (objective, seed) not in missing:
                stopped = 7 if (objective, seed) in unfinished else None
                write_run(folder / name, objective, seed, stopped_after=stopped, **options)
        entries.append({"label": OBJECTIVES[objective][0], "objective": objective, "runs": runs})
    comparison = {
        "format": 1,
        "data": "digits",
        "seeds": list(seeds),
        "entries": entries,
        "baseline": "cross_entropy",
        "total_seconds": 161.2,
        "machine": {"python": "3.11.9", "torch": "2.13.0", "cpu": "Example CPU, 2 cores", "commit": None},
    }
    (folder / "comparison.json").write_text(json.dumps(comparison), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def full_comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All objectives × 5 seeds; two runs did not finish. Read only: copy before changing."""
    return write_comparison(
        tmp_path_factory.mktemp("reports") / "digits",
        unfinished=[("opl", 4)],
        missing=[("cmic", 4)],
    )


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run folder into this test's own directory: ``new_run("focal", 3, ...)``."""
    return lambda objective="ncmi", seed=0, **options: write_run(
        tmp_path / f"{objective}-seed{seed}", objective, seed, **options
    )


@pytest.fixture
def new_comparison(tmp_path: Path) -> Callable[..., Path]:
    """Write a small comparison folder into this test's own directory."""

    def write(objectives: Sequence[str] = ("ncmi", "cross_entropy"), **options: Any) -> Path:
        return write_comparison(tmp_path / "comparison", objectives, **options)

    return write
