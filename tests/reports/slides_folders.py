"""Run folders, comparison folders and tiles of slides that look like real ones, made without any training."""

from __future__ import annotations

import csv
import json
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncmi.files import finite
from ncmi.slides.metrics import slide_metrics

CLASSES = ("negative", "itc", "micro", "macro")
SHARES = (0.62, 0.08, 0.12, 0.18)
NETWORKS = ("abmil", "transmil", "aem", "asmil")
LABELS = {"cross_entropy": "CE", "ncmi": "NCMI"}
PRIMARY = {"cross_entropy": ("head",), "ncmi": ("head", "cc", "lp")}
# how well what is decided by tells classes apart
_SKILL = {"abmil": 1.5, "transmil": 1.6, "aem": 1.9, "asmil": 2.2}
_GAIN = {"head": 0.0, "cc": 0.05, "lp": 0.1}
PATCH = 512


def write_slides_run(
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
    """Write one run folder; ``stopped_after`` leaves it unfinished, ``slides`` renames the first test slides."""
    folder.mkdir(parents=True)
    data: dict[str, Any] = {"features": "cohorts/camelyon/features", "labels": "cohorts/camelyon/labels.csv"}
    data |= {"folds": folds, "fold": fold, "validation_fraction": 0.15, "split_seed": None}
    recipe = {
        "format": 1,
        "kind": "slides",
        "data": data,
        "network": {"name": network, "width": 512, "heads": 8},
        "objective": {"name": objective, **({"temperature": 0.5} if objective == "ncmi" else {})},
        "training": {"epochs": epochs, "batch_size": 1, "learning_rate": 1e-4, "selection": "best", "seed": seed},
        "sampling": "all",
    }
    _write(folder / "recipe.json", recipe)
    _write(folder / "environment.json", {"python": "3.11.9", "torch": "2.13.0", "cpu": "Example CPU", "commit": None})
    rng = np.random.default_rng([seed, fold, zlib.crc32(f"{network} {objective}".encode())])
    rows = _epochs(rng, epochs if stopped_after is None else stopped_after, objective, validation)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
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
    results: dict[str, Any] = {"format": 1, "kind": "slides", "status": "finished", "data": "camelyon"}
    readouts: dict[str, Any] = {}
    for readout, values in probabilities.items():
        for name in ("test", "validation") if validation else ("test",):
            at = np.flatnonzero(part == name)
            found = slide_metrics(
                labels[at], values[at], [owners[i] for i in at], class_names, resamples=resamples, seed=seed
            )
            readouts.setdefault(readout, {})[name] = found
    results |= {
        "network": network,
        "objective": objective,
        "seed": seed,
        "fold": fold,
        "folds": folds,
        "epochs": epochs,
        "best_epoch": 14 if validation else None,
        "selection": "best" if validation else "last",
        "primary_readouts": list(PRIMARY[objective]),
        "class_names": list(class_names),
        "readouts": readouts,
        "information": {"cmi": 0.41, "separation": 1.3, "ncmi": 0.315},
        "epoch_seconds": float(np.median([row["seconds"] for row in rows])),
        "total_seconds": float(sum(row["seconds"] for row in rows)) + 2.0,
        "peak_memory_mb": max(row["peak_memory_mb"] for row in rows),
        **{f"num_{name}": int((part == name).sum()) for name in ("train", "validation", "test")},
        "skipped": [{"slide": slide, "reason": reason} for slide, reason in skipped],
        "simulation": simulation,
    }
    _write(folder / "results.json", finite(results))
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


def write_comparison_of_slides(
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
    """Write a comparison folder; ``missing`` names run folders that are not there."""
    entries = []
    for network in networks:
        for objective in objectives:
            runs = []
            for seed in seeds:
                for fold in range(max(folds, 1)):
                    name = f"runs/{network}-{objective}-seed{seed}" + (f"-fold{fold}" if folds else "")
                    runs.append(name)
                    if name.removeprefix("runs/") not in missing:
                        write_slides_run(
                            folder / name,
                            network,
                            objective,
                            seed,
                            fold=fold,
                            folds=folds,
                            simulation=simulation,
                            **({"attention": 0, "resamples": 0} | options),
                        )
            entries.append({"label": LABELS[objective], "network": network, "objective": objective, "runs": runs})
    comparison = {"format": 1, "kind": "slides", "entries": entries, "baseline": "cross_entropy", "seeds": list(seeds)}
    comparison |= {"folds": folds, "simulation": simulation, "command": "ncmi slides table3", "title": title}
    _write(folder / "comparison.json", comparison)
    return folder


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
    centre = places[rng.integers(len(places))]
    radius = (0.5, 1.0, 2.5, 9.0)[min(lesion, 3)]
    strength = np.exp(-((places - centre) ** 2).sum(axis=1) / (2 * radius**2))
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
        colour = np.array([226, 170, 205]) * (1 - 0.5 * s) + np.array([120, 70, 150]) * 0.5 * s
        image[y * zoom : (y + 1) * zoom, x * zoom : (x + 1) * zoom] = colour
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


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def _epochs(rng: np.random.Generator, epochs: int, objective: str, validation: bool) -> list[dict[str, Any]]:
    rows = []
    for epoch in range(1, epochs + 1):
        decay = float(np.exp(-3.0 * epoch / max(epochs, 1)))
        noise = rng.normal(size=4)
        row: dict[str, Any] = {"epoch": epoch, "learning_rate": 1e-4 * decay, "seconds": 1.4 + 0.1 * abs(noise[3])}
        row |= {"train_loss": 1.2 * decay + 0.05, "train_penalty": 0.0, "peak_memory_mb": 830.0}
        if validation:
            row["validation_loss"] = 0.6 + 0.6 * decay + 0.02 * noise[0]
            row["validation_macro_f1"] = float(np.clip(0.62 - 0.4 * decay + 0.02 * noise[1], 0, 1))
            row["validation_auc"] = float(np.clip(0.9 - 0.3 * decay + 0.01 * noise[2], 0, 1))
            row["validation_accuracy"] = 0.8
        rows.append(row)
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
        if self.open and self.open[-1] != "style":
            self.words.append(data)
        for kind, found in self.parts.items():
            if kind in self.open:
                found[-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def values(self, name: str) -> list[str]:
        return [value for _, found, value in self.attributes if found == name]
