"""Step ``speed``: images a second of the training step beside the plain loop, memory, overhead of the loop."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from _bench import Row, of_values, seconds_of
from _gpu_state import Session
from _image_steps import Bare, Ours, Plain, some_images
from images import memory_rows, overhead_rows, resnet18
from ncmi.options import CrossEntropyOptions
from ncmi.recipes import cifar100

# precision, TF32, contiguous, compiled
VARIANTS: dict[str, tuple[str, bool, bool, str]] = {
    "float32": ("float32", False, False, ""),
    "TF32": ("float32", True, False, ""),
    "bfloat16": ("bfloat16", True, False, ""),
    "bfloat16, compiled": ("bfloat16", True, False, "network"),
    "bfloat16, compiled, CUDA graphs": ("bfloat16", True, False, "graphs"),
    "bfloat16, compiled with the loss": ("bfloat16", True, False, "loss"),
}


def speed_items(session: Session) -> list[tuple[str, Callable[[], Sequence[Row]]]]:
    """What is worth most comes first: the step may run out of time."""
    items: list[tuple[str, Callable[[], Sequence[Row]]]] = []
    rates: dict[int, list[float]] = {}
    for batch in (8,) if session.rehearse else (128, 512, 64):
        for name in VARIANTS:
            if batch in (512, 64) and "with the loss" in name:
                continue
            items.append((f"{name}, batch {batch}", lambda n=name, b=batch: list(_rate(session, n, b))))
        items.append((f"plain loop, batch {batch}", lambda b=batch: list(_plain(session, b, rates))))
    items.append(("checkpoint", lambda: list(_checkpoint(session))))
    quick = session.rehearse
    items.append(("memory", lambda: list(memory_rows(session.device, None, quick))))
    items.append(("overhead", lambda: list(overhead_rows(session.device, None, quick))))
    return items


def _rate(session: Session, name: str, batch: int) -> Iterator[Row]:
    """Images a second of the bare step on resident batches, with cross-entropy and with the released NCMI."""
    precision, tf32, contiguous, compiled = VARIANTS[name]
    device, steps, repeats = session.device, *((2, 1) if session.rehearse else (max(20, 12_800 // batch), 5))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    dataset, _ = some_images(4 * batch, 32, None)
    for told, objective in (("cross-entropy", CrossEntropyOptions()), ("NCMI (released)", cifar100.RELEASED_NCMI)):
        if told != "cross-entropy" and (batch not in (8, 128)):
            continue
        torch._dynamo.reset()
        gc.collect()
        width = 16 if session.rehearse else 0
        backend = "aot_eager" if session.rehearse else "inductor"
        recipe = resnet18(objective, precision, batch, width)
        bare = Bare(recipe, dataset, device, compiled, contiguous, backend)
        warm_up = seconds_of(lambda one=bare: one.steps(10 if not session.rehearse else 1), device)[0]
        found = [batch * steps / seconds_of(lambda one=bare: one.steps(steps), device)[0] for _ in range(repeats)]
        yield of_values(
            f"ResNet-18, batch {batch}, {name}, {told}: images/s",
            found,
            unit="",
            digits=0,
            note=f"warm-up {warm_up:.0f} s",
        )


def _plain(session: Session, batch: int, rates: dict[int, list[float]]) -> Iterator[Row]:
    """The plain loop, and our whole loop with resident data, augmentation and compiled network over it."""
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True  # PyTorch's defaults
    torch._dynamo.reset()
    device, batches, repeats = session.device, *((2, 1) if session.rehearse else (max(20, 12_800 // batch), 3))
    width = 8 if session.rehearse else 0
    dataset, _ = some_images(batch * batches, 32, None)
    recipe = resnet18(CrossEntropyOptions(), "float32", batch, width)
    plain: dict[int, list[float]] = {}
    for workers in (0, 2) if session.rehearse else (0, 4, min(16, os.cpu_count() or 1)):
        loop = Plain(recipe, dataset, device, workers)
        loop.epoch()
        plain[workers] = [len(dataset) / seconds_of(loop.epoch, device)[0] for _ in range(repeats)]
        told = f"ResNet-18, batch {batch}, plain loop, {workers} workers: images/s"
        yield of_values(told, plain[workers], unit="", digits=0)
    half = resnet18(CrossEntropyOptions(), "bfloat16", batch, width)
    half = replace(half, training=replace(half.training, compile=not session.rehearse))
    torch.backends.cuda.matmul.allow_tf32 = True
    ours = Ours(half, dataset, device)
    ours.epoch()
    ours.epoch()
    ours.steps_seconds.clear()
    for _ in range(3 * repeats):
        ours.epoch()
    ours.close()
    found = [len(dataset) / one for one in ours.steps_seconds]
    yield of_values(f"ResNet-18, batch {batch}, our loop, augmented, compiled: images/s", found, unit="", digits=0)
    middle = sorted(found)[len(found) // 2]
    for workers, rival in plain.items():
        told = f"our loop / plain loop with {workers} workers, batch {batch}"
        yield of_values(told, [middle / one for one in rival], bar=10.0, at_least=True, digits=1)


def _checkpoint(session: Session) -> Iterator[Row]:
    """What every epoch's checkpoint costs."""
    dataset, _ = some_images(64, 32, None)
    ours = Ours(resnet18(CrossEntropyOptions(), "bfloat16", 32, 8 if session.rehearse else 0), dataset, session.device)
    ours.epoch()
    found = [1e3 * seconds_of(ours.loop._save, session.device)[0] for _ in range(1 if session.rehearse else 5)]
    ours.close()
    yield of_values("checkpoint of ResNet-18 with momentum", found, unit="ms", digits=0)
