"""Step ``released``: ResNet-18 and ResNet-50 as the released script trains them, the most telling runs first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import multiprocessing

from _bench import Row
from _gpu_fast import on_device
from _gpu_state import Session
from _image_steps import Ours, some_images
from images import resnet18
from ncmi.comparison import Entry
from ncmi.options import CrossEntropyOptions
from ncmi.reproduction import Group, plan_experiment, reproduce

SIDE_BY_SIDE = (1, 2, 4)
GAIN = 1.05  # more runs at once have to be worth it: each of them ends later
# name of the group, network, entries, seeds: in this order, as far as the time goes
WAVES: tuple[tuple[str, str, tuple[str, ...], tuple[int, ...]], ...] = (
    ("resnet18-first", "resnet18", ("cross_entropy", "ncmi-released"), (0,)),
    ("resnet18-power", "resnet18", ("cross_entropy", "ncmi-power-learned", "ncmi-power-fixed"), (0,)),
    ("resnet18-baselines", "resnet18", ("cross_entropy", "label_smoothing", "focal"), (0,)),
    ("resnet18-seeds", "resnet18", ("cross_entropy", "ncmi-released"), (0, 1, 2)),
    ("resnet50", "resnet50", ("cross_entropy", "ncmi-released"), (0,)),
)


def side_by_side(session: Session) -> list[Row]:
    """Images a second of all runs together, for 1, 2 and 4 runs at once; compiled once, in processes of their own."""
    counts = (1, 2) if session.rehearse else SIDE_BY_SIDE
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(max(counts)), context.Queue()
    arguments = (counts, session.rehearse, str(session.device), barrier, queue)
    processes = [context.Process(target=_one_of_many, args=(rank, *arguments)) for rank in range(max(counts))]
    for process in processes:
        process.start()
    rates: dict[int, list[float]] = {count: [] for count in counts}
    try:
        for _ in range(sum(counts)):
            count, rate = queue.get(timeout=300)
            rates[count].append(rate)
    finally:
        for process in processes:
            process.join(30)
            if process.is_alive():
                process.kill()
    rows = []
    for count, found in rates.items():
        rate = sum(found)
        told = f"ResNet-18, batch 128, {count} run{'s' * (count > 1)} at once: images/s of all"
        note = f"200 epochs of one run: {200 * 50_000 * count / rate / 60:.1f} minutes"
        rows.append(Row(told, rate, rate, rate, unit="", digits=0, note=note))
    return rows


def _one_of_many(
    rank: int, counts: tuple[int, ...], rehearse: bool, device_name: str, barrier: Any, queue: Any
) -> None:
    import torch

    import _gpu_settings  # noqa: F401

    torch.set_num_threads(1)
    device = torch.device(device_name)
    batch, width = (8, 4) if rehearse else (128, 0)
    dataset, _ = some_images(batch * (2 if rehearse else 40), 32, None)
    recipe = resnet18(CrossEntropyOptions(), "bfloat16", batch, width)
    recipe = replace(recipe, training=replace(recipe.training, compile=not rehearse))
    ours = Ours(recipe, dataset, device)
    if rank == 0:
        ours.epoch()  # compiles; the others then find it in the cache
    barrier.wait(300)
    ours.epoch()
    for count in counts:
        barrier.wait(300)
        if rank < count:
            begun, images = time.perf_counter(), 0
            while time.perf_counter() - begun < (0.5 if rehearse else 6):
                order = torch.randperm(len(dataset), device=device)
                for rows in order.split(batch):
                    ours.loop._step(rows)
                images += len(dataset)
                float(ours.loop.loss_sum)
            queue.put((count, images / (time.perf_counter() - begun)))
    ours.close()


def chosen_workers(session: Session) -> int:
    """The number of runs at once, as measured."""

    rows = json.loads((session.state / "side.json").read_text(encoding="utf-8"))["items"]["side by side"].get(
        "rows", []
    )
    counts = (1, 2) if session.rehearse else SIDE_BY_SIDE
    best = 0
    for number, row in enumerate(rows):
        if row["value"] > GAIN * rows[best]["value"]:
            best = number
    return counts[best]


def groups(session: Session, workers: int, compiled: bool) -> list[Group]:
    """All runs, in order of worth."""
    made = []
    for name, network, only, seeds in WAVES:
        (group,) = plan_experiment(
            "table1", "released", seeds=seeds, only=only, networks=(network,), workers=workers, data_dir=None
        )
        entries = tuple(
            Entry(entry.name, entry.label, on_device(entry.recipe, session, compiled)) for entry in group.plan.entries
        )
        plan = replace(group.plan, entries=entries, imports=("_gpu_settings",))
        made.append(Group(name, f"{group.title}, {', '.join(only)}", plan))
    return made


def run_reproduction(session: Session, workers: int, compiled: bool) -> int:
    """In a process of its own: make what is not finished."""
    listed = groups(session, workers, compiled)
    try:
        reproduce("table1", "released", listed, session.state / "released", on_run=_tell)
    except KeyboardInterrupt:
        return 130
    return 0


def _tell(name: str, results: dict[str, Any]) -> None:
    told = ", ".join(f"{readout} {100 * found['test_accuracy']:.2f}" for readout, found in results["readouts"].items())
    print(f"| {name} | | {told} | | {results['total_seconds'] / 60:.1f} minutes |", flush=True)


def released(session: Session, compiled: bool) -> bool:
    """Choose how many runs go side by side, then make runs until the time is up; whether all are made."""
    reserve = 5 if session.rehearse else 120
    if not session.measure("side", [("side by side", lambda: side_by_side(session))], reserve):
        return False
    workers = chosen_workers(session)
    print(f"{workers} at once")
    command = [sys.executable, str(Path(__file__).with_name("gpu.py")), "_reproduce"]
    command += ["--data-dir", str(session.data_dir), "--state", str(session.state), "--workers", str(workers)]
    command += ["--rehearse"] * session.rehearse + ["--no-compile"] * (not compiled)
    margin = 6 if session.rehearse else 40
    if session.left < 2 * margin:
        return False
    child = subprocess.Popen(command, start_new_session=True)
    try:
        return child.wait(session.left - margin) == 0
    except subprocess.TimeoutExpired:
        _stop(child, session.left - margin / 4)
        return False


def _stop(child: subprocess.Popen[bytes], seconds: float) -> None:
    """Interrupt all runs, again where a queued one has begun meanwhile; each writes a checkpoint."""
    ends = time.monotonic() + seconds
    while child.poll() is None and time.monotonic() < ends:
        os.killpg(child.pid, signal.SIGINT)
        try:
            child.wait(min(8, max(0.1, ends - time.monotonic())))
        except subprocess.TimeoutExpired:
            continue
    try:
        os.killpg(child.pid, signal.SIGKILL)  # what is left of its workers
    except ProcessLookupError:
        return
