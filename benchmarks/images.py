"""The bars of training on images, measured: epoch time, overhead of the loop, memory of a step.

    python benchmarks/images.py [--device cuda] [--threads 1 2] [--parts epoch overhead memory] [--out FILE] [--quick]

- epoch: an epoch of our loop on resident data, metrics and checkpoint included, over one of a plain PyTorch loop
  (DataLoader, augmentation with PIL image by image, float32, contiguous), same network, batch and optimizer. Real
  images where NCMI_DATA or --data-dir has CIFAR-100, else random ones.
- overhead: our loop's steps over bare forward, loss, backward and step on standardized batches. On a CPU every step
  of ours follows one of theirs, and the ratio is of each pair; on CUDA epochs take turns.
- memory: peak of an NCMI step over a cross-entropy step, ResNet-18, batch 128, 32×32; to the byte.

About eight minutes a thread count on one CPU core, half of it the ResNet-18.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from _image_steps import Bare, Ours, Plain, paired_steps, peak_of_step, some_images
from _timing import Row, measure_parts, measuring_line, of_value, of_values, ratios
from ncmi.objectives.options import CrossEntropyOptions, NCMIOptions, ObjectiveOptions
from ncmi.recipes import Recipe, cifar100
from ncmi.training.timing import in_turns, processor, wall

POWER = NCMIOptions(feature_length="own", centroids="fixed", anchor_scale=10.0, separation_power=-4.0)
OBJECTIVES: dict[str, ObjectiveOptions] = {
    "cross-entropy": CrossEntropyOptions(),
    "NCMI p = 1 (released)": cifar100.RELEASED_NCMI,
    "NCMI p = −4, fixed": POWER,
    "NCMI p = −4, learned": replace(POWER, centroids="learned"),
}
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}


def small(objective: ObjectiveOptions, precision: str = "bfloat16", augmented: bool = True) -> Recipe:
    """The recipe cifar100.small."""
    recipe = cifar100.small(objective)
    augmentation = replace(recipe.training.augmentation, enabled=augmented)
    training = replace(recipe.training, precision=PRECISIONS[precision], augmentation=augmentation)  # type: ignore[arg-type]
    return replace(recipe, training=training)


def resnet18(objective: ObjectiveOptions, precision: str = "float32", batch: int = 128, width: int = 0) -> Recipe:
    """ResNet-18 on 32×32 pixels."""
    recipe = cifar100.paper(objective)
    training = replace(recipe.training, batch_size=batch, precision=PRECISIONS[precision])  # type: ignore[arg-type]
    return replace(recipe, training=training, network=replace(recipe.network, width=width))


def epoch_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    """Our epoch over the plain loop's."""
    device, quick = torch.device(arguments.device), arguments.quick
    count, repeats = (256, 1) if quick else (3072, 7)
    dataset, source = some_images(count, 16, arguments.data_dir)
    workers = (0, 2) if device.type == "cpu" else (0, min(16, os.cpu_count() or 1))
    ours = {
        "ours, float32, cross-entropy": Ours(small(OBJECTIVES["cross-entropy"], "float32"), dataset, device),
        "ours, bfloat16, cross-entropy": Ours(small(OBJECTIVES["cross-entropy"]), dataset, device),
        "ours, bfloat16, NCMI p = −4, fixed": Ours(small(POWER), dataset, device),
    }
    recipe = small(OBJECTIVES["cross-entropy"], "float32")
    plain = {f"plain loop, {n} workers": Plain(recipe, dataset, device, n) for n in workers}
    calls: dict[str, Callable[[], object]] = {name: one.epoch for name, one in (*plain.items(), *ours.items())}
    times = {name: wall(found) for name, found in in_turns(calls, repeats, device).items()}
    for name, found in times.items():
        yield of_values(f"{name}: images/s", [count / one for one in found], unit="", digits=0, note=source)
    for name, one in ours.items():
        for rival in plain:
            yield of_values(f"epoch time, {name} / {rival}", ratios(times[name], times[rival]), bar=0.8)
        one.close()


def overhead_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    """Steps of our loop over bare steps."""
    device, quick = torch.device(arguments.device), arguments.quick
    batch, width = (32, 16) if quick else (128, 0)
    settings: list[tuple[str, Recipe, int, int, int]] = []
    for name in ("cross-entropy", "NCMI p = −4, fixed"):
        for augmented in (False, True):
            what = f"small, {name}, {'with augmentation' if augmented else 'without augmentation'}"
            # full batches alone: the pairs have to be alike
            settings.append((what, small(OBJECTIVES[name], "bfloat16", augmented), 16, 128, 2 if quick else 24))
        what = f"ResNet-18, batch {batch}, {name}, with augmentation"
        settings.append((what, resnet18(OBJECTIVES[name], "bfloat16", batch, width), 32, batch, 2 if quick else 3))
    for what, recipe, size, samples, steps in settings:
        repeats = 1 if quick else (2 if size == 32 and device.type == "cpu" else 9)
        if device.type == "cuda":
            steps = 2 if quick else 100
        dataset, _ = some_images(samples * steps, size, arguments.data_dir)
        ours, bare = Ours(recipe, dataset, device), Bare(recipe, dataset, device)
        if device.type == "cpu":
            yield paired_steps(f"loop / bare step, {what}", ours, bare, repeats, bar=1.03)
        else:
            times = in_turns({"ours": ours.epoch, "bare": bare.epoch}, repeats, device)
            values = ratios(ours.steps_seconds[1:], wall(times["bare"]))
            note = f"processor time {ratios(processor(times['ours']), processor(times['bare']))[0]:.3f} ×"
            yield of_values(f"loop / bare step, {what}", values, bar=1.03, digits=3, note=note)
        ours.close()


def memory_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    """Peak of an NCMI step over a cross-entropy step."""
    device = torch.device(arguments.device)
    batch, size, width = (8, 16, 16) if arguments.quick else (128, 32, 0)
    dataset, _ = some_images(3 * batch, size, arguments.data_dir)
    for precision in PRECISIONS:
        peaks = {
            name: peak_of_step(resnet18(objective, precision, batch, width), dataset, device)
            for name, objective in OBJECTIVES.items()
        }
        reference = peaks["cross-entropy"]
        for name, peak in peaks.items():
            if name != "cross-entropy":
                what = f"peak memory, ResNet-18, batch {batch}, {precision}: {name} / cross-entropy"
                note = f"{peak / 1e6:.3f} MB − {reference / 1e6:.3f} MB = {(peak - reference) / 1e6:+.3f} MB"
                yield of_value(what, peak / reference, bar=1.0, digits=6 if peak != reference else 4, note=note)


PARTS = {"epoch": epoch_rows, "overhead": overhead_rows, "memory": memory_rows}


def main() -> None:
    command = measuring_line(__doc__, PARTS, [1])
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    command.add_argument("--data-dir", help="folder to search for CIFAR-100; by default NCMI_DATA")
    arguments = command.parse_args()
    # of memory the bytes are the same, whatever the number of threads
    measure_parts(PARTS, arguments, torch.device(arguments.device), once=("memory",))


if __name__ == "__main__":
    main()
