"""A cohort of slides much larger than memory is trained on: peak resident memory against the bar of 4 GiB.

    python benchmarks/slides_memory.py [--folder DIR] [--slides 10000] [--threads 1] [--out FILE] [--quick]

The cohort is simulated and linked: 10,000 slides of 5,000 patches × 1,024 features in float16, 102 GB if loaded,
whose files are symbolic links to 200 different ones (2 GB on disk). Each slide is opened, read, checked and converted
as any other; the system's page cache makes the reading faster than a disk would. Accuracy on it means nothing.

One epoch of ABMIL with NCMI over about 9,600 slides, validation, then test and read-outs over all slides once more. Its
first layer has width 64 by default instead of 512, so that it takes minutes instead of hours; --width 0 for 512. What
a wider network takes more is one bag's activations, which the rows tell, not the cohort's.

The run is a process of its own, and its peak is the kernel's high-water mark (VmHWM) over its whole life: the trainer
resets the mark at each epoch, so it is read ten times a second, and the trainer's own figures count as well.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch

from _bench import HEAD, Row, write
from ncmi.options import NCMIOptions
from ncmi.recipes import BagNetwork, SlideData, SlideRecipe, Training
from ncmi.slides.simulation import link_cohort, simulation_of

BAR_GIB, LARGE_GB = 4.0, 100
STATUS = Path("/proc/self/status")
FULL = {"slides": 10_000, "distinct": 200, "instances": 5_000, "feature_dim": 1024}
QUICK = {"slides": 200, "distinct": 20, "instances": 200, "feature_dim": 64}


def recipe_of(folder: Path, width: int, network: str, threads: int) -> SlideRecipe:
    """One epoch over nearly all slides of a linked cohort."""
    data = SlideData(
        str(folder / "features"),
        str(folder / "labels.csv"),
        slide_column="slide_id",
        patient_column="patient_id",
        label_column="label",
        validation_fraction=0.02,
        test_fraction=0.02,
    )
    training = Training(
        epochs=1,
        batch_size=1,
        optimiser="adamw",
        learning_rate=1e-4,
        weight_decay=1e-5,
        selection="best",
        threads=threads,
    )
    bags = BagNetwork(network, width)  # type: ignore[arg-type]
    return SlideRecipe(data, bags, NCMIOptions(), training)


class Peak(threading.Thread):
    """Largest VmHWM seen, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self.over = threading.Event()

    def look(self) -> None:
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                self.bytes = max(self.bytes, 1024 * int(line.split()[1]))

    def run(self) -> None:
        while not self.over.wait(0.1):
            self.look()


def train(recipe: SlideRecipe, out: Path) -> None:
    """In a process of its own: train, and write what it took."""
    from ncmi.slides.run import train_slides

    peak, began, marks = Peak(), time.perf_counter(), []
    peak.start()
    with tempfile.TemporaryDirectory() as runs:
        results = train_slides(
            recipe,
            Path(runs) / "run",
            on_epoch=lambda row: marks.append(row),
            attention_slides=0,
        )
    peak.over.set()
    peak.look()
    seconds = time.perf_counter() - began
    found = {
        "peak_bytes": max(peak.bytes, 1e6 * results["peak_memory_mb"]),
        "seconds": seconds,
        "epoch_seconds": marks[-1]["seconds"],
        "slides": {part: results[f"num_{part}"] for part in ("train", "validation", "test")},
    }
    out.write_text(json.dumps(found))


def rows_of(found: dict[str, Any], linked: dict[str, int]) -> list[Row]:
    """What is told of a run."""

    def row(what: str, value: float, unit: str, **options: Any) -> Row:
        return Row(what, value, value, value, unit=unit, **options)

    slides, size = found["slides"], linked["bytes_if_loaded"] / linked["slides"]
    in_epoch = slides["train"] + slides["validation"]
    loaded = linked["bytes_if_loaded"] / 1e9
    note = (
        f"{linked['slides']:,} linked slides (simulation) of {linked['instances']:,} patches, {loaded:.1f} GB if loaded"
    )
    # a cohort that would fit proves nothing
    bar = BAR_GIB if loaded >= LARGE_GB else None
    return [
        row("peak resident memory of training", found["peak_bytes"] / 2**30, "GiB", bar=bar, note=note),
        row("if it were loaded, as float16", linked["bytes_if_loaded"] / 2**30, "GiB"),
        row("slides in the epoch", in_epoch / found["epoch_seconds"], "slides/s", note=f"{slides}"),
        row("read in the epoch", in_epoch * size / 1e9 / found["epoch_seconds"], "GB/s", note="from the page cache"),
        row("the whole run", found["seconds"], "s", note="epoch, then test and read-outs over all slides"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, help="where the cohort is, or is made and kept; by default a temporary one"
    )
    parser.add_argument("--network", default="abmil", help="abmil, transmil, aem, asmil, mean, max")
    parser.add_argument("--width", type=int, default=64, help="of the first layer; 0 for the usual one")
    parser.add_argument("--slides", type=int, help="number of slides; by default 10,000")
    parser.add_argument("--threads", type=int, default=1, help="of computation; reading has threads of its own")
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that it runs; no measurement")
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train is not None:
        train(recipe_of(arguments.folder, arguments.width, arguments.network, arguments.threads), arguments.train)
        return
    if not STATUS.exists():
        raise SystemExit("needs Linux: the high-water mark of resident memory is read from /proc")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "linked"
        began = time.perf_counter()
        sizes = QUICK if arguments.quick else FULL
        slides = arguments.slides or sizes["slides"]
        link_cohort(folder, **{**sizes, "slides": slides, "distinct": min(sizes["distinct"], slides)}, workers=2)
        print(f"cohort made in {time.perf_counter() - began:.0f} s\n", file=sys.stderr)
        content = simulation_of(folder)
        assert content is not None
        result = Path(temporary) / "result.json"
        given = {name: getattr(arguments, name) for name in ("network", "width", "threads")}
        options = {"folder": folder, **given, "train": result}
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        subprocess.run([sys.executable, __file__, *words], check=True)
        rows = rows_of(json.loads(result.read_text()), content["linked"])
    print(HEAD)
    for row in rows:
        print(row.line())
    about = {**given, "quick": arguments.quick, "cohort": content["linked"]}
    write(arguments.out, rows, torch.device("cpu"), simulation=True, **about)


if __name__ == "__main__":
    main()
