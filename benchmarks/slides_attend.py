"""`ncmi slides attend` on one slide of 200,000 patches: peak resident memory (bar 2 GiB) and seconds (bar 60 s).

    python benchmarks/slides_attend.py [--network abmil] [--instances 200000] [--threads 2] [--repeats 3] [--out FILE]

Features are random, [N, 1024] in float16, the run is one epoch on sixteen small bags. All files are written: overlay,
GeoJSON, CSV, page; there is no slide, so no patch is cut out. Each repeat is a process of its own. It prints machine,
median and range; "reading" is one reading of the features' file, which the bar leaves out. Seconds of processors tell
what it costs on a machine that is busy with other things.
"""

import os
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from _timing import Peak, Table, command_line, in_own_process, of_values
from ncmi.data.bags.readers import open_bags
from ncmi.objectives.options import NCMIOptions
from ncmi.recipes import BagData, BagNetwork, Recipe, default_training

WIDTH, BAR_GIB, BAR_SECONDS = 1024, 2.0, 60.0


def write_bags(folder: Path, counts: list[int]) -> None:
    """Random features of so many bags, on a grid."""
    import h5py

    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number, count in enumerate(counts):
        side = int(np.ceil(np.sqrt(count)))
        with h5py.File(folder / f"{number:02d}.h5", "w") as file:
            features = file.create_dataset("features", (count, WIDTH), "f2")
            for start in range(0, count, 10_000):
                rows = min(10_000, count - start)
                features[start : start + rows] = random.standard_normal((rows, WIDTH), np.float32) + number % 2
            places = np.arange(count)
            file["coords"] = 256 * np.stack([places % side, places // side], 1)
            file["coords"].attrs["patch_size_level0"] = 256


def prepare(folder: Path, network: str, instances: int) -> None:
    """A finished run, and the slide."""
    from ncmi.training.run import train

    write_bags(folder / "train", [64] * 16)
    write_bags(folder / "large", [instances])
    lines = [f"{number:02d},{'ab'[number % 2]}" for number in range(16)]
    (folder / "labels.csv").write_text("\n".join(["slide,label", *lines]) + "\n")
    data = BagData(str(folder / "train"), labels=str(folder / "labels.csv"), attention_slides=0)
    training = replace(default_training("bags"), epochs=1, accelerator="cpu")
    train(Recipe(data, BagNetwork(network), NCMIOptions(), training), folder / "run")  # type: ignore[arg-type]


def attend_and_watch(folder: Path, threads: int, number: int) -> tuple[float, float, float, float]:
    """In a process of its own: seconds of reading, seconds, seconds of processors and bytes of the verb."""
    from ncmi.cli import app

    torch.set_num_threads(threads)
    began = time.perf_counter()
    open_bags(folder / "large").load("00")
    reading = time.perf_counter() - began
    peak, began, processor = Peak(), time.perf_counter(), time.process_time()
    peak.start()
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        words = [str(folder / "run"), str(folder / "large"), "--out", str(folder / f"out{number}")]
        app.run(["slides", "attend", *words])
    seconds = time.perf_counter() - began
    peak.look()
    peak.over.set()
    return reading, seconds, time.process_time() - processor, 1e6 * peak.megabytes


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--network", default="abmil", help="abmil, aem, asmil, transmil")
    parser.add_argument("--instances", type=int, default=200_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        in_own_process(prepare, folder, arguments.network, arguments.instances)
        measured = [
            in_own_process(attend_and_watch, folder, arguments.threads, number) for number in range(arguments.repeats)
        ]
    reading, seconds, processor, peak = ([row[column] for row in measured] for column in range(4))
    given = {name: getattr(arguments, name) for name in ("network", "instances", "threads", "repeats")}
    table = Table(arguments.out, torch.device("cpu"), simulation=True, **given)
    what = f"{arguments.network}, {arguments.instances:,} patches, {arguments.threads} threads"
    table.add(of_values(f"attend, {what}, with reading", seconds, unit="s", bar=BAR_SECONDS, digits=1))
    table.add(of_values("the same, seconds of processors", processor, unit="s", digits=1))
    table.add(of_values("reading the features once", reading, unit="s", digits=1))
    table.add(of_values(f"peak resident memory, {what}", [each / 2**30 for each in peak], unit="GiB", bar=BAR_GIB))


if __name__ == "__main__":
    main()
