"""A folder of images that does not fit into memory is trained on: peak resident memory against the bar of 2 GiB.

    python benchmarks/image_folders.py [--folder DIR] [--images 20000] [--size 224] [--threads 1] [--out FILE] [--quick]

20,000 JPEGs of 10 classes, sides of 180 to 500 pixels drawn at random, smooth noise; at 224 pixels 3.0 GB if decoded.
One epoch of a small convnet with NCMI, every image once in training or validation, then validation, test and read-outs
over all images once more. Accuracy on it means nothing. --network mlp to see the reading alone.
"""

import argparse
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from _timing import Peak, Row, Table, command_line, in_own_process, of_value
from ncmi.objectives.options import NCMIOptions
from ncmi.recipes import ImageData, Network, Recipe, default_training

BAR_GIB, CLASSES = 2.0, 10
CPU = torch.device("cpu")


def write_image(folder: Path, number: int) -> None:
    """A JPEG of its own content and size, in the folder of its class."""
    generator = np.random.default_rng(number)
    width, height = (int(side) for side in generator.integers(180, 501, 2))
    coarse = generator.integers(0, 256, (height // 12, width // 12, 3), np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
    image.save(folder / f"class_{number % CLASSES}" / f"{number:06}.jpg", quality=85)


def write_folder(folder: Path, count: int) -> None:
    """The folder of images; those that are there already stay."""
    for label in range(CLASSES):
        (folder / f"class_{label}").mkdir(parents=True, exist_ok=True)
    missing = [n for n in range(count) if not (folder / f"class_{n % CLASSES}" / f"{n:06}.jpg").exists()]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        list(pool.map(partial(write_image, folder), missing, chunksize=100))


def recipe_of(folder: Path, size: int, network: str, threads: int, gigabytes: float) -> Recipe:
    """One epoch over nearly all images."""
    data = ImageData(
        str(folder), image_size=size, memory_gigabytes=gigabytes, validation_fraction=0.02, test_fraction=0.02
    )
    training = replace(default_training("image"), epochs=1, batch_size=64, threads=threads)
    return Recipe(data, Network(network, width=8, depth=3 if network == "convnet" else 1), NCMIOptions(), training)


def train_and_watch(recipe: Recipe) -> dict[str, Any]:
    """In a process of its own: read the folder, then train, and say what each took."""
    from ncmi.training.run import train
    from ncmi.training.sources import load_data

    peak = Peak()
    peak.start()
    began, epoch_seconds = time.perf_counter(), []
    data = load_data(recipe.data)
    checked = time.perf_counter() - began
    after_check = peak.megabytes
    with tempfile.TemporaryDirectory() as runs:
        results = train(
            recipe, Path(runs) / "run", data=data, on_epoch=lambda row: epoch_seconds.append(row["seconds"])
        )
    peak.over.set()
    peak.look()
    return {
        "images": len(data.labels),
        "decoded_bytes": data.inputs.shape.numel(),  # type: ignore[union-attr]
        "in_memory": isinstance(data.inputs, torch.Tensor),  # type: ignore[union-attr]
        "peak_bytes": 1e6 * max(peak.megabytes, results.peak_memory_mb),
        "check_peak_bytes": 1e6 * after_check,
        "check_seconds": checked,
        "epoch_seconds": epoch_seconds[-1],
        "seconds": time.perf_counter() - began,
        "in_epoch": results.num_train + results.num_validation,
    }


def rows_of(measured: dict[str, Any], size: int) -> list[Row]:
    """What a run took; a folder that would fit proves nothing."""
    count, decoded = measured["images"], measured["decoded_bytes"] / 2**30
    bar = BAR_GIB if decoded > BAR_GIB else None
    where = "in memory" if measured["in_memory"] else "decoded ahead of their use"
    note = f"{count:,} JPEGs at {size} pixels, {where}"
    return [
        of_value("peak resident memory of training", measured["peak_bytes"] / 2**30, unit="GiB", bar=bar, note=note),
        of_value("of the check of all files", measured["check_peak_bytes"] / 2**30, unit="GiB"),
        of_value("all images decoded", decoded, unit="GiB"),
        of_value("check of all files", count / measured["check_seconds"], unit="images/s", digits=0),
        of_value("epoch", measured["in_epoch"] / measured["epoch_seconds"], unit="images/s", digits=0),
        of_value(
            "the whole run", measured["seconds"], unit="s", digits=0, note="with test and read-outs on all images"
        ),
    ]


def arguments_of() -> argparse.Namespace:
    """What is to be measured."""
    parser = command_line(__doc__)
    parser.add_argument("--folder", type=Path, help="of the images, or where they are made; by default a temporary one")
    parser.add_argument("--images", type=int, help="number of images; by default 20,000")
    parser.add_argument("--size", type=int, help="side in pixels; by default 224")
    parser.add_argument("--network", default="convnet", help="convnet, mlp, resnet_small, resnet18")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of pixels that may lie in memory")
    parser.add_argument("--threads", type=int, default=1, help="of computation; decoding has threads of its own")
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that it runs; no measurement")
    parser.add_argument("--out", type=Path, help="JSON file")
    return parser.parse_args()


def main() -> None:
    arguments = arguments_of()
    count = arguments.images or (200 if arguments.quick else 20_000)
    size = arguments.size or (32 if arguments.quick else 224)
    with tempfile.TemporaryDirectory() as temporary:
        folder, began = arguments.folder or Path(temporary) / "images", time.perf_counter()
        write_folder(folder, count)
        print(f"images made in {time.perf_counter() - began:.0f} s\n", file=sys.stderr)
        recipe = recipe_of(folder, size, arguments.network, arguments.threads, arguments.gigabytes)
        rows = rows_of(in_own_process(train_and_watch, recipe), size)
    about = {name: getattr(arguments, name) for name in ("network", "threads", "gigabytes", "quick")}
    table = Table(arguments.out, CPU, **about)
    for row in rows:
        table.add(row)


if __name__ == "__main__":
    main()
