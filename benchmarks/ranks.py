"""Several processes against one, and against what happens to processes: real ``torchrun`` on CPUs, in float64.

``python benchmarks/ranks.py equal`` trains an epoch by one process, by one agent × 2, by two agents × 1 on this host
and, where the system allows it, by two agents in network namespaces of their own, and prints the largest difference of
any weight, relative to 1 + |weight| (bar: 1e-6). ``killed`` sends SIGKILL to a random process at each of 5 random steps
under ``--max-restarts`` and compares the end bit by bit with that of an undisturbed run. ``resized`` goes on with a
killed run on other numbers of processes, and prints how often each sample was used in each epoch and the largest
difference of the epochs' losses (bar: 1e-5). ``signals`` sends SIGTERM and SIGUSR1 to one of two, and prints exit codes
and where they stopped. ``lost`` kills and freezes one of two without restarts, and prints what ends the other, and
when. ``share`` times the loss of a rank: the whole batch against its own half. ``speed`` trains the recipe
``imagenet.tiny`` on made JPEGs of 100 classes at 64 pixels by one process and by two, of one thread each, in turns, and
prints how many times faster the epochs of two are (bar: 1.6; nothing else may run). Each prints the machine;
``--objectives``, ``--seed`` and the like choose.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from ncmi.training.checkpoint import load_checkpoint

_HERE = Path(__file__).resolve().parent
_DATA = ("wine", "--network.width", "16", "--network.depth", "1", "--training.batch-size", "38")
_TRAIN = ("--training.accelerator", "cpu", "--training.precision", "64-true", "--training.readouts", "own")
_TIMEOUT = 900.0
_TIMES = ("seconds", "peak_memory_mb")


def torchrun(
    words: list[str], *, processes: int = 2, agent: tuple[str, ...] = ("--standalone",), namespace: str = ""
) -> list[str]:
    """The command line of one agent."""
    # gloo would take the interface of the host's name
    cable = f"GLOO_SOCKET_IFNAME={Namespaces.cables.get(namespace)}"
    inside = ["ip", "netns", "exec", namespace, "env", cable] if namespace else []
    launcher = [sys.executable, "-m", "torch.distributed.run", *agent, "--nproc-per-node", str(processes)]
    return [*inside, *launcher, "-m", "ncmi", *words]


def command(folder: Path, *more: str, objective: str = "ncmi", epochs: int = 1) -> list[str]:
    """``ncmi train`` into a folder."""
    chosen = ["--objective", objective, "--out", str(folder), "--training.epochs", str(epochs)]
    return ["--imports", "_rank_faults", "train", *_DATA, *_TRAIN, *chosen, *more]


def start(words: list[str], log: Path, faults: str = "") -> subprocess.Popen[str]:
    """Start a command with faults; in a session of its own, so that all of it can be ended."""
    log.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(_HERE), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"NCMI_FAULTS": faults, "NCMI_FAULTS_LOG": str(log), "PYTHONPATH": path}
    environment |= {"OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(words, env=environment, start_new_session=True, **pipes)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a command; its exit code and what it printed."""
    try:
        out, _ = process.communicate(timeout=_TIMEOUT)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out


def run(words: list[str], log: Path, faults: str = "") -> tuple[int, str]:
    """Start a command and wait for it."""
    return finish(start(words, log, faults))


def alone(words: list[str]) -> list[str]:
    """The command line of one process without a launcher."""
    return [sys.executable, "-m", "ncmi", *words]


def difference(one: Path, other: Path) -> float:
    """Largest difference of two runs' trained weights, relative to 1 + |weight|; but for the read-outs fitted later."""
    a, b = (load_file(path / "model.safetensors") for path in (one, other))
    names = [name for name in a if not name.startswith("/model/lp.") and a[name].is_floating_point()]
    assert a.keys() == b.keys()
    return max(float(((a[n] - b[n]).abs() / (1 + a[n].abs())).max()) for n in names if a[n].numel())


def losses(folder: Path) -> list[float]:
    """Training loss of each epoch."""
    return [json.loads(line)["train_loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same_bits(one: Path, other: Path) -> bool:
    """Whether weights, metrics and last checkpoints of two runs are equal to the last bit."""
    a, b = (load_file(path / "model.safetensors") for path in (one, other))
    if a.keys() != b.keys() or not all(torch.equal(a[name], b[name]) for name in a):
        return False
    rows = []
    for folder in (one, other):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        rows.append([{name: value for name, value in line.items() if name not in _TIMES} for line in lines])
    states = [load_checkpoint(folder / "checkpoints" / "last.safetensors") for folder in (one, other)]
    tensors = [_tensors(state) for state in states]
    return rows[0] == rows[1] and all(torch.equal(x, y) for x, y in zip(*tensors, strict=True))


def _tensors(tree: Any) -> list[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return [tree.nan_to_num()]
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return [tensor for child in children for tensor in _tensors(child)]


def uses(log: Path) -> dict[int, Counter[int]]:
    """How often each sample was used in each epoch, by the last time that each step was made."""
    steps: dict[tuple[int, int], dict[int, dict[int, list[int]]]] = {}
    for path in sorted(log.glob("samples-*.jsonl")):
        for line in path.read_text().splitlines():
            epoch, step, world, rank, samples = json.loads(line)
            steps.setdefault((epoch, step), {}).setdefault(world, {})[rank] = samples
    counts: dict[int, Counter[int]] = {}
    for (epoch, _), worlds in steps.items():
        # a step that was begun on two numbers of processes was made by the later one; the first process lists both
        shares = worlds[list(worlds)[-1]]
        for samples in shares.values():
            counts.setdefault(epoch, Counter()).update(samples)
    return counts


def free_port() -> int:
    """A port of this host that nobody listens to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Namespaces:
    """Context manager: two network namespaces joined by a cable, where the system allows it."""

    names = ("ncmi-a", "ncmi-b")
    cables: ClassVar[dict[str, str]] = {"ncmi-a": "ncmi0", "ncmi-b": "ncmi1"}

    def __enter__(self) -> str | None:
        """What stands in the way, or None."""
        a, b = self.names
        one, other = self.cables[a], self.cables[b]
        pair = ("link", "add", one, "netns", a, "type", "veth", "peer", "name", other, "netns", b)
        calls = [("netns", "add", a), ("netns", "add", b), pair]
        for name, cable, address in ((a, one, "10.77.0.1/24"), (b, other, "10.77.0.2/24")):
            calls += [("-n", name, "addr", "add", address, "dev", cable), ("-n", name, "link", "set", cable, "up")]
            calls += [("-n", name, "link", "set", "lo", "up")]
        for call in calls:
            done = subprocess.run(["ip", *call], capture_output=True, text=True, check=False)
            if done.returncode:
                return f"ip {' '.join(call)}: {done.stderr.strip()}"
        return None

    def __exit__(self, *error: object) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def agents(folder: Path, log: Path, objective: str, *, namespaces: tuple[str, ...] = ()) -> tuple[int, str]:
    """Two agents of one process each."""
    address = "10.77.0.1" if namespaces else "127.0.0.1"
    place = ("--nnodes", "2", "--master-addr", address, "--master-port", str(free_port()))
    running = []
    for node in (0, 1):
        namespace = namespaces[node] if namespaces else ""
        agent = (*place, "--node-rank", str(node))
        words = torchrun(command(folder, objective=objective), processes=1, agent=agent, namespace=namespace)
        running.append(start(words, log))
    ended = [finish(process) for process in running]
    return max(abs(code) for code, _ in ended), "\n".join(out for _, out in ended)


def equal(root: Path, objectives: list[str]) -> list[float]:
    """Bar 1e-6. Returns the differences."""
    differences = []
    for objective in objectives:
        folder = root / objective
        code, out = run(alone(command(folder / "one", objective=objective)), folder / "log-one")
        assert code == 0, out
        ways = {
            "1 agent × 2": lambda at, log: run(torchrun(command(at, objective=objective)), log),  # noqa: B023
            "2 agents × 1, one host": lambda at, log: agents(at, log, objective),  # noqa: B023
        }
        for number, (way, train) in enumerate(ways.items()):
            at = folder / f"way-{number}"
            code, out = train(at, folder / f"log-{number}")
            assert code == 0, out
            differences.append(difference(folder / "one", at))
            print(f"{objective:>24}  {way:<28} {differences[-1]:.2e}", flush=True)
        with Namespaces() as trouble:
            if trouble is None:
                at = folder / "way-namespaces"
                code, out = agents(at, folder / "log-namespaces", objective, namespaces=Namespaces.names)
                assert code == 0, out
                differences.append(difference(folder / "one", at))
                print(f"{objective:>24}  {'2 agents × 1, 2 namespaces':<28} {differences[-1]:.2e}", flush=True)
            else:
                print(f"network namespaces cannot be made here ({trouble})")
    return differences


def killed(root: Path, seed: int, objective: str, processes: int = 2) -> bool:
    """Bar: bit by bit the same. Returns whether it is."""
    draw, epochs = random.Random(seed), 5
    total = epochs * 4  # steps: 115 samples in batches of 38
    steps = sorted(draw.sample(range(1, total), 5))
    faults = ",".join(f"{step}:{draw.randrange(processes)}:KILL" for step in steps)
    more = ("--resume", "auto", "--training.checkpoint-steps", "3")
    code, out = run(
        torchrun(command(root / "whole", *more, objective=objective, epochs=epochs), processes=processes),
        root / "log-whole",
    )
    assert code == 0, out
    agent = ("--standalone", "--max-restarts", "9")
    words = torchrun(command(root / "cut", *more, objective=objective, epochs=epochs), processes=processes, agent=agent)
    code, out = run(words, root / "log-cut", faults)
    hit = len(list((root / "log-cut").glob("*KILL")))
    same = code == 0 and same_bits(root / "whole", root / "cut")
    print(
        f"{objective}, {processes} processes, SIGKILL at {faults}: {hit} hit, rc {code}, same bits: {same}", flush=True
    )
    if code:
        print(out[-4000:])
    elif not same:
        print(f"largest difference {difference(root / 'whole', root / 'cut'):.2e}")
    return same


def resized(root: Path, seed: int, objective: str) -> tuple[bool, float]:
    """Bars: each sample once an epoch, losses within 1e-5. Returns both."""
    epochs, more = 3, ("--resume", "auto", "--training.checkpoint-steps", "1")
    code, out = run(alone(command(root / "one", objective=objective, epochs=epochs)), root / "log-one")
    assert code == 0, out
    step = random.Random(seed).randrange(2, 6)
    log, at = root / "log", root / "run"
    words = command(at, *more, objective=objective, epochs=epochs)
    code, _ = run(torchrun(words, processes=2), log, f"{step}:1:KILL,{step + 4}:2:KILL")
    assert code != 0
    code, _ = run(torchrun(words, processes=3), log, f"{step}:1:KILL,{step + 4}:2:KILL")
    assert code != 0
    code, out = run(alone(words), log)
    assert code == 0, out
    used = uses(log)
    once = all(set(counts.values()) == {1} and len(counts) == 115 for counts in used.values())
    worst = max(abs(a - b) for a, b in zip(losses(root / "one"), losses(at), strict=True))
    print(
        f"{objective}, 2 processes, from step {step} on 3, from step {step + 4} on 1: each of 115 samples once in each "
        f"of {len(used)} epochs: {once}; losses differ by {worst:.1e}, weights by {difference(root / 'one', at):.1e}"
    )
    return once, worst


def signals(root: Path) -> None:
    """One of two is told to stop."""
    for name in ("TERM", "USR1"):
        at, log = root / name, root / f"log-{name}"
        words = command(at, "--training.devices", "2", "--resume", "auto", epochs=3)
        code, out = run(alone(words), log, f"5:0:{name}")
        state = load_checkpoint(at / "checkpoints" / "last.safetensors")["progress"]
        lines = [line for line in out.splitlines() if line.startswith("ncmi:")]
        print(f"SIG{name} on rank 0 before step 5: rc {code}, checkpoint of step {state['total_steps']}: {lines}")
        code, out = run(alone(words), log)
        print(f"   gone on with: rc {code}")


def lost(root: Path, timeout: float) -> None:
    """One of two is killed, or stands still."""
    more = ("--training.timeout-seconds", str(timeout), "--training.checkpoint-steps", "2")
    for name, rank in (("KILL", 0), ("KILL", 1), ("STOP", 0), ("STOP", 1)):
        at, log = root / f"{name}{rank}", root / f"log-{name}{rank}"
        # no launcher that would end the others by itself: two agents
        place = ("--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", str(free_port()))
        agents_ = [
            start(torchrun(command(at, *more, epochs=3), processes=1, agent=(*place, "--node-rank", str(node))), log,
                  f"5:{rank}:{name}")
            for node in (0, 1)
        ]  # fmt: skip
        mark = log / f"5-{rank}-{name}"
        while not mark.exists():
            time.sleep(0.05)
        begun = time.perf_counter()
        _, out = finish(agents_[1 - rank])
        seconds = time.perf_counter() - begun
        os.killpg(agents_[rank].pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(int(mark.read_text()), signal.SIGKILL)
        finish(agents_[rank])
        lines = [line for line in out.splitlines() if "ncmi:" in line or "exitcode" in line]
        print(
            f"SIG{name} on rank {rank}, timeout {timeout:g} s: the other ends after {seconds:.0f} s: {lines}",
            flush=True,
        )


def share(batch: int, classes: int, dim: int, repeats: int) -> None:
    """Forward and backward pass of the loss, the whole batch and half of it, in turn."""
    from ncmi.objectives.ncmi import NCMIObjective

    torch.set_num_threads(1)
    torch.manual_seed(0)
    objective = NCMIObjective(classes, dim)
    features, labels = torch.randn(batch, dim, requires_grad=True), torch.randint(classes, (batch,))
    times: dict[str, list[float]] = {"whole": [], "half": []}
    for _ in range(repeats):
        for name, count in (("whole", batch), ("half", batch // 2)):
            begun = time.perf_counter()
            objective.loss(features[:count], labels[:count]).backward()
            times[name].append(time.perf_counter() - begun)
    whole, half = (sorted(times[name]) for name in ("whole", "half"))
    ratios = sorted(h / w for h, w in zip(times["half"], times["whole"], strict=True))
    print(
        f"loss of {batch} × {dim}, {classes} classes: whole {whole[len(whole) // 2]:.2f} s, half "
        f"{half[len(half) // 2]:.2f} s; half/whole {ratios[0]:.2f} … {ratios[len(ratios) // 2]:.2f} … {ratios[-1]:.2f} "
        f"over {repeats} repeats, one thread"
    )


def make_images(folder: Path, classes: int, count: int) -> None:
    """JPEGs of 96 pixels, smooth and in a color of their class, as many for each class."""
    draw = np.random.default_rng(0)
    for label in range(classes):
        place = folder / f"class_{label:03d}"
        place.mkdir(parents=True)
        color = draw.integers(0, 256, 3)
        for number in range(count):
            pixels = (draw.integers(0, 256, (8, 8, 3)) + color) // 2
            image = Image.fromarray(pixels.astype(np.uint8)).resize((96, 96), Image.Resampling.BICUBIC)
            image.save(place / f"{number}.jpg", quality=90)


def speed(root: Path, repeats: int) -> list[float]:
    """Bar: 1.6. Returns the ratios of seconds an epoch, one process over two, a repeat each."""
    make_images(root / "images", 100, 25)
    fixed = ("--training.image-sizes", "64", "--training.epochs", "3", "--training.readouts", "own")
    words = ["train", str(root / "images"), "--recipe", "imagenet.tiny", *fixed, "--data.readers", "0"]
    words += ["--training.threads", "1", "--training.accelerator", "cpu"]
    ratios = []
    for repeat in range(repeats):
        seconds = {}
        for processes in (1, 2) if repeat % 2 == 0 else (2, 1):
            at = root / f"run-{repeat}-{processes}"
            code, out = run(torchrun([*words, "--out", str(at)], processes=processes), root / "log")
            assert code == 0, out
            epochs = [json.loads(line)["seconds"] for line in (at / "metrics.jsonl").read_text().splitlines()]
            seconds[processes] = min(epochs[1:])  # the first one warms up
        ratios.append(seconds[1] / seconds[2])
        print(f"an epoch: {seconds[1]:.1f} s by one, {seconds[2]:.1f} s by two: {ratios[-1]:.2f} times", flush=True)
    ordered = sorted(ratios)
    print(f"{ordered[len(ordered) // 2]:.2f} times ({ordered[0]:.2f} … {ordered[-1]:.2f}; {repeats} repeats)")
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("equal", "killed", "resized", "signals", "lost", "share", "speed"))
    parser.add_argument("--objectives", nargs="+", default=["ncmi", "cross_entropy", "supcon"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=10.0)
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=5, help="of the speed")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if options.what == "equal":
            equal(root, options.objectives)
        elif options.what in ("killed", "resized"):
            for objective in options.objectives:
                if options.what == "killed":
                    killed(root / objective, options.seed, objective, options.processes)
                else:
                    resized(root / objective, options.seed, objective)
        elif options.what == "signals":
            signals(root)
        elif options.what == "lost":
            lost(root, options.timeout)
        elif options.what == "speed":
            speed(root, options.repeats)
        else:
            share(options.batch, 1000, 2048, 7)


if __name__ == "__main__":
    main()
