"""A cohort of slides much larger than memory is trained on: peak resident memory against the bar of 4 GiB.

    python benchmarks/slides_memory.py [--folder DIR] [--slides 10000] [--threads 1] [--out FILE] [--quick]

The cohort is simulated and linked: 10,000 slides of 5,000 patches × 1,024 features in float16, 102 GB if loaded,
whose files are symbolic links to 200 different ones (2 GB on disk). Each slide is opened, read, checked and converted
as any other; the system's page cache makes the reading faster than a disk would. Accuracy on it means nothing.

One epoch of ABMIL with NCMI over about 9,600 slides, validation, then test and read-outs over all slides once more. Its
first layer has width 64 by default instead of 512, so that it takes minutes instead of hours; --width 0 for 512.
"""

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from _timing import Peak, Row, Table, command_line, in_own_process, of_value
from ncmi.data.bags.simulated import MARK, TABLE
from ncmi.files import write_json
from ncmi.objectives.options import NCMIOptions
from ncmi.recipes import BagData, BagNetwork, Recipe, default_training
from ncmi.slides.simulation import SimulationOptions
from ncmi.slides.simulation.files import write_slides
from ncmi.slides.simulation.lesions import SlidePlan, plan_slide, scaled
from ncmi.slides.simulation.options import make_table, write_table

BAR_GIB, LARGE_GB = 4.0, 100
CPU = torch.device("cpu")
FULL = {"slides": 10_000, "distinct": 200, "instances": 5_000, "feature_dim": 1024}
QUICK = {"slides": 200, "distinct": 20, "instances": 200, "feature_dim": 64}


def link_cohort(folder: Path, slides: int, distinct: int, instances: int, feature_dim: int) -> dict[str, int]:
    """Write some simulated slides of as many patches each, and a cohort of symbolic links to them; what it holds."""
    options, table = SimulationOptions(feature_dim=feature_dim), make_table("camelyon17")
    # of all centers
    originals = table[:: len(table) // distinct][:distinct]
    lesions = (plan_slide(options, row).lesions for row in originals)
    plans = [SlidePlan(instances, scaled(of_slide, 1, int(0.7 * instances))) for of_slide in lesions]
    linked = {"slides": slides, "distinct": distinct, "instances": instances}
    linked["bytes_if_loaded"] = slides * instances * feature_dim * 2
    write_json(folder / MARK, {"simulation": True, "linked": linked})
    write_slides(folder / "distinct", options, originals, plans, workers=2)
    (folder / "features").mkdir(exist_ok=True)
    rows = []
    for index in range(slides):
        original = originals[index % distinct]
        # a patient's slides are of one center
        patient = f"linked_{original.center}_{index // 5:05d}"
        rows.append(replace(original, name=f"linked_{index:05d}", patient=patient))
        link = folder / "features" / f"{rows[-1].name}.h5"
        link.unlink(missing_ok=True)
        link.symlink_to(Path("..", "distinct", f"{original.name}.h5"))
    write_table(rows, folder / TABLE, "camelyon17")
    return linked


def recipe_of(folder: Path, width: int, network: str, threads: int) -> Recipe:
    """One epoch over nearly all slides of a linked cohort."""
    columns = {"slide_column": "slide_id", "patient_column": "patient_id", "label_column": "label"}
    parts = {"validation_fraction": 0.02, "test_fraction": 0.02, "attention_slides": 0}
    data = BagData(str(folder / "features"), labels=str(folder / "labels.csv"), **columns, **parts)  # type: ignore[arg-type]
    training = replace(default_training("bags"), epochs=1, threads=threads)
    return Recipe(data, BagNetwork(network, width), NCMIOptions(), training)  # type: ignore[arg-type]


def train_and_watch(recipe: Recipe) -> dict[str, Any]:
    """In a process of its own: train, and say what it took."""
    from ncmi.training.run import train

    peak, began = Peak(), time.perf_counter()
    epoch_seconds: list[float] = []
    peak.start()
    with tempfile.TemporaryDirectory() as runs:
        results = train(recipe, Path(runs) / "run", on_epoch=lambda row: epoch_seconds.append(row["seconds"]))
    peak.over.set()
    peak.look()
    return {
        "peak_bytes": 1e6 * max(peak.megabytes, results.peak_memory_mb),
        "seconds": time.perf_counter() - began,
        "epoch_seconds": epoch_seconds[-1],
        "slides": {part: getattr(results, f"num_{part}") for part in ("train", "validation", "test")},
    }


def rows_of(measured: dict[str, Any], linked: dict[str, int]) -> list[Row]:
    """What a run took; a cohort that would fit proves nothing."""
    slides, seconds = measured["slides"], measured["epoch_seconds"]
    in_epoch, loaded = slides["train"] + slides["validation"], linked["bytes_if_loaded"] / 1e9
    read = in_epoch / linked["slides"] * loaded
    bar = BAR_GIB if loaded >= LARGE_GB else None
    note = (
        f"{linked['slides']:,} linked slides (simulation) of {linked['instances']:,} patches, {loaded:.1f} GB if loaded"
    )
    return [
        of_value("peak resident memory of training", measured["peak_bytes"] / 2**30, unit="GiB", bar=bar, note=note),
        of_value("if it were loaded, as float16", linked["bytes_if_loaded"] / 2**30, unit="GiB"),
        of_value("slides in the epoch", in_epoch / seconds, unit="slides/s", note=f"{slides}"),
        of_value("read in the epoch", read / seconds, unit="GB/s", note="from the page cache"),
        of_value("the whole run", measured["seconds"], unit="s", note="epoch, then test and read-outs over all slides"),
    ]


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--folder", type=Path, help="of the cohort, or where it is made; by default a temporary one")
    parser.add_argument("--network", default="abmil", help="abmil, transmil, aem, asmil, mean, max")
    parser.add_argument("--width", type=int, default=64, help="of the first layer; 0 for the usual one")
    parser.add_argument("--slides", type=int, help="number of slides; by default 10,000")
    parser.add_argument("--threads", type=int, default=1, help="of computation; reading has threads of its own")
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that it runs; no measurement")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    if not Path("/proc/self/status").exists():
        raise SystemExit("needs Linux: the high-water mark of resident memory is read from /proc")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "linked"
        began = time.perf_counter()
        sizes = QUICK if arguments.quick else FULL
        slides = arguments.slides or sizes["slides"]
        linked = link_cohort(folder, **{**sizes, "slides": slides, "distinct": min(sizes["distinct"], slides)})
        print(f"cohort made in {time.perf_counter() - began:.0f} s\n", file=sys.stderr)
        given = {name: getattr(arguments, name) for name in ("network", "width", "threads")}
        rows = rows_of(in_own_process(train_and_watch, recipe_of(folder, **given)), linked)
    about = {**given, "quick": arguments.quick, "cohort": linked}
    table = Table(arguments.out, CPU, simulation=True, **about)
    for row in rows:
        table.add(row)


if __name__ == "__main__":
    main()
