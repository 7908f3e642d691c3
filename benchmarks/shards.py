"""Shards against their bars: each sample once whoever reads, images per second of a core, memory of a million samples.

    python benchmarks/shards.py [--parts order speed memory] [--images DIR] [--runs 10] [--repeats 5] [--quick]

order: 100,003 samples in real shards, read for 3 epochs by 2 processes with 2 readers each, which are killed by SIGKILL
at a random step of each run; 3 processes go on from the last checkpoint, every 50 steps. Each image says its number in
its pixels. Bar: every number exactly once an epoch, epochs in other orders; and 1 shard on 4 processes.

speed: images per second of processor time of one process at 224 pixels, resized crops and mirroring, the same boxes for
all: Pillow on files in class folders, shards of the originals, and shards with a shorter side of 256. --images names a
folder of JPEGs (flat or in classes), such as the 1,000 of github.com/EliSchwartz/imagenet-sample-images; by default
images are made of noise, which says little. Bars: 1.4 and 3 times Pillow.

memory: a run of 1,000,000 samples (1,000 small images, each a thousand times in the index) with 640 features, 100
classes, NCMI, all read-outs but kNN: peak resident memory of the process. Bar: 2 GiB, with Python and torch in it.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from _timing import Peak, Row, Table, command_line, in_own_process, of_value, of_values
from ncmi.data.shards.decoding import codecs, random_box, uniform_draws
from ncmi.data.shards.index import Shard, ShardsRecord, read_index, write_index
from ncmi.data.shards.reading import ShardFiles, ShardImages, Share, Variation
from ncmi.data.shards.write import write_shards
from ncmi.objectives.options import NCMIOptions
from ncmi.recipes import Augmentation, ImageData, Network, Recipe, Training
from ncmi.training.loop import Progress
from ncmi.training.shards import ShardLoop
from ncmi.training.sources import open_source

SIDE, SCALE = 224, (0.35, 1.0)
LEVELS = 50  # of a color
PARTS = ("order", "speed", "memory")
CPU = torch.device("cpu")


def picture_of(number: int) -> bytes:
    """A JPEG of 8×8 pixels of one color that says its number, in levels so far apart that JPEG keeps them."""
    assert number < LEVELS**3, f"a color tells {LEVELS**3:,} numbers apart: give fewer --samples"
    levels = [number // LEVELS**2, number // LEVELS % LEVELS, number % LEVELS]
    pixels = np.full((8, 8, 3), 5 * np.array(levels) + 2, np.uint8)
    content: bytes = codecs()[0].encode_jpeg(pixels, quality=100, colorspace="RGB", colorsubsampling="444")
    return content


def numbers_of(images: torch.Tensor) -> list[int]:
    """The numbers of pictures ``[n, 8, 8, 3]``."""
    levels = ((images[:, 4, 4].float() - 2) / 5).round().int()
    numbers: list[int] = (levels @ torch.tensor([LEVELS**2, LEVELS, 1], dtype=torch.int32)).tolist()
    return numbers


def write_numbers(folder: Path, count: int, per_shard: int) -> Path:
    """Shards of so many numbers, in 10 classes, all for training; in a tar first, as 100,003 files would take long."""
    import tarfile

    folder.mkdir(parents=True)
    with tarfile.open(folder / "train.tar", "w") as archive:
        for number in range(count):
            content = picture_of(number)
            entry = tarfile.TarInfo(f"class_{number % 10}/{number}.jpg")
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))
    write_shards(folder / "train.tar", folder / "shards", short_side=0, images_per_shard=per_shard)
    return folder / "shards"


def read_as_rank(
    shards: Path, rank: int, world: int, start: tuple[int, int], epochs: int, batch_size: int, readers: int
) -> Iterator[tuple[int, int, list[int]]]:
    """Epoch, step and numbers that one process reads, from a step on: by the loop's own code, without a network."""
    data = ImageData(
        str(shards), image_size=8, crop_fraction=1.0, readers=readers, validation_fraction=0.1, test_fraction=0.1
    )
    recipe = Recipe(data, training=Training(epochs=epochs, batch_size=batch_size))
    source = open_source(recipe)
    loop: Any = object.__new__(ShardLoop)
    loop.source, loop.split, loop.labels, loop.training = source, source.split, source.labels, recipe.training
    loop.fabric = SimpleNamespace(world_size=world, global_rank=rank, device=CPU)
    loop.crops, loop.objective_views, loop.progress = False, 1, Progress(epoch=start[0], step=start[1])
    while loop.progress.epoch < epochs:
        batches = loop.epoch_samples().split(batch_size)
        with loop.reading(batches[loop.progress.step :]):
            for step in range(loop.progress.step, len(batches)):
                chunks = next(loop._chunks)
                yield loop.progress.epoch, step, flat(numbers_of(chunk.images) for chunk in chunks)
        loop.progress = Progress(epoch=loop.progress.epoch + 1)


def write_down(path: Path, arguments: dict[str, Any]) -> None:
    """What a process reads, a line a step, for whoever comes after it is killed."""
    with path.open("a") as file:
        for epoch, step, numbers in read_as_rank(**arguments):
            file.write(f"{epoch} {step} {' '.join(map(str, numbers))}\n")
            file.flush()


def lines_of(path: Path) -> dict[tuple[int, int], list[int]]:
    """Numbers by epoch and step; a line that was cut off does not count."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    rows = [list(map(int, line.split())) for line in lines]
    return {(row[0], row[1]): row[2:] for row in rows}


def steps_of(path: Path) -> int:
    """How many steps are written down, without a look at what they are."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def flat(lists: Iterable[list[int]]) -> list[int]:
    """One list after the other."""
    return list(chain.from_iterable(lists))


def killed_and_gone_on_with(
    shards: Path, folder: Path, seed: int, epochs: int, batch_size: int, every: int
) -> list[list[int]]:
    """Numbers of each epoch, in their order, of 2 processes that are killed and 3 that go on."""
    generator = np.random.default_rng(seed)
    files = ShardFiles(read_index(str(shards)), 8, 1.0)
    per_epoch = -(-int(0.8 * len(files)) // batch_size)
    kill_at = int(generator.integers(1, epochs * per_epoch))
    # of one process that has imported all that they need
    fork = multiprocessing.get_context("forkserver")
    fork.set_forkserver_preload([__name__, "ncmi.training.run"])
    common = {"shards": shards, "epochs": epochs, "batch_size": batch_size, "readers": 2}
    paths = [folder / f"{seed}-first-{rank}" for rank in range(2)]
    children = [
        fork.Process(target=write_down, args=(path, common | {"rank": rank, "world": 2, "start": (0, 0)}))
        for rank, path in enumerate(paths)
    ]
    for child in children:
        child.start()
    victim = int(generator.integers(2))
    while children[victim].is_alive() and steps_of(paths[victim]) < kill_at:
        time.sleep(0.02)
    for child in children:
        os.kill(child.pid, signal.SIGKILL) if child.is_alive() else None  # type: ignore[arg-type]
        child.join()
    first = [lines_of(path) for path in paths]
    both = sorted(first[0].keys() & first[1].keys())
    steps = [at for at in both if at[1] % every == 0]
    start = steps[-1] if steps else (0, 0)
    rest = [folder / f"{seed}-rest-{rank}" for rank in range(3)]
    for rank, path in enumerate(rest):
        child = fork.Process(target=write_down, args=(path, common | {"rank": rank, "world": 3, "start": start}))
        children.append(child)
        child.start()
    for child in children[2:]:
        child.join()
    second = [lines_of(path) for path in rest]
    whole: dict[tuple[int, int], list[int]] = {at: flat(each[at] for each in first) for at in both if at < start}
    whole |= {at: flat(each[at] for each in second) for at in second[0]}
    return [flat(whole[at] for at in sorted(whole) if at[0] == epoch) for epoch in range(epochs)]


def faults_of(epochs: list[list[int]], train: set[int]) -> int:
    """Samples that are missing or twice in an epoch, and epochs in an order that there was already."""
    faults = sum(len(set(order) ^ train) + len(order) - len(set(order)) for order in epochs)
    return faults + len(epochs) - len({tuple(order) for order in epochs})


def numbers_of_train(shards: Path) -> set[int]:
    """The numbers in the training part, read one after the other by one process without batches."""
    whole = read_as_rank(shards, 0, 1, (0, 0), 1, 4096, 0)
    return {number for _, _, numbers in whole for number in numbers}


def measure_order(count: int, runs: int, folder: Path) -> list[Row]:
    began = time.perf_counter()
    shards = write_numbers(folder / "numbers", count, max(10, count // 50))
    train, size = numbers_of_train(shards), max(4, count // 400)
    faults = []
    for seed in range(runs):
        faults.append(faults_of(killed_and_gone_on_with(shards, folder, seed, 3, size, 50), train))
        print(f"    run {seed + 1}: {faults[-1]} faults, {time.perf_counter() - began:.0f} s so far", flush=True)
    single = write_numbers(folder / "single", 503, 503)
    four = [[numbers for *_, numbers in read_as_rank(single, rank, 4, (0, 0), 2, 50, 0)] for rank in range(4)]
    steps = len(four[0]) // 2
    epochs = [[n for step in range(e * steps, (e + 1) * steps) for each in four for n in each[step]] for e in range(2)]
    tars = len(read_index(str(shards)).record.shards)
    note = f"{count:,} samples, of which {len(train):,} are trained on, in {tars} shards"
    of_four = faults_of(epochs, numbers_of_train(single))
    return [
        of_values("samples missing or twice, or orders alike, of a run", faults, unit="", digits=0, bar=0, note=note),
        of_value("the same of 1 shard on 4 processes", of_four, unit="", digits=0, bar=0),
        of_value("writing and all runs", time.perf_counter() - began, unit="s", digits=0),
    ]


def pillow_square(path: Path, draws: np.ndarray[Any, Any], side: int) -> np.ndarray[Any, Any]:
    """What a class folder's images are usually read by, with the same box."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    top, left, height, width = random_box(SCALE, draws[:4].tolist())(image.height, image.width)
    image = image.resize((side, side), Image.Resampling.BILINEAR, (left, top, left + width, top + height))
    return np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draws[4] < 0.5 else image)


def class_folder(images: Path | None, folder: Path, count: int) -> Path:
    """Class folders of the given JPEGs, or of noise."""
    given = [] if images is None else sorted(p for p in images.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    for number in range(min(count, len(given)) if given else count):
        place = folder / f"class_{number % 10}"
        place.mkdir(parents=True, exist_ok=True)
        if given:
            shutil.copy(given[number], place)
            continue
        coarse = np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(coarse).resize((500, 375)).save(place / f"{number}.jpg", quality=90)
    return folder


def measure_speed(images: Path | None, count: int, repeats: int, folder: Path) -> list[Row]:
    source = class_folder(images, folder / "folder", count)
    files = sorted(source.rglob("*.*"))
    variation = Variation(0, 0, SIDE, SCALE, True)
    readers = {}
    for name, short_side in (("originals", 0), ("short side 256", 256)):
        write_shards(source, folder / name, short_side=short_side)
        shards = ShardFiles(read_index(str(folder / name)), SIDE, 0.875)
        every = np.arange(len(shards))
        readers[name] = ShardImages(shards, shards.index.label.astype(np.int64), every, variation), Share(every, every)
    rates: dict[str, list[float]] = {"Pillow": [], **{name: [] for name in readers}}
    for _ in range(repeats):
        began = time.process_time()
        for place, path in enumerate(files):
            pillow_square(path, uniform_draws(5, 0, 0, place, 0, 11), SIDE)
        rates["Pillow"].append(len(files) / (time.process_time() - began))
        for name, (reader, share) in readers.items():
            began = time.process_time()
            for first in range(0, len(share.rows), 64):
                chunk = reader.__getitems__(Share(share.rows[first : first + 64], share.places[first : first + 64]))
                assert not chunk.broken
            rates[name].append(len(share.rows) / (time.process_time() - began))
    megabytes = {name: sum(s.size for s in readers[name][0].files.index.record.shards) / 1e6 for name in readers}
    what = f"{len(files):,} JPEGs" if images else f"{len(files):,} JPEGs of noise"
    notes = {name: f"{size:.0f} MB" for name, size in megabytes.items()} | {"Pillow": what}
    rows = [
        of_values(
            f"images/s of a core, {name}",
            values,
            unit="images/s",
            digits=0,
            note=notes[name],
        )
        for name, values in rates.items()
    ]
    for name, bar in (("originals", 1.4), ("short side 256", 3.0)):
        ratio = [a / b for a, b in zip(rates[name], rates["Pillow"], strict=True)]
        rows.append(of_values(f"{name} against Pillow", ratio, bar=bar if images else None, at_least=True))
    return rows


def write_repeated(folder: Path, count: int, classes: int) -> Path:
    """Shards of 1,000 small JPEGs whose index has each of them many times."""
    folder.mkdir(parents=True)
    generator, content, places = np.random.default_rng(0), bytearray(), []
    for number in range(1000):
        pixels = generator.integers(0, 156, (8, 8, 3))
        pixels[..., number % 3] += 10 * (number % 10)
        file = BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG")
        places.append((len(content), len(file.getvalue()), zlib.crc32(file.getvalue())))
        content += file.getvalue()
    (folder / "train-000000.tar").write_bytes(content)
    rows = np.arange(count) % 1000
    offset, size, crc32 = (np.array(column)[rows] for column in zip(*places, strict=True))
    part = np.array([2, 1] + 18 * [0])[np.arange(count) // 1000 % 20]
    arrays = {
        "shard": np.zeros(count, np.int32),
        "offset": offset.astype(np.int64),
        "size": size.astype(np.int32),
        "label": (rows % classes).astype(np.int32),
        "part": part.astype(np.int8),
        "crc32": crc32.astype(np.uint32),
    }
    record = ShardsRecord(
        classes=[f"class {c}" for c in range(classes)],
        images=count,
        broken=0,
        short_side=0,
        quality=90,
        notes=[],
        shards=[Shard(name="train-000000.tar", images=count, size=len(content))],
        digest="",
    )
    write_index(folder, record, arrays, [f"simulated/{number}.jpg" for number in range(count)])
    return folder


def train_and_watch(shards: Path, width: int, out: Path) -> dict[str, float]:
    """In a process of its own: a run of one epoch, and its peak memory."""
    from ncmi.training.run import train

    torch.set_num_threads(1)
    peak = Peak()
    peak.start()
    began = time.perf_counter()
    training = Training(
        epochs=1,
        batch_size=256,
        accelerator="cpu",
        threads=1,
        augmentation=Augmentation(enabled=True, crop_scale=(0.5, 1.0), flip=True, noise=0.0),
    )
    data = ImageData(str(shards), image_size=8, crop_fraction=1.0, readers=1)
    network = Network("mlp", width=64, depth=1, feature_dim=width)
    results = train(
        Recipe(data, network, NCMIOptions(), training), out, on_stage=lambda line: print(line, file=sys.stderr)
    )
    peak.over.set()
    peak.look()
    return {"bytes": 1e6 * peak.megabytes, "seconds": time.perf_counter() - began, "epoch": results.epoch_seconds}


def measure_memory(count: int, width: int, folder: Path) -> list[Row]:
    shards = write_repeated(folder / "repeated", count, 100)
    measured = in_own_process(train_and_watch, shards, width, folder / "run")
    features = 0.9 * count * width * 4 / 2**30
    note = f"{count:,} samples; features of the training part would take {features:.2f} GiB"
    bar = 2.0 if features > 2.0 else None
    return [
        of_value("peak memory of a run, read-outs included", measured["bytes"] / 2**30, unit="GiB", bar=bar, note=note),
        of_value("the epoch", measured["epoch"], unit="s", digits=0),
        of_value("the whole run", measured["seconds"], unit="s", digits=0),
    ]


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is measured")
    parser.add_argument("--images", type=Path, help="folder of JPEGs for the speed")
    parser.add_argument("--runs", type=int, default=10, help="that are killed")
    parser.add_argument("--repeats", type=int, default=5, help="of the speed, in turns")
    parser.add_argument("--samples", type=int, help="of the order and the memory; by default 100,003 and 1,000,000")
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that it runs; no measurement")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    quick = arguments.quick
    table = Table(arguments.out, CPU, quick=quick)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "order" in arguments.parts:
            count = arguments.samples or (1003 if quick else 100_003)
            for row in measure_order(count, 1 if quick else arguments.runs, folder / "order"):
                table.add(row)
        if "speed" in arguments.parts:
            repeats = 1 if quick else arguments.repeats
            for row in measure_speed(arguments.images, 50 if quick else 1000, repeats, folder / "speed"):
                table.add(row)
        if "memory" in arguments.parts:
            count = arguments.samples or (5000 if quick else 1_000_000)
            for row in measure_memory(count, 64 if quick else 640, folder / "memory"):
                table.add(row)
    table.write()


if __name__ == "__main__":
    main()
