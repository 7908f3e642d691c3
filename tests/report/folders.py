"""Run folders, comparisons and reproductions of every kind that look like real ones, made without any training.

All of it is written through the schema: what these tests read is what training writes.
"""

from __future__ import annotations

import csv
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ncmi.files import write_json
from ncmi.readouts.scores import ClassScores, Detection, Estimate, Histogram, Reliability, Scores, judge
from ncmi.recipes import Kind
from ncmi.recipes.names import network_label
from ncmi.training.schema import (
    Calibration,
    ComparisonRecord,
    EntryRecord,
    EpochMetrics,
    GroupRecord,
    InformationRecord,
    OutOfDistribution,
    Readout,
    ReproductionRecord,
    Results,
    Skipped,
    write_record,
)

# objective: (label, primary read-outs, test error in %, spread of the clusters, final CMI, final separation)
OBJECTIVES: dict[str, tuple[str, tuple[str, ...], float, float, float, float]] = {
    "ncmi": ("NCMI", ("head", "cc", "lp"), 1.7, 0.20, 0.004, 0.06),
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
    "generalized_cross_entropy": ("GCE", ("head",), 2.5, 0.38, 0.03, 1.8),
    "symmetric_cross_entropy": ("SCE", ("head",), 2.2, 0.36, 0.02, 2.0),
}
READOUTS = ("head", "cc", "lp", "knn")
DIGITS = tuple("0123456789")
CLASSES = ("negative", "itc", "micro", "macro")
SHARES = (0.62, 0.08, 0.12, 0.18)
NETWORKS = ("abmil", "transmil", "aem", "asmil")
# how well what is decided by tells classes apart
_SKILL = {"abmil": 1.5, "transmil": 1.6, "aem": 1.9, "asmil": 2.2}
_GAIN = {"head": 0.0, "cc": 0.05, "lp": 0.1}
PATCH = 512
FIXED = {"separation_power": 1.0, "distribution": "nsf", "center": "frozen", "temperature": 0.2, "centroids": "fixed"}
"""Options of NCMI with fixed centroids, whose first read-out is CC."""


# --- tables and images


def write_run(
    folder: Path,
    objective: str = "ncmi",
    seed: int = 0,
    *,
    kind: Kind = "table",
    data: str = "digits",
    network: str = "convnet",
    width: int = 32,
    options: Mapping[str, Any] | None = None,
    epochs: int = 20,
    batch_size: int = 64,
    stopped_after: int | None = None,
    class_names: Sequence[str] = DIGITS,
    num_test: int = 360,
    sizes: Sequence[int] | None = None,
    dim: int = 64,
    validation: bool = True,
) -> Path:
    """Write one run folder of a table or of images; ``stopped_after`` leaves it unfinished.

    ``sizes`` are the test samples of each class, where classes are not alike; they take the place of ``num_test``.

    NCMI with ``options["centroids"] == "fixed"`` is judged by CC first, as it is by training.
    """
    _, primary, error, spread, cmi, separation = OBJECTIVES[objective]
    options = ({"temperature": 0.5} if objective == "ncmi" else {}) if options is None else options
    if options.get("centroids") == "fixed":
        primary = ("cc", "lp")
    classes = len(class_names)
    split = np.random.default_rng(seed)
    num_test = num_test if sizes is None else sum(sizes)
    even = np.arange(num_test) % classes
    labels = split.permutation(even if sizes is None else np.repeat(np.arange(classes), sizes))
    hard = split.random(num_test)  # the same samples are hard for every objective: pairing helps
    rng = np.random.default_rng([seed, zlib.crc32(objective.encode())])

    folder.mkdir(parents=True)
    _write_recipe(
        folder,
        data={"kind": kind, "name": data, "validation_fraction": 0.2, "test_fraction": 0.2, "split_seed": None},
        network={"name": network, "width": width, "feature_dim": dim},
        objective={"name": objective, **options},
        training={
            "epochs": epochs,
            "batch_size": batch_size,
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "seed": seed,
        },
    )
    rows = []
    for epoch in range(1, (epochs if stopped_after is None else stopped_after) + 1):
        decay = float(np.exp(-3.5 * (epoch - 1) / epochs))
        noise = rng.normal(size=5)
        validation_error = min(0.9, error / 100 * (1 + 12 * decay**2) * float(np.exp(0.15 * noise[0])))
        this_cmi = cmi * (1 + 25 * decay**2) * float(np.exp(0.1 * noise[1]))
        this_separation = separation * (1 - 0.8 * decay) * float(np.exp(0.05 * noise[2]))
        judged = {
            "validation_loss": 2.4 * decay + 0.05,
            "validation_accuracy": round((1 - validation_error) * 288) / 288,
            "validation_macro_f1": round((1 - validation_error) * 288) / 288,
            "validation_cmi": this_cmi,
            "validation_separation": this_separation,
            "validation_ncmi": this_cmi / this_separation,
        }
        rows.append(
            EpochMetrics(
                epoch=epoch,
                steps=18,
                learning_rate=0.1 * decay,
                train_loss=2.3 * decay + 0.02,
                seconds=0.11 + 0.02 * abs(noise[3]) + (0.12 if objective == "supcon" else 0.0),
                peak_memory_mb=412.0 + 3 * abs(noise[4]),
                **(judged if validation else {}),
            )
        )
    _write_metrics(folder, rows)
    if stopped_after is not None:
        return folder

    means = np.linalg.qr(rng.normal(size=(dim, max(classes, 2))))[0].T[:classes]
    other = (labels + 1 + (labels * 7 + seed) % (classes - 1)) % classes
    # the harder a sample, the nearer it lies to the class that it is mistaken for
    doubt = (np.clip(0.62 - 0.5 * hard**0.3, 0, 1) * (0.7 + spread))[:, None]
    center = (1 - doubt) * means[labels] + doubt * means[other]
    features = 3 * (center + spread * rng.normal(size=(num_test, dim)) / 5)
    arrays: dict[str, Any] = {"labels": labels.astype(np.int64), "features": features.astype(np.float16)}
    readouts = {}
    for place, readout in enumerate(READOUTS):
        difficulty = hard + 0.004 * rng.normal(size=num_test)
        wrong = difficulty < error / 100 + 0.002 * rng.normal()
        prediction = np.where(wrong, other, labels)
        arrays[f"prediction_{readout}"] = prediction.astype(np.int64)
        readouts[readout] = _readout(labels, prediction, class_names, 0.1 * place + 0.01 * seed, validation, seed)
    np.savez_compressed(folder / "test_outputs.npz", **arrays)
    write_record(
        folder / "results.json",
        Results(
            kind=kind,
            data=data,
            network=network,
            objective=objective,
            seed=seed,
            epochs=epochs,
            best_epoch=epochs,
            selection="last",
            class_names=list(class_names),
            num_train=1149,
            num_validation=288 if validation else 0,
            num_test=num_test,
            primary_readouts=list(primary),
            readouts=readouts,
            class_counts={
                name: (np.bincount(labels, minlength=classes) * times).tolist()
                for name, times in (("train", 3), *([("validation", 1)] if validation else []), ("test", 1))
            },
            information=InformationRecord(
                cmi=this_cmi,
                separation=this_separation,
                ncmi=this_cmi / this_separation,
                cross_entropy_separation=1.1 * this_separation,
                cross_entropy_ncmi=this_cmi / (1.1 * this_separation),
            ),
            epoch_seconds=float(np.median([row.seconds for row in rows])),
            total_seconds=float(sum(row.seconds for row in rows)) + 0.6,
            peak_memory_mb=float(max(row.peak_memory_mb for row in rows)),
            parameters=12_345,
        ),
    )
    return folder


def write_comparison(
    folder: Path,
    objectives: Sequence[str] = tuple(OBJECTIVES),
    seeds: Sequence[int] = range(5),
    *,
    unfinished: Sequence[tuple[str, int]] = (),
    missing: Sequence[tuple[str, int]] = (),
    labels: Mapping[str, str] | None = None,
    **options: Any,
) -> Path:
    """Write a comparison folder; ``unfinished`` and ``missing`` are (objective, seed) pairs."""
    entries = []
    for objective in objectives:
        runs = [f"runs/{objective}-seed{seed}" for seed in seeds]
        for seed, name in zip(seeds, runs, strict=True):
            if (objective, seed) not in missing:
                stopped = 7 if (objective, seed) in unfinished else None
                write_run(folder / name, objective, seed, stopped_after=stopped, **options)
        label = (labels or {}).get(objective, OBJECTIVES[objective][0])
        entries.append(_entry(objective, label, options.get("network", "convnet"), objective, runs))
    _write_comparison(
        folder,
        entries,
        seeds,
        kind=options.get("kind", "table"),
        data=options.get("data", "digits"),
        command="ncmi compare digits",
        total_seconds=161.2,
    )
    return folder


# --- bags


def write_bag_run(
    folder: Path,
    network: str = "abmil",
    objective: str = "ncmi",
    seed: int = 0,
    *,
    fold: int = 0,
    folds: int = 0,
    class_names: Sequence[str] = CLASSES,
    patients: int = 60,
    slides_each: int = 5,
    epochs: int = 20,
    stopped_after: int | None = None,
    attention: int = 4,
    simulation: bool = False,
    coords: bool = True,
    validation: bool = True,
    skipped: Sequence[tuple[str, str]] = (),
    prefix: str = "slide",
    resamples: int = 200,
    slides: Sequence[str] = (),
) -> Path:
    """Write one run folder of bags; ``stopped_after`` leaves it unfinished, ``slides`` renames the first test slides."""
    folder.mkdir(parents=True)
    _write_recipe(
        folder,
        data={
            "kind": "bags",
            "name": "cohorts/camelyon/features",
            "labels": "cohorts/camelyon/labels.csv",
            "folds": folds,
            "fold": fold,
            "validation_fraction": 0.15,
            "split_seed": None,
        },
        network={"name": network, "width": 512, "heads": 8},
        objective={"name": objective, **({"temperature": 0.5} if objective == "ncmi" else {})},
        training={
            "epochs": epochs,
            "batch_size": 1,
            "learning_rate": 1e-4,
            "selection": "best" if validation else "last",
            "seed": seed,
        },
    )
    rng = np.random.default_rng([seed, fold, zlib.crc32(f"{network} {objective}".encode())])
    rows = _epochs(rng, epochs if stopped_after is None else stopped_after, validation)
    _write_metrics(folder, rows)
    if stopped_after is not None:
        return folder

    names, owners, labels, instances, hard = _cohort(len(class_names), patients, slides_each, prefix)
    part = _parts(patients, slides_each, seed, fold, folds, validation)
    test = np.flatnonzero(part == "test")
    for index, name in enumerate(slides):
        names[test[index]] = name
    probabilities = {
        readout: _probabilities(rng, labels, hard, len(class_names), _SKILL[network] + _GAIN[readout], objective)
        for readout in ("head", "cc", "lp")
    }
    readouts = {}
    for place, (readout, values) in enumerate(probabilities.items()):
        judged = {}
        for name in ("test", "validation") if validation else ("test",):
            at = np.flatnonzero(part == name)
            judged[name] = _bag_scores(labels[at], values[at], [owners[i] for i in at], class_names, resamples, seed)
        readouts[readout] = Readout(
            **judged,
            calibration=_calibration(0.1 * place) if validation else None,
            reliability={"test": bins_of(seed)} | ({"calibrated": bins_of(seed + 100)} if validation else {}),
        )
    write_record(
        folder / "results.json",
        Results(
            kind="bags",
            data="camelyon",
            network=network,
            objective=objective,
            seed=seed,
            fold=fold,
            folds=folds,
            epochs=epochs,
            best_epoch=min(14, epochs) if validation else epochs,
            selection="best" if validation else "last",
            class_names=list(class_names),
            num_train=int((part == "train").sum()),
            num_validation=int((part == "validation").sum()),
            num_test=int((part == "test").sum()),
            primary_readouts=list(OBJECTIVES[objective][1]),
            readouts=readouts,
            information=InformationRecord(
                cmi=0.41, separation=1.3, ncmi=0.315, cross_entropy_separation=1.5, cross_entropy_ncmi=0.273
            ),
            epoch_seconds=float(np.median([row.seconds for row in rows])),
            total_seconds=float(sum(row.seconds for row in rows)) + 2.0,
            peak_memory_mb=float(max(row.peak_memory_mb for row in rows)),
            parameters=54_321,
            simulation=simulation,
            skipped=[Skipped(name=name, reason=reason) for name, reason in skipped],
        ),
    )
    arrays: dict[str, Any] = {
        "labels": labels[test].astype(np.int64),
        "features": rng.normal(size=(len(test), 16)).astype(np.float16),
        "names": np.array([names[i] for i in test]),
        "groups": np.array([owners[i] for i in test]),
    }
    for readout, values in probabilities.items():
        arrays[f"prediction_{readout}"] = values[test].argmax(1)
        arrays[f"probability_{readout}"] = values[test]
    np.savez_compressed(folder / "test_outputs.npz", **arrays)
    with (folder / "slides.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = [f"{readout}:{name}" for readout in probabilities for name in class_names]
        distances = [f"distance:{name}" for name in class_names]
        writer.writerow(["slide", "patient", "part", "label", "instances", *columns, *distances])
        for i in np.argsort(part, kind="stable"):
            values_ = [f"{v:.9g}" for values in probabilities.values() for v in values[i]]
            far = [f"{v:.6g}" for v in -np.log(probabilities["cc"][i])]
            writer.writerow([names[i], owners[i], part[i], class_names[labels[i]], instances[i], *values_, *far])
    chosen = [int(at) for at in test[np.argsort(labels[test], kind="stable")]]
    for place in range(attention):
        at = chosen[place * (len(chosen) - 1) // max(attention - 1, 1)] if not slides else int(test[place])
        write_attention(folder / "attention" / f"{names[at]}.npz", at, lesion=int(labels[at]), coords=coords)
    return folder


def write_bag_comparison(
    folder: Path,
    networks: Sequence[str] = NETWORKS,
    objectives: Sequence[str] = ("cross_entropy", "ncmi"),
    seeds: Sequence[int] = (0, 1, 2),
    *,
    folds: int = 0,
    missing: Sequence[str] = (),
    simulation: bool = False,
    title: str = "",
    **options: Any,
) -> Path:
    """Write a comparison folder of bags; ``missing`` names run folders that are not there."""
    entries = []
    for network in networks:
        for objective in objectives:
            runs = []
            for seed in seeds:
                for fold in range(max(folds, 1)):
                    name = f"runs/{network}-{objective}-seed{seed}" + (f"-fold{fold}" if folds else "")
                    runs.append(name)
                    if name.removeprefix("runs/") not in missing:
                        write_bag_run(
                            folder / name,
                            network,
                            objective,
                            seed,
                            fold=fold,
                            folds=folds,
                            simulation=simulation,
                            **({"attention": 0, "resamples": 0} | options),
                        )
            label = OBJECTIVES[objective][0]
            label = f"{network_label(network)}, {label}" if len(networks) > 1 else label
            entries.append(_entry(f"{network}-{objective}", label, network, objective, runs))
    _write_comparison(
        folder,
        entries,
        seeds,
        kind="bags",
        data="camelyon",
        folds=folds,
        simulation=simulation,
        title=title,
        command="ncmi reproduce table3",
    )
    return folder


# --- reproductions


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
NCMI = FakeEntry("ncmi-released", "NCMI (released)", "ncmi", FIXED)
POWER = FakeEntry("ncmi-power", "NCMI (p = −4, fixed)", "ncmi", {**FIXED, "separation_power": -4.0})


def write_reproduction(
    root: Path,
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
    write_record(
        folder / "reproduction.json",
        ReproductionRecord(
            experiment=experiment,
            title=f"Title of {experiment}",
            scale=scale,
            groups=[GroupRecord(name=name, title=name.replace("-batch", ", batch ")) for name in groups],
        ),
    )
    for name, entries in groups.items():
        (folder / name).mkdir()
        records = []
        for entry in entries:
            settings = {
                "data": "cifar100",
                "kind": "image",
                "network": entry.network,
                "width": entry.width,
                "options": entry.options,
                "epochs": entry.epochs,
                "batch_size": entry.batch_size,
            }
            for seed in seeds:
                run = root / "runs" / f"{entry.name}-seed{seed}"
                if (entry.name, seed) not in missing and not run.exists():
                    stopped = 3 if (entry.name, seed) in unfinished else None
                    write_run(run, entry.objective, seed, stopped_after=stopped, **(settings | options))
            recipe = {
                "data": {"name": "cifar100"},
                "network": {"name": entry.network, "width": entry.width},
                "objective": {"name": entry.objective, **entry.options},
                "training": {"batch_size": entry.batch_size, "epochs": entry.epochs},
            }
            runs = [f"../../runs/{entry.name}-seed{seed}" for seed in seeds]
            records.append(_entry(entry.name, entry.label, entry.network, entry.objective, runs, recipe))
        _write_comparison(
            folder / name,
            records,
            seeds,
            kind="image",
            data="cifar100",
            command=f"ncmi reproduce {experiment}",
            total_seconds=10.0,
            machine={"cpu": "Example CPU, 2 cores"},
        )
    return folder


# --- changes


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def set_results(run: Path, readout: str = "head", **values: float | None) -> None:
    """Set scores of a read-out on the test part (``accuracy=0.9``), or measures of a run, in its ``results.json``."""

    def change(results: dict[str, Any]) -> None:
        for name, value in values.items():
            if name in results["information"]:
                results["information"][name] = value
            else:
                results["readouts"][readout]["test"][name]["value"] = value

    edit(run / "results.json", change)


def edit_outputs(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the arrays of ``test_outputs.npz`` in place."""
    with np.load(run / "test_outputs.npz") as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez_compressed(run / "test_outputs.npz", **arrays)


def write_ood(folder: Path, name: str = "other", **changes: Any) -> Path:
    """Write what ``ncmi evaluate --ood`` leaves of one data set."""
    detection = Detection(auroc=0.91, fpr95=0.125, threshold=1e-3)
    edges = np.geomspace(1e-4, 1e-2, 41).tolist()
    record = OutOfDistribution(
        data=name,
        inside="digits",
        num_inside=360,
        num_outside=80,
        readout="cc",
        scores={"distance": detection, "max_probability": detection},
        distances=Histogram(edges=edges, inside=[9] * 40, outside=[2] * 40),
    )
    path = folder / f"ood-{re.sub(r'[^a-z]', '', name)}.json"
    write_json(path, msgspec.to_builtins(record) | changes)
    return path


# --- slides to look at


def tissue(seed: int, lesion: int = 0, columns: int = 70, rows: int = 46) -> tuple[NDArray[Any], NDArray[Any]]:
    """Corners ``[N, 2]`` of the patches of a section, and how much a lesion of some size is in each of them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns]
    inside = np.zeros((rows, columns), dtype=bool)
    for _ in range(3):
        cx, cy = rng.uniform(0.25, 0.75, 2) * (columns, rows)
        a, b = rng.uniform(0.15, 0.3, 2) * (columns, rows)
        inside |= ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 < 1 + 0.15 * np.sin(x / 2 + y / 3)
    places = np.argwhere(inside)
    center = places[rng.integers(len(places))]
    radius = (0.5, 1.0, 2.5, 9.0)[min(lesion, 3)]
    strength = np.exp(-((places - center) ** 2).sum(axis=1) / (2 * radius**2))
    return places[:, ::-1] * PATCH, strength


def write_attention(path: Path, seed: int, *, lesion: int = 0, coords: bool = True) -> Path:
    """Write attention over a section; ``lesion`` is the class, which says how large the bright part is."""
    corners, strength = tissue(seed, lesion)
    logits = 5.0 * strength * (lesion > 0) + 0.9 * np.random.default_rng(seed + 1).normal(size=len(corners))
    values = np.exp(logits) / np.exp(logits).sum()
    arrays: dict[str, Any] = {"attention": values.astype(np.float32), "patch_size": np.array(PATCH)}
    if coords:
        arrays["coords"] = corners
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return path


def section_image(seed: int, lesion: int = 0, zoom: int = 12) -> NDArray[np.uint8]:
    """A picture of the section that :func:`tissue` makes, ``zoom`` pixels a patch: pink, with darker nuclei."""
    corners, strength = tissue(seed, lesion)
    rng = np.random.default_rng(seed)
    image = np.full((46 * zoom, 70 * zoom, 3), 243.0)
    for (x, y), s in zip(corners // PATCH, strength, strict=True):
        color = np.array([226, 170, 205]) * (1 - 0.5 * s) + np.array([120, 70, 150]) * 0.5 * s
        image[y * zoom : (y + 1) * zoom, x * zoom : (x + 1) * zoom] = color
    image += rng.normal(scale=14, size=image.shape[:2])[..., None] * (image < 240)
    return np.clip(image, 0, 255).astype(np.uint8)


def write_tiles(folder: Path, name: str, seed: int, *, lesion: int = 0) -> Path:
    """Write the thumbnail and the coordinates of a section, with a line of text below as tiling does."""
    import h5py
    from PIL import Image

    size = (70 * PATCH, 46 * PATCH)
    picture = Image.fromarray(section_image(seed, lesion, 20)).resize((1500, round(46 / 70 * 1500)))
    canvas = Image.new("RGB", (1500, picture.height + 34), "white")
    canvas.paste(picture)
    for part in ("thumbnails", "coords"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    canvas.save(folder / "thumbnails" / f"{name}.jpg", quality=88)
    with h5py.File(folder / "coords" / f"{name}.h5", "w") as file:
        data = file.create_dataset("coords", data=tissue(seed, lesion)[0])
        data.attrs.update(
            {"patch_size": 256, "patch_size_level0": PATCH, "level0_width": size[0], "level0_height": size[1]}
        )
        data.attrs["level0_mpp"] = 0.25
    return folder


def write_slide_file(path: Path, seed: int, *, lesion: int = 0, zoom: int = 32) -> Path:
    """Write the section as a tiled pyramidal TIFF, in which a patch is ``zoom`` pixels wide at level 0."""
    import tifffile

    path.parent.mkdir(parents=True, exist_ok=True)
    image = section_image(seed, lesion, zoom)
    with tifffile.TiffWriter(path) as file:
        options: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb", "resolution": (40_000, 40_000)}
        options |= {"resolutionunit": "CENTIMETER"}
        file.write(image, subifds=0, **options)
        for step in (4, 16):
            file.write(image[::step, ::step], subfiletype=1, **options)
    return path


# --- parts


def bins_of(seed: int) -> Reliability:
    """Bins of confidence against accuracy, some of them empty."""
    counts = np.random.default_rng(seed).integers(0, 40, 15) * (np.arange(15) > 2)
    counts[9] = 0
    centers = (np.arange(15) + 0.5) / 15
    return Reliability(
        counts=counts.tolist(),
        confidence=[float(c) if n else None for c, n in zip(centers, counts, strict=True)],
        accuracy=[round(0.9 * c * n) / n if n else None for c, n in zip(centers, counts.tolist(), strict=True)],
    )


def _calibration(base: float) -> Calibration:
    return Calibration(temperature=1.5 + base, nll=0.1 + base, calibration_error=0.02 + base / 10)


def _readout(
    labels: NDArray[Any], prediction: NDArray[Any], class_names: Sequence[str], base: float, validation: bool, seed: int
) -> Readout:
    """How made-up decisions of a table or of images do; ``base`` tells read-out and seed in what cannot be computed."""
    # by hand: scikit-learn takes ten times as long as all the rest of a run
    counts = np.zeros((len(class_names), len(class_names)))
    np.add.at(counts, (labels, prediction), 1)
    right, support = np.diag(counts), counts.sum(axis=1)
    recalls, f1 = right / support.clip(1), 2 * right / (support + counts.sum(axis=0)).clip(1)
    test = Scores(
        samples=len(labels),
        accuracy=Estimate(value=float((prediction == labels).mean())),
        balanced_accuracy=Estimate(value=float(recalls[support > 0].mean())),
        macro_f1=Estimate(value=float(f1[(support > 0) | (f1 > 0)].mean())),
        macro_auc=Estimate(value=float(1 - (prediction != labels).mean() / 10)),
        nll=0.2 + base,
        brier=0.3 + base,
        calibration_error=0.04 + base / 10,
        classes=[
            ClassScores(
                name=name, support=int((labels == c).sum()), precision=0.9, recall=Estimate(value=float(r)), f1=0.9
            )
            for c, (name, r) in enumerate(zip(class_names, recalls, strict=True))
        ],
    )
    if not validation:
        return Readout(test=test, reliability={"test": bins_of(seed)})
    return Readout(
        test=test,
        validation=msgspec.structs.replace(test, classes=[]),
        calibration=_calibration(base),
        reliability={"test": bins_of(seed), "calibrated": bins_of(seed + 100)},
    )


def _bag_scores(
    labels: NDArray[Any],
    probabilities: NDArray[Any],
    groups: Sequence[str],
    class_names: Sequence[str],
    resamples: int,
    seed: int,
) -> Scores:
    return judge(np.log(probabilities), labels, class_names, groups=groups, resamples=resamples, seed=seed)


def _write_recipe(folder: Path, **sections: dict[str, Any]) -> None:
    write_json(folder / "recipe.json", {"format": 2, **sections})
    environment = {
        "python": "3.11.9",
        "torch": "2.13.0",
        "ncmi": "0.2.0",
        "platform": "Linux-6.1-x86_64",
        "cpu": "Example CPU, 2 cores",
        "device": "cpu",
        "commit": None,
    }
    write_json(folder / "environment.json", environment)


def _write_metrics(folder: Path, rows: Sequence[EpochMetrics]) -> None:
    # json, and not msgspec: it takes the floats of NumPy
    lines = [json.dumps(msgspec.structs.asdict(row)) + "\n" for row in rows]
    (folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")


def _entry(
    name: str,
    label: str,
    network: str,
    objective: str,
    runs: Sequence[str],
    recipe: dict[str, Any] | None = None,
) -> EntryRecord:
    recipe = recipe or {"network": {"name": network}, "objective": {"name": objective}}
    return EntryRecord(name=name, label=label, network=network, objective=objective, runs=list(runs), recipe=recipe)


def _write_comparison(folder: Path, entries: list[EntryRecord], seeds: Sequence[int], **values: Any) -> None:
    machine = {"python": "3.11.9", "torch": "2.13.0", "cpu": "Example CPU, 2 cores", "commit": None}
    record = {"machine": machine, "baseline": "cross_entropy"} | values
    write_record(folder / "comparison.json", ComparisonRecord(entries=entries, seeds=list(seeds), **record))


def _epochs(rng: np.random.Generator, epochs: int, validation: bool) -> list[EpochMetrics]:
    rows = []
    for epoch in range(1, epochs + 1):
        decay = float(np.exp(-3.0 * epoch / max(epochs, 1)))
        noise = rng.normal(size=4)
        judged = {
            "validation_loss": 0.6 + 0.6 * decay + 0.02 * noise[0],
            "validation_macro_f1": float(np.clip(0.62 - 0.4 * decay + 0.02 * noise[1], 0, 1)),
            "validation_macro_auc": float(np.clip(0.9 - 0.3 * decay + 0.01 * noise[2], 0, 1)),
            "validation_accuracy": 0.8,
            "validation_cmi": 0.4 + decay,
            "validation_separation": 1.3 - decay,
            "validation_ncmi": (0.4 + decay) / (1.3 - decay),
        }
        rows.append(
            EpochMetrics(
                epoch=epoch,
                steps=100,
                learning_rate=1e-4 * decay,
                train_loss=1.2 * decay + 0.05,
                train_penalty=0.0,
                seconds=1.4 + 0.1 * abs(noise[3]),
                peak_memory_mb=830.0,
                **(judged if validation else {}),
            )
        )
    return rows


def _cohort(classes: int, patients: int, slides_each: int, prefix: str) -> tuple[list[str], list[str], Any, Any, Any]:
    rng = np.random.default_rng(7)
    count = patients * slides_each
    shares = np.array(SHARES if classes == 4 else [1 / classes] * classes)
    labels = np.repeat(np.arange(classes), np.diff(np.r_[0, np.round(np.cumsum(shares) * count)]).astype(int))
    labels = rng.permutation(labels)
    owners = [f"patient_{index // slides_each:03d}" for index in range(count)]
    names = [f"{prefix}_{index // slides_each:03d}_node_{index % slides_each}" for index in range(count)]
    return names, owners, labels, rng.integers(400, 30_000, count), rng.normal(size=count)


def _parts(patients: int, slides_each: int, seed: int, fold: int, folds: int, validation: bool) -> Any:
    if folds:
        place = np.random.default_rng(seed).permutation(patients) % folds
        part = np.where(place == fold, "test", "train").astype("<U10")
    else:
        part = np.where(np.arange(patients) % 5 < 3, "train", "test").astype("<U10")
    if validation:
        part[np.flatnonzero(part == "train")[::6]] = "validation"
    return np.repeat(part, slides_each)


def _probabilities(
    rng: np.random.Generator, labels: Any, hard: Any, classes: int, skill: float, objective: str
) -> NDArray[np.float64]:
    skill += 0.35 * (objective == "ncmi")
    scores = rng.normal(size=(len(labels), classes))
    scores[np.arange(len(labels)), labels] += skill + 0.9 * hard
    scores -= scores.max(axis=1, keepdims=True)
    return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)


class Page(HTMLParser):
    """Checks that every tag is closed in order, and collects text, attributes and captions."""

    _VOID = ("meta", "link", "img", "br", "hr")

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.words: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.parts: dict[str, list[str]] = {"figcaption": [], "h1": [], "title": [], "note": []}
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"attribute twice in <{tag}>"
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self._VOID:
            kind = "note" if tag == "p" and ("class", "note") in attrs else tag
            self.open.append(kind)
            if kind in self.parts:
                self.parts[kind].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self._VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() in (tag, "note" if tag == "p" else tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)
        for kind, found in self.parts.items():
            if kind in self.open:
                found[-1] += data

    @cached_property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def values(self, name: str) -> list[str]:
        return [value for _, found, value in self.attributes if found == name]
